"""The laboratory without a screen.

    from engine import PRESETS, generate, load_model

    model = load_model("smollm2-135m")
    for event in generate(model.network, model.tokenizer, ["The sky"], [PRESETS["greedy"]]):
        ...

Names load on first use, so that importing the package does not import torch.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "PRESETS": "engine.generation.config",
    "GenerationConfig": "engine.generation.config",
    "load_config": "engine.generation.config",
    "generate": "engine.generation.loop",
    "load_model": "engine.loading",
    "Lab": "engine.lab",
    "Conversation": "engine.text.conversation",
    "Message": "engine.text.conversation",
    "Token": "engine.text.token",
    "Tokenizer": "engine.text.tokenizer",
    "distribution": "engine.generation.distribution",
    "record": "engine.inside.record",
    "lens": "engine.inside.lens",
    "trajectory": "engine.inside.lens",
    "attention": "engine.inside.attention",
    "attention_map": "engine.inside.attention",
    "attribution": "engine.inside.attribution",
    "occlusion": "engine.inside.occlusion",
    "Sweep": "engine.timing.sweep",
    "time_runs": "engine.timing.runs",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
