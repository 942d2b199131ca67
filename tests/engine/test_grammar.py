"""Grammars against other people's readings of them: `regex` by partial matches, `jsonschema`, and the tokenizer."""

import json
import random
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import jsonschema
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, trainers

from engine.base.errors import ConfigError, InputError
from engine.generation.config import GenerationConfig, Strategy
from engine.generation.constraint import Constraint, constraint_of
from engine.generation.events import Event, Finished, Start, Stepped
from engine.models.local import LocalModel
from engine.text.tokenizer import Tokenizer
from tests.conftest import byte_level_tokenizer
from tests.schemas import SCHEMAS


def constraint(tokenizer: Tokenizer, written: str = "", **settings: Any) -> Constraint:
    found = constraint_of(GenerationConfig(**settings), tokenizer)
    assert found is not None
    for id in tokenizer.encode_continuation(written) if written else ():
        found.append(id)
    return found


def allowed(found: Constraint, tokenizer: Tokenizer) -> set[int]:
    return set(found.allowed(tokenizer.vocabulary_size).nonzero()[:, 0].tolist())


def test_a_regular_expression_allows_what_begins_a_match(tokenizer: Tokenizer) -> None:
    """The oracle is `regex`, which matches a text in part; tokens that are no whole characters are left aside."""
    chance = random.Random(0)
    for pattern, written in (
        (r"[0-9]{3}-[0-9]{4}", ("", "12", "123-")),
        (r"(red|green|blue)( and (red|green))*!?", ("", "re", "red", "red and g")),
        (r"[A-Z][a-z]+ (is|was) .{3,20}\.", ("", "The", "Sky is", "Sky is blu")),
        (r"(a+)+b", ("", "aaa")),
        (r"é*[あ-ん]{2}", ("", "é", "あ")),
    ):
        for text in written:
            found = constraint(tokenizer, text, regex=pattern)
            if found.forced():
                continue  # one text alone can come, and of the ways to cut it the tokenizer's
            possible = allowed(found, tokenizer)
            assert possible & tokenizer.eos_ids == (tokenizer.eos_ids if regex.fullmatch(pattern, text) else set())
            for id in [*possible, *chance.choices(range(tokenizer.vocabulary_size), k=2000)]:
                one = tokenizer.piece(id)
                if not tokenizer.is_special(id) and "�" not in one:
                    fits = bool(regex.fullmatch(pattern, text + one, partial=True))
                    assert (id in possible) == fits, (pattern, text, one)


def walk(found: Constraint, tokenizer: Tokenizer, chance: random.Random) -> str:
    """A text that chance writes under a grammar, which soon takes what brings it to an end."""
    closing, short = ([tokenizer.encode_continuation(text)[0] for text in some] for some in ('"@}]', '"}]@1a0:,'))
    ends = list(tokenizer.eos_ids)
    data = b""
    for step in range(400):
        possible = found.allowed(tokenizer.vocabulary_size)
        if found.complete or (step > 8 and possible[ends].any()):
            return data.decode()
        possible[ends] = False
        some = [id for id in (short if step <= 20 else closing) if step > 8 and possible[id]]
        id = chance.choice(some or possible.nonzero()[:, 0].tolist())
        data += tokenizer.bytes_of(id)
        found.append(id)
    pytest.fail(f"no end in {data!r}")


def test_what_a_schema_lets_through_is_valid(tokenizer: Tokenizer) -> None:
    assert len(SCHEMAS) >= 200
    small = Tokenizer(byte_level_tokenizer(), eos_ids=[0])
    for number, schema in enumerate(SCHEMAS):
        words = small if number % 10 else tokenizer
        text = walk(constraint(words, schema=json.dumps(schema)), words, random.Random(number))
        jsonschema.validate(json.loads(text), schema)


def test_special_tokens_are_no_text(tokenizer: Tokenizer) -> None:
    found = constraint(tokenizer, regex=r"<\|im_end\|>")
    assert not any(map(tokenizer.is_special, allowed(found, tokenizer)))
    assert tokenizer.bytes_of(found.forced()[0]) == b"<"


