"""Every setting of one lane, checked as it is typed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Grid, Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Input, Label, Static

from engine.base.errors import ConfigError, InputError
from engine.base.language import N_, _
from engine.generation import interventions
from engine.generation.config import (
    OWN,
    PRESETS,
    SETTINGS,
    GenerationConfig,
    config_from_dict,
    load_config,
    save_config,
)
from engine.generation.grammar import with_sources
from engine.generation.stages.registry import PARAMETERS, STAGES
from engine.models import catalog
from engine.models.amateurs import seats_of
from tui.actions import bindings
from tui.dialogs.choose_file import ChooseFile
from tui.screens import Dialog
from tui.sentences import key, sentence
from tui.style.colours import ink
from tui.widgets.footer import Footer

if TYPE_CHECKING:
    from engine.models.model import Model

# Of what no stage declares.
_HINTS = {
    "strategy": N_(
        "greedy takes the most probable · sample draws · contrastive weighs probability against repetition · "
        "beam follows several texts"
    ),
    "max_new_tokens": N_("tokens to generate at most"),
    "alpha": N_("contrastive only: weight of similarity against probability"),
    "seed": N_("of the random draws; empty draws a new one each run"),
    "stop": N_("end once this text is written; several separated by | ; \\n is a line break"),
    "ignore_eos": N_("yes: go on after end-of-text"),
    "order": N_(
        "in which the stages act: llama.cpp, vllm, or their names, such as top_k top_p temperature; empty: as in "
        "transformers"
    ),
    "beams": N_("beam only: texts that are followed at once"),
    "length_penalty": N_("beam only: scores are divided by the length to this power: above 0 favours long texts"),
    "early_stopping": N_(
        "beam only: no ends when no running text is better, yes with as many ended ones as beams, "
        "never when none can be"
    ),
    "draft": N_(
        "speculative decoding: lookup (what followed the last tokens before), or a second model of the same vocabulary "
        "({lane_editor.model} chooses) guesses ahead, and the lane's model checks"
    ),
    "draft_tokens": N_("tokens guessed at a time, at most; fewer while guesses are wrong"),
    "draft_ngram": N_("lookup only: how many of the last tokens are looked for in the text, at most"),
    "interventions": N_(
        "several separated by ; · head 12.4 off · attention 12 mean · mlp 7 off · block 7 skipped "
        '· steer 14 by FILE.gguf × 4 · patch 10 at 5 from "other prompt"'
    ),
    "model": N_(
        "that writes this lane: a name, a hub id, a folder, a .gguf file or http://server:port ({lane_editor.model} "
        "chooses); empty: the lab's"
    ),
    "precision": N_("of that model: auto, native, bfloat16 or float32; empty: as the lab loads its own"),
}


def _of(*groups: str) -> tuple[str, ...]:
    """The settings of some groups of stages, in the order of `GenerationConfig`."""
    names = {one.name for stage in STAGES if stage.group in groups for one in stage.parameters}
    return tuple(name for name in SETTINGS if name in names)


# Every setting, in the order of the fields.
GROUPS: dict[str, tuple[str, ...]] = {
    N_("picking"): ("strategy", "max_new_tokens", "alpha", "seed", "stop", "ignore_eos"),
    N_("temperature and cuts"): (*_of("temperature", "truncation"), "order"),
    N_("penalties, biases, bans"): _of("penalty"),
    N_("grammar: one of these"): _of("grammar"),
    N_("several texts, guesses"): ("beams", "length_penalty", "early_stopping", "draft", "draft_tokens", "draft_ngram"),
    N_("against another text or model"): _of("guidance", "amateur"),
    N_("the model"): ("model", "precision", "interventions"),
}
HINTS = {
    name: PARAMETERS[name].hint if name in PARAMETERS else _HINTS[name] for names in GROUPS.values() for name in names
}
assert {"name", *HINTS} == set(SETTINGS)
# What presets leave as it is.
MODEL_FIELDS = ("model", "precision")
LEAST_ROWS = 8  # of fields
BESIDE_FIELDS = 10  # rows of the dialog that are no fields, and around it
LINE_BREAK = "⏎"  # in a grammar, which has \\n in texts of its own


class ConfigEditor(Dialog[GenerationConfig | None]):
    """Edit a copy; Enter gives it back, Esc nothing."""

    AUTO_FOCUS = "#field-strategy"

    BINDINGS = bindings("lane editor")

    def __init__(
        self,
        lane: str,
        config: GenerationConfig,
        model: "Model | None" = None,
        pick: Callable[[Callable[[str | None], None]], object] = lambda chosen: None,
    ) -> None:
        super().__init__()
        self._model = model  # that the lane has
        self._pick = pick  # lets a model be chosen
        self._lane = lane
        self._config = config
        self._preset = config.name

    def compose(self) -> ComposeResult:
        with Vertical(id="editor", classes="dialog"):
            with VerticalScroll(can_focus=False), Grid(id="editor-fields"):
                for title, names in GROUPS.items():
                    yield Label(_(title), classes="group")
                    for name in names:
                        yield Label(name)
                        yield Input(_shown(self._config, name), id=f"field-{name}", compact=True)
                    if len(names) % 2:
                        yield Label()
                        yield Label()
            yield Static(id="editor-says")
            with Horizontal(classes="buttons"):
                for name in (*PRESETS, OWN):
                    yield Button(f"{key(f'lane_editor.{name}')} {name}", id=f"preset-{name}", compact=True)
                yield Button(_("use"), id="accept", variant="primary", compact=True)
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#editor").border_title = _("Configuration of lane {lane}", lane=self._lane)
        self._fit()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        """As many fields as there is room for."""
        self.query_one(VerticalScroll).styles.max_height = max(LEAST_ROWS, self.app.size.height - BESIDE_FIELDS)

    def config(self) -> GenerationConfig:
        """What the fields say. Raises `InputError` naming the field that is wrong."""
        data = {name: _parsed(name, self.query_one(f"#field-{name}", Input).value.strip()) for name in HINTS}
        config = config_from_dict(with_sources(data, Path()), GenerationConfig(name=self._preset))
        if (model := self._model_of(config)) is not None:
            model.capabilities.check(config)
        return config

    def _model_of(self, config: GenerationConfig) -> "Model | None":
        """The model that is to use the settings; `None` where it is another one than the lane has, which is to come."""
        same = (config.model, config.precision) == (self._config.model, self._config.precision)
        return self._model if same else None

    def action_choose_model(self) -> None:
        """Choose the lane's model from the list."""

        focused = self.focused.id if self.focused is not None else None
        field = f"#{focused}" if focused in ("field-amateur", "field-draft") else "#field-model"

        def chosen(name: str | None) -> None:
            if name:
                self.query_one(field, Input).value = name

        self._pick(chosen)

    def action_preset(self, name: str) -> None:
        try:
            preset = self._named(name)
        except InputError as error:
            self._complain(error)
            return
        self._preset = name
        for field in HINTS:
            if field not in MODEL_FIELDS:
                self.query_one(f"#field-{field}", Input).value = _shown(preset, field)
        self._check()

    def _named(self, name: str) -> GenerationConfig:
        """A preset by its name. Raises `InputError` where the model brings no settings of its own."""
        if name != OWN:
            return PRESETS[name]
        fields = {field: self.query_one(f"#field-{field}", Input).value.strip() or None for field in MODEL_FIELDS}
        model = self._model_of(config_from_dict(fields))
        if model is None:
            raise InputError(_("there is no model yet whose own settings could be taken"))
        return model.own.need()

    def action_open(self) -> None:
        """Fill the fields from a file."""

        def load(path: Path) -> None:
            config = load_config(str(path))
            self._preset = config.name
            for field in HINTS:
                self.query_one(f"#field-{field}", Input).value = _shown(config, field)

        self.app.push_screen(
            ChooseFile(_("Open a configuration"), sentence(_("A .toml file, as {lane_editor.save} saves it.")), load)
        )

    def action_save(self) -> None:
        """Write the fields to a file."""
        try:
            config = replace(self.config(), name="custom")
        except InputError as error:
            self._complain(error)
            return
        hint = sentence(_("A .toml file: logitlab generate --config FILE.toml uses it, {lane_editor.open} opens it."))

        def save(path: Path) -> None:
            if path.suffix != ".toml":
                raise InputError(_("{name} does not end in .toml; configurations do", name=path.name))
            save_config(replace(config, name=path.stem), path)
            self.notify(_("Saved to {path}.", path=path), markup=False)

        self.app.push_screen(ChooseFile(_("Save the configuration"), hint, save, f"lane-{self._lane.lower()}.toml"))

    def action_accept(self) -> None:
        try:
            config = self.config()
            for named in (config, *seats_of(config).values()):
                if named.model is not None:
                    catalog.find(named.model)
        except InputError as error:
            self._complain(error)
            return
        model = self._model_of(config)
        preset = model.own.config if self._preset == OWN and model is not None else PRESETS.get(self._preset)
        plain = replace(config, model=None, precision=None)
        self.dismiss(config if plain == preset else replace(config, name="custom"))

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._check()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_accept()

    def on_descendant_focus(self) -> None:
        self._check()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        button = event.button.id or ""
        if button == "accept":
            self.action_accept()
        else:
            self.action_preset(button.removeprefix("preset-"))

    def _check(self) -> None:
        try:
            self.config()
        except InputError as error:
            self._complain(error)
            return
        for name in HINTS:
            self.query_one(f"#field-{name}", Input).remove_class("wrong")
        focused = self.focused.id.removeprefix("field-") if self.focused is not None and self.focused.id else ""
        self.query_one("#editor-says", Static).update(Text(sentence(_(HINTS.get(focused, ""))), style="dim"))

    def _complain(self, error: InputError) -> None:
        for name in HINTS:
            wrong = isinstance(error, ConfigError) and error.field == name
            self.query_one(f"#field-{name}", Input).set_class(wrong, "wrong")
        self.query_one("#editor-says", Static).update(Text(str(error), style=f"bold {ink(self.app, 'wrong')}"))


