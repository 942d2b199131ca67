"""The session: what the panes hold is saved all the time, and put back into them."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from textual.css.query import NoMatches

from engine.base.clock import now
from engine.base.errors import LogitlabError
from engine.base.language import _
from engine.lab import Lab
from engine.sessions import store as sessions
from engine.sessions.session import Session, SessionModel, from_trees, to_trees
from engine.sessions.store import SessionFile
from tui.background import in_background
from tui.trouble import tell
from tui.workbench import VIEWS, Workbench

SAVE_SECONDS = 1.0
# Of the time, saving takes no more than this: long runs make large sessions.
SAVE_SHARE = 0.05


class SessionKeeper:
    """Looks once a second whether anything changed, and saves it.

    Args:
        file: what to save into; a new one at the first change when `None`.

    Attributes:
        model: what the branches were written with.
    """

    def __init__(self, workbench: Workbench, lab: Lab, file: SessionFile | None = None) -> None:
        self._workbench = workbench
        self._lab = lab
        self.model: SessionModel | None = None
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
        self._workbench.set_interval(SAVE_SECONDS, self._look)

    def gather(self) -> Session:
        """All that there is to save."""
        bench = self._workbench
        configs, trees = bench.generate.state
        lanes, prompt_tokens = from_trees(configs, trees)
        return Session(
            saved=now(),
            model=self.model,
            prompt=bench.prompt_area.text,
            threads=bench.prompt_area.saved_threads,
            prompt_alone=bench.prompt_area.waits,
            lanes=lanes,
            prompt_tokens=prompt_tokens,
            prompts=tuple(bench.prompts.prompts),
            variants=tuple(bench.variants.variants),
            results=tuple(bench.variants.results),
            measurements=tuple(one for one in bench.timing.measurements if one.runs),
            view=bench.view,
        )

    def restore(self, session: Session) -> None:
        """Put a session into the panes."""
        bench = self._workbench
        self.model = session.model
        bench.prompt_area.restore(session.prompt, session.threads, waits=session.prompt_alone)
        bench.generate.restore([lane.config for lane in session.lanes], to_trees(session))
        bench.prompts.restore(session.prompts)
        bench.variants.restore(session.variants, session.results)
        bench.timing.restore(session.measurements)
        if session.view in VIEWS:
            bench.view = session.view

    # Other sessions.

    def choose(self, load: Callable[[str], object]) -> None:
        """Let one be chosen among all that were saved; `load` brings the model that it was made with."""
        from tui.dialogs.sessions import SessionsDialog

        def accept(name: str | None) -> None:
            if name is not None:
                in_background(self._workbench, "session", self._open, name, load)

        self._workbench.app.push_screen(SessionsDialog(self.name), accept)

    async def _open(self, name: str, load: Callable[[str], object]) -> None:
        """Go on with another session; a new one for an empty name."""
        bench = self._workbench
        try:
            file, opened = sessions.open_listed(sessions.find(name)) if name else (None, Session())
        except LogitlabError as error:
            tell(bench.app, error)
            return
        await self.switch(file, opened)
        facts = self._lab.facts
        if opened.model is None and facts is not None:
            self.model = SessionModel.of(facts)
        elif opened.model is not None and (facts is None or facts.identity != opened.model.identity):
            load(opened.model.name)
        bench.notify(_("A new session.") if not name else _("The session is open; the one before is saved."))

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
        bench = self._workbench
        return (
            bench.prompt_area.text,
            bench.prompt_area.saved_threads,
            bench.prompt_area.waits,
            bench.generate.state,
            list(bench.prompts.prompts),
            list(bench.variants.variants),
            list(bench.variants.results),
            list(bench.timing.measurements),
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
            if not self._failed and self._workbench.is_running:
                self._failed = True  # said once: it will be so again in a second
                self._workbench.call_later(self._tell, error)
            return False
        self._failed = False
        return True

    def _tell(self, error: LogitlabError) -> None:
        message = _("This session is not saved: {error}", error=error)
        self._workbench.notify(message, severity="warning", timeout=15, markup=False)

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
