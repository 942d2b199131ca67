"""The keys of the Inside view."""

from engine.base.language import N_
from tui.actions.action import Action, Line, Where

# The pictures of the Inside view, by their keys from 1 on.
PICTURES = {
    "lens": N_("lens"),
    "attention": N_("attention"),
    "attribution": N_("why this one"),
    "occlusion": N_("which words"),
    "patching": N_("where it is held"),
}

ACTIONS: dict[Where, tuple[Action, ...]] = {
    "inside": (
        *(
            Action(f"picture('{name}')", str(number), called=name, does=PICTURES[name])
            for number, name in enumerate(PICTURES, start=1)
        ),
        Action(
            "next_picture",
            "p",
            N_("picture"),
            does=N_("The next picture"),
            rank=2,
            help=Line(
                0,
                "{lens} … {patching} · {next_picture}",
                N_("lens, attention, why this token, which words, where it is held · the next one"),
            ),
        ),
        Action(
            "lock",
            "l",
            N_("both lanes"),
            does=N_("Both lanes side by side, or one"),
            rank=3,
            help=Line(1, "{lock} · {other}", N_("both lanes side by side, for the same position · the other lane")),
        ),
        Action("other", "a", N_("other lane"), does=N_("The other lane"), rank=3),
        Action(
            "off",
            "o",
            N_("off in B"),
            does=N_("Run lane B as lane A, with what is under the cursor switched off"),
            rank=3,
            help=Line(7, "{off}", N_("attention, why this one: lane B as lane A without what is under the cursor")),
        ),
    ),
    "grid": (
        Action(
            "move(0, -1)",
            "left",
            help=Line(2, "{left} {right} {up} {down}", N_("another position · another layer, head or part")),
            called="left",
        ),
        Action("move(0, 1)", "right", called="right", pair="left", does=N_("Another position")),
        Action("move(1, 0)", "up", called="up"),
        Action("move(-1, 0)", "down", called="down", pair="up", does=N_("Another layer, head or part")),
        Action("page(1)", "pageup", called="page_up"),
        Action("page(-1)", "pagedown", called="page_down", pair="page_up", does=N_("A page up or down")),
        Action("jump(0)", "home", called="first"),
        Action("jump(-1)", "end", called="last", pair="first", does=N_("The first, the last")),
    ),
    "bars": (
        Action("move(-1)", "up", called="up"),
        Action("move(1)", "down", called="down", pair="up", does=N_("Another row")),
        Action("page(-1)", "pageup", called="page_up"),
        Action("page(1)", "pagedown", called="page_down", pair="page_up", does=N_("A page up or down")),
        Action("go(0)", "home,ctrl+home", called="first"),
        Action("go(-1)", "end,ctrl+end", called="last", pair="first", does=N_("The first, the last")),
        Action("choose", "enter", does=N_("What the row is made of")),
    ),
    "lens": (
        Action(
            "measure",
            "c",
            N_("colour"),
            does=N_("Colour by the next measure"),
            help=Line(3, "{measure} · {rank}", N_("lens: colour by probability, entropy, rank · the chart by rank")),
        ),
        Action("rank", "r", N_("chart by rank"), does=N_("The chart by rank, or by probability")),
        Action(
            "track",
            "t",
            N_("follow a token"),
            does=N_("Follow any token through the layers"),
            help=Line(4, "{track}", N_("lens: follow any token through the layers; attribution: compare any two")),
        ),
    ),
    "attention": (
        Action(
            "kind",
            "w",
            N_("whose weights"),
            does=N_("Weights of a head, their means, the rollout"),
            help=Line(
                5,
                "{kind} · {by_value} · {first}",
                N_("attention: head, means, rollout · by what it moves · the first token"),
            ),
        ),
        Action("by_value", "v", N_("by value"), does=N_("Weigh by what is moved, or not")),
        Action("first", "x", N_("first token"), does=N_("With the first token, or without")),
        Action("measure", "c", N_("colour"), does=N_("Colour by the next measure")),
    ),
    "attribution": (
        Action(
            "order",
            "s",
            N_("order"),
            does=N_("By size, or in the order of layers"),
            help=Line(6, "{order} · enter", N_("attribution: by size or in the order of layers · a layer's heads")),
        ),
        Action("tokens", "t", N_("two tokens"), does=N_("Compare any two tokens")),
    ),
    "patching": (
        Action(
            "ask",
            "t",
            N_("other prompt"),
            does=N_("Map where another prompt's answer turns"),
            help=Line(
                8, "{ask}", N_("where it is held: another prompt, with this text's vectors put in, place by place")
            ),
        ),
    ),
}
