from pathlib import Path

import pytest

from engine.config import GenerationConfig
from engine.errors import ConfigError, ContextError, InputError
from engine.events import Stepped
from engine.loading import load_model
from engine.loop import generate
from engine.timing import (
    Row,
    Sweep,
    TimedRun,
    line_fit,
    parse_lengths,
    percentile,
    r_squared,
    rows,
    time_runs,
    without_cache,
)


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


def test_rows_are_medians_by_length() -> None:
    made = [TimedRun(length, seconds, 0.1, ()) for length, seconds in ((20, 3.0), (10, 1.0), (10, 2.0), (10, 9.0))]
    assert [(row.max_new_tokens, row.median) for row in rows(made)] == [(10, 2.0), (20, 3.0)]
    assert rows(made)[0].to_dict()["seconds"] == {"median": 2.0, "min": 1.0, "max": 9.0, "runs": [1.0, 2.0, 9.0]}
    assert Row(20, (made[0],)).tokens_per_second == pytest.approx(20 / 3)


def test_the_fitted_line_is_the_least_squares_one() -> None:
    assert line_fit([(10, 1.5), (20, 2.5), (40, 4.5)]) == pytest.approx((0.5, 0.1))
    assert line_fit([(10, 2.0)]) == (2.0, 0.0)


@pytest.mark.parametrize("text", ["abc", "10,x", "1.5"])
def test_lengths_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="lengths"):
        parse_lengths(text)


@pytest.mark.parametrize("change", [{"lengths": ()}, {"lengths": (0,)}, {"lengths": (10**9,)}, {"repeats": 0}])
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


def test_a_sweep_without_a_cache_times_every_token_and_can_be_cancelled(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    runs: list[TimedRun] = []
    sweep = Sweep("the sky", (2, 4), repeats=3, warmup=0, cache=False)
    for run in time_runs(model, sweep, lambda: len(runs) < 3):
        runs.append(run)
    assert [run.max_new_tokens for run in runs] == [2, 4, 2]
    assert all(len(run.token_seconds) == run.max_new_tokens for run in runs)


def test_a_straight_line_explains_everything_and_a_bent_one_less() -> None:
    assert r_squared([(1, 2.0), (2, 4.0), (3, 6.0)]) == pytest.approx(1)
    assert r_squared([(1, 1.0), (2, 4.0), (4, 16.0), (8, 64.0)]) < 0.97
    assert r_squared([(1, 2.0), (2, 2.0)]) == 1


@pytest.mark.parametrize(("part", "value"), [(50, 5), (95, 10), (100, 10), (1, 1)])
def test_percentiles_are_values_that_were_measured(part: int, value: float) -> None:
    assert percentile(list(range(1, 11)), part) == value


def test_rows_tell_first_token_and_latencies_apart() -> None:
    row = Row(3, (TimedRun(3, 1.0, 0.2, (0.1, 0.3, 0.4)), TimedRun(3, 1.2, 0.4, (0.1, 0.3, 0.4)))).latency()
    assert row["prefill_seconds"] == pytest.approx(0.3)
    assert row["time_to_first_token_seconds"] == pytest.approx(0.4)
    assert row["inter_token_seconds"] == {"median": pytest.approx(0.35), "p95": 0.4}
    assert Row(1, (TimedRun(1, 1.0, 0.0, (0.5,)),)).latency()["inter_token_seconds"] is None
