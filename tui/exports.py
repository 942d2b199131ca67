"""What can be exported from each pane."""

from collections.abc import Sequence
from functools import partial

from engine.base.language import _
from engine.export import inside, patching, sheets
from engine.export.report import report
from engine.sessions import session
from engine.text.conversation import Conversation, to_json, to_json_lines
from engine.text.tokenizer import Tokenizer
from engine.timing import charts
from tui.dialogs.export import Exportable, of_sheet
from tui.panes.lane_states import NAMES
from tui.workbench import Workbench

CANDIDATES = 1_000


def exportables(bench: Workbench, tokenizer: Tokenizer | None, opened: session.Session) -> Sequence[Exportable]:
    """Everything that can be exported now, what belongs to the open view first.

    Args:
        opened: the session as it is now.
    """
    screen = bench.app.export_screenshot(title="logitlab")
    tokens = bench.prompt_area.tokens
    groups = {
        "generate": _lanes(bench),
        "tokens": [of_sheet(sheets.tokens_sheet(tokens), "tokens")] if tokens else [],
        "prompts": _prompts(bench),
        "timing": _timing(bench),
        "inside": _inside(bench),
    }
    everything = [
        Exportable(
            _("The whole session: a lab report, or the file that opens again"),
            "session",
            {"md": lambda: report(opened, tokenizer), "json": lambda: session.to_json(opened, indent=1) + "\n"},
        ),
        Exportable(_("The screen"), "screen", {"svg": lambda: screen}),
    ]
    first = groups.pop(bench.view, [])
    return [*first, *(item for group in groups.values() for item in group), *everything]


def _lanes(bench: Workbench) -> list[Exportable]:
    items = _messages(bench)
    _configs, trees = bench.generate.state
    for lane, tree in zip(bench.generate.lanes, trees):
        if lane.steps:
            name = NAMES[lane.lane]
            config = lane.config if tree.shown is None else tree.shown.config  # which wrote it; the lane's may be newer
            sheet = sheets.lane_sheet(name, config, lane.steps, lane.prefill_seconds)
            items.append(of_sheet(sheet, f"lane-{name.lower()}"))
    inspector = bench.inspector
    if (candidates := inspector.candidates(CANDIDATES)) is not None:
        items.append(of_sheet(sheets.candidates_sheet(str(inspector.border_title), candidates), "candidates"))
    return items


def _messages(bench: Workbench) -> list[Exportable]:
    """The conversation as messages, of each lane where each has its own."""
    threads = bench.prompt_area.saved_threads
    items = []
    for name, thread in zip(NAMES, threads):
        apart = len(threads) > 1
        title = (
            _("The conversation of lane {lane} as messages", lane=name) if apart else _("The conversation as messages")
        )
        forms = {"json": partial(_json, thread), "jsonl": partial(to_json_lines, [thread])}
        items.append(Exportable(title, f"messages-{name.lower()}" if apart else "messages", forms))
    return items


def _json(thread: Conversation) -> str:
    return to_json(thread) + "\n"


def _prompts(bench: Workbench) -> list[Exportable]:
    pane, variants = bench.prompts, bench.variants
    items = []
    if pane.lengths:
        items.append(of_sheet(sheets.lengths_sheet(pane.lengths, pane.others), "lengths"))
    if variants.results:
        items.append(of_sheet(sheets.variants_sheet(variants.results), "variants"))
    return items


def _timing(bench: Workbench) -> list[Exportable]:
    pane = bench.timing
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


def _inside(bench: Workbench) -> list[Exportable]:
    """What is seen of the lanes that the Inside view shows, the open picture first."""
    pane, found = bench.inside, []
    for lane in pane.lanes if pane.opened else ():
        tokens, name, tokenizer = lane.tokens, NAMES[lane.lane].lower(), lane.tokenizer
        if tokenizer is None:
            continue
        pictures: dict[str, list[Exportable]] = {}
        if (lens := lane.lens.whole) is not None:
            sheet = inside.lens_sheet(lens, tokens, tokenizer)
            svg = partial(inside.lens_svg, lens, tokens, tokenizer, lane.lens.measure)
            pictures["lens"] = [of_sheet(sheet, f"lens-{name}", svg)]
        if (attention := lane.attention.attention) is not None:
            sheet, svg = inside.attention_sheet(attention, tokens), partial(inside.attention_svg, attention, tokens)
            heads, measure = lane.attention.heads, lane.attention.measure
            map_svg = partial(inside.heads_svg, heads, attention.at, measure)
            pictures["attention"] = [
                of_sheet(sheet, f"attention-{name}", svg),
                of_sheet(inside.heads_sheet(heads, attention.at), f"heads-{name}", map_svg),
            ]
        if (attribution := lane.attribution.attribution) is not None:
            sheet = inside.attribution_sheet(attribution, tokens, tokenizer)
            svg = partial(inside.attribution_svg, attribution, tokenizer)
            pictures["attribution"] = [of_sheet(sheet, f"attribution-{name}", svg)]
        if (occlusion := lane.occlusion.occlusion) is not None:
            before = tokens[: len(occlusion.without)]
            sheet = inside.occlusion_sheet(occlusion, before, tokenizer)
            svg = partial(inside.occlusion_svg, occlusion, before, tokenizer)
            pictures["occlusion"] = [of_sheet(sheet, f"occlusion-{name}", svg)]
        if (patched := lane.patching.whole) is not None:
            pair = lane.patching.clean, lane.patching.corrupt
            svg = partial(patching.patch_svg, patched, *pair, tokenizer)
            pictures["patching"] = [of_sheet(patching.patch_sheet(patched, *pair, tokenizer), f"patching-{name}", svg)]
        found += [*pictures.pop(pane.picture, []), *(item for items in pictures.values() for item in items)]
    return found
