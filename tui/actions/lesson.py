"""The keys of the lesson."""

from engine.base.language import N_
from tui.actions.action import Action, Where

ACTIONS: dict[Where, tuple[Action, ...]] = {
    "lesson": (
        Action("do", "d", N_("do it"), does=N_("Do it in the lab"), rank=1),
        Action("turn(-1)", "left,p,pageup", called="back"),
        Action(
            "turn(1)",
            "right,n,pagedown,space",
            N_("turn"),
            called="next",
            pair="back",
            does=N_("Turn the page"),
            rank=2,
        ),
        Action("hint", "h", N_("hint"), does=N_("A hint"), rank=2),
        Action("practise", "e", N_("exercise"), does=N_("What the model says to the exercise"), rank=2),
    ),
}
