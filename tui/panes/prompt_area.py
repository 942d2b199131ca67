"""The prompt, the tokens it is cut into, and how much each of them surprised the model."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import getters, on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message

from engine.base.errors import LogitlabError
from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.generation.events import Failed, Prompt, Start
from engine.job import Job
from engine.lab import Lab
from engine.models.model import Model
from engine.text.conversation import Conversation
from engine.text.rendering import Rendered
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from tui.panes.prompt import PromptPane
from tui.panes.tokens import TokensPane
from tui.sentences import sentence
from tui.style.colours import MODES, OPINIONS

if TYPE_CHECKING:
    from engine.generation.score import Scored

# Longer prompts are not scored: every position's scores over the vocabulary take a product of their own.
SCORED_TOKENS = 1_000
# Longer prompts are cut into tokens beside the event loop, so that typing stays fluent.
TOKENIZE_AT_ONCE = 4_000


class PromptArea(Vertical):
    """The prompt above its tokens.

    Attributes:
        tokens: of the prompt, as they are shown.
        rendered: what the chat template made of it, where it goes through one.
        chat: whether the prompt goes to the model as a message in its chat template.
    """

    prompt = getters.query_one(PromptPane)
    _pane = getters.query_one(TokensPane)

    @dataclass
    class Tokenized(Message):
        """The prompt's tokens are these now."""

        tokens: Sequence[Token]

    @dataclass
    class Trouble(Message):
        """The prompt could not be scored."""

        error: Exception

    def __init__(self, lab: Lab, text: str) -> None:
        super().__init__(id="prompt-area")
        self._lab = lab
        self._text = text
        self._mode = MODES[0]
        # The text, whether in the chat template, and which tokenizer cut it.
        self._tokenized: tuple[str, bool, Tokenizer] | None = None
        self._config = GenerationConfig()  # of the lane whose model it follows
        self._scoring: Job[Scored] | None = None
        self.tokens: Sequence[Token] = ()
        self.rendered: Rendered | None = None
        self.chat = False

    def compose(self) -> ComposeResult:
        yield PromptPane(self._text)
        yield TokensPane()

    @property
    def tokenized(self) -> str | None:
        """The text whose tokens are shown."""
        return self._tokenized[0] if self._tokenized is not None else None

    def restore(self, text: str, *, chat: bool) -> None:
        """Show the prompt of a session."""
        self.chat = chat
        self._title()
        self.prompt.show(text)
        self.tokenize()

    def wait(self, why: str) -> None:
        """Say why there are no tokens to show."""
        self._pane.wait(why)

    def point(self, position: int) -> None:
        """Put the cursor on a token without a message."""
        self._pane.point(position)

    # The model.

    def follow(self, config: GenerationConfig) -> None:
        """Show the prompt as the model of a lane cuts it."""
        self._config = config
        if self._tokenized is None or self._tokenized[2] is not self._tokenizer:
            self.tokenize()

    @property
    def _model(self) -> Model | None:
        return self._lab.model_of(self._config)

    @property
    def _tokenizer(self) -> Tokenizer | None:
        """That of the lane's model; the lab's own is there before its model is."""
        model = self._model
        if model is None and not self._config.names_model:
            return self._lab.tokenizer
        return None if model is None else model.tokenizer

    # The chat template.

    def toggle_chat(self) -> None:
        """Give the prompt to the model as it is, or as a message in its chat template."""
        tokenizer = self._tokenizer
        if not self.chat and (tokenizer is None or not tokenizer.chats):
            self.notify(sentence(_("This model has no chat template: {model} chooses another.")), severity="warning")
            return
        self.chat = not self.chat
        self._title()
        self.tokenize()

    def _title(self) -> None:
        tokenizer = self._tokenizer
        if self.chat and tokenizer is not None and not tokenizer.chats:
            self.prompt.border_title = _("Prompt · as it is: this lane's model has no chat template")
        else:
            self.prompt.border_title = _("Prompt · as a message in the chat template") if self.chat else _("Prompt")

    # Tokens.

    @on(PromptPane.Edited)
    def _edited(self, event: PromptPane.Edited) -> None:
        event.stop()
        self.tokenize()

    def tokenize(self) -> None:
        """Cut the prompt into tokens, with the tokenizer that is there now."""
        tokenizer = self._tokenizer
        text = self.prompt.text
        if tokenizer is None:
            if self._config.names_model:
                self.tokens, self.rendered, self._tokenized = (), None, None
                self._pane.show((), text, None)
                self.wait(_("{model} is not loaded: its tokens are not known yet", model=self._config.model_label))
            return
        if self.chat and not tokenizer.chats and not self._config.names_model:  # the model is another one
            self.toggle_chat()
            self.notify(_("This model has no chat template: the prompt goes as it is."))
            return
        self._title()
        if len(text) <= TOKENIZE_AT_ONCE and not tokenizer.remote:
            try:
                self._show(text, *self._encoded(tokenizer, text), tokenizer)
            except LogitlabError as error:
                self.wait(str(error))
        else:
            self._tokenize_aside(tokenizer, text)

    async def starts_of(self, text: str, configs: Sequence[GenerationConfig]) -> list[Start | Prompt]:
        """The prompt as each lane's own model takes it, for a run. Raises `InputError`.

        What is shown is taken; else it is cut beside the event loop, or in the run where a model is to come.
        """
        found: dict[int, tuple[Sequence[Token], Rendered | None]] = {}
        starts: list[Start | Prompt] = []
        for config in configs:
            model = self._lab.model_of(config)
            if model is None:
                starts.append(Prompt(text, Conversation.of(text) if self.chat else None))
                continue
            tokenizer = model.tokenizer
            if self.chat and not tokenizer.chats:
                said = _("{model} has no chat template: the prompt goes as it is.", model=model.facts.title)
                self.notify(said, markup=False)
            if self._tokenized == (text, self.chat, tokenizer):
                found[id(tokenizer)] = self.tokens, self.rendered
            elif id(tokenizer) not in found:
                found[id(tokenizer)] = await asyncio.to_thread(self._encoded, tokenizer, text)
            tokens, rendered = found[id(tokenizer)]
            starts.append(Start(tuple(tokens), conversation=None if rendered is None else Conversation.of(text)))
        return starts

    def _encoded(self, tokenizer: Tokenizer, text: str) -> tuple[Sequence[Token], Rendered | None]:
        """The prompt's tokens: in the chat template where that is wanted and there is one. Raises `InputError`."""
        if not (self.chat and text and tokenizer.chats):
            return tokenizer.encode(text), None
        rendered = tokenizer.encode_conversation(Conversation.of(text))
        return rendered.tokens, rendered

    @work(group="tokenize", exclusive=True)
    async def _tokenize_aside(self, tokenizer: Tokenizer, text: str) -> None:
        try:
            tokens, rendered = await asyncio.to_thread(self._encoded, tokenizer, text)
        except LogitlabError as error:
            self.wait(str(error))
            return
        if text == self.prompt.text and tokenizer is self._tokenizer:
            self._show(text, tokens, rendered, tokenizer)

    def _show(self, text: str, tokens: Sequence[Token], rendered: Rendered | None, tokenizer: Tokenizer) -> None:
        self.tokens, self.rendered, self._tokenized = tokens, rendered, (text, self.chat, tokenizer)
        model = self._model
        context = None if model is None else model.facts.context_length
        self._pane.show(tokens, text, context, uncut=not tokenizer.cuts, rendered=rendered)
        self.post_message(self.Tokenized(tokens))
        self._score()

    # Scores.

    def colour(self, mode: str) -> None:
        """Colour tokens by a mode of `tui.style.colours`."""
        self._mode = mode
        self._pane.colour(mode)
        self._score()

    def _score(self) -> None:
        """Score the prompt's tokens, while their colours tell of surprise."""
        if self._scoring is not None:
            self._scoring.cancel()
        model = self._model
        wanted = self._mode not in ("tokens", *OPINIONS) and model is not None and len(self.tokens) > 1
        if wanted and model is not None and not model.capabilities.prompt_scores:
            self._pane.leave_unjudged(_("this server does not score prompts"))
        elif wanted and len(self.tokens) <= SCORED_TOKENS:
            self._scoring = self._lab.score(self.tokens, self._config)
            self._follow_scores(self._scoring)

    @work(group="score", exclusive=True)
    async def _follow_scores(self, job: "Job[Scored]") -> None:
        scores: list[Scored] = []
        async for frame in job.frames():
            for event in frame:
                if isinstance(event, Failed):
                    self.post_message(self.Trouble(event.error))
                else:
                    scores.append(event)
        if not job.cancelled:
            self._pane.judge(scores)
