"""`lens`, `attention`, `attribute`, `occlude`: shapes of `--json`, what a terminal shows, tables, heat maps, errors."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from engine.base import plain
from engine.base.errors import LogitlabError
from engine.cli import app
from engine.export import inside as sheets
from engine.export.heat import Cell, Scale, between, fitted, flow_svg, grid_svg, ink
from engine.generation.branches import BranchTree
from engine.generation.config import GenerationConfig
from engine.generation.events import Start, Stepped
from engine.inside.attention import attention_map
from engine.inside.lens import lens
from engine.inside.record import record
from engine.loading import load_model
from engine.models.local import LocalModel
from engine.sessions import session
from tests.model_server import ModelServer, serve
from tests.tiny_models import save_model

PROMPT = "the sky above <b> & 語\n"
LAYERS, HEADS = 2, 4
COLOURS = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LocalModel:
    model = load_model(str(tiny_llama), precision="float32", threads=1)
    assert isinstance(model, LocalModel)
    return model


@pytest.fixture
def tiny(tiny_llama: Path) -> tuple[str, ...]:
    return ("--model", str(tiny_llama), "--precision", "float32")


@pytest.fixture(scope="module")
def eager(tiny_llama: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        tiny_llama, attn_implementation="eager", dtype=torch.float32, local_files_only=True
    )


def ids_of(model: LocalModel, text: str = PROMPT) -> list[int]:
    return [token.id for token in model.tokenizer.encode(text)]


@torch.no_grad()
def answer(eager: Any, ids: list[int]) -> Tensor:
    """Logits after a text, by transformers."""
    logits: Tensor = eager(torch.tensor([ids])).logits[0, -1]
    return logits


def parsed(process) -> dict[str, Any]:
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    data = json.loads(process.stdout)
    assert list(data)[:2] == ["model", "tokens"]
    assert data["model"]["precision"] == "float32"
    assert "".join(token["text"] for token in data["tokens"]) == PROMPT
    assert {tuple(token) for token in data["tokens"]} == {("id", "text")}
    return data


def refused(process, words: str, code: int = 2) -> None:
    assert process.returncode == code, process.stderr
    assert process.stdout == ""
    assert process.stderr.startswith("logitlab: ")
    assert process.stderr.count("\n") == 1
    assert words in process.stderr


def test_the_lens_has_the_published_shape_and_ends_in_the_models_answer(run_cli, tiny, model, eager) -> None:
    ids = ids_of(model)
    data = parsed(run_cli("lens", PROMPT, "--top", "3", "--track", " sky", "--track", "7", "--json", *tiny))
    assert list(data) == ["model", "tokens", "layers", "decided_at"]
    assert [row["layer"] for row in data["layers"]] == list(range(LAYERS + 1))
    assert len(data["decided_at"]) == len(data["tokens"]) == len(ids)
    sky = model.tokenizer.encode_continuation(" sky")
    for row in data["layers"]:
        assert [cell["position"] for cell in row["positions"]] == list(range(len(ids)))
        for cell in row["positions"]:
            assert list(cell) == ["position", "entropy_bits", "top", "tracked"]
            assert [set(one) for one in cell["top"]] == [{"id", "text", "probability"}] * 3
            assert [one["id"] for one in cell["tracked"]] == [*sky, 7]
            assert set(cell["tracked"][0]) == {"id", "probability", "rank"}
    final = answer(eager, ids).softmax(-1)
    last = data["layers"][-1]["positions"][-1]
    assert [one["id"] for one in last["top"]] == final.topk(3).indices.tolist()
    assert [one["probability"] for one in last["top"]] == pytest.approx(final.topk(3).values.tolist(), abs=1e-4)
    assert [one["probability"] for one in last["tracked"]] == pytest.approx(final[[*sky, 7]].tolist(), abs=1e-4)


def test_one_position_of_the_lens_alone(run_cli, tiny) -> None:
    every = parsed(run_cli("lens", PROMPT, "--json", *tiny))
    one = parsed(run_cli("lens", PROMPT, "--at", "-2", "--json", *tiny))
    assert one["decided_at"] == [every["decided_at"][-2]]
    for row, whole in zip(one["layers"], every["layers"], strict=True):
        (cell,) = row["positions"]
        expected = whole["positions"][-2]
        assert cell["position"] == expected["position"]
        assert [said["id"] for said in cell["top"]] == [said["id"] for said in expected["top"]]
        assert cell["entropy_bits"] == pytest.approx(expected["entropy_bits"], abs=1e-4)


def test_the_lens_in_a_terminal_has_the_last_row_at_the_top(run_cli, tiny, model) -> None:
    data = parsed(run_cli("lens", PROMPT, "--track", " sky", "--json", *tiny))
    process = run_cli("lens", PROMPT, "--track", " sky", *tiny)
    assert (process.returncode, process.stderr) == (0, "")
    assert "\x1b" not in process.stdout
    lines = process.stdout.splitlines()
    assert lines[0].startswith(f"position {len(data['tokens']) - 1}, after")
    assert "“·sky”" in lines[1]
    rows = lines[2 : 3 + LAYERS]
    assert [int(row.split()[0]) for row in rows] == [2, 1, 0]
    for row, layer in zip(rows, reversed(data["layers"]), strict=True):
        cell = layer["positions"][-1]
        assert row.split()[1] == cell["top"][0]["text"]
        assert f" {cell['tracked'][0]['rank']:,}. " in row
        assert f" {cell['entropy_bits']:.2f} " in row
        assert ("decided" in row) == (layer["layer"] == data["decided_at"][-1])
    assert "not what the model thinks" in process.stdout


def test_attention_is_one_number_a_position(run_cli, tiny, model, eager) -> None:
    ids = ids_of(model)
    with torch.no_grad():
        right = torch.stack(eager(torch.tensor([ids]), output_attentions=True).attentions)[:, 0]
    for options, layer, head, at, weights in (
        (("--layer", "1", "--head", "2"), 1, 2, len(ids) - 1, right[1, 2, -1]),
        (("--layer", "0", "--mean", "--at", "3"), 0, None, 3, right[0, :, 3].mean(0)),
        (("--mean", "--at", "-4"), None, None, len(ids) - 4, right[:, :, -4].mean((0, 1))),
        ((), None, None, len(ids) - 1, right[:, :, -1].mean((0, 1))),
    ):
        data = parsed(run_cli("attention", PROMPT, *options, "--json", *tiny))
        assert list(data) == ["model", "tokens", "layer", "head", "at", "weights"]
        assert (data["layer"], data["head"], data["at"]) == (layer, head, at)
        assert data["weights"] == pytest.approx(weights.tolist(), abs=1e-4)
    rolled = parsed(run_cli("attention", PROMPT, "--rollout", "--json", *tiny))
    assert sum(rolled["weights"]) == pytest.approx(1, abs=1e-4)
    assert (rolled["layer"], rolled["head"]) == (None, None)


def test_attention_in_a_terminal_colours_the_text_and_lists_the_highest_weights(run_cli, tiny, model) -> None:
    weights = parsed(run_cli("attention", PROMPT, "--json", *tiny))["weights"]
    process = run_cli("attention", PROMPT, *tiny)
    rows = [line.split() for line in process.stdout.splitlines()[2:] if re.match(r" *\d+ +\d", line)]
    listed = [int(row[0]) for row in rows]
    assert listed == sorted(range(len(weights)), key=lambda place: -weights[place])[: len(listed)]
    assert "not a cause" in process.stdout
    assert "\x1b" not in process.stdout
    coloured = run_cli("attention", PROMPT, *tiny, **COLOURS).stdout
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).count("sky") == 2  # in the text and in the table
    assert "\x1b" not in run_cli("attention", PROMPT, *tiny, **COLOURS, NO_COLOR="1").stdout
    without = run_cli("attention", PROMPT, "--leave-first", *tiny).stdout
    assert not re.search(r"^ *0 +\d", without, re.MULTILINE)


def test_a_share_for_each_part_that_add_up_to_the_difference(run_cli, tiny, model, eager) -> None:
    logits = answer(eager, ids_of(model))
    a, b = (model.tokenizer.encode_continuation(text)[0] for text in ("a", "b"))
    options = ("--token", "a", "--against", str(b), "--layer", "1")
    data = parsed(run_cli("attribute", PROMPT, *options, "--json", *tiny))
    assert list(data) == ["model", "tokens", "a", "b", "difference", "parts", "remainder"]
    assert [(data[one]["id"], list(data[one])) for one in "ab"] == [(a, ["id", "text", "logit"]), (b, list(data["b"]))]
    assert data["a"]["logit"] == pytest.approx(float(logits[a]), abs=1e-3)
    assert data["difference"] == pytest.approx(float(logits[a] - logits[b]), abs=1e-3)
    heads = [f"head 1.{head}" for head in range(HEADS)]
    assert [part["name"] for part in data["parts"]] == ["embedding", "attention 0", "mlp 0", *heads, "mlp 1"]
    assert sum(part["share"] for part in data["parts"]) == pytest.approx(data["difference"], abs=1e-3)
    assert abs(data["remainder"]) < 1e-3


@pytest.mark.parametrize("given", ["nothing", "token", "against the first", "against another"])
def test_without_two_tokens_it_is_the_most_probable_and_its_runner_up(run_cli, tiny, model, eager, given: str) -> None:
    first, second, third = answer(eager, ids_of(model)).topk(3).indices.tolist()
    options, expected = {
        "nothing": ((), (first, second)),
        "token": (("--token", str(third)), (third, first)),
        "against the first": (("--against", str(first)), (second, first)),
        "against another": (("--against", str(third)), (first, third)),
    }[given]
    data = parsed(run_cli("attribute", PROMPT, *options, "--json", *tiny))
    assert (data["a"]["id"], data["b"]["id"]) == expected


def test_attribution_in_a_terminal_has_signed_bars_the_largest_first(run_cli, tiny) -> None:
    parts = parsed(run_cli("attribute", PROMPT, "--json", *tiny))["parts"]
    text = run_cli("attribute", PROMPT, *tiny).stdout
    largest = sorted(parts, key=lambda part: -abs(part["share"]))
    rows = text.splitlines()[2 : 2 + len(parts)]
    for row, part in zip(rows, largest, strict=True):
        assert row.startswith(part["name"])
        left, right = row.split("│")
        assert set(right) <= set(plain.BLOCKS) if part["share"] > 0 else right == ""
        assert ("−" in left) == (part["share"] < 0)
    assert "remainder" in text
    assert "linear" in text


def test_each_token_left_out_is_a_text_without_it(run_cli, tiny, model, eager) -> None:
    ids = ids_of(model)
    data = parsed(run_cli("occlude", PROMPT, "--token", " sky", "--json", *tiny))
    assert list(data) == ["model", "tokens", "token", "log_probability", "without"]
    sky = model.tokenizer.encode_continuation(" sky")[0]
    assert data["token"]["id"] == sky
    whole = float(answer(eager, ids).log_softmax(-1)[sky])
    assert data["log_probability"] == pytest.approx(whole, abs=1e-4)
    assert [one["position"] for one in data["without"]] == list(range(len(ids)))
    for place, one in enumerate(data["without"]):
        expected = float(answer(eager, ids[:place] + ids[place + 1 :]).log_softmax(-1)[sky])
        assert one["log_probability"] == pytest.approx(expected, abs=1e-4)
        assert one["change"] == pytest.approx(expected - whole, abs=1e-4)
    picked = parsed(run_cli("occlude", PROMPT, "--json", *tiny))["token"]["id"]
    assert picked == int(answer(eager, ids).argmax())
    rows = run_cli("occlude", PROMPT, *tiny).stdout.splitlines()[2:]
    assert [int(row.split()[0]) for row in rows[: len(ids)]] == list(range(len(ids)))
    assert "\x1b[" in run_cli("occlude", PROMPT, *tiny, **COLOURS).stdout


FILED = {
    "lens": ("--track", "a"),
    "attention": ("--layer", "1", "--head", "0", "--by-value"),
    "attribute": ("--layer", "0"),
    "occlude": (),
}


@pytest.mark.parametrize("command", FILED)
def test_tables_and_heat_maps_hold_what_json_holds(run_cli, tiny, tmp_path: Path, command: str) -> None:
    files = ("--csv", str(tmp_path / "t.csv"), "--svg", str(tmp_path / "t.svg"))
    data = parsed(run_cli(command, PROMPT, *FILED[command], *files, "--json", *tiny))
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = ["".join(one.itertext()) for one in drawn((tmp_path / "t.svg").read_text(encoding="utf-8"))]
    assert "<b>" in "".join(texts) or command == "attribute"
    if command == "lens":
        cells = [(row["layer"], cell) for row in data["layers"] for cell in row["positions"]]
        assert [(int(row["layer"]), int(row["position"])) for row in rows] == [(at, c["position"]) for at, c in cells]
        assert [float(row["probability_2"]) for row in rows] == [cell["top"][1]["probability"] for _, cell in cells]
        assert [int(row["rank of a"]) for row in rows] == [cell["tracked"][0]["rank"] for _, cell in cells]
        decided = sum(row["layer"] == row["decided_at"] for row in rows)
        assert decided == len(data["decided_at"])
    elif command == "attention":
        assert [float(row["weight"]) for row in rows] == data["weights"]
    elif command == "attribute":
        assert [(row["part"], float(row["share"])) for row in rows] == [
            (part["name"], part["share"]) for part in data["parts"]
        ]
        assert {part["name"] for part in data["parts"]} <= set(texts)
    else:
        assert [float(row["change"]) for row in rows] == [one["change"] for one in data["without"]]


def drawn(svg: str) -> Iterator[ElementTree.Element]:
    """The texts of a picture, which must be within it."""
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for one in root.iter():
        if one.tag.endswith("}rect") and "%" not in one.attrib["width"]:
            assert 0 <= float(one.attrib["x"]) <= float(one.attrib["x"]) + float(one.attrib["width"]) <= width
            assert 0 <= float(one.attrib["y"]) <= float(one.attrib["y"]) + float(one.attrib["height"]) <= height
        if one.tag.endswith("}text"):
            length = float(one.attrib.get("textLength", 0))
            if "transform" not in one.attrib:
                shift = {"start": 0.0, "middle": length / 2, "end": length}[one.attrib["text-anchor"]]
                start = float(one.attrib["x"]) - shift
                assert 0 <= start <= start + length <= width
            yield one


def test_every_measure_of_a_heat_map_has_its_own_scale(model) -> None:
    tokens = model.tokenizer.encode(PROMPT)
    kept = record(model, [token.id for token in tokens])
    grid = lens(kept, top=1)
    maps = {one: sheets.lens_svg(grid, tokens, model.tokenizer, one) for one in ("probability", "entropy", "rank")}
    assert len({re.sub("<text.*", "", text) for text in maps.values()}) == 3
    heads = attention_map(kept, -1)
    sheet = sheets.heads_sheet(heads, 9)
    assert [row[:2] for row in sheet.rows] == [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    assert [row[2] for row in sheet.rows] == [look.first for looks in heads for look in looks]
    maps |= {f"heads {one}": sheets.heads_svg(heads, 9, one) for one in ("first", "previous", "entropy")}
    for text in maps.values():
        assert len(list(drawn(text))) > LAYERS
    best = max(cell.final.rank for row in grid.rows.values() for cell in row.cells)
    assert best > 10
    assert "100,000" in maps["rank"]  # where the scale ends, whatever ranks there are


def test_no_text_can_break_a_picture_or_leave_its_cell() -> None:
    evil = "\x1b[31m\x00\ud800\ufffe</text><script>&\u202e" + "語" * 40
    scale = Scale(evil, 1.0)
    assert list(drawn(flow_svg(evil, [Cell(0.5, evil), Cell(None, "")] * 30, scale, (evil,))))
    texts = list(drawn(grid_svg(evil, [evil] * 3, [("0", [Cell(0.1, evil)] * 3)], scale, (evil,), row_title="layer")))
    assert all("script" not in one.tag for one in texts)
    assert fitted("語語語", 4) == "語…"
    assert fitted("ab\n", 14) == "ab⏎"


def test_colours_part_and_letters_are_read_on_them() -> None:
    scale, both = Scale("", 2.0), Scale("", 2.0, diverging=True)
    assert scale.colour(0.0) == "#f7fbff"
    assert scale.colour(2.0) == scale.colour(5.0) == "#08306b"
    assert both.colour(0.0) == "#f7f7f7"
    assert (both.colour(-2.0), both.colour(2.0)) == ("#b35806", "#2166ac")
    assert scale.colour(None) == "#ffffff"
    assert between(("#000000", "#ffffff"), 0.5) == "#808080"
    assert (ink("#f7fbff"), ink("#08306b")) == ("#000000", "#ffffff")
    assert Scale("", 0.0).colour(0.0) == "#f7fbff"


def refusal(*arguments: str) -> str:
    """What a command says in its error, run in this process: how errors are printed is tested for all commands."""
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, LogitlabError), result.output
    assert result.output == ""
    return str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("attention", PROMPT, "--layer", "2"), "this model has layers 0 to 1"),
        (("attention", PROMPT, "--layer", "0", "--head", "4"), "heads 0 to 3"),
        (("attention", PROMPT, "--mean", "--head", "1"), "--mean is of all heads"),
        (("attention", PROMPT, "--at", "40"), "there is no position 40"),
        (("lens", PROMPT, "--at", "-99"), "there is no position -99"),
        (("lens", PROMPT, "--track", "99999"), "not one; give one token's text"),
        (("attribute", PROMPT, "--token", "sky above"), "not one; give one token's text"),
        (("attribute", PROMPT, "--layer", "-1"), "there is no layer -1"),
        (("occlude", "a" * 600), "the model's context holds 512"),
        (("lens", "a" * 600), "the model's context holds 512"),
        (("attention", ""), "type at least one character"),
    ],
)
def test_a_layer_a_head_a_position_or_a_token_that_is_not_there(tiny, arguments: tuple[str, ...], words: str) -> None:
    assert words in refusal(*arguments, *tiny)


def test_an_architecture_without_attention(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = save_model(tmp_path_factory.mktemp("inside") / "mamba", "mamba")
    for precision in ("float32", "bfloat16"):
        arguments = ("the sky above", "--model", str(folder), "--precision", precision)
        assert "has no attention" in refusal("attention", *arguments)


@pytest.fixture(params=["vllm", "llama.cpp", "openai"])
def server(request: pytest.FixtureRequest, model: LocalModel) -> Iterator[ModelServer]:
    pytest.importorskip("openai")
    with serve(model, request.param) as server:
        yield server


def test_in_front_of_a_server(run_cli, tiny, server: ModelServer) -> None:
    for command in ("lens", "attention", "attribute"):
        assert "leave --server out" in refusal(command, PROMPT, "--server", server.url)
    process = run_cli("occlude", PROMPT, "--token", " sky", "--json", "--server", server.url)
    if server.dialect != "vllm":
        refused(process, "do not score prompts")
        return
    assert process.returncode == 0, process.stderr
    served, local = json.loads(process.stdout), parsed(run_cli("occlude", PROMPT, "--token", " sky", "--json", *tiny))
    changes = [[one["change"] for one in data["without"]] for data in (served, local)]
    assert changes[0] == pytest.approx(changes[1], abs=1e-3)


def ran(model: LocalModel) -> session.Session:
    """A session whose lane A wrote three tokens, and whose lane B has not run."""
    config = GenerationConfig(max_new_tokens=3, ignore_eos=True)
    prompt = tuple(model.tokenizer.encode(PROMPT))
    events = model.generate([Start(prompt)], [config], candidates=1)
    steps = tuple(event for event in events if isinstance(event, Stepped))
    tree = BranchTree().begin(prompt, config)
    assert tree.shown is not None
    tree = tree.update(replace(tree.shown, steps=steps, reason="length"))
    lanes, prompts = session.from_trees((config, config), (tree, BranchTree()))
    made_by = session.SessionModel.of(model.facts)
    return session.Session(model=made_by, prompt=PROMPT, lanes=lanes, prompt_tokens=prompts)


def test_a_report_looks_inside_at_the_last_step(run_cli, model, tmp_path: Path) -> None:
    saved = ran(model)
    (tmp_path / "s.json").write_text(session.to_json(saved), encoding="utf-8")
    process = run_cli("report", str(tmp_path / "s.json"), "--inside", "--out", str(tmp_path / "r.md"))
    assert process.returncode == 0, process.stderr
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    for part in ("### Logit lens", "### What position", "### Why “", "lane-a-lens.svg", "lane-a-attribution.svg"):
        assert part in text
    for name in ("lens", "attention", "attribution"):
        assert list(drawn((tmp_path / f"r-lane-a-{name}.svg").read_text(encoding="utf-8")))
    assert "### Logit lens" in run_cli("report", str(tmp_path / "s.json"), "--inside").stdout
    assert "### Logit lens" not in run_cli("report", str(tmp_path / "s.json")).stdout
    assert saved.model is not None
    other = replace(saved, model=replace(saved.model, identity="other"))
    (tmp_path / "other.json").write_text(session.to_json(other), encoding="utf-8")
    refused(run_cli("report", str(tmp_path / "other.json"), "--inside"), "has other weights here")
    (tmp_path / "none.json").write_text(session.to_json(replace(saved, model=None)), encoding="utf-8")
    refused(run_cli("report", str(tmp_path / "none.json"), "--inside"), "no model to look inside")
