"""Charts in cells: what is drawn where, at every size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.chart import MARKS, Bar, Chart, Series, draw
from engine.base.plain import cells


def lines(chart: Chart, width: int = 60, height: int = 16) -> list[str]:
    return ["".join(span.text for span in row) for row in draw(chart, width, height)]


numbers = st.floats(-1e9, 1e9, allow_subnormal=False)
series = st.builds(
    Series,
    st.text("ab語 ", max_size=40),
    st.integers(0, 5),
    st.lists(st.tuples(numbers, numbers), max_size=6),
    st.lists(st.tuples(numbers, numbers), max_size=6),
    st.lists(st.tuples(numbers, numbers, numbers).map(lambda one: (one[0], min(one[1:]), max(one[1:]))), max_size=3),
)


@given(st.lists(series, max_size=7), st.integers(0, 90), st.integers(0, 24))
def test_whatever_is_drawn_fits(several: list[Series], width: int, height: int) -> None:
    found = lines(Chart("題 title", "トークン", several), width, height)
    assert len(found) == height
    assert all(cells(line) <= width for line in found)


@given(
    st.lists(st.tuples(st.text("語a ", max_size=30), st.floats(0, 1e6)), min_size=1, max_size=9), st.integers(24, 90)
)
def test_bars_have_their_numbers_at_their_ends_and_labels_the_room_there_is(several, width: int) -> None:
    found = lines(Chart("t", bars=[Bar(label, value, f"{value:.1f}", 0) for label, value in several]), width, 10)[1:]
    most = max(value for _label, value in several)
    for (label, value), line in zip(several, found):
        assert cells(line) <= width
        assert line.endswith(f" {value:.1f}")
        assert (label in line) or "…" in line
        if value == most > 0:
            assert "█" in line or width < 40


def column(chart_lines: list[str], marks: str) -> set[int]:
    return {at for line in chart_lines for at, char in enumerate(line) if char in marks}


@pytest.mark.parametrize("width", range(40, 90, 7))
@pytest.mark.parametrize("x", [10, 17, 20, 33, 40])
def test_a_point_stands_on_its_spread(width: int, x: int) -> None:
    line = [(0, 0.1), (60, 2.0)]
    chart = Chart("t", "tokens", [Series("a", 0, line, [(x, 1.0)], [(x, 0.4, 1.6)])])
    found = [row[6:] for row in lines(chart, width, 24)[1:]]
    plot = found[: next(number for number, row in enumerate(found) if "─" in row)]
    points, spread = column(plot, MARKS[0]), column(plot, "┬┴│")
    assert len(points) == 1
    assert points == spread


def test_a_curve_that_leaves_the_range_is_cut_and_a_line_goes_through_its_points() -> None:
    points = [(0, 0.0), (10, 1e300), (20, 1.0)]
    found = lines(Chart("t", "n", [Series("", 0, points)], y=(0, 1)), 40, 12)
    assert any("⠀" < char <= "⣿" for line in found for char in line)
    series = Series("", 0, [(0, 0.0), (8, 8.0)], [(x, x) for x in range(9)])
    straight = [line.ljust(51) for line in lines(Chart("t", "n", [series]), 50, 20)]
    marked = [(y, x) for y, line in enumerate(straight) for x, char in enumerate(line) if char == MARKS[0]]
    assert len(marked) == 9
    for y, x in marked:  # the curve touches each of its points
        around = [straight[b][a] for b in (y - 1, y, y + 1) if b < len(straight) for a in (x - 1, x + 1)]
        assert any("⠀" < char <= "⣿" for char in around)


def test_ticks_that_have_no_room_are_left_out_and_the_ends_stay() -> None:
    ticks = [(part / 5, f"{part * 20} %") for part in range(6)]
    chart = Chart("t", "layer", [Series("a", 0, [(0, 0.2), (12, 0.9)])], y_ticks=ticks)
    high, low = "\n".join(lines(chart, 40, 24)), "\n".join(lines(chart, 40, 8))
    assert all(f"{part * 20} %" in high for part in range(6))
    assert "100 %" in low
    assert " 0 %" in low
    assert "40 %" not in low


def test_nothing_to_draw_is_no_axis() -> None:
    assert not "".join(lines(Chart()))
    assert lines(Chart("only a title", series=[Series("a", 0)]))[0] == "only a title"


def test_what_has_no_room_is_said_to_be_missing() -> None:
    bars = [Bar(f"bar {number}", number, f"{number}", 0) for number in range(12)]
    assert lines(Chart("t", bars=bars), 40, 8)[-2:] == [lines(Chart("t", bars=bars), 40, 20)[6], "⋮ +6"]
    names = [Series(f"a rather long name {number}", number, [(0, 1), (1, 2)]) for number in range(6)]
    assert lines(Chart("t", series=names), 30, 12)[2].endswith("…")
