"""A conversation by keyboard: its messages, going on with an answer, threads, options, files."""

import json
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList, Static

from engine.base import language
from engine.base.plain import cells
from engine.export.report import report
from engine.generation.config import GenerationConfig
from engine.sessions import session
from engine.text.conversation import Conversation, Message
from tests.conftest import save_tiny
from tests.engine.chat_templates import CHATML, OPTIONS, STRICT
from tests.tui.conftest import at_rest, until
from tui.dialogs.choose_file import ChooseFile
from tui.dialogs.export import ExportDialog
from tui.dialogs.template_options import TemplateOptions
from tui.panes import prompt_area
from tui.panes.conversation import ConversationPane
from tui.panes.generate import GeneratePane
from tui.panes.prompt import PromptPane
from tui.panes.threads import Threads

TWO = tuple(GenerationConfig(name="greedy", max_new_tokens=2, ignore_eos=True) for _lane in "AB")
FEW = (
    GenerationConfig(name="greedy", max_new_tokens=4, ignore_eos=True),
    GenerationConfig(name="sampled", strategy="sample", seed=1, max_new_tokens=4, ignore_eos=True),
)


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a chat template, whose marks are letters in its vocabulary."""
    folder = save_tiny(tmp_path_factory.mktemp("chatting"), "llama", max_position_embeddings=4096)
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    return folder


def threads_of(app) -> Threads:
    threads = app.workbench.prompt_area.threads
    assert threads is not None
    return threads


def roles(app) -> str:
    return " ".join(message.role[0] for message in threads_of(app).messages)


async def ran_again(app, pilot) -> GeneratePane:
    """One more run of both lanes, to its end."""
    pane = app.query_one(GeneratePane)
    begun = pane.runs.begun
    await pilot.press("f5")
    await until(pilot, lambda: pane.runs.begun > begun and all(lane.reason for lane in pane.lanes) and at_rest(app))
    return pane


def text_of(app) -> str:
    """What the template made of it."""
    rendered = app.workbench.prompt_area.rendered
    return "" if rendered is None else rendered.text


async def test_the_prompt_becomes_a_conversation_and_comes_back_with_nothing_lost(lab, chatting: Path) -> None:
    async with lab(model=str(chatting), prompt="Hello") as (app, pilot):
        messages, editor = app.query_one(ConversationPane), app.query_one(PromptPane)
        await pilot.press("ctrl+t")
        await until(pilot, lambda: text_of(app) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
        assert messages.display
        assert "Message 1 of 1 · user" in str(editor.border_title)
        await pilot.press("up")
        assert app.focused is messages
        await pilot.press("S")
        assert app.focused is editor
        await pilot.press(*"Be brief.")
        assert [one.content for one in threads_of(app).messages] == ["Be brief.", "Hello"]
        await pilot.press("up", "down")
        assert editor.text == "Hello"
        await pilot.press("down", "!")
        assert text_of(app).endswith("<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n")
        await pilot.press("ctrl+t")
        assert app.workbench.prompt_area.threads is None
        assert not messages.display
        assert editor.text == "Hello!"
        await pilot.press("?", "ctrl+t")
        assert [one.content for one in threads_of(app).messages] == ["Be brief.", "Hello!?"]


async def test_messages_are_added_moved_removed_and_brought_back(lab, chatting: Path) -> None:
    async with lab(model=str(chatting), prompt="one") as (app, pilot):
        await pilot.press("ctrl+t", "up", "n", *"two", "up")
        assert roles(app) == "u a"
        await pilot.press("n", *"three", "up")
        assert [one.content for one in threads_of(app).messages] == ["one", "two", "three"]
        await pilot.press("K", "K")
        assert [one.content for one in threads_of(app).messages] == ["three", "one", "two"]
        await pilot.press("delete")
        assert [one.content for one in threads_of(app).messages] == ["one", "two"]
        await pilot.press("u", "u", "ctrl+y")
        assert [one.content for one in threads_of(app).messages] == ["three", "one", "two"]
        await pilot.press("r", "r")
        assert roles(app) == "t u a"
        await pilot.press("s", "end", "down", "x")
        assert [one.special for one in threads_of(app).messages] == [True, False, False]
        assert threads_of(app).messages[2].content == "twox"


async def test_an_answer_is_gone_on_with(lab, chatting: Path) -> None:
    async with lab(model=str(chatting), prompt="Hello", configs=FEW) as (app, pilot):
        await pilot.press("ctrl+t")
        pane = await ran_again(app, pilot)
        written = "".join(step.token.piece for step in pane.trees[0].shown.steps)
        await pilot.press("escape", "enter")
        await until(pilot, lambda: len(threads_of(app).messages) == 3)
        assert threads_of(app).messages[1] == Message("assistant", written, special=True)
        assert threads_of(app).messages[2] == Message("user", "")
        assert app.focused is app.query_one(PromptPane)
        await pilot.press("f5")
        await until(pilot, lambda: any("message 3 is empty" in one.message for one in app._notifications))
        await pilot.press(*"More")
        await ran_again(app, pilot)
        await pilot.press("escape", "e")
        await until(pilot, lambda: len(threads_of(app).threads) == 2)
        first, second = threads_of(app).threads
        assert first.messages[:3] == second.messages[:3]
        assert first.messages[3] != second.messages[3]
        await pilot.press(*"Both")
        assert [one.messages[4].content for one in threads_of(app).threads] == ["Both", "Both"]
        await ran_again(app, pilot)
        for tree, thread in zip(pane.trees, threads_of(app).threads, strict=True):
            prompt = "".join(token.piece for token in tree.shown.prompt)
            assert prompt == app.lab.tokenizer.encode_conversation(thread).text


async def test_going_on_costs_the_new_tokens_only(lab, chatting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lab(model=str(chatting), prompt="Hello there, how are you? " * 8, configs=(FEW[0], FEW[0])) as (
        app,
        pilot,
    ):
        await pilot.press("ctrl+t")
        pane = await ran_again(app, pilot)
        network = app.lab.model_of(FEW[0]).network
        forward, positions = network.forward, []

        def counted(ids, *arguments, **options):
            positions.append(ids.numel())
            return forward(ids, *arguments, **options)

        before = len(pane.trees[0].shown.prompt)
        await pilot.press("escape", "enter")
        await until(pilot, lambda: len(threads_of(app).messages) == 3)
        await pilot.press(*"And")
        monkeypatch.setattr(network, "forward", counted)
        await ran_again(app, pilot)
        whole = len(pane.trees[0].shown.prompt)
        written = 2 * FEW[0].max_new_tokens
        assert whole > before
        assert sum(positions) <= 2 * (whole - before) + written < whole


async def test_an_answer_that_is_begun_is_continued(lab, chatting: Path) -> None:
    async with lab(model=str(chatting), prompt="Hello", configs=FEW) as (app, pilot):
        await pilot.press("ctrl+t", "up", "n", *"Well,")
        assert "F5 continues it" in str(app.query_one(PromptPane).border_title)
        assert text_of(app).endswith("<|im_start|>assistant\nWell,")
        pane = await ran_again(app, pilot)
        written = "".join(step.token.piece for step in pane.trees[0].shown.steps)
        await pilot.press("escape", "enter")
        await until(pilot, lambda: len(threads_of(app).messages) == 3)
        assert threads_of(app).messages[1].content == "Well," + written


async def test_an_answer_is_adopted_after_a_session_is_opened_again(lab, chatting: Path) -> None:
    async with lab(model=str(chatting), prompt="Hello", configs=FEW) as (app, pilot):
        await pilot.press("ctrl+t")
        await ran_again(app, pilot)
        await pilot.press("escape", "enter")
        await until(pilot, lambda: len(threads_of(app).messages) == 3)
        await pilot.press(*"next")
        saved = app.keeper.gather()
        threads = threads_of(app).threads
    async with lab(model=str(chatting), session=session.from_json(session.to_json(saved))) as (app, pilot):
        assert threads_of(app).threads == threads
        assert app.query_one(PromptPane).text == "next"
        await pilot.press("escape", "B", "enter")
        await until(pilot, lambda: threads_of(app).threads != threads)
        assert [one.content for one in threads_of(app).messages][::2] == ["Hello", "next"]
        assert threads_of(app).messages[1] != threads[0].messages[1]
        app.workbench.prompt.focus()
        await pilot.press("up", "K", "K")
        await pilot.press("escape", "B", "enter")
        await until(pilot, lambda: any("answers other messages" in one.message for one in app._notifications))


async def test_options_of_the_template_are_given_by_kind(lab, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "options", "llama")
    (folder / "chat_template.jinja").write_text(OPTIONS, encoding="utf-8")
    words = tmp_path / "words.json"
    words.write_text('["x", "y"]', encoding="utf-8")
    async with lab(model=str(folder), prompt="Hello") as (app, pilot):
        await pilot.press("ctrl+t", "up", "o")
        await until(pilot, lambda: isinstance(app.screen, TemplateOptions))
        names = [one.name for one in app.screen._variables]
        typed = {"style": "formal", "depth": "many", "words": str(words), "loud": "yes", "today": "2026-01-31"}
        assert set(typed) <= set(names)
        for name, value in typed.items():
            app.screen.query_one(f"#option-{names.index(name)}", Input).value = value
        await pilot.press("enter")
        assert "depth is 'many'; allowed: a number" in str(app.screen.query_one("#template-says", Static).render())
        app.screen.query_one(f"#option-{names.index('depth')}", Input).value = "5"
        await pilot.press("enter")
        await until(pilot, lambda: text_of(app) == "26 Jul 2024 31 Jan 2026formal5xy!Hello")
        await pilot.press("u")
        await until(pilot, lambda: "formal" not in text_of(app))


async def test_what_a_template_refuses_is_said_where_the_tokens_stand(lab, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "strict", "llama")
    (folder / "chat_template.jinja").write_text(STRICT.replace("{{ bos_token }}", ""), encoding="utf-8")
    async with lab(model=str(folder), prompt="<|end|>", size=(80, 24)) as (app, pilot):
        await pilot.press("ctrl+t")
        await until(pilot, lambda: text_of(app) == "[INST] <|end|> [/INST]")
        assert "1/" not in str(app.query_one(PromptPane).border_subtitle)
        assert "“<|end|>”: taken as letters" in str(app.query_one(PromptPane).border_subtitle)
        await pilot.press("up", "s", "down")
        assert "taken for control tokens" in str(app.query_one(PromptPane).border_subtitle)
        await pilot.press("up", "S", *"Be")
        detail = app.query_one("#token-detail", Static)
        await until(pilot, lambda: "takes no system message here" in str(detail.render()))
        assert app.workbench.prompt_area.tokens == ()


async def test_messages_are_opened_from_files_and_exported(lab, chatting: Path, tmp_path: Path) -> None:
    several, wrong = tmp_path / "several.jsonl", tmp_path / "wrong.json"
    two = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    several.write_text(json.dumps(two) + "\n" + json.dumps({"messages": two[:1]}) + "\n", encoding="utf-8")
    wrong.write_text('[{"role": "king", "content": "x"}]', encoding="utf-8")
    async with lab(model=str(chatting), prompt="Hello") as (app, pilot):
        app.query_one(ConversationPane).action_open()
        await until(pilot, lambda: isinstance(app.screen, ChooseFile))
        field = app.screen.query_one(Input)
        for path, words in ((wrong, "has the role 'king'"), (f"{several}#3", "holds 2 conversations")):
            field.value = str(path)
            await pilot.press("enter")
            await until(pilot, lambda words=words: words in str(app.screen.query_one("#file-says", Static).render()))
        field.value = str(several)
        await pilot.press("enter")
        await until(pilot, lambda: text_of(app).endswith("<|im_start|>assistant\nb"))
        assert any("first of 2 conversations" in one.message for one in app._notifications)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ExportDialog))
        assert "as messages" in str(app.screen.query_one(OptionList).get_option_at_index(0).prompt)
        app.screen.query_one(Input).value = str(tmp_path / "out.json")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: (tmp_path / "out.json").exists())
        assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == two


async def test_ten_thousand_turns_are_typed_into(lab, chatting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they are put into the template beside the event loop, one rendering at a time, keys arrive."""
    turns = tuple(Message(("user", "assistant")[place % 2], f"turn {place}") for place in range(9_999))
    at_once, most, real = 0, 0, prompt_area.encoded

    def watched(*arguments):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return real(*arguments)
        finally:
            at_once -= 1

    async with lab(model=str(chatting), prompt="Hello", size=(80, 24)) as (app, pilot):
        monkeypatch.setattr(prompt_area, "encoded", watched)
        app.workbench.prompt_area.open(Conversation(turns))
        await pilot.press(*" and more", "up", "up", "home", "end", "down", "!")
        assert threads_of(app).messages[-1].content == "turn 9998 and more!"
        assert threads_of(app).messages[:-1] == turns[:-1]
        assert most == 1
        assert app.query_one(ConversationPane).size.height == 3


