"""The line below the lanes: where they part, which knob makes one wild, and what its colours mean."""

from collections.abc import Sequence

from rich.text import Text
from textual.widgets import Static

from engine.base.language import _
from engine.generation.branches import BranchTree
from engine.generation.config import PUBLISHED_TOP_K, GenerationConfig
from engine.generation.wide import let_in
from tui.panes.lane_states import NAMES
from tui.sentences import key
from tui.style.colours import MODES, legend, palette


class Legend(Static):
    """Says what is to be said of both lanes, in one line."""

    def __init__(self) -> None:
        super().__init__(id="legend")
        self._mode = MODES[0]
        self._parted: int | None = None
        self._by_text = False
        self._wild = ""
        self._drafted = self._ruled = False

    def on_mount(self) -> None:
        self._draw()

    def colour(self, mode: str) -> None:
        """Tokens are coloured by this mode, one of `tui.style.colours.MODES` or `OPINIONS`."""
        self._mode = mode
        self._draw()

    def part(self, place: int | None, by_text: bool) -> None:
        """The token at which the lanes part; as texts, where their tokens cannot be compared."""
        if place != self._parted:
            self._parted, self._by_text = place, by_text
            self._draw()

    def say_what_is_wild(self, trees: Sequence[BranchTree], configs: Sequence[GenerationConfig], running: bool) -> None:
        """Which knob lets improbable tokens into a lane, until it is turned."""
        said = ""
        for lane, tree in enumerate(trees):
            branch = tree.shown
            found = let_in(branch) if branch is not None and not running else None
            if branch is not None and found is not None and configs[lane].top_k == branch.config.top_k:
                said = _(
                    "k {k} makes {lane} wild: {count} of {total} below rank {rank} · {key}",
                    k=branch.config.top_k,
                    lane=NAMES[lane],
                    count=found[0],
                    total=found[1],
                    rank=PUBLISHED_TOP_K,
                    key=key("edit_b" if lane else "edit_a"),
                )
        if said != self._wild:
            self._wild = said
            self._draw()

    def say_what_is_guessed(self, trees: Sequence[BranchTree]) -> None:
        """What underlined and dim tokens are, where a lane was written with a draft or under a grammar."""
        configs = [tree.shown.config for tree in trees if tree.shown is not None]
        drafted = any(config.draft is not None for config in configs)
        ruled = any(config.constraint is not None for config in configs)
        if (drafted, ruled) != (self._drafted, self._ruled):
            self._drafted, self._ruled = drafted, ruled
            self._draw()

    def _draw(self) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        if self._parted is not None:
            said = (
                _(" the texts part at lane A's token {place}", place=self._parted + 1)
                if self._by_text
                else _(" the lanes part at token {told_parted}", told_parted=self._parted + 1)
            )
            line.append(said, style="bold underline")
            line.append("  ·", style="dim")
        if self._drafted:
            line.append(" ").append(_("guessed by the draft"), style="underline")
            line.append("  ·", style="dim")
        if self._ruled:
            line.append(" ").append(_("dim: no other was allowed"), style="dim")
            line.append("  ·", style="dim")
        if self._wild and self._mode == MODES[0]:
            line.append(f" {self._wild}", style="dim")
        elif self._mode == MODES[0]:
            said = _(" colour parts neighbouring tokens · {colour} colours by surprise", colour=key("lanes.colour"))
            line.append(said, style="dim")
        else:
            line.append_text(legend(self._mode, palette(self.app)))
        self.update(line, layout=False)
