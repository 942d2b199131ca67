"""Looking inside transformers' module of any architecture, by hooks on one forward.

Which child of a block is its attention, and what of it is added to the stream, is found out by the numbers: only what
adds up in this forward is given. What does not is left out, with the reason.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from engine.base.errors import InputError
from engine.base.language import N_, _
from engine.networks.kernels import DenseRows
from engine.networks.module_attention import attentions, is_attention
from engine.networks.watched import Anatomy, Norm, OutputLayer, Projection, Size, Watch

# Rounding of a sum, in units of the last place of the numbers in it.
ULPS = 8
# Of a longer chain of products than one sum: norms, logits; the norm of the difference over that of the right ones.
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-10}
ROUGH = 0.02
CAPS = ("final_logit_softcapping", "logits_soft_cap")
EPSILONS = ("eps", "variance_epsilon", "epsilon", "norm_eps")
OTHER_PARTS = ("vision", "visual", "audio", "image", "encoder.")

NOT_ONE_STREAM = N_("this architecture, {kind}, has no single stream of vectors from block to block to look into")
UNKNOWN_END = N_("what stands before the logits of this architecture, {kind}, is not known, so it has no lens")
UNLIKE = N_("block {layer} of this architecture, {kind}, does not simply add attention and feed-forward to the stream")


@dataclass
class _Call:
    """One call of a child of a block."""

    module: nn.Module
    given: list[Tensor]  # vectors for each position
    output: Tensor
    mixes: bool  # whether it is attention


@dataclass
class _Block:
    """What is known of the block that runs."""

    stream: Tensor | None = None
    calls: list[_Call] = field(default_factory=list)
    into_projection: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class BlockParts:
    """The modules that do a block's parts.

    Attributes:
        projection: after attention; `None` where it is not known, or how many heads go into it is not.
        attention, mlp: those whose outputs are what is added to the stream, but for a factor; `None` where that is not
            known, or where an output is the stream with what is added.
        unseen: why there are no heads, in words.
    """

    block: nn.Module
    projection: nn.Module | None
    heads: int
    attention: nn.Module | None
    mlp: nn.Module | None
    unseen: str


def size(model: Any) -> Size:
    """What keeping the parts of a module takes. Raises `InputError` where it has no single stream of vectors."""
    config = model.config.get_text_config()
    blocks = _blocks(model, config)
    if blocks is None:
        raise InputError(_(NOT_ONE_STREAM, kind=config.model_type))
    hidden = _width(model, config)
    heads = _whole(config, "num_attention_heads", "n_head") or 1
    kv_heads = _whole(config, "num_key_value_heads") or heads
    head_size = _whole(config, "head_dim") or hidden // heads
    return Size.of(len(blocks), hidden, heads, kv_heads, head_size, weights=True)


@torch.inference_mode()
def parts(model: Any, ids: Tensor) -> list[BlockParts]:
    """Of each block the modules that do its parts, as a forward of a text `[1, length]` finds them.

    Raises:
        InputError: it has no single stream of vectors.
    """
    here = _Look(model, 0, lambda point, layer, value: value)
    here.forward(ids)
    heads, unseen = attentions(model, here.blocks, ids, 0, here.left, lambda point, layer, value: value)
    found = []
    for block, projection, count, added in zip(here.blocks, here.projections, heads, here.added, strict=True):
        into = projection.product if projection is not None and count else None
        attention, mlp = added or (None, None)
        found.append(BlockParts(block, into, count, attention, mlp, unseen))  # type: ignore[arg-type]
    return found


def _width(model: Any, config: Any) -> int:
    """Of the stream; embeddings may be narrower and be projected."""
    return _whole(config, "hidden_size", "d_model", "n_embd") or model.get_input_embeddings().weight.shape[-1]


def _whole(config: Any, *names: str) -> int | None:
    """The first of these settings that is one whole number; Gemma 4's refuse to give one that layers do not share."""
    for name in names:
        try:
            value = getattr(config, name, None)
        except RuntimeError:
            continue
        if isinstance(value, int):
            return value
    return None


