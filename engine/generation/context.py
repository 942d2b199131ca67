"""Whether a prompt and its new tokens fit the model's context."""

from engine.base.errors import ContextError, InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig


def check_context(prompt_tokens: int, config: GenerationConfig, context_length: int) -> None:
    """Raise unless the prompt and its new tokens fit the model's context."""
    if prompt_tokens == 0:
        raise InputError(_("the prompt is empty; type at least one character"))
    if prompt_tokens > context_length:
        raise ContextError(
            _(
                "the prompt has {prompt_tokens:,} tokens, the model's context holds {context_length:,}; shorten the "
                "prompt",
                prompt_tokens=prompt_tokens,
                context_length=context_length,
            )
        )
    if prompt_tokens + config.max_new_tokens > context_length:
        room = context_length - prompt_tokens
        raise ContextError(
            _(
                "{prompt_tokens:,} prompt tokens and {max_new_tokens:,} new ones exceed the context of "
                "{context_length:,}; ",
                prompt_tokens=prompt_tokens,
                max_new_tokens=config.max_new_tokens,
                context_length=context_length,
            )
            + (_("lower max_new_tokens to {room:,}", room=room) if room else _("shorten the prompt"))
        )
