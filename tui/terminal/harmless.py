"""The last look at every line before it is drawn: what it holds is printed, never obeyed.

Panes show texts that people, models and files made. Most make control characters visible where they come in; fields
that are typed into keep every character as it is, so it is here that none of them reaches the terminal.
"""

import re

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from engine.base.plain import OBEYED


class Harmless(LineFilter):
    """Shows a sign instead, of one column like what it stands for."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if not any(OBEYED.search(segment.text) for segment in segments):
            return segments
        return [
            Segment(OBEYED.sub(_sign, segment.text), segment.style) if segment.control is None else segment
            for segment in segments
        ]


def _sign(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else "�"
