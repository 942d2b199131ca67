"""What a model thinks before it answers, and the marks around it.

Families write them in their own ways: `<think>` (DeepSeek, Qwen and most others), `<|channel|>analysis<|message|>`
(gpt-oss), `[THINK]` (Magistral), `<|START_THINKING|>` (Command), `◁think▷` (Kimi), `<seed:think>` (Seed-OSS).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

# What begins it, and what ends it.
MARKS = {
    "<think>": "</think>",
    "<|channel|>analysis<|message|>": "<|end|>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "◁think▷": "◁/think▷",
    "<seed:think>": "</seed:think>",
    "<thinking>": "</thinking>",
    "<reasoning>": "</reasoning>",
    "<thought>": "</thought>",
}
# Those that mean nothing else: `<|end|>` ends every turn of some families.
OWN_MARKS = [pair for pair in MARKS.items() if "<|end|>" not in pair]
# What stands between gpt-oss's thoughts and its answer.
_ANSWERS = ("<|start|>assistant<|channel|>final<|message|>", "<|channel|>final<|message|>")


@dataclass(frozen=True, slots=True)
class Thought:
    """Where thinking stands in a text: characters, marks included.

    Attributes:
        closed: whether its end is there.
        inner: the thinking alone.
    """

    start: int
    end: int
    closed: bool
    inner: str


def open_mark(text: str) -> str | None:
    """The mark that begins thinking which the text, a prompt, does not end."""
    for begin in MARKS:
        if (place := text.rfind(begin)) >= 0 and not text[place + len(begin) :].strip():
            return begin
    return None


def thoughts(text: str, opened: str | None = None) -> Iterator[Thought]:
    """The thoughts in a text, in which names of special tokens stand as letters.

    Args:
        opened: the mark that the text before it ended with.
    """
    at = 0
    while at < len(text) or opened is not None:
        found = [(text.find(begin, at), begin, end) for begin, end in MARKS.items() if text.find(begin, at) >= 0]
        if opened is not None:
            start, inner_at, end = at, at, MARKS[opened]
        elif found:
            start, begin, end = min(found, key=lambda one: one[0])
            inner_at = start + len(begin)
        else:
            return
        opened = None
        stop = text.find(end, inner_at)
        if stop < 0:
            yield Thought(start, len(text), False, text[inner_at:])
            return
        yield Thought(start, stop + len(end), True, text[inner_at:stop])
        at = stop + len(end)


def parted(text: str, opened: str | None = None) -> tuple[str, str]:
    """The thinking and the answer of a text, each without marks and the white space around."""
    inner, rest, at = [], [], 0
    for thought in thoughts(text, opened):
        rest.append(text[at : thought.start])
        inner.append(thought.inner.strip())
        at = thought.end
    answer = "".join([*rest, text[at:]]).strip()
    for before in _ANSWERS:
        answer = answer.removeprefix(before)
    return "\n\n".join(one for one in inner if one), answer.strip() if inner else answer


def thinking_tokens(pieces: Sequence[str], opened: str | None = None) -> list[range]:
    """Which tokens are thinking, marks included, by what they spell."""
    if not (found := list(thoughts("".join(pieces), opened))):
        return []
    ends = list(accumulate(map(len, pieces)))
    places = ((bisect_right(ends, one.start), bisect_left(ends, one.end)) for one in found)
    return [range(first, min(last + 1, len(ends))) for first, last in places if first < len(ends)]
