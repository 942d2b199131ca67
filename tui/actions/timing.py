"""The keys of the Timing view."""

from engine.base.language import N_
from tui.actions.action import Action, Line, Where

# The charts of the Timing view, by their keys from 1 on.
CHARTS = {
    "length": N_("length"),
    "token": N_("token"),
    "cache": N_("cache"),
    "overlay": N_("overlaid"),
    "transformers": "transformers",
    "lanes": N_("lanes"),
    "latency": N_("latency"),
}

ACTIONS: dict[Where, tuple[Action, ...]] = {
    "timing": (
        *(
            Action(f"chart('{name}')", str(number), called=f"chart_{name}", does=CHARTS[name])
            for number, name in enumerate(CHARTS, start=1)
        ),
        Action(
            "table",
            "0",
            does=N_("The table"),
            help=Line(
                0,
                "{chart_length} … {chart_latency} · {table}",
                N_("charts: length, token, cache, overlaid, transformers, lanes, latency · the table"),
            ),
        ),
        Action(
            "older(1)",
            "left_square_bracket",
            called="older",
            help=Line(1, "{older} {newer} · {remove}", N_("older and newer measurements · forget the one on screen")),
        ),
        Action(
            "older(-1)",
            "right_square_bracket",
            N_("measurement"),
            called="newer",
            pair="older",
            does=N_("An older or a newer measurement"),
            rank=3,
        ),
        Action("remove", "delete", does=N_("Forget the measurement on screen")),
    ),
}
