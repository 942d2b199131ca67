"""The prompt or a conversation, the tokens it is cut into, and how much each of them surprised the model."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text
from textual import getters, on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message

from engine.base.errors import InputError, LogitlabError
from engine.base.language import _
from engine.generation.branches import Branch
from engine.generation.config import GenerationConfig
from engine.generation.events import Prompt, Start
from engine.lab import Lab
from engine.models.model import Model
from engine.text.conversation import Conversation
from engine.text.rendering import Rendered, twice_begun
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from tui.panes.asking import Asking, Cut, Given, ask_options
from tui.panes.conversation import ConversationPane, title
from tui.panes.prompt import PromptPane
from tui.panes.prompt_scores import PromptScores
from tui.panes.threads import Threads, check, encoded
from tui.panes.tokens import TokensPane
from tui.sentences import sentence
from tui.style.colours import ink

# Longer prompts are cut into tokens beside the event loop, so that typing stays fluent; so are more messages.
TOKENIZE_AT_ONCE = 4_000
MESSAGES_AT_ONCE = 8


class PromptArea(Vertical):
    """The prompt above its tokens; or a conversation's messages above the editor of one of them.

    Attributes:
        tokens: as they are shown.
        rendered: what the chat template made of a conversation.
        lane: whose model is followed.
    """

    prompt = getters.query_one(PromptPane)
    messages = getters.query_one(ConversationPane)
    _pane = getters.query_one(TokensPane)

    @dataclass
    class Tokenized(Message):
        """The prompt's tokens are these now."""

        tokens: Sequence[Token]

    @dataclass
    class Trouble(Message):
        """The prompt could not be scored."""

        error: Exception

    class Turned(Message):
        """The prompt is a conversation now, or is one no longer."""

    def __init__(self, lab: Lab, text: str) -> None:
        super().__init__(id="prompt-area")
        self._lab = lab
        self._text = text
        self._tokenized: tuple[Given, Tokenizer] | None = None  # what is shown, and what cut it
        self._aside = False  # whether it is cut beside the event loop just now
        self._config = GenerationConfig()  # of the lane whose model it follows
        self._scores = PromptScores(lab, self, lambda: self._pane, lambda error: self.post_message(self.Trouble(error)))
        self._waiting: Threads | None = None  # a conversation, while the prompt goes as it is
        self._asking = Asking(lab, lambda text: self.notify(text, markup=False))
        self.lane = 0
        self.tokens: Sequence[Token] = ()
        self.rendered: Rendered | None = None

    def compose(self) -> ComposeResult:
        yield ConversationPane(self._commit)
        yield PromptPane(self._text)
        yield TokensPane()

    @property
    def threads(self) -> Threads | None:
        """The conversation; `None` while the prompt goes as it is."""
        return self.messages.threads

    @property
    def waits(self) -> bool:
        """Whether there is a conversation while the prompt goes as it is."""
        return self._waiting is not None

    @property
    def saved_threads(self) -> tuple[Conversation, ...]:
        """The threads that a session holds, in use or not."""
        self._commit()
        threads = self.threads or self._waiting
        return threads.threads if threads is not None else ()

    @property
    def text(self) -> str:
        """The prompt; of a conversation, the user's last message."""
        self._commit()
        if self.threads is None:
            return self.prompt.text
        last = self.threads.last_of_user
        return "" if last is None else self.threads.messages[last].content

    @property
    def tokenized(self) -> str | None:
        """The prompt whose tokens are shown."""
        given = self._tokenized[0] if self._tokenized is not None else None
        return given if isinstance(given, str) else None

    @property
    def given(self) -> Given:
        """What goes to the model of the lane that is followed."""
        return self.prompt.text if self.threads is None else self.threads.of_lane(self.lane)

    def restore(self, text: str, threads: Sequence[Conversation] = (), *, waits: bool = False) -> None:
        """Show the prompt or the conversation of a session.

        Args:
            waits: the conversation is there, but the prompt goes as it is.
        """
        conversation = Threads(threads) if threads else None
        self._waiting = conversation if waits else None
        self.prompt.show(text)
        self._turn(None if waits else conversation)
        self.tokenize()

    def wait(self, why: str) -> None:
        """Say why there are no tokens to show."""
        self._pane.wait(why)

    def point(self, position: int) -> None:
        """Put the cursor on a token without a message."""
        self._pane.point(position)

    # The model.

    def follow(self, config: GenerationConfig, lane: int = 0) -> None:
        """Show what goes to a lane as its model cuts it."""
        self._commit()
        self._config, self.lane = config, lane
        if self.threads is not None and self.threads.lane != lane:
            self.threads.lane = lane
            if len(self.threads.threads) > 1:
                self._show_messages()
        if self._tokenized is None or self._tokenized != (self.given, self._tokenizer):
            self.tokenize()
        else:
            self._remark()

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

    # The conversation.

    def toggle_conversation(self) -> None:
        """Make the prompt a message of a conversation, or go back to it; no message is lost."""
        tokenizer = self._tokenizer
        if self.threads is not None:
            self.go_back(self.text)
            return
        if tokenizer is None or not tokenizer.chats:
            self.notify(sentence(_("This model has no chat template: {model} chooses another.")), severity="warning")
            return
        threads = self._waiting or Threads([Conversation.of(self.prompt.text)])
        if (last := threads.last_of_user) is not None:
            threads.choose(last)
            threads.write(self.prompt.text)
        self._waiting = None
        self._turn(threads)
        self.tokenize()

    def take(self, text: str) -> None:
        """Another prompt; in a conversation it is the user's last message."""
        self._commit()
        if self.threads is not None and (last := self.threads.last_of_user) is not None:
            self.threads.choose(last)
            self._show_messages()
        self.prompt.show(text)

    def go_back(self, text: str) -> None:
        """Another prompt, which goes as it is; a conversation waits."""
        self._commit()
        if self.threads is not None:
            self._waiting = self.threads
            self._turn(None)
        self.prompt.show(text)
        self.tokenize()

    def open(self, conversation: Conversation) -> None:
        """Go on with another conversation; undo in its list brings back the one before."""
        threads = self.threads or self._waiting
        if threads is None:
            threads = Threads([conversation])
        else:
            threads.take(conversation)
        self._waiting = None
        self._turn(threads)
        self.tokenize()

    def _turn(self, threads: Threads | None) -> None:
        if threads is not None:
            threads.lane = self.lane
        self.set_class(threads is not None, "talking")
        self.messages.show(threads)
        self._show_messages()
        self.post_message(self.Turned())

    def _commit(self) -> None:
        """What is typed is in the message that is edited."""
        if self.threads is not None:
            self.threads.write(self.prompt.text)

    def _show_messages(self) -> None:
        """The list as it is now, and the chosen message in the editor."""
        if self.threads is not None:
            self.messages.show(self.threads)
            self.prompt.show(self.threads.message.content)
            self._reveal()
        self._title()

    def _reveal(self) -> None:
        """Bring the tokens of the chosen message into sight."""
        if self.threads is not None:
            self._pane.reveal(self.threads.chosen)

    def _title(self) -> None:
        threads, tokenizer = self.threads, self._tokenizer
        lacking = tokenizer is not None and not tokenizer.chats
        self.prompt.border_title = _("Prompt") if threads is None else title(threads, lacking=lacking)

    @on(ConversationPane.Changed)
    def _messages_changed(self, event: ConversationPane.Changed) -> None:
        event.stop()
        self._show_messages()
        if self._tokenized != (self.given, self._tokenizer):  # else another one is chosen, and nothing else is new
            self.tokenize()

    def _take_in_changes(self) -> None:
        self._show_messages()
        self.tokenize()

    @on(ConversationPane.Said)
    def _say(self, event: ConversationPane.Said) -> None:
        event.stop()
        self.notify(event.text, markup=False)

    @on(ConversationPane.Below)
    def _go_down(self, event: ConversationPane.Below) -> None:
        event.stop()
        self.prompt.focus()

    @on(PromptPane.Above)
    def _go_up(self, event: PromptPane.Above) -> None:
        event.stop()
        if self.threads is not None:
            self.messages.focus()

    def check(self) -> None:
        """Raise `InputError` where there is nothing to run, with the place to type it in the editor."""
        self._commit()
        if self.threads is None:
            if not self.prompt.text:
                raise InputError(_("The prompt is empty: type at least one character."))
            return
        for lane in range(len(self.threads.threads)):
            try:
                check(self.threads.of_lane(lane))
            except InputError:
                self.threads.choose(len(self.threads.messages) - 1)
                self._show_messages()
                raise

    async def adopt(self, branches: Sequence[Branch]) -> bool:
        """What lanes wrote becomes the assistant's turn: of one lane for both, or of each lane in its own thread.

        Returns whether it did.
        """
        self._commit()
        threads = self.threads
        assert threads is not None
        answers = []
        for branch in branches:
            answer = await self._asking.answer(branch, threads)
            if answer is None:
                said = sentence(_("This answers other messages than these: {run} runs them."))
                self.notify(said, severity="warning")
                return False
            answers.append(answer)
        threads.adopt(answers)
        self._show_messages()
        self.tokenize()
        return True

    @on(ConversationPane.OptionsWanted)
    def _ask_options(self, event: ConversationPane.OptionsWanted) -> None:
        """The options of the chat template, of the lane that is looked at."""
        event.stop()
        threads, tokenizer = self.threads, self._tokenizer
        if threads is not None and tokenizer is not None:
            ask_options(self.app, tokenizer, threads, self._take_in_changes)

    @on(ConversationPane.OpenWanted)
    def _ask_file(self, event: ConversationPane.OpenWanted) -> None:
        """A file of messages."""
        from tui.dialogs.choose_messages import ask_messages

        event.stop()
        ask_messages(self.app, self.open)

    # Tokens.

    @on(PromptPane.Edited)
    def _edited(self, event: PromptPane.Edited) -> None:
        event.stop()
        if self.threads is not None:
            self._commit()
            self.messages.refresh()
        self.tokenize()

    def tokenize(self) -> None:
        """Cut the prompt into tokens, with the tokenizer that is there now."""
        self._commit()
        tokenizer, given = self._tokenizer, self.given
        if tokenizer is None:
            if self._config.names_model:
                self._show_none(
                    _("{model} is not loaded: its tokens are not known yet", model=self._config.model_label)
                )
            return
        if self.threads is not None and not tokenizer.chats and not self._config.names_model:  # it is another model
            self.toggle_conversation()
            self.notify(
                sentence(
                    _("This model has no chat template: the prompt goes as it is. {chat} brings the messages back.")
                )
            )
            return
        self._title()
        if _is_short(given) and not tokenizer.remote:
            self._show_cut(given, tokenizer, _cut(tokenizer, given))
        elif not self._aside:
            self._aside = True
            self._cut_aside()

    @work(group="tokenize")
    async def _cut_aside(self) -> None:
        """Cut what is there now, and again where it was changed meanwhile: one at a time, for it takes a core."""
        try:
            while (tokenizer := self._tokenizer) is not None:
                given = self.given
                if _is_short(given) and not tokenizer.remote:
                    return
                found = await asyncio.to_thread(_cut, tokenizer, given)
                if (given, tokenizer) == (self.given, self._tokenizer):
                    self._show_cut(given, tokenizer, found)
                    return
        finally:
            self._aside = False

    def _show_cut(self, given: Given, tokenizer: Tokenizer, found: "Encoded | LogitlabError") -> None:
        if isinstance(found, LogitlabError):
            self._show_none(str(found))
            return
        (self.tokens, self.rendered), self._tokenized = found, (given, tokenizer)
        model = self._model
        context = None if model is None else model.facts.context_length
        text = given if isinstance(given, str) else self.rendered.text if self.rendered is not None else self.text
        self._pane.show(self.tokens, text, context, uncut=not tokenizer.cuts, rendered=self.rendered)
        self._reveal()
        self._remark()
        self.post_message(self.Tokenized(self.tokens))
        self._score()

    def _show_none(self, why: str) -> None:
        """There are no tokens, and why."""
        self.tokens, self.rendered, self._tokenized = (), None, None
        self._pane.show((), "", None)
        self._remark()
        self.wait(why)

    def _remark(self) -> None:
        """What is to be known of the conversation, below what is typed: one thing, and how many there are."""
        remarks = self.remarks
        line = Text(no_wrap=True, overflow="ellipsis")
        if remarks:
            more = f"1/{len(remarks)} " if len(remarks) > 1 else ""
            line.append(f"⚠ {more}{remarks[0]}", style=ink(self.app, "warning"))
        self.prompt.border_subtitle = line

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be known of what is typed, a sentence each; that it does not fit comes first."""
        if self.rendered is None:
            tokenizer = self._tokenizer
            begin = None if tokenizer is None else tokenizer.special_tokens.get("bos_token")
            said = twice_begun(self.tokens, begin)
            return (said,) if said else ()
        model = self._model
        context = 0 if model is None else model.facts.context_length or 0
        over = self.rendered.not_fitting(context, self._config.max_new_tokens)
        return (over, *self.rendered.remarks) if over else self.rendered.remarks

    @on(TokensPane.RemarksWanted)
    @on(ConversationPane.RemarksWanted)
    def _list_remarks(self, event: TokensPane.RemarksWanted | ConversationPane.RemarksWanted) -> None:
        event.stop()
        remarks = self.remarks
        listed = "\n".join(f"{place}. {one}" for place, one in enumerate(remarks, start=1))
        self.notify(listed or _("There is nothing to be warned of."), markup=False, timeout=15 if remarks else 5)

    async def starts(self, configs: Sequence[GenerationConfig]) -> list[Start | Prompt]:
        """What each lane begins with, as its own model takes it. Raises `InputError`."""
        self._commit()
        threads = self.threads
        given = [self.prompt.text if threads is None else threads.of_lane(lane) for lane in range(len(configs))]
        shown = None if self._tokenized is None else Cut(*self._tokenized, self.tokens)
        return await self._asking.starts(given, self.text, configs, shown)

    # Scores.

    def colour(self, mode: str) -> None:
        """Colour tokens by a mode of `tui.style.colours`."""
        self._scores.mode = mode
        self._pane.colour(mode)
        self._score()

    def _score(self) -> None:
        given = None if self._tokenized is None else self._tokenized[0]
        self._scores.ask(self.tokens, self._config, given if isinstance(given, Conversation) else None)


Encoded = tuple[Sequence[Token], Rendered | None]


def _cut(tokenizer: Tokenizer, given: Given) -> Encoded | LogitlabError:
    """The tokens, or why there are none."""
    try:
        return encoded(tokenizer, given)
    except LogitlabError as error:
        return error


def _is_short(given: Given) -> bool:
    """Whether it is cut while the next key waits."""
    if isinstance(given, str):
        return len(given) <= TOKENIZE_AT_ONCE
    return (
        len(given.messages) <= MESSAGES_AT_ONCE and sum(len(one.content) for one in given.messages) <= TOKENIZE_AT_ONCE
    )
