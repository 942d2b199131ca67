"""The Inside view: where a lane's logits come from, looked at in five ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Static

from engine.base.language import N_, _
from engine.lab import Lab
from tui.actions import bindings
from tui.actions.inside import PICTURES
from tui.panes.lane_lab import LaneText
from tui.sentences import key, sentence
from tui.widgets.hint import Hint, say

if TYPE_CHECKING:
    from tui.panes.inside_lane import InsideLane

# What each picture must not be read as.
CAVEATS = {
    "lens": N_("What the output layer would say to this vector, not what the model thinks."),
    "attention": N_(
        "A weight is no cause: what matters, {inside.occlusion} measures. {attention.by_value} "
        "shows what a weight moves."
    ),
    "attribution": N_("The direct way to the logits only, with the final norm's scale held as it is."),
    "occlusion": N_("A measured cause: the text is run once more without each token."),
    "patching": N_("A measured cause: this text's vector is enough there, made there or not."),
}


class InsidePane(Vertical, can_focus=True):
    """Lens, attention, attribution, occlusion and patching of one lane, or of both.

    Attributes:
        picture: which of them.
        lane: whose text is looked at.
        both: whether both lanes are.
        opened: whether the view was open once.
    """

    BINDINGS = bindings("inside")

    @dataclass
    class Pointed(Message):
        """A lane is looked at at another position of its text."""

        lane: int
        position: int

    @dataclass
    class Off(Message):
        """Lane B is to run with this intervention, and else as lane A."""

        intervention: str

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="inside")
        self.picture = "lens"
        self.lane = 0
        self.both = False
        self.opened = False
        self._mounting = False
        self._wanted: tuple[str, int | None] | None = None
        self._texts: Sequence[LaneText] = (LaneText((), 0), LaneText((), 0))
        self._lab = lab
        self.lanes: tuple[InsideLane, ...] = ()

    async def open(self) -> None:
        """Import and mount what the view is made of, once: the lab's first frame does not wait for it."""
        if not self._mounting:
            self._mounting = True
            self.focus()  # keys are for what is being opened, and wait for it
            from tui.panes.inside_lane import InsideLane

            self.lanes = (InsideLane(self._lab, 0, self._point), InsideLane(self._lab, 1, self._point))
            await self.mount(
                Static(id="inside-pictures"), Horizontal(*self.lanes, id="inside-lanes"), Hint(id="inside-says")
            )
            self.opened, self.can_focus = True, False

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While it is being opened no key does anything yet."""
        return self.opened

    @property
    def running(self) -> bool:
        return self.opened and any(lane.busy for lane in self.lanes)

    def stop(self) -> bool:
        """Stop what is computed; whether anything was."""
        stopped = [lane for lane in self.lanes if self.opened and lane.stop()]
        for lane in stopped:
            lane.draw()
        return bool(stopped)

    def forget(self) -> None:
        """Another model is there."""
        if self.opened:
            for lane in self.lanes:
                lane.forget()

    def show(self, texts: Sequence[LaneText], lane: int) -> None:
        """Look at what the lanes have so far, one of them where not both are shown."""
        self._texts, self.lane = texts, lane
        if self.opened:
            same = [one.id for one in texts[lane].tokens] == [one.id for one in self.lanes[lane].tokens]
            stays = same and texts[lane].cursor is None and texts[lane].tokens
            self._draw(self.lanes[lane].position if stays else texts[lane].position)
            if self._wanted is not None:
                self.look(*self._wanted)

    def look(self, picture: str, position: int | None = None, *, focus: bool = True) -> None:
        """Open a picture, at a position of the text, and give it the keys."""
        self._wanted = None if self.opened else (picture, position)
        if not self.opened:
            return
        self.picture = picture
        self._draw(self.lanes[self.lane].position if position is None else position)
        if focus:
            self.focus_picture()

    def focus_picture(self) -> None:
        """Give the keys to the open picture."""
        self.lanes[self.lane].focus_picture()

    def _draw(self, position: int) -> None:
        self.set_class(self.both, "both")
        for one in self.lanes:
            one.display = self.both or one.lane == self.lane
            if one.display:
                one.look(self._texts[one.lane], position, self.picture)
        self._tell()

    def _tell(self) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        for name, title in PICTURES.items():
            style = "bold reverse" if name == self.picture else "dim"
            line.append(" " if line else "")
            line.append(f" {key(f'inside.{name}')} {_(title)} ", style=style)
        self.query_one("#inside-pictures", Static).update(line, layout=False)
        say(self, sentence(_(CAVEATS[self.picture])))

    def _point(self, lane: int, position: int) -> None:
        """A cursor goes to a position: of both lanes, where both are shown."""
        self.lane = lane
        for one in self.lanes:
            if one.display:
                one.look(self._texts[one.lane], position, self.picture)
        self.post_message(self.Pointed(lane, position))

    def possible(self, action: str) -> bool:
        """Whether an action can do something now."""
        if action == "off":
            return self.picture in ("attention", "attribution")
        return action not in ("other", "lock") or all(text.tokens for text in self._texts)

    # Keys.

    def action_off(self) -> None:
        """Switch off, for lane B, what is under the cursor."""
        part = self.lanes[self.lane].part
        if part is None:
            self.notify(
                sentence(
                    _("Point at a head first: {inside.attention} shows their map, {inside.attribution} their shares.")
                ),
                severity="warning",
            )
        else:
            self.post_message(self.Off(f"{part} off"))

    def action_picture(self, name: str) -> None:
        self.look(name)

    def action_next_picture(self) -> None:
        names = list(PICTURES)
        self.look(names[(names.index(self.picture) + 1) % len(names)])

    def action_lock(self) -> None:
        """Both lanes side by side, or one."""
        self.both = not self.both
        self._draw(self.lanes[self.lane].position)
        self.focus_picture()

    def action_other(self) -> None:
        """The other lane's text."""
        position = self.lanes[self.lane].position
        self.lane = 1 - self.lane
        self._draw(position)
        self.focus_picture()
