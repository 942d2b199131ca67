"""Chat templates: a message in the form a model was taught to answer, as transformers renders it."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from engine.errors import InputError, first_line
from engine.language import _


def render(template: str, text: str, special_tokens: Mapping[str, str]) -> str:
    """One user's message and the beginning of the answer.

    The environment is that of transformers' `apply_chat_template`: sandboxed, with its functions.

    Raises:
        InputError: the template cannot be rendered.
    """
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def complain(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = complain
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    messages = [{"role": "user", "content": text}]
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, tools=None, documents=None, **special_tokens
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise InputError(_("the model's chat template cannot be used: {error}", error=first_line(error))) from error
