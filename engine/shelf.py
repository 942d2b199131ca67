"""The models in use at once: the lab's own, those that lanes name in its place, and lanes' amateurs and drafts."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from engine.base.errors import InputError, OutOfMemoryError
from engine.base.language import _
from engine.base.machine import free_memory
from engine.generation.config import GenerationConfig
from engine.models import catalog
from engine.models.amateurs import Role, check_vocabulary, seat_of, seats_of, with_seats
from engine.models.model import Model
from engine.models.progress import Report
from engine.text.tokenizer import Tokenizer

# A model as it is named, and the precision that it is loaded in.
Key = tuple[str, str]


class Shelf:
    """Holds models by name and precision, and loads one when a lane asks for it.

    Args:
        default: the model of lanes that name none, where there is no `own`.
        how: options of `LoadOptions`; `precision` is that of lanes that name none.

    Attributes:
        own: the lab's model, of lanes that name no other; loaded and closed by the lab.
    """

    def __init__(self, default: str | None = None, **how: Any) -> None:
        self.own: Model | None = None
        self._default = default
        self._how = how
        self._held: dict[Key, Model] = {}
        self._names: dict[str, str] = {}  # as the catalogue has them, by what was written
        self._changing = threading.Lock()

    # What is there.

    def find(self, config: GenerationConfig) -> Model | None:
        """The model of a lane; `None` where it is not loaded. Raises `InputError` where there is no such model."""
        key = self._key(config)
        return self.own if key is None else self._held.get(key)

    def amateur(self, config: GenerationConfig) -> Model | None:
        """The amateur of a lane; `None` where it has none, or it is not loaded. Raises `InputError` as `find` does."""
        return self._second(config, "amateur")

    def draft(self, config: GenerationConfig) -> Model | None:
        """The model that guesses for a lane, likewise; lookup wants none."""
        return self._second(config, "draft")

    def _second(self, config: GenerationConfig, role: Role) -> Model | None:
        seat = seat_of(config, role)
        return None if seat is None else self.find(seat)

    def lacks(self, configs: Iterable[GenerationConfig]) -> bool:
        """Whether a model that lanes name is not loaded."""
        return any(self.find(config) is None for config in with_seats(configs) if config.names_model)

    def spares(self, configs: Iterable[GenerationConfig]) -> bool:
        """Whether a model is loaded that none of these lanes names."""
        return bool(self._idle(configs))

    @property
    def models(self) -> list[Model]:
        """All that are loaded."""
        return [*([] if self.own is None else [self.own]), *self._held.values()]

    # What comes and goes.

    def let_go(self, configs: Iterable[GenerationConfig]) -> list[Model]:
        """Close the models that none of these lanes names; which they were."""
        with self._changing:
            gone = [self._held.pop(key) for key in self._idle(configs)]
        for model in gone:
            model.close()
        return gone

    def bring(
        self,
        configs: Sequence[GenerationConfig],
        *,
        report: Report = lambda progress: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Model]:
        """The model of each lane; those that are not there are loaded, and second ones behind them, in the thread that
        will use them.

        Raises:
            InputError, MachineError: with one line that says what to do; `OutOfMemoryError` names the models for
                which there is not enough memory together. A second one of another vocabulary is refused before
                its weights are read.
            Cancelled: `cancelled` returned True.
        """
        from engine.loading import load_model

        seats = [seats_of(config) for config in configs]
        keys = [self._key(config) for config in [*configs, *(seat for ours in seats for seat in ours.values())]]
        missing = [key for key in dict.fromkeys(keys) if key is not None and key not in self._held]
        how = self._how | {"report": report, "cancelled": cancelled}
        self._check_memory([key for key in missing if not catalog.is_address(key[0])], how)
        for name, precision in missing:
            fits = partial(self._check_seconds, (name, precision), configs, seats)
            model = load_model(name, **how | {"precision": precision, "tokenizer_loaded": fits})
            with self._changing:
                self._held[name, precision] = model
        found = [self.own if key is None else self._held[key] for key in keys]
        assert None not in found
        for config, ours in zip(configs, seats):
            for role, seat in ours.items():
                if (second := self.find(seat)) is not None:
                    self._check_seconds(self._key(seat), [config], [{role: seat}], second.tokenizer)
        return [model for model in found[: len(configs)] if model is not None]

    def _check_seconds(
        self,
        key: Key | None,
        configs: Sequence[GenerationConfig],
        seats: Sequence[Mapping[Role, GenerationConfig]],
        tokenizer: Tokenizer,
    ) -> None:
        """Raise `InputError` where a model is the second one of a lane whose own, which is there, has other tokens."""
        for config, ours in zip(configs, seats):
            for role, seat in ours.items():
                if self._key(seat) == key and (model := self.find(config)) is not None:
                    if not model.capabilities.network:
                        model.capabilities.check(config)
                    check_vocabulary(model.tokenizer, tokenizer, seat.model_label, role)

    def _idle(self, configs: Iterable[GenerationConfig]) -> list[Key]:
        wanted = set()
        for config in with_seats(configs):
            try:
                wanted.add(self._key(config))
            except InputError:  # it names no model
                continue
        return [key for key in list(self._held) if key not in wanted]

    def _key(self, config: GenerationConfig) -> Key | None:
        """What a lane names; `None` for the lab's own model. Raises `InputError`."""
        own = None if self.own is None else self.own.facts
        if own is not None and not config.names_model:
            return None
        name = config.model
        if name is None:
            name = own.name if own is not None else self._default or catalog.default_name()
        if name not in self._names:
            self._names[name] = catalog.find(name, self._how.get("cache_dir")).name
        name = self._names[name]
        if catalog.is_address(name) and config.precision is not None:
            raise InputError(_("a server runs its model in a precision of its own; leave precision out"))
        if own is not None and name == own.name and config.precision in (None, self._how.get("precision")):
            return None
        if own is not None and name == own.name and _runs_in(own.precision, str(config.precision)):
            return None
        return name, config.precision or str(self._how.get("precision", "auto"))

    def _check_memory(self, coming: Sequence[Key], how: dict[str, Any]) -> None:
        """Raise `OutOfMemoryError` where there is no room for models that are to be in memory together."""
        here = [model for model in self.models if model.capabilities.network]
        if not coming or len(here) + len(coming) < 2:
            return  # loading one says itself that it does not fit
        from engine.models.local import LoadOptions, needed_bytes
        from engine.models.pair import check_both_fit

        options = [(name, LoadOptions(**how | {"precision": precision})) for name, precision in coming]
        if not here and len(options) == 2:
            check_both_fit(*options)
            return
        names = ", ".join(name for name, _precision in coming)
        needed = sum(needed_bytes(*one) for one in options)
        free = free_memory()
        if free is not None and needed > free:
            if not here:
                raise OutOfMemoryError(
                    _(
                        "{names} take about {needed:.1f} GB together, and {free:.1f} GB of memory are free; choose "
                        "smaller ones, or precision bfloat16",
                        names=names,
                        needed=needed / 1e9,
                        free=free / 1e9,
                    )
                )
            raise OutOfMemoryError(
                _(
                    "{second} takes about {needed:.1f} GB beside {first}, and {free:.1f} GB of memory are free; choose "
                    "a smaller model for the lane, or precision bfloat16",
                    second=names,
                    needed=needed / 1e9,
                    first=", ".join(model.facts.name for model in here),
                    free=free / 1e9,
                )
            )


def _runs_in(ran: str, wanted: str) -> bool:
    """Whether a model that runs in the precision `ran`, as `ModelFacts` has it, is what `wanted` would load."""
    return wanted == ran or (wanted == "native" and ran not in ("float32", "bfloat16"))
