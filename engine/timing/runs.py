"""The runs of a sweep on a model in this process."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.base.errors import InputError
from engine.base.language import _
from engine.generation.config import LOOKUP
from engine.generation.events import Noted, Prefilled, Stepped
from engine.timing.sweep import Runner, Sweep, TimedRun, carry_out

if TYPE_CHECKING:
    from engine.models.local import LocalModel
    from engine.networks.transformers import TransformersNetwork


def time_runs(
    model: "LocalModel",
    sweep: Sweep,
    proceed: Callable[[], bool] = lambda: True,
    reference: "TransformersNetwork | None" = None,
) -> Iterator[TimedRun]:
    """Run a sweep: its warm-up, which is not counted, then every length once per repeat and runner.

    Stops early, keeping what is done, when `proceed` returns False.

    Args:
        reference: the same weights for the runner `transformers`.
    """
    from engine.generation.context import check_context

    tokens = len(model.tokenizer.encode_ids(sweep.prompt))
    for length in sweep.lengths:
        check_context(tokens, sweep.config(length), model.facts.context_length)

    def timed(by: Runner, length: int, lanes: int) -> TimedRun | None:
        match by:
            case "logitlab" | "lookup":
                return _time_own(model, sweep, length, lanes, proceed, by)
            case "without cache":
                return _time_without_cache(model, sweep, length, proceed)
            case "transformers" if reference is not None:
                return _time_reference(model, reference, sweep, length, lanes, proceed)
            case "transformers":
                raise InputError(_("transformers' module is not loaded; ask for it before the sweep"))
        raise InputError(_("a server's runs are timed by the server's model; connect to it"))

    yield from carry_out(sweep, timed)


def _time_own(
    model: "LocalModel", sweep: Sweep, max_new_tokens: int, lanes: int, proceed: Callable[[], bool], by: Runner
) -> TimedRun | None:
    """One run of all lanes, for the runner `lookup` with that draft; `None` when it was cancelled.

    Raises:
        InputError: the model takes no draft.
    """
    from engine.generation.loop import generate

    prefill = 0.0
    token_seconds = []
    in_groups = False
    config = sweep.config(max_new_tokens)
    configs = [replace(config, draft=LOOKUP) if by == "lookup" else config] * lanes
    began = time.perf_counter()
    for event in generate(model.network, model.tokenizer, [sweep.prompt], configs, candidates=1, proceed=proceed):
        if isinstance(event, Prefilled):
            prefill = event.seconds
        elif isinstance(event, Noted) and by == "lookup":
            raise InputError(
                _(
                    "{model} cannot take tokens back without reading the whole text again; time it without a draft",
                    model=model.facts.title,
                )
            )
        elif isinstance(event, Stepped) and event.lane == 0:
            token_seconds.append(event.seconds)
            in_groups |= event.draft is not None and not event.draft.forward
    seconds = time.perf_counter() - began
    if len(token_seconds) < max_new_tokens:
        return None
    return TimedRun(max_new_tokens, seconds, prefill, tuple(token_seconds), by, lanes, in_groups=in_groups)


def _time_without_cache(
    model: "LocalModel", sweep: Sweep, max_new_tokens: int, proceed: Callable[[], bool]
) -> TimedRun | None:
    token_seconds = []
    began = last = time.perf_counter()
    for _token in without_cache(model, model.tokenizer.encode_ids(sweep.prompt), max_new_tokens, proceed):
        now = time.perf_counter()
        token_seconds.append(now - last)
        last = now
    if len(token_seconds) < max_new_tokens:
        return None
    return TimedRun(max_new_tokens, last - began, 0.0, tuple(token_seconds), "without cache")


def without_cache(
    model: "LocalModel", ids: Sequence[int], count: int, proceed: Callable[[], bool] = lambda: True
) -> Iterator[int]:
    """Greedy continuation that remembers nothing: every step sends the whole text through the network again."""
    from engine.generation.loop import logits_after

    text = list(ids)
    for _token in range(count):
        if not proceed():
            return
        text.append(int(logits_after(model.network, text).argmax()))
        yield text[-1]


def _time_reference(
    model: "LocalModel",
    reference: "TransformersNetwork",
    sweep: Sweep,
    max_new_tokens: int,
    lanes: int,
    proceed: Callable[[], bool],
) -> TimedRun | None:
    """The same run through transformers' own `generate`, greedy, from the prompt's text to the last token."""
    import torch
    from transformers import StoppingCriteriaList

    went_on = True

    def stop(ids: torch.Tensor, scores: torch.Tensor, **others: object) -> torch.Tensor:
        nonlocal went_on
        went_on = proceed()
        return torch.full((ids.shape[0],), not went_on)

    began = time.perf_counter()
    ids = torch.tensor([model.tokenizer.encode_ids(sweep.prompt)] * lanes, device=reference.device)
    written = reference.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        min_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([stop]),
    )
    written.cpu()  # a GPU is waited for
    seconds = time.perf_counter() - began
    return TimedRun(max_new_tokens, seconds, 0.0, (), "transformers", lanes) if went_on else None
