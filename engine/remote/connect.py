"""From a server's address to a `ServedModel`."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.base.errors import Cancelled, LogitlabError
from engine.models import catalog
from engine.models.tokenizer_files import load_tokenizer
from engine.remote.connection import Connection
from engine.remote.detect import detect, served_by
from engine.remote.dialects.dialect import Dialect
from engine.remote.served import ServedModel
from engine.remote.tokenizer import ServerTokenizer
from engine.text.tokenizer import Tokenizer

PROBE = "Three cities, 1984: Tōkyō – and two more…\n"  # what tokenizers cut differently


def address_of(name: str) -> tuple[str, str | None]:
    """A server's address and, after a `#`, the model that it is to use: `http://host:8000#name`."""
    address, _hash, model = name.partition("#")
    return address, model or None


def served_models(address: str, *, cancelled: Callable[[], bool] = lambda: False) -> list[str]:
    """The names of what a server serves."""
    connection = Connection(address_of(address)[0])
    try:
        return [one["id"] for one in connection.call(served_by(connection), cancelled)]
    finally:
        connection.close()


def connect(
    name: str,
    *,
    key: str | None = None,
    cache_dir: Path | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> "ServedModel":
    """Find out what a server can do and make its model one of ours.

    Args:
        name: `http://host:port`, with `#model` where it serves several.
        key: `LOGITLAB_API_KEY` when `None`.

    Raises:
        InputError, RemoteError: with one line that says what to do.
        Cancelled: `cancelled` returned True.
    """
    address, wanted = address_of(name)
    connection = Connection(address, key)
    try:
        dialect = connection.call(detect(connection, wanted), cancelled)
        served = ServedModel(connection, dialect, _tokenizer(connection, dialect, cache_dir))
    except (LogitlabError, Cancelled):
        connection.close()
        raise
    except Exception as error:  # a form that is not known
        connection.close()
        raise connection.error(error) from error
    return served


def _tokenizer(connection: Connection, dialect: Dialect, cache_dir: Path | None) -> Tokenizer:
    """The model's own from the cache where it cuts as the server does, else the server's."""
    server = ServerTokenizer(connection, dialect, dialect.capabilities.vocabulary_size)
    if not dialect.capabilities.token_ids:
        return server  # which knows tokens by their texts
    with suppress(LogitlabError, OSError):
        entry = catalog.find(dialect.model, cache_dir)
        if entry.path is not None and entry.kind in ("hub", "embedded"):
            local = load_tokenizer(entry, entry.path)
            if not dialect.capabilities.tokenizer or local.encode_ids(PROBE) == server.encode_ids(PROBE):
                return local
    return server
