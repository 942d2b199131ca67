"""Classifier-free guidance, against transformers' own processor in its `generate`."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.base.errors import ContextError, InputError
from engine.generation.config import GenerationConfig
from engine.generation.events import Start, Stepped
from engine.generation.guidance import others_after
from engine.generation.inspection import Inspection
from engine.generation.loop import generate
from engine.generation.memory import KeptLogits, LogitsMemory
from engine.generation.stages.guidance import guided
from engine.models.capabilities import Capabilities
from engine.models.local import LocalModel
from tests.engine.inside_families import TEXT, Folders, Models, ids_of

pytestmark = pytest.mark.usefixtures("one_thread")

NEGATIVE = "rain asked the robot, and the robot"
STEPS = 6


@cache
def reference(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)


def config(scale: float, negative: str | None = NEGATIVE, **changes: Any) -> GenerationConfig:
    settings: dict[str, Any] = {"max_new_tokens": STEPS, "ignore_eos": True}
    return GenerationConfig(guidance_scale=scale, negative_prompt=negative, **(settings | changes))


def ran(
    model: LocalModel, configs: Sequence[GenerationConfig], starts: Sequence[Start] | None = None
) -> tuple[list[list[Stepped]], list[list[KeptLogits]]]:
    """Of each lane its steps, and the logits that they come from."""
    begun = starts or [Start(tuple(model.tokenizer.encode(TEXT)))]
    steps: list[list[Stepped]] = [[] for _config in configs]
    for event in generate(model.network, model.tokenizer, begun, configs, keep_logits=KeptLogits):
        if isinstance(event, Stepped):
            steps[event.lane].append(event)
    kept = [[step.logits for step in lane if step.logits is not None] for lane in steps]
    return steps, kept


def pushed(kept: KeptLogits, scale: float) -> Tensor:
    assert kept.row is not None
    assert kept.others is not None
    return guided(kept.row, kept.others, scale)


@pytest.mark.parametrize("negative", [NEGATIVE, None])
@pytest.mark.parametrize("scale", [1.5, 4.0, 0.5])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "gpt-neox"])
def test_tokens_and_scores_are_those_of_transformers(
    name: str, scale: float, negative: str | None, model_of: Models, folder_of: Folders
) -> None:
    model, module = model_of(name), reference(folder_of(name))
    (steps,), (kept,) = ran(model, [config(scale, negative)])
    ids = torch.tensor([ids_of(model)])
    others = None if negative is None else torch.tensor([ids_of(model, negative)])
    right = module.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=STEPS,
        min_new_tokens=None,
        eos_token_id=None,
        pad_token_id=0,
        guidance_scale=scale,
        negative_prompt_ids=others,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert [step.token.id for step in steps] == right.sequences[0, ids.shape[1] :].tolist()
    for one, scores in zip(kept, right.scores, strict=True):
        torch.testing.assert_close(pushed(one, scale), scores[0], atol=1e-4, rtol=1e-4)
    probabilities = right.scores[0][0].softmax(0)
    for candidate in steps[0].candidates:
        assert candidate.guided_probability == pytest.approx(float(probabilities[candidate.id]), abs=1e-5)
        assert candidate.raw_probability == pytest.approx(
            float(kept[0].row.softmax(0)[candidate.id]),  # type: ignore[union-attr]
            abs=1e-6,
        )


@pytest.mark.parametrize("name", ["llama", "gpt-neox"])
def test_guided_lanes_beside_others_are_what_they_are_alone(name: str, model_of: Models) -> None:
    """Two negative prompts of different lengths in one batch, a lane that is not guided, and candidates beside them."""
    model = model_of(name)
    configs = [
        config(2.0),
        config(1.0),
        config(3.0, "library"),
        config(2.0, strategy="contrastive", top_k=3),
        config(2.0, interventions=("head 1.1 mean", "mlp 2 off")),
        config(1.5, strategy="sample", seed=4, temperature=0.9, repetition_penalty=1.2),
    ]
    together, kept = ran(model, configs)
    for lane, settings in enumerate(configs):
        (alone,), (own,) = ran(model, [settings])
        assert [step.token.id for step in together[lane]] == [step.token.id for step in alone]
        for one, right in zip(kept[lane], own, strict=True):
            torch.testing.assert_close(one.row, right.row, atol=1e-4, rtol=1e-4)
            if right.others is not None:
                torch.testing.assert_close(one.others, right.others, atol=1e-4, rtol=1e-4)
    assert {one.others is None for one in kept[1]} == {True}


def test_a_branch_and_logits_computed_again_go_on_with_the_other_text(model_of: Models) -> None:
    model, settings = model_of("llama"), config(3.0)
    prompt = tuple(model.tokenizer.encode(TEXT))
    (steps,), (kept,) = ran(model, [settings])
    ids = [step.token.id for step in steps]
    (rest,), (own,) = ran(model, [settings], [Start(prompt, written=tuple(ids[:3]))])
    assert [step.token.id for step in rest][: STEPS - 3] == ids[3:]
    torch.testing.assert_close(own[0].others, kept[3].others, atol=1e-4, rtol=1e-4)
    again = others_after(model.network, model.tokenizer, settings, [token.id for token in prompt], ids[:4])
    torch.testing.assert_close(again, kept[4].others, atol=1e-4, rtol=1e-4)
    assert others_after(model.network, model.tokenizer, config(1.0), [1], []) is None


def test_the_inspector_shows_guidance_as_a_stage(model_of: Models) -> None:
    model, settings = model_of("llama"), config(3.0, banned=(5,))
    context = ids_of(model)
    (steps,), (kept,) = ran(model, [settings])
    row, others = kept[0].row, kept[0].others
    assert row is not None
    inspection = Inspection(row, model.tokenizer, context, settings, steps[0], others, NEGATIVE)
    assert inspection.stages == ("raw", "guidance", "bias", "pick")
    right = pushed(kept[0], 3.0).softmax(0)
    for candidate in inspection.at(0, 10):
        assert candidate.after("guidance") == pytest.approx(float(right[candidate.id]), abs=1e-6)
    assert inspection.mass(0, "guidance") == pytest.approx(1, abs=1e-5)
    weaker = inspection.under(config(1.5, banned=(5,)))
    assert weaker.of([7])[0].after("guidance") == pytest.approx(float(pushed(kept[0], 1.5).softmax(0)[7]), abs=1e-6)
    plain = inspection.under(config(1.0))
    assert plain.stages == ("raw", "pick")
    assert plain.of([7])[0].after("penalty") == pytest.approx(float(row.softmax(0)[7]), abs=1e-6)
    for unknown in (config(2.0, "another"), config(2.0, None)):
        with pytest.raises(InputError, match="run the lane with it"):
            inspection.under(unknown)
    with pytest.raises(InputError, match="run the lane with it"):
        Inspection(row, model.tokenizer, context, config(1.0)).under(settings)


def test_what_the_memory_of_logits_holds_counts_the_other_text_too() -> None:
    memory = LogitsMemory(limit=90)
    first = memory.keep(torch.zeros(10), torch.zeros(10))
    assert memory.bytes == 80
    memory.keep(torch.zeros(10))
    assert (first.row, first.others, memory.bytes) == (None, None, 40)


def test_what_cannot_be_guided_is_said_in_one_sentence(model_of: Models) -> None:
    model = model_of("llama")
    for wrong in ({"guidance_scale": -1.0}, {"guidance_scale": 101.0}, {"negative_prompt": ""}, {"negative_prompt": 3}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            GenerationConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ContextError, match="the negative prompt's"):
        ran(model, [config(2.0, "rain " * 3000)])
    with pytest.raises(InputError, match="no server does; run locally"):
        Capabilities("vLLM").check(config(2.0))


def test_next_shows_the_stage(run_cli: Callable[..., Any], folder_of: Folders) -> None:
    model = ("--model", str(folder_of("llama")), "--precision", "float32")
    options = ("--guidance-scale", "3", "--negative-prompt", "rain", *model)
    shown = run_cli("next", "the sky", *options)
    assert shown.returncode == 0, shown.stderr
    assert "guidance" in shown.stdout.splitlines()[0]
    data = json.loads(run_cli("next", "the sky", *options, "--json").stdout)
    written = json.loads(run_cli("generate", "the sky", "--max-new-tokens", "1", "--json", *options).stdout)
    best = max(data["candidates"], key=lambda one: one["guided_probability"])
    assert best["id"] == written["lanes"][0]["tokens"][0]["id"]
    assert "guidance" not in run_cli("next", "the sky", *model).stdout.splitlines()[0]
