"""What is done to a model while a lane runs, against hooks that name each architecture's own modules."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import gguf
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.base.errors import ConfigError, InputError
from engine.export.looked import looks
from engine.generation.branches import Branch
from engine.generation.config import GenerationConfig, load_config, save_config
from engine.generation.drafts import DraftModel
from engine.generation.events import Prefilled, Start, Stepped
from engine.generation.intervening import treated
from engine.generation.interventions import Intervention, intervention, interventions, split
from engine.generation.loop import generate, logits_after
from engine.generation.memory import KeptLogits, LaneState, StateMemory
from engine.generation.result import drafted
from engine.loading import load_model
from engine.models import catalog
from engine.models.capabilities import Capabilities
from engine.models.local import LocalModel
from engine.models.model import ModelFacts
from engine.networks.control_vector import direction, read_directions, write_directions
from engine.networks.sources import open_source
from engine.text.tokenizer import Tokenizer
from tests.conftest import EMBEDDED
from tests.engine.inside_families import Folders, Models, ids_of
from tests.engine.test_inside_parts import NAMES
from tests.tiny_models import save_model

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("llama", "gpt2", "gemma3", "gpt-neox", "gpt-neox in turn", "olmo2", "qwen3", "opt", "falcon", "phi")
STEPS = 6
TEXT = "the sky above the city looked calm, but rain asked the robot library"
OTHER = "the robot library the rain asked calm, but city looked the sky above"
KINDS = {
    "a head off": ["head 1.2 off"],
    "a head at its mean": ["head 1.1 mean"],
    "attention off": ["attention 2 off"],
    "attention at its mean": ["attention 0 mean"],
    "feed-forward off": ["mlp 1 off"],
    "feed-forward at its mean": ["mlp 2 mean"],
    "a block skipped": ["block 1 skipped"],
    "steered": ["steer 3 by FILE × -2.5"],
    "steered at the end": ["steer 4 by FILE × 4"],
    "patched": ['patch 2 at 3 from "OTHER"'],
    "the embedding patched": ['patch 0 at -2 from "OTHER"'],
    "several": ["head 0.3 mean", "mlp 2 off", "block 1 skipped", "steer 2 by FILE × 3", 'patch 2 at 1 from "OTHER"'],
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random directions."""
    path = tmp_path_factory.mktemp("directions") / "direction.gguf"
    generator = torch.Generator().manual_seed(3)
    write_directions(path, {row: torch.randn(64, generator=generator) for row in (2, 3, 4)}, hint="llama", blocks=4)
    return path


@cache
def reference(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)


def said(texts: Sequence[str], file: Path) -> tuple[str, ...]:
    return tuple(text.replace("FILE", str(file)).replace("OTHER", OTHER) for text in texts)


def config(texts: Sequence[str], **changes: Any) -> GenerationConfig:
    settings: dict[str, Any] = {"max_new_tokens": STEPS, "ignore_eos": True, "interventions": tuple(texts)}
    return GenerationConfig(**(settings | changes))


def ran(
    model: LocalModel, configs: Sequence[GenerationConfig], starts: Sequence[Start] | None = None, **options: Any
) -> tuple[list[list[int]], list[list[Tensor]]]:
    """Of each lane the ids that it wrote and the logits that they come from."""
    begun = starts or [Start(tuple(model.tokenizer.encode(TEXT)))]
    ids: list[list[int]] = [[] for _config in configs]
    rows: list[list[Tensor]] = [[] for _config in configs]
    for event in generate(model.network, model.tokenizer, begun, configs, keep_logits=KeptLogits, **options):
        if isinstance(event, Stepped):
            assert event.logits is not None
            assert event.logits.row is not None
            ids[event.lane].append(event.token.id)
            rows[event.lane].append(event.logits.row)
    return ids, rows


