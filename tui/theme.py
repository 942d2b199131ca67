"""Colours. Lane A is blue and lane B is orange, here and in every chart."""

from textual.theme import Theme

THEMES = (
    Theme(
        name="logitlab-dark",
        primary="#7aa2f7",
        secondary="#ff9e64",
        accent="#9ece6a",
        warning="#e0af68",
        error="#f7768e",
        success="#9ece6a",
        background="#0f1218",
        surface="#151a22",
        panel="#1d2430",
        foreground="#d5dbe6",
        dark=True,
        variables={"lane-a": "#7aa2f7", "lane-b": "#ff9e64", "border-blurred": "#2c3646"},
    ),
    Theme(
        name="logitlab-light",
        primary="#1f5fbf",
        secondary="#b4530a",
        accent="#2f7d32",
        warning="#8a6100",
        error="#b3261e",
        success="#2f7d32",
        background="#fafafa",
        surface="#f1f3f6",
        panel="#e4e8ee",
        foreground="#1b1f27",
        dark=False,
        variables={"lane-a": "#1f5fbf", "lane-b": "#b4530a", "border-blurred": "#c3cad5"},
    ),
)
