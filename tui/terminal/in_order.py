"""Keys in their order: each has done all that it does before the next one is looked at."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Generic

from textual import events
from textual.app import App, ReturnType, ScreenStackError
from textual.dom import DOMNode
from textual.message_pump import MessagePump

# A key makes a message, its action another one, and the handler of that perhaps a third. While lanes run the pumps are
# never idle, so it ends with this many rounds.
ROUNDS = 4


class InOrderApp(App[ReturnType], Generic[ReturnType]):
    """An app that takes in keys, pastes and clicks one at a time.

    Textual chooses what a key is for when it comes, and hands it to a widget's queue. If the key before it is still in
    that queue and is about to close a dialog, the dialog gets both: the second is lost with it, or does there what it
    was not meant to do. If the key before has just opened a dialog, none of its fields has the focus yet, and what is
    typed is lost too. So a key waits here until the one before it has gone all its way.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._to_come: deque[events.Event] = deque()
        self._under_way: asyncio.Task[None] | None = None

    async def on_event(self, event: events.Event) -> None:
        if not isinstance(event, (events.InputEvent, events.Paste)) or event.is_forwarded:
            await super().on_event(event)
        elif self._exit:
            pass  # the app is leaving: there may be no screen any more
        elif self._under_way is not None:
            self._to_come.append(event)
        else:
            await self._take(event)

    def _on_unmount(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()

    async def _take(self, event: events.Event) -> None:
        await super().on_event(event)
        if isinstance(event, (events.Key, events.Paste, events.MouseUp)):
            self._under_way = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """Go the way of a key behind it, from the focused widget up to the app, until nothing comes of it any more."""
        with suppress(ScreenStackError):  # the app is leaving
            for _round in range(ROUNDS):
                way = self._way()
                for pump in way:
                    await _emptied(pump)
                if not any(pump.message_queue_size for pump in way) and way == self._way():
                    break
        self.call_next(self._take_next)

    def _way(self) -> list[DOMNode]:
        """From what has the focus up to the app: each hands on to the next what it does not keep."""
        return (self.focused or self.screen).ancestors_with_self

    async def _take_next(self) -> None:
        self._under_way = None
        while self._to_come and self._under_way is None and not self._exit:
            await self._take(self._to_come.popleft())


async def _emptied(pump: MessagePump) -> None:
    """Wait until a pump has handled all messages that it has now, or has ended."""
    handled = asyncio.Event()
    if pump.call_later(handled.set):
        waiting = asyncio.ensure_future(handled.wait())
        ended = {pump._task} if pump._task is not None else set()
        await asyncio.wait({waiting, *ended}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
