"""A serving engine behind the same events: vLLM, llama.cpp, or any server that speaks OpenAI's completions.

`connect` finds out what a server can do and gives back a `ServedModel`, which generates and scores as a `Model` does.
"""

from engine.models.capabilities import Capabilities
from engine.remote.connect import connect, served_models
from engine.remote.connection import RemoteError
from engine.remote.served import ServedModel

__all__ = ["Capabilities", "RemoteError", "ServedModel", "connect", "served_models"]
