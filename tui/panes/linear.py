"""Each event of a run as a line of plain text, one below the other, for screen readers."""

from collections.abc import Iterator, Sequence

from textual.widgets import Log

from engine.base.language import _, counted
from engine.base.plain import number, one_line, percent
from engine.generation.events import DRAFT_OUTCOMES, Event, Failed, Finished, Noted, Prefilled, Started, Stepped, ended
from engine.text.token import drawn
from tui.panes.lane_states import NAMES
from tui.sentences import sentence

MOST_LINES = 10_000


class LinearPane(Log):
    """Takes the place of the views. Lines are only added, at the end, and none of them changes."""

    def __init__(self) -> None:
        super().__init__(id="linear", max_lines=MOST_LINES)
        self.border_title = _("Linear · each event as a line")

    def begin(self, written: Sequence[Sequence[Stepped]]) -> None:
        """Begin anew, with what the lanes have written so far."""
        self.clear()
        self.write_line(sentence(_("{run} runs both lanes, {step} takes one step, {stop} stops.")))
        for lane, steps in enumerate(written):
            self.write_lines(step_line(lane, step) for step in steps)

    def hear(self, shown: Sequence[int], events: Sequence[Event]) -> None:
        """Add what a run did; `shown` says which lane on the screen each of its lanes is."""
        self.write_lines(line for event in events for line in lines_of(shown, event))


def lines_of(shown: Sequence[int], event: Event) -> Iterator[str]:
    """What is to be said of an event, in lines."""
    match event:
        case Started():
            for index, config in enumerate(event.configs):
                yield _("lane {lane} begins: {summary}", lane=NAMES[shown[index]], summary=config.summary)
        case Prefilled():
            yield counted("the prompt is read, {count:,} token", "the prompt is read, {count:,} tokens", event.tokens)
        case Stepped():
            yield step_line(shown[event.lane], event)
        case Noted():
            yield one_line(event.text)
        case Finished():
            yield _("lane {lane} ends: {reason}", lane=NAMES[shown[event.lane]], reason=ended(event.reason))
        case Failed():
            yield one_line(str(event.error))


def step_line(lane: int, step: Stepped) -> str:
    """`lane A, step 3: ·the, 31.0 %, rank 1`."""
    said = _(
        "lane {lane}, step {step}: {token}, {probability}, rank {rank}",
        lane=NAMES[lane],
        step=step.index + 1,
        token=drawn(step.token.label),
        probability=percent(step.raw_probability),
        rank=number(step.rank),
    )
    if step.draft is not None and step.draft.outcome != "none":
        said += ", " + _(DRAFT_OUTCOMES[step.draft.outcome])
    if step.by_grammar:
        said += _(", the only one that the grammar allows")
    return said + (_(", given by hand") if step.forced else "")
