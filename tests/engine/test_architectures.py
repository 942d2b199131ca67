"""Models of every kind answer as transformers' own module does over whole texts, or say why not."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.base.errors import LogitlabError, ModelFileError
from engine.loading import load_model
from engine.models import catalog
from engine.networks import door
from engine.networks.sources import open_source
from engine.networks.transformers import TransformersNetwork
from engine.networks.used import recorded
from engine.networks.ways import Way
from tests.conftest import byte_level_tokenizer, save_tiny
from tests.judged import judge
from tests.tiny_models import save_model, tiny_model

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 40,
}
LONGROPE_OF_EXPERTS = LONGROPE | {"short_mscale": 1.0, "long_mscale": 1.2}

# One architecture for each kind, with what is slower than usual about it.
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "mamba": ("prompts in one piece", {}),  # states alone
    "jamba": ("prompts in one piece", {}),  # states beside keys and values
    "qwen3_next": ("", {}),  # linear attention
    "lfm2": ("", {}),  # convolutions
    "minimax": ("", {}),  # a cache of the architecture's own
    "recurrent_gemma": ("without a cache", {}),  # states in the module, whoever asks
    "openai-gpt": ("without a cache", {}),  # takes a cache and ignores it
    "mpt": ("", {}),  # positions as biases
    "cohere2": ("", {"sliding_window": 24}),
    "phimoe": ("without a cache beyond 40 tokens", {"rope_parameters": LONGROPE_OF_EXPERTS}),
    "deepseek_v4": ("lanes of different lengths one by one", {}),
    "gemma3n_text": ("", {}),  # hidden states of another shape
    "deepseek_v32": ("", {}),  # attention to the few tokens that an indexer chooses
    "qwen2_vl": ("", {}),  # the text part of a model that sees; positions of three dimensions
    "emu3": ("", {}),  # a text part that does not find its weights among those of the whole
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_answers_are_those_of_whole_texts(kind: str, tmp_path: Path) -> None:
    slower, changes = KINDS[kind]
    judged = judge(
        save_model(tmp_path / kind, kind, **changes), tmp_path / "cache", long=560 if kind == "mamba" else 90
    )
    assert judged.loads, judged.way
    assert judged.wrong == {}
    assert judged.way.startswith("transformers")
    assert slower in judged.way
    assert bool(slower) == (judged.way != "transformers")


OWN: dict[str, dict[str, object]] = {
    "gemma2": {"sliding_window": 24},
    "gemma3_text": {"sliding_window": 24},
    "gemma3": {"text_config": {"sliding_window": 24}},
    "phi3": {"rope_parameters": LONGROPE, "original_max_position_embeddings": 40},
    "mistral": {"sliding_window": 24},
}


@pytest.mark.parametrize("kind", list(OWN))
def test_our_own_networks_answer_as_whole_texts_are_answered(kind: str, tmp_path: Path) -> None:
    judged = judge(save_model(tmp_path / kind, kind, **OWN[kind]), tmp_path / "cache", long=90)
    assert (judged.way, judged.wrong) == ("own llama", {})


def test_the_way_is_measured_once_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(save_model(tmp_path / "gpt", "openai-gpt"))
    first = load_model(folder, precision="float32", cache_dir=tmp_path).facts
    (used,) = recorded(tmp_path)
    assert used.way is not None
    assert not used.way.cached
    assert (
        used.reason
        == first.path_reason
        == ("architecture openai-gpt; without a cache: with one this model's answers change")
    )
    monkeypatch.setattr(door, "safe_way", lambda network: pytest.fail("measured again"))
    assert load_model(folder, precision="float32", cache_dir=tmp_path).facts == first


@pytest.mark.parametrize(
    ("check", "fails", "way"),
    [
        ("chunks", lambda way: way.chunks, Way(chunks=False)),
        ("padded", lambda way: True, Way(rows="equal")),
        ("siblings", lambda way: way.siblings == "positions", Way(siblings="lanes")),
        ("siblings", lambda way: way.rows != "single", Way(rows="single", siblings="lanes")),
        ("steps", lambda way: way.cached, Way(cached=False, siblings="lanes")),
    ],
)
def test_what_differs_sends_a_model_the_next_safer_way(
    check: str, fails: Callable[[Way], bool], way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each check, made to fail, changes what it is about and nothing else."""
    network = TransformersNetwork(tiny_model("llama"), 512)
    passes = getattr(door.Door, check)
    monkeypatch.setattr(door.Door, check, lambda self: [1.0] if fails(network.way) else passes(self))
    assert door.safe_way(network) == way
    assert bool(way.words) == (way.siblings == "positions" or way.rows == "single" or not way.cached)


