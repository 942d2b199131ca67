"""A session: the state of a lab as one document, which is saved after each change and restores the same lab.

The document is JSON; `docs/session.schema.json` describes it. Older versions are migrated when they are read.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from engine.base.errors import InputError, LogitlabError
from engine.base.files import read_text
from engine.base.language import _
from engine.generation.branches import Branch, BranchTree
from engine.generation.config import PRESETS, GenerationConfig
from engine.generation.events import Beam, Draft, FinishReason, Stepped
from engine.generation.memory import KeptLogits
from engine.generation.stages.registry import PARAMETERS
from engine.models.model import ModelFacts
from engine.text.conversation import ROLES, Conversation
from engine.text.prompts import DEFAULT_PROMPT, EXAMPLE_PROMPTS, VARIANTS, Variant
from engine.text.token import Token
from engine.timing.measurement import Measurement, with_several_lanes

VERSION = 5
MAX_FILE_BYTES = 256_000_000


@dataclass(frozen=True, slots=True)
class SessionStep:
    """One generated token, as `Stepped` has it; its candidates are computed again when they are looked at."""

    token: Token
    probability: float | None
    raw_probability: float | None
    rank: int | None
    entropy_bits: float | None
    final_entropy_bits: float | None
    kept: int | None
    cut_mass: float | None
    seconds: float
    forced: bool = False
    carried: dict[str, float] = field(default_factory=dict)
    draft: Draft | None = None
    by_grammar: bool = False


STEP_FIELDS = tuple(field.name for field in fields(SessionStep))
_step_values = attrgetter(*STEP_FIELDS)


@dataclass(frozen=True, slots=True)
class SessionBranch:
    """One continuation.

    Attributes:
        fork: how many steps it shares with its parent; `steps` are those after them.
        prompt: its place in the session's `prompt_tokens`.
        beam: which one of a beam search it is.
        beams: the others of the search that wrote it which are no branches.
    """

    id: int
    parent: int | None
    fork: int
    prompt: int
    config: GenerationConfig
    limit: int
    steps: tuple[SessionStep, ...]
    reason: FinishReason | None
    prefill_seconds: float
    beam: Beam | None = None
    beams: tuple[Beam, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionLane:
    """A lane: the configuration of its next run, its branches, and the id of the branch that is shown."""

    config: GenerationConfig
    branches: tuple[SessionBranch, ...] = ()
    current: int | None = None


@dataclass(frozen=True, slots=True)
class SessionModel:
    """The model of a session; `identity` is the hash of its weights, see `catalog.identity`."""

    name: str
    title: str
    precision: str
    identity: str

    @classmethod
    def of(cls, facts: ModelFacts) -> "SessionModel":
        return cls(facts.name, facts.title, facts.precision, facts.identity)


@dataclass(frozen=True, slots=True)
class VariantResult:
    """The result of one prompt variant.

    Attributes:
        variant: the variant's name.
        prompt: the prompt with the variant applied; `prompt_tokens` is its length.
        system: the system message that it was under; empty for the prompt as it is.
    """

    variant: str
    prompt: str
    prompt_tokens: int
    config: GenerationConfig
    steps: tuple[SessionStep, ...] = ()
    reason: FinishReason | None = None
    system: str = ""

    @property
    def text(self) -> str:
        return "".join(step.token.text for step in self.steps)


@dataclass(frozen=True, slots=True)
class Session:
    """The whole document.

    Attributes:
        saved: when, ISO 8601 with the offset from UTC.
        prompt: of a conversation, the user's last message.
        threads: a conversation that goes in the chat template: one for both lanes, or one for each; else none.
        prompt_alone: there is a conversation, but the prompt goes as it is.
        prompt_tokens: tokens of the prompts that branches began with.
        prompts, variants, results: the Prompts view; the newest results first.
        measurements: the Timing view, the newest last.
        view: the open view: `generate`, `tokens`, `prompts` or `timing`.
    """

    version: int = VERSION
    saved: str = ""
    model: SessionModel | None = None
    prompt: str = DEFAULT_PROMPT
    threads: tuple[Conversation, ...] = ()
    prompt_alone: bool = False
    lanes: tuple[SessionLane, ...] = (SessionLane(PRESETS["greedy"]), SessionLane(PRESETS["creative"]))
    prompt_tokens: tuple[tuple[Token, ...], ...] = ()
    prompts: tuple[str, ...] = EXAMPLE_PROMPTS
    variants: tuple[Variant, ...] = VARIANTS
    results: tuple[VariantResult, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    view: str = "generate"


def from_trees(
    configs: Sequence[GenerationConfig], trees: Sequence[BranchTree]
) -> tuple[tuple[SessionLane, ...], tuple[tuple[Token, ...], ...]]:
    """The lanes of a session from those of the lab, and the prompts that their branches began with."""
    prompts: dict[tuple[Token, ...], int] = {}
    lanes = []
    for config, tree in zip(configs, trees):
        branches = [
            SessionBranch(
                branch.id,
                branch.parent,
                branch.fork,
                prompts.setdefault(branch.prompt, len(prompts)),
                branch.config,
                branch.limit,
                tuple(saved_step(step) for step in branch.steps[branch.fork :]),
                branch.reason,
                branch.prefill_seconds,
                branch.beam,
                branch.beams,
            )
            for branch in tree
        ]
        lanes.append(SessionLane(config, tuple(branches), tree.current))
    return tuple(lanes), tuple(prompts)


def to_trees(session: Session) -> tuple[BranchTree, ...]:
    """The branches of each lane, for the lab. Raises `InputError` where they contradict each other."""
    return tuple(_tree(index, lane, session.prompt_tokens) for index, lane in enumerate(session.lanes))


def to_json(session: Session, *, indent: int = 0) -> str:
    """The document on one line, or indented by `indent` spaces."""
    data = msgspec.json.encode(replace(session, lanes=tuple(map(_short, session.lanes))))
    return (msgspec.json.format(data, indent=indent) if indent else data).decode()


def _short(lane: SessionLane) -> SessionLane:
    """A lane whose configurations leave out what their stages do not use: there is one for each branch."""

    def short(config: GenerationConfig) -> Any:
        unused = {name for name, one in PARAMETERS.items() if not one.usual and getattr(config, name) == one.default}
        return {name: value for name, value in config.to_dict().items() if name not in unused}

    branches = tuple(replace(branch, config=short(branch.config)) for branch in lane.branches)
    return replace(lane, config=short(lane.config), branches=branches)


def from_json(text: str) -> Session:
    """A session from its JSON, brought up to date.

    Raises:
        InputError: the text is no session, was written by a newer version, or contradicts itself.
    """
    try:
        data = msgspec.json.decode(text)
        session = msgspec.convert(migrated(data), Session)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise InputError(_("this is no session: {error}", error=str(error)[:200])) from error
    if len(session.lanes) != 2:
        raise InputError(_("this is no session: two lanes are wanted, and it has {count}", count=len(session.lanes)))
    _check_threads(session.threads)
    to_trees(session)
    return session


def _check_threads(threads: Sequence[Conversation]) -> None:
    """Raise `InputError` for threads that are none."""
    if len(threads) > 2:
        raise InputError(_("this is no session: it has {count} threads, more than two", count=len(threads)))
    for thread in threads:
        if not thread.messages:
            raise InputError(_("this is no session: a thread has no message"))
        for number, message in enumerate(thread.messages, start=1):
            if message.role not in ROLES:
                raise InputError(
                    _(
                        "message {number} has the role {role!r}; allowed: {allowed}",
                        number=number,
                        role=message.role[:40],
                        allowed=", ".join(ROLES),
                    )
                )


def read(path: Path) -> Session:
    """The session in a file. Raises `InputError` naming it."""
    text = read_text(path, MAX_FILE_BYTES)
    try:
        return from_json(text)
    except LogitlabError as error:
        raise InputError(_("{path} cannot be opened: {error}", path=path, error=error)) from error


def migrated(data: Any) -> dict[str, Any]:
    """A document of any version, brought to the present version. Raises `InputError`."""
    if not isinstance(data, Mapping) or type(version := data.get("version")) is not int:
        raise InputError(_("this is no session: it has no version"))
    if version > VERSION:
        raise InputError(
            _(
                "it was written by a newer logitlab (version {version}, this one reads up to {known}); update logitlab",
                version=version,
                known=VERSION,
            )
        )
    document = dict(data)
    for step in range(version, VERSION):
        if step not in MIGRATIONS:
            raise InputError(_("this is no session: there is no version {version}", version=version))
        document = MIGRATIONS[step](document) | {"version": step + 1}
    return document


def _with_prompts_and_timing(document: dict[str, Any]) -> dict[str, Any]:
    """Version 1 held only the prompt and the lanes."""
    variants = [{"name": variant.name, "template": variant.template} for variant in VARIANTS]
    added = {"prompts": list(EXAMPLE_PROMPTS), "variants": variants, "results": [], "measurements": []}
    return document | added | {"view": "generate"}


def _with_several_lanes(document: dict[str, Any]) -> dict[str, Any]:
    """Version 2 timed one number of lanes in a measurement."""
    return document | {"measurements": [with_several_lanes(one) for one in document.get("measurements") or ()]}


def _with_models_of_lanes(document: dict[str, Any]) -> dict[str, Any]:
    """Version 3 had one model; lanes that name none have it still."""
    return document


def _with_threads(document: dict[str, Any]) -> dict[str, Any]:
    """Version 4 had the prompt alone, as the one message of a conversation where it went in the chat template."""
    chat = document.pop("chat", False)
    if not chat:
        return document
    return document | {"threads": [{"messages": [{"role": "user", "content": document.get("prompt", DEFAULT_PROMPT)}]}]}


# What brings a document of each version to the next one.
MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _with_prompts_and_timing,
    2: _with_several_lanes,
    3: _with_models_of_lanes,
    4: _with_threads,
}


def schema() -> dict[str, Any]:
    """The JSON schema of a session (draft 2020-12)."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Session)}
    for definition in document["$defs"].values():  # docstrings, which keep their indentation before Python 3.13
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return dict(msgspec.json.decode(msgspec.json.encode(document)))


