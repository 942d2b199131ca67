"""The lab on the screen, as the command line opens it."""

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from engine.base import log, settings
from engine.base.errors import InputError, LogitlabError, MachineError
from engine.base.language import _
from engine.cli.options import Options
from engine.models import catalog
from engine.sessions import store as sessions
from engine.sessions.session import Session

if TYPE_CHECKING:
    from engine.lab import Lab


# Labs that were left.
_left: "list[Lab]" = []


def at_work() -> bool:
    """Whether a lab that was left still has a thread at work.

    An operator of torch's cannot be interrupted, and Python would abort as it takes its thread down; one of Textual's
    that reads a terminal that is gone would keep the process for ever.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    return any(lab.working for lab in _left) or (bool(_left) and any(not thread.daemon for thread in others))


def open_lab(
    options: Options,
    opened: Session,
    file: "sessions.SessionFile | None" = None,
    greeting: str = "",
    **lesson: Any,
) -> None:
    """The lab on the screen, until it is left."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(_("the lab needs a terminal; for scripts use logitlab generate, see logitlab --help"))
    if os.environ.get("TERM", "") in ("dumb", ""):
        raise InputError(_("this terminal (TERM=dumb) cannot show the lab; use logitlab generate, see logitlab --help"))
    if options.model is not None and options.server is None:
        catalog.find(options.model, options.cache_dir)
    from tui.app import LogitlabApp

    lab_app = LogitlabApp(
        model=options.name or (opened.model.name if opened.model is not None else None),
        precision=options.precision,
        device=options.device,
        threads=options.threads,
        offline=options.offline,
        cache_dir=options.cache_dir,
        kernels=options.kernels,
        session=opened,
        session_file=file,
        greeting=greeting,
        first=not settings.load().greeted,
        **lesson,
    )
    lab_app.run()
    _left.append(lab_app.lab)
    if lab_app.crash is not None:
        raise MachineError(
            _(
                "unexpected {name}; your session is saved, {log} says where it happened (--debug shows it)",
                name=type(lab_app.crash).__name__,
                log=log.path(),
            )
        )
    raise typer.Exit(lab_app.return_code or 0)


def lab_keys(file: Path | None = None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The table of the lab's keys under a file, by default one's own, and what is wrong with that file."""
    from tui import keymap

    return keymap.table(file)


def key_names() -> frozenset[str]:
    """What a lesson may call the actions whose keys it says."""
    from tui import keymap

    return keymap.names()


def reopened() -> "tuple[Session, sessions.SessionFile | None, str]":
    """The session that was saved last; a new one where there is none, or it cannot be opened, with the reason."""
    sessions.sweep()
    path = sessions.newest()
    if path is None:
        return Session(), None, ""
    try:
        held, opened = sessions.open_listed(path)
    except LogitlabError as error:
        return Session(), None, _("A new session, for the last one stays as it is: {error}", error=error)
    return opened, held, ""
