"""The command line. Every command calls what the screen calls; `--json` is the dataclasses serialised."""

import errno
import logging
import os
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from engine.base import language, log, plain, settings
from engine.base.errors import InputError, LogitlabError, MachineError
from engine.base.language import _
from engine.cli import bench as measuring
from engine.cli import generation, inside
from engine.cli import help as texts
from engine.cli import tokens as cutting
from engine.cli.batch import batch
from engine.cli.diff import diff
from engine.cli.doctor import doctor
from engine.cli.keys import keys as keys_command
from engine.cli.kit import kit
from engine.cli.lessons import lesson as lesson_command
from engine.cli.models import models_app
from engine.cli.options import Json, LaneA, LaneB, Options, lane_configs, refuse_options, shares_options
from engine.cli.output import print_json
from engine.cli.patching import patch
from engine.cli.saved import report, sessions_app
from engine.cli.score import score
from engine.cli.screen import at_work, open_lab, reopened
from engine.cli.steering import steer_app
from engine.cli.talk import read_conversation, with_prompt
from engine.cli.variants import variants
from engine.sessions import session
from engine.sessions import store as sessions
from engine.sessions.session import Session, SessionLane
from engine.text.prompts import DEFAULT_PROMPT

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
INTERRUPTED = 130
READER_GONE = 128 + 13  # as shells say of SIGPIPE

app = typer.Typer(
    name="logitlab",
    help="See how a language model turns a prompt into text, one token at a time. Without a command: the lab.",
    add_completion=True,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models_app, name="models")
app.add_typer(sessions_app, name="sessions")
app.add_typer(measuring.bench_app, name="bench")
app.add_typer(steer_app, name="steer")
for name, command in (
    ("tokens", cutting.tokens),
    ("template", cutting.template),
    ("generate", generation.generate),
    ("compare", generation.compare),
    ("variants", variants),
    ("next", generation.next_token),
    ("score", score),
    ("diff", diff),
    ("lens", inside.lens),
    ("attention", inside.attention),
    ("attribute", inside.attribute),
    ("occlude", inside.occlude),
    ("patch", patch),
    ("lengths", cutting.lengths),
    ("report", report),
    ("batch", batch),
    ("lesson", lesson_command),
    ("keys", keys_command),
    ("kit", kit),
    ("doctor", doctor),
):
    app.command(name)(command)


@app.callback(invoke_without_command=True)
@shares_options
def lab(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Option(help="Open with this prompt.")] = None,
    messages: Annotated[
        str | None, typer.Option(metavar="FILE", help="Open with this conversation: OpenAI's messages in JSON.")
    ] = None,
    a: LaneA = None,
    b: LaneB = None,
    new: Annotated[bool, typer.Option("--new", help="Begin a new session; without it the last one goes on.")] = False,
    reduced_motion: Annotated[
        bool | None,
        typer.Option("--reduced-motion/--full-motion", help="No blinking, no sliding; remembered."),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    json: Json = False,
    *,
    options: Options,
) -> None:
    if context.invoked_subcommand is not None:
        refuse_options(context)
        return
    if version:
        from importlib.metadata import version as installed

        if json:
            print_json({"name": "logitlab", "version": installed("logitlab")})
        else:
            print(f"logitlab {installed('logitlab')}")
        return
    if json:
        raise InputError(_("--json goes with --version or behind a command; the lab has a screen"))
    if reduced_motion is not None:
        settings.change(reduced_motion=reduced_motion)
    talked = None if messages is None else with_prompt(read_conversation(messages), prompt)
    if prompt is None and talked is None and a is None and b is None and not new:
        open_lab(options, *reopened())
        return
    lanes = tuple(SessionLane(config) for config in lane_configs(a, b))
    if talked is None:
        open_lab(options, Session(prompt=DEFAULT_PROMPT if prompt is None else prompt, lanes=lanes))
    else:
        open_lab(options, Session(prompt=talked.last_of("user"), threads=(talked,), lanes=lanes))


@app.command("open")
@shares_options
def open_session(
    file: Annotated[str, typer.Argument(help="A session's file, or its name in the list.")], *, options: Options
) -> None:
    """Open a session. One of the list goes on; of any other file, which is never changed, a copy does."""
    path = sessions.find(file)
    if sessions.is_listed(path):
        held, opened = sessions.open_listed(path)
        open_lab(options, opened, held)
    else:
        open_lab(options, session.read(path))


def main() -> None:
    """Entry point: run a command; any error becomes one line on stderr and an exit code."""
    _open_closed_streams()
    debug = "--debug" in sys.argv
    if debug:
        os.environ["LOGITLAB_DEBUG"] = "1"
    stdout = sys.stdout
    try:
        code = _run([argument for argument in sys.argv[1:] if argument != "--debug"], debug)
    except KeyboardInterrupt:
        if stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode):  # which may be full, and nobody reads it
            _discard_stdout()
        code = INTERRUPTED
    except SystemExit as ended:
        # Where a reader has gone, as `head` does, Typer ends with 1 and puts another stream in standard output's place.
        code = READER_GONE if sys.stdout is not stdout else ended.code
    except BrokenPipeError:
        _discard_stdout()
        code = READER_GONE
    except Exception as error:
        code = _report(error, debug)
        if debug:
            raise
    _end(code)


def _end(code: object) -> None:
    """End the process; at once where the lab left a thread that Python could not end."""
    if at_work():
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else 0)
    sys.exit(code)  # type: ignore[arg-type]


def _run(arguments: Sequence[str], debug: bool) -> str | int | None:
    """Run a command, and give back its exit code."""
    _choose_language(arguments)
    log.start(debug=debug)
    command = typer.main.get_command(app)
    texts.translate(command)
    code: int = command(arguments, standalone_mode=False, prog_name="logitlab") or 0
    if code == INTERRUPTED:  # as Typer gives it back
        raise KeyboardInterrupt
    sys.stdout.flush()
    return code


def _report(error: Exception, debug: bool) -> int:
    """Say in one line what went wrong, where no traceback follows, and give back the exit code."""
    if isinstance(error, OSError) and error.filename is None and error.errno in UNWRITABLE:
        _discard_stdout()
        error = MachineError(_("cannot write: {reason}; give the output another place", reason=error.strerror))
    if not isinstance(error, LogitlabError) and not hasattr(error, "format_message"):
        log.crash(error)
    message, code = _explain(error)
    if not debug:
        print(f"logitlab: {plain.one_line(message)}", file=sys.stderr)
    return code


def _open_closed_streams() -> None:
    """Streams that the shell closed (`<&-`, `>&-`) lead nowhere, and no file of ours takes their numbers."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _discard_stdout() -> None:
    """Nobody takes what is still to be flushed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _choose_language(arguments: Sequence[str]) -> None:
    try:
        language.choose(_wanted_language(arguments))
    except LookupError as error:
        raise InputError(str(error.args[0])) from error


def _wanted_language(arguments: Sequence[str]) -> str | None:
    """What `--lang` says, known before the options are read, for their help is in that language too."""
    for index, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == "--lang" and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith("--lang="):
            return argument.removeprefix("--lang=")
    return None


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, LogitlabError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):  # Typer's own, for what was typed
        return _("{message}; see logitlab --help", message=texts.complaint(error)), 2
    if isinstance(error, OSError) and error.filename is not None:
        return _("{path}: {reason}; check that you may use it", path=error.filename, reason=error.strerror), 1
    if isinstance(error, typer.Abort):
        return _("stopped"), INTERRUPTED
    return _(
        "unexpected {name}: {error}; run again with --debug to see where", name=type(error).__name__, error=error
    ), 1
