"""What is done to transformers' module while it runs (see `changes`), by hooks on one forward."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.base.errors import InputError
from engine.base.language import N_, _
from engine.networks.changes import Change, make, running_mean, unlike
from engine.networks.module_look import UNLIKE, BlockParts, parts
from engine.networks.watched import Anatomy

# Of the text by which a module's parts are found.
TOKENS = 24

NO_HEADS = N_("the heads of layer {layer} of this architecture, {kind}, cannot be told apart")


class ModuleChanges:
    """Hooks that make changes.

    Args:
        model: a `PreTrainedModel` with an output layer.
        found: of each block the modules that do its parts.

    Raises:
        InputError: a part whose share is not known.
    """

    def __init__(self, model: Any, found: Sequence[BlockParts], changes: Sequence[Change]) -> None:
        kind = model.config.get_text_config().model_type
        self._found = found
        self._changes = tuple(changes)
        for change in changes:
            if change.point in ("block", "stream"):
                continue
            part = found[change.layer]
            if change.point == "heads" and part.projection is None:
                raise InputError(part.unseen or _(NO_HEADS, layer=change.layer, kind=kind))
            if change.point in ("attention", "mlp") and getattr(part, change.point) is None:
                raise InputError(_(UNLIKE, layer=change.layer, kind=kind))

    def of(self, anatomy: Anatomy) -> Anatomy:
        """What the changed module is made of."""
        return unlike(anatomy, self._changes)

    @property
    def takes_means(self) -> bool:
        return any(change.how == "mean" for change in self._changes)

    @contextmanager
    def made(self, positions: Tensor) -> Iterator[None]:
        """While the module runs, for tokens at these positions of each lane's text; below zero for padding.

        Means are over the positions of the one forward: where some are taken it is of whole texts.

        Args:
            positions: `[lanes, positions]`.
        """
        with ExitStack() as stack:
            for change in self._changes:
                for module, register, hook in self._hooks(change, positions):
                    stack.callback(getattr(module, register)(hook, with_kwargs=True).remove)
            yield

    def _hooks(self, change: Change, positions: Tensor) -> Iterator[tuple[nn.Module, str, Callable[..., Any]]]:
        heads = self._found[change.layer].heads if change.point == "heads" else 0

        def made(value: Tensor) -> Tensor:
            places = positions.to(value.device)
            parts = value.reshape(-1, places.shape[1], value.shape[-1])  # OPT lays all lanes' positions in one row
            changed = make(change, parts, places, heads, lambda one: running_mean(one, places >= 0))
            return changed.reshape(value.shape)

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            return _with_first(output, made(_first(output)))

        def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if args:
                return (made(args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": made(kwargs["hidden_states"])}

        if change.point == "block":
            entered: list[Tensor] = []

            def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
                entered[:] = [(args[0] if args else kwargs["hidden_states"]).clone()]

            def skip(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
                return _with_first(output, entered[0].to(_first(output).device))

            yield self._found[change.layer].block, "register_forward_pre_hook", enter
            yield self._found[change.layer].block, "register_forward_hook", skip
        elif change.point == "heads":
            projection = self._found[change.layer].projection
            assert projection is not None
            yield projection, "register_forward_pre_hook", before
        elif change.point == "stream" and change.layer == 0:
            yield self._found[0].block, "register_forward_pre_hook", before
        elif change.point == "stream":
            yield self._found[change.layer - 1].block, "register_forward_hook", after
        else:
            yield getattr(self._found[change.layer], change.point), "register_forward_hook", after


def parts_of(model: Any, vocabulary: int) -> list[BlockParts]:
    """Of each block the modules that do its parts. Raises `InputError` where it has no single stream of vectors."""
    generator = torch.Generator().manual_seed(0)
    return parts(model, torch.randint(min(3, vocabulary - 1), vocabulary, (1, TOKENS), generator=generator))


def _first(output: Any) -> Tensor:
    value: Tensor = output[0] if isinstance(output, tuple | list) else output
    return value


def _with_first(output: Any, value: Tensor) -> Any:
    if isinstance(output, tuple):
        return (value, *output[1:])
    return [value, *output[1:]] if isinstance(output, list) else value