@torch.inference_mode()
def look(model: Any, ids: Tensor, first: int, watch: Watch) -> Anatomy:
    """See `engine.networks.watched.Watchable`.

    The module runs as it does in a lane, then once more with attention step by step: most ways of computing it keep no
    weights.

    Args:
        model: a `PreTrainedModel` with an output layer.
    """
    here = _Look(model, first, watch)
    anatomy = here.run(ids)
    heads, unseen = attentions(model, here.blocks, ids, first, here.left, watch)
    projections = [
        replace(projection, heads=count) if projection is not None and count else None
        for projection, count in zip(anatomy.projections, heads, strict=True)
    ]
    return replace(anatomy, projections=projections, unseen=unseen)


class _Look:
    """One forward under hooks."""

    def __init__(self, model: Any, first: int, watch: Watch) -> None:
        self._model = model
        self._config = model.config.get_text_config()
        self._kind = str(self._config.model_type)
        self._width = _width(model, self._config)
        self._first = first
        self._watch = watch
        self._head = model.get_output_embeddings()
        found = _blocks(model, self._config)
        if found is None or self._head is None:
            raise self._not_one_stream()
        self.blocks = found
        self._block = _Block()
        self._done = 0  # blocks
        self._left: Tensor | None = None  # the stream after the last block
        self._after: list[tuple[nn.Module, Tensor, Tensor]] = []  # calls since then
        self.projections: list[Projection | None] = []  # by block; how many heads is not known here
        self._unlike = ""
        self.added: list[tuple[nn.Module | None, nn.Module | None] | None] = []  # by block: see `_Added`

    def forward(self, ids: Tensor) -> Any:
        """The module's result."""
        with ExitStack() as stack:
            for module, register, hook in self._hooks():
                stack.callback(getattr(module, register)(hook, with_kwargs=True).remove)
            result = self._model(input_ids=ids.to(self._model.device), use_cache=False, return_dict=True)
        if self._done != len(self.blocks):
            raise self._not_one_stream()
        return result

    def run(self, ids: Tensor) -> Anatomy:
        result = self.forward(ids)
        tail, raw = self._tail()
        factor_and_cap = self._after_head(raw[:, -1].float(), result.logits[:, -1].float().to(raw.device))
        if factor_and_cap is None:
            raise InputError(_(UNKNOWN_END, kind=self._kind))
        weight = self._head.weight.detach()
        output = OutputLayer(DenseRows(weight), getattr(self._head, "bias", None), *factor_and_cap)
        return Anatomy(
            logits=self._logits(tail, output),
            norm=_final_norm(tail, self._width, weight),
            output=output,
            projections=self.projections,
            unlike=self._unlike,
        )

    @property
    def left(self) -> Tensor:
        """The stream after the last block, `[1, length, hidden]`."""
        assert self._left is not None, "every block has run"
        return self._left

    def _hooks(self) -> Iterator[tuple[nn.Module, str, Callable[..., Any]]]:
        inside = {id(module) for block in self.blocks for module in block.modules()}
        around = {id(module) for module in self._model.modules() if _holds(module, self.blocks)}
        for block in self.blocks:
            yield block, "register_forward_pre_hook", self._enter
            yield block, "register_forward_hook", self._leave
            for name, child in block.named_children():
                mixes = is_attention(name, child)
                yield child, "register_forward_hook", self._child(mixes=mixes)
                if mixes:
                    for part in _of_attention(child):
                        if part is not child and not list(part.children()):
                            yield part, "register_forward_hook", self._part
        for module in self._model.modules():
            if id(module) not in inside and id(module) not in around and not list(module.children()):
                yield module, "register_forward_hook", self._later

    # Called by the module as it runs. What it gives is copied, for some modules write into their tensors afterwards.

    def _enter(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = args[0] if args else kwargs.get("hidden_states")
        if self._done == len(self.blocks) or block is not self.blocks[self._done]:
            raise self._not_one_stream()
        if not isinstance(stream, Tensor) or stream.dim() != 3 or stream.shape[::2] != (1, self._width):
            raise self._not_one_stream()
        if self._left is not None and not torch.equal(self._left, stream.to(self._left.device)):
            raise self._not_one_stream()
        vectors = self._copied(stream[0, self._first :])
        if self._done == 0:
            self._watch("stream", 0, vectors)
        self._block = _Block(vectors)

    def _child(self, *, mixes: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self._watch("stream", -1, torch.empty(0))  # so that it can be ended within a block
            given = [found for one in (*args, *kwargs.values()) if (found := self._vectors(one)) is not None]
            vectors = self._vectors(output[0] if isinstance(output, tuple | list) else output)
            if vectors is not None:
                self._block.calls.append(_Call(module, given, vectors, mixes))

        return hook

    def _part(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """A part of attention: one of them is the projection of its heads."""
        vectors = self._vectors(output)
        if args and isinstance(args[0], Tensor) and args[0].dim() == 3 and vectors is not None:
            self._block.into_projection.append((module, self._copied(args[0][0, self._first :]), vectors))

    def _leave(self, block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        left = output[0] if isinstance(output, tuple | list) else output
        here, layer = self._block, self._done
        if not isinstance(left, Tensor) or here.stream is None or left.shape[0] != 1 or left.dim() != 3:
            raise self._not_one_stream()
        self._left, self._done, self._after = left, self._done + 1, []
        stream = left[0, self._first :].to(self._model.device)
        found = _added(here, stream)
        projection = self._projection(here, found)
        self.added.append(None if found is None else (_attention_of(found, projection), found.mlp_of))
        if found is None:
            self._unlike = self._unlike or _(UNLIKE, layer=layer, kind=self._kind)
        else:
            self._watch("attention", layer, found.attention)
            self._watch("mlp", layer, found.mlp)
        self.projections.append(projection)
        self._watch("stream", layer + 1, stream)
        self._block = _Block()

    def _later(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """A module that no block holds; those after the last block matter."""
        if self._left is not None and args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            self._after.append((module, args[0].to(self._left.device), output.to(self._left.device)))

    # What is found.

    def _projection(self, here: _Block, found: "_Added | None") -> Projection | None:
        """The part of attention whose output is attention's own or, before the stream is added, what it adds."""
        attention = next((call for call in here.calls if call.mixes), None)
        alone = found.attention if found is not None and found.norm is None else None
        for module, given, output in reversed(here.into_projection):
            weight = next(module.parameters(), None)
            if attention is None or weight is None:
                continue
            own = torch.equal(output, attention.output)
            if own or (alone is not None and _close(output.float(), alone.float(), alone.dtype)):
                self._watch("heads", self._done - 1, given)
                norm, factor = (found.norm, found.factor) if found is not None else (None, 1.0)
                norm = norm if own else Norm("none")
                return Projection(0, module, weight.dtype, weight.device, norm, factor)
        return None

    def _tail(self) -> tuple[list[nn.Module | float], Tensor]:
        """What the stream goes through after the last block, as far as the output layer, and what that gives."""
        x = self.left
        steps: list[nn.Module | float] = []
        for module, given, output in self._after:
            if given.shape[-1] != x.shape[-1] or given.shape[1] > x.shape[1]:
                continue
            whole = x[:, x.shape[1] - given.shape[1] :]
            factor = _factor(given, whole)
            if factor is None:
                continue
            if factor != 1:
                steps.append(factor)
            if module is self._head:
                return steps, output
            steps.append(module)
            x = output
        raise InputError(_(UNKNOWN_END, kind=self._kind))

    def _after_head(self, raw: Tensor, logits: Tensor) -> tuple[float, float | None] | None:
        """Factor and cap between what the output layer gives and the model's logits."""
        if raw.shape != logits.shape:
            return None
        factor = _factor(logits, raw)
        if factor is not None:
            return factor, None
        cap = next((value for name in CAPS if (value := getattr(self._config, name, None))), None)
        if cap and _close((raw / cap).tanh() * cap, logits, self._model.dtype):
            return 1.0, float(cap)
        return None

    def _logits(self, tail: list[nn.Module | float], output: OutputLayer) -> Callable[[Tensor], Tensor]:
        head, dtype, device = self._head, self._model.dtype, self._model.device

        @torch.inference_mode()
        def logits(stream: Tensor) -> Tensor:
            x = stream.to(device, dtype)[None]
            for step in tail:
                x = x * step if isinstance(step, float) else step(x)
            raw = head(x)[0]  # in the module's own type, as it does it
            if output.factor != 1:
                raw = raw * output.factor
            return (raw if output.cap is None else (raw / output.cap).tanh() * output.cap).float()

        return logits

    def _vectors(self, value: Any) -> Tensor | None:
        """A vector for each position that is looked at, `[positions, hidden]`; `None` if it is anything else."""
        stream = self._block.stream
        if not isinstance(value, Tensor) or stream is None or value.shape[-1:] != stream.shape[-1:]:
            return None
        rows = value.reshape(-1, value.shape[-1])[self._first :]
        return self._copied(rows) if rows.shape == stream.shape else None

    def _copied(self, value: Tensor) -> Tensor:
        """On one device, where the blocks are on several."""
        return value.to(self._model.device, copy=True)

    def _not_one_stream(self) -> InputError:
        return InputError(_(NOT_ONE_STREAM, kind=self._kind))


@dataclass
class _Added:
    """What a block adds to the stream, `[positions, hidden]` each.

    Attributes:
        norm: between attention's projection and the stream; `None` where it is not of a known kind.
        factor: of attention's addition.
        attention_of, mlp_of: the modules that give them and nothing else; `None` for one that gives the stream with
            what it adds.
    """

    attention: Tensor
    mlp: Tensor
    norm: Norm | None
    factor: float
    attention_of: nn.Module | None
    mlp_of: nn.Module | None


def _added(block: _Block, left: Tensor) -> _Added | None:
    """The two outputs of a block's children that make up what it adds; `None` where none do."""
    before = block.stream
    assert before is not None
    mixed = [call for call in block.calls if call.mixes][:1]
    for call in block.calls:  # and what directly follows attention: norms, dropout
        if mixed and call is not mixed[0] and any(torch.equal(one, mixed[-1].output) for one in call.given):
            mixed.append(call)
    others = [call for call in block.calls if all(call is not one for one in mixed[:1])]
    for scaled in (False, True):
        for attention in reversed(mixed):
            for mlp in reversed(others):
                for a, plain in _outputs(attention, before):
                    for m, m_plain in _outputs(mlp, before + a):
                        factors = _factors(left - before, a, m) if scaled else (1.0, 1.0)
                        if factors is None:
                            continue
                        a_scaled, m_scaled = (one if f == 1 else one * f for f, one in zip(factors, (a, m)))
                        if attention is not mlp and _adds_up(before, a_scaled, m_scaled, left):
                            norm = _norm_of(mixed[0], attention) if plain else None
                            of = (_giver(block, attention) if plain else None, _giver(block, mlp) if m_plain else None)
                            return _Added(a_scaled, m_scaled, norm, factors[0], *of)
    return None


def _attention_of(found: _Added, projection: Projection | None) -> nn.Module | None:
    """The module that gives what attention adds, be it a part of attention."""
    if found.attention_of is None and projection is not None and projection.norm == Norm("none"):
        return projection.product if isinstance(projection.product, nn.Module) else None
    return found.attention_of


def _giver(block: _Block, call: _Call) -> nn.Module | None:
    """The module that gives a call's output and nothing else: dropout passes things on, often of both parts."""
    for one in block.calls:
        if torch.equal(one.output, call.output) and sum(other.module is one.module for other in block.calls) == 1:
            return one.module
    return None


def _outputs(call: _Call, stream: Tensor) -> Iterator[tuple[Tensor, bool]]:
    """What a child may add to the stream: its output, or, if the stream was handed to it, that less the stream."""
    yield call.output, True
    if any(_close(one.float(), stream.float(), stream.dtype) for one in call.given):
        yield call.output - stream, False


def _of_attention(child: nn.Module) -> Iterator[nn.Module]:
    """The modules of attention in a child of a block, which may hold a feed-forward beside it (Zamba 2)."""
    named = ((name.rpartition(".")[2], one) for name, one in child.named_modules() if name)
    inner = [one for name, one in named if is_attention(name, one) and any(one.children())]  # not GPT-2's c_attn
    within = {part for one in inner or [child] for part in one.modules()}
    return (part for part in child.modules() if part in within)


def _norm_of(first: _Call, last: _Call) -> Norm | None:
    """What stands between attention's output and what is added of it."""
    if torch.equal(first.output, last.output):
        return Norm("none")
    return _read_norm(last.module, first.output, last.output)


def _factors(total: Tensor, a: Tensor, m: Tensor) -> tuple[float, float] | None:
    """The factors with which two parts make up a total, by least squares."""
    parts = torch.stack([a.flatten(), m.flatten()], 1).cpu().double()
    solved = torch.linalg.lstsq(parts, total.flatten()[:, None].cpu().double()).solution[:, 0]
    # A part with the factor 0 is in the other one already.
    usable = bool(solved.isfinite().all()) and float(solved.abs().min()) > 1e-3
    return (float(solved[0]), float(solved[1])) if usable else None


def _adds_up(before: Tensor, a: Tensor, m: Tensor, left: Tensor) -> bool:
    """Whether they differ by rounding alone, at every number."""
    difference = (before.float() + a.float() + m.float() - left.float()).abs()
    size = before.abs() + a.abs() + m.abs() + left.abs()
    small = bool((difference <= ULPS * torch.finfo(left.dtype).eps * size.float()).all())
    # Beside a large stream a wrong part may be small.
    part = difference.norm(dim=-1) / (left.float() - before.float()).norm(dim=-1).clamp_min(1e-12)
    return small and float(part.median()) <= 0.1


def _factor(scaled: Tensor, x: Tensor) -> float | None:
    """The one number that makes `x` what `scaled` is; `None` if there is none."""
    if torch.equal(scaled, x):
        return 1.0
    one, other = scaled.float().flatten(), x.float().flatten()
    factor = float(one @ other / (other @ other).clamp_min(1e-30))
    rounded = max(scaled.dtype, x.dtype, key=lambda dtype: torch.finfo(dtype).eps)  # a stream may be kept in more bits
    return factor if factor and _close(other * factor, one, rounded) else None


def _close(got: Tensor, right: Tensor, dtype: torch.dtype) -> bool:
    return bool((got - right).norm() <= CLOSE.get(dtype, ROUGH) * right.norm())


def _read_norm(module: nn.Module, x: Tensor, y: Tensor) -> Norm | None:
    """The norm that a module computes, as it gives `y` for `x`; `None` for anything else."""
    weight = getattr(module, "weight", None)
    bias = getattr(module, "bias", None)
    if y.shape != x.shape or (weight is not None and weight.shape != x.shape[-1:]):
        return None
    epsilon = next((float(value) for name in EPSILONS if (value := getattr(module, name, None)) is not None), 0.0)
    gain = None if weight is None else weight.detach().float().cpu()
    bias = None if not isinstance(bias, Tensor) else bias.detach().float().cpu()
    gains = [None] if gain is None else [gain, 1 + gain]  # Gemma's are kept less one
    x, y = x.float().cpu(), y.float().cpu()
    for kind in ("rms", "layer"):
        for one in gains:
            norm = Norm(kind, one, bias, epsilon)
            if _close(norm(x), y, _module_dtype(module)):
                return norm
    return None


def _module_dtype(module: nn.Module) -> torch.dtype:
    return next((weight.dtype for weight in module.parameters()), torch.float32)


def _final_norm(tail: list[nn.Module | float], width: int, weight: Tensor) -> Norm | None:
    """The norm in what follows the last block, where nothing but one norm does.

    Args:
        width: of the stream.
        weight: of the output layer, whose type and device are taken.
    """
    if not tail:
        return Norm("none")
    if len(tail) > 1 or isinstance(tail[0], float):
        return None
    x = torch.randn(4, width, generator=torch.Generator().manual_seed(0)).to(weight)
    return _read_norm(tail[0], x, tail[0](x))


def _blocks(model: Any, config: Any) -> nn.ModuleList | None:
    """The list of the model's blocks: of those as long as its configuration says, the largest one."""
    count = _whole(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers") or 0
    lists = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and not any(part in name for part in OTHER_PARTS)
    ]
    return max(lists, key=lambda one: sum(weight.numel() for weight in one.parameters()), default=None)


def _holds(module: nn.Module, blocks: nn.ModuleList) -> bool:
    return any(part is blocks for part in module.modules())
