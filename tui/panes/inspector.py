"""One step looked at closely: every candidate before and after each stage, and knobs that redraw it at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Input, Static

from engine.base.errors import InputError
from engine.base.language import N_, _
from engine.base.plain import cells, number, percent
from engine.generation.config import SETTINGS, GenerationConfig
from engine.generation.events import STAGE_NAMES, STAGES, Candidate, Stage, Stepped
from engine.generation.stages.registry import BY_NAME, PARAMETERS, knobs_of, usual_knobs
from engine.text.token import drawn
from tui.actions import bindings
from tui.panes.drafts import guess_words
from tui.sentences import key, sentence
from tui.style.colours import field_ground, ink
from tui.widgets.candidate_list import CandidateList
from tui.widgets.fields import Field, fields_line, place_at, tabs_line

if TYPE_CHECKING:
    from engine.generation.step_view import StepView

# What + and − do to each knob: the next value up or down its ladder; None is off.
_USUAL = usual_knobs()
LADDERS: dict[str, tuple[float | int | None, ...]] = {
    **{name: _USUAL[name].ladder for name in SETTINGS if name in _USUAL},
    "alpha": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
}
KNOBS = tuple(LADDERS)
NAMES = {name: parameter.label for name, parameter in PARAMETERS.items()} | {"alpha": "α"}
EMPTY = N_(
    "Run the lanes with {run}, then {next_pane} to one and move over its tokens with "
    "{token_flow.previous} {token_flow.next}: this is what each step chose from."
)


class Inspector(Vertical):
    """The step under a lane's cursor, or the newest while the lanes run."""

    BINDINGS = bindings("inspector")

    stage: reactive[Stage] = reactive("pick")
    knob: reactive[int] = reactive(0)

    @dataclass
    class Turned(Message):
        """Use these settings for the lane from now on."""

        lane: int
        config: GenerationConfig

    @dataclass
    class Chosen(Message):
        """The lane is to go on from `step` with another token."""

        lane: int
        step: int
        candidate: Candidate

    class Appeared(Message):
        """It can be seen now."""

    def __init__(self) -> None:
        super().__init__(id="inspector")
        self._inspection: StepView | None = None
        self._ran: GenerationConfig | None = None
        self._step: Stepped | None = None
        self._lane = 0
        self._turned = False  # whether the knobs say something else than what ran
        self.border_title = _("Next token")

    def compose(self) -> ComposeResult:
        yield Static(id="stages")
        yield Static(id="knobs")
        yield CandidateList()
        yield Static(sentence(_(EMPTY)), id="inspector-says")
        yield Input(
            placeholder=sentence(
                _("find a token by text or id · enter goes on with the first, {candidates.down} looks, {stop} closes")
            ),
            id="filter",
            compact=True,
        )

    def on_mount(self) -> None:
        self.query_one("#filter").display = False
        self._draw()
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self._draw())

    def on_show(self) -> None:
        self.post_message(self.Appeared())

    def on_resize(self) -> None:
        self._draw_lines()

    def _draw_lines(self) -> None:
        """Tabs and fields, which are as wide as there is room."""
        self.query_one("#stages", Static).update(self._stages(), layout=False)
        self.query_one("#knobs", Static).update(self._knobs(), layout=False)

    # What is shown.

    def show(self, inspection: "StepView", lane: int, step: Stepped, *, keep_settings: bool = False) -> None:
        """Show a step as it ran, or, with `keep_settings`, under the settings the knobs say."""
        turned = self._inspection.config if keep_settings and self._inspection is not None else None
        self._ran, self._lane, self._step = inspection.config, lane, step
        self._inspection = inspection if turned is None else inspection.under(turned)
        self._draw()

    def beside(self, other: "StepView", step: Stepped) -> None:
        """Show what the other lane's model expected in place of a stage, on one scale, if the step is still shown."""
        if self._step is step:
            self.query_one(CandidateList).beside(
                other, self.app.theme_variables["lane-b" if self._lane == 0 else "lane-a"]
            )

    def alone(self) -> None:
        """Show the stages again."""
        self.query_one(CandidateList).beside(None)

    def wait(self, why: str) -> None:
        """Say why there is nothing to see."""
        self._inspection = self._step = None
        self._draw()
        self.query_one("#inspector-says", Static).update(Text(why, style="dim"))

    def candidates(self, count: int) -> tuple[Candidate, ...] | None:
        """The most probable ones of the step that is shown; `None` while none is."""
        return None if self._inspection is None else self._inspection.at(0, count)

    @property
    def settings(self) -> GenerationConfig | None:
        """What the knobs say."""
        return None if self._inspection is None else self._inspection.config

    def _draw(self) -> None:
        if (turned := self.possible("apply")) != self._turned:
            self._turned = turned
            self.refresh_bindings()
        found = self._search()
        inspection, step = self._inspection, self._step
        rows = self.query_one(CandidateList)
        rows.display = inspection is not None
        self.query_one("#inspector-says").display = inspection is None or found == ()
        self._draw_lines()
        if inspection is None or step is None:
            self.border_title = _("Next token")
            self.border_subtitle = ""
            return
        colour = self.app.theme_variables["lane-a" if self._lane == 0 else "lane-b"]
        guessed = None if step.draft is None else step.draft.id
        rows.show(inspection, found=found, picked=step.token.id, forced=step.forced, guessed=guessed, colour=colour)
        lane = "AB"[self._lane]
        self.query_one(CandidateList).stage = self._looked_at
        if inspection.coverage:
            kept = inspection.kept
            self.border_title = Text(
                _(
                    "Next token · lane {lane} · step {index} · {coverage}",
                    lane=lane,
                    index=step.index + 1,
                    coverage=inspection.coverage,
                )
                + (_(" · {kept:,} of them left", kept=kept) if kept is not None else "")
            )
            probability = step.probability if step.raw_probability is None else step.raw_probability
            self.border_subtitle = Text(self._below(step.token.label, probability, step.rank))
            return
        title = _(
            "Next token · lane {lane} · step {index} · entropy {entropy_bits:.1f} → {final_entropy_bits:.1f} bits",
            lane=lane,
            index=step.index + 1,
            entropy_bits=inspection.entropy_bits,
            final_entropy_bits=inspection.final_entropy_bits,
        )
        more = [_(" · {kept:,} of {count:,} left", kept=inspection.kept, count=len(inspection))]
        if inspection.cut_mass:
            more.append(_(" · {cut_mass:.1%} of the mass cut", cut_mass=inspection.cut_mass))
        room = min(self.outer_size.width or self.app.size.width, self.app.size.width) - 4
        for part in more:  # as much of it as there is room for
            if cells(title + part) <= room:
                title += part
        self.border_title = Text(title)
        picked = inspection.of([step.token.id])[0]
        below = self._below(picked.text, picked.raw_probability, picked.rank)
        if inspection.config.strategy == "contrastive" and picked.score is not None:
            alpha = inspection.config.alpha
            below += (
                f": (1−{alpha:g})·{picked.probability:.3f} − {alpha:g}·{picked.similarity:.2f} = {picked.score:+.3f}"
            )
        if step.draft is not None and (said := guess_words(step.draft)):
            below = f"{said} · {below}"
        self.border_subtitle = Text(below)

    @staticmethod
    def _below(text: str, probability: float | None, rank: int | None) -> str:
        return _(
            "“{text}” {raw_probability}, rank {rank}",
            text=drawn(text),
            raw_probability=percent(probability),
            rank=number(rank),
        )

    def _stages(self) -> Text:
        tabs, width, ground = self._tabs, self.content_size.width, field_ground(self.app)
        known = [tabs.index(stage) for stage in self._known_stages]
        names = [_(STAGE_NAMES[stage]) for stage in tabs]
        remarks = self._remarks()
        line = tabs_line(names, tabs.index(self._looked_at), known, width, ground=ground, beside=remarks.cell_len)
        return line.append_text(remarks)

    def _remarks(self) -> Text:
        """What is to be said of the stage and of the settings."""
        line = Text()
        if self._inspection is None:
            return line
        if self._inspection.config != self._ran:
            line.append(
                sentence(_("not run: {inspector.apply} uses it, {inspector.reset} goes back")),
                style=f"bold {ink(self.app, 'warning')}",
            )
        lacking = self._inspection.lacking
        if lacking or self._inspection.config == self._ran:
            line.append("   " if line else "").append(lacking or self._explanation(), style="dim")
        return line

    @property
    def _known_stages(self) -> tuple[Stage, ...]:
        """Those that can be looked at."""
        return STAGES if self._inspection is None else self._inspection.stages or STAGES[:1]

    @property
    def _tabs(self) -> tuple[Stage, ...]:
        """Those that are named: those that act; in front of a server also those that are not known."""
        if self._inspection is not None and not self._inspection.coverage:
            return self._inspection.stages
        return STAGES

    @property
    def _ladders(self) -> dict[str, tuple[float | int | None, ...]]:
        """The usual knobs, and those of further stages that are on, or that need what the step has."""
        if self._inspection is None or self._ran is None:
            return LADDERS
        on = knobs_of((self._inspection.config, self._ran))
        return LADDERS | {name: PARAMETERS[name].ladder for name in (*on, *self._inspection.movable)}

    @property
    def _chosen(self) -> int:
        """The knob that is chosen; the last one where the step has fewer."""
        return min(self.knob, len(self._ladders) - 1)

    @property
    def _looked_at(self) -> Stage:
        """The stage that was chosen, or the last before it that can be looked at."""
        known = self._known_stages
        if self.stage in known:
            return self.stage
        places = list(STAGE_NAMES)
        before = [stage for stage in known if places.index(stage) <= places.index(self.stage)]
        return before[-1] if before else known[0]

    def _explanation(self) -> str:
        assert self._inspection is not None
        config, stage = self._inspection.config, self._looked_at
        if stage == "pick":
            return {
                "greedy": _("greedy takes the most probable; temperature keeps the order"),
                "sample": _("one is drawn: the longer its bar, the likelier"),
                "beam": _("the best whole text wins, not the best next token"),
                "contrastive": _("the best of probability minus similarity wins, without chance"),
            }[config.strategy]
        cut = self._inspection.cut_at(stage)
        words = {
            "raw": _("what the model believes"),
            "penalty": _("biases, bans, and a penalty on what is already written"),
            "truncation": _("unlikely ones are cut, the rest grow to 100 %"),
        }
        said = words[stage] if stage in words else _(BY_NAME[stage].explanation)
        if cut is None:
            return said
        return _("cuts {count:,}, {mass:.1%} of the mass", count=cut[0], mass=cut[1]) + f" · {said}"

    def _knobs(self) -> Text:
        if self._inspection is None or self._ran is None:
            return Text()
        config, ran = self._inspection.config, self._ran
        fields = [
            Field(_(NAMES[name]), getattr(config, name), ladder, getattr(config, name) != getattr(ran, name))
            for name, ladder in self._ladders.items()
        ]
        ground, changed = field_ground(self.app), ink(self.app, "warning")
        return fields_line(fields, self._chosen, self.content_size.width, ground=ground, changed=changed)

    # Stages and knobs.

    def on_click(self, event: events.Click) -> None:
        """Look at the stage whose tab was clicked on, or choose the setting whose field was."""
        if event.widget is None or event.widget.id not in ("stages", "knobs"):
            return
        stages = event.widget.id == "stages"
        names = (
            [_(STAGE_NAMES[stage]) for stage in self._tabs] if stages else [_(NAMES[name]) for name in self._ladders]
        )
        place = place_at(str(event.widget.render()), names, event.get_content_offset_capture(event.widget).x)
        if place is not None and not stages:
            self.knob = place
        elif place is not None and self._tabs[place] in self._known_stages:
            self.stage = self._tabs[place]

    def watch_stage(self) -> None:
        if self.is_mounted:
            self.query_one(CandidateList).stage = self._looked_at
            self.query_one("#stages", Static).update(self._stages(), layout=False)

    def watch_knob(self) -> None:
        if self.is_mounted:
            self.query_one("#knobs", Static).update(self._knobs(), layout=False)

    def action_stage(self, by: int) -> None:
        known = self._known_stages
        self.stage = known[(known.index(self._looked_at) + by) % len(known)]

    def action_knob(self, by: int) -> None:
        self.knob = (self._chosen + by) % len(self._ladders)

    def action_turn(self, by: int) -> None:
        if self._inspection is None:
            return
        name = tuple(self._ladders)[self._chosen]
        config = self._inspection.config
        self._under({name: climb(self._ladders[name], getattr(config, name), by)})

    def action_reset(self) -> None:
        if self._inspection is not None and self._ran is not None:
            self._inspection = self._inspection.under(self._ran)
            self._draw()

    def action_apply(self) -> None:
        if self._inspection is not None:
            self.post_message(self.Turned(self._lane, self._inspection.config))

    def action_bias(self, by: int) -> None:
        candidate = self.query_one(CandidateList).selected
        if candidate is not None and self._inspection is not None:
            config = self._inspection.config
            bias = config.bias_of(candidate.id) if candidate.id not in config.banned else 0.0
            self._use(config.biased(candidate.id, bias + by))

    def action_ban(self) -> None:
        candidate = self.query_one(CandidateList).selected
        if candidate is not None and self._inspection is not None:
            config = self._inspection.config
            self._use(config.biased(candidate.id, 0.0 if candidate.id in config.banned else -float("inf")))

    def _under(self, values: dict[str, Any]) -> None:
        """Show the step under other settings, or say why they cannot be."""
        assert self._inspection is not None
        try:
            self._inspection = self._inspection.under(replace(self._inspection.config, **values))
        except InputError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        self._draw()

    def _use(self, config: GenerationConfig) -> None:
        """Biases belong to the lane at once: they are made here and nowhere else."""
        assert self._inspection is not None
        try:
            self._inspection = self._inspection.under(config)
        except InputError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        self._draw()
        self.post_message(self.Turned(self._lane, config))

    # Finding a token.

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.display = True
        box.focus()

    def close_filter(self) -> bool:
        """Show all candidates again; whether a filter was open."""
        box = self.query_one("#filter", Input)
        if not box.display:
            return False
        box.display = False
        box.value = ""
        self.query_one(CandidateList).focus()
        self._draw()
        return True

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """What was found first comes instead; `down` goes to the others."""
        event.stop()
        rows = self.query_one(CandidateList)
        if rows.selected is not None and event.value:
            rows.action_choose()
            self.close_filter()
        else:
            rows.focus()

    def on_key(self, event: events.Key) -> None:
        if event.key == "down" and self.query_one("#filter").has_focus:
            event.stop()
            self.query_one(CandidateList).focus()

    def possible(self, action: str) -> bool:
        """Whether an action can do something now."""
        if action in ("apply", "reset"):
            return self._inspection is not None and self._inspection.config != self._ran
        return True

    def _search(self) -> Sequence[Candidate] | None:
        box = self.query_one("#filter", Input)
        if not box.value or self._inspection is None:
            return None
        try:
            found = self._inspection.find(box.value)
        except InputError as error:
            self.query_one("#inspector-says", Static).update(Text(str(error), style=f"bold {ink(self.app, 'wrong')}"))
            return ()
        if not found:
            says = _(
                "no token of the vocabulary holds “{wanted}”; {branch} on a lane's token goes on with any text",
                wanted=box.value,
                branch=key("lanes.branch"),
            )
            self.query_one("#inspector-says", Static).update(Text(says, style=f"bold {ink(self.app, 'wrong')}"))
        return found

    def on_candidate_list_chosen(self, event: CandidateList.Chosen) -> None:
        event.stop()
        if self._step is not None:
            self.post_message(self.Chosen(self._lane, self._step.index, event.candidate))


def climb(ladder: Sequence[float | int | None], value: float | int | None, by: int) -> float | int | None:
    """The next value up or down a ladder, from one that need not be on it; the ends stay."""
    if value in ladder:
        return ladder[max(0, min(len(ladder) - 1, ladder.index(value) + by))]
    numbers = [step for step in ladder if step is not None]
    assert value is not None
    beyond = [step for step in numbers if (step > value if by > 0 else step < value)]
    return (min(beyond) if by > 0 else max(beyond)) if beyond else (numbers[-1] if by > 0 else numbers[0])
