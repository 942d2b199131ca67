"""Wrapping: appending token by token gives what showing all at once gives, at any width."""

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.text.token import Token, drawn, visible
from tui.widgets.token_flow import TokenFlow, readable


def token(position: int, text: str) -> Token:
    return Token(position, position, text, text, 0, 0, visible(text.encode()))


def flow_of(texts: list[str], width: int, labels: bool) -> TokenFlow:
    flow = TokenFlow(labels=labels)
    flow._width = width
    for position, text in enumerate(texts):
        flow.tokens.append(token(position, text))
        flow._place(position)
    return flow


texts = st.lists(
    st.one_of(st.sampled_from([" the", " sky", "calm", ",", "\n", " 日本語", "🌍", "ing", " antidisestablish", "\t"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6)),
    max_size=40,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(texts, st.integers(4, 40), st.booleans())
def test_lines_fit_and_lose_nothing(parts: list[str], width: int, labels: bool) -> None:
    flow = flow_of(parts, width, labels)
    for line in flow._lines:
        assert sum(cell_len(text) for text, _ in line) <= max(width, 2)
    shown = "".join(text for line in flow._lines for text, _ in line)
    expected = "".join(drawn(visible(part.encode())) if labels else readable(part) for part in parts)
    squeeze = {ord(" "): None, ord("\n"): None}
    assert shown.translate(squeeze) == expected.translate(squeeze)
    assert len(flow._first_line) == len(parts)
    for index, row in enumerate(flow._first_line):
        if any(owner == index for line in flow._lines for _, owner in line):
            assert any(owner == index for _, owner in flow._lines[row]), (index, row)


def test_words_are_not_cut_where_they_can_move() -> None:
    flow = flow_of([" the", " sky", " ab", "ove"], 10, labels=False)
    assert ["".join(text for text, _ in line) for line in flow._lines] == [" the sky", "above"]


def test_control_characters_are_never_shown_raw() -> None:
    assert readable("a\x1b[31m\u202e\n\t") == "a⟨1B⟩[31m⟨E2⟩⟨80⟩⟨AE⟩⏎\n⇥ "
