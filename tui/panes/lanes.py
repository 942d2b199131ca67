"""Two configurations generating side by side."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.geometry import Region
from textual.message import Message
from textual.widgets import Static

from engine.config import GenerationConfig
from engine.events import FinishReason, Stepped
from engine.export import timing
from tui.token_flow import TokenFlow

NAMES = "AB"
REASONS = {
    "length": "reached its length",
    "end_of_text": "end of text",
    "stop_sequence": "stop text",
    "cancelled": "stopped",
}


class LanePane(Vertical):
    """One lane: its text as it grows, its configuration in the title, its speed below."""

    _only_below = False

    class StepPointed(Message):
        """The cursor of a lane is on one of its steps."""

        def __init__(self, lane: int, step: Stepped) -> None:
            self.lane = lane
            self.step = step
            super().__init__()

    def __init__(self, lane: int, config: GenerationConfig) -> None:
        super().__init__(id=f"lane-{NAMES[lane].lower()}", classes="lane")
        self.lane = lane
        self.config = config
        self.steps: list[Stepped] = []
        self.reason: FinishReason | None = None
        self.prefill_seconds = 0.0
        self.running = False
        self._title = ""

    def compose(self) -> ComposeResult:
        yield Static(f"F5 runs · {'F3' if self.lane == 0 else 'F4'} edits this configuration", classes="hint")
        yield TokenFlow()

    def on_mount(self) -> None:
        self.tell()

    def configure(self, config: GenerationConfig) -> None:
        """Show another configuration; what is written stays."""
        self.config = config
        self.tell()

    def start(self, config: GenerationConfig) -> None:
        """Begin an empty run."""
        self.config, self.steps, self.reason, self.running = config, [], None, True
        self.prefill_seconds = 0.0
        flow = self.query_one(TokenFlow)
        flow.cursor = None
        flow.clear()
        self.add_class("begun")
        self.tell()

    def extend(self, steps: list[Stepped]) -> None:
        """Add steps at the end."""
        self.steps += steps
        self.query_one(TokenFlow).extend([step.token for step in steps])

    def finish(self, reason: FinishReason) -> None:
        self.reason, self.running = reason, False
        self.tell()

    @property
    def tokens_per_second(self) -> float:
        return timing(self.prefill_seconds, self.steps[-40:])["tokens_per_second"]

    def on_token_flow_cursor_moved(self, event: TokenFlow.CursorMoved) -> None:
        event.stop()
        self.post_message(self.StepPointed(self.lane, self.steps[event.index]))

    def tell(self) -> None:
        """Bring title and numbers up to date."""
        title = f"{NAMES[self.lane]} · {self.config.summary}"
        if title != self._title:
            self._title = title
            self.border_title = Text(title)
        below = [f"{len(self.steps)}/{self.config.max_new_tokens}"] if self.steps or self.reason else []
        if self.running and not self.steps:
            below = ["reading the prompt…"]
        if self.steps:
            below.append(f"{timing(self.prefill_seconds, self.steps)['tokens_per_second']:.0f} tokens/s")
        if self.reason:
            below.append(REASONS[self.reason])
        with self._drawing_only_below():
            self.border_subtitle = Text(" · ".join(below))

    @contextmanager
    def _drawing_only_below(self) -> Iterator[None]:
        """A new title makes Textual draw the whole lane again; its last row is enough."""
        self._only_below = True
        yield
        self._only_below = False

    def refresh(self, *regions: Region, **what: bool) -> Self:
        if self._only_below and not regions:
            regions = (Region(-1, self.size.height, self.outer_size.width, 1),)
        return super().refresh(*regions, **what)


class LanesPane(Horizontal):
    """Lanes A and B."""

    def __init__(self, a: GenerationConfig, b: GenerationConfig) -> None:
        super().__init__(id="lanes")
        self.lanes = (LanePane(0, a), LanePane(1, b))

    def compose(self) -> ComposeResult:
        yield from self.lanes

    @property
    def tokens_per_second(self) -> float:
        """Of all running lanes together."""
        return sum(lane.tokens_per_second for lane in self.lanes if lane.running or lane.reason)
