"""The patching map and directions that steer, against hooks and hidden states of transformers' module."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.base.errors import Cancelled, InputError
from engine.inside.patching import Answers, Patching, PatchMap, patch_map, patching
from engine.inside.steering import directions
from engine.models.local import LocalModel
from engine.networks.control_vector import read_directions
from tests.engine.inside_families import Folders, Models, ids_of
from tests.engine.test_inside_parts import NAMES

pytestmark = pytest.mark.usefixtures("one_thread")

CLEAN = "the sky above the city looked calm"
CORRUPT = "the rain above the robot looked calm"
FAMILIES = ("llama", "gpt2", "gemma3", "gpt-neox")
Run = Callable[..., CompletedProcess[str]]


@cache
def reference(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)


def texts_of(model: LocalModel) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two prompts of as many tokens, whatever the words are cut into."""
    clean, corrupt = ids_of(model, CLEAN), ids_of(model, CORRUPT)
    count = min(len(clean), len(corrupt))
    return clean[-count:], corrupt[-count:]


def mapped(model: LocalModel, a: int | None, b: int | None) -> PatchMap:
    columns: list[Patching] = []
    answers: Answers | None = None
    for event in patching(model, *texts_of(model), a, b):  # type: ignore[misc]
        if isinstance(event, Answers):
            answers = event
        else:
            columns.append(event)
    assert answers is not None
    return patch_map(answers, columns)


