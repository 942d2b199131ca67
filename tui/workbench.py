"""The lab's panes and the views they are in: the one place that names them."""

from dataclasses import replace
from typing import Literal

from textual import events, getters, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Static, TabbedContent, TabPane
from textual.widgets._tabbed_content import ContentTabs

from engine.base.language import _
from engine.lab import Lab
from engine.sessions.session import Session
from tui.panes.generate import GeneratePane
from tui.panes.inside import InsidePane
from tui.panes.inspector import Inspector
from tui.panes.lane_lab import LaneText
from tui.panes.lane_states import NAMES
from tui.panes.lesson import LessonPanel
from tui.panes.linear import LinearPane
from tui.panes.loop_diagram import LoopDiagram
from tui.panes.prompt import PromptPane
from tui.panes.prompt_area import PromptArea
from tui.panes.prompts import PromptsPane
from tui.panes.status import StatusLine
from tui.panes.timing import TimingPane
from tui.panes.tokens import TokensPane, TokenTable
from tui.panes.variants import VariantsPane
from tui.sentences import key, sentence

View = Literal["generate", "tokens", "prompts", "timing", "inside"]
VIEWS: tuple[View, ...] = ("generate", "tokens", "prompts", "timing", "inside")

# Columns and rows below which the panes would show nothing of use.
LEAST_SIZE = (60, 16)
# Columns below which there is room for the lab or the lesson, not for both.
BOTH_COLUMNS = 100


