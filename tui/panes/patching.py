"""Where the model holds what decides between two answers: another prompt runs with this text's stream put in."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual import getters, work
from textual.app import ComposeResult
from textual.widgets import Static

from engine.base.errors import InputError
from engine.base.language import _, counted
from engine.base.plain import one_line
from engine.generation.events import Failed
from engine.text.token import Token
from tui.actions import bindings
from tui.panes.lane_lab import LaneLab
from tui.panes.picture import ANEW, LookedAt, Picture, first_token
from tui.sentences import sentence
from tui.style.colours import palette
from tui.widgets.grid import Cell, Grid

if TYPE_CHECKING:
    from engine.inside.patching import Answers, Patching, PatchMap
    from engine.job import Job

CELL_WIDTH = 8


class PatchingPicture(Picture):
    """Layers from bottom to top, positions from left to right; in each cell the effect.

    Attributes:
        clean, corrupt: the two prompts' tokens, of which there is a map.
    """

    BINDINGS = bindings("patching")

    grid = getters.query_one(Grid)

    def __init__(self, lab: LaneLab, pointed: Callable[[int], object]) -> None:
        super().__init__(lab, "patching", pointed)
        self._seen: LookedAt | None = None
        self._answers: Answers | None = None
        self._columns: dict[int, Patching] = {}
        self._rows = 0
        self.clean: Sequence[Token] = ()
        self.corrupt: Sequence[Token] = ()

    def compose(self) -> ComposeResult:
        yield Static(classes="patching-title")
        yield Grid(CELL_WIDTH, lambda row, column: self._describe(), folds=True)
        yield Static(classes="patching-cell")

    @property
    def whole(self) -> "PatchMap | None":
        """The map, once every position is known."""
        if self._answers is None or len(self._columns) < len(self.clean):
            return None
        from engine.inside.patching import patch_map

        return patch_map(self._answers, list(self._columns.values()))

    def show(self, seen: LookedAt | None) -> None:
        """Show another text, or another position of the same: a map stays until the text is another one."""
        before, self._seen = self._seen, seen
        self.grid.folds = self.screen.has_class("-low")
        if seen is None or before is None or before.tokens is not seen.tokens:
            self._clear()
        self._tell()

    def _clear(self) -> None:
        self.stop()
        self._answers, self._columns, self._rows = None, {}, 0
        self.clean = self.corrupt = ()
        self.grid.show((), (), self._cell)
        self.query_one(".patching-cell", Static).update("", layout=False)

    def _tell(self, problem: str = "") -> None:
        title = self.query_one(".patching-title", Static)
        if self._seen is None:
            title.update("")
        elif problem or self._answers is None:
            words = _(
                "{patching.ask} asks for another prompt of as many tokens: it runs with this text's vectors put in, "
                "place by place"
            )
            title.update(Text(problem or sentence(words), style="dim"))
        else:
            a, b = (self._seen.label(id) for id in (self._answers.a, self._answers.b))
            text = Text(_("“{a}” over “{b}”, put into the other prompt", a=a, b=b), style="bold")
            said = _(
                "  difference of the logits {clean:+.2f} here (effect 1), {corrupt:+.2f} there (effect 0)",
                clean=self._answers.clean,
                corrupt=self._answers.corrupt,
            )
            text.append(said, style="dim")
            if len(self._columns) < len(self.clean):
                done, count = len(self._columns), len(self.clean)
                text.append("  " + _("position {done} of {count}…", done=done, count=count), style="dim")
            title.update(text)

    # Computing.

    def action_ask(self) -> None:
        """Ask for the other prompt, and for the two tokens."""
        from tui.dialogs.texts import TextsDialog

        if self._seen is None:
            return
        count = self._seen.position + 1

        fields = [
            (
                _("the other prompt"),
                counted(
                    "of {count:,} token, as this text up to the cursor",
                    "of {count:,} tokens, as this text up to the cursor",
                    count,
                ),
            ),
            (_("token A"), _("empty: this text's most probable one")),
            (_("token B"), _("empty: the other prompt's most probable one")),
        ]
        hint = _("A space in front begins a new word. Enter maps where the difference is.")
        self.app.push_screen(TextsDialog(_("Where it is held"), fields, hint, self._ask))

    def _ask(self, texts: Sequence[str]) -> None:
        """Map where another prompt's answer turns; raises `InputError` for one that does not fit."""
        tokenizer, seen = self._tokenizer, self._seen
        if seen is None:
            raise InputError(_(ANEW))
        from engine.inside.patching import check_lengths

        clean, corrupt = seen.tokens[: seen.position + 1], tokenizer.encode(texts[0])
        if corrupt and len(clean) != len(corrupt):
            raise InputError(
                _(
                    "tokens: {own:,} in this text up to the cursor, {other:,} in the other prompt; change it until "
                    "it has as many",
                    own=len(clean),
                    other=len(corrupt),
                )
            )
        check_lengths([one.id for one in clean], [one.id for one in corrupt])
        a, b = (first_token(self, tokenizer, one) if one else None for one in texts[1:])
        self._clear()
        self.clean, self.corrupt = clean, corrupt
        self._compute(a, b)

    def _compute(self, a: int | None, b: int | None) -> None:
        from engine.inside.patching import patching

        ids = [one.id for one in self.clean], [one.id for one in self.corrupt]

        def body(model: Any, job: "Job[Any]") -> "Iterator[Answers | Patching]":
            return patching(model, *ids, a, b, cancelled=lambda: job.cancelled)

        self._job = self._lab.look(body)
        self._follow(self._job)
        self.refresh_bindings()

    @work(group="patching", exclusive=True)
    async def _follow(self, job: "Job[Any]") -> None:
        problem = ""
        async for event in job:
            if job is not self._job:
                return
            if isinstance(event, Failed):
                problem = str(event.error)
                self._clear()
            elif hasattr(event, "effects"):
                self._columns[event.position] = event
                if not self._rows:
                    self._rows = len(event.effects)
                    rows = [str(row) for row in range(self._rows)]
                    labels = [one_line(token.label) for token in self.corrupt]
                    self.grid.show(rows, labels, self._cell, (self._rows - 1, len(labels) - 1))
                self.grid.refresh()
                self._describe()
            else:
                self._answers = event
            self._tell(problem)
        self.refresh_bindings()  # there is nothing to stop any more

    # A cell.

    def _effect(self, row: int, column: int) -> float | None:
        found = self._columns.get(column)
        return None if found is None or row >= len(found.effects) else found.effects[row]

    def _cell(self, row: int, column: int) -> Cell:
        effect = self._effect(row, column)
        if effect is None:
            return Cell("…", faint=True)
        return Cell(f"{effect:.2f}", palette(self.app).five[max(0, min(4, int(5 * effect)))])

    def _describe(self) -> None:
        row, column = self.grid.cursor
        effect = self._effect(row, column)
        line = Text(no_wrap=True, overflow="ellipsis")
        if effect is not None:
            one, other = (one_line(tokens[column].label) for tokens in (self.clean, self.corrupt))
            line.append(
                _(
                    "layer {row}, position {column}: “{one}” put in for “{other}”",
                    row=row,
                    column=column,
                    one=one,
                    other=other,
                )
            )
            line.append(f"  {effect:+.3f}", style="bold")
        self.query_one(".patching-cell", Static).update(line, layout=False)
