"""Chat templates against transformers' own rendering."""

import pytest

from engine.base.errors import InputError
from engine.text.chat import render
from engine.text.tokenizer import Tokenizer

TEMPLATES = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "with specials": "{{ bos_token }}{% for message in messages %}[{{ message.role | upper }}] "
    "{{ message.content | trim }}{{ eos_token }}{% endfor %}",
    "with a break": "{% for message in messages %}{{ message | tojson }}{% break %}{% endfor %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("text", ["Hello", "  two\nlines ", "日本語 {{ 7 }} {% raw %}"])
def test_rendering_is_that_of_transformers(name: str, text: str, tokenizer: Tokenizer) -> None:
    import transformers

    specials = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend, **specials)
    expected = theirs.apply_chat_template(
        [{"role": "user", "content": text}],
        chat_template=TEMPLATES[name],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert render(TEMPLATES[name], text, specials) == expected


def test_the_embedded_models_template_is_rendered_as_transformers_does(tokenizer: Tokenizer) -> None:
    import transformers

    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend, **tokenizer.special_tokens)
    expected = theirs.apply_chat_template(
        [{"role": "user", "content": "Who are you?"}],
        chat_template=tokenizer.chat_template,
        add_generation_prompt=True,
        return_dict=False,
    )
    tokens = tokenizer.encode_chat("Who are you?")
    assert [token.id for token in tokens] == expected
    assert any(token.special for token in tokens)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('only system messages') }}", "only system messages"),
        ("{% for %}", "cannot be used"),
        ("{{ ''.__class__.__mro__ }}", "cannot be used"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(template: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        render(template, "Hello", {})


def test_without_a_template_the_error_says_what_to_do(tokenizer: Tokenizer) -> None:
    bare = Tokenizer(tokenizer.backend)
    with pytest.raises(InputError, match="no chat template"):
        bare.encode_chat("Hello")
