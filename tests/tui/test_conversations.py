"""A conversation by keyboard: its messages, going on with an answer, threads, options, files."""

from pathlib import Path

import pytest

from engine.generation.config import GenerationConfig
from engine.text.conversation import Message
from tests.conftest import save_tiny
from tests.engine.chat_templates import CHATML
from tests.tui.conftest import ran, until
from tui.panes.conversation import ConversationPane
from tui.panes.prompt import PromptPane
from tui.panes.threads import Threads

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
        pane = await ran(app, pilot)
        written = "".join(step.token.piece for step in pane.trees[0].shown.steps)
        await pilot.press("escape", "enter")
        await until(pilot, lambda: len(threads_of(app).messages) == 3)
        assert threads_of(app).messages[1] == Message("assistant", written, special=True)
        assert threads_of(app).messages[2] == Message("user", "")
        assert app.focused is app.query_one(PromptPane)
        await pilot.press("f5")
        await until(pilot, lambda: any("message 3 is empty" in one.message for one in app._notifications))
        await pilot.press(*"More")
        await ran(app, pilot)
        await pilot.press("escape", "a")
        await until(pilot, lambda: len(threads_of(app).threads) == 2)
        first, second = threads_of(app).threads
        assert first.messages[:3] == second.messages[:3]
        assert first.messages[3] != second.messages[3]
        await pilot.press(*"Both")
        assert [one.messages[4].content for one in threads_of(app).threads] == ["Both", "Both"]
        await ran(app, pilot)
        for tree, thread in zip(pane.trees, threads_of(app).threads, strict=True):
            prompt = "".join(token.piece for token in tree.shown.prompt)
            assert prompt == app.lab.tokenizer.encode_conversation(thread).text
