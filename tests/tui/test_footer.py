"""The footer: whole keys, and a mouse."""

from textual.app import ComposeResult
from textual.widgets import TextArea

from tests.tui.conftest import ran, until
from tests.tui.test_app import ENDLESS
from tui.dialogs.help import Help
from tui.widgets.footer import Footer
from tui.workbench import Workbench


async def test_a_key_that_is_clicked_does_what_it_does_when_pressed(lab) -> None:
    async with lab() as (app, pilot):
        footer = app.query_one(Footer)
        await until(pilot, lambda: any(key.description == "help" for key in footer.keys))
        assert footer.shown[-1][1].display == "F1"
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
        for width in (60, 64, 70, 100):
            await pilot.resize_terminal(width, 24)
            await until(pilot, lambda width=width: footer.size.width == width)
            written = footer.render().plain
            shown = [word for _, key in footer.shown for word in (key.display, *key.description.split())]
            assert written.split() == shown
            assert len(written) == width, "what is always there ends at the right"
            assert written.endswith("^p palette  F1 help")
        assert len(footer.shown) == len(footer.keys)


async def test_it_shows_what_can_be_done_here_and_now_and_no_more_than_seven(lab) -> None:
    def words() -> list[str]:
        return [f"{key.display} {key.description}" for key in footer.keys]

    async with lab() as (app, pilot):
        footer = app.query_one(Footer)
        always = [": palette", "? keys"]
        await until(pilot, lambda: words()[:2] == ["esc lanes", "F5 run"])
        assert words()[-2:] == ["^p palette", "F1 help"], "in a field ? types"
        await pilot.press("escape")
        await until(pilot, lambda: words()[-2:] == always)
        assert "b branch" not in words(), "there is nothing to leave"
        assert words()[0] == "R run"
        pane = await ran(app, pilot)
        await until(pilot, lambda: words()[0] == "← → look")
        await pilot.press("right")
        await until(pilot, lambda: "b branch" in words())
        assert [key.display for key in footer.keys if key.always] == [":", "?"]
        await pilot.press("I")
        await until(pilot, lambda: words()[0] == "enter branch with this")
        assert {"s stage", "/ find", "← → knob", "+ − turn"} < set(words())
        assert "a use for lane" not in words()
        await pilot.press("plus")
        await until(pilot, lambda: words()[:2] == ["a use for lane", "0 as it ran"] or "a use for lane" in words()[:3])
        for _view in range(5):
            for place in ("A", "B", "I", "V", "tab", "tab", "tab", "tab"):
                await pilot.press(place)
                await pilot.pause()
                assert len(footer.keys) <= 7
                assert len(footer.shown) == len(footer.keys)
        assert pane.lanes[0].steps


async def test_while_lanes_run_stopping_comes_first(lab, tiny_long) -> None:
    async with lab(model=str(tiny_long), configs=ENDLESS) as (app, pilot):
        footer = app.query_one(Footer)
        await pilot.press("escape", "R")
        await until(pilot, lambda: [key.description for key in footer.keys][:2] == ["stop", "pause"])
        await pilot.press("escape")
        await until(pilot, lambda: "stop" not in [key.description for key in footer.keys])


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