class Workbench(Vertical):
    """Everything above the footer.

    Args:
        lab: what the panes ask.
        session: what they show first.
    """

    status = getters.query_one(StatusLine)
    prompt = getters.query_one(PromptPane)
    prompt_area = getters.query_one(PromptArea)
    generate = getters.query_one(GeneratePane)
    inspector = getters.query_one(Inspector)
    loop_diagram = getters.query_one(LoopDiagram)
    token_table = getters.query_one(TokenTable)
    prompts = getters.query_one(PromptsPane)
    variants = getters.query_one(VariantsPane)
    timing = getters.query_one(TimingPane)
    inside = getters.query_one(InsidePane)
    lesson = getters.query_one(LessonPanel)
    linear = getters.query_one(LinearPane)
    _views = getters.query_one(TabbedContent)

    def __init__(self, lab: Lab, session: Session) -> None:
        super().__init__(id="workbench")
        self._lab = lab
        self._session = session
        self._seen = ""  # the view that was open before
        self._left: Widget | None = None  # had the focus before the prompt
        self._bound_for: Widget | None = None  # has it once its view is open

    def compose(self) -> ComposeResult:
        columns, rows = LEAST_SIZE
        yield StatusLine(id="status")
        yield Static(
            _(
                "The lab needs {columns}×{rows}.\nMake the terminal larger;\n{quit} leaves.",
                columns=columns,
                rows=rows,
                quit=key("quit"),
            ),
            id="too-small",
        )
        with Horizontal(id="bench"):
            with Vertical(id="lab"):
                yield PromptArea(self._lab, self._session.prompt)
                yield LinearPane()
                with TabbedContent(id="views"):
                    with TabPane(_("Generate"), id="generate-tab"):
                        yield GeneratePane(self._lab, [lane.config for lane in self._session.lanes])
                    with TabPane(_("Tokens"), id="tokens-tab"):
                        yield TokenTable()
                    with TabPane(_("Prompts"), id="prompts-tab"):
                        yield PromptsPane(self._lab)
                    with TabPane(_("Timing"), id="timing-tab"):
                        yield TimingPane()
                    with TabPane(_("Inside"), id="inside-tab"):
                        yield InsidePane(self._lab)
            yield LessonPanel()

    # The views.

    @property
    def view(self) -> str:
        """The view that is open, one of `VIEWS`; setting it opens another."""
        return self._views.active.removesuffix("-tab")

    @view.setter
    def view(self, view: str) -> None:
        self._views.active = f"{view}-tab"

    def toggle_linear(self) -> None:
        """Show each event as a line in place of the views, or the views again."""
        runs = self.generate.runs
        if runs.listener is None:
            self.view = "generate"
            self.linear.begin([lane.steps for lane in self.generate.lanes])
            runs.listener = self.linear.hear
        else:
            runs.listener = None
        self.screen.set_class(runs.listener is not None, "linear")
        (self.linear if runs.listener is not None else self.prompt).focus()

    def turn(self, by: int) -> None:
        """Open the next view, or the one before."""
        if self.generate.runs.listener is not None:
            self.toggle_linear()
            return
        names: list[str] = list(VIEWS)
        self.view = names[(names.index(self.view) + by) % len(names)]

    # Where the keys go.

    def on_mount(self) -> None:
        # The arrows are for what is in a view; the views have keys of their own.
        self._views.query_one(ContentTabs).can_focus = False
        self.watch(self._views, "active", self._let_go, init=False)

    def _let_go(self, active: str) -> None:
        """Take the focus out of the view that is about to be hidden.

        Textual would give it to a neighbour there, hidden too, and then open that view again.
        """
        focused = self.screen.focused
        inside = focused is not None and self._views in focused.ancestors
        if active and focused is not None and inside and self._views.get_pane(active) not in focused.ancestors:
            self.screen.set_focus(None)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        if event.widget not in (self.prompt, self.prompt_area.messages):
            self._left = event.widget

    def go(self, place: str) -> None:
        """Give the keys to lane `a`, lane `b`, the `inspector` or the `prompt`, in whichever view it is."""
        if self.is_narrow:
            self.screen.remove_class("teaching")
        if place == "prompt":
            self.prompt.focus()
        elif (target := self.generate.entrance(place)) is not None:
            self._focus_in("generate", target)

    def land(self) -> None:
        """Give the keys to the pane of the open view that one looks at first."""
        if (target := self._first_pane()) is not None:
            self._focus_in(self.view, target)

    def _first_pane(self) -> Widget | None:
        match self.view:
            case "tokens":
                return self.token_table
            case "prompts":
                return self.prompts.table
            case "timing":
                return self.timing.table
            case "inside":
                if self.inside.opened:  # otherwise it takes the focus once it is
                    self.inside.focus_picture()
                return None
        return self.generate.entrance("a")

    def _focus_in(self, view: str, target: Widget) -> None:
        if self.view == view:
            target.focus()
        else:
            self._bound_for = target
            self.view = view

    @on(PromptPane.Left)
    def _leave_prompt(self, event: PromptPane.Left) -> None:
        event.stop()
        if self._left is not None and self._left in self.screen.focus_chain:
            self._left.focus()
        else:
            self.land()

    @property
    def is_narrow(self) -> bool:
        """Whether there is room for the lab or the lesson, not for both."""
        return self.app.size.width < BOTH_COLUMNS

    @on(TabbedContent.TabActivated)
    async def _make_room(self, event: TabbedContent.TabActivated) -> None:
        event.stop()
        if event.pane.id != self._views.active:
            return  # another view was opened since, which is told of too
        if self.screen.maximized is not None:  # what it is may not be in this view
            self.screen.minimize()
        self.query_one(TokensPane).set_class(self.view in ("prompts", "timing", "inside"), "elsewhere")
        if self.view == "inside":
            await self.inside.open()
            if self.view != "inside":
                return
            self.look_inside()
            self.inside.focus_picture()
        elif self._bound_for is not None:
            self._bound_for.focus()
        elif self._seen and self._is_lost(self.screen.focused):
            self.land()
        self._seen, self._bound_for = self.view, None

    def _is_lost(self, focused: Widget | None) -> bool:
        """Whether the focus was in a view that is hidden now."""
        return focused is None or (self._views in focused.ancestors and focused not in self.screen.focus_chain)

    def look_inside(self) -> None:
        """Show the Inside view what the lanes have so far; where they have nothing, the prompt."""
        if self.view != "inside":
            return
        prompt = LaneText(self.prompt_area.tokens, len(self.prompt_area.tokens))
        texts = []
        for lane in (0, 1):
            tokens, count, cursor = self.generate.texts.text_of(lane)
            config = self.generate.texts.config_of(lane)
            texts.append(LaneText(tokens, count, cursor, config) if tokens else replace(prompt, config=config))
        self.inside.show(texts, self.generate.active)

    @on(GeneratePane.Faced)
    def follow(self) -> None:
        """Show the model of the lane that is looked at, and what it makes of the prompt."""
        lane = self.generate.active
        config = self.generate.configs[lane]
        model = self._lab.model_of(config)
        named = any(config.names_model for config in self.generate.configs)
        self.status.lane = NAMES[lane] if named else ""
        self.status.absent = config.model_label if model is None and config.names_model else ""
        facts = self._lab.facts if model is None else model.facts
        self.status.facts = facts
        if facts is not None:
            self.loop_diagram.vocabulary_size = facts.vocabulary_size
            self.loop_diagram.hidden_size = facts.hidden_size
        self.prompt_area.follow(config, lane)

    # What one pane wants of another.

    @on(PromptArea.Tokenized)
    def _list_tokens(self, event: PromptArea.Tokenized) -> None:
        self.token_table.show(event.tokens, self.prompt_area.rendered)
        self.look_inside()

    @on(TokensPane.Pointed)
    def _point_at_token(self, event: TokensPane.Pointed) -> None:
        self.prompt_area.point(event.position)
        self.token_table.point(event.position)

    @on(TokensPane.ColourWanted)
    def _change_colour(self) -> None:
        self.generate.action_colour()

    @on(GeneratePane.Coloured)
    def _colour_prompt(self, event: GeneratePane.Coloured) -> None:
        self.prompt_area.colour(event.mode)

    @on(GeneratePane.Configured)
    def _describe_variants(self, event: GeneratePane.Configured) -> None:
        self.variants.describe(event.configs[1])

    @on(GeneratePane.Written)
    def _look_again(self) -> None:
        self.look_inside()

    @on(InsidePane.Pointed)
    def _point_at_step(self, event: InsidePane.Pointed) -> None:
        self.generate.point_at(event.lane, event.position)

    @on(InsidePane.Off)
    def _switch_off(self, event: InsidePane.Off) -> None:
        event.stop()
        if self.generate.run_without(event.intervention):
            self._focus_in("generate", self.generate.lanes[1])

    @on(GeneratePane.SpeedChanged)
    def _show_speed(self, event: GeneratePane.SpeedChanged) -> None:
        self.status.rates = event.rates

    @on(PromptArea.Turned)
    def _turn(self) -> None:
        self.generate.talks = self.prompt_area.threads is not None
        self.refresh_bindings()

    @on(GeneratePane.AdoptWanted)
    async def _adopt(self, event: GeneratePane.AdoptWanted) -> None:
        shown = [self.generate.trees[lane].shown for lane in event.lanes]
        if await self.prompt_area.adopt([branch for branch in shown if branch is not None]):
            self.prompt.focus()

    @on(PromptsPane.Wanted)
    def _take_prompt(self, event: PromptsPane.Wanted) -> None:
        self.prompt_area.take(event.text)
        self.notify(sentence(_("It is the prompt now: {next_view} goes on to Generate.")))
