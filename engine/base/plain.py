"""Plain text for the command line: tables, bars, and text that cannot harm a terminal."""

import re
from collections.abc import Sequence

BLOCKS = " ▏▎▍▌▋▊▉█"

# What a terminal obeys instead of showing it: controls, line breaks, and what changes the direction of text or hides in
# it. Spaces of other widths and the joiners of letters and of emoji are text.
OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
UNKNOWN = "–"


def safe(text: str) -> str:
    """Text with everything that a terminal would obey but newline and tab made visible.

    >>> safe("a\\x1b[31mb")
    'a␛[31mb'
    """
    return OBEYED.sub(lambda found: found.group() if found.group() in "\n\t" else _shown(found.group()), text)


def one_line(text: str) -> str:
    """`safe`, with newlines and tabs made visible too."""
    return safe(text).replace("\n", "⏎").replace("\t", "⇥")


def cells(text: str) -> int:
    """Number of terminal columns that `text` takes."""
    from rich.cells import cell_len

    return cell_len(text)


def at_right(text: str, width: int) -> str:
    """Text aligned to the right in `width` columns."""
    return " " * (width - cells(text)) + text


def shortened(text: str, width: int) -> str:
    """Text of at most `width` columns: what has no room gives way to an ellipsis.

    >>> shortened("日本語", 4), shortened("rain", 4)
    ('日…', 'rain')
    """
    if cells(text) <= width:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(text, max(0, width - 1)).rstrip() + "…" if width > 0 else ""


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Lines of aligned columns, without blanks at their ends.

    rich's `Table` drops blanks at the end of right-aligned values, splits at U+2028, and takes ten times as long.

    Args:
        right: numbers of the columns that are aligned to the right, from 0.
    """
    lines = [list(headers), *([one_line(str(value)) for value in row] for row in rows)]
    widths = [max(cells(line[column]) for line in lines) for column in range(len(headers))]

    def aligned(line: list[str]) -> str:
        padded = [
            at_right(value, width) if column in right else value + " " * (width - cells(value))
            for column, (value, width) in enumerate(zip(line, widths))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join(map(aligned, lines))


def bar(value: float, most: float, width: int) -> str:
    """A bar of at most `width` columns, in eighths of a column.

    >>> bar(0.5, 1, 3)
    '█▌'
    """
    eighths = round(width * 8 * value / most) if most > 0 else 0
    full, rest = divmod(max(0, min(eighths, width * 8)), 8)
    return "█" * full + (BLOCKS[rest] if rest else "")


def signed_bar(value: float, most: float, width: int) -> str:
    """A bar to the right of a line, or for a value below zero to the left of it, each side of `width` columns.

    >>> signed_bar(-0.5, 1, 2), signed_bar(1, 1, 2)
    (' █│', '  │██')
    """
    if value >= 0:
        return " " * width + "│" + bar(value, most, width)
    halves = round(width * 2 * -value / most) if most > 0 else 0
    full, rest = divmod(min(halves, width * 2), 2)
    return at_right("▐" * rest + "█" * full, width) + "│"


def number(value: float | None, form: str = ",") -> str:
    """A number in one of Python's formats; a dash for `None`."""
    return UNKNOWN if value is None else format(value, form)


def percent(probability: float | None) -> str:
    """A probability in at most seven columns; very small ones as a power of ten, a dash for `None`.

    >>> percent(0.312), percent(0.00008), percent(3e-9), percent(None)
    ('31.2 %', '0.008 %', '3e-09', '–')
    """
    if probability is None:
        return UNKNOWN
    if probability == 0 or probability >= 0.0005:
        return f"{100 * probability:.1f} %"
    return f"{100 * probability:.1g} %" if probability >= 1e-5 else f"{probability:.0e}"


def _shown(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return f"⟨{code:02X}⟩"
