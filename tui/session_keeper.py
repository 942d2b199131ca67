"""The session: what the panes hold is saved all the time, and put back into them."""

import asyncio
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from textual.css.query import NoMatches
from textual.widgets import TabbedContent

from engine.base.clock import now
from engine.base.errors import LogitlabError
from engine.base.language import _
from engine.sessions import store as sessions
from engine.sessions.session import Session, from_trees, to_trees
from engine.sessions.store import SessionFile
from tui.panes.generate import GeneratePane
from tui.panes.prompt import PromptPane
from tui.panes.prompts import PromptsPane
from tui.panes.timing import TimingPane
from tui.panes.variants import VariantsPane

if TYPE_CHECKING:
    from tui.app import LogitlabApp

SAVE_SECONDS = 1.0
# Of the time, saving takes no more than this: long runs make large sessions.
SAVE_SHARE = 0.05
VIEWS = ("generate", "tokens", "prompts", "timing")


class SessionKeeper:
    """Looks once a second whether anything changed, and saves it.

    Args:
        file: what to save into; a new one at the first change when `None`.
    """

    def __init__(self, app: "LogitlabApp", file: SessionFile | None = None) -> None:
        self._app = app
        self._file = file
        self._saved: Any = None
        self._saving = asyncio.Lock()  # one save after the other
        self._writing = threading.RLock()  # a save goes on in a thread while the app leaves
        self._failed = False
        self._started = False
        self._due = 0.0

    @property
    def name(self) -> str | None:
        """Of the session; `None` before its first save."""
        return self._file.name if self._file is not None else None

    def start(self) -> None:
        """From now on, changes are saved."""
        self._saved, self._started = self._state(), True
        self._app.set_interval(SAVE_SECONDS, self._look)

    def gather(self) -> Session:
        """All that there is to save."""
        app = self._app
        configs, trees = app.query_one(GeneratePane).state
        lanes, prompt_tokens = from_trees(configs, trees)
        return Session(
            saved=now(),
            model=app.session_model,
            prompt=app.query_one(PromptPane).text,
            chat=app.chat,
            lanes=lanes,
            prompt_tokens=prompt_tokens,
            prompts=tuple(app.query_one(PromptsPane).prompts),
            variants=tuple(app.query_one(VariantsPane).variants),
            results=tuple(app.query_one(VariantsPane).results),
            measurements=tuple(one for one in app.query_one(TimingPane).measurements if one.runs),
            view=app.query_one(TabbedContent).active.removesuffix("-tab"),
        )

    def restore(self, session: Session) -> None:
        """Put a session into the panes."""
        app = self._app
        app.chat = session.chat
        app.session_model = session.model
        app.query_one(PromptPane).show(session.prompt)
        app.query_one(GeneratePane).restore([lane.config for lane in session.lanes], to_trees(session))
        app.query_one(PromptsPane).restore(session.prompts)
        app.query_one(VariantsPane).restore(session.variants, session.results)
        app.query_one(TimingPane).restore(session.measurements)
        if session.view in VIEWS:
            app.query_one(TabbedContent).active = f"{session.view}-tab"

    async def switch(self, file: SessionFile | None, session: Session) -> None:
        """Save this session, and go on with another one."""
        await self.save()
        self._release()
        self._file = file
        self.restore(session)
        self._saved = self._state() if file is not None else None

    async def begin_anew(self) -> None:
        """What the panes hold goes on in a new session; the one before stays as it was saved last."""
        await self.save()
        self._release()

    async def save(self) -> None:
        """Save what has changed, beside the event loop."""
        async with self._saving:
            if not self._started:
                return
            state = self._state()
            if state != self._saved:
                session = self.gather()
                if await asyncio.to_thread(self._write, session):
                    self._saved = state

    def close(self) -> None:
        """Save what has changed, at once, and let go of the file."""
        with self._writing:  # a save that is under way ends first, and none comes after
            with suppress(NoMatches):  # after a crash the panes are gone; then what was saved last counts
                if self._started and self._state() != self._saved:
                    self._write(self.gather())
            self._started = False
            self._release()

    def _state(self) -> Any:
        """What a session would be made of, compared before it is made."""
        app = self._app
        variants = app.query_one(VariantsPane)
        return (
            app.query_one(PromptPane).text,
            app.chat,
            app.query_one(GeneratePane).state,
            list(app.query_one(PromptsPane).prompts),
            list(variants.variants),
            list(variants.results),
            list(app.query_one(TimingPane).measurements),
        )

    async def _look(self) -> None:
        began = time.monotonic()
        if began >= self._due:
            with suppress(NoMatches):  # the app is leaving, and so are its panes
                await self.save()
            self._due = began + (time.monotonic() - began) / SAVE_SHARE

    def _write(self, session: Session) -> bool:
        try:
            with self._writing:
                if not self._started:
                    return False
                if self._file is None:
                    self._file = sessions.begin()
                self._file.save(session)
        except LogitlabError as error:
            if not self._failed and self._app.is_running:
                self._failed = True  # said once: it will be so again in a second
                self._app.call_later(self._tell, error)
            return False
        self._failed = False
        return True

    def _tell(self, error: LogitlabError) -> None:
        message = _("This session is not saved: {error}", error=error)
        self._app.notify(message, severity="warning", timeout=15, markup=False)

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
