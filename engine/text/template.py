"""Chat templates: programs in Jinja that make a text of a conversation, as transformers runs them (5.23).

A template comes with a model and is not trusted: it runs in a sandbox, and what it multiplies and writes has bounds.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.base.errors import InputError, first_line
from engine.base.language import _

if TYPE_CHECKING:
    import jinja2
    from jinja2 import nodes

LONGEST = 1_000_000  # characters that a template may add, and ten times what it is given
TODAY = "today"  # our own variable, of templates that ask for the date
JSON_VARIABLES = ("tools", "documents")
# What every rendering has.
_GIVEN = {"messages", "continue_final_message", "raise_exception", "strftime_now"}


class TemplateError(InputError):
    """What a template says of a conversation, or what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that a template reads.

    Attributes:
        kind: `flag`, `text`, `number` or `json`, as far as the template shows.
        default: what it has where it is not set, as far as the template says.
        values: those that it is compared with.
    """

    name: str
    kind: str
    default: Any = None
    values: tuple[str, ...] = ()


def render(
    template: str,
    messages: list[dict[str, Any]],
    special_tokens: Mapping[str, str],
    options: Mapping[str, Any],
    *,
    add_generation_prompt: bool,
) -> str:
    """The text that a template makes of messages.

    Raises:
        TemplateError: the template cannot be rendered, or refuses the messages.
    """
    import jinja2

    given = len(json.dumps(messages, ensure_ascii=False)) + len(json.dumps(dict(options), ensure_ascii=False))
    most = LONGEST + 10 * given
    now = _now(options.get(TODAY))
    own = {name: value for name, value in options.items() if name != TODAY}
    today = {"strftime_now": lambda form: now.strftime(form)}
    everything = {"tools": None, "documents": None, **special_tokens, **own, **today}
    try:
        written, size = [], 0
        for part in _compiled(template).generate(
            everything | {"messages": messages, "add_generation_prompt": add_generation_prompt}
        ):
            written.append(part)
            size += len(part)
            if size > most:
                raise jinja2.TemplateError(_("it writes without end"))
        return "".join(written)
    except Exception as error:  # a template is a program, and can fail in every way
        raise TemplateError(_("the model's chat template cannot be used: {error}", error=first_line(error))) from error


def _now(today: object) -> datetime:
    if today is None:
        return datetime.now()
    try:
        return datetime.fromisoformat(str(today))
    except ValueError as error:
        raise InputError(_("today is {today!r}; allowed: a date such as 2026-01-31", today=str(today)[:40])) from error


@lru_cache(maxsize=16)
def variables(template: str) -> tuple[Variable, ...]:
    """What a template reads beside the messages and the names of special tokens, in the order of its text.

    Raises:
        TemplateError: it is no template.
    """
    from jinja2 import TemplateError as Wrong
    from jinja2 import meta

    try:
        free = meta.find_undeclared_variables(_environment().parse(template))  # which changes the tree
        tree = _environment().parse(template)
    except Wrong as error:
        raise TemplateError(_("the model's chat template cannot be used: {error}", error=first_line(error))) from error
    given: dict[str, bool] = {}
    _note_uses(tree, frozenset(), given)
    names = [name for name, read in given.items() if (read or name in JSON_VARIABLES) and name in free - _GIVEN]
    found = tuple(_variable(name, tree) for name in names if not name.endswith("_token"))
    return (*found, Variable(TODAY, "text")) if "strftime_now" in given else found


def _note_uses(node: "nodes.Node", bound: frozenset[str], first: dict[str, bool]) -> None:
    """Note for each name, in the order in which a template runs, whether it is read before it is set.

    Args:
        bound: names that are a macro's own here, or a loop's.
    """
    from jinja2 import nodes

    match node:
        case nodes.Name():
            if node.name not in bound:
                first.setdefault(node.name, node.ctx == "load")
            return
        case nodes.Assign():
            parts: list[tuple[nodes.Node, frozenset[str]]] = [(node.node, bound), (node.target, bound)]
        case nodes.For():
            targets = (node.target, *node.target.find_all(nodes.Name))
            own = bound | {one.name for one in targets if isinstance(one, nodes.Name)}
            inner = [*([node.test] if node.test else []), *node.body]
            parts = [(node.iter, bound), *((one, own) for one in inner), *((one, bound) for one in node.else_)]
        case nodes.Macro() | nodes.CallBlock():
            own = bound | {one.name for one in node.args}
            call = [node.call] if isinstance(node, nodes.CallBlock) else []
            parts = [*((one, bound) for one in (*call, *node.defaults)), *((one, own) for one in node.body)]
        case _:
            parts = [(one, bound) for one in node.iter_child_nodes()]
    for part, own in parts:
        _note_uses(part, own, first)


@lru_cache(maxsize=64)
def literal_text(template: str) -> str:
    """All texts that stand in a template, which it writes or compares with.

    Source: transformers, `_get_template_literal_text`.
    """
    from jinja2 import TemplateError as Wrong
    from jinja2 import nodes

    try:
        tree = _environment().parse(template)
    except Wrong:
        return template
    texts = [one.data for one in tree.find_all(nodes.TemplateData)]
    return "\0".join([*texts, *(one.value for one in tree.find_all(nodes.Const) if isinstance(one.value, str))])


def _variable(name: str, tree: "nodes.Template") -> Variable:
    """How a template uses a variable."""
    from jinja2 import nodes

    if name in JSON_VARIABLES or name.endswith(("_tools", "_documents")):
        return Variable(name, "json")
    if name == "add_generation_prompt":
        return Variable(name, "flag", True)
    compared, default = list(_compared(name, tree)), _default(name, tree)
    texts = tuple(dict.fromkeys(value for value in compared if isinstance(value, str)))
    if texts or isinstance(default, str):
        kind = "text"
    elif any(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (*compared, default)):
        kind = "number"
    elif any(
        _is_name(part, name) for one in tree.find_all(nodes.For) for part in (one.iter, *one.iter.iter_child_nodes())
    ):
        kind = "json"
    elif any(isinstance(value, bool) for value in (*compared, default)):
        kind = "flag"
    elif _is_tested(name, tree):
        kind = "text" if _is_written(name, tree) else "flag"
    elif (other := _other_name(name, tree)) is not None:
        kind = _variable(other, tree).kind
    else:
        kind = "text"
    return Variable(name, kind, default, texts)


def _compared(name: str, tree: "nodes.Template") -> Iterator[Any]:
    """Constants that stand beside a variable in comparisons and tests."""
    from jinja2 import nodes

    for one in tree.find_all(nodes.Compare):
        sides = [one.expr, *(operand.expr for operand in one.ops)]
        if any(isinstance(side, nodes.Name) and side.name == name for side in sides):
            for side in sides:
                parts = side.items if isinstance(side, (nodes.List, nodes.Tuple)) else [side]
                yield from (part.value for part in parts if isinstance(part, nodes.Const))
    for test in tree.find_all(nodes.Test):
        if isinstance(test.node, nodes.Name) and test.node.name == name and test.name in ("true", "false"):
            yield test.name == "true"


def _default(name: str, tree: "nodes.Template") -> Any:
    """What a variable has where it is not given."""
    from jinja2 import nodes

    for one in tree.find_all(nodes.Filter):
        own = isinstance(one.node, nodes.Name) and one.node.name == name and one.name in ("default", "d")
        if own and one.args and isinstance(one.args[0], nodes.Const):
            return one.args[0].value
    for assign in tree.find_all(nodes.Assign):
        own = isinstance(assign.target, nodes.Name) and assign.target.name == name
        if own and isinstance(assign.node, nodes.Const):
            return assign.node.value
    return None


def _is_tested(name: str, tree: "nodes.Template") -> bool:
    """Whether it decides a branch by itself: `{% if name %}`, `not name`, `a and name`."""
    from jinja2 import nodes

    for one in tree.find_all((nodes.If, nodes.CondExpr, nodes.Not, nodes.And, nodes.Or)):
        for child in (one.test,) if isinstance(one, (nodes.If, nodes.CondExpr)) else one.iter_child_nodes():
            if _is_name(child, name):
                return True
    return False


def _is_written(name: str, tree: "nodes.Template") -> bool:
    """Whether its value becomes text: `{{ name }}`, `"a" + name`, `name | trim`."""
    from jinja2 import nodes

    for one in tree.find_all((nodes.Output, nodes.Concat, nodes.Add, nodes.Filter)):
        is_default = isinstance(one, nodes.Filter) and one.name in ("default", "d")
        if not is_default and any(_is_name(part, name) for part in one.iter_child_nodes()):
            return True
    return False


def _other_name(name: str, tree: "nodes.Template") -> str | None:
    """What a template calls it too: `{% set thinking = enable_thinking %}`."""
    from jinja2 import nodes

    for one in tree.find_all(nodes.Assign):
        if _is_name(one.node, name) and isinstance(one.target, nodes.Name) and one.target.name != name:
            return one.target.name
    return None


def _is_name(node: "nodes.Node", name: str) -> bool:
    from jinja2 import nodes

    return isinstance(node, nodes.Name) and node.name == name


@lru_cache(maxsize=16)
def _compiled(template: str) -> "jinja2.Template":
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment() -> "jinja2.Environment":
    """That of transformers' `apply_chat_template`: sandboxed, with its functions."""
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

    class Namespace(jinja2.utils.Namespace):
        """One that takes no name which Python keeps for itself."""

        def __init__(*given: Any, **own: Any) -> None:  # a name may be `self`
            space, *rest = given
            for name in dict(*rest, **own):
                Namespace._check(name)
            jinja2.utils.Namespace.__init__(space, *rest, **own)

        def __setitem__(self, name: str, value: Any) -> None:
            Namespace._check(name)
            super().__setitem__(name, value)

        @staticmethod
        def _check(name: object) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.TemplateError(_("it sets the name {name}, which it may not", name=name[:40]))

    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": complain, "namespace": Namespace}
    return environment


def _times(value: Any) -> int:
    return value if isinstance(value, int) else 1
