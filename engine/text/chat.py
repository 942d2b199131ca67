"""Chat templates: a message in the form a model was taught to answer, as transformers renders it."""

import json
from collections.abc import Callable, Mapping, Sized
from datetime import datetime
from typing import Any

from engine.base.errors import InputError, first_line
from engine.base.language import _

LONGEST = 1_000_000  # characters that a template may add


def render(template: str, text: str, special_tokens: Mapping[str, str]) -> str:
    """One user's message and the beginning of the answer.

    The environment is that of transformers' `apply_chat_template`: sandboxed, with its functions.

    Raises:
        InputError: the template cannot be rendered.
    """
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def complain(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    class Generation(Extension):
        """`{% generation %}` marks what the model is to have written: it shows as it is."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_as_it_is"), [], [], body).set_lineno(line)

        def _as_it_is(self, caller: Callable[[], str]) -> str:
            return caller()

    class Environment(ImmutableSandboxedEnvironment):
        """One in which no product takes the memory of the machine."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or len(left if isinstance(left, Sized) else ()) * _times(right) > LONGEST:
                raise jinja2.TemplateError(_("it multiplies without bounds"))
            if len(right if isinstance(right, Sized) else ()) * _times(left) > LONGEST:
                raise jinja2.TemplateError(_("it multiplies without bounds"))
            return super().call_binop(context, operator, left, right)

    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = complain
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    messages = [{"role": "user", "content": text}]
    try:
        written, size = [], 0
        for part in environment.from_string(template).generate(
            messages=messages, add_generation_prompt=True, tools=None, documents=None, **special_tokens
        ):
            written.append(part)
            size += len(part)
            if size > LONGEST + len(text):
                raise jinja2.TemplateError(_("it writes without end"))
        return "".join(written)
    except Exception as error:  # a template is a program, and can fail in every way
        raise InputError(_("the model's chat template cannot be used: {error}", error=first_line(error))) from error


def _times(value: Any) -> int:
    return value if isinstance(value, int) else 1