async def test_a_message_of_a_megabyte_has_one_line_in_the_list(lab, chatting: Path) -> None:
    async with lab(model=str(chatting), prompt="Hello") as (app, pilot):
        pane = app.query_one(ConversationPane)
        app.workbench.prompt_area.open(
            Conversation((Message("user", "\x1b[31m\n" + "rain " * 200_000), Message("user", "x")))
        )
        await pilot.press("!")
        assert pane.size.height == 2
        line = pane.render_line(0).text
        assert cells(line) == pane.size.width
        assert "\x1b" not in line
        assert line.rstrip().endswith("…")


@pytest.mark.parametrize("name", language.languages())
async def test_twenty_turns_by_keyboard_alone(lab, chatting: Path, spoken, name: str) -> None:
    spoken(name)
    async with lab(model=str(chatting), prompt="0", configs=TWO, size=(80, 24)) as (app, pilot):
        await pilot.press("ctrl+t")
        for turn in range(20):
            await pilot.press(*(str(turn) if turn else ""))
            await ran_again(app, pilot)
            await pilot.press("escape", "enter")
            await until(pilot, lambda turn=turn: len(threads_of(app).messages) == 2 * turn + 3)
            await until(pilot, lambda: app.focused is app.query_one(PromptPane))
        asked = [one.content for one in threads_of(app).messages][::2]
        assert asked == [*map(str, range(20)), ""]
        saved = app.keeper.gather()
        assert session.from_json(session.to_json(saved)).threads == threads_of(app).threads
        assert "### 41 · user" in report(saved)
        assert app.query_one(ConversationPane).render_line(2).text.startswith("▸41 user")
