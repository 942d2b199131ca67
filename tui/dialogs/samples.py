"""Many continuations drawn at once, with what they share shown once."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Label, Tree
from textual.widgets.tree import TreeNode

from engine.base.errors import InputError
from engine.base.language import _, counted
from engine.base.plain import one_line
from engine.generation.branches import Shared, merged
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Failed, Stepped
from engine.job import Job
from tui.screens import Dialog
from tui.sentences import key
from tui.widgets.footer import Footer
from tui.widgets.hint import Hint, say

MOST = 64
MOST_TOKENS = 400


class SamplesDialog(Dialog[tuple[Stepped, ...] | None]):
    """Gives back the steps of the one that is to become a branch.

    Args:
        lane: its letter.
        config: of the lane; where it uses no chance, continuations are drawn at its temperature.
        draw: begins a run with these configurations from where the lane stands.
    """

    def __init__(
        self, lane: str, config: GenerationConfig, draw: Callable[[Sequence[GenerationConfig]], Job[Event]]
    ) -> None:
        super().__init__()
        self._lane = lane
        self._config = config
        self._draw = draw
        self._job: Job[Event] | None = None
        self._steps: list[list[Stepped]] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="samples", classes="dialog"):
            with Horizontal(classes="sample-settings"):
                yield Label(_("continuations"))
                yield Input("8", id="sample-count", compact=True)
                yield Label(_("tokens each"))
                yield Input("20", id="sample-length", compact=True)
                yield Label(self._settings(0, 1).summary, id="sample-how")
            yield Tree[int]("", id="sample-tree")
            yield Hint(id="sample-says")
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#samples").border_title = _("Sample many · lane {lane}", lane=self._lane)
        self.query_one(Tree).show_root = False
        say(self, _("Enter in a field draws; enter on a line makes it a branch of the lane."))

    def _settings(self, index: int, length: int) -> GenerationConfig:
        """The lane's settings with chance and another seed for each."""
        config = self._config
        return replace(
            config,
            strategy="sample",
            top_k=None if config.strategy == "contrastive" else config.top_k,  # there it counts candidates
            max_new_tokens=length,
            stop=(),
            seed=(config.seed or 0) + index,
        )

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            count = self._number("sample-count", _("continuations"), MOST)
            length = self._number("sample-length", _("tokens each"), MOST_TOKENS)
        except InputError as error:
            say(self, str(error), wrong=True)
            return
        self._steps = [[] for _ in range(count)]
        self._job = self._draw([self._settings(index, length) for index in range(count)])
        self._follow(self._job)

    def _number(self, field: str, name: str, most: int) -> int:
        text = self.query_one(f"#{field}", Input).value.strip()
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise InputError(
                _("{name} is {text!r}; allowed: a whole number from 1 to {most}", name=name, text=text, most=most)
            )
        return int(text)

    @work(group="samples", exclusive=True)
    async def _follow(self, job: Job[Event]) -> None:
        failed = False
        async for frame in job.frames(0.1):
            for event in frame:
                if isinstance(event, Stepped):
                    self._steps[event.lane].append(event)
                elif isinstance(event, Failed):
                    failed = True
                    say(self, str(event.error), wrong=True)
            if not failed:
                say(
                    self,
                    counted(
                        "drawing: {count} token · {leave} stops",
                        "drawing: {count} tokens · {leave} stops",
                        sum(map(len, self._steps)),
                        leave=key("dialogs.leave"),
                    ),
                )
        self._fill()
        if not failed:
            different = len({tuple(step.token.id for step in steps) for steps in self._steps})
            stopped = _("stopped: ") if job.cancelled else ""
            say(
                self,
                _(
                    "{stopped}{count} continuations, {different} different · 3× is shared by three",
                    stopped=stopped,
                    count=len(self._steps),
                    different=different,
                ),
            )

    def _fill(self) -> None:
        widget: Tree[int] = self.query_one(Tree)
        widget.clear()

        def add(under: TreeNode[int], shared: Shared) -> None:
            label = Text(f"{shared.count:>2}× ", style="bold" if shared.count > 1 else "dim", no_wrap=True)
            label.append(one_line(shared.text), style="")
            node = under.add(label, data=shared.members[0], expand=True)
            node.allow_expand = bool(shared.following)
            for following in shared.following:
                add(node, following)

        for shared in merged([[step.token for step in steps] for steps in self._steps]):
            add(widget.root, shared)
        widget.root.expand()
        widget.focus()

    def on_tree_node_selected(self, event: Tree.NodeSelected[int]) -> None:
        event.stop()
        if event.node.data is not None and (self._job is None or self._job.done):
            self.dismiss(tuple(self._steps[event.node.data]))

    def action_leave(self) -> None:
        if self._job is not None and not self._job.done:
            self._job.cancel()
        else:
            self.dismiss(None)