class Hooks:
    """The same things done to transformers' module, by the names of its parts."""

    def __init__(self, model: Any, name: str, prompt: Sequence[int], encode: Callable[[str], list[int]]) -> None:
        self._model, self._names, self._prompt, self._encode = model, NAMES[name], prompt, encode
        self._blocks = attrgetter(NAMES[name].blocks)(model)
        self._heads = model.config.num_attention_heads

    def logits(self, ids: Sequence[int], done: Sequence[Intervention]) -> Tensor:
        with torch.inference_mode(), self._done(done):
            return self._model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1]

    @contextmanager
    def _done(self, done: Sequence[Intervention]) -> Iterator[None]:
        in_order = sorted(done, key=lambda one: one.kind in ("steer", "patch"))
        # Another prompt's stream is that of the model as it is: it runs before anything is hooked.
        streamed = [self._streamed(one) if one.kind in ("steer", "patch") else None for one in in_order]
        with ExitStack() as stack:
            for one, change in zip(in_order, streamed, strict=True):
                stack.callback(self._hook(one, change).remove)
            yield

    def _hook(self, one: Intervention, change: Callable[[Tensor], Tensor] | None) -> Any:
        def mean(x: Tensor) -> Tensor:
            return torch.stack([x[:, : i + 1].mean(1) for i in range(x.shape[1])], 1)

        def part(module: Any, args: Any, output: Any) -> Any:
            x = output[0] if isinstance(output, tuple) else output
            shaped = x.reshape(1, -1, x.shape[-1])  # OPT's feed-forward is flat in some versions
            y = (mean(shaped) if one.mean else torch.zeros_like(shaped)).reshape(x.shape)
            return (y, *output[1:]) if isinstance(output, tuple) else y

        def heads(module: Any, args: Any) -> Any:
            x = args[0].clone()
            size = x.shape[-1] // self._heads
            own = x[..., one.head * size : (one.head + 1) * size]
            own.copy_(mean(own) if one.mean else torch.zeros_like(own))
            return (x, *args[1:])

        def skip(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            x = args[0] if args else kwargs["hidden_states"]
            return (x, *output[1:]) if isinstance(output, tuple) else x

        if one.kind == "head":
            return attrgetter(self._names.projection)(self._blocks[one.layer]).register_forward_pre_hook(heads)
        if one.kind in ("attention", "mlp"):
            name = self._names.attention if one.kind == "attention" else self._names.mlp
            return attrgetter(name)(self._blocks[one.layer]).register_forward_hook(part)
        if one.kind == "block":
            return self._blocks[one.layer].register_forward_hook(skip, with_kwargs=True)
        assert change is not None
        return self._at_row(one.layer, change)

    def _streamed(self, one: Intervention) -> Callable[[Tensor], Tensor]:
        if one.kind == "patch":
            row = self._row(one.layer, self._encode(one.prompt))
            place = one.position % len(self._prompt)

            def patch(x: Tensor) -> Tensor:
                x = x.clone()
                x[:, place] = row[place]
                return x

            return patch
        vector = one.strength * direction(Path(one.file), one.layer, self._model.config.hidden_size)

        def steer(x: Tensor) -> Tensor:
            x = x.clone()
            x[:, len(self._prompt) :] += vector
            return x

        return steer

    def _row(self, row: int, ids: Sequence[int]) -> Tensor:
        kept: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            kept.append(x[0].clone())
            return x

        handle = self._at_row(row, keep)
        with torch.inference_mode():
            self._model(input_ids=torch.tensor([list(ids)]), use_cache=False)
        handle.remove()
        return kept[0]

    def _at_row(self, row: int, change: Callable[[Tensor], Tensor]) -> Any:
        def before(module: Any, args: Any, kwargs: Any) -> Any:
            if args:
                return (change(args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

        def after(module: Any, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (change(output[0]), *output[1:])
            return change(output)

        if row == 0:
            return self._blocks[0].register_forward_pre_hook(before, with_kwargs=True)
        return self._blocks[row - 1].register_forward_hook(after)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in FAMILIES for kind in KINDS]
    # Whose feed-forward gives the stream with what it adds.
    + [("bloom", kind) for kind in ("a head off", "attention off", "attention at its mean")],
)
def test_every_kind_gives_what_hooks_on_transformers_module_give(
    name: str, kind: str, model_of: Models, folder_of: Folders, file: Path
) -> None:
    model, texts = model_of(name), said(KINDS[kind], file)
    prompt = list(ids_of(model, TEXT))
    (ids,), (rows,) = ran(model, [config(texts)])
    hooks = Hooks(reference(folder_of(name)), name, prompt, model.tokenizer.encode_ids)
    _plain_ids, (plain,) = ran(model, [config(())])
    assert len(ids) == STEPS
    for step in range(STEPS):
        right = hooks.logits(prompt + ids[:step], interventions(texts))
        torch.testing.assert_close(rows[step], right, atol=1e-4, rtol=1e-4)
        assert ids[step] == int(right.argmax())
    # Something was done at all: steering acts from the second token on.
    last = hooks.logits(prompt + ids[:1], interventions(texts))
    assert not torch.allclose(last, hooks.logits(prompt + ids[:1], ()), atol=1e-3)
    assert torch.allclose(plain[0], hooks.logits(prompt, ()), atol=1e-4)


# Deep enough that the rounding of float32 is not blown up, as it is where the first blocks are missing.
EMBEDDED_KINDS = (
    "head 12.4 off",
    "head 12.4 mean",
    "attention 12 off",
    "attention 13 mean",
    "mlp 17 off",
    "mlp 20 mean",
    "block 17 skipped",
    "steer 14 by FILE × 4",
    'patch 10 at 5 from "OTHER"',
)


@pytest.fixture(scope="module")
def embedded_module() -> Any:
    """Transformers' own module of the embedded model, float32."""
    path = catalog.find(EMBEDDED).path
    assert path is not None
    return open_source(path).reference(torch.float32).model


@pytest.mark.parametrize("text", EMBEDDED_KINDS)
def test_on_the_embedded_model(text: str, embedded: LocalModel, embedded_module: Any, tmp_path: Path) -> None:
    hidden = embedded.facts.hidden_size
    path = tmp_path / "direction.gguf"
    generator = torch.Generator().manual_seed(5)
    write_directions(path, {row: torch.randn(hidden, generator=generator) for row in (13, 14)}, hint="llama", blocks=30)
    texts = said([text], path)
    prompt = list(ids_of(embedded, TEXT))
    (ids,), (rows,) = ran(embedded, [config(texts, max_new_tokens=3)])
    hooks = Hooks(embedded_module, "llama", prompt, embedded.tokenizer.encode_ids)
    for step in range(3):
        right = hooks.logits(prompt + ids[:step], interventions(texts))
        torch.testing.assert_close(rows[step], right, atol=1e-4, rtol=1e-4)
        assert ids[step] == int(right.argmax())


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox", "gemma3"])
def test_a_lane_without_any_is_what_it_is_alone(name: str, model_of: Models, file: Path) -> None:
    model = model_of(name)
    plain = config(())
    (alone_ids,), (alone,) = ran(model, [plain])
    others = [config(said(KINDS[kind], file)) for kind in ("several", "a head off", "steered")]
    ids, rows = ran(model, [others[0], plain, *others[1:]])
    assert ids[1] == alone_ids
    assert all(torch.equal(one, other) for one, other in zip(rows[1], alone, strict=True))
    for place, other in ((0, others[0]), (2, others[1]), (3, others[2])):
        (own_ids,), (own,) = ran(model, [other])
        assert ids[place] == own_ids
        assert all(torch.equal(one, right) for one, right in zip(rows[place], own, strict=True))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *product(["llama", "gpt2", "gpt-neox"], ["a head at its mean", "attention at its mean", "steered", "several"]),
        ("opt", "feed-forward at its mean"),  # its feed-forward takes the positions of all lanes in one row
    ],
)
def test_lanes_with_the_same_done_to_them_go_together(name: str, kind: str, model_of: Models, file: Path) -> None:
    """Two prompts of different lengths, with padding: what a mean is over and where steering begins is each lane's."""
    model = model_of(name)
    texts = [text for text in said(KINDS[kind], file) if not text.startswith("patch")]
    prompts = [TEXT, "rain asked the robot"]
    starts = [Start(tuple(model.tokenizer.encode(text))) for text in prompts]
    together, rows = ran(model, [config(texts)] * 2, starts)
    for lane, start in enumerate(starts):
        (ids,), (alone,) = ran(model, [config(texts)], [start])
        assert together[lane] == ids
        for one, right in zip(rows[lane], alone, strict=True):
            torch.testing.assert_close(one, right, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["a head at its mean", "attention at its mean", "feed-forward at its mean"])
