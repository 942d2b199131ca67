"""Two hundred JSON schemas and more, of all the keywords that can be followed, each of which some short text fits."""

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

Schema = dict[str, Any]

TEXT, WHOLE, NUMBER, TRUTH, NOTHING = ({"type": t} for t in ("string", "integer", "number", "boolean", "null"))
SIMPLE = (TEXT, WHOLE, NUMBER, TRUTH, NOTHING)


def _scalars() -> Iterator[Schema]:
    yield from SIMPLE
    yield from ({"type": [a["type"], b["type"]]} for a, b in combinations(SIMPLE, 2))
    for least, most in product((0, 1, 3), (3, 5, None)):
        yield TEXT | {"minLength": least} | ({} if most is None else {"maxLength": most})
    for least, most in product((-5, 0, 7), (7, 12, None)):
        yield WHOLE | {"minimum": least} | ({} if most is None else {"maximum": most})
        yield NUMBER | {"minimum": least} | ({} if most is None else {"maximum": most})
    for below, above in ((0, 10), (-3, 3), (99, 101)):
        yield WHOLE | {"exclusiveMinimum": below, "exclusiveMaximum": above}
        yield NUMBER | {"exclusiveMinimum": below, "exclusiveMaximum": above}
    yield from (WHOLE | {"multipleOf": step} for step in (2, 3, 7, 10))
    for pattern in ("^[a-z]+$", "^a{2,4}$", "[0-9]", "^(yes|no)$", "^\\d{2}-\\d{2}$", "^é", "[a1}]."):
        yield TEXT | {"pattern": pattern}
    for form in ("date", "time", "date-time", "ipv4", "uuid", "email", "hostname"):
        yield TEXT | {"format": form}
    for value in ("a", 'say "x"', "é\n", 3, -2.5, True, None, [], {}, [1, "a"], {"a": {"b": None}}):
        yield {"const": value}
        yield {"enum": [value, "other", 17]}


def _lists() -> Iterator[Schema]:
    yield {"type": "array"}
    for item in SIMPLE:
        yield {"type": "array", "items": item}
        yield {"type": "array", "items": item, "minItems": 2, "maxItems": 3}
        yield {"type": "array", "items": {"type": "array", "items": item}, "maxItems": 2}
        yield {
            "type": "array",
            "items": {"type": "object", "properties": {"a": item}, "required": ["a"]},
            "maxItems": 2,
        }
    for first, second in combinations(SIMPLE, 2):
        yield {"type": "array", "prefixItems": [first, second], "items": False, "minItems": 2}
    yield {"type": "array", "prefixItems": [TEXT], "items": WHOLE, "minItems": 1}


def _objects() -> Iterator[Schema]:
    yield {"type": "object"}
    for first, second in product(SIMPLE, SIMPLE):
        shape = {"type": "object", "properties": {"first": first, "second": second}}
        yield shape | {"required": ["first", "second"], "additionalProperties": False}
    for item in SIMPLE:
        yield {"type": "object", "additionalProperties": item}
        yield {"type": "object", "properties": {"inner": {"type": "object", "properties": {"deep": item}}}}
    for need in ([], ["a"], ["b", "c"], ["a", "b", "c"]):
        shape = {"type": "object", "properties": dict.fromkeys("abc", WHOLE), "required": need}
        yield shape
        yield shape | {"additionalProperties": False}
        yield shape | {"additionalProperties": TRUTH}
    yield {"type": "object", "required": ["anything"]}
    yield {"type": "object", "patternProperties": {"^n_": NUMBER}, "additionalProperties": False}
    yield {"type": "object", "minProperties": 2}
    yield {"type": "object", "maxProperties": 1}
    yield {"type": "object", "properties": {'say "é"': TEXT}, "required": ['say "é"'], "additionalProperties": False}


def _composed() -> Iterator[Schema]:
    yield from ({"anyOf": [a, b]} for a, b in combinations(SIMPLE, 2) if (a, b) != (WHOLE, NUMBER))
    yield from ({"oneOf": [a, b]} for a, b in combinations(SIMPLE, 2) if (a, b) != (WHOLE, NUMBER))
    yield from ({"type": "object", "properties": {"a": {"anyOf": [one, NOTHING]}}, "required": ["a"]} for one in SIMPLE)
    yield {"allOf": [WHOLE, {"minimum": 3}, {"maximum": 9}]}
    yield {"allOf": [{"type": "object", "properties": {"a": WHOLE}}, {"required": ["a"]}]}
    tree = {"type": "object", "properties": {"value": WHOLE, "next": {"$ref": "#/$defs/node"}}, "required": ["value"]}
    yield {"$ref": "#/$defs/node", "$defs": {"node": tree | {"additionalProperties": False}}}
    yield {"type": "object", "properties": {"child": {"$ref": "#"}}, "additionalProperties": False}
    yield {"type": "array", "items": {"$ref": "#/definitions/word"}, "definitions": {"word": TEXT}, "maxItems": 2}
    person = {"name": TEXT | {"maxLength": 8}, "age": WHOLE | {"minimum": 0, "maximum": 120}, "tags": {"enum": ["a"]}}
    yield {"type": "object", "properties": person, "required": list(person), "additionalProperties": False}


SCHEMAS: tuple[Schema, ...] = (*_scalars(), *_lists(), *_objects(), *_composed())
