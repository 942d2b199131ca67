"""The inspector's rows, fields and tabs, and the lines of entropy below the lanes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.widgets import Static

from engine.generation.config import GenerationConfig
from tests.tui.conftest import ran, until
from tests.tui.test_app import lanes_of
from tui.panes.inspector import LADDERS, NAMES, Inspector
from tui.widgets.candidate_list import HEAD, CandidateList
from tui.widgets.entropy_line import LEVELS, EntropyLine, levels, scale_of
from tui.widgets.fields import Field, fields_line, rung, scale, value_text
from tui.widgets.token_flow import TokenFlow

VOCABULARY = 300
CUT = (
    GenerationConfig(
        name="a", strategy="sample", temperature=1.3, top_k=60, seed=1, max_new_tokens=12, ignore_eos=True
    ),
    GenerationConfig(name="b", max_new_tokens=12, ignore_eos=True),
)


def drawn(rows: CandidateList) -> list[str]:
    return ["".join(segment.text for segment in rows.render_line(y)).rstrip() for y in range(rows.size.height)]


async def test_the_tail_is_one_row_that_opens_and_says_how_probable_all_of_it_is(lab) -> None:
    async with lab(configs=CUT) as (app, pilot):
        await ran(app, pilot)
        flow = lanes_of(app)[0].query_one(TokenFlow)
        flow.focus()
        await pilot.press("home", "right")
        rows = app.query_one(CandidateList)
        rows.focus()
        assert (len(rows), rows.columns) == (HEAD + 1, 1)
        await pilot.press("end")
        (tail,) = [line for line in drawn(rows) if "more" in line]
        inspection = app.query_one(Inspector)._inspection
        rest = inspection.at(HEAD, VOCABULARY)
        raw = sum(candidate.raw_probability for candidate in rest)
        after = sum(candidate.probability for candidate in rest)
        assert 0 < after < raw  # twenty of them are left by top-k
        assert f"▸ {VOCABULARY - HEAD} more" in tail
        assert f"{raw:.1%} → {after:.1%}" in " ".join(tail.replace(" %", "%").split())
        assert rows.selected is None
        await pilot.press("x", "f")  # there is nothing to favour or to ban
        assert app.query_one(Inspector).settings == CUT[0]

        await pilot.press("enter")
        assert len(rows) == VOCABULARY + 1
        await pilot.press("down")
        assert rows.selected is not None
        assert rows.selected.id == rest[0].id
        await pilot.press("end")
        assert rows.selected.rank == VOCABULARY
        assert any(f"{VOCABULARY:>6} " in line for line in drawn(rows))
        await pilot.press("home", *["down"] * HEAD, "enter")  # the row folds them again
        assert len(rows) == HEAD + 1
        await pilot.press("enter")
        flow.focus()
        await pilot.press("right")  # another step is folded
        assert len(rows) == HEAD + 1


async def test_the_picked_token_is_always_in_sight(lab) -> None:
    async with lab(configs=CUT) as (app, pilot):
        pane = await ran(app, pilot)
        lane = lanes_of(app)[0]
        flow, rows = lane.query_one(TokenFlow), app.query_one(CandidateList)
        flow.focus()
        await pilot.press("home")
        deep = app.query_one(Inspector)._inspection.at(200, 201)[0]
        pane.branching.go_on(0, 0, (deep.id,))
        await until(pilot, lambda: not pane.running and len(pane.trees[0].branches) == 2)
        flow.focus()
        await pilot.press("home")
        lines = drawn(rows)
        assert f"{deep.rank:>6} " in lines[-1]
        assert "◀ yours" in lines[-1]
        assert [int(line.split()[0]) for line in lines[:-1]] == list(range(1, rows.size.height))
        rows.focus()
        for key in ("end", "home", "down", "S", "s", "pagedown"):  # at every stage, wherever the rows are scrolled
            await pilot.press(key)
            assert sum("◀ yours" in line for line in drawn(rows)) == 1
            highlighted = drawn(rows)[:-1]
            mark = "▸" if rows.selected is None else str(rows.selected.rank)
            assert any(line.split()[0] == mark for line in highlighted)  # the row under the cursor is not covered
        await pilot.press("end", "enter", *["pagedown"] * 25)
        await until(pilot, lambda: rows.cursor > 150)
        rows.cursor = 201
        await pilot.pause()
        assert sum("◀ yours" in line for line in drawn(rows)) == 1
        assert rows.selected.id == deep.id
        await pilot.press("slash", *"rain")
        await until(pilot, lambda: "rain" in rows.row(0).text)
        assert "◀ yours" in drawn(rows)[-1]


async def test_two_columns_where_there_is_room(lab) -> None:
    async with lab(size=(200, 50), configs=CUT) as (app, pilot):
        await ran(app, pilot)
        lanes_of(app)[0].query_one(TokenFlow).focus()
        await pilot.press("home")
        rows = app.query_one(CandidateList)
        height = rows.size.height
        assert rows.columns == 2
        assert not rows.show_vertical_scrollbar
        shown = drawn(rows)
        for y, line in enumerate(shown[:-1]):
            left, right = line[:99].split(), line[99:].split()
            assert (int(left[0]), int(right[0])) == (y + 1, height + y + 1)
        assert f"▸ {VOCABULARY - 2 * height + 1} more" in shown[-1]
        rows.focus()
        await pilot.press(*["down"] * height)
        assert rows.scroll_offset.y == 0
        assert rows.selected.rank == height + 1
        await pilot.press("end", "enter", "end")
        await pilot.pause()
        assert rows.selected.rank == VOCABULARY
        assert any(f"{VOCABULARY:>6} " in line for line in drawn(rows))
        await pilot.press("home")
        await pilot.pause()
        assert drawn(rows)[0].split()[0] == "1"


async def test_each_lane_has_its_entropies_on_one_scale_and_the_cursors_place(lab) -> None:
    async with lab(size=(200, 50)) as (app, pilot):
        await ran(app, pilot)
        lanes = lanes_of(app)
        lanes[0].query_one(TokenFlow).focus()
        await pilot.press("home", "right", "right")
        end = scale_of([step.entropy_bits for lane in lanes for step in lane.steps])
        for lane in lanes:
            line = lane.query_one(EntropyLine)
            assert line.region.height == 1
            values = [step.entropy_bits for step in lane.steps]
            segments = list(line.render_line(0))
            text = "".join(segment.text for segment in segments)
            assert text.startswith(f"entropy {levels(values, end, 1)} 0 to {end} bits")
            marked = [segment.text for segment in segments if segment.style.reverse]
            assert marked == ([levels(values, end, 1)[2]] if lane is lanes[0] else [])
        await pilot.click(lanes[1].query_one(EntropyLine), offset=(len("entropy ") + 5, 0))
        assert lanes[1].cursor == 5
        assert "lane B · step 6 " in str(app.query_one(Inspector).border_title)


@pytest.mark.parametrize("size", [(120, 36), (80, 24)])
async def test_smaller_screens_keep_the_row_for_text(lab, size: tuple[int, int]) -> None:
    async with lab(size=size) as (app, pilot):
        await ran(app, pilot)
        assert not any(lane.query_one(EntropyLine).region for lane in lanes_of(app))
        lanes_of(app)[0].query_one(TokenFlow).focus()
        await pilot.press("z")
        assert lanes_of(app)[0].query_one(EntropyLine).region.height == 1


def test_a_column_shows_the_highest_of_its_steps() -> None:
    assert levels([1.0, 7.9, None, None, 0.0, 8.0], 8, 2) == LEVELS[7] + "·" + LEVELS[7]
    assert levels([], 8, 1) == ""
    assert scale_of([None]) == scale_of([]) == 4
    assert scale_of([8.1, 2.0]) == 10


async def test_a_long_lane_has_all_its_entropies_in_one_row(lab, tiny_long) -> None:
    long = tuple(GenerationConfig(name=name, max_new_tokens=300, ignore_eos=True) for name in "ab")
    async with lab(model=str(tiny_long), size=(200, 50), configs=long) as (app, pilot):
        await ran(app, pilot)
        line = lanes_of(app)[0].query_one(EntropyLine)
        text = "".join(segment.text for segment in line.render_line(0))
        values = [step.entropy_bits for step in lanes_of(app)[0].steps]
        each = int(text.rstrip().rsplit(" ", 1)[1])
        room = line.size.width - len(f"entropy  0 to 10 bits, max of {each}")
        assert len(values) <= room * each
        assert len(values) > room * (each - 1)
        assert levels(values, scale_of(values), each) in text


# The row of settings.


def row(values: dict[str, float | None], chosen: str, width: int) -> str:
    fields = [Field(NAMES[name], values.get(name), ladder) for name, ladder in LADDERS.items()]
    return fields_line(fields, list(LADDERS).index(chosen), width, ground="#000000", changed="#ffffff").plain


PLAIN = {"temperature": 0.7, "repetition_penalty": 1.0, "alpha": 0.6}
WORST = PLAIN | {"top_k": 1000, "top_p": 0.95, "min_p": 0.005, "typical_p": 0.95, "repetition_penalty": 1.05}


@pytest.mark.parametrize("width", [198, 118, 78])
def test_all_fields_and_the_scale_of_the_chosen_one_have_room_at_every_size(width: int) -> None:
    line = row(PLAIN, "temperature", width)
    for name, ladder in LADDERS.items():
        value = value_text(PLAIN.get(name))
        assert f"{NAMES[name]} {value}" in " ".join(line.split())
        assert "●" in row(PLAIN, name, width)
        assert len(ladder) > 1
    assert cell_len(line) <= width


@given(
    st.sampled_from(list(LADDERS)),
    st.integers(24, 200),
    st.fixed_dictionaries({name: st.sampled_from(list(ladder)) for name, ladder in LADDERS.items()}),
)
def test_the_chosen_field_and_its_scale_are_never_cut(chosen: str, width: int, values: dict[str, float | None]) -> None:
    line = row(values, chosen, width)
    assert cell_len(line) <= width
    assert f"{NAMES[chosen]} {value_text(values[chosen])}" in " ".join(line.split())
    assert line.count("●") == 1


@given(st.sampled_from(list(LADDERS)), st.integers(2, 40))
def test_a_scale_grows_with_the_ladder(name: str, cells: int) -> None:
    ladder = LADDERS[name]
    places = [scale(step, ladder, cells).index("●") for step in ladder]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, cells - 1)
    assert [scale(step, ladder, len(ladder)).index("●") for step in ladder] == list(range(len(ladder)))


def test_a_value_between_two_rungs_stands_at_the_nearest() -> None:
    assert rung(0.72, LADDERS["temperature"]) == LADDERS["temperature"].index(0.7)
    assert rung(99, LADDERS["top_k"]) == LADDERS["top_k"].index(80)
    assert rung(None, LADDERS["min_p"]) == 0


async def test_turning_a_field_moves_its_scale_and_says_that_it_has_not_run(lab) -> None:
    async with lab(size=(80, 24), configs=CUT) as (app, pilot):
        await ran(app, pilot)
        await pilot.press("tab", "tab", "tab", "i")
        app.query_one(CandidateList).focus()
        await pilot.pause()

        def line(name: str) -> str:
            return str(app.query_one(f"#{name}", Static).render())

        before = line("knobs").index("●")
        await pilot.press("plus")
        assert line("knobs").index("●") == before + 1
        assert "not run: a uses it, 0 goes back" in line("stages")
        assert cell_len(line("stages")) <= 78  # all of it can be seen
        for stage in ("raw", "temperature", "top-k", "pick"):
            assert stage in line("stages")

        inspector = app.query_one(Inspector)
        await pilot.click("#stages", offset=(line("stages").index("top-k") + 3, 0))
        assert app.query_one(CandidateList).stage == "top_k"
        await pilot.click("#knobs", offset=(line("knobs").index("penalty") + len("penalty "), 0))
        assert list(LADDERS)[inspector.knob] == "repetition_penalty"
        await pilot.click("#knobs", offset=(line("knobs").index("●"), 0))  # not a field
        assert list(LADDERS)[inspector.knob] == "repetition_penalty"