def test_means_of_lanes_whose_prompts_go_through_in_parts(
    kind: str, model_of: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("llama")
    prompts = [TEXT, "rain asked the robot"]
    starts = [Start(tuple(model.tokenizer.encode(text))) for text in prompts]
    at_once, right = ran(model, [config(KINDS[kind])] * 2, starts)
    monkeypatch.setattr("engine.generation.loop.PREFILL_CHUNK", 5)
    in_parts, rows = ran(model, [config(KINDS[kind])] * 2, starts)
    assert in_parts == at_once
    for lane, other in zip(rows, right, strict=True):
        for one, whole in zip(lane, other, strict=True):
            torch.testing.assert_close(one, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["a head at its mean", "attention at its mean", "several"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_contrastive_search_looks_at_candidates_under_them(
    name: str, kind: str, model_of: Models, folder_of: Folders, file: Path
) -> None:
    model = model_of(name)
    module = replace(model, network=open_source(folder_of(name)).reference(torch.float32))
    settings = config(said(KINDS[kind], file), strategy="contrastive", top_k=4, alpha=0.6)
    (ids,), (rows,) = ran(model, [settings])
    (right_ids,), (right,) = ran(module, [settings])
    assert ids == right_ids
    for one, other in zip(rows, right, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox"])
def test_guesses_are_checked_by_the_model_as_it_is_changed(name: str, kind: str, model_of: Models, file: Path) -> None:
    """Looked up, or of the model without the interventions: guesses that go leave nothing behind in means."""
    model = model_of(name)
    plain = config(said(KINDS[kind], file), max_new_tokens=20)
    (ids,), (rows,) = ran(model, [plain])
    unchanged = DraftModel(model.network, "unchanged")
    for settings, second in ((replace(plain, draft="lookup"), None), (replace(plain, draft="unchanged"), unchanged)):
        start = Start(tuple(model.tokenizer.encode(TEXT)))
        how: dict[str, Any] = {"keep_logits": KeptLogits, "drafts": [second]}
        events = generate(model.network, model.tokenizer, [start], [settings], **how)
        steps = [event for event in events if isinstance(event, Stepped)]
        assert [step.token.id for step in steps] == ids
        for step, right in zip(steps, rows, strict=True):
            assert step.logits is not None
            assert step.logits.row is not None
            torch.testing.assert_close(step.logits.row, right, atol=1e-4, rtol=1e-4)
        assert second is None or drafted(steps).drafted > 0


# What is kept of a text belongs to what was done meanwhile.


def with_state(
    model: LocalModel, settings: GenerationConfig, start: Start
) -> tuple[int, list[int], list[Tensor], LaneState]:
    """Tokens that went through before the first step, what was written, from which logits, and what is kept."""
    states: list[LaneState] = []
    through, ids, rows = 0, [], []
    for event in generate(
        model.network, model.tokenizer, [start], [settings], keep_logits=KeptLogits, keep_state=states.append
    ):
        if isinstance(event, Prefilled):
            through = event.tokens
        elif isinstance(event, Stepped):
            assert event.logits is not None
            assert event.logits.row is not None
            ids.append(event.token.id)
            rows.append(event.logits.row)
    return through, ids, rows, states[0]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox"])
@pytest.mark.parametrize(
    ("before", "after", "shared"),
    [
        ("plain", "steered", "prompt"),
        ("steered", "plain", "prompt"),
        ("steered", "steered", "all"),
        ("a head off", "a head off", "all"),
        ("a head at its mean", "a head at its mean", "all"),
        ("plain", "a head off", "nothing"),
        ("a head off", "plain", "nothing"),
        ("a head off", "a head at its mean", "nothing"),
        ("plain", "patched", "before the patch"),
        ("patched", "plain", "before the patch"),
        ("steered", "steered at the end", "prompt"),
    ],
)
def test_what_is_kept_serves_only_what_it_is_right_for(
    name: str, before: str, after: str, shared: str, model_of: Models, file: Path
) -> None:
    model = model_of(name)
    start = Start(tuple(model.tokenizer.encode(TEXT)))
    length = len(start.prompt)
    one, other = (config(said(KINDS[kind], file) if kind != "plain" else ()) for kind in (before, after))
    _through, written, _rows, state = with_state(model, one, start)
    begun = replace(start, written=tuple(written[:2]))
    fresh_through, ids, rows, _state = with_state(model, other, begun)
    assert fresh_through == length + 2
    through, again, rows_again, _state = with_state(model, other, replace(begun, state=state))
    assert again == ids
    for row, right in zip(rows_again, rows, strict=True):
        torch.testing.assert_close(row, right, atol=1e-4, rtol=1e-4)
    known = {"prompt": length, "all": length + 1, "nothing": 0, "before the patch": 3}[shared]
    assert length + 2 - through == known


def test_another_direction_in_the_same_file_is_another_thing(model_of: Models, tmp_path: Path) -> None:
    model, path = model_of("llama"), tmp_path / "direction.gguf"
    start = Start(tuple(model.tokenizer.encode(TEXT)))
    settings = config([f"steer 2 by {path} × 3"])
    write_directions(path, {2: torch.ones(64)}, hint="llama", blocks=4)
    _through, ids, _rows, state = with_state(model, settings, start)
    write_directions(path, {2: -torch.ones(64)}, hint="llama", blocks=4)
    begun = replace(start, written=tuple(ids[:2]), state=state)
    through, _ids, rows, _state = with_state(model, settings, begun)
    _through, _ids, right, _state = with_state(model, settings, replace(begun, state=None))
    assert through == 2
    torch.testing.assert_close(rows[0], right[0], atol=1e-4, rtol=1e-4)


def test_a_lab_shares_prompts_and_computes_logits_again_under_them(model_of: Models, file: Path) -> None:
    """A step's logits computed again are those that it was decided from."""
    model = model_of("llama")
    start = Start(tuple(model.tokenizer.encode(TEXT)))
    prompt = [token.id for token in start.prompt]
    for kind in KINDS:
        settings = config(said(KINDS[kind], file))
        memory = StateMemory()
        (ids,), (rows,) = ran(model, [settings], [start], keep_state=memory.keep)
        how = treated(model.network, model.tokenizer, settings.interventions, prompt)
        for index in range(STEPS):
            context = prompt + ids[:index]
            state = memory.find(context, hidden=False, treatment=how.treatment)
            row = logits_after(how.network, context, state, how.treatment)
            torch.testing.assert_close(row, rows[index], atol=1e-4, rtol=1e-4)


# Bad input: one sentence each.


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("head 4.0 off", "“head 4.0 off”: there is no layer 4: this model has layers 0 to 3"),
        ("head 1.4 mean", "“head 1.4 mean”: there is no head 4: the layers of this model have heads 0 to 3"),
        ("block 9 skipped", "“block 9 skipped”: there is no layer 9: this model has layers 0 to 3"),
        ("mlp 4 off", "“mlp 4 off”: there is no layer 4: this model has layers 0 to 3"),
        ("steer 5 by FILE × 1", "there is no layer 5: this model has layers 0 to 4, of which 0 is the embedding"),
        ("steer 1 by FILE × 1", "has no direction for layer 1, only for: 2–4"),
        ("steer 2 by WIDE × 1", "has 32 numbers, this model's vectors have 64; make one with it"),
        ("steer 2 by TEXT × 1", "is no control vector (a GGUF file of directions); steer make writes one"),
        ("steer 2 by MODEL × 1", "is no control vector (a GGUF file of directions); steer make writes one"),
        ("steer 2 by MISSING × 1", "cannot read MISSING: No such file or directory"),
        ('patch 1 at 3 from "rain"', "the other prompt's tokens are 2, the lane's"),
        ('patch 1 at 99 from "OTHER"', "there is no position 99: the prompt has"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    text: str, sentence: str, model_of: Models, file: Path, tmp_path: Path
) -> None:
    model = model_of("llama")
    wide, plain, other = tmp_path / "wide.gguf", tmp_path / "plain.txt", tmp_path / "model.gguf"
    write_directions(wide, {2: torch.ones(32)}, hint="llama", blocks=4)
    plain.write_text("no file of vectors")
    writer = gguf.GGUFWriter(other, "llama")
    writer.add_tensor("direction.1", torch.ones(64).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for name, path in (("WIDE", wide), ("TEXT", plain), ("MODEL", other)):
        text = text.replace(name, str(path))
    with pytest.raises(InputError) as caught:
        ran(model, [config(said([text], file))])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_architecture_without_heads_says_so(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "mamba", "mamba")
    network = open_source(folder).reference(torch.float32)
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    model = LocalModel(cast(ModelFacts, None), tokenizer, network)
    with pytest.raises(InputError, match="has no attention to look at"):
        ran(model, [config(["head 1.0 off"])])
    (ids,), _rows = ran(model, [config(["block 1 skipped"])])
    assert len(ids) == STEPS


# As texts.


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("head 12.4 off", "head 12.4 off"),
        ("  head  12.4  mean ", "head 12.4 mean"),
        ("attention 12 off", "attention 12 off"),
        ("mlp 7 mean", "mlp 7 mean"),
        ("block 7 skipped", "block 7 skipped"),
        ("steer 14 by a b.gguf x 4", "steer 14 by a b.gguf × 4"),
        ("steer 14 by a.gguf × -0.5", "steer 14 by a.gguf × -0.5"),
        ("steer 14 by a.gguf ×−2", "steer 14 by a.gguf × -2"),
        ("steer 14 by a.gguf", "steer 14 by a.gguf × 1"),
        ('patch 10 at 5 from "other prompt"', 'patch 10 at 5 from "other prompt"'),
        ('patch 0 at -1 from “say "no"; then”', 'patch 0 at -1 from "say "no"; then"'),
    ],
)
def test_an_intervention_is_read_and_written(typed: str, kept: str) -> None:
    assert GenerationConfig(interventions=(typed,)).interventions == (kept,)
    assert str(intervention(kept)) == kept


@pytest.mark.parametrize(
    "text",
    [
        *("head 12 off", "head 1.2", "head 1.2 gone", "attention 1.2 off", "block 7 off", "steer by x × 1", "", "12"),
        *("patch 1 at 2 from other", "steer 1 by a.gguf × 1e9", "head 99999.0 off"),
    ],
)
def test_a_text_that_is_none_says_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GenerationConfig(interventions=(text,))
    assert caught.value.field == "interventions"
    assert repr(text) in str(caught.value)


def test_settings_and_files_hold_them(tmp_path: Path) -> None:
    texts = ("head 12.4 off", 'patch 10 at 5 from "a, b; \\ c"')
    settings = config(texts)
    save_config(settings, tmp_path / "done.toml")
    assert load_config(str(tmp_path / "done.toml")).interventions == texts
    assert load_config("greedy,interventions=head 1.2 off,interventions=mlp 3 off").interventions == (
        "head 1.2 off",
        "mlp 3 off",
    )
    assert settings.to_dict()["interventions"] == list(texts)
    assert "head 12.4 off +1, plain steps" in settings.summary
    assert split(f"{texts[0]}; {texts[1]}") == list(texts)
    with pytest.raises(InputError, match="no server lets in"):
        Capabilities("vLLM").check(settings)


def test_a_direction_goes_to_gguf_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "direction.gguf"
    vectors = {2: torch.randn(8), 4: torch.randn(8)}
    write_directions(path, vectors, hint="llama", blocks=4)
    found = read_directions(path)
    assert {row: vector.tolist() for row, vector in found.items()} == {
        row: vector.tolist() for row, vector in vectors.items()
    }
    reader = gguf.GGUFReader(path)
    assert {tensor.name for tensor in reader.tensors} == {"direction.1", "direction.3"}
    field = reader.get_field("general.architecture")
    assert field is not None
    assert field.contents() == "controlvector"
    for row in (0, 1, 5):
        with pytest.raises(InputError, match="allowed: from 2 to 4"):
            write_directions(path, {row: torch.ones(8)}, hint="llama", blocks=4)


def test_a_report_looks_inside_the_model_as_the_lane_ran_it(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    settings = config(["mlp 0 off", "head 1.2 mean"])
    prompt = tuple(model.tokenizer.encode(TEXT))
    start = Start(prompt)
    steps = tuple(e for e in generate(model.network, model.tokenizer, [start], [settings]) if isinstance(e, Stepped))
    branch = Branch(1, None, 0, prompt, settings, STEPS, steps)
    lens = next(look for look in looks(model, branch, "A") if look.name == "lane-a-lens")
    assert lens.sheet is not None
    columns = lens.sheet.columns.index("probability_1"), lens.sheet.columns.index("id_1")
    last = lens.sheet.rows[-1]
    assert last[columns[1]] == steps[-1].token.id
    assert last[columns[0]] == pytest.approx(steps[-1].raw_probability, abs=1e-5)


def test_heads_whose_sizes_differ_by_layer(tmp_path: Path) -> None:
    """Gemma 4's configuration refuses to give one size of them."""
    folder = save_model(tmp_path / "gemma4", "gemma4_text")
    model = cast(LocalModel, load_model(str(folder), precision="float32", cache_dir=tmp_path / "cache"))
    prompt = model.tokenizer.encode_ids(TEXT)
    ((first, *_ids),), ((row, *_rows),) = ran(model, [config(["head 1.2 off"])])
    module = reference(folder)
    projection = module.model.layers[1].self_attn.o_proj
    size = projection.in_features // module.config.num_attention_heads
    with torch.inference_mode():
        projection.weight[:, 2 * size : 3 * size] = 0
        right = module(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]
    torch.testing.assert_close(row, right, atol=1e-4, rtol=1e-4)
    assert first == int(right.argmax())


def test_heads_beside_a_feed_forward_in_one_module_are_not_taken_for_its(tmp_path: Path) -> None:
    model = load_model(
        str(save_model(tmp_path / "zamba2", "zamba2")), precision="float32", cache_dir=tmp_path / "cache"
    )
    with pytest.raises(InputError, match="the heads of layer 1 of this architecture, zamba2, cannot be told apart"):
        ran(cast(LocalModel, model), [config(["head 1.0 off"])])
