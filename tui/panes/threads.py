"""A conversation that is typed: one thread for both lanes, or one for each, and the changes that undo goes over."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.base.errors import InputError
from engine.base.language import _
from engine.text.conversation import ROLES, Conversation, Message
from engine.text.layout import TEMPLATE
from engine.text.rendering import Rendered
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from tui.panes.lane_states import History

Messages = tuple[Message, ...]
NEXT = Message("user", "")  # what is typed after an answer


@dataclass(frozen=True, slots=True)
class State:
    """What undo goes back over.

    Attributes:
        threads: one, or one for each lane.
        chosen: the message that is edited, by its place in the thread that is shown.
    """

    threads: tuple[Conversation, ...]
    chosen: int = 0


class Threads:
    """The messages, of which one is edited.

    What threads have alike at a place is changed in all of them.

    Attributes:
        lane: whose thread is shown, where each lane has its own.
    """

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        shown = conversations[0]
        self._history = History(State(tuple(conversations), max(0, len(shown.messages) - 1)))
        self._typing: int | None = None  # the message that the last change typed into
        self.lane = 0

    @property
    def state(self) -> State:
        return self._history.state

    @property
    def threads(self) -> tuple[Conversation, ...]:
        return self.state.threads

    @property
    def shown(self) -> Conversation:
        """The thread that is shown."""
        return self.of_lane(self.lane)

    def of_lane(self, lane: int) -> Conversation:
        """The thread that a lane goes on with; an assistant's message at its end is continued."""
        thread = self.threads[min(lane, len(self.threads) - 1)]
        last = thread.messages[-1] if thread.messages else None
        return replace(thread, continues=last is not None and last.role == "assistant")

    @property
    def messages(self) -> Messages:
        """Those of the thread that is shown."""
        return self.threads[min(self.lane, len(self.threads) - 1)].messages

    @property
    def chosen(self) -> int:
        return max(0, min(self.state.chosen, len(self.messages) - 1))

    @property
    def message(self) -> Message:
        """The one that is edited."""
        return self.messages[self.chosen]

    @property
    def last_of_user(self) -> int | None:
        """The place of the user's last message."""
        places = (place for place in reversed(range(len(self.messages))) if self.messages[place].role == "user")
        return next(places, None)

    # What is done with them.

    def choose(self, place: int) -> None:
        """Edit another message."""
        self._typing = None
        self._history.state = replace(self.state, chosen=max(0, min(place, len(self.messages) - 1)))

    def write(self, text: str) -> None:
        """The message that is edited has another text."""
        place = self.chosen
        if text == self.message.content:
            return
        state = self._changed(place, lambda one: replace(one, content=text))
        if self._typing == place:
            self._history.state = state
        else:
            self._push(state, _("the text of message {number}", number=place + 1))
            self._typing = place

    def turn_role(self) -> None:
        """The next role for the chosen message."""

        def turned(one: Message) -> Message:
            role = ROLES[(ROLES.index(one.role) + 1) % len(ROLES)]
            return replace(one, role=role, thinking=one.thinking if role == "assistant" else "")

        self._push(self._changed(self.chosen, turned), _("the role of message {number}", number=self.chosen + 1))

    def switch_special(self) -> None:
        """Names of control tokens in the chosen message are those tokens, or letters."""
        state = self._changed(self.chosen, lambda one: replace(one, special=not one.special))
        self._push(state, _("the switch of message {number}", number=self.chosen + 1))

    def add(self) -> None:
        """An empty message behind the chosen one, of the one that would speak next."""
        place = self.chosen
        role = "assistant" if self.message.role == "user" else "user"
        state = self._spliced(place + 1, 0, (Message(role, ""),), like=place)
        self._push(replace(state, chosen=place + 1), _("the new message"))

    def add_system(self) -> bool:
        """A system's message at the top; False where there is one, which is chosen then."""
        if self.messages and self.messages[0].role in ("system", "developer"):
            self.choose(0)
            return False
        threads = tuple(replace(one, messages=(Message("system", ""), *one.messages)) for one in self.threads)
        self._push(State(threads, 0), _("the system message"))
        return True

    def remove(self) -> None:
        """Take the chosen message away; of a single one, its text."""
        place = self.chosen
        what = _("the removal of message {number}", number=place + 1)
        if len(self.messages) == 1:
            self._push(self._changed(place, lambda _one: NEXT), what)
        else:
            self._push(self._spliced(place, 1, (), like=place), what)

    def move(self, by: int) -> None:
        """The chosen message up or down by one place."""
        place = self.chosen
        other = place + by
        if not 0 <= other < len(self.messages):
            return
        first = min(place, other)
        swapped = self.messages[first + 1], self.messages[first]
        state = self._spliced(first, 2, swapped, like=first)
        self._push(replace(state, chosen=other), _("the move of message {number}", number=place + 1))

    def use_options(self, options: Mapping[str, Any]) -> None:
        """Other values of the template's variables, in all threads."""
        self._push(
            replace(self.state, threads=tuple(replace(one, options=dict(options)) for one in self.threads)),
            _("the template's options"),
        )

    def take(self, conversation: Conversation) -> None:
        """Another conversation, such as one from a file."""
        self._push(State((conversation,), len(conversation.messages) - 1), _("the other conversation"))

    def join(self) -> None:
        """Both lanes go on with the thread that is shown."""
        self._push(State((replace(self.shown, continues=False),), self.chosen), _("the joining of both threads"))

    def adopt(self, answers: Sequence[tuple[Conversation, Message]]) -> None:
        """Answers become turns, and the user's next message is to be typed.

        Args:
            answers: one for both lanes, or one for each: what was asked, and what was answered.
        """
        asked = answers[min(self.lane, len(answers) - 1)][0]
        behind = self.messages[len(asked.messages) :]
        typed = behind[-1] if behind and behind[-1].role == "user" else NEXT
        threads = tuple(
            replace(
                asked, messages=(*asked.messages[: -1 if asked.continues else None], answer, typed), continues=False
            )
            for asked, answer in answers
        )
        shown = threads[min(self.lane, len(threads) - 1)]
        self._push(
            State(threads, len(shown.messages) - 1),
            _("the adopted answer") if len(threads) == 1 else _("the adopted answers"),
        )

    @property
    def can_undo(self) -> bool:
        return self._history.can_undo

    @property
    def can_redo(self) -> bool:
        return self._history.can_redo

    def undo(self) -> str | None:
        """Go back over the last change; what was undone."""
        self._typing = None
        return self._history.undo()

    def redo(self) -> str | None:
        """Go forward again; what was done again."""
        self._typing = None
        return self._history.redo()

    # How.

    def _push(self, state: State, what: str) -> None:
        self._typing = None
        self._history.push(state, what)

    def _changed(self, place: int, change: Callable[[Message], Message]) -> State:
        return self._spliced(place, 1, (change(self.messages[place]),), like=place)

    def _spliced(self, place: int, gone: int, new: Messages, *, like: int) -> State:
        """Some messages in the place of others, in the thread that is shown and in those that are alike there.

        Args:
            like: the first of the places that must be alike; the others are those that go.
        """
        own = self.messages
        alike = slice(like, max(like + 1, place + gone))
        threads = tuple(
            replace(one, messages=(*one.messages[:place], *new, *one.messages[place + gone :]))
            if one.messages[alike] == own[alike]
            else one
            for one in self.threads
        )
        return replace(self.state, threads=threads)


