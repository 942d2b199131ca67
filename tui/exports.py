"""What there is to take home from each pane."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.base.language import _
from engine.export import sheets
from engine.export.report import report
from engine.sessions import session
from engine.timing import charts
from tui.dialogs.export import Exportable, of_sheet
from tui.panes.generate import GeneratePane
from tui.panes.inspector import Inspector
from tui.panes.lanes import NAMES
from tui.panes.prompts import PromptsPane
from tui.panes.timing import TimingPane
from tui.panes.variants import VariantsPane

if TYPE_CHECKING:
    from tui.app import LogitlabApp

CANDIDATES = 1_000


def exportables(app: "LogitlabApp", opened: session.Session, view: str) -> Sequence[Exportable]:
    """Everything that there is, what belongs to the open view first.

    Args:
        opened: the session as it is now.
    """
    screen = app.export_screenshot(title="logitlab")
    tokenizer = app.lab.tokenizer
    groups = {
        "generate-tab": _lanes(app),
        "tokens-tab": [of_sheet(sheets.tokens_sheet(app.prompt_tokens), "tokens")] if app.prompt_tokens else [],
        "prompts-tab": _prompts(app),
        "timing-tab": _timing(app),
    }
    everything = [
        Exportable(
            _("The whole session: a lab report, or the file that opens again"),
            "session",
            {"md": lambda: report(opened, tokenizer), "json": lambda: session.to_json(opened, indent=1) + "\n"},
        ),
        Exportable(_("The screen"), "screen", {"svg": lambda: screen}),
    ]
    first = groups.pop(view, [])
    return [*first, *(item for group in groups.values() for item in group), *everything]


def _lanes(app: "LogitlabApp") -> list[Exportable]:
    items = []
    for lane in app.query_one(GeneratePane).lanes:
        if lane.steps:
            name = NAMES[lane.lane]
            sheet = sheets.lane_sheet(name, lane.config, lane.steps, lane.prefill_seconds)
            items.append(of_sheet(sheet, f"lane-{name.lower()}"))
    inspector = app.query_one(Inspector)
    if (candidates := inspector.candidates(CANDIDATES)) is not None:
        items.append(of_sheet(sheets.candidates_sheet(str(inspector.border_title), candidates), "candidates"))
    return items


def _prompts(app: "LogitlabApp") -> list[Exportable]:
    pane, variants = app.query_one(PromptsPane), app.query_one(VariantsPane)
    items = []
    if pane.lengths:
        items.append(of_sheet(sheets.lengths_sheet(pane.lengths, pane.others), "lengths"))
    if variants.results:
        items.append(of_sheet(sheets.variants_sheet(variants.results), "variants"))
    return items


def _timing(app: "LogitlabApp") -> list[Exportable]:
    pane = app.query_one(TimingPane)
    shown = pane.shown
    if shown is None or not shown.runs:
        return []
    seen = tuple(pane.measurements[: len(pane.measurements) - pane.place])

    def picture() -> str:
        return charts.as_svg(charts.as_text(pane.chart, seen), shown.title)

    runs = sheets.runs_sheet(shown)
    return [
        of_sheet(sheets.measurement_sheet(shown), "timing"),
        of_sheet(runs, "runs"),
        Exportable(_("Chart: {chart}", chart=pane.chart), f"chart-{pane.chart}", {"svg": picture}),
    ]
