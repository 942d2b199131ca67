"""The list that is a chart: who gets the room, at every width."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from engine.base.plain import cells
from tui.style.theme import THEMES
from tui.widgets.bar_chart import GAP, BarChart, Column

LABELS = ["The sky above the city looked calm, but", "雨と記憶についての短い詩", "x"]


def columns(others: int = 0) -> list[Column]:
    return [
        Column("tokens", [9, 14, None], ink=0, always=True),
        *(Column(f"tokens of model-{number}", [7, 28, 1], ink=number, always=True) for number in range(1, others + 1)),
        Column("chars", [39, 12, 1], ink="quiet", always=True),
        Column("bytes", [39, 36, 1]),
        Column("t/word", [1.12, 14.0, None], form=".2f"),
    ]


class Alone(App[None]):
    def on_load(self) -> None:
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name

    def compose(self) -> ComposeResult:
        yield BarChart("prompt")


@pytest.mark.parametrize("others", [0, 1, 3])
async def test_at_every_width_rows_fit_and_what_matters_most_stays(others: int) -> None:
    app = Alone()
    async with app.run_test(size=(220, 10)) as pilot:
        chart = app.query_one(BarChart)
        chart.show(LABELS, columns(others))
        for width in range(40, 220, 9):
            await pilot.resize_terminal(width, 10)
            await pilot.pause()
            rows = [chart.render_line(y).text for y in range(4)]
            assert [cells(row) for row in rows] == [chart.size.width] * 4
            assert re.search(r"prompt +tokens", rows[0])
            assert rows[3].strip().startswith("3 x")
            assert " 9 " in rows[1]
            assert "–" in rows[3]
            whole = LABELS[0] in rows[1]
            assert whole == ("…" not in rows[1])
            assert whole or "bytes" not in rows[0]  # labels have room before further columns
        assert "t/word" in rows[0]


@given(st.integers(30, 240), st.integers(0, 3), st.integers(1, 90))
def test_no_more_room_is_spent_than_there_is(width: int, others: int, label: int) -> None:
    chart = BarChart("prompt")
    chart.labels, chart.columns, chart._needs = ["x" * label] * 3, columns(others), label
    room = chart._spend(width)
    spent = room.index + 3 + room.label + sum(GAP + wide for wide in room.widths if wide)
    assert spent <= width
    assert room.label <= max(label, 12)
    assert all(bars < wide for bars, wide in zip(room.bars, room.widths) if bars)
    series = {bars for one, bars in zip(chart.columns, room.bars) if bars and isinstance(one.ink, int)}
    assert len(series) <= 1, "bars that are compared have one scale"


async def test_the_cursor_moves_scrolls_and_chooses_by_key_and_by_mouse() -> None:
    app = Alone()
    async with app.run_test(size=(60, 10)) as pilot:
        chart = app.query_one(BarChart)
        chart.focus()
        count = 100
        chart.show([f"row {number}" for number in range(count)], [Column("n", list(range(count)), ink=0, always=True)])
        chosen: list[int] = []
        chart.choose = lambda: chosen.append(chart.cursor)  # type: ignore[method-assign]
        await pilot.press("down", "down", "enter", "end", "enter", "pageup", "home", "enter")
        assert chosen == [2, 99, 0]
        await pilot.press("end")
        await pilot.pause()
        assert "row 99" in chart.render_line(9).text
        assert chart.render_line(0).text.strip().startswith("prompt")
        await pilot.click(BarChart, offset=(5, 3))
        assert f"row {chart.cursor}" in chart.render_line(3).text
        await pilot.click(BarChart, offset=(5, 0))  # the head is no row
        assert chart.cursor > 90