def test_a_text_that_must_come_is_cut_as_the_tokenizer_cuts_it(tokenizer: Tokenizer) -> None:
    found = constraint(tokenizer, grammar='start: "The sky above the city" "."?')
    assert found.forced() == tokenizer.encode_continuation("The sky above the city")
    assert allowed(found, tokenizer) == {found.forced()[0]}


def test_choices_end_where_one_of_them_does(tokenizer: Tokenizer) -> None:
    found = constraint(tokenizer, "yes", choices=("yes", "yes, sir", 'a "b"\n\\', "あ"))
    assert not found.complete
    assert allowed(found, tokenizer) >= tokenizer.eos_ids
    for choice in ('a "b"\n\\', "あ", "yes, sir"):
        assert constraint(tokenizer, choice, choices=("yes", "yes, sir", 'a "b"\n\\', "あ")).complete


def test_an_end_of_text_does_not_come_where_it_is_passed_over(tokenizer: Tokenizer) -> None:
    found = constraint(tokenizer, "yes", choices=("yes", "yes, sir"), ignore_eos=True)
    assert not allowed(found, tokenizer) & tokenizer.eos_ids


def test_going_back_and_on_alone(tokenizer: Tokenizer) -> None:
    found = constraint(tokenizer, choices=("red", "green"))
    before, other = allowed(found, tokenizer), found.copy()
    other.append(tokenizer.encode_continuation("red")[0])
    assert other.complete
    assert allowed(found, tokenizer) == before
    other.rollback(1)
    assert allowed(other, tokenizer) == before


