"""The async façade: events, pause, step, cancel, errors."""

import weakref
from pathlib import Path

import pytest

from engine.base.errors import InputError, ModelNameError
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Failed, Finished, Start, Started, Stepped
from engine.job import Job
from engine.lab import Lab
from engine.models.progress import Loading, ModelLoaded, TokenizerLoaded
from engine.timing.sweep import Sweep, TimedRun

PROMPT = "the sky above"
LONG = GenerationConfig(max_new_tokens=400, ignore_eos=True)
SHORT = GenerationConfig(max_new_tokens=5, ignore_eos=True)


async def collect(job: "Job[Event]") -> list[Event]:
    return [event async for event in job]


async def until(job: "Job[Event]", count: int) -> list[Stepped]:
    """The first `count` steps; the job goes on."""
    steps: list[Stepped] = []
    async for event in job:
        if isinstance(event, Stepped):
            steps.append(event)
        if len(steps) >= count:
            break
    return steps


async def test_loading_tells_its_stages(tiny_llama: Path) -> None:
    lab = Lab(precision="float32")
    events = [event async for event in lab.load(str(tiny_llama))]
    stages = [event.stage for event in events if isinstance(event, Loading)]
    assert stages == sorted(stages, key=["fetch", "read", "check", "pack", "ready"].index)
    assert {"read", "pack", "ready"} <= set(stages)
    kinds = [type(event) for event in events]
    assert kinds.index(TokenizerLoaded) < kinds.index(ModelLoaded)
    assert lab.facts is not None
    assert lab.facts.architecture == "llama"
    await lab.close()


async def test_every_event_of_a_run_arrives_in_order(lab: Lab) -> None:
    events = await collect(lab.generate(PROMPT, [SHORT, SHORT]))
    assert isinstance(events[0], Started)
    assert [(e.lane, e.index) for e in events if isinstance(e, Stepped)] == [
        (lane, i) for i in range(5) for lane in (0, 1)
    ]
    assert sum(isinstance(event, Finished) for event in events) == 2


async def test_stepping_lets_one_token_of_every_lane_through(lab: Lab) -> None:
    job = lab.generate(PROMPT, [SHORT, SHORT], paused=True)
    seen = 0
    for expected in (2, 4, 6):
        job.step()
        seen += len(await until(job, 2))
        assert seen == expected
    assert job.paused
    job.resume()
    assert sum(isinstance(event, Stepped) for event in await collect(job)) == 4


async def test_a_paused_run_waits_and_goes_on(lab: Lab) -> None:
    job = lab.generate(PROMPT, [LONG])
    await until(job, 3)
    job.pause()
    assert not job.done
    job.resume()
    events = await collect(job)
    assert events[-1] == Finished(0, "length")


async def test_cancel_ends_a_run_and_a_paused_one(lab: Lab) -> None:
    for paused in (False, True):
        job = lab.generate(PROMPT, [LONG])
        await until(job, 2)
        if paused:
            job.pause()
        job.cancel()
        events = await collect(job)
        assert events[-1] == Finished(0, "cancelled")
        assert job.done


async def test_a_new_run_cancels_the_old_one(lab: Lab) -> None:
    old = lab.generate(PROMPT, [LONG])
    await until(old, 1)
    new = lab.generate(PROMPT, [SHORT])
    assert Finished(0, "cancelled") in await collect(old)
    assert Finished(0, "length") in await collect(new)


async def test_errors_of_the_worker_arrive_as_events(lab: Lab) -> None:
    events = await collect(lab.generate("", [SHORT]))
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, InputError)
    events = await collect(lab.load("no such model!"))  # type: ignore[arg-type]
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, ModelNameError)
    assert Finished(0, "length") in await collect(lab.generate(PROMPT, [SHORT]))


async def test_without_a_model_a_run_says_so() -> None:
    lab = Lab()
    events = await collect(lab.generate(PROMPT, [SHORT]))
    assert "no model is loaded" in str(events[0].error)  # type: ignore[union-attr]
    await lab.close()


