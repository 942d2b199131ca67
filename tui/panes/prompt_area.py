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
from engine.generation.events import Failed
from engine.job import Job
from engine.lab import Lab
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from tui.panes.prompt import PromptPane
from tui.panes.tokens import TokensPane
from tui.sentences import sentence
from tui.style.colours import MODES

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
        self._tokenized: tuple[str, bool] | None = None  # the text and whether in the chat template
        self._scoring: Job[Scored] | None = None
        self.tokens: Sequence[Token] = ()
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

    # The chat template.

    def toggle_chat(self) -> None:
        """Give the prompt to the model as it is, or as a message in its chat template."""
        tokenizer = self._lab.tokenizer
        if not self.chat and (tokenizer is None or not tokenizer.chats):
            self.notify(sentence(_("This model has no chat template: {model} chooses another.")), severity="warning")
            return
        self.chat = not self.chat
        self._title()
        self.tokenize()

    def _title(self) -> None:
        self.prompt.border_title = _("Prompt · as a message in the chat template") if self.chat else _("Prompt")

    # Tokens.

    @on(PromptPane.Edited)
    def _edited(self, event: PromptPane.Edited) -> None:
        event.stop()
        self.tokenize()

    def tokenize(self) -> None:
        """Cut the prompt into tokens, with the tokenizer that is there now."""
        tokenizer = self._lab.tokenizer
        text = self.prompt.text
        if tokenizer is None:
            return
        if self.chat and not tokenizer.chats:  # the model is another one
            self.toggle_chat()
            self.notify(_("This model has no chat template: the prompt goes as it is."))
        elif len(text) <= TOKENIZE_AT_ONCE and not tokenizer.remote:
            try:
                self._show(text, self._encoded(tokenizer, text))
            except LogitlabError as error:
                self.wait(str(error))
        else:
            self._tokenize_aside(tokenizer, text)

    async def tokens_of(self, text: str) -> Sequence[Token]:
        """The tokens of the prompt for a run: those shown, or cut beside the event loop. Raises `InputError`."""
        if self._tokenized == (text, self.chat):
            return self.tokens
        assert self._lab.tokenizer is not None
        return await asyncio.to_thread(self._encoded, self._lab.tokenizer, text)

    def _encoded(self, tokenizer: Tokenizer, text: str) -> Sequence[Token]:
        """The prompt's tokens: of the text as it is, or in the chat template. Raises `InputError`."""
        return tokenizer.encode_chat(text) if self.chat and text else tokenizer.encode(text)

    @work(group="tokenize", exclusive=True)
    async def _tokenize_aside(self, tokenizer: Tokenizer, text: str) -> None:
        try:
            tokens = await asyncio.to_thread(self._encoded, tokenizer, text)
        except LogitlabError as error:
            self.wait(str(error))
            return
        if text == self.prompt.text:
            self._show(text, tokens)

    def _show(self, text: str, tokens: Sequence[Token]) -> None:
        self.tokens, self._tokenized = tokens, (text, self.chat)
        facts, tokenizer = self._lab.facts, self._lab.tokenizer
        uncut = tokenizer is not None and not tokenizer.cuts
        self._pane.show(tokens, text, facts.context_length if facts else None, uncut=uncut)
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
        wanted = self._mode != "tokens" and self._lab.facts is not None and len(self.tokens) > 1
        capabilities = self._lab.capabilities
        if wanted and capabilities is not None and not capabilities.prompt_scores:
            self._pane.leave_unjudged(_("this server does not score prompts"))
        elif wanted and len(self.tokens) <= SCORED_TOKENS:
            self._scoring = self._lab.score(self.tokens)
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