def test_what_does_not_fit_is_refused_with_what_would(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_continuation("12a")
    with pytest.raises(InputError, match=r"“a” does not fit the regex there; possible: 0 1 2 3 4"):
        constraint(tokenizer, regex="[0-9]{4}").check_fits(ids)
    with pytest.raises(InputError, match="does not fit"):
        constraint_of(GenerationConfig(regex="[0-9]{4}"), tokenizer, ids)
    done = constraint(tokenizer, "1", regex="[0-9]")
    with pytest.raises(InputError, match="does not fit"):
        done.check_fits(tokenizer.encode_continuation("2"))


def test_a_vocabulary_without_an_end_of_text_ends_with_its_grammar() -> None:
    tokenizer = Tokenizer(byte_level_tokenizer())
    found = constraint(tokenizer, choices=("red", "!"))
    first = tokenizer.bytes_of(0)  # its lowest id is a token like others
    assert (0 in allowed(found, tokenizer)) == (b"red".startswith(first) or first == b"!")
    found.append(tokenizer.encode_continuation("!")[0])
    assert found.complete


def test_a_text_of_letters_that_the_vocabulary_lacks_is_refused() -> None:
    backend = Backend(models.BPE())
    backend.train_from_iterator(["the sky above the city"], trainers.BpeTrainer(special_tokens=["</s>"]))
    tokenizer = Tokenizer(backend, eos_ids=[0])
    found = constraint(tokenizer, regex="the sky")
    assert b"".join(map(tokenizer.bytes_of, found.forced())) == b"the sky"
    with pytest.raises(InputError, match="no text fits the regex"):
        constraint(tokenizer, regex="The sky")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("regex", r"(?=a)b"),
        ("regex", "("),
        ("regex", r"\1(a)"),
        ("regex", ""),
        ("regex", "a" * 200_001),
        ("regex", 3),
        ("schema", "{"),
        ("schema", "[1]"),
        ("schema", "3"),
        ("schema", "[" * 100_000),
        ("schema", '{"type": "foo"}'),
        ("schema", '{"not": {}}'),
        ("schema", '{"enum": []}'),
        ("schema", '{"$ref": "http://127.0.0.1/a"}'),
        ("schema", '{"type": "integer", "minimum": 3, "maximum": 1}'),
        ("schema", json.dumps({"properties": {f"property {i}": {"type": "integer"} for i in range(3000)}})),
        ("grammar", "start: missing"),
        ("grammar", "other: /a/"),
        ("grammar", 'root ::= "a"'),
        ("choices", ("yes", "")),
        ("choices", "yes"),
        ("choices", (1,)),
    ],
)
def test_a_grammar_that_cannot_be_used_is_refused_in_one_line(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        GenerationConfig(**{field: value})
    assert raised.value.field == field
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_two_grammars_are_refused() -> None:
    with pytest.raises(ConfigError, match="not together with regex"):
        GenerationConfig(regex="a", choices=("a",))


@pytest.mark.parametrize(
    "settings",
    [
        {"regex": r"[^\s\S]"},
        {"schema": '{"$ref": "#"}'},
        {"schema": '{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}'},
        {"grammar": "start: a\na: a"},
        {"grammar": 'start: start "a"'},
    ],
)
def test_a_grammar_that_no_text_fits_is_refused(tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no text fits"):
        constraint(tokenizer, **settings)


@pytest.mark.parametrize(
    "pattern", ["(((a{100}){100}){100}){100}", "(a{1000}){1000}", "a{100000000}", "(a+)+(a+)+b", "(a|aa|a+)*b"]
)
def test_expressions_that_blow_up_are_followed_or_refused(tokenizer: Tokenizer, pattern: str) -> None:
    with suppress(InputError):
        found = constraint(tokenizer, regex=pattern)
        for _ in range(3):
            assert set(tokenizer.bytes_of(min(allowed(found, tokenizer)))) == set(b"a")
            found.append(min(allowed(found, tokenizer)))


def written(events: Iterable[Event], lane: int = 0) -> str:
    return "".join(event.token.text for event in events if isinstance(event, Stepped) and event.lane == lane)


def test_lanes_write_what_their_grammars_let_through(embedded: LocalModel) -> None:
    schema = {"type": "object", "properties": {"sky": {"enum": ["blue", "grey"]}}, "required": ["sky"]}
    configs = [
        GenerationConfig(schema=json.dumps(schema | {"additionalProperties": False})),
        GenerationConfig(strategy="sample", seed=1, regex=r" [0-9]{3}-[0-9]{4}"),
        GenerationConfig(strategy="contrastive", top_k=4, choices=(" calm", " loud")),
        GenerationConfig(strategy="sample", seed=2, guidance_scale=2.0, grammar='start: " ab"+', max_new_tokens=3),
    ]
    events = list(embedded.generate(["The sky today:"], configs))
    jsonschema.validate(json.loads(written(events, 0)), schema)
    assert regex.fullmatch(configs[1].regex or "", written(events, 1))
    assert written(events, 2) in (" calm", " loud")
    assert regex.fullmatch("( ab)+", written(events, 3), partial=True)
    reasons = {event.lane: event.reason for event in events if isinstance(event, Finished)}
    assert reasons == {0: "grammar", 1: "grammar", 2: "grammar", 3: "length"}


@pytest.mark.parametrize("strategy", ["greedy", "sample"])
def test_tokens_without_a_choice_go_through_in_one_forward(
    embedded: LocalModel, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    """The text is that of a lane that takes each alone, by the same draws."""
    config = GenerationConfig(
        strategy=strategy, seed=4, grammar=r'start: " The sky is " /[a-z]+/ " and the night is " /[a-z]{2,5}/ "."'
    )
    forwards, forward = [], type(embedded.network).forward

    def counted(network: Any, ids: Any, *more: Any, **options: Any) -> Any:
        forwards.append(ids.shape[1])
        return forward(network, ids, *more, **options)

    monkeypatch.setattr(type(embedded.network), "forward", counted)
    together = list(embedded.generate(["Listen:"], [config]))
    taken = len(forwards)
    monkeypatch.setattr("engine.generation.lanes.takes_several", lambda config: False)
    monkeypatch.setattr("engine.generation.drafting.takes_several", lambda config: False)
    alone = list(embedded.generate(["Listen:"], [config]))
    assert written(together) == written(alone)
    assert regex.fullmatch(r" The sky is [a-z]+ and the night is [a-z]{2,5}\.", written(together))
    steps = [one for one in together if isinstance(one, Stepped)]
    assert [one.by_grammar for one in steps] == [one.by_grammar for one in alone if isinstance(one, Stepped)]
    assert sum(one.by_grammar for one in steps) >= 6
    assert max(forwards[1:taken]) >= 4
    assert taken < len(forwards) - taken
    for one, other in zip(steps, (one for one in alone if isinstance(one, Stepped)), strict=True):
        assert one.token == other.token
        assert one.raw_probability == pytest.approx(other.raw_probability, rel=1e-4, abs=1e-9)


def test_greedy_under_a_grammar_takes_the_most_probable_that_fits(embedded: LocalModel) -> None:
    config = GenerationConfig(regex=" [a-z]+( [a-z]+){2}", max_new_tokens=8)
    steps = [one for one in embedded.generate(["The sky above"], [config]) if isinstance(one, Stepped)]
    for number, step in enumerate(steps):
        prompt = embedded.tokenizer.encode("The sky above")
        before = Start(tuple(prompt), tuple(one.token.id for one in steps[:number]))
        logits = embedded.inspect(before, GenerationConfig())
        fitting = constraint(embedded.tokenizer, "", regex=config.regex)
        for id in before.written:
            fitting.append(id)
        possible = allowed(fitting, embedded.tokenizer)
        best = next(one for one in logits.at(0, len(logits)) if one.id in possible)
        assert step.token.id == best.id
        inspection = embedded.inspect(before, config)
        assert inspection.choice is not None
        assert inspection.choice.id == best.id
        listed = inspection.at(0, min(len(possible) + 2, 40))
        assert (listed[0].id, listed[0].rank) == (best.id, best.rank)
        assert [one.cut_by for one in listed] == [None if one.id in possible else "grammar" for one in listed]
        assert {one.id for one in listed[: len(possible)]} <= possible
        assert [inspection.place(one) for one in listed[:3]] == [0, 1, 2]
        cut, mass = inspection.cut_at("grammar") or (0, 0.0)
        assert cut == len(logits) - len(possible)
        assert mass == pytest.approx(1 - sum(one.raw_probability or 0 for one in logits.of(sorted(possible))), abs=1e-4)


def test_a_branch_goes_on_within_the_grammar_and_no_other_way(embedded: LocalModel) -> None:
    tokenizer, config = embedded.tokenizer, GenerationConfig(choices=(" red", " green grass"))
    prompt = tuple(tokenizer.encode("The colour is"))
    green, on = tokenizer.encode_continuation(" green")[0], tokenizer.encode_continuation(" on")[0]
    steps = list(embedded.generate([Start(prompt, (), (green,))], [config]))
    assert written(steps) == " green grass"
    again = list(embedded.generate([Start(prompt, (green,))], [config]))
    assert written(again) == " grass"
    with pytest.raises(InputError, match="“·on” does not fit the choices there; possible: ·green ·red ·gre"):
        list(embedded.generate([Start(prompt, (), (on,))], [config]))


def test_a_ban_may_leave_nothing_that_the_grammar_lets_through(embedded: LocalModel) -> None:
    banned = tuple(embedded.tokenizer.encode_continuation(text)[0] for text in ("7",))
    with pytest.raises(InputError, match="every token that could come there is banned"):
        list(embedded.generate(["x"], [GenerationConfig(regex="7", banned=banned)]))


def expressions() -> st.SearchStrategy[str]:
    leaves = st.sampled_from(["a", "b", ".", "[a-c]", "[^a]", "é", r"\d", r"\s", " "])
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}"])).map(lambda p: f"({p[0]}){p[1]}"),
            st.lists(inner, min_size=2, max_size=3).map("".join),
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        ),
        max_leaves=8,
    )


@settings(max_examples=40, deadline=None)
@given(expressions(), st.randoms(use_true_random=False))
def test_what_chance_writes_under_an_expression_matches_it(
    tokenizer: Tokenizer, pattern: str, chance: random.Random
) -> None:
    found = constraint(tokenizer, regex=pattern)
    data, whole = b"", False
    for _ in range(12):
        if found.complete:
            whole = True
            break
        id = chance.choice(sorted(allowed(found, tokenizer)))
        if id in tokenizer.eos_ids:
            whole = True
            break
        data += tokenizer.bytes_of(id)
        found.append(id)
    text = data.decode("utf-8", "ignore")  # the last character may not be whole
    assert regex.fullmatch(pattern, text, partial=not whole)