def encoded(tokenizer: Tokenizer, given: str | Conversation) -> tuple[Sequence[Token], Rendered | None]:
    """The tokens of a prompt, or of a conversation in the model's chat template. Raises `InputError`.

    Where there is no template, a message alone goes as it is. Options that the template does not read, which may be
    those of another lane's, are left out with a remark.
    """
    if isinstance(given, str):
        return tokenizer.encode(given), None
    if not tokenizer.chats:
        return tokenizer.encode(alone(given)), None
    if not given.options:
        rendered = tokenizer.encode_conversation(given)
        return rendered.tokens, rendered
    names = {TEMPLATE, *(one.name for one in tokenizer.template_variables(given))}
    left_out = [name for name in given.options if name not in names]
    kept = {name: value for name, value in given.options.items() if name in names}
    rendered = tokenizer.encode_conversation(replace(given, options=kept))
    if left_out:
        remark = _("this model's template reads no variable {names}: left out", names=", ".join(left_out))
        rendered = replace(rendered, remarks=(remark, *rendered.remarks))
    return rendered.tokens, rendered


def alone(conversation: Conversation) -> str:
    """The text of a conversation of one message of the user's. Raises `InputError` for any other."""
    if [one.role for one in conversation.messages] == ["user"]:
        return conversation.messages[0].content
    raise InputError(
        _(
            "this model has no chat template for {count:,} messages: choose another model, or go back to the prompt",
            count=len(conversation.messages),
        )
    )


def check(conversation: Conversation) -> None:
    """Raise `InputError` where there is nothing yet to answer."""
    if not conversation.messages:
        raise InputError(_("there is no message; give one at least"))
    last = conversation.messages[-1]
    if not last.content and not last.thinking and not last.extra.get("tool_calls"):
        raise InputError(_("message {number} is empty: type it, or remove it", number=len(conversation.messages)))
