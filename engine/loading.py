"""From a name to a `Model` that can generate: of the catalogue, of a folder or file, or a server's address."""

from typing import TYPE_CHECKING, Any

from engine.base.errors import InputError
from engine.base.language import _
from engine.models import catalog
from engine.models.local import LoadOptions, LocalModel, load, with_network
from engine.models.model import Model
from engine.models.progress import Loading

if TYPE_CHECKING:
    from engine.remote.served import ServedModel


def load_model(name: str | None = None, **options: Any) -> Model:
    """Fetch a model where needed and load it, in the thread that will use it; or reach a server that has one.

    Args:
        name: as `catalog.find` takes it, or a server's address; the last used model when `None`.
        options: see `LoadOptions`.

    Raises:
        InputError, MachineError: with one line that says what to do.
        Cancelled: `options["cancelled"]` returned True.
    """
    how = LoadOptions(**options)
    name = name or catalog.default_name()
    return _reach(name, how) if catalog.is_address(name) else load(name, how)


def load_local(name: str | None = None, **options: Any) -> LocalModel:
    """`load_model` for what only a network in this process can do. Raises `InputError` for a server's address."""
    refusal = _("this needs the model's own numbers, which no server tells; leave --server out")
    if name is not None and catalog.is_address(name):
        raise InputError(refusal)
    return with_network(load_model(name, **options), refusal)


def _reach(name: str, options: LoadOptions) -> "ServedModel":
    """The model of a server."""
    from engine.remote.connect import connect

    if options.offline:
        raise InputError(_("--offline is set, and a server needs a network; leave one of them out"))
    options.report(Loading("read", 0, 0, _("asking {name} what it can do", name=name)))
    model = connect(name, cache_dir=options.cache_dir, cancelled=options.cancelled)
    options.report(Loading("ready", 1, 1, model.facts.title))
    return model
