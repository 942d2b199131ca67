"""Chat templates written for the tests, each in the way of a family: its marks, and what its program does."""
# ruff: noqa: E501

LLAMA_2 = """
{%- set ns = namespace(system='') -%}
{%- if messages[0].role == 'system' -%}
    {%- set ns.system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' -%}{%- set turns = messages[1:] -%}
{%- else -%}{%- set turns = messages -%}{%- endif -%}
{%- for one in turns -%}
    {%- if (one.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('Conversation roles must alternate user/assistant') -}}
    {%- endif -%}
    {%- if one.role == 'user' -%}
        {{- bos_token + '[INST] ' + (ns.system if loop.first else '') + one.content.strip() + ' [/INST]' -}}
    {%- else -%}{{- ' ' + one.content.strip() + ' ' + eos_token -}}{%- endif -%}
{%- endfor -%}
"""
# A date of its own, tools in the first user's message, one call alone.
LLAMA_3 = """
{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if tools_in_user_message is not defined %}{% set tools_in_user_message = true %}{% endif %}
{%- if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}{% set messages = messages[1:] %}
{%- else %}{% set system_message = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + date_string + '\\n\\n' + system_message + '<|eot_id|>' }}
{%- if tools_in_user_message and tools %}
    {%- if not messages %}{{ raise_exception('Tools need a first user message') }}{% endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
    {%- for tool in tools %}{{ tool | tojson(indent=4) }}{{ '\\n\\n' }}{% endfor %}
    {{- messages[0]['content'] | trim + '<|eot_id|>' }}{% set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls is defined %}
        {%- if message.tool_calls | length != 1 %}{{ raise_exception('Only one call at once') }}{% endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}{{ '}<|eot_id|>' }}
    {%- elif message.role in ['tool', 'ipython'] %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {{- message.content | tojson if message.content is mapping else message.content }}{{ '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""
# Tools before the last user's message, ids of nine characters, the system's text in the last message.
MISTRAL_3 = """
{%- set system = messages[0].content if messages[0].role == 'system' else none %}
{%- set turns = messages[1:] if messages[0].role == 'system' else messages %}
{%- set users = turns | selectattr('role', 'equalto', 'user') | list %}
{{- bos_token }}
{%- for one in turns %}
    {%- if one.role == 'user' %}
        {%- if tools is not none and one == users[-1] %}
            {{- '[AVAILABLE_TOOLS] [' }}
            {%- for tool in tools %}{{ tool | tojson }}{{ ', ' if not loop.last }}{% endfor %}{{- '][/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST] ' + (system + '\\n\\n' if system and loop.last else '') + one.content + '[/INST]' }}
    {%- elif one.tool_calls is defined and one.tool_calls is not none %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in one.tool_calls %}
            {%- if call.id is not defined or call.id | length != 9 %}
                {{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}
            {%- endif %}
            {{- call.function | tojson }}{{ ', ' if not loop.last else ']' + eos_token }}
        {%- endfor %}
    {%- elif one.role == 'assistant' %}{{ ' ' + one.content | trim + eos_token }}
    {%- elif one.role == 'tool' %}
        {{- '[TOOL_RESULTS] {"content": ' + one.content | string + ', "call_id": "' + one.tool_call_id + '"}' }}
        {{- '[/TOOL_RESULTS]' }}
    {%- else %}{{ raise_exception('Only user, assistant and tool roles are supported') }}{% endif %}
{%- endfor %}
"""
MISTRAL_7 = """
{{- bos_token }}
{%- for one in messages %}
    {%- if one.role == 'system' %}{{ '[SYSTEM_PROMPT]' + one.content + '[/SYSTEM_PROMPT]' }}
    {%- elif one.role == 'user' %}
        {%- if one.content is string %}{{ '[INST]' + one.content + '[/INST]' }}
        {%- else %}{{ '[INST]' }}{% for part in one.content %}{{ part.text }}{% endfor %}{{ '[/INST]' }}{% endif %}
    {%- elif one.tool_calls %}
        {%- for call in one.tool_calls %}
            {{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' }}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
        {%- endfor %}{{ eos_token }}
    {%- elif one.role == 'assistant' %}{{ one.content + eos_token }}
    {%- elif one.role == 'tool' %}{{ '[TOOL_RESULTS]' + one.content + '[/TOOL_RESULTS]' }}
    {%- else %}{{ raise_exception('Only user, system, assistant and tool roles are supported') }}{% endif %}
    {%- if tools and loop.first %}{{ '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}
{%- endfor %}
"""
GEMMA_2 = """
{{- bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- set role = 'model' if message.role == 'assistant' else message.role %}
    {{- '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}
"""
# The system's text is put before the first user's; contents may come in parts.
GEMMA_3 = """
{{- bos_token }}
{%- set first = '' %}{% set turns = messages %}
{%- if messages[0].role == 'system' %}
    {%- set first = (messages[0].content if messages[0].content is string else messages[0].content[0].text) + '\\n\\n' %}
    {%- set turns = messages[1:] %}
{%- endif %}
{%- for message in turns %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
    {{- first if loop.first }}
    {%- if message.content is string %}{{ message.content | trim }}
    {%- elif message.content is iterable %}
        {%- for item in message.content %}{{ item.text | trim if item.type == 'text' else '<start_of_image>' }}{% endfor %}
    {%- else %}{{ raise_exception('Invalid content type') }}{% endif %}
    {{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}
"""
# Looks backward for the last question; earlier thinking is left out; tools' answers stand together.
QWEN_3 = """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}{{ messages[0].content + '\\n\\n' if messages[0].role == 'system' }}{{ '<tools>' }}
    {%- for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}{{ '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% endif %}
{%- set ns = namespace(looking=true, last=messages | length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = messages | length - 1 - loop.index0 %}
    {%- if ns.looking and message.role == 'user' and not message.content.startswith('<tool_response>') %}
        {%- set ns.looking = false %}{% set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}{% set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}{{ content }}{% endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if (loop.first and content) or not loop.first %}{{ '\\n' }}{% endif %}
            {%- set call = call.function if call.function else call %}
            {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments if call.arguments is string else call.arguments | tojson }}{{ '}\\n</tool_call>' }}
        {%- endfor %}{{ '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}
"""
# What was thought is cut off the answer; the prompt begins thinking.
DEEPSEEK_R1 = """
{%- set ns = namespace(system='') %}
{%- for message in messages %}{% if message.role == 'system' %}{% set ns.system = message.content %}{% endif %}{% endfor %}
{{- bos_token + ns.system }}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{ '<｜User｜>' + message.content }}{% endif %}
    {%- if message.role == 'assistant' and message.content is not none %}
        {%- set content = message.content.split('</think>')[-1] if '</think>' in message.content else message.content %}
        {{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}
"""
# Arguments are a text; a flag of two names.
DEEPSEEK_V3 = """
{%- if enable_thinking is defined %}{% set thinking = enable_thinking %}{% endif %}
{%- if thinking is not defined %}{% set thinking = false %}{% endif %}
{%- set ns = namespace(system='', first=true) %}
{%- for message in messages if message.role == 'system' %}
    {%- set ns.system = ns.system + ('' if ns.first else '\\n\\n') + message.content %}{% set ns.first = false %}
{%- endfor %}
{{- bos_token }}{{ ns.system }}
{%- for message in messages if message.role != 'system' %}
    {%- if message.role == 'user' %}{{ '<｜User｜>' + message.content }}
    {%- elif message.tool_calls %}
        {{- '<｜Assistant｜></think><｜tool▁calls▁begin｜>' }}
        {%- for call in message.tool_calls %}
            {{- '<｜tool▁call▁begin｜>' + call.function.name + '<｜tool▁sep｜>' + call.function.arguments + '<｜tool▁call▁end｜>' }}
        {%- endfor %}{{ '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}
    {%- elif message.role == 'tool' %}{{ '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' }}
    {%- else %}{{ '<｜Assistant｜></think>' + message.content + '<｜end▁of▁sentence｜>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜>' + ('<think>' if thinking else '</think>') }}{% endif %}
"""
# Channels, macros, and a field for thinking of another name.
GPT_OSS = """
{%- macro kind(spec) -%}
    {%- if spec.type == 'array' -%}{{ kind(spec['items']) + '[]' }}
    {%- elif spec.type in ('integer', 'number') -%}{{ 'number' }}{%- else -%}{{ spec.type }}{%- endif -%}
{%- endmacro -%}
{%- macro declared(tools) -%}
    {%- for tool in tools %}
        {{- '// ' + tool.function.description + '\\ntype ' + tool.function.name + ' = (_: {\\n' }}
        {%- for name, spec in (tool.function.parameters.properties or {}).items() %}
            {{- name + ('' if name in (tool.function.parameters.required or []) else '?') + ': ' + kind(spec) + ',\\n' }}
        {%- endfor %}{{ '}) => any;\\n' }}
    {%- endfor %}
{%- endmacro -%}
{%- if model_identity is not defined %}{% set model_identity = 'You are a model.' %}{% endif -%}
{%- if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}{% endif -%}
{{- '<|start|>system<|message|>' + model_identity + '\\nCurrent date: ' + strftime_now('%Y-%m-%d') }}
{{- '\\n\\nReasoning: ' + reasoning_effort + '<|end|>' }}
{%- if messages[0].role in ('developer', 'system') %}
    {%- set told = messages[0].content %}{% set turns = messages[1:] %}
{%- else %}{% set told = '' %}{% set turns = messages %}{% endif %}
{%- if told or tools %}
    {{- '<|start|>developer<|message|>' + ('# Instructions\\n\\n' + told if told else '') }}
    {{- '# Tools\\n\\n' + declared(tools) if tools }}{{ '<|end|>' }}
{%- endif %}
{%- set last = namespace(call=none) %}
{%- for message in turns %}
    {%- if message.role == 'assistant' %}
        {%- if 'content' in message and '<|channel|>analysis<|message|>' in (message.content or '') %}
            {{- raise_exception('Put what was thought into thinking, and the answer into content') }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- set call = message.tool_calls[0].function %}{% set last.call = call.name %}
            {{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' if message.thinking }}
            {{- '<|start|>assistant to=functions.' + call.name + '<|channel|>commentary json<|message|>' }}
            {{- call.arguments | tojson }}{{ '<|call|>' }}
        {%- elif loop.last and not add_generation_prompt %}
            {{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' if message.thinking }}
            {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|return|>' }}
        {%- else %}{{ '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}{% endif %}
    {%- elif message.role == 'tool' %}
        {%- if last.call is none %}{{ raise_exception('A tool answers that was not called') }}{% endif %}
        {{- '<|start|>functions.' + last.call + ' to=assistant<|message|>' + message.content | tojson + '<|end|>' }}
    {%- else %}{{ '<|start|>user<|message|>' + message.content + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}
"""
PHI_3 = """
{%- for message in messages %}
    {%- if message.role == 'system' and message.content %}{{ '<|system|>\\n' + message.content + '<|end|>\\n' }}
    {%- elif message.role == 'user' %}{{ '<|user|>\\n' + message.content + '<|end|>\\n' }}
    {%- elif message.role == 'assistant' %}{{ '<|assistant|>\\n' + message.content + '<|end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}
"""
# Its marks are put together of roles.
PHI_4 = """
{%- for message in messages %}
    {{- '<|' + message.role + '|>' + message.content }}
    {{- '<|tool|>' + message['tools'] + '<|/tool|>' if message.role == 'system' and message['tools'] }}{{ '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}
"""
COMMAND_R = """
{{- bos_token }}
{%- set turns = messages[1:] if messages[0].role == 'system' else messages %}
{%- set system = messages[0].content if messages[0].role == 'system' else false %}
{%- if system != false or documents %}
    {{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + (system or '') }}
    {%- if documents %}
        {{- '\\n<results>' }}
        {%- for document in documents %}
            {{- '\\nDocument: ' ~ loop.index0 }}
            {%- for name, value in document.items() %}{{ '\\n' + name + ': ' + value | string }}{% endfor %}
        {%- endfor %}{{ '</results>' }}
    {%- endif %}{{ '<|END_OF_TURN_TOKEN|>' }}
{%- endif %}
{%- for message in turns %}
    {%- if message.role == 'user' %}{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + message.content.strip() }}
    {%- elif message.role == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + (message.content or '').strip() }}
    {%- else %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + message.content }}{% endif %}{{ '<|END_OF_TURN_TOKEN|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}
"""
GRANITE = """
{%- if available_tools is defined and available_tools %}{% set tools = available_tools %}{% endif %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}
{%- else %}{% set system = 'Today is ' + strftime_now('%B %d, %Y') + '.' %}{% set rest = messages %}{% endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system }}
{%- if thinking %}{{ '\\nThink between <think></think>.' }}{% endif %}{{ '<|end_of_text|>\\n' }}
{%- if tools %}{{ '<|start_of_role|>tools<|end_of_role|>' + tools | tojson(indent=4) + '<|end_of_text|>\\n' }}{% endif %}
{%- for document in documents or [] %}
    {{- '<|start_of_role|>document {"id": "' ~ loop.index ~ '"}<|end_of_role|>' + document.text + '<|end_of_text|>\\n' }}
{%- endfor %}
{%- for message in rest %}
    {{- '<|start_of_role|>' + message.role + '<|end_of_role|>' + (message.content or '') + '<|end_of_text|>\\n' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant' }}{{ ' ' + controls | tojson if controls }}{{ '<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}
"""
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
VICUNA = """
{%- if messages[0].role == 'system' %}{{ messages[0].content.strip() }}{% set turns = messages[1:] %}
{%- else %}{{ 'A chat between a user and an assistant.' }}{% set turns = messages %}{% endif %}
{%- for message in turns %}
    {%- if message.role not in ('user', 'assistant') %}{% continue %}{% endif %}
    {{- (' USER: ' if message.role == 'user' else ' ASSISTANT: ') + message.content.strip() }}
    {{- eos_token if message.role == 'assistant' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}
"""
ALPACA = """
{%- for message in messages %}
    {%- if message.role == 'user' %}{{ '### Instruction:\\n' + message.content + '\\n\\n' }}
    {%- elif message.role == 'assistant' %}{{ '### Response:\\n' + message.content + '\\n\\n' }}
    {%- else %}{{ message.content + '\\n\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}
"""
# A mode read out of the system's text, which is changed; what an answer is stands in a generation block.
SMOLLM_3 = """
{%- if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}
{%- set mode = '/think' if enable_thinking else '/no_think' %}{% set told = '' %}
{%- if messages[0].role == 'system' %}
    {%- if '/no_think' in messages[0].content %}{% set mode = '/no_think' %}{% endif %}
    {%- set told = messages[0].content.replace('/no_think', '').replace('/think', '').rstrip() %}
{%- endif %}
{{- '<|im_start|>system\\nToday: ' ~ strftime_now('%d %B %Y') ~ '\\nMode: ' ~ mode ~ '\\n\\n' ~ told ~ '<|im_end|>\\n' }}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{ '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}{% generation %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if mode == '/no_think' %}{{ '<think>\\n\\n</think>\\n' }}{% endif %}
        {{- message.content.lstrip('\\n') + '<|im_end|>\\n' }}
    {%- endgeneration %}
    {%- elif message.role == 'tool' %}{{ '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}{% if mode == '/no_think' %}{{ '<think>\\n\\n</think>\\n' }}{% endif %}
{%- endif %}
"""
# Signatures of tools, made by a macro out of their schemas.
HERMES = """
{%- macro type_of(spec) -%}
    {%- set names = dict(string='str', number='float', integer='int', boolean='bool') -%}
    {%- if spec.type in names -%}{{ names[spec.type] }}
    {%- elif spec.type == 'array' -%}{{ 'list[' + type_of(spec['items']) + ']' }}{%- else -%}{{ 'Any' }}{%- endif -%}
{%- endmacro -%}
{{- bos_token }}
{%- if tools %}
    {{- '<|im_start|>system\\n<tools>' }}
    {%- for tool in tools | map(attribute='function') %}
        {{- '\\n' + tool.name + '(' }}
        {%- for name, spec in tool.parameters.properties | items %}
            {{- name + ': ' + type_of(spec) }}{{ ', ' if not loop.last }}
        {%- endfor %}{{ ') - ' + tool.description }}{{ tool.parameters | tojson }}
    {%- endfor %}{{ '</tools><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and message.tool_calls is defined %}
        {{- '<|im_start|>assistant' }}
        {%- for call in message.tool_calls %}
            {{- '\\n<tool_call>\\n' }}{{ dict(name=call.function.name, arguments=call.function.arguments) | tojson }}
            {{- '\\n</tool_call>' }}
        {%- endfor %}{{ '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>tool\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- else %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
KIMI = """
{%- for message in messages %}
    {%- if loop.first and messages[0].role != 'system' %}{{ '<|im_system|>system<|im_middle|>You help.<|im_end|>' }}{% endif %}
    {%- set name = message.name or message.role %}
    {{- '<|im_' + (message.role if message.role in ('user', 'assistant') else 'system') + '|>' + name + '<|im_middle|>' }}
    {{- '◁think▷' + message.reasoning_content + '◁/think▷' if message.reasoning_content }}
    {{- message.content or '' }}
    {%- for call in message.tool_calls or [] %}
        {{- '<|tool_call_begin|>' + call.id + '<|tool_call_argument_begin|>' }}
        {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
    {%- endfor %}{{ '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_assistant|>assistant<|im_middle|>' }}{% endif %}
"""
FALCON = """
{%- for message in messages %}
    {%- if not loop.first %}{{ '\\n' }}{% endif %}
    {{- {'system': 'System: ', 'user': 'User: ', 'assistant': 'Falcon: '}.get(message.role, '') + message.content }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '\\nFalcon:' }}{% endif %}
"""
OLMO = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>
' + message['content'] + '
' }}{% elif message['role'] == 'user' %}{{ '<|user|>
' + message['content'] + '
' }}{% elif message['role'] == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>
'  + message['content'] + eos_token + '
' }}{% else %}{{ '<|assistant|>
'  + message['content'] + eos_token }}{% endif %}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>
' }}{% endif %}{% endfor %}"""
# Rounds are counted.
CHATGLM = """
{%- set ns = namespace(round=0) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- set ns.round = ns.round + 1 %}{{ '[Round ' ~ ns.round ~ ']\\n\\n问：' ~ message.content ~ '\\n\\n' }}
    {%- elif message.role == 'assistant' %}{{ '答：' ~ message.content ~ '\\n\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '答：' }}{% endif %}
"""
INTERNLM = """
{{- bos_token }}
{%- for message in messages %}
    {%- set mark = {'user': '<|User|>:', 'assistant': '<|Bot|>:'}[message.role] if message.role != 'system' else '<|System|>:' %}
    {{- mark + message.content + ('<eoa>\\n' if message.role == 'assistant' else '<eoh>\\n') }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|Bot|>:' }}{% endif %}
"""
# Thinking stands in a field alone; its own marks are written around it.
GLM = """
{{- '[gMASK]<sop>' }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|user|>\\n' + message.content }}
        {{- '/nothink' if enable_thinking is defined and not enable_thinking and not message.content.endswith('/nothink') }}
    {%- elif message.role == 'assistant' %}
        {{- '<|assistant|>' }}
        {%- set content = (message.content or '').split('</think>')[-1].strip() %}
        {%- set thought = message.reasoning_content or '' %}
        {%- if '</think>' in (message.content or '') %}
            {%- set thought = message.content.split('</think>')[0].split('<think>')[-1] %}
        {%- endif %}
        {{- '\\n<think>' + thought.strip() + '</think>' + ('\\n' + content if content else '') }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>' + call.function.name }}
            {%- for name, value in call.function.arguments.items() %}
                {{- '\\n<arg_key>' + name + '</arg_key>\\n<arg_value>' }}
                {{- value | tojson(ensure_ascii=False) if value is not string else value }}{{ '</arg_value>' }}
            {%- endfor %}{{ '\\n</tool_call>' }}
        {%- endfor %}
    {%- elif message.role == 'tool' %}{{ '<|observation|>\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
    {%- else %}{{ '<|system|>\\n' + message.content }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""
# Says nothing of a text, and something of parts.
PICTURES = """
{%- for message in messages %}
    {{- '<|' + message.role + '|>' }}
    {%- for part in message.content %}
        {%- if part.type == 'image' %}{{ '<image>' }}{% elif part.type == 'text' %}{{ part.text }}{% endif %}
    {%- endfor %}{{ '<|end|>' }}
    {%- if loop.index > 5000 %}{% break %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""
FAMILIES = {name.lower(): text for name, text in list(vars().items()) if name.isupper() and isinstance(text, str)}
