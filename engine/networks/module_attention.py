"""Attention weights and values of transformers' module, from a forward of its own that computes them step by step."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from engine.base.language import N_, _
from engine.networks.watched import Watch

# Attention weights of a block over the whole text are in memory at once; above so many numbers they are left out.
MOST_WEIGHTS = 250_000_000
# Norm of the difference of the stream after the last block, over its own: as where ways are compared (`door`).
CLOSE = {torch.float32: 1e-3}
ROUGH = 0.05

PRODUCTS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)

NO_ATTENTION = N_("this architecture, {kind}, has no attention to look at")
UNSEEN = N_("the module of this architecture, {kind}, gives no attention weights")
UNFAITHFUL = N_("attention weights of this architecture, {kind}, would come from other answers than the lane's")
TOO_LONG = N_("the text is too long to look at its attention; shorten it")


def attentions(
    model: Any, blocks: nn.ModuleList, ids: Tensor, first: int, left: Tensor, watch: Watch
) -> tuple[list[int], str]:
    """Call `watch` with each block's weights, and with its values where the module hands them over or multiplies them.

    Args:
        left: the stream after the last block, as the module computes it otherwise, `[1, length, hidden]`.

    Returns:
        How many heads each block has, 0 where it has no weights, and why there are none, in words; empty where there
        are some.
    """
    config = model.config.get_text_config()
    kind, none = config.model_type, [0] * len(blocks)
    mixing = [[child for name, child in block.named_children() if is_attention(name, child)] for block in blocks]
    if not any(mixing):
        hidden = any("attention" in type(part).__name__.lower() for part in blocks.modules())
        return none, _(UNSEEN if hidden else NO_ATTENTION, kind=kind)
    heads = getattr(config, "num_attention_heads", 1)
    if ids.shape[1] ** 2 * (heads if isinstance(heads, int) else max(heads)) > MOST_WEIGHTS:
        return none, _(TOO_LONG)
    kept: list[dict[str, Tensor]] = [{} for _block in blocks]
    last: list[Tensor] = []
    running = [0]

    def enter(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            watch("stream", -1, left)  # so that it can be ended within a block
            running[0] = layer

        return hook

    def attended(weights: Tensor | None, values: Tensor) -> None:
        here = kept[running[0]]
        if weights is not None and "values" not in here:
            here["weights"], here["values"] = weights[0, :, first:].clone(), values[0].clone()

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        tensors = [one for one in output[1:] if isinstance(one, Tensor)] if isinstance(output, tuple | list) else []
        for weights in tensors:
            here = kept[running[0]]
            if weights.dim() == 4 and weights.shape[-2:] == (ids.shape[1], ids.shape[1]) and "weights" not in here:
                here["weights"] = weights[0, :, first:].clone()
                if (values := products.weighed(weights)) is not None:
                    here["values"] = values

    def after(module: nn.Module, args: Any, output: Any) -> None:
        last.append(output[0] if isinstance(output, tuple | list) else output)

    products = _Products()
    with ExitStack() as stack:
        for layer, (block, parts) in enumerate(zip(blocks, mixing, strict=True)):
            stack.callback(block.register_forward_pre_hook(enter(layer)).remove)
            for part in parts:
                stack.callback(part.register_forward_hook(leave).remove)
        stack.callback(blocks[-1].register_forward_hook(after).remove)
        stack.enter_context(_step_by_step(model, attended))
        stack.enter_context(products)
        model(input_ids=ids.to(model.device), output_attentions=True, return_dict=True)
    seen = [here for here in kept if "weights" in here]
    if not seen:
        return none, _(UNSEEN, kind=kind)
    difference = (last[-1].float() - left.float()).norm(dim=-1) / left.float().norm(dim=-1).clamp_min(1e-12)
    worst = difference.max() if left.dtype == torch.float32 else difference.median()
    if not float(worst) <= CLOSE.get(left.dtype, ROUGH):
        return none, _(UNFAITHFUL, kind=kind)
    for layer, here in enumerate(kept):
        if "weights" in here:
            watch("weights", layer, here["weights"])
        if "values" in here:
            watch("values", layer, here["values"])
    return [len(here["weights"]) if "weights" in here else 0 for here in kept], ""


class _Products(TorchFunctionMode):
    """Keeps the last product of matrices that may be that of attention weights and values."""

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[Tensor, Tensor] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS and len(args) == 2 and args[0].dim() > 2 and args[0].shape[-1] == args[0].shape[-2]:
            self._last = args
        return func(*args, **(kwargs or {}))

    def weighed(self, weights: Tensor) -> Tensor | None:
        """What weights `[1, heads, length, length]` were multiplied with, `[key heads, length, head_size]`."""
        if self._last is None:
            return None
        left, right = self._last
        if left.numel() != weights.numel() or not torch.equal(left.reshape(weights.shape), weights):
            return None
        return right.reshape(-1, *right.shape[-2:]).clone()


def is_attention(name: str, module: nn.Module) -> bool:
    """Whether a child of a block is its attention."""
    words = (name + type(module).__name__).lower()
    return ("attention" in words or "attn" in words) and not any(w in words for w in ("norm", "dropout", "ln_"))


@contextmanager
def _step_by_step(model: Any, attended: Callable[[Tensor | None, Tensor], None]) -> Iterator[None]:
    """Have attention computed step by step, and call `attended` with its weights and values.

    Modules that use transformers' interface for attention look the function up at every call.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        usual = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
        output, weights = usual(module, query, key, value, *args, **kwargs)
        attended(weights, value)
        return output, weights

    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    before = {key: kind for key, config in configs.items() if (kind := getattr(config, "_attn_implementation", None))}
    ALL_ATTENTION_FUNCTIONS["eager"] = attention
    try:
        for key in before:
            configs[key]._attn_implementation_internal = "eager"
        yield
    finally:
        for key, kind in before.items():
            configs[key]._attn_implementation_internal = kind
        del ALL_ATTENTION_FUNCTIONS["eager"]
