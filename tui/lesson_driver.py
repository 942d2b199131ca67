"""What a lesson's live part does with the real panes."""

from typing import TYPE_CHECKING

from textual.widgets import TabbedContent

from engine.lessons.lesson import Live, settings
from tui.panes.generate import GeneratePane
from tui.panes.prompt import PromptPane
from tui.panes.prompts import PromptsPane
from tui.panes.timing import TimingPane
from tui.panes.tokens import TokensPane, TokenTable

if TYPE_CHECKING:
    from tui.app import LogitlabApp


def prepare(app: "LogitlabApp", live: Live) -> None:
    """Put prompt, configurations and measurement as the page wants them, and open its view."""
    if live.prompt is not None:
        app.query_one(PromptPane).show(live.prompt)
    pane = app.query_one(GeneratePane)
    for lane, (given, default) in enumerate(((live.a, "greedy"), (live.b, "creative"))):
        if given is not None:
            pane.configure(lane, settings(given, default))
    if live.view == "timing":
        timing = app.query_one(TimingPane)
        timing.propose(live.lengths, live.repeats, cacheless=live.cacheless, chart=live.chart)
    app.query_one(TabbedContent).active = f"{live.view}-tab"


def look(app: "LogitlabApp", live: Live) -> bool:
    """Put the cursor where the page wants it; False while there is nothing there yet."""
    match live.look:
        case "lane-a" | "lane-b" | "inspector":
            pane = app.query_one(GeneratePane)
            lane = 1 if live.look == "lane-b" else 0
            return pane.look_at(lane, live.at, inspector=live.look == "inspector")
        case "tokens":
            table = app.query_one(TokenTable)
            if not app.prompt_tokens or live.prompt not in (None, app.tokenized):
                return False
            app.query_one(TokensPane).point(live.at or 0)
            table.point(live.at or 0)
            table.focus()
        case "prompt":
            app.query_one(PromptPane).focus()
        case "prompts":
            app.query_one(PromptsPane).table.focus()
        case "variants":
            app.query_one("#variant-table").focus()
        case "timing":
            app.query_one("#timing-table").focus()
    return True
