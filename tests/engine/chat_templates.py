"""Templates written for the tests, in the ways of families that people use."""

import json
import shutil
from pathlib import Path

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# No system message, turns in order, contents trimmed.
STRICT = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message.role == 'user' %}{{ '[INST] ' + message.content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content | trim + eos_token }}{% endif %}{% endfor %}"
)
# The system's text goes into the last user message; earlier thinking is left out.
THINKING = (
    "{% set ns = namespace(system='') %}{% for message in messages if message.role == 'system' %}"
    "{% set ns.system = message.content %}{% endfor %}"
    "{% for message in messages if message.role != 'system' %}"
    "{% if message.role == 'assistant' %}"
    "{% set thought = message.reasoning_content if message.reasoning_content is defined else '' %}"
    "{% set answer = message.content %}"
    "{% if '</think>' in answer %}{% set thought = answer.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{% set answer = answer.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "{{ '<|im_start|>assistant\\n' }}{% if loop.last %}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ answer + '<|im_end|>\\n' }}"
    "{% else %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if loop.last and ns.system %}{{ ns.system + '\\n\\n' }}{% endif %}{{ message.content + '<|im_end|>\\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}"
    "{% else %}{{ '<think>\\n' }}{% endif %}{% endif %}"
)
# Tools before the messages, their calls and results among them.
TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\\n' }}{% for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endif %}{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if message.content %}{{ message.content }}{% endif %}"
    "{% for call in message.tool_calls or [] %}{{ '<tool_call>' + call.function.name + ' ' }}"
    "{{ call.function.arguments | tojson }}{{ '</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Contents in parts alone, as templates of models that see pictures have them.
PARTS = (
    "{% for message in messages %}{{ message.role | capitalize + ':' }}"
    "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# Reads the date, a style, a number and a list.
OPTIONS = (
    "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
    "{{ date_string + strftime_now(' %d %b %Y') }}{% if style == 'formal' or style in ['short', 'long'] %}{{ style }}"
    "{% endif %}{{ depth | default(3) }}{% for word in words or [] %}{{ word }}{% endfor %}{% if loud %}!{% endif %}"
    "{% for message in messages %}{{ message.content }}{% endfor %}"
)
# What it writes depends on how long a text is.
MEASURING = (
    "{% for message in messages %}{{ message.role + ' (' ~ message.content | length ~ '): ' + message.content }}"
    "{{ '\\n' }}{% endfor %}"
)
ALL = {
    "chatml": CHATML,
    "strict": STRICT,
    "thinking": THINKING,
    "tools": TOOLS,
    "parts": PARTS,
    "measuring": MEASURING,
}


def chatting(model: Path, folder: Path, template: str = THINKING) -> Path:
    """A copy of a model's folder whose tokenizer has a chat template."""
    shutil.copytree(model, folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "<|end|>"}))
    return folder
