"""Which bytes of a text each of its tokens stands for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.text.spelling import running_total


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tokenizer says that a token lies, and what it spells.

    Attributes:
        start, end: characters of the text, as far as the tokenizer tells them.
        piece: what the entry spells.
        added: put around the text, or between its characters by no character: it spans nothing.
        whole: the entry stands in the text letter by letter, and what lies on either side is cut for itself.
    """

    start: int
    end: int
    piece: bytes
    added: bool = False
    whole: bool = False


def ends_of(text: str, places: Sequence[Place]) -> list[int]:
    """Byte ends of the tokens, which tile the text.

    - What the pieces spell decides; a space that the tokenizer put before a text spans nothing.
    - Where it changed the text, its offsets decide. A character of several tokens that do not spell its bytes belongs
      to the one that completes it.
    - Characters that the tokenizer dropped or joined with the one before, such as combining marks, belong to the token
      before; from a white space on, to the one that follows.
    """
    pieces = [place.piece for place in places]
    if b"".join(pieces) == text.encode():
        return running_total(map(len, pieces))
    byte_at = [0, *running_total(len(char.encode()) for char in text)]
    data = text.encode()
    real = [index for index, place in enumerate(places) if not place.added]
    spans: dict[int, int] = {}
    reached = 0  # characters
    for run in _runs([places[index] for index in real]):
        first, last = real[run.start], real[run.stop - 1]
        following = next((places[index] for index in real[run.stop :] if places[index].whole), None)
        stop = places[last].end if places[first].whole else len(text) if following is None else following.start
        stop = max(reached, stop)
        inside = [places[index] for index in real[run.start : run.stop]]
        found = _spelled(data[byte_at[reached] : byte_at[stop]], inside)
        if found is None or places[first].whole:
            ends = [byte_at[stop]] if places[first].whole else _from_offsets(text, byte_at, inside, reached, stop)
        else:
            ends = [byte_at[reached] + end for end in found]
        spans |= zip(real[run.start : run.stop], ends)
        reached = stop
    ends = []
    for index in range(len(places)):
        ends.append(spans.get(index, ends[-1] if ends else 0))
    if real:  # what follows the last token belongs to it
        ends[real[-1] :] = [len(data)] * (len(ends) - real[-1])
    return ends


def _runs(places: Sequence[Place]) -> Iterator[range]:
    """The tokens that stand in the text as they are, each alone, and what lies between them."""
    start = 0
    for index, place in enumerate(places):
        if place.whole:
            if start < index:
                yield range(start, index)
            yield range(index, index + 1)
            start = index + 1
    if start < len(places):
        yield range(start, len(places))


def _spelled(data: bytes, places: Sequence[Place]) -> list[int] | None:
    """Ends of pieces that spell the data, but for a space before it; `None` where they do not."""
    pieces = [place.piece for place in places]
    spelled = b"".join(pieces)
    if spelled == data:
        return running_total(map(len, pieces))
    if spelled == b" " + data:
        return [max(0, end - 1) for end in running_total(map(len, pieces))]
    return None


def _from_offsets(text: str, byte_at: Sequence[int], places: Sequence[Place], start: int, stop: int) -> list[int]:
    """Ends of tokens whose pieces do not spell the text from character `start` to `stop`."""
    ends: list[int] = []
    for group in _overlapping(places):
        begin, end = max(start, group[0].start), min(stop, max(place.end for place in group))
        if ends and begin > start:  # dropped or joined: the token before takes it, up to a white space
            gap = text[start:begin]
            kept = next((index for index, char in enumerate(gap) if char.isspace()), len(gap))
            start += kept
            ends[-1] = byte_at[start]
        end = max(start, end)
        spelled = _spelled(text[begin:end].encode(), group) if begin < end else None
        if spelled is not None:
            ends += [byte_at[begin] + one for one in spelled]
        else:
            for place, following in zip(group, [*group[1:], None]):
                shared = following is not None and following.start < place.end
                own = min(end, max(start, following.start if shared and following is not None else place.end))
                start = own if following is not None else end
                ends.append(byte_at[start])
        start = end
    if ends:
        ends[-1] = byte_at[stop]
    return ends


def _overlapping(places: Sequence[Place]) -> list[list[Place]]:
    """Tokens by the characters that they share."""
    groups: list[list[Place]] = []
    reached = 0
    for place in places:
        if groups and place.start < reached:
            groups[-1].append(place)
        else:
            groups.append([place])
        reached = max(reached, place.end)
    return groups