def saved_step(step: Stepped) -> SessionStep:
    """A step without its candidates and logits."""
    return SessionStep(*_step_values(step))


def _tree(lane: int, saved: SessionLane, prompts: Sequence[tuple[Token, ...]]) -> BranchTree:
    branches: dict[int, Branch] = {}
    for one in saved.branches:
        parent = branches.get(one.parent) if one.parent is not None else None
        if one.id in branches or (one.parent is not None and parent is None) or not 0 <= one.prompt < len(prompts):
            raise InputError(
                _("branch {id} of lane {lane} leaves a branch or a prompt that is not there", id=one.id, lane=lane + 1)
            )
        shared = parent.steps[: one.fork] if parent is not None else ()
        if len(shared) != one.fork:
            raise InputError(
                _("branch {id} of lane {lane} leaves its parent after the parent's end", id=one.id, lane=lane + 1)
            )
        steps = tuple(
            Stepped(
                lane=lane,
                index=index,
                candidates=(),
                logits=KeptLogits(None),
                **dict(zip(STEP_FIELDS, _step_values(step))),
            )
            for index, step in enumerate(one.steps, start=one.fork)
        )
        branches[one.id] = Branch(
            one.id,
            one.parent,
            one.fork,
            prompts[one.prompt],
            one.config,
            one.limit,
            (*shared, *steps),
            one.reason or "cancelled",  # a run that was going on when the session was saved ends there
            one.prefill_seconds,
            one.beam,
            one.beams,
        )
    if saved.current is not None and saved.current not in branches:
        raise InputError(
            _("lane {lane} shows branch {current}, which is not there", lane=lane + 1, current=saved.current)
        )
    return BranchTree(tuple(branches.values()), saved.current)
