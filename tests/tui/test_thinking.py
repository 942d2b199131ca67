"""What a lane thinks before it answers is shown as such, and folds."""

from textual.app import App, ComposeResult
from textual.widgets import Static

from engine.generation.config import GenerationConfig
from engine.sessions.session import Session, SessionLane
from engine.text.conversation import Conversation, Message
from engine.text.thinking import thinking_tokens
from engine.text.tokenizer import Tokenizer
from tests.tui.conftest import ran, until
from tui.panes.generate import GeneratePane
from tui.panes.prompt_area import PromptArea
from tui.panes.tokens import TokensPane, TokenTable
from tui.widgets.token_flow import TokenFlow

# A model that thinks, whatever it was trained for.
THINKS = GenerationConfig(
    name="greedy", max_new_tokens=60, regex="Well[.] <think>[a-z ]{12}</think>[a-z]{6} <think>[a-z]{4}</think>[a-z]{2}"
)
TURNS = Conversation((Message("user", "Hello there, model"), Message("assistant", "Hello there, person")))
PLAIN = GenerationConfig(name="greedy", max_new_tokens=4, ignore_eos=True)


def text_of(flow: TokenFlow) -> str:
    return "".join(text for line in flow._lines for text, _index in line)


async def test_thinking_folds_and_the_cursor_passes_over_it(lab) -> None:
    async with lab(configs=(THINKS, PLAIN)) as (app, pilot):
        await ran(app, pilot)
        pane = app.query_one(GeneratePane)
        lane, other = pane.lanes
        flow = lane.query_one(TokenFlow)
        first, second = thinking_tokens([step.token.piece for step in lane.steps])
        assert "<think>" in text_of(flow)
        assert not other.thinks
        assert flow.token_style(first.start + 1).italic
        assert not flow.token_style(first.stop).italic
        await pilot.press("alt+a", "h")
        await pilot.pause()
        assert "<think>" not in text_of(flow)
        assert f"▸ {len(first)} tokens of thinking" in text_of(flow)
        assert f"▸ {len(second)} tokens of thinking" in text_of(flow)
        flow.action_jump(0)
        while flow.cursor is not None and flow.cursor < first.start:
            await pilot.press("right")
        assert flow.cursor == first.start
        assert flow.token_style(first.start).reverse
        await pilot.press("right")
        assert flow.cursor == first.stop
        await pilot.press("left")
        assert flow.cursor == first.start
        await pilot.press("left")
        assert flow.cursor == first.start - 1
        await pilot.press("h")
        await pilot.pause()
        assert "<think>" in text_of(flow)


async def test_a_lane_that_is_folded_stays_so_while_it_writes(lab) -> None:
    async with lab(configs=(THINKS, PLAIN)) as (app, pilot):
        await ran(app, pilot)
        lane = app.query_one(GeneratePane).lanes[0]
        lane.fold(True)
        await ran(app, pilot)
        assert text_of(lane.query_one(TokenFlow)).count("tokens of thinking") == 2


class OneFlow(App[None]):
    def compose(self) -> ComposeResult:
        yield TokenFlow()


async def test_what_a_template_wrote_stands_aside(tokenizer: Tokenizer) -> None:
    rendered = tokenizer.encode_conversation(TURNS)
    async with OneFlow().run_test() as pilot:
        flow = pilot.app.query_one(TokenFlow)
        flow.messages = rendered.messages
        flow.set_tokens(rendered.tokens)
        grounds: dict[int | None, set[str]] = {}
        for index, message in enumerate(rendered.messages):
            style = flow.token_style(index)
            assert bool(style.dim) == (message is None)
            grounds.setdefault(message, set()).add(str(style.bgcolor))
        assert grounds[None] == {"None"}
        assert grounds[0].isdisjoint(grounds[1])


async def test_a_token_says_which_message_it_comes_from(lab) -> None:
    async with lab(model="smollm2-135m", precision="auto") as (app, pilot):
        await pilot.press("ctrl+t")
        area = app.query_one(PromptArea)
        await until(pilot, lambda: area.rendered is not None)
        pane = app.query_one(TokensPane)
        rendered = area.rendered
        assert rendered is not None
        for place, words in ((0, "the template"), (rendered.messages.index(0), "message 1")):
            pane.point(place)
            assert words in str(pane.query_one("#token-detail", Static).render())
        await pilot.press("f8")
        await pilot.pause()
        table = app.query_one(TokenTable)
        await until(pilot, lambda: table.row_count == len(rendered.messages))
        last = [str(table.get_row_at(row)[-1]) for row in range(table.row_count)]
        assert last == ["template" if one is None else f"{one + 1}" for one in rendered.messages]


async def test_a_conversation_is_scored_message_by_message(lab) -> None:
    talk = Conversation((Message("user", "Name a fruit."), Message("assistant", "An apple."), Message("user", "And?")))
    session = Session(threads=(talk,), lanes=(SessionLane(PLAIN), SessionLane(PLAIN)))
    async with lab(model="smollm2-135m", precision="auto", session=session, size=(140, 36)) as (app, pilot):
        area, pane = app.query_one(PromptArea), app.query_one(TokensPane)
        await until(pilot, lambda: area.rendered is not None)
        area.colour("surprisal")
        await until(pilot, lambda: "answers alone" in str(pane.border_title))
        rendered = area.rendered
        assert rendered is not None
        scores = pane.query_one(TokenFlow).judged
        answer = [one for one, message in zip(scores, rendered.messages) if message == 1]
        bits = sum(one.surprisal_bits for one in answer)
        perplexity = 2 ** (bits / len(answer))
        assert f"answers alone {perplexity:,.1f}" in str(pane.border_title)
        pane.point(rendered.messages.index(1))
        said = str(pane.query_one("#token-detail", Static).render())
        assert f"message 2 ({bits:.1f} bits, perplexity {perplexity:,.1f})" in said


async def test_the_chosen_message_is_in_sight(lab) -> None:
    turns = [Message("assistant" if place % 2 else "user", f"turn {place} " + "word " * 30) for place in range(9)]
    session = Session(threads=(Conversation(tuple(turns)),), lanes=(SessionLane(PLAIN), SessionLane(PLAIN)))
    async with lab(model="smollm2-135m", precision="auto", session=session, size=(80, 24)) as (app, pilot):
        area, flow = app.query_one(PromptArea), app.query_one(TokensPane).query_one(TokenFlow)

        def in_sight() -> set[int | None]:
            top, height = flow.scroll_offset.y, flow.scrollable_content_region.height
            lines = flow._lines[top : top + height]
            return {flow.messages[index] for line in lines for _text, index in line}

        await until(pilot, lambda: area.rendered is not None and area.threads is not None)
        assert area.threads is not None
        await until(pilot, lambda: area.threads is not None and area.threads.chosen in in_sight())
        area.messages.focus()
        await pilot.press("home")
        await until(pilot, lambda: area.threads is not None and area.threads.chosen == 0 and 0 in in_sight())


async def test_two_beginnings_of_a_prompt_are_said(lab) -> None:
    prompt = "<|im_start|>" * 2
    async with lab(model="smollm2-135m", precision="auto", prompt=prompt) as (app, pilot):
        await until(pilot, lambda: "<|im_start|> twice" in str(app.workbench.prompt.border_subtitle))