def test_a_model_that_never_answers_alike_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = TransformersNetwork(tiny_model("llama"), 512)
    monkeypatch.setattr(door.Door, "steps", lambda self: [float("nan")])
    with pytest.raises(ModelFileError, match="from one time to the next"):
        door.safe_way(network)


def test_our_own_networks_pass_the_same_door(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = open_source(tiny_llama).own(torch.float32)
    assert door.fails(network, torch.float32) is None
    forward = type(network).forward

    def forgetful(self: object, ids: torch.Tensor, cache: object, **options: object) -> object:
        output = forward(self, ids, cache, **options)
        if ids.shape[1] == 1:
            output.hidden.mul_(1.01)
            output.hidden.add_(0.05)
        return output

    monkeypatch.setattr(type(network), "forward", forgetful)
    assert door.fails(network, torch.float32) == "single steps change its answers"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bert", "an encoder"),
        ("roberta", "an encoder"),
        ("bart", "an encoder-decoder"),
        ("t5", "an encoder-decoder"),
        ("whisper", "an encoder-decoder"),
        ("clip", "no causal language model"),
        ("musicgen", "a model that writes sound"),
        ("reformer", "draws at random"),
        ("shieldgemma2", "a classifier"),
        ("unlimited_ocr", "reads a prompt in another way"),
        ("gemma4_unified_assistant", "a helper that guesses tokens"),
    ],
)
def test_other_kinds_are_refused_by_what_they_are(kind: str, words: str, tmp_path: Path) -> None:
    folder = _alone(tmp_path, {"model_type": kind, "vocab_size": 320})
    with pytest.raises(ModelFileError, match=words):
        load_model(str(folder), precision="float32", cache_dir=tmp_path / "cache")
    assert recorded(tmp_path / "cache") == []


def test_xlnet_looks_ahead_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no causal language model"):
        load_model(str(save_model(tmp_path / "xlnet", "xlnet")), precision="float32", cache_dir=tmp_path)


def test_models_that_see_are_refused_where_text_alone_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="blip, does not run on text alone"):
        load_model(str(save_model(tmp_path / "blip", "blip")), precision="float32", cache_dir=tmp_path)
    with pytest.raises(ModelFileError, match="change with what follows"):
        load_model(str(save_model(tmp_path / "pali", "paligemma")), precision="float32", cache_dir=tmp_path)


@pytest.mark.skipif(bool(importlib.util.find_spec("timm")), reason="with timm the whole model is loaded")
def test_a_text_part_runs_without_the_packages_of_the_other_parts(tmp_path: Path) -> None:
    judged = judge(save_model(tmp_path / "gemma3n", "gemma3n"), tmp_path, long=90)
    assert judged.loads, judged.way
    assert judged.wrong == {}


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_model(tmp_path / "olmo2", "olmo2")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"model.norm.weight": torch.ones(32)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFileError, match=r"model\.norm\.weight has the shape \(32,\).*wants \(64,\)"):
        load_model(str(folder), precision="float32", cache_dir=tmp_path)


def test_only_an_unknown_architecture_needs_code_of_its_own(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "phi3", "phi3")
    _change(folder, auto_map={"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"})
    assert load_model(str(folder), precision="float32", cache_dir=tmp_path).facts.architecture == "phi3"
    _change(folder, model_type="phi-of-tomorrow")
    with pytest.raises(LogitlabError, match="code from its repository"):
        load_model(str(folder), precision="float32", cache_dir=tmp_path)
    _change(folder, auto_map=None)
    with pytest.raises(LogitlabError, match="phi-of-tomorrow"):
        load_model(str(folder), precision="float32", cache_dir=tmp_path)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "olmo2"])
@pytest.mark.parametrize("fault", ["missing", "unexpected", "headless"])
def test_weights_that_are_missing_or_left_over_are_named(kind: str, fault: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / kind).mkdir()
    folder = save_tiny(tmp_path / kind, kind, tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    name = {
        "missing": next(name for name in weights if "1." in name and name.endswith("proj.weight")),
        "unexpected": "score.weight",
        "headless": "lm_head.weight",
    }[fault]
    if fault == "unexpected":
        weights[name] = torch.zeros(2, 48)
    else:
        del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFileError, match=name.replace(".", r"\.")):
        load_model(str(folder), precision="float32", cache_dir=tmp_path / "cache")


def test_tied_weights_are_no_missing_ones(tmp_path: Path) -> None:
    for kind in ("llama", "olmo2"):
        (tmp_path / kind).mkdir()
        folder = save_tiny(tmp_path / kind, kind, tie_word_embeddings=True)
        assert load_model(str(folder), precision="float32", cache_dir=tmp_path).facts.architecture == kind