def hooked(module: Any, name: str, ids: Sequence[int], change: Callable[[int, Tensor], Tensor]) -> Tensor:
    """The logits after a text, with every row of the stream going through a function."""
    blocks = attrgetter(NAMES[name].blocks)(module)

    def before(block: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (change(0, args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": change(0, kwargs["hidden_states"])}

    def after(row: int) -> Any:
        def hook(block: Any, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (change(row, output[0]), *output[1:])
            return change(row, output)

        return hook

    handles = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_hook(after(row)) for row, block in enumerate(blocks, start=1)]
    with torch.inference_mode():
        logits = module(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1]
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("name", FAMILIES)
def test_every_cell_is_what_hooks_give(name: str, model_of: Models, folder_of: Folders) -> None:
    model, module = model_of(name), reference(folder_of(name))
    clean, corrupt = texts_of(model)
    stream: dict[int, Tensor] = {}

    def keep(row: int, x: Tensor) -> Tensor:
        stream[row] = x.clone()
        return x

    at_clean = hooked(module, name, clean, keep)
    at_corrupt = hooked(module, name, corrupt, lambda row, x: x)
    change = at_clean - at_corrupt
    a, b = int(change.argmax()), int(change.argmin())  # between which the prompts decide most unlike
    found = mapped(model, a, b)
    least, most = float(at_corrupt[a] - at_corrupt[b]), float(at_clean[a] - at_clean[b])
    assert (found.clean, found.corrupt) == (pytest.approx(most, abs=1e-4), pytest.approx(least, abs=1e-4))
    assert len(found.rows) == len(stream)
    for row, effects in found.rows:
        for position, effect in enumerate(effects):

            def patch(at: int, x: Tensor, row: int = row, position: int = position) -> Tensor:
                if at == row:
                    x = x.clone()
                    x[:, position] = stream[row][:, position]
                return x

            logits = hooked(module, name, corrupt, patch)
            right = (float(logits[a] - logits[b]) - least) / (most - least)
            assert effect == pytest.approx(right, abs=1e-4 / min(1.0, abs(most - least)))
    last = found.rows[-1][1]
    assert last[-1] == pytest.approx(1, abs=1e-4)
    assert all(effect == pytest.approx(0, abs=1e-4) for effect in last[:-1])


def test_without_tokens_they_are_the_answers_of_both_prompts(model_of: Models, folder_of: Folders) -> None:
    model, module = model_of("llama"), reference(folder_of("llama"))
    answers = []
    for ids in texts_of(model):
        with torch.inference_mode():
            answers.append(int(module(torch.tensor([ids])).logits[0, -1].argmax()))
    assert answers[0] != answers[1]
    found = mapped(model, None, None)
    assert [found.a, found.b] == answers


def test_what_cannot_be_mapped_is_said_in_one_sentence(model_of: Models) -> None:
    model = model_of("llama")
    clean, corrupt = texts_of(model)
    count = len(clean)
    for one, other, sentence in (
        (clean[1:], corrupt, f"tokens: {count - 1} in the clean prompt, {count} in the corrupt one; patching wants as"),
        (clean, clean, "the two prompts are the same"),
        ((), (), "the text is empty"),
        (clean * 100, corrupt * 100, "are too long to patch; at most 512"),
    ):
        with pytest.raises(InputError, match=sentence):
            list(patching(model, one, other))
    with pytest.raises(InputError, match="there is no token 999,999"):
        list(patching(model, clean, corrupt, 999_999, 1))
    with pytest.raises(InputError, match="answered by the same token"):
        list(patching(model, clean, corrupt, 5, 5))


def test_a_map_ends_where_it_is_cancelled(model_of: Models) -> None:
    model = model_of("llama")
    seen: list[Any] = []

    def collect() -> None:
        for event in patching(model, *texts_of(model), cancelled=lambda: len(seen) > 2):
            seen.append(event)

    with pytest.raises(Cancelled):
        collect()
    assert [type(one) for one in seen] == [Answers, Patching, Patching]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_direction_is_the_difference_of_the_means(name: str, model_of: Models, folder_of: Folders) -> None:
    model, module = model_of(name), reference(folder_of(name))
    toward = [ids_of(model, text) for text in ("the sky", "the robot asked the city", "calm")]
    away = [ids_of(model, text) for text in ("rain and library", "but the city")]
    means = []
    for texts in (toward, away):
        with torch.inference_mode():
            states = [module(torch.tensor([ids]), output_hidden_states=True).hidden_states for ids in texts]
        means.append([torch.stack([one[row][0, -1] for one in states]).mean(0) for row in range(4)])
    found = directions(model, toward, away, [3, 0, 2])
    assert [one.row for one in found] == [3, 0, 2]
    for one in found:
        torch.testing.assert_close(one.vector, means[0][one.row] - means[1][one.row], atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="there is no layer 5: this model has layers 0 to 4"):
        directions(model, toward, away, [5])
    with pytest.raises(InputError, match="both files need prompts"):
        directions(model, toward, [], [2])


# On the command line.


def test_patch_prints_writes_and_draws(run_cli: Run, folder_of: Folders, tmp_path: Path) -> None:
    table, picture = tmp_path / "map.csv", tmp_path / "map.svg"
    files = ("--csv", str(table), "--svg", str(picture))
    texts = ("the sky above", "the city above")
    done = run_cli("patch", *texts, "--model", str(folder_of("llama")), "--precision", "float32", *files, "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert {"model", "clean", "corrupt", "a", "b", "difference", "effects"} <= set(data)
    assert [row["layer"] for row in data["effects"]] == [0, 1, 2, 3, 4]
    assert data["effects"][-1]["positions"][-1] == pytest.approx(1, abs=1e-4)
    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))
    assert len(rows) == 5 * len(data["clean"]["tokens"])
    assert float(rows[-1]["effect"]) == data["effects"][-1]["positions"][-1]
    assert ElementTree.fromstring(picture.read_text(encoding="utf-8")).tag.endswith("svg")
    plain = run_cli("patch", *texts, "--model", str(folder_of("llama")), "--precision", "float32")
    assert plain.returncode == 0, plain.stderr
    assert "1.00" in plain.stdout
    unequal = run_cli("patch", "the sky", "the city above", "--model", str(folder_of("llama")))
    assert unequal.returncode == 2
    assert unequal.stderr.count("\n") == 1
    assert "patching wants as many in both" in unequal.stderr


def test_a_direction_is_made_and_steers(run_cli: Run, folder_of: Folders, tmp_path: Path) -> None:
    toward, away, out = tmp_path / "toward.txt", tmp_path / "away.txt", tmp_path / "direction.gguf"
    toward.write_text("the sky\n\nthe robot asked\n", encoding="utf-8")
    away.write_text("rain and library\n", encoding="utf-8")
    model = ("--model", str(folder_of("llama")), "--precision", "float32")
    options = ("--toward", str(toward), "--away", str(away), "--out", str(out), *model)
    made = run_cli("steer", "make", "--layer", "2", "--layer", "3", *options, "--json")
    assert made.returncode == 0, made.stderr
    data = json.loads(made.stdout)
    assert data["prompts"] == {"toward": 2, "away": 1}
    found = read_directions(out)
    assert {one["layer"]: one["length"] for one in data["directions"]} == pytest.approx(
        {row: float(vector.norm()) for row, vector in found.items()}
    )
    length = ("--max-new-tokens", "6", "--ignore-eos", "--json")
    steered = run_cli("generate", "the sky", "--intervene", f"steer 2 by {out} × 40", *length, *model)
    assert steered.returncode == 0, steered.stderr
    plain = run_cli("generate", "the sky", *length, *model)
    texts = [[token["id"] for token in json.loads(one.stdout)["lanes"][0]["tokens"]] for one in (steered, plain)]
    assert texts[0][0] == texts[1][0]  # steering acts from the first generated token's position on
    assert texts[0] != texts[1]
    for layer, said in (("1", "allowed: from 2 to 4"), ("5", "allowed: from 2 to 4")):
        refused = run_cli("steer", "make", "--layer", layer, *options)
        assert (refused.returncode, said in refused.stderr, refused.stderr.count("\n")) == (2, True, 1)
    away.write_text("\n", encoding="utf-8")
    empty = run_cli("steer", "make", "--layer", "2", *options)
    assert (empty.returncode, "holds no prompts; write one a line" in empty.stderr) == (2, True)


def test_next_is_under_interventions_too(run_cli: Run, folder_of: Folders) -> None:
    """Also the probability of a given continuation."""
    model = ("--model", str(folder_of("llama")), "--precision", "float32", "--json")
    plain, done = (
        json.loads(run_cli("next", "the sky", "--token", " rain", "--top", "400", *more, *model).stdout)
        for more in ((), ("--intervene", "mlp 1 off"))
    )
    for data in (plain, done):
        likely = data["tokens"][0]["tokens"][0]
        same = next(one for one in data["candidates"] if one["id"] == likely["id"])
        assert likely["probability"] == pytest.approx(same["raw_probability"], abs=1e-5)
    assert plain["tokens"][0]["probability"] != pytest.approx(done["tokens"][0]["probability"], rel=1e-3)
