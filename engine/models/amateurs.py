"""The second model of a lane: how a configuration names it, and whether its vocabulary is that of the lane's model."""

from collections.abc import Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from engine.base.errors import InputError
from engine.base.language import _
from engine.base.plain import one_line
from engine.generation.config import GenerationConfig
from engine.models import catalog
from engine.models.model import Model
from engine.models.pair import name_and_precision
from engine.text.tokenizer import Tokenizer
from engine.text.vocabularies import first_missing_token

if TYPE_CHECKING:
    from engine.generation.amateur import Amateur
    from engine.generation.memory import StateMemory

# Of two tokenizers that were compared: the vocabulary of a model does not change, and has many entries.
_compared: "WeakKeyDictionary[Tokenizer, WeakKeyDictionary[Tokenizer, int | None]]" = WeakKeyDictionary()


def seat_of(config: GenerationConfig) -> GenerationConfig | None:
    """A configuration whose own model is a lane's amateur; `None` where the lane has none.

    Raises:
        InputError: it is a server, or a precision that there is not.
    """
    if config.amateur is None:
        return None
    if catalog.is_address(config.amateur):
        raise InputError(
            _("an amateur is asked for its whole distribution, which no server tells; name a model that runs here")
        )
    name, precision = name_and_precision(config.amateur, "")
    return GenerationConfig(model=name, precision=precision or None)


def with_seats(configs: Iterable[GenerationConfig]) -> list[GenerationConfig]:
    """Configurations, and those whose own models are their amateurs; of what names none, the configuration alone."""
    found = list(configs)
    for config in tuple(found):
        try:
            seat = seat_of(config)
        except InputError:  # which is said where it is loaded
            continue
        if seat is not None:
            found.append(seat)
    return found


def check_vocabulary(expert: Tokenizer, amateur: Tokenizer, name: str) -> None:
    """Raise `InputError`, in one sentence, where an id does not stand for the same in an amateur as in a lane's model.

    Args:
        name: of the amateur.
    """
    if expert is amateur:
        return
    if expert.remote:
        raise InputError(_("a server does not tell its vocabulary, so it takes no amateur; run the lane locally"))
    known = _compared.setdefault(expert, WeakKeyDictionary())
    if amateur not in known:
        known[amateur] = first_missing_token(expert, amateur)
    id = known[amateur]
    if id is not None:
        raise InputError(
            _(
                "the amateur {name} has another vocabulary: token {id:,} is “{a}” in the lane's model and “{b}” there; "
                "choose one of the same family",
                name=name,
                id=id,
                a=one_line(expert.label(id)),
                b=one_line(amateur.label(id)),
            )
        )


def amateur_for(model: Model, amateur: Model | None, states: "StateMemory | None" = None) -> "Amateur | None":
    """A loaded model as the amateur of another's lane; `None` for none.

    Args:
        states: what it knows of texts, where that is kept.

    Raises:
        InputError: it is a server, its vocabulary is another, or it lacks tokens of the lane's model.
    """
    if amateur is None:
        return None
    from engine.generation.amateur import Amateur
    from engine.models.local import with_network

    refusal = _("an amateur is asked for its whole distribution, which no server tells; name a model that runs here")
    local = with_network(amateur, refusal)
    check_vocabulary(model.tokenizer, local.tokenizer, local.facts.title)
    return Amateur(local.network, local.facts.title, states)
