"""One server: requests, streams, and errors of one line in which the key never is."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from engine.base.errors import Cancelled, InputError, MachineError, first_line
from engine.base.language import _

if TYPE_CHECKING:
    import openai

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 60.0  # a server that says nothing for so long is given up
RETRIES = 2
POLL_SECONDS = 0.05
KEY = "LOGITLAB_API_KEY"

T = TypeVar("T")


class RemoteError(MachineError):
    """A server did not do its part."""


class Connection:
    """A server at an address, with an event loop of its own in a thread of its own.

    Args:
        address: `http://host:port`, with or without `/v1`.
        key: sent to that host alone; redirects are not followed.

    Raises:
        InputError: the address cannot be one, or the `openai` package is missing.
    """

    def __init__(self, address: str, key: str | None = None) -> None:
        self.root = _root(address)
        self.host = urlsplit(self.root).netloc
        self._key = key if key is not None else os.environ.get(KEY, "")
        try:
            import openai
        except ImportError as error:
            raise InputError(_("servers need a package more; run: pip install 'logitlab[remote]'")) from error
        self._openai = openai
        self._loop = asyncio.new_event_loop()
        self._client: openai.AsyncOpenAI | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="logitlab-server", daemon=True)
        self._thread.start()

    # From any thread.

    def call(self, work: Coroutine[Any, Any, T], cancelled: Callable[[], bool] = lambda: False) -> T:
        """Wait for a coroutine in the connection's loop; `cancelled` ends it at once. Raises `Cancelled`."""
        future = self.begin(work)
        while not future.done():
            if cancelled():
                future.cancel()
                raise Cancelled
            with suppress(TimeoutError):
                future.exception(POLL_SECONDS)
        return future.result()

    def begin(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start a coroutine in the connection's loop; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """End every request."""
        if self._loop.is_closed():
            return
        with suppress(Exception):
            self.begin(self._shut()).result(2)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2)
        if not self._thread.is_alive():
            self._loop.close()

    # In the connection's loop.

    async def get(self, path: str, *, retries: int = RETRIES) -> Any:
        """JSON from `path`, counted from the server's root. Raises `RemoteError`."""
        return await self._answer(lambda client, url: client.get(url, cast_to=object), path, retries)

    async def post(self, path: str, body: dict[str, Any], *, retries: int = RETRIES) -> Any:
        """JSON in answer to JSON. Raises `RemoteError`."""
        return await self._answer(lambda client, url: client.post(url, body=body, cast_to=object), path, retries)

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Server-sent events as JSON objects; leaving the loop closes the connection. Raises `RemoteError`."""
        try:
            client = self._made()
            events = await client.post(
                self.root + path,
                body=body | {"stream": True},
                cast_to=object,
                stream=True,
                stream_cls=self._openai.AsyncStream[object],
            )
            try:
                async for event in events:
                    if not isinstance(event, dict):
                        raise RemoteError(_("{host} sent what is no event", host=self.host))
                    yield event
            finally:
                await events.response.aclose()
        except (RemoteError, asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            raise self.error(error) from error

    def error(self, error: Exception) -> Exception:
        """An error of the network, the server or its words, in one line."""
        if isinstance(error, (RemoteError, InputError)):
            return error
        return RemoteError(self._without_key(self._complaint(error)))

    def _complaint(self, error: Exception) -> str:
        api, host = self._openai, self.host
        if isinstance(error, api.APITimeoutError):
            return _("{host} says nothing; see whether the server is well, then try again", host=host)
        if isinstance(error, api.APIConnectionError):
            return _(
                "cannot reach {host}: {reason}; check the address, and that the server runs",
                host=host,
                reason=first_line(error.__cause__ or error),
            )
        if isinstance(error, api.APIStatusError):
            return self._refused(error.status_code, error.response.headers.get("location"), _message(error.body))
        if isinstance(error, api.APIError):
            return _("{host} broke off: {reason}", host=host, reason=error.message)
        if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError, api.APIResponseValidationError)):
            return _("{host} sent what is no JSON; see whether it is a model server", host=host)
        if isinstance(error, (KeyError, TypeError, ValueError, IndexError, AttributeError)):
            return _("{host} answered in a form that is not known: {reason}", host=host, reason=first_line(error))
        return _("{host}: the connection broke ({reason}); try again", host=host, reason=first_line(error))

    def _refused(self, status: int, location: str | None, reason: str) -> str:
        host = self.host
        if 300 <= status < 400:
            other = urlsplit(location or "").netloc or "?"
            return _("{host} leads on to {other}, which is not followed; give that address", host=host, other=other)
        match status:
            case 401 | 403:
                return _("{host} wants a key ({status}); set LOGITLAB_API_KEY", host=host, status=status)
            case 404:
                return _("{host} has no such thing (404): {reason}", host=host, reason=reason)
            case 429:
                return _("{host} is busy (429); try again later", host=host)
            case _ if status >= 500:
                return _("{host} failed ({status}): {reason}", host=host, status=status, reason=reason)
        return _("{host} refused ({status}): {reason}", host=host, status=status, reason=reason)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text

    async def _answer(self, ask: "Callable[[openai.AsyncOpenAI, str], Any]", path: str, retries: int) -> Any:
        try:
            return await ask(self._made().with_options(max_retries=retries), self.root + path)
        except Exception as error:
            raise self.error(error) from error

    def _made(self) -> "openai.AsyncOpenAI":
        if self._client is None:
            openai = self._openai
            self._client = openai.AsyncOpenAI(
                base_url=f"{self.root}/v1",
                api_key=self._key or "none",
                max_retries=RETRIES,
                timeout=openai.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
                http_client=openai.DefaultAsyncHttpxClient(
                    follow_redirects=False, event_hooks={} if self._key else {"request": [_without_authorization]}
                ),
            )
        return self._client

    async def _shut(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # their streams are closed before the loop stops
        if self._client is not None:
            await self._client.close()
        await self._loop.shutdown_asyncgens()


async def _without_authorization(request: Any) -> None:
    """The client always sends a key; where there is none, nothing is better than a made-up one."""
    request.headers.pop("Authorization", None)


def _root(address: str) -> str:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise InputError(_("{address!r} is no address of a server: {error}", address=address, error=error)) from error
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or port == 0:
        raise InputError(
            _("{address!r} is no address of a server; give one such as http://localhost:8000", address=address)
        )
    if parts.username is not None or parts.password is not None:
        raise InputError(_("a key belongs into LOGITLAB_API_KEY, not into the address"))
    return f"{parts.scheme.lower()}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"


def _message(body: object) -> str:
    """What a server says of an error: OpenAI's form, vLLM's, FastAPI's, or any text."""
    said: object = body
    if isinstance(said, dict):
        said = said.get("error", said)
    if isinstance(said, dict):
        said = said.get("message", said.get("detail", said))
    return first_line(Exception(str(said or "?")))
