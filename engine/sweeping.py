"""Timing a loaded model at several lengths: one in this process in any precision, a served one as it is."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from engine.base.clock import now
from engine.base.language import _
from engine.models.model import Model
from engine.models.progress import Loading, Report
from engine.timing.measurement import Measurement
from engine.timing.sweep import Sweep, TimedRun

if TYPE_CHECKING:
    from engine.models.local import LocalModel


def sweep_model(
    model: Model,
    sweep: Sweep,
    *,
    precision: str | None,
    threads: int | None,
    how: Mapping[str, Any],
    report: Report,
    proceed: Callable[[], bool],
    cancelled: Callable[[], bool],
) -> Iterator[Measurement | TimedRun | Loading]:
    """A `Measurement` without runs, then its runs.

    Args:
        precision: loads the model once more, for the sweep alone, where it is not the present one.
        threads: for the sweep alone; `None` for those of today.
        how: options of `LoadOptions` that the model was loaded with.
        proceed: asked before each step; False ends the sweep.
    """
    if not model.capabilities.network:
        yield from _sweep_server(model, sweep, proceed)
        return
    import torch

    from engine.loading import load_local
    from engine.models.local import load_reference, reference_precision
    from engine.timing.runs import time_runs

    local, before = cast("LocalModel", model), torch.get_num_threads()
    try:
        if precision not in (None, local.facts.precision):
            again = {**how, "precision": precision, "threads": threads or before, "offline": True}
            local = load_local(local.facts.name, **again, report=report, cancelled=cancelled)
            local.network.prepare()
        torch.set_num_threads(threads or before)
        reference = None
        if "transformers" in sweep.runners:
            other = reference_precision(local.facts)
            words = _("the same weights in transformers' own module, {precision}", precision=other)
            yield Loading("read", 0, 0, words)
            reference = load_reference(
                local.facts.name, precision=other, device=local.facts.device, cache_dir=how.get("cache_dir")
            )
        yield Measurement(replace(local.facts, threads=threads or before), sweep, at=now())
        yield from time_runs(local, sweep, proceed, reference)
    finally:
        torch.set_num_threads(before)


def _sweep_server(model: Model, sweep: Sweep, proceed: Callable[[], bool]) -> Iterator[Measurement | TimedRun]:
    from engine.timing.served import time_server

    sweep = replace(sweep, runners=("server",))
    yield Measurement(model.facts, sweep, at=now())
    yield from time_server(model, sweep, proceed)
