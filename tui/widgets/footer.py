"""The last line: the few keys that matter here and now, and at its right those that are always there."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.binding import Binding
from textual.screen import ActiveBinding, ModalScreen, Screen
from textual.widget import Widget

from tui.actions import ACTIONS, BY_IDENTITY, EVERYWHERE
from tui.actions.action import Action, Where
from tui.keymap import keys_of, written

# More are not read at a glance; `?` shows all.
MOST = 7
GAP = 2
# At the right, in their order.
ALWAYS = tuple(action.name for action in ACTIONS["lab"] if action.always)


class FooterKey(NamedTuple):
    """A key in the footer.

    Attributes:
        key: by Textual's name.
        display: as people write it, with the one of its pair: `← →`.
        description: its word.
        always: whether it stands at the right.
    """

    key: str
    display: str
    description: str
    always: bool = False

    @property
    def cells(self) -> int:
        return cell_len(f"{self.display} {self.description}")


class Footer(Widget):
    """The keys that can do something, the most useful first; one that is clicked does what it does when pressed.

    Drawn as one line: Textual's own footer is a widget a key, made anew whenever the focus moves, and their styles took
    half of the time that all others took.

    Attributes:
        keys: what is shown where there is room, in its order.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES = {"footer--key", "footer--always", "footer--hover"}
    DEFAULT_CSS = """
    Footer {
        dock: bottom; height: 1; color: $footer-description-foreground; background: $footer-background;
        .footer--key { color: $footer-key-foreground; text-style: bold; }
        .footer--always { color: $footer-description-foreground; }
        .footer--hover { background: $block-hover-background; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[FooterKey] = []
        self._under_mouse: int | None = None

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._change)

    def on_unmount(self) -> None:
        self.screen.bindings_updated_signal.unsubscribe(self)

    def _change(self, screen: Screen[object]) -> None:
        if not self.app.app_focus or screen is not self.screen or screen is not self.app.screen:
            return
        keys = chosen(screen.active_bindings.values(), in_dialog=isinstance(screen, ModalScreen))
        if keys != self.keys:
            self.keys = keys
            self.refresh()

    @property
    def shown(self) -> list[tuple[int, FooterKey]]:
        """The keys that have room as a whole, each with the column it begins in."""
        width = self.size.width
        right = [key for key in self.keys if key.always]
        while right and _width(right) > width:
            right.pop(0)
        room = width - (_width(right) + GAP if right else 0)
        left: list[FooterKey] = []
        for key in self.keys:
            if not key.always:
                if _width([*left, key]) > room:
                    break
                left.append(key)
        return [*_placed(left, 0), *_placed(right, width - _width(right))]

    def render(self) -> Text:
        line = Text(no_wrap=True, end="")
        for index, (column, key) in enumerate(self.shown):
            line.pad_right(column - line.cell_len)
            begin = len(line)
            line.append(key.display, self.get_component_rich_style(_style(key), partial=True))
            line.append(f" {key.description}")
            if index == self._under_mouse:
                line.stylize_before(self.get_component_rich_style("footer--hover"), begin)
        return line

    def _at(self, column: int) -> int | None:
        for index, (begin, key) in enumerate(self.shown):
            if begin <= column < begin + key.cells:
                return index
        return None

    def _hover(self, index: int | None) -> None:
        if index != self._under_mouse:
            self._under_mouse = index
            self.refresh()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self._hover(self._at(event.x))

    def on_leave(self) -> None:
        self._hover(None)

    def on_click(self, event: events.Click) -> None:
        index = self._at(event.x)
        if index is not None:
            self.app.simulate_key(self.shown[index][1].key)


def chosen(bindings: Iterable[ActiveBinding], *, in_dialog: bool = False) -> list[FooterKey]:
    """At most `MOST` of the keys that can do something: by their rank and how near they are, then those of the right.

    In a dialog only its own count.
    """
    left: dict[tuple[object, str], tuple[int, FooterKey]] = {}
    right: dict[str, FooterKey] = {}
    found = list(bindings)
    near: list[Where] = [
        place[0] for active in found if (place := _action_of(active.binding)) is not None and place[0] != "lab"
    ]
    depths: dict[Where, int] = {where: depth for depth, where in enumerate(dict.fromkeys(near))}
    for node, binding, enabled, _tooltip in sorted(found, key=_place):
        place = _action_of(binding)
        if not (binding.show and enabled) or (in_dialog and not isinstance(node, ModalScreen)):
            continue
        if place is None:
            key = FooterKey(binding.key, written(binding.key, short=True), binding.description)
            left.setdefault((node, binding.action), (0, key))
            continue
        where, action = place
        display = written(binding.key, short=True)
        if action.pair:
            (other,) = (one for one in ACTIONS[where] if one.title == action.pair)
            display = " ".join(written(key, short=True) for one in (other, action) for key in keys_of(where, one)[:1])
        key = FooterKey(binding.key, display, binding.description, action.always)
        if action.always:
            right.setdefault(action.name, key)
        else:
            left.setdefault((node, binding.action), (action.rank + depths.get(where, 0), key))
    # Where `?` is typed, F1 stands in its place; everywhere else the sheet of keys leads to the help.
    if "key_sheet" in right:
        right.pop("help", None)
    most = sorted(left.values(), key=lambda one: one[0])[: MOST - len(right)]
    return [*(key for _rank, key in most), *(right[name] for name in ALWAYS if name in right)]


def _action_of(binding: Binding) -> tuple[Where, Action] | None:
    return BY_IDENTITY.get((binding.id or "").removesuffix(EVERYWHERE))


def _place(active: ActiveBinding) -> int:
    """Of a key among those of its action."""
    place = _action_of(active.binding)
    keys = keys_of(*place) if place is not None else ()
    return keys.index(active.binding.key) if active.binding.key in keys else 0


def _style(key: FooterKey) -> str:
    return "footer--always" if key.always else "footer--key"


def _width(keys: Sequence[FooterKey]) -> int:
    return sum(key.cells for key in keys) + max(0, len(keys) - 1) * GAP


def _placed(keys: Sequence[FooterKey], column: int) -> Iterable[tuple[int, FooterKey]]:
    for key in keys:
        yield column, key
        column += key.cells + GAP
