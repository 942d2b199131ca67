"""The footer: whole keys, and a mouse."""

from textual.app import ComposeResult
from textual.widgets import TextArea

from tests.tui.conftest import until
from tui.dialogs.help import Help
from tui.widgets.footer import Footer
from tui.workbench import Workbench


async def test_a_key_that_is_clicked_does_what_it_does_when_pressed(lab) -> None:
    async with lab() as (app, pilot):
        footer = app.query_one(Footer)
        await until(pilot, lambda: any(key.description == "help" for key in footer.keys))
        column = next(column for column, key in footer.shown if key.description == "help")
        await pilot.hover(Footer, offset=(column, 0))
        line = footer.render()
        assert any(span.start <= column < span.end and span.style.bgcolor for span in line.spans), "it is lit"
        await pilot.click(Footer, offset=(column, 0))
        await until(pilot, lambda: isinstance(app.screen, Help))


async def test_a_key_is_shown_as_a_whole_or_not(lab) -> None:
    async with lab(size=(80, 24)) as (app, pilot):
        app.query_one(TextArea).focus()
        footer = app.query_one(Footer)
        await until(pilot, lambda: bool(footer.shown))
        assert len(footer.shown) < len(footer.keys)
        written = footer.render().plain
        assert written.split() == [word for _, key in footer.shown for word in (key.display, *key.description.split())]
        await pilot.resize_terminal(160, 24)
        await until(pilot, lambda: footer.render().plain.startswith(written.rstrip()))
        assert len(footer.render().plain) > len(written)


async def test_the_footer_may_ask_for_keys_before_the_panes_are_there(lab, monkeypatch) -> None:
    """In some terminals the first answer comes while the panes are being made."""
    asked = []
    compose = Workbench.compose

    def asking(self: Workbench) -> ComposeResult:
        asked.append(self.screen.active_bindings)
        yield from compose(self)

    monkeypatch.setattr(Workbench, "compose", asking)
    async with lab() as (app, _pilot):
        assert asked == [{}]
        assert [key.key for key in app.query_one(Footer).keys]
