"""The keys of the inspector and its candidates."""

from engine.base.language import N_
from tui.actions.action import Action, Line, Where

ACTIONS: dict[Where, tuple[Action, ...]] = {
    "inspector": (
        Action(
            "stage(1)",
            "s",
            N_("stage"),
            palette=N_("Next stage in the inspector"),
            called="next_stage",
            rank=2,
            help=Line(1, "{next_stage}", N_("walk the stages: raw, penalty, temperature, truncation, pick")),
        ),
        Action("stage(-1)", "S", called="previous_stage", does=N_("Previous stage in the inspector")),
        Action(
            "knob(-1)",
            "left",
            help=Line(
                2,
                "{previous_knob} {next_knob} · {more} {less}",
                N_("choose a knob, turn it: the bars follow at once, nothing is run"),
            ),
            called="previous_knob",
        ),
        Action(
            "knob(1)",
            "right",
            N_("knob"),
            called="next_knob",
            pair="previous_knob",
            does=N_("Choose a knob"),
            rank=3,
        ),
        Action("turn(1)", "plus,equals_sign", called="more"),
        Action(
            "turn(-1)", "minus,underscore", N_("turn"), called="less", pair="more", does=N_("Turn the knob"), rank=3
        ),
        Action("reset", "0", N_("as it ran"), palette=N_("Inspector: back to how the step ran"), rank=0),
        Action(
            "apply",
            "a",
            N_("use for lane"),
            palette=N_("Use the inspector's settings for the lane"),
            rank=0,
            help=Line(3, "{apply} · {reset}", N_("use the knobs for the lane · back to how it ran")),
        ),
        Action(
            "filter",
            "slash",
            N_("find"),
            palette=N_("Find a token by text or id"),
            called="find",
            rank=2,
            help=Line(4, "{find}", N_("find any token by text or id")),
        ),
        Action(
            "bias(1)",
            "f",
            N_("favour"),
            palette=N_("Favour the candidate"),
            called="favour",
            help=Line(5, "{favour} · {disfavour} · {ban}", N_("favour, disfavour, ban the candidate")),
        ),
        Action("bias(-1)", "d", N_("disfavour"), palette=N_("Disfavour the candidate"), called="disfavour"),
        Action("ban", "x", N_("ban"), palette=N_("Ban the candidate, or allow it again")),
    ),
    "candidates": (
        Action("choose", "enter", N_("branch with this"), does=N_("Go on with the candidate instead"), rank=2),
        Action(
            "move(-1)",
            "up",
            help=Line(
                0,
                "{up} {down} · {choose}",
                N_("any candidate of the vocabulary; {candidates.choose} goes on with it, or opens the rest"),
            ),
            called="up",
        ),
        Action("move(1)", "down", called="down", pair="up", does=N_("Another candidate")),
        Action("page(-1)", "pageup", called="page_up"),
        Action("page(1)", "pagedown", called="page_down", pair="page_up", does=N_("A page up or down")),
        Action("go(0)", "home", called="first"),
        Action("go(-1)", "end", called="last", pair="first", does=N_("The first, the last")),
    ),
}
