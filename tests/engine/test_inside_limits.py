"""What looking inside refuses, where it stops, and the embedded model with its weights as they run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.base.errors import Cancelled, ContextError, InputError
from engine.generation.loop import logits_after
from engine.inside.attention import attention, attention_map
from engine.inside.attribution import attribution, first_and_second
from engine.inside.lens import lens, lens_rows, trajectory
from engine.inside.occlusion import Occluding, occlusion
from engine.inside.record import Recording, record
from engine.loading import load_model
from engine.models import catalog
from engine.models.local import LocalModel
from engine.networks.sources import open_source
from tests.conftest import EMBEDDED
from tests.engine.inside_families import TEXT, Folders, Models, ids_of
from tests.model_server import serve

pytestmark = pytest.mark.usefixtures("one_thread")
FEW = ("llama", "gpt2", "mistral", "gemma2")


@pytest.fixture(scope="module")
def long_text(model_of: Models) -> tuple[int, ...]:
    return ids_of(model_of("llama"), "the sky asked the robot " * 60)[:300]


@pytest.mark.parametrize("name", FEW)
def test_of_a_longer_text_the_last_positions_are_looked_at(
    name: str, model_of: Models, long_text: tuple[int, ...]
) -> None:
    whole, some = record(model_of(name), long_text), record(model_of(name), long_text, positions=5)
    assert (whole.first_position, some.first_position) == (0, 295)
    assert list(some.positions) == [295, 296, 297, 298, 299]
    torch.testing.assert_close(some.stream, whole.stream[:, -5:], atol=1e-4, rtol=1e-4)
    assert attention(some, 297, layer=1, head=2).weights == pytest.approx(
        attention(whole, 297, layer=1, head=2).weights, abs=1e-4
    )
    cells = lens(some, top=1, positions=[-2]).rows[2].cells
    assert [cell.position for cell in cells] == [298]
    assert attribution(some, -1, 5, 6).difference == pytest.approx(attribution(whole, 299, 5, 6).difference, abs=1e-4)
    with pytest.raises(InputError, match="position 294 is not kept: of a text this long, those from 295 on"):
        some.at(294)
    with pytest.raises(InputError, match="rollout goes through at most 1,024 tokens, all of them kept"):
        attention(some, -1, rollout=True)


@pytest.mark.parametrize("name", FEW)
def test_a_record_keeps_to_its_bound(name: str, model_of: Models, long_text: tuple[int, ...]) -> None:
    limit = 1_000_000
    kept = record(model_of(name), long_text, limit=limit)
    tensors = [kept.stream, kept.attention, kept.mlp, *kept.heads, *kept._queries, *kept._keys, *kept._values]
    tensors += kept._weights
    assert 0 < kept.first_position < 300
    assert sum(one.nbytes for one in tensors if one is not None) <= limit
    without = record(model_of(name), long_text, limit=200_000)
    assert without.first_position < 300
    with pytest.raises(InputError, match="too long to keep what attention looks at"):
        attention(without, -1, layer=0, head=0)
    assert lens(without, positions=[-1]).decided_at


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox", "mamba"])
def test_it_ends_within_a_block(name: str, model_of: Models) -> None:
    ids = ids_of(model_of(name))
    for most in range(1, 4):
        seen: list[Recording] = []

        def enough(seen: list[Recording] = seen, most: int = most) -> bool:
            return len(seen) >= most

        with pytest.raises(Cancelled):
            record(model_of(name), ids, report=seen.append, cancelled=enough)
        assert [one.done for one in seen] == list(range(1, most + 1))
    again = record(model_of(name), ids)  # and leaves nothing behind
    assert again.stream.isfinite().all()
    if name in ("gpt-neox", "mamba"):
        parts = model_of(name).network.model.modules()  # type: ignore[attr-defined]
        hooks = [hook for part in parts for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())]
        assert [hook for hook in hooks if hook.__module__.startswith("engine")] == []
    with pytest.raises(Cancelled):
        list(lens_rows(again, cancelled=lambda: True))
    with pytest.raises(Cancelled):
        occlusion(model_of(name), ids, cancelled=lambda: True)


def test_an_architecture_without_attention_has_a_lens(model_of: Models, folder_of: Folders) -> None:
    kept = record(model_of("mamba"), ids_of(model_of("mamba")))
    module = AutoModelForCausalLM.from_pretrained(folder_of("mamba"), dtype=torch.float32)
    with torch.inference_mode():
        ids = torch.tensor([kept.ids])
        left = module(input_ids=ids, output_hidden_states=True).hidden_states  # by each block, the last one normed
        stream = [module.backbone.embeddings(ids), *left[:-1]]
        rows = [module.backbone.norm_f(one) for one in stream]
        torch.testing.assert_close(rows[-1], left[-1])
        right = [module.lm_head(one)[0].softmax(-1).max(-1).values.tolist() for one in rows]
    found = lens(kept, top=1)
    for row, expected in enumerate(right):
        assert [cell.top[0].probability for cell in found.rows[row].cells] == pytest.approx(expected, abs=1e-4)
    for look in (attention, attention_map):
        with pytest.raises(InputError, match="this architecture, mamba, has no attention to look at"):
            look(kept, -1)
    with pytest.raises(InputError, match="block 0 of this architecture, mamba, does not simply add attention"):
        attribution(kept, -1, 5, 6)


@torch.inference_mode()
def test_embeddings_may_be_narrower_than_the_stream(model_of: Models, folder_of: Folders) -> None:
    model = model_of("narrow opt")
    kept = record(model, ids_of(model))
    module = AutoModelForCausalLM.from_pretrained(folder_of("narrow opt"), dtype=torch.float32)
    output = module(input_ids=torch.tensor([kept.ids]), output_hidden_states=True)
    narrow = [module.model.decoder.project_out(state) for state in output.hidden_states[:-1]]
    rows = [module.lm_head(state)[0].softmax(-1).max(-1).values.tolist() for state in narrow]
    rows.append(output.logits[0].softmax(-1).max(-1).values.tolist())
    for row, expected in enumerate(rows):
        cells = lens(kept, rows=[row], top=1).rows[row].cells
        assert [cell.top[0].probability for cell in cells] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(InputError, match="block 0 of this architecture, opt, does not simply add"):
        attribution(kept, -1, 5, 6)


@pytest.mark.parametrize("kind", ["gemma3n_text", "deepseek_v4"])
def test_several_streams_are_refused(kind: str, model_of: Models) -> None:
    with pytest.raises(InputError, match=f"{kind}, has no single stream of vectors from block to block"):
        record(model_of(kind), ids_of(model_of(kind)))


@pytest.mark.parametrize("kind", ["gemma2", "mistral", "bloom"])
def test_in_bfloat16_the_last_row_is_the_modules_own(kind: str, folder_of: Folders, model_of: Models) -> None:
    network = open_source(folder_of(kind)).reference(torch.bfloat16)
    model = replace(model_of(kind), network=network)
    kept = record(model, ids_of(model))
    own = network.whole(torch.tensor([kept.ids])).all_logits()[0]
    torch.testing.assert_close(kept.logits(kept.stream[-1]), own.float(), atol=0, rtol=0)
    found = attribution(kept, -1, 5, 6)
    assert abs(found.remainder) < 0.1  # every sum is rounded
    assert sum(attention(kept, 5, layer=1).weights) == pytest.approx(1, abs=0.02)


def test_attention_within_other_parts_is_not_denied(model_of: Models) -> None:
    kept = record(model_of("dbrx"), ids_of(model_of("dbrx")))
    with pytest.raises(InputError, match="the module of this architecture, dbrx, gives no attention weights"):
        attention(kept, -1)
    kept = record(model_of("jamba"), ids_of(model_of("jamba")))
    assert [len(heads) for heads in attention_map(kept, -1)] == [0, 4, 0, 4]
    with pytest.raises(InputError, match="layer 0 has no attention"):
        attention(kept, -1, layer=0)
    with pytest.raises(InputError, match="layer 2 has no attention"):
        attention(kept, -1, rollout=True)


def test_what_does_not_exist_is_said(model_of: Models) -> None:
    model = model_of("llama")
    kept = record(model, ids_of(model))
    with pytest.raises(InputError, match="the text is empty"):
        record(model, [])
    with pytest.raises(ContextError, match="has 3,000 tokens, the model's context holds 2,048"):
        record(model, [5] * 3000)
    with pytest.raises(InputError, match="positions is 0; allowed: from 1"):
        record(model, [5], positions=0)
    with pytest.raises(InputError, match="there is no layer 4: this model has layers 0 to 3"):
        attention(kept, -1, layer=4)
    with pytest.raises(InputError, match="there is no head 4: layer 1 of this model has heads 0 to 3"):
        attention(kept, -1, layer=1, head=4)
    with pytest.raises(InputError, match="a head belongs to a layer"):
        attention(kept, -1, head=1)
    with pytest.raises(InputError, match="rollout is of all layers"):
        attention(kept, -1, rollout=True, by_value=True)
    with pytest.raises(InputError, match="rollout is of all layers"):
        attention(kept, -1, head=1, rollout=True)
    with pytest.raises(InputError, match="there is no position 99: the text has"):
        attention(kept, 99)
    with pytest.raises(InputError, match="there is no row 5: this model has rows 0 to 4"):
        lens(kept, rows=[5])
    for look in (
        lambda: lens(kept, tracked=[320]),
        lambda: attribution(kept, -1, 320, 5),
        lambda: trajectory(kept, -1, [320]),
        lambda: occlusion(model, ids_of(model), 320),
    ):
        with pytest.raises(InputError, match="there is no token 320: the vocabulary has 320 entries"):
            look()
    with pytest.raises(InputError, match="there is no layer 4"):
        attribution(kept, -1, 5, 6, layer=4)


def test_a_trajectory_follows_the_tokens_on_top(model_of: Models) -> None:
    kept = record(model_of("llama"), ids_of(model_of("llama")))
    rows = [kept.logits(kept.stream[row, 7][None])[0].log_softmax(-1) for row in range(5)]
    found = trajectory(kept, 7)
    assert {track.id for track in found} == {int(row.argmax()) for row in rows}
    assert all(track.best_rank == 1 for track in found)
    chosen = trajectory(kept, 7, [9, 8, int(rows[2].argmax())])
    assert [track.best_rank for track in chosen] == sorted(track.best_rank for track in chosen)
    for track in (*found, *chosen):
        assert [one.probability for one in track.said] == pytest.approx(
            [float(r[track.id].exp()) for r in rows], abs=1e-6
        )
        assert [one.rank for one in track.said] == [int((r > r[track.id]).sum()) + 1 for r in rows]


@pytest.mark.parametrize("name", FEW)
def test_occlusion_is_one_generate_each(name: str, model_of: Models, folder_of: Folders) -> None:
    ids = ids_of(model_of(name), TEXT + TEXT)[:21]
    module = AutoModelForCausalLM.from_pretrained(folder_of(name), dtype=torch.float32)

    def after(text: tuple[int, ...]) -> torch.Tensor:
        output = module.generate(
            torch.tensor([text]), max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        return output.logits[0][0].log_softmax(-1)

    seen: list[Occluding] = []
    found = occlusion(model_of(name), ids, report=seen.append)
    assert found.token == int(after(ids).argmax())
    assert found.log_probability == pytest.approx(float(after(ids)[found.token]), abs=1e-4)
    right = [float(after(ids[:gap] + ids[gap + 1 :])[found.token]) for gap in range(len(ids))]
    assert [one.log_probability for one in found.without] == pytest.approx(right, abs=1e-3)
    assert [one.position for one in found.without] == list(range(len(ids)))
    for one in found.without:
        assert one.change == pytest.approx(one.log_probability - found.log_probability, abs=1e-9)
    assert seen[-1] == Occluding(21, 21)
    two = occlusion(model_of(name), ids[:2], 7)
    assert two.without[0].log_probability == pytest.approx(float(after(ids[1:2])[7]), abs=1e-4)
    with pytest.raises(InputError, match="a text of one token has none to leave out"):
        occlusion(model_of(name), ids[:1])


# The embedded model.


@pytest.fixture(scope="module")
def native() -> LocalModel:
    model = load_model(EMBEDDED, precision="native")
    assert isinstance(model, LocalModel)
    return model


@pytest.fixture(scope="module")
def sky(native: LocalModel) -> list[int]:
    return native.tokenizer.encode_ids("The sky above the city looked calm, but")


def test_the_last_row_is_the_steps_own_distribution(embedded: LocalModel, native: LocalModel, sky: list[int]) -> None:
    for model, tolerance in ((embedded, 1e-5), (native, 1e-6)):
        kept = record(model, sky)
        own = logits_after(model.network, sky)
        torch.testing.assert_close(kept.logits(kept.stream[-1, -1:])[0], own.float(), atol=tolerance, rtol=1e-5)
        last = lens(kept, rows=[kept.blocks], top=5).rows[kept.blocks].cells[-1]
        assert [one.id for one in last.top] == own.topk(5).indices.tolist()
        assert [one.probability for one in last.top] == pytest.approx(own.softmax(-1).topk(5).values.tolist(), abs=1e-5)


def test_four_bit_weights_give_the_same_views(embedded: LocalModel, native: LocalModel, sky: list[int]) -> None:
    exact, rounded = record(embedded, sky), record(native, sky)
    assert native.facts.precision == "Q4_1"
    for layer in (0, 14, 29):
        weights, others = exact.weights(layer), rounded.weights(layer)
        assert float((weights - others).abs().mean()) < 0.01
    tops = [lens(one, rows=[30], top=1).rows[30].cells[-1].top[0].id for one in (exact, rounded)]
    assert tops[0] == tops[1]
    a, b = first_and_second(exact, -1)
    shares = [{part.name: part.share for part in attribution(one, -1, a, b).parts} for one in (exact, rounded)]
    largest = max(shares[0], key=lambda name: abs(shares[0][name]))
    assert shares[1][largest] == pytest.approx(shares[0][largest], rel=0.1)
    assert abs(attribution(exact, -1, a, b, layer=29).remainder) < 1e-3
    assert abs(attribution(rounded, -1, a, b).remainder) < 0.1  # bfloat16 rounds every sum


def test_the_embedded_model_in_the_eager_module(embedded: LocalModel, sky: list[int]) -> None:
    path = catalog.find(EMBEDDED).path
    assert path is not None
    module = open_source(path).reference(torch.float32).model
    module.set_attn_implementation("eager")
    with torch.inference_mode():
        output = module(input_ids=torch.tensor([sky]), output_hidden_states=True, output_attentions=True)
        states = [module.model.norm(one) for one in output.hidden_states[:-1]] + [output.hidden_states[-1]]
        right = [module.lm_head(one)[0].softmax(-1).topk(3) for one in states]
    kept = record(embedded, sky)
    found = lens(kept, top=3)
    for row, expected in enumerate(right):
        for cell, values in zip(found.rows[row].cells, expected.values, strict=True):
            assert [one.probability for one in cell.top] == pytest.approx(values.tolist(), abs=1e-4)
    for layer, weights in enumerate(output.attentions):
        torch.testing.assert_close(kept.weights(layer), weights[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp"])
def test_occlusion_in_front_of_a_server(dialect: str, tiny_llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    from engine.remote.connect import connect

    local = load_model(str(tiny_llama), precision="float32", threads=1)
    assert isinstance(local, LocalModel)
    ids = local.tokenizer.encode_ids("the sky above")
    with serve(local, dialect) as server:
        model = connect(server.url, cache_dir=tmp_path)
        with pytest.raises(InputError, match="looking inside needs the model's own numbers, which no server tells"):
            record(model, ids)
        if dialect == "llama.cpp":
            with pytest.raises(InputError, match="servers do not score prompts; run locally"):
                occlusion(model, ids, 7)
        else:
            found, right = occlusion(model, ids, 7), occlusion(local, ids, 7)
            assert found.log_probability == pytest.approx(right.log_probability, abs=1e-4)
            changes = [one.change for one in right.without]
            assert [one.change for one in found.without] == pytest.approx(changes, abs=1e-3)
            with pytest.raises(InputError, match="name the token whose probability"):
                occlusion(model, ids)
            with pytest.raises(Cancelled):
                occlusion(model, ids, 7, cancelled=lambda: True)
        model.close()
