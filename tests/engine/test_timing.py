import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.text import Text

from engine.base.errors import ConfigError, ContextError, InputError
from engine.generation.config import GenerationConfig
from engine.generation.events import Stepped
from engine.generation.loop import generate
from engine.loading import load_model
from engine.models.local import load_reference
from engine.models.model import ModelFacts
from engine.timing import charts
from engine.timing.measurement import (
    Measurement,
    Row,
    percentile,
    r_squared,
    read_measurement,
    token_latencies,
)
from engine.timing.runs import time_runs, without_cache
from engine.timing.sweep import RUNNERS, Sweep, TimedRun, parse_lengths, seconds_left
from engine.timing.tables import compared, measured_table, run_columns, words
from tests.tiny_models import save_model


def test_the_default_sweep_is_the_seeds() -> None:
    sweep = Sweep()
    assert (sweep.prompt, sweep.lengths) == ("Elixir notebooks are useful because", (10, 20, 40, 60))
    assert sweep.config(10).temperature == 0.9
    assert sweep.config(10).ignore_eos


def test_every_length_is_run_once_per_repeat_in_turn(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    runs = list(time_runs(model, Sweep("the sky", (3, 6), repeats=2)))
    assert [run.max_new_tokens for run in runs] == [3, 6, 3, 6]
    for run in runs:
        assert len(run.token_seconds) == run.max_new_tokens
        assert run.seconds >= run.prefill_seconds + sum(run.token_seconds) * 0.99


def test_cancelling_keeps_what_is_done(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    runs: list[TimedRun] = []
    for run in time_runs(model, Sweep("the sky", (2, 3), repeats=5), lambda: len(runs) < 3):
        runs.append(run)
    assert len(runs) == 3


def test_a_sweep_that_does_not_fit_is_refused_before_it_runs(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    with pytest.raises(ContextError):
        next(time_runs(model, Sweep("the sky", (10, 600))))


def measured(runs: Sequence[TimedRun], **sweep: object) -> Measurement:
    """What a sweep might have given."""
    facts = ModelFacts(
        *("tiny", "Tiny", "llama", 1000, "float32", "cpu", 512, 320, 48, 2, "own llama", "agrees", "a folder", "mit")
    )
    runners = tuple(dict.fromkeys(run.by for run in runs)) or ("logitlab",)
    lengths = tuple(sorted({run.max_new_tokens for run in runs})) or (1,)
    return Measurement(
        facts, Sweep("the sky", lengths, runners=runners, **sweep), tuple(runs), "2026-01-02T03:04:05+00:00"
    )


def test_rows_are_medians_by_length() -> None:
    made = [TimedRun(length, seconds, 0.1, ()) for length, seconds in ((20, 3.0), (10, 1.0), (10, 2.0), (10, 9.0))]
    rows = measured(made).rows()
    assert [(row.max_new_tokens, row.median) for row in rows] == [(10, 2.0), (20, 3.0)]
    assert rows[0].to_dict()["seconds"] == {"median": 2.0, "min": 1.0, "max": 9.0, "runs": [1.0, 2.0, 9.0]}
    assert Row("logitlab", 20, (made[0],)).tokens_per_second == pytest.approx(20 / 3)
    assert Row("logitlab", 20, (made[0],), lanes=4).tokens_per_second == pytest.approx(80 / 3)


def test_the_fitted_line_is_the_least_squares_one() -> None:
    fit = measured([TimedRun(length, seconds, 0.1, ()) for length, seconds in ((10, 1.5), (20, 2.5), (40, 4.5))]).fit()
    assert fit is not None
    assert (fit.first_seconds, fit.per_token_seconds, fit.r_squared) == pytest.approx((0.5, 0.1, 1.0))
    assert measured([TimedRun(10, 2.0, 0.1, ())]).fit() is None


@pytest.mark.parametrize("text", ["abc", "10,x", "1.5"])
def test_lengths_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="lengths"):
        parse_lengths(text)


@pytest.mark.parametrize(
    "change",
    [
        *({"lengths": ()}, {"lengths": (0,)}, {"lengths": (10**9,)}),
        *(
            {"repeats": 0},
            {"warmup": -1},
            {"lanes": ()},
            {"lanes": (1, 0)},
            {"lanes": (65,)},
            {"runners": ()},
            {"prompt": ""},
        ),
        {"lanes": (1, 2), "runners": ("without cache",)},
        {"lanes": (513,), "runners": ("server",)},
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Sweep(**change)  # type: ignore[arg-type]


def test_lengths_may_be_separated_by_commas_or_spaces() -> None:
    assert parse_lengths("10, 20 40,") == (10, 20, 40)


def test_without_a_cache_the_tokens_are_the_same(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    config = GenerationConfig(max_new_tokens=12, ignore_eos=True)
    events = generate(model.network, model.tokenizer, ["the sky above"], [config])
    expected = [event.token.id for event in events if isinstance(event, Stepped)]
    assert list(without_cache(model, model.tokenizer.encode_ids("the sky above"), 12)) == expected


def test_a_draft_is_timed_in_turn_and_its_time_per_token_is_over_the_whole_text(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    sweep = Sweep("rain", (24,), repeats=2, warmup=0, runners=("logitlab", "lookup"))
    runs = list(time_runs(model, sweep))
    assert [(run.by, run.in_groups) for run in runs] == [("logitlab", False), ("lookup", True)] * 2
    told = Measurement(model.facts, sweep, tuple(runs))
    plain, drafted = told.rows()
    each = drafted.seconds_per_token
    assert plain.inter_token_seconds is not None
    assert drafted.inter_token_seconds is None
    assert each is not None
    headers, cells = measured_table(told.rows())
    assert cells[1][headers.index("token ms")] == f"{each.median * 1e3:.1f}"
    assert all(row["prefill_seconds"] > 0 for row in run_columns(told))
    assert any("tokens came several at a time" in line for line in words(told))


def test_words_say_how_much_faster_a_draft_is() -> None:
    runs = [TimedRun(n, n / speed, 0.1, (), by) for n in (4, 8) for by, speed in (("logitlab", 10), ("lookup", 25))]
    assert words(measured(runs))[1].endswith("; 2.50 times as fast as without")


def test_a_model_that_takes_no_draft_is_not_timed_with_one(tmp_path: Path) -> None:
    model = load_model(str(save_model(tmp_path / "mamba", "mamba")), precision="float32")
    with pytest.raises(InputError, match="time it without a draft"):
        list(time_runs(model, Sweep("the sky", (2,), repeats=1, runners=("logitlab", "lookup"))))


def test_a_sweep_with_and_without_a_cache_runs_both_in_turn_and_can_be_cancelled(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    runs: list[TimedRun] = []
    sweep = Sweep("the sky", (2, 4), repeats=3, warmup=0, runners=("logitlab", "without cache"))
    for run in time_runs(model, sweep, lambda: len(runs) < 5):
        runs.append(run)
    assert [(run.by, run.max_new_tokens, run.lanes) for run in runs] == sweep.plan()[:5]
    assert all(len(run.token_seconds) == run.max_new_tokens for run in runs)


def test_lanes_write_as_many_tokens_each(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    sweep = Sweep("the sky", (3, 5), repeats=1, lanes=(4,))
    done = Measurement(model.facts, sweep, tuple(time_runs(model, sweep)))
    assert done.complete
    assert [row.tokens for row in done.rows()] == [12, 20]
    assert [len(run.token_seconds) for run in done.runs] == [3, 5]


def test_transformers_is_stopped_within_a_token(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    asked = 0

    def proceed() -> bool:
        nonlocal asked
        asked += 1
        return asked < 20

    sweep = Sweep("the sky", (400,), repeats=1, warmup=0, runners=("transformers",))
    assert list(time_runs(model, sweep, proceed, load_reference(str(tiny_llama)))) == []
    assert asked == 20


def test_a_measurement_reads_back_from_its_json(tmp_path: Path) -> None:
    made = measured([TimedRun(2, 0.5, 0.1, (0.2, 0.2)), TimedRun(2, 2.0, 0.0, (), "transformers")])
    (tmp_path / "m.json").write_text(json.dumps(made.to_dict()))
    assert read_measurement(tmp_path / "m.json") == made
    assert made.to_dict()["speedup"] == {"median": 4.0}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{}", "is no measurement"),
        (b"[" * 100_000, "nested too deeply|is no measurement"),
        (b"\x00\x01", "binary file"),
        (b"\xff", "not UTF-8"),
        (b"", "is no measurement"),
    ],
)
def test_a_file_that_is_no_measurement_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "m.json").write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_measurement(tmp_path / "m.json")


def test_what_is_left_is_told_from_what_is_done() -> None:
    sweep = Sweep("the sky", (10, 20), repeats=2)
    assert seconds_left(sweep, []) is None
    assert seconds_left(sweep, [TimedRun(10, 1.0, 0.1, ())]) == pytest.approx(2 + 1 + 2)
    assert seconds_left(sweep, [TimedRun(length, 1.0, 0.1, ()) for _, length, _ in sweep.plan()]) == 0
    bending = Sweep("the sky", (10, 20), repeats=1, runners=("without cache",))
    assert seconds_left(bending, [TimedRun(10, 1.0, 0.0, (), "without cache")]) == pytest.approx(4)


def test_measurements_are_compared_by_tokens_per_second() -> None:
    a, b = measured([TimedRun(10, 2.0, 0.1, ())]), measured([TimedRun(10, 1.0, 0.1, ())])
    assert [ratio for _, _, ratio in compared(a, b)] == [2.0]
    three = measured([TimedRun(10, 1.0, 0.1, (), lanes=3)], lanes=(3,))
    assert [ratio for _, _, ratio in compared(a, three)] == [6.0]
    served = measured([TimedRun(10, 1.0, 0.0, (), "server", lanes) for lanes in (1, 3)], lanes=(1, 3))
    assert [ratio for _, _, ratio in compared(a, served)] == [2.0], "one lane beside one lane"
    with pytest.raises(InputError, match="no length in common"):
        compared(a, measured([TimedRun(11, 1.0, 0.1, ())]))


def test_words_say_both_numbers_of_the_line_and_that_it_bends_without_a_cache() -> None:
    straight = [TimedRun(n, 0.5 + n * 0.01, 0.49, (0.01,) * n) for n in (20, 40)]
    growing = [(2 * i + 1) / 100 for i in range(40)]
    bending = [TimedRun(n, n * n / 100, 0.0, tuple(growing[:n]), "without cache") for n in (20, 40)]
    said = words(measured([*straight, *bending]))
    line = "seconds = 0.500 + 0.0100 × tokens (R² 1.0000): 500 ms to begin, then 10.0 ms a token"
    assert said[0] == f"{line} (R² along the longest runs 1.0000)"
    assert measured(bending).straightness("without cache") < 0.97
    assert "it bends upwards: 2 times the tokens took 4.0 times as long" in said[1]
    assert "logitlab is" in said[1]
    assert token_latencies(bending) == growing
    assert [row["tokens_per_second"] for row in run_columns(measured(straight))] == pytest.approx([20 / 0.7, 40 / 0.9])


@pytest.mark.parametrize("chart", list(charts.CHARTS))
def test_every_chart_draws_what_there_is(chart: str) -> None:
    runs = [
        TimedRun(n, 0.5 * n * (1 + repeat / 9), 0.1, (0.1,) * n if by != "transformers" else (), by)
        for repeat in range(2)
        for n in (4, 9)
        for by in RUNNERS
    ]
    served = [
        TimedRun(4, 1 + n / 9, 0.0, (0.3, 0.1 * n, 0.1, 0.1), "server", n, ((0.4, 0.1, 0.1, 0.1),) * (n - 1))
        for n in (1, 4)
    ]
    told = [measured([]), measured(served, lanes=(1, 4)), measured(runs), measured(runs[:1])]
    drawn = charts.as_text(chart, told, 90, 20)
    assert len(drawn.splitlines()) == 20
    assert any("⠀" < mark <= "⣿" or mark in "●█" for mark in drawn)
    assert "\u200b" not in drawn
    picture = charts.as_svg(drawn, "a <title>")
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert charts.as_text(chart, [], 40, 10)


def test_the_axes_of_charts_have_round_ticks() -> None:
    runs = [TimedRun(n, 0.0145 * n, 0.1, (0.0145,) * n) for n in (10, 20, 40)]
    drawn = Text.from_ansi(charts.as_text("length", [measured(runs)], 90, 24)).plain.splitlines()
    seconds = [line.split()[0] for line in drawn if "┤" in line]
    assert seconds == ["0.6", "0.5", "0.4", "0.3", "0.2", "0.1", "0.0"]
    tokens = next(line for line, before in zip(drawn[1:], drawn) if "┬" in before and "└" in before).split()
    assert tokens == ["0", "5", "10", "15", "20", "25", "30", "35", "40"]
    assert drawn[-1].strip() == "tokens"


def test_both_runners_of_a_length_have_a_bar_with_their_number() -> None:
    runs = [
        TimedRun(n, n / speed, 0.1, (), by) for n in (10, 20) for by, speed in (("logitlab", 40), ("transformers", 20))
    ]
    drawn = Text.from_ansi(charts.as_text("transformers", [measured(runs)], 90, 24)).plain.splitlines()
    assert [line.split()[0] + line.split()[-1] for line in drawn[1:5]] == [
        *("logitlab,40.0", "transformers,20.0", "logitlab,40.0", "transformers,20.0")
    ]
    assert [line.count("█") for line in drawn[1:3]] == [drawn[1].count("█"), drawn[1].count("█") // 2]


def test_a_straight_line_explains_everything_and_a_bent_one_less() -> None:
    assert r_squared([(1, 2.0), (2, 4.0), (3, 6.0)]) == pytest.approx(1)
    assert r_squared([(1, 1.0), (2, 4.0), (4, 16.0), (8, 64.0)]) < 0.97
    assert r_squared([(1, 2.0), (2, 2.0)]) == 1


@pytest.mark.parametrize(("part", "value"), [(50, 5), (95, 10), (100, 10), (1, 1)])
def test_percentiles_are_values_that_were_measured(part: int, value: float) -> None:
    assert percentile(list(range(1, 11)), part) == value


def test_rows_tell_first_token_and_latencies_apart() -> None:
    runs = (TimedRun(3, 1.0, 0.2, (0.1, 0.3, 0.4)), TimedRun(3, 1.2, 0.4, (0.1, 0.3, 0.4)))
    row = Row("logitlab", 3, runs).latency()
    assert row["prefill_seconds"] == pytest.approx(0.3)
    assert row["decode_seconds"] == pytest.approx(0.8)
    assert row["time_to_first_token_seconds"] == pytest.approx(0.4)
    assert row["inter_token_seconds"] == {"median": pytest.approx(0.35), "p95": 0.4, "p99": 0.4}
    assert Row("logitlab", 1, (TimedRun(1, 1.0, 0.0, (0.5,)),)).latency()["inter_token_seconds"] is None
    peer = Row("transformers", 3, (TimedRun(3, 1.0, 0.0, (), "transformers"),)).latency()
    assert (peer["prefill_seconds"], peer["time_to_first_token_seconds"]) == (None, None)


def test_each_text_of_a_server_has_its_own_first_token() -> None:
    run = TimedRun(2, 1.0, 0.0, (0.3, 0.1), "server", 3, ((0.5, 0.2), (0.4, 0.3)))
    row = Row("server", 2, (run,), 3)
    first, between = row.time_to_first_token, row.inter_token_seconds
    assert first is not None
    assert (first.median, first.p99) == (0.4, 0.5)
    assert between is not None
    assert (between.median, between.p99) == (0.2, 0.3)
    assert row.tokens_per_second == 6
    told = measured([TimedRun(2, 1.0, 0.0, (0.4, 0.1), "server"), run], lanes=(1, 3))
    assert [one.lanes for one in told.by_lanes()] == [1, 3]
    assert words(told) == [
        "3 at once: 6 tokens/s, 3.0 times as many as 1; each of them gets a token every 200 ms instead of every 100 ms"
    ]


def test_a_measurement_of_one_number_of_lanes_reads_as_it_was_written(tmp_path: Path) -> None:
    """Until several numbers could be timed in one measurement, `lanes` was one number, and of the sweep alone."""
    expected = measured([TimedRun(4, 1.0, 0.1, (0.1,) * 4, lanes=3)], lanes=(3,))
    told = expected.to_dict()
    told["sweep"]["lanes"] = 3
    del told["runs"][0]["lanes"], told["runs"][0]["others"]
    file = tmp_path / "old.json"
    file.write_text(json.dumps(told))
    assert read_measurement(file) == expected
