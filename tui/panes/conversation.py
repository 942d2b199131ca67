"""The messages of a conversation as a list above the editor, which edits the chosen one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.message import Message
from textual.strip import Strip

from engine.base.language import _
from engine.base.plain import one_line, shortened
from engine.text import conversation
from tui.actions import bindings
from tui.panes.lane_states import NAMES
from tui.panes.threads import Threads
from tui.sentences import key, sentence
from tui.style.colours import Role, ink
from tui.widgets.rows import Rows

ROLE_CELLS = 10
ROLES: dict[str, Role] = {"system": "warning", "developer": "warning", "user": "note", "assistant": "good"}
CHOSEN = "▸"
SPECIAL = "◆"  # names of control tokens in it are those tokens
# Of a text, more than any terminal has columns.
MOST_CELLS = 1_000


class ConversationPane(Rows, inherit_bindings=False):
    """One line for each message.

    Args:
        commit: brings what was typed into the chosen message.

    Attributes:
        threads: the conversation; `None` while the prompt goes as it is.
    """

    BINDINGS = bindings("messages")

    class Changed(Message):
        """Messages, or the chosen one, are others now."""

    class Below(Message):
        """The editor is to have the focus."""

    class OptionsWanted(Message):
        """The options of the chat template are to be shown."""

    class RemarksWanted(Message):
        """All that is to be known of the conversation is to be listed."""

    class OpenWanted(Message):
        """A file of messages is to be opened."""

    @dataclass
    class Said(Message):
        """Something for the person to read."""

        text: str

    def __init__(self, commit: Callable[[], object]) -> None:
        super().__init__(id="messages")
        self._commit = commit
        self.threads: Threads | None = None
        self.display = False

    def show(self, threads: Threads | None) -> None:
        """Show a conversation as it is now; nothing where there is none."""
        self.threads = threads
        self.display = threads is not None
        if threads is not None:
            self.cursor = threads.chosen
        self.measure()
        self.call_after_refresh(self._into_sight)

    def _into_sight(self) -> None:
        super().watch_cursor(self.cursor, self.cursor)

    @property
    def row_count(self) -> int:
        return len(self.threads.messages) if self.threads is not None else 0

    def watch_cursor(self, before: int, now: int) -> None:
        super().watch_cursor(before, now)
        if self.threads is not None and now != self.threads.chosen:
            self._commit()
            self.threads.choose(now)
            self.post_message(self.Changed())

    def choose(self) -> None:
        self.post_message(self.Below())

    def possible(self, action: str) -> bool:
        """Whether an action can do something now."""
        threads = self.threads
        if threads is None:
            return False
        match action:
            case "join":
                return len(threads.threads) > 1
            case "undo":
                return threads.can_undo
            case "redo":
                return threads.can_redo
        return True

    # What keys do.

    def action_move(self, by: int) -> None:
        """Another message; behind the last one is the editor."""
        if by == 1 and self.cursor == self.row_count - 1:
            self.post_message(self.Below())
        else:
            super().action_move(by)

    def action_edit(self) -> None:
        self.choose()

    def action_add(self) -> None:
        """An empty message behind the chosen one, to be typed."""
        self._change(lambda threads: threads.add())
        self.choose()

    def action_add_system(self) -> None:
        """A system message at the top, to be typed."""
        self._change(lambda threads: threads.add_system())
        self.choose()

    def action_role(self) -> None:
        self._change(lambda threads: threads.turn_role())

    def action_special(self) -> None:
        self._change(lambda threads: threads.switch_special())

    def action_remove(self) -> None:
        self._change(lambda threads: threads.remove())

    def action_shift(self, by: int) -> None:
        """The chosen message up or down by one place."""
        self._change(lambda threads: threads.move(by))

    def action_join(self) -> None:
        """Both lanes go on with the thread that is shown."""
        if self.threads is not None and len(self.threads.threads) > 1:
            self._change(lambda threads: threads.join())
            self.post_message(self.Said(_("Both lanes go on with this thread.")))
        else:
            self.post_message(self.Said(_("There is one thread already.")))

    def action_undo(self) -> None:
        self._go_back(lambda threads: threads.undo(), _("Undone: {what}."), _("There is nothing to undo."))

    def action_redo(self) -> None:
        self._go_back(lambda threads: threads.redo(), _("Done again: {what}."), _("There is nothing to redo."))

    def action_options(self) -> None:
        self.post_message(self.OptionsWanted())

    def action_remarks(self) -> None:
        self.post_message(self.RemarksWanted())

    def action_open(self) -> None:
        self.post_message(self.OpenWanted())

    def _go_back(self, move: Callable[[Threads], str | None], done: str, nothing: str) -> None:
        if self.threads is not None:
            self._commit()
            what = move(self.threads)
            self.post_message(self.Said(done.format(what=what) if what else nothing))
            self.post_message(self.Changed())

    def _change(self, change: Callable[[Threads], object]) -> None:
        """Change the messages, with what was typed before in them."""
        if self.threads is None:
            self.post_message(self.Said(sentence(_("The prompt goes as it is: {chat} makes a conversation of it."))))
            return
        self._commit()
        change(self.threads)
        self.show(self.threads)
        self.post_message(self.Changed())

    # The lines.

    def render_line(self, y: int) -> Strip:
        index, width, base = y + self.scroll_offset.y, self.scrollable_content_region.width, self.rich_style
        if self.threads is None or index >= self.row_count:
            return Strip.blank(width, base)
        chosen = index == self.cursor
        style = base
        if chosen:
            style += Style(bold=True, reverse=self.has_focus and self.app.no_color)
            style += Style(bgcolor=self.app.theme_variables["primary-muted"] if self.has_focus else None)
        return Strip(list(self._segments(index, width, style, chosen))).adjust_cell_length(width, style)

    def _segments(self, index: int, width: int, style: Style, chosen: bool) -> Iterator[Segment]:
        assert self.threads is not None
        message = self.threads.messages[index]
        digits = len(f"{self.row_count:,}")
        faint = style + Style(dim=not chosen)
        yield Segment(f"{CHOSEN if chosen else ' '}{index + 1:{digits},} ", faint)
        role = ROLES.get(message.role)
        colour = Style(color=ink(self.app, role)) if role is not None else Style()
        yield Segment(set_cell_size(message.role, ROLE_CELLS), style + colour)
        yield Segment(
            f"{SPECIAL if message.special else ' '} ", style + Style(color=self.app.theme_variables["accent"])
        )
        room = max(0, width - digits - ROLE_CELLS - 4)
        if message.thinking:
            thought = shortened(_("…thought"), room)
            yield Segment(f"{thought} ", faint + Style(italic=True))
            room = max(0, room - cell_len(thought) - 1)
        text = words(message)
        yield Segment(shortened(text or _("empty"), room), style if text else faint + Style(italic=True))


def title(threads: Threads, *, lacking: bool) -> str:
    """What is said of the chosen message above the editor.

    Args:
        lacking: the model has no template to put messages in.
    """
    message, count = threads.message, len(threads.messages)
    said = [_("Message {number:,} of {count:,}", number=threads.chosen + 1, count=count), message.role]
    if len(threads.threads) > 1:
        said.append(_("lane {lane}'s thread", lane=NAMES[threads.lane]))
    if message.special:
        said.append(_("control tokens are tokens"))
    if threads.chosen == count - 1 and message.role == "assistant":
        said.append(_("{run} continues it", run=key("run")))
    if lacking:
        said.append(_("this lane's model has no chat template"))
    return " · ".join(said)


def words(message: conversation.Message) -> str:
    """A message on one line: its text, or the tools that it calls."""
    if message.content:
        return one_line(message.content.lstrip()[:MOST_CELLS])
    calls = message.extra.get("tool_calls")
    functions = [one.get("function") for one in calls if isinstance(one, dict)] if isinstance(calls, list) else []
    names = [str(one.get("name", "")) for one in functions if isinstance(one, dict)]
    return one_line("→ " + ", ".join(names))[:MOST_CELLS] if names else ""
