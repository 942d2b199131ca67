"""A program in a real pseudo-terminal, read through a terminal emulator."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import pyte

from tests.warm import MAIN, Copy, shared

KEYS = {
    "F1": "\x1bOP",
    "F2": "\x1bOQ",
    "F3": "\x1bOR",
    "F4": "\x1bOS",
    "F5": "\x1b[15~",
    "F6": "\x1b[17~",
    "F7": "\x1b[18~",
    "ctrl+l": "\x0c",
    "esc": "\x1b",
    "tab": "\t",
    "enter": "\r",
    "F8": "\x1b[19~",
    "ctrl+q": "\x11",
    "ctrl+s": "\x13",
    "ctrl+o": "\x0f",
    "ctrl+t": "\x14",
    "right": "\x1b[C",
    "left": "\x1b[D",
}


class Terminal:
    """Runs `logitlab` with arguments in a terminal of `columns` × `rows`.

    Args:
        first: whether nobody has opened the lab before, so that it introduces itself.
        fresh: whether the process starts as its users' do; otherwise it is a copy of one that has imported all.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        columns: int = 80,
        rows: int = 24,
        *,
        first: bool = False,
        fresh: bool = False,
        theme: str = "",
        code: str = MAIN,
        **environment: str,
    ) -> None:
        state = Path(environment.get("LOGITLAB_STATE_DIR") or os.environ["LOGITLAB_STATE_DIR"])
        (state / "settings.json").write_text(json.dumps({"greeted": not first, "theme": theme}))
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._ours, theirs = pty.openpty()
        self._size(columns, rows)
        self.attributes = termios.tcgetattr(self._ours)
        surroundings = _without_size(os.environ) | {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | environment
        self.process: subprocess.Popen[bytes] | Copy
        if fresh:
            command = [sys.executable, "-c", code, *arguments]
            streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
            self.process = subprocess.Popen(command, **streams, env=surroundings, start_new_session=True)
        else:
            self.process = shared().start(arguments, (theirs,) * 3, surroundings, code=code, leads=True)
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def resize(self, columns: int, rows: int) -> None:
        self._size(columns, rows)
        self.screen.resize(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def press(self, *keys: str) -> None:
        """Keys by name, anything else as it is typed."""
        for key in keys:
            os.write(self._ours, KEYS.get(key, key).encode())

    @property
    def text(self) -> str:
        return "\n".join(map(self.line, range(self.screen.lines)))

    def line(self, row: int) -> str:
        """As in `pyte.Screen.display`, which fails where half of a wide character was written over."""
        return "".join(self.screen.buffer[row][column].data for column in range(self.screen.columns))

    def wait(self, what: str | Callable[[str], bool], seconds: float = 60) -> str:
        """Read until the screen shows `what`; fail with the screen otherwise."""
        shows = what if callable(what) else lambda text: what in text
        deadline = time.monotonic() + seconds
        while not shows(self.text):
            if time.monotonic() > deadline or not self._read():
                raise AssertionError(f"the screen never showed {what!r}:\n{self.text}")
        return self.text

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60, *, read: bool = True) -> None:
        """Read, or read nothing, until something outside the screen holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it never came; the screen:\n{self.text}"
            if read:
                self._read()
            else:
                time.sleep(0.05)

    def finish(self, seconds: float = 20) -> int:
        """Read until the program has ended; its exit code."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read()
        while self._read():
            pass
        return self.process.wait(timeout=1)

    def hang_up(self) -> None:
        """The terminal is gone, and nobody tells the program."""
        os.close(self._ours)
        self._ours = -1

    def now(self) -> list[object]:
        """The terminal's attributes."""
        return termios.tcgetattr(self._ours)

    def reads_lines(self) -> bool:
        """Whether the terminal keeps keys until a line is complete, as outside the lab."""
        flags = self.now()[3]
        assert isinstance(flags, int)
        return bool(flags & termios.ICANON)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._ours >= 0:
            os.close(self._ours)

    def _read(self) -> bool:
        """Take in what the program wrote; False once it is gone."""
        ready, _, _ = select.select([self._ours], [], [], 0.1)
        if not ready:
            return self.process.poll() is None
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError:
            return False
        self.raw += data
        self._take(data)
        return bool(data)

    def _take(self, data: bytes) -> None:
        """Bring the screen up to date."""
        # pyte knows no private "<" and ">" parameters, which Textual sends to negotiate the keyboard.
        self._stream.feed(without_private(data))

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def both_ended(text: str) -> bool:
    """Whether both lanes say that they have ended; narrow ones show the beginning of it."""
    return len(re.findall("reached its|end of text|stop text", text)) == 2


def _without_size(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what would count for more than the terminal's own size."""
    return {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}


def without_private(data: bytes) -> bytes:
    return re.sub(rb"\x1b\[[<>=][0-9;]*[a-zA-Z]", b"", data)
