"""The command line in processes that begin where Python and torch are imported already.

Each command is a process of its own, with its own streams, environment and working directory: a copy (`fork`) of one
that has imported what every command imports, and has done nothing else.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

LISTEN = "from tests.warm import listen; listen()"


def listen() -> None:
    """Import, then run each command that comes through the socket which is standard input."""
    import torch

    torch.set_num_threads(1)  # a copy has none of the threads that torch would begin here, and would wait for them

    import engine.cli
    import engine.generation.loop
    import engine.loading
    import engine.networks.sources  # noqa: F401

    line = socket.socket(fileno=os.dup(0))
    while True:
        data, streams, _flags, _address = socket.recv_fds(line, 1 << 20, 3)
        if not data:
            return
        child = os.fork()
        if child == 0:
            line.close()
            _become(json.loads(data), streams)
        for stream in streams:
            os.close(stream)
        line.send(f"{child}\n".encode())
        line.send(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())


def _become(command: Mapping[str, Any], streams: Sequence[int]) -> None:
    """Be the command's process until it ends."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.argv = ["logitlab", *command["arguments"]]
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    from engine.cli import main

    code: object = 1
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


class Warm:
    """A process that commands are copies of."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen([sys.executable, "-c", LISTEN], stdin=theirs)
        theirs.close()

    def run(
        self, arguments: Sequence[str], stdin: bytes, environment: Mapping[str, str], seconds: float
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end. Raises `subprocess.TimeoutExpired`."""
        command = {"arguments": list(arguments), "environment": dict(environment), "folder": os.getcwd()}
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            given.write(stdin)
            given.seek(0)
            socket.send_fds(self._line, [json.dumps(command).encode()], [given.fileno(), out.fileno(), error.fileno()])
            child = int(self._line.recv(64))
            self._line.settimeout(seconds)
            try:
                code = int(self._line.recv(64))
            except TimeoutError:
                os.kill(child, 9)
                self._line.settimeout(None)
                self._line.recv(64)
                raise subprocess.TimeoutExpired(arguments, seconds) from None
            texts = [file.seek(0) or file.read().decode() for file in (out, error)]
        return subprocess.CompletedProcess(arguments, code, *texts)

    def close(self) -> None:
        self._line.close()
        self._process.wait(timeout=20)
