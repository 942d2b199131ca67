"""Characters that several tokens share stand above their bytes, where there is room."""

from textual.app import App, ComposeResult
from textual.widgets import Static

from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from tests.conftest import EMBEDDED
from tests.tui.conftest import until
from tui.panes.prompt import PromptPane
from tui.panes.tokens import TokensPane
from tui.style.theme import THEMES
from tui.widgets.token_flow import TokenFlow


class Alone(App[None]):
    """A flow of tokens with four rows."""

    CSS = "TokenFlow { height: auto; max-height: 4; }"

    def __init__(self) -> None:
        super().__init__()
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name

    def compose(self) -> ComposeResult:
        yield TokenFlow(labels=True, whole=True)


def rows(flow: TokenFlow) -> list[str]:
    return ["".join(text for text, _index in line) for line in flow._lines]


async def test_a_character_stands_over_its_bytes(tokenizer: Tokenizer) -> None:
    app = Alone()
    async with app.run_test(size=(60, 10)) as pilot:
        flow = app.query_one(TokenFlow)
        flow.set_tokens(tokenizer.encode("日"))
        assert rows(flow) == ["╭────日────╮", "⟨E6⟩⟨97⟩⟨A5⟩"]
        flow.set_tokens(tokenizer.encode("a 日本語 b"))
        above, below = rows(flow)
        for character, data in (("日", "⟨E6⟩⟨97⟩⟨A5⟩"), ("語", "⟨E8⟩⟨AA⟩⟨9E⟩")):
            if data in below and character not in below:
                start = below.index(data)
                assert start <= len(above[: above.index(character)]) < start + len(data)
        assert flow.virtual_size.height == 2
        # Keys go by the tokens: what stands above is no token.
        flow.focus()
        await pilot.press("right", "down", "up")
        assert flow.cursor is not None
        assert flow._line_of(flow.cursor) == 1
        assert await pilot.click(TokenFlow, offset=(2, 0))
        flow.set_tokens(tokenizer.encode("plain words"))
        assert rows(flow) == ["plain·words"]


async def test_where_there_is_no_room_the_bytes_stand_alone(tokenizer: Tokenizer) -> None:
    app = Alone()
    async with app.run_test(size=(16, 10)):
        flow = app.query_one(TokenFlow)
        flow.set_tokens(tokenizer.encode("日" * 3))
        assert len(rows(flow)) >= 3
        assert not any("日" in row for row in rows(flow))


async def test_tokens_with_other_text_around_have_it_left_out_of_the_bracket() -> None:
    first = Token(0, 1, "", "ab", 0, 3, "ab⟨E6⟩")
    last = Token(1, 2, "", "日cd", 3, 7, "⟨97⟩⟨A5⟩cd")
    app = Alone()
    async with app.run_test(size=(60, 10)):
        flow = app.query_one(TokenFlow)
        flow.set_tokens([first, last])
        assert rows(flow) == ["  ╭────日────╮", "ab⟨E6⟩⟨97⟩⟨A5⟩cd"]


async def test_the_pane_says_what_a_token_is_a_part_of_and_what_looks_like_nothing(lab) -> None:
    async with lab(model=EMBEDDED, precision="auto", prompt="日\u3000a\u00a0b") as (app, pilot):
        pane = app.query_one(TokensPane)
        flow = pane.query_one(TokenFlow)
        shown = "".join(rows(flow))
        assert "日" in rows(flow)[0]
        assert "\u00a0" not in shown
        assert "\u3000" not in shown
        flow.focus()
        await pilot.press("right")
        await until(pilot, lambda: "part of 日" in str(pane.query_one("#token-detail", Static).render()))
        assert app.query_one(PromptPane).text == "日\u3000a\u00a0b"