def test_files_that_are_not_loaded_do_not_count(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    folder.mkdir()
    for file in tiny_llama.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    for name in ("consolidated.safetensors", "model.fp16.safetensors"):
        (folder / name).write_bytes((tiny_llama / "model.safetensors").read_bytes())
    once, twice = open_source(tiny_llama), open_source(folder)
    assert (twice.weights, twice.size) == (once.weights, once.size)
    assert catalog.find(str(folder)).size == catalog.find(str(tiny_llama)).size
    assert load_model(str(folder), precision="float32", cache_dir=tmp_path).facts.parameters == (
        load_model(str(tiny_llama), precision="float32", cache_dir=tmp_path).facts.parameters
    )


def test_an_adapter_without_peft_is_not_ignored(tiny_llama: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("peft"):
        pytest.skip("peft is installed")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_llama)}))
    beside = tmp_path / "beside"
    beside.mkdir()
    for file in (*tiny_llama.iterdir(), alone / "adapter_config.json"):
        (beside / file.name).write_bytes(file.read_bytes())
    for folder in (alone, beside):
        with pytest.raises(LogitlabError, match=r"holds an adapter; to use it: pip install"):
            load_model(str(folder), precision="float32", cache_dir=tmp_path)


def test_an_adapter_for_a_model_that_is_not_here_names_it(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/no/base"}))
    with pytest.raises(LogitlabError, match="adapter is an adapter for /no/base, which is not on this machine"):
        load_model(str(tmp_path / "adapter"), cache_dir=tmp_path)


@pytest.mark.parametrize("kind", ["lora", "dora", "vera", "head"])
def test_an_adapter_goes_on_the_model_it_names(kind: str, tiny_llama: Path, tmp_path: Path) -> None:
    _adapted(kind, tiny_llama, tmp_path / "alone")
    beside = tmp_path / "beside"
    beside.mkdir()
    for file in (*tiny_llama.iterdir(), *(tmp_path / "alone").iterdir()):
        (beside / file.name).write_bytes(file.read_bytes())
    ids = torch.tensor([[5, 9, 7, 3]])
    import peft
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama)
    without = base(input_ids=ids).logits[:, -1]
    expected = peft.PeftModel.from_pretrained(base, tmp_path / "alone").eval()(input_ids=ids).logits[:, -1]
    assert (without - expected).abs().max() > 0.01
    for folder in (tmp_path / "alone", beside):
        model = load_model(str(folder), precision="float32", cache_dir=tmp_path)
        assert model.facts.path_reason.startswith("with the adapter")
        got = model.network.forward(ids, model.network.cache(9, [0])).logits()  # type: ignore[attr-defined]
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", r"the weights lack base_model.*lora_A"),
        ("unexpected", r"the weights hold base_model.*layers\.9"),
        ("shape", r"lora_A.* has the shape \(4,"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(fault: str, words: str, tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = _adapted("lora", tiny_llama, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in weights if "lora_A" in name)
    if fault == "missing":
        del weights[name]
    elif fault == "unexpected":
        weights[name.replace("layers.0", "layers.9")] = weights[name].clone()
    else:
        weights[name] = weights[name][:4].clone()
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(ModelFileError, match=words):
        load_model(str(folder), precision="float32", cache_dir=tmp_path)


def test_learnt_prompts_are_no_adapters_of_weights(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="learnt vectors before a text"):
        load_model(str(_adapted("prompt", tiny_llama, tmp_path / "prompt")), cache_dir=tmp_path)


def _adapted(kind: str, base: Path, folder: Path) -> Path:
    """A folder with a random adapter of a kind for a model; skips the test where peft is not installed."""
    peft = pytest.importorskip("peft")
    import transformers

    lora = {"target_modules": ["q_proj"], "init_lora_weights": False}
    config = {
        "lora": lambda: peft.LoraConfig(**lora),
        "dora": lambda: peft.LoraConfig(**lora, use_dora=True),
        "head": lambda: peft.LoraConfig(**lora, modules_to_save=["lm_head"]),
        "vera": lambda: peft.VeraConfig(target_modules=["q_proj"], init_weights=False),
        "prompt": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    }[kind]()
    torch.manual_seed(0)
    adapted = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.2)
    adapted.save_pretrained(folder)
    settings = folder / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": str(base)}))
    return folder


def _alone(folder: Path, config: dict[str, object]) -> Path:
    """A folder with a configuration and weights that nobody looks at."""
    from safetensors.torch import save_file

    (folder / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(2)}, folder / "model.safetensors")
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _change(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
