"""The last line: what the keys do here and now, as many as there is room for."""

from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.binding import Binding
from textual.screen import Screen
from textual.widget import Widget


class FooterKey(NamedTuple):
    """A key in the footer.

    Attributes:
        key: by Textual's name.
        display: as people write it.
        description: its word.
    """

    key: str
    display: str
    description: str


class Footer(Widget):
    """The keys of what has the focus, then the lab's; one that is clicked does what it does when pressed.

    Drawn as one line: Textual's own footer is a widget a key, made anew whenever the focus moves, and their styles took
    half of the time that all others took.

    Attributes:
        keys: those that can do something now, in their order.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES = {"footer--key", "footer--hover"}
    DEFAULT_CSS = """
    Footer {
        dock: bottom; height: 1; color: $footer-description-foreground; background: $footer-background;
        .footer--key { color: $footer-key-foreground; text-style: bold; }
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
        if not self.app.app_focus or screen is not self.screen:
            return
        first: dict[str, Binding] = {}  # by action: it may have further keys
        for _node, binding, enabled, _tooltip in screen.active_bindings.values():
            if binding.show and enabled:
                first.setdefault(binding.action, binding)
        keys = [FooterKey(one.key, self.app.get_key_display(one), one.description) for one in first.values()]
        if keys != self.keys:
            self.keys = keys
            self.refresh()

    @property
    def shown(self) -> list[tuple[int, FooterKey]]:
        """The keys that have room as a whole, each with the column it begins in."""
        places, column = [], 0
        for key in self.keys:
            width = cell_len(f"{key.display} {key.description}")
            if column + width > self.size.width:
                break
            places.append((column, key))
            column += width + 1
        return places

    def render(self) -> Text:
        line = Text(no_wrap=True, end="")
        style = self.get_component_rich_style("footer--key", partial=True)
        for index, (_column, key) in enumerate(self.shown):
            ground = self.get_component_rich_style("footer--hover") if index == self._under_mouse else ""
            begin = len(line)
            line.append(key.display, style)
            line.append(f" {key.description}")
            line.stylize_before(ground, begin)
            line.append(" ")
        return line

    def _at(self, column: int) -> int | None:
        for index, (begin, key) in enumerate(self.shown):
            if begin <= column < begin + cell_len(f"{key.display} {key.description}"):
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
