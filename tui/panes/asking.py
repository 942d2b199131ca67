"""What each lane is asked: the prompt or its thread, as its own model takes it, and what its answer answers."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from textual.app import App

from engine.base.errors import InputError
from engine.base.language import _
from engine.generation.branches import Branch
from engine.generation.config import GenerationConfig
from engine.generation.events import Prompt, Start
from engine.lab import Lab
from engine.text.answer import answered, known_template
from engine.text.conversation import Conversation, Message
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from tui.panes.threads import Threads, alone, encoded

# Of the conversations that were run the newest are remembered; for an answer to another one, what it answers is looked
# for among as many ends of the threads.
REMEMBERED = 64
ENDS = 4

Given = str | Conversation


@dataclass(frozen=True, slots=True)
class Cut:
    """Something given with its tokens, and what cut it."""

    given: Given
    tokenizer: Tokenizer
    tokens: Sequence[Token]


class Asking:
    """Remembers what runs were asked.

    Args:
        say: tells the person something.
    """

    def __init__(self, lab: Lab, say: Callable[[str], object]) -> None:
        self._lab = lab
        self._say = say
        self._asked: OrderedDict[tuple[int, ...], Conversation] = OrderedDict()  # by the ids of what it became

    async def starts(
        self, given: Sequence[Given], text: str, configs: Sequence[GenerationConfig], shown: Cut | None
    ) -> list[Start | Prompt]:
        """What each lane begins with. Raises `InputError`.

        What is shown is taken; else it is cut beside the event loop, or in the run where a model is to come.

        Args:
            given: to each lane.
            text: stands for a conversation where a text alone can.
        """
        known = [] if shown is None else [shown]
        starts: list[Start | Prompt] = []
        for one, config in zip(given, configs, strict=True):
            model = self._lab.model_of(config)
            if model is None:
                starts.append(Prompt(one) if isinstance(one, str) else Prompt(text, one))
                continue
            tokenizer = model.tokenizer
            if isinstance(one, Conversation) and not tokenizer.chats:
                alone(one)
                self._say(_("{model} has no chat template: the prompt goes as it is.", model=model.facts.title))
            cut = next((cut for cut in known if cut.tokenizer is tokenizer and cut.given == one), None)
            if cut is None:
                tokens, _rendered = await asyncio.to_thread(encoded, tokenizer, one)
                cut = Cut(one, tokenizer, tokens)
                known.append(cut)
            asked = one if isinstance(one, Conversation) and tokenizer.chats else None
            starts.append(Start(tuple(cut.tokens), conversation=asked))
            if isinstance(one, Conversation):
                self._asked[_ids(cut.tokens)] = one
                while len(self._asked) > REMEMBERED:
                    self._asked.popitem(last=False)
        return starts

    async def answer(self, branch: Branch, threads: Threads) -> tuple[Conversation, Message] | None:
        """What a branch was asked, and what it answered; `None` where it answers other messages than these."""
        model = self._lab.model_of(branch.config)
        asked = None if model is None else await self._asked_of(branch, model.tokenizer, threads)
        if model is None or asked is None:
            return None
        tokenizer = model.tokenizer
        prompt = "".join(token.piece for token in branch.prompt)
        tokens = [step.token for step in branch.steps]
        template = known_template(tokenizer, asked) if tokenizer.chats else ""
        return asked, answered(asked, prompt, tokens, template, tokenizer.eos_ids).messages[-1]

    async def _asked_of(self, branch: Branch, tokenizer: Tokenizer, threads: Threads) -> Conversation | None:
        """The conversation that a branch answers: one of those that were run, or a beginning of these."""
        ids = _ids(branch.prompt)
        if (known := self._asked.get(ids)) is not None:
            return known
        for thread in (threads.shown, *threads.threads):
            ends = [place for place, one in enumerate(thread.messages, start=1) if one.role != "assistant"]
            begun = [replace(thread, messages=thread.messages[:end], continues=False) for end in ends[: -ENDS - 1 : -1]]
            for one in (thread, *begun):
                try:
                    tokens, _rendered = await asyncio.to_thread(encoded, tokenizer, one)
                except InputError:
                    continue
                if _ids(tokens) == ids:
                    return one
        return None


def ask_options(app: App[Any], tokenizer: Tokenizer, threads: Threads, changed: Callable[[], object]) -> None:
    """Let the options of a conversation be given, as the template of a tokenizer reads them."""
    from tui.dialogs.template_options import TemplateOptions

    def use(options: Mapping[str, Any] | None) -> None:
        if options is not None:
            threads.use_options(options)
            changed()

    shown = threads.shown
    try:
        app.push_screen(TemplateOptions(tokenizer.template_variables(shown), shown.options), use)
    except InputError as error:
        app.notify(str(error), severity="warning", markup=False)


def _ids(tokens: Sequence[Token]) -> tuple[int, ...]:
    return tuple(token.id for token in tokens)
