"""Whether a network of ours agrees with transformers' module on this machine.

A processor without the right instructions, or a torch whose private operators have changed, must not give
other text in silence. The first time a model runs here in some precision, its first layers go through both
implementations; the outcome is remembered as long as nothing it depends on changes.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import torch

from engine.base.errors import first_line
from engine.base.language import _
from engine.base.machine import no_memory
from engine.networks import operators
from engine.networks.divergence import divergence as divergences
from engine.networks.kernels import notes
from engine.networks.network import Network
from engine.networks.sources import Source
from engine.networks.turning import TurningNetwork
from engine.networks.used import NetworkUsed, record, recorded

LAYERS = 2
TOKENS = 16
# Norm of the difference of the logits over the norm of transformers' in float32. A wrong layer gives about 1.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05, "native": 0.05}


def choose(
    name: str,
    source: Source,
    dtype: torch.dtype,
    *,
    native: bool,
    device: str = "cpu",
    spread: bool = False,
    cache_dir: Path | None = None,
    measuring: Callable[[], None] = lambda: None,
) -> NetworkUsed:
    """Which network is to run a model: from memory, or else measured now.

    Args:
        name: under which the outcome is remembered.
        spread: whether the model is larger than one GPU, which networks of ours run on.
        measuring: called before a measurement, which takes seconds.
    """
    kind = "native" if native else str(dtype).removeprefix("torch.")
    precision = f"{kind}, compiled" if operators.used().encodings else kind
    if spread:
        precision = f"{kind}, spread"
    key = _key(source, device)
    for used in recorded(cache_dir):
        if (used.name, used.precision, used.device, used.key) == (name, precision, device, key):
            return used
    why = source.uncovered() or (_("larger than one GPU") if spread else None)
    own = why is None
    if why is None:
        measuring()

        def few_layers() -> Network:
            return source.own(dtype, native=native, device=device, layers=LAYERS)

        own, why = compare(
            few_layers,
            lambda: source.reference(torch.float32, device=device, layers=LAYERS),
            TOLERANCES[kind],
        )
        from engine.networks.door import fails  # imports transformers, which a start from memory does not wait for

        if own and (failed := fails(stepping(few_layers(), device, after=0), torch.bfloat16 if native else dtype)):
            own, why = False, _("our own network: {failed}", failed=failed)
    used = NetworkUsed(name, precision, device, own, source.own_name if own else "transformers", why, key)
    if own:  # else it is remembered once the module has passed the door
        record(used, cache_dir)
    return used


def stepping(network: Network, device: str, after: int | None = None) -> Network:
    """A network of ours with its single steps made fast for a device.

    Args:
        after: on a GPU, how many steps a text takes before they are captured; as many as pay when `None`.
    """
    if isinstance(network, TurningNetwork):
        return network.each(lambda inner: stepping(inner, device, after))
    if device == "cuda":
        from engine.networks.graphs import PAYS_AFTER, GraphedNetwork

        return GraphedNetwork(network, PAYS_AFTER if after is None else after)
    if device == "cpu":
        from engine.networks.traced import TracedNetwork

        return TracedNetwork(network)
    return network


def compare(own: Callable[[], Network], reference: Callable[[], Network], tolerance: float) -> tuple[bool, str]:
    """Run a few tokens through both, a prefill and then one step. Returns whether they agree, and in words."""
    try:
        ours = own()
        ids = (torch.arange(2 * TOKENS).view(2, TOKENS) * 7919) % ours.vocabulary_size
        got = _logits(ours, ids)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        if no_memory(error):  # which is no fault of the network, and another time there may be enough
            raise
        return False, _("our own network fails on this machine: {error}", error=first_line(error))
    expected = _logits(reference(), ids)
    difference = float((got - expected).norm() / expected.norm())
    if difference <= tolerance:  # false for NaN
        return True, _(
            "agrees with transformers to {difference:.1g}, KL {divergence:.1g} nats",
            difference=difference,
            divergence=divergence(expected, got),
        )
    return False, _(
        "our own network's logits differ by {difference:.2g}, more than {tolerance:g}",
        difference=difference,
        tolerance=tolerance,
    )


def divergence(expected: torch.Tensor, got: torch.Tensor) -> float:
    """Mean Kullback-Leibler divergence of the distributions of logits `got` from those of `expected`, nats."""
    theirs, ours = expected.double().log_softmax(-1), got.double().log_softmax(-1)
    return float(divergences(theirs, ours).mean())


def _logits(network: Network, ids: torch.Tensor) -> torch.Tensor:
    cache = network.cache(ids.shape[1], [0] * len(ids))
    prefill = network.forward(ids[:, :-1], cache, all_logits=True).all_logits()
    step = network.forward(ids[:, -1:], cache).logits()
    return torch.cat([prefill, step[:, None]], dim=1).float().cpu()


def _key(source: Source, device: str) -> str:
    """Everything the outcome depends on: model, our code, libraries, processor, and the GPU where one computes."""
    code = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    parts = [
        json.dumps(source.config, sort_keys=True, default=str),
        str(source.size),
        str(source.uncovered()),
        hashlib.sha256(code).hexdigest(),
        torch.__version__,
        importlib.metadata.version("transformers"),
        torch.backends.cpu.get_cpu_capability(),
        *notes(),
        *sorted(operators.used().encodings),
        str(operators.used().attends),
        *(_gpu() if device == "cuda" else ()),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _gpu() -> tuple[str, ...]:
    """The GPU and what computes on it: files of a user may be shared by machines with others."""
    gpu = torch.cuda.current_device()
    versions = (torch.version.cuda, torch.version.hip, torch.backends.cudnn.version())
    return (torch.cuda.get_device_name(gpu), *map(str, (*torch.cuda.get_device_capability(gpu), *versions)))