async def test_a_sweep_streams_its_runs(lab: Lab) -> None:
    runs = [run async for run in lab.sweep(Sweep(PROMPT, (2, 4), repeats=2))]
    assert [run.max_new_tokens for run in runs if isinstance(run, TimedRun)] == [2, 4, 2, 4]


async def test_frames_gather_what_has_happened(lab: Lab) -> None:
    frames = [frame async for frame in lab.generate(PROMPT, [LONG]).frames(0.05)]
    assert sum(len(frame) for frame in frames) == 400 + 4
    assert len(frames) < 200


async def test_what_is_asked_is_answered_between_the_steps_of_a_run(lab: Lab) -> None:
    job = lab.generate(PROMPT, [LONG])
    steps = await until(job, 3)
    assert lab.tokenizer is not None
    context = lab.tokenizer.encode_ids(PROMPT)
    steps[0].logits.row = None  # type: ignore[union-attr]
    assert lab.inspect(steps[0], context, LONG) is None
    (inspection,) = await collect(lab.recall(steps[0], context, LONG))  # type: ignore[arg-type]
    assert not job.done
    assert inspection.at(0, 1)[0].id == steps[0].token.id  # type: ignore[union-attr]
    scores = await collect(lab.score(lab.tokenizer.encode(PROMPT)))  # type: ignore[arg-type]
    assert len(scores) == len(context)
    job.cancel()


async def test_what_is_asked_while_paused_is_answered_and_the_run_stays_paused(lab: Lab) -> None:
    job = lab.generate(PROMPT, [LONG], paused=True)
    job.step()
    (step,) = await until(job, 1)
    assert lab.tokenizer is not None
    assert len(await collect(lab.score(lab.tokenizer.encode(PROMPT)))) > 1  # type: ignore[arg-type]
    job.step()
    (second,) = await until(job, 1)
    assert (step.index, second.index) == (0, 1)
    assert job.paused
    job.cancel()


async def test_what_fails_when_asked_is_told_and_the_worker_goes_on(lab: Lab) -> None:
    (failed,) = await collect(lab.score([]))
    assert isinstance(failed, Failed)
    assert len(await collect(lab.generate(PROMPT, [SHORT]))) > 5


async def test_a_pace_can_be_set_and_taken_away_while_waiting(lab: Lab) -> None:
    job = lab.generate(PROMPT, [SHORT], paused=True)
    job.pace(0.001)  # a step in a quarter of an hour
    job.resume()
    await until(job, 1)
    job.pace(None)
    assert len([event async for event in job if isinstance(event, Stepped)]) == 4


async def test_a_paced_run_can_be_cancelled(lab: Lab) -> None:
    job = lab.generate(PROMPT, [SHORT], paused=True)
    job.pace(0.001)
    job.resume()
    await until(job, 1)
    job.cancel()
    assert any(isinstance(event, Finished) and event.reason == "cancelled" for event in await collect(job))


async def test_a_branch_reuses_what_the_run_left(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [event for event in await collect(lab.generate(PROMPT, [LONG])) if isinstance(event, Stepped)]
    assert lab.tokenizer is not None
    assert lab._model is not None
    network = lab._model.network
    positions: list[int] = []
    forward = network.forward

    def counting(ids, cache, **options):  # type: ignore[no-untyped-def]
        positions.append(ids.numel())
        return forward(ids, cache, **options)

    monkeypatch.setattr(network, "forward", counting)
    start = Start(tuple(lab.tokenizer.encode(PROMPT)), tuple(step.token.id for step in steps[:300]), (7,))
    await collect(lab.generate(start, [SHORT]))
    assert sum(positions) == 1 + 5


async def test_a_model_goes_when_another_takes_its_place(lab: Lab, tiny_gpt2: Path) -> None:
    """Loaded models are left out of garbage collection, so nothing may hold them in a circle."""
    assert lab._model is not None
    network = weakref.ref(lab._model.network)
    await collect(lab.generate(PROMPT, [SHORT]))
    await collect(lab.load(str(tiny_gpt2)))
    await collect(lab.generate(PROMPT, [SHORT]))
    assert network() is None