def _shown(config: GenerationConfig, name: str) -> str:
    value = getattr(config, name)
    if name in ("stop", "dry_breakers", "choices"):
        return "|".join(text.replace("\n", "\\n") for text in value)
    if name == "schema" and value is not None:
        return json.dumps(json.loads(value), ensure_ascii=False)
    if name == "grammar":
        return (value or "").replace("\n", LINE_BREAK)
    if name == "negative_prompt":
        return (value or "").replace("\n", "\\n")
    if name == "interventions":
        return "; ".join(text.replace("\n", "\\n") for text in value)
    if name == "order":
        return " ".join(value)
    if name == "logit_bias":
        return " ".join(f"{id}={bias:g}" for id, bias in value)
    if name == "banned":
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parsed(name: str, text: str) -> object:
    if name in ("strategy", "early_stopping"):
        return text
    if name in (*MODEL_FIELDS, "amateur", "draft"):
        return text or None
    if name in ("schema", "regex", "grammar"):
        return text.replace(LINE_BREAK, "\n") or None
    if name in ("stop", "dry_breakers", "choices"):
        return tuple(part.replace("\\n", "\n") for part in text.split("|")) if text else ()
    if name == "negative_prompt":
        return text.replace("\\n", "\n") or None
    if name == "interventions":
        return tuple(part.replace("\\n", "\n") for part in interventions.split(text))
    if name == "order":
        return tuple(text.split())
    if name in ("logit_bias", "banned"):
        try:
            if name == "banned":
                return tuple(int(id) for id in text.split())
            return tuple((int(id), float(bias)) for id, bias in (pair.split("=") for pair in text.split()))
        except ValueError:
            allowed = _("token ids") if name == "banned" else _("pairs such as 2240=-3")
            raise ConfigError(name, text, _("{allowed}, separated by spaces, or nothing", allowed=allowed)) from None
    if name == "ignore_eos":
        if text.lower() not in ("yes", "no", _("yes"), _("no")):
            raise ConfigError(name, text, _("yes or no"))
        return text.lower() in ("yes", _("yes"))
    kind = SETTINGS[name]
    if not text and kind.optional:
        return None
    try:
        return kind.type(text)
    except ValueError:
        allowed = _("a whole number") if kind.type is int else _("a number")
        raise ConfigError(name, text, allowed + (_(" or nothing") if kind.optional else "")) from None
