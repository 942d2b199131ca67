"""`diff` on the command line: keys of `--json`, tables, texts from anywhere, models that cannot be compared."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import InputError, OutOfMemoryError
from engine.inside.difference import Reader, difference, windows_of
from engine.loading import load_local
from engine.models.local import LoadOptions, needed_bytes
from engine.models.pair import check_both_fit, name_and_precision
from engine.text.tokenizer import Tokenizer
from engine.text.vocabularies import first_other_token
from tests.conftest import byte_level_tokenizer, save_tiny

TEXT = "the sky above the city – 語 🌍, and rain"
EXACT = ("--precision", "float32", "--threads", "1")
KEYS = [
    *("models", "window", "stride", "bytes", "tokens", "positions", "kl", "same_top", "perplexity", "bits_per_byte"),
    "worst",
]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> dict[str, Path]:
    """The tiny model with other tokenizers: two ids swapped, the last merge left out, a token before each text."""
    folders = {}
    for name in ("swapped", "unmerged", "begins"):
        folders[name] = tmp_path_factory.mktemp("others") / name
        shutil.copytree(tiny_llama, folders[name])
        path = folders[name] / "tokenizer.json"
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = state["model"]["vocab"]
        if name == "swapped":
            vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        elif name == "unmerged":
            state["model"]["merges"] = state["model"]["merges"][:-8]
        else:
            state["post_processor"] = {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "<|end|>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [0], "tokens": ["<|end|>"]}},
            }
        path.write_text(json.dumps(state), encoding="utf-8")
    return folders


def parsed(process: Any) -> dict[str, Any]:
    assert process.returncode == 0, process.stderr
    data: dict[str, Any] = json.loads(process.stdout)
    assert list(data) == KEYS
    return data


def test_json_has_the_figures_of_both_models(run_cli, tiny_llama: Path, tiny_gpt2: Path, tmp_path: Path) -> None:
    table = tmp_path / "positions.csv"
    a, b = str(tiny_llama), str(tiny_gpt2)
    process = run_cli("diff", TEXT, "--a", a, "--b", b, *EXACT, "--json", "--csv", str(table))
    data = parsed(process)
    assert process.stderr == ""
    models = [load_local(one, precision="float32", threads=1) for one in (a, b)]
    ids = models[0].tokenizer.encode_ids(TEXT)
    readers = [Reader("", one.network) for one in models]
    found = difference(readers, ids, windows_of(readers))
    assert found.kl is not None
    assert list(data["kl"]) == ["mean", "median", "p99", "max"]
    assert data["kl"]["mean"] == pytest.approx(found.kl.mean())
    assert data["kl"]["max"] == pytest.approx(found.kl.max())
    assert data["same_top"] == found.same_top
    assert data["positions"] == data["tokens"]["a"] == data["tokens"]["b"] == len(ids) - 1
    assert (data["window"], data["stride"], data["bytes"]) == (512, 256, len(TEXT.encode()))
    assert [data["models"][one]["architecture"] for one in "ab"] == ["llama", "gpt2"]
    for side, letter in enumerate("ab"):
        assert data["perplexity"][letter] == pytest.approx(found.expected[side].perplexity)
        assert 0 < data["bits_per_byte"][letter] < 100
    assert len(data["worst"]) == 10
    assert list(data["worst"][0]) == ["position", "id", "text", "before", "kl", "a", "b"]
    assert data["worst"][0]["kl"] == data["kl"]["max"]
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["position"]) for row in rows] == list(range(1, len(ids)))
    assert [int(row["id"]) for row in rows] == ids[1:]
    assert [float(row["kl"]) for row in rows] == pytest.approx(found.kl.tolist())
    assert [int(row["top_b"]) for row in rows] == found.expected[1].top.tolist()


def test_a_terminal_shows_a_table(run_cli, tiny_llama: Path, tiny_gpt2: Path) -> None:
    process = run_cli("diff", TEXT, "--a", str(tiny_llama), "--b", str(tiny_gpt2), *EXACT)
    assert process.returncode == 0, process.stderr
    for words in ("in windows of 512 tokens, one every 256", "bits per byte", "99th percentile", "A ‖ B", "· float32"):
        assert words in process.stdout
    assert len(process.stdout.splitlines()) == 8 + 3 + 10
    assert "\x1b" not in process.stdout


def test_the_same_model_twice_differs_nowhere(run_cli, tiny_llama: Path) -> None:
    data = parsed(run_cli("diff", TEXT, "--a", str(tiny_llama), "--b", f"{tiny_llama}@float32", *EXACT, "--json"))
    assert set(data["kl"].values()) == {0}
    assert data["same_top"] == 1
    assert data["worst"] == []
    rounded = parsed(run_cli("diff", TEXT, "--a", str(tiny_llama), "--b", f"{tiny_llama}@bfloat16", *EXACT, "--json"))
    assert 0 < rounded["kl"]["mean"] < 0.05
    assert [rounded["models"][one]["precision"] for one in "ab"] == ["float32", "bfloat16"]


def test_texts_come_from_files_and_standard_input(run_cli, tiny_llama: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(f"{TEXT}\r\n{TEXT}".encode())
    options = ("--a", str(tiny_llama), "--b", str(tiny_llama), *EXACT, "--window", "20", "--stride", "7", "--json")
    read = parsed(run_cli("diff", str(file), *options))
    given = parsed(run_cli("diff", "-", *options, stdin=file.read_bytes()))
    assert read == given
    assert (read["bytes"], read["window"], read["stride"]) == (file.stat().st_size, 20, 7)
    missing = run_cli("diff", str(tmp_path / "missing.txt"), *options)
    assert missing.returncode == 0
    assert "there is no file" in missing.stderr


@pytest.mark.parametrize(
    ("text", "options", "code", "words"),
    [
        ("", (), 2, "the text is empty"),
        ("a", (), 2, "one token, which nothing comes before"),
        ("BINARY", (), 2, "is not UTF-8 text (byte 1)"),
        (TEXT, ("--window", "1000"), 2, "window is 1000; allowed: from 2 to 512"),
        (TEXT, ("--stride", "0"), 2, "stride is 0"),
        (TEXT, ("--b", "TINY@int4"), 2, "precision is 'int4'; allowed: auto, native, bfloat16, float32"),
        (TEXT, ("--b", "nothing here!"), 2, "no model 'nothing here!'"),
        (TEXT, ("--b", ""), 2, "the model's name is empty"),
        (TEXT, ("--b", "http://127.0.0.1:9"), 2, "no server tells"),
        (TEXT, ("--b", "http://127.0.0.1:9@float32"), 2, "no server tells"),
        (TEXT, ("--server", "http://127.0.0.1:9"), 2, "no server tells"),
        (TEXT, ("--model", "TINY"), 2, "--a and --b instead of --model"),
        (TEXT, ("--csv", "MISSING"), 1, "there is no folder"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    run_cli, tiny_llama: Path, tmp_path: Path, text: str, options: tuple[str, ...], code: int, words: str
) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    places = {"BINARY": str(binary), "TINY": str(tiny_llama), "MISSING": str(tmp_path / "none" / "x.csv")}
    given = [places.get(name, name) + at + rest for name, at, rest in (one.partition("@") for one in options)]
    both = ("--a", str(tiny_llama), "--b", str(tiny_llama))
    process = run_cli("diff", places.get(text, text), *both, *EXACT, *given)
    assert process.returncode == code, process.stderr
    assert words in process.stderr
    assert process.stdout == ""
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("swapped", "the vocabularies differ, token"),
        ("unmerged", "the two cut this text into different tokens"),
    ],
)
def test_without_the_same_tokens_there_is_no_kl(
    run_cli, tiny_llama: Path, others: dict[str, Path], tmp_path: Path, other: str, words: str
) -> None:
    table = tmp_path / "positions.csv"
    both = ("--a", str(tiny_llama), "--b", str(others[other]))
    process = run_cli("diff", TEXT, *both, *EXACT, "--json", "--csv", str(table))
    data = parsed(process)
    assert words in process.stderr
    assert "there is no KL divergence; compare bits per byte" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    assert (data["kl"], data["same_top"], data["positions"], data["worst"]) == (None, None, None, [])
    for letter, folder in zip("ab", (tiny_llama, others[other])):
        model = load_local(str(folder), precision="float32", threads=1)
        scored = [one for one in model.score(model.tokenizer.encode(TEXT)) if one.surprisal_bits is not None]
        bits = sum(one.surprisal_bits or 0 for one in scored)
        size = len(TEXT.encode()) - model.tokenizer.encode(TEXT)[0].end
        assert data["tokens"][letter] == len(scored)
        assert data["perplexity"][letter] == pytest.approx(2 ** (bits / len(scored)), rel=1e-5)
        assert data["bits_per_byte"][letter] == pytest.approx(bits / size, rel=1e-5)
    with table.open(encoding="utf-8", newline="") as file:
        found = [row["model"] for row in csv.DictReader(file)]
    assert found == ["a"] * data["tokens"]["a"] + ["b"] * data["tokens"]["b"]
    shown = run_cli("diff", TEXT, *both, *EXACT)
    assert "bits per byte" in shown.stdout
    assert "KL" not in shown.stdout


def test_each_model_reads_what_its_tokenizer_puts_before_a_text(run_cli, tiny_llama: Path, others) -> None:
    begins = str(others["begins"])
    data = parsed(run_cli("diff", "a", "--a", begins, "--b", begins, *EXACT, "--json"))
    assert (data["positions"], data["kl"]["max"]) == (1, 0)
    process = run_cli("diff", TEXT, "--a", begins, "--b", str(tiny_llama), *EXACT, "--json")
    data = parsed(process)
    assert "before each window A reads the ids [0] and B []" in process.stderr
    assert data["kl"]["median"] > 0
    model = load_local(str(tiny_llama), precision="float32", threads=1)
    assert data["positions"] == len(model.tokenizer.encode_ids(TEXT)) - 1


def test_models_of_unequal_vocabularies_are_compared_by_what_both_have(
    run_cli, tiny_llama: Path, tmp_path: Path
) -> None:
    padded = save_tiny(tmp_path, "llama", vocab_size=byte_level_tokenizer().get_vocab_size() + 64)
    process = run_cli("diff", TEXT, "--a", str(tiny_llama), "--b", str(padded), *EXACT, "--json")
    data = parsed(process)
    assert f"compared are the {byte_level_tokenizer().get_vocab_size():,} that both have" in process.stderr
    assert data["kl"]["mean"] > 0


def test_both_must_fit_into_memory_before_one_is_loaded(monkeypatch: pytest.MonkeyPatch, tiny_llama: Path) -> None:
    name = str(tiny_llama)
    exact, rounded = LoadOptions("float32"), LoadOptions("bfloat16")
    one, other = needed_bytes(name, exact), needed_bytes(name, rounded)
    assert one == 2 * other > 0
    monkeypatch.setattr("engine.models.pair.free_memory", lambda: one + other)
    check_both_fit((name, exact), (name, rounded))
    monkeypatch.setattr("engine.models.pair.free_memory", lambda: one + other - 1)
    with pytest.raises(OutOfMemoryError, match="of memory are free for both; choose smaller ones, or @bfloat16"):
        check_both_fit((name, exact), (name, rounded))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "name", "precision"),
    [
        ("smollm2-135m", "smollm2-135m", "auto"),
        ("smollm2-135m@float32", "smollm2-135m", "float32"),
        ("Qwen/Qwen2.5-0.5B@bfloat16", "Qwen/Qwen2.5-0.5B", "bfloat16"),
        ("file.gguf@native", "file.gguf", "native"),
        ("of@home/file.gguf", "of@home/file.gguf", "auto"),
        ("of@home/file.gguf@native", "of@home/file.gguf", "native"),
        ("file@8.gguf", "file@8.gguf", "auto"),
        ("named@float32", "named@float32", "auto"),
        ("named@float32@bfloat16", "named@float32", "bfloat16"),
    ],
)
def test_a_model_and_its_precision(folder: Path, text: str, name: str, precision: str) -> None:
    (folder / "named@float32").mkdir()
    assert name_and_precision(text, "auto") == (name, precision)


def test_a_precision_that_there_is_not(folder: Path) -> None:
    for text in ("smollm2-135m@fp16", "smollm2-135m@"):
        with pytest.raises(InputError, match="allowed: auto, native, bfloat16, float32"):
            name_and_precision(text, "auto")


def test_vocabularies_are_compared_by_what_ids_stand_for(tokenizer: Tokenizer, others: dict[str, Path]) -> None:
    plain = Tokenizer(byte_level_tokenizer())
    assert first_other_token(plain, Tokenizer(byte_level_tokenizer())) is None
    swapped = Tokenizer.from_file(others["swapped"] / "tokenizer.json")
    first = first_other_token(plain, swapped)
    assert first is not None
    assert {plain.label(first), swapped.label(first)} == {"a", "b"}
    assert first_other_token(plain, tokenizer) is not None
    assert (plain.beginning, Tokenizer.from_file(others["begins"] / "tokenizer.json").beginning) == ((), (0,))
