"""Programs in processes that begin where Python and torch are imported already.

Each is a process of its own, with its own streams, environment and working directory: a copy (`fork`) of one that has
imported what every command and the lab import, and has done nothing else. It ends as Python ends.
"""

import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

MAIN = "from engine.cli import main; main()"
# What every command and the lab import, and what those import that ask a server.
IMPORTED = (
    "engine.cli",
    "engine.generation.loop",
    "engine.loading",
    "engine.networks.sources",
    "tui.app",
    "openai.resources.completions",
    "engine.remote.connect",
)
LISTEN = "from tests.warm import listen; listen()"


def listen() -> None:
    """Import, then become each program that comes through the socket which is standard input."""
    import torch

    torch.set_num_threads(1)  # a copy has none of the threads that torch would begin here, and would wait for them

    import gc

    for name in IMPORTED:
        with suppress(ImportError):  # servers are asked with a package that not everybody has
            importlib.import_module(name)
    gc.freeze()  # a copy that collects garbage leaves all of this alone, and so shares its memory
    line = socket.socket(fileno=os.dup(0))
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno())
    reports: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([line, woken], [], [])
        if woken in ready:
            woken.recv(1 << 10)
            _report_ended(reports)
        if line not in ready:
            continue
        data, handed, _flags, _address = socket.recv_fds(line, 1 << 20, 4)
        if not data:
            return
        *streams, report = handed
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for other in (line.detach(), woken.detach(), wakes.detach(), report, *reports.values()):
                os.close(other)
            _become(json.loads(data), streams)
            return
        for stream in streams:
            os.close(stream)
        reports[child] = report
        os.write(report, f"{child}\n".encode())


def _report_ended(reports: dict[int, int]) -> None:
    """Say of each copy that has ended how it did."""
    for child, report in list(reports.items()):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os.close(reports.pop(child))


def _become(program: Mapping[str, Any], streams: Sequence[int]) -> None:
    """Be a program's process. Raises what the program raises, which ends the process as it would end any other."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if program["leads"]:
        os.setsid()
    os.chdir(program["folder"])
    os.environ.clear()
    os.environ.update(program["environment"])
    sys.argv = ["-c", *program["arguments"]]
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    exec(compile(program["code"], "<string>", "exec"), {"__name__": "__main__"})


class Copy:
    """A process that began as a copy, used as a `subprocess.Popen` is."""

    def __init__(self, report: socket.socket) -> None:
        self._report = report
        self.pid = int(self._next())
        self._code: int | None = None

    def _next(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            part = self._report.recv(1)
            assert part, "the process that others are copies of has ended"
            line += part
        return line

    def poll(self) -> int | None:
        """The exit code; `None` while it goes on."""
        if self._code is None and select.select([self._report], [], [], 0)[0]:
            self._code = int(self._next())
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises `subprocess.TimeoutExpired`."""
        if self._code is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self._code = int(self._next())
        return self._code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Warm:
    """A process that others are copies of.

    Args:
        folder: whose engine, lab and tests it imports; by default those of the process that begins it.
        environment: what it imports them under; every copy has one of its own.
    """

    def __init__(self, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen([sys.executable, "-c", LISTEN], stdin=theirs, cwd=folder, env=environment)
        theirs.close()

    def start(
        self,
        arguments: Sequence[str],
        streams: Sequence[int],
        environment: Mapping[str, str],
        *,
        code: str = MAIN,
        folder: str | None = None,
        leads: bool = False,
    ) -> Copy:
        """Begin a program.

        Args:
            arguments: what it finds behind its name.
            streams: its standard input, output and error.
            environment: all of its environment.
            code: the program.
            folder: its working directory; by default that of this process.
            leads: whether it leads a session, as `start_new_session` of `subprocess.Popen` has it.
        """
        ours, theirs = socket.socketpair()
        program = {"arguments": list(arguments), "environment": dict(environment), "code": code, "leads": leads}
        data = json.dumps(program | {"folder": folder or os.getcwd()}).encode()
        socket.send_fds(self._line, [data], [*streams, theirs.fileno()])
        theirs.close()
        return Copy(ours)

    def run(
        self,
        arguments: Sequence[str],
        stdin: bytes,
        environment: Mapping[str, str],
        seconds: float,
        **options: Any,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end, with the options of `start`. Raises `subprocess.TimeoutExpired`."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            given.write(stdin)
            given.seek(0)
            streams = [given.fileno(), out.fileno(), error.fileno()]
            process = self.start(arguments, streams, environment, **options)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            texts = [file.seek(0) or file.read().decode() for file in (out, error)]
        return subprocess.CompletedProcess(arguments, code, *texts)

    def close(self) -> None:
        self._line.close()
        self._process.wait(timeout=20)


@functools.cache
def shared() -> Warm:
    """The one of this process, begun when it is first asked for; it ends with this process."""
    return Warm()
