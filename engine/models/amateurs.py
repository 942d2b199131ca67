"""The second models of a lane, its amateur and its draft: how a configuration names them, and whether their vocabulary
is that of the lane's model."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

from engine.base.errors import InputError
from engine.base.language import _
from engine.base.plain import one_line
from engine.generation.config import LOOKUP, GenerationConfig
from engine.models import catalog
from engine.models.model import Model
from engine.models.pair import name_and_precision
from engine.text.tokenizer import Tokenizer
from engine.text.vocabularies import first_missing_token

if TYPE_CHECKING:
    from engine.generation.amateur import Amateur
    from engine.generation.drafts import DraftModel
    from engine.generation.memory import StateMemory

# Of two tokenizers that were compared: the vocabulary of a model does not change, and has many entries.
_compared: "WeakKeyDictionary[Tokenizer, WeakKeyDictionary[Tokenizer, int | None]]" = WeakKeyDictionary()


Role = Literal["amateur", "draft"]
ROLES: tuple[Role, ...] = ("amateur", "draft")


def seat_of(config: GenerationConfig, role: Role = "amateur") -> GenerationConfig | None:
    """A configuration whose own model is a lane's second one; `None` where the lane has none of that role.

    Raises:
        InputError: it is a server, or a precision that there is not.
    """
    named = config.amateur if role == "amateur" else config.draft
    if named is None or (role == "draft" and named == LOOKUP):
        return None
    if catalog.is_address(named):
        raise InputError(_no_server(role))
    name, precision = name_and_precision(named, "")
    return GenerationConfig(model=name, precision=precision or None)


def seats_of(config: GenerationConfig) -> dict[Role, GenerationConfig]:
    """Those of each role that a lane has. Raises as `seat_of`."""
    return {role: seat for role in ROLES if (seat := seat_of(config, role)) is not None}


def _no_server(role: Role) -> str:
    if role == "draft":
        return _("a draft is asked for its whole distribution, which no server tells; name a model that runs here")
    return _("an amateur is asked for its whole distribution, which no server tells; name a model that runs here")


def with_seats(configs: Iterable[GenerationConfig]) -> list[GenerationConfig]:
    """Configurations, and those whose own models are their second ones; of what names none, the configuration alone."""
    found = list(configs)
    for config in tuple(found):
        try:
            found += seats_of(config).values()
        except InputError:  # which is said where it is loaded
            continue
    return found


def check_vocabulary(expert: Tokenizer, second: Tokenizer, name: str, role: Role = "amateur") -> None:
    """Raise `InputError`, in one sentence, where an id does not stand for the same in an amateur or a draft as in a
    lane's model.

    Args:
        name: of the second model.
    """
    if expert is second:
        return
    if expert.remote and role == "draft":
        raise InputError(_("a server does not tell its vocabulary, so it takes no draft; run the lane locally"))
    if expert.remote:
        raise InputError(_("a server does not tell its vocabulary, so it takes no amateur; run the lane locally"))
    known = _compared.setdefault(expert, WeakKeyDictionary())
    if second not in known:
        known[second] = first_missing_token(expert, second)
    id = known[second]
    if id is None:
        return
    said = {"name": name, "id": id, "a": one_line(expert.label(id)), "b": one_line(second.label(id))}
    if role == "draft":
        raise InputError(
            _(
                "the draft {name} has another vocabulary: token {id:,} is “{a}” in the lane's model and “{b}” there; "
                "choose one of the same family",
                **said,
            )
        )
    raise InputError(
        _(
            "the amateur {name} has another vocabulary: token {id:,} is “{a}” in the lane's model and “{b}” there; "
            "choose one of the same family",
            **said,
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

    local = with_network(amateur, _no_server("amateur"))
    check_vocabulary(model.tokenizer, local.tokenizer, local.facts.title)
    return Amateur(local.network, local.facts.title, states)


def draft_for(model: Model, draft: Model | None, states: "StateMemory | None" = None) -> "DraftModel | None":
    """A loaded model as what guesses for another's lane; `None` for none. Args and errors as of `amateur_for`."""
    if draft is None:
        return None
    from engine.generation.drafts import DraftModel
    from engine.models.local import with_network

    local = with_network(draft, _no_server("draft"))
    check_vocabulary(model.tokenizer, local.tokenizer, local.facts.title, "draft")
    return DraftModel(local.network, local.facts.title, states)
