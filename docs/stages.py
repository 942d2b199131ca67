"""Make `docs/stages.md`: what a step's logits go through, as the stages declare it themselves.

.venv/bin/python docs/stages.py
"""

from collections.abc import Sequence
from pathlib import Path

from engine.generation.stages.order import ORDERS
from engine.generation.stages.registry import STAGES
from engine.generation.stages.stage import Parameter, Stage

PAGE = Path(__file__).parent / "stages.md"
HEAD = """# Stages

A model gives a score to every token of its vocabulary. Before one of them is picked, the scores go through a chain of
**stages**: some push tokens down or up, some flatten or sharpen, some cut the tail off. Each of them acts where the
settings of a lane ask for it, and the inspector has a tab for each that acted: the probabilities behind it, how many
tokens it cut and how much of the mass. Its knobs follow at once; nothing is run for them.

```console
$ logitlab next "The sky above the city looked" --strategy sample --temperature 0.8 --top-n-sigma 1 --top 5
$ logitlab generate "The sky above" --strategy sample --seed 7 --min-p 0.05 --xtc-probability 0.5 --max-new-tokens 8
$ logitlab generate "The sky above the city" --dry-multiplier 0.8 --max-new-tokens 8
```

In a TOML file the settings have the same names (`top_n_sigma = 1.0`), and so they do in the editor of a lane.
`docs/stages.py` makes this page from what the stages declare; a test says when it is out of date.
"""
BEHIND_STAGES = """
*Reads* says what a stage looks at beside the scores: the repetition penalty, DRY and n-grams read the prompt too,
presence and frequency penalty only what is written. The inspector marks what they touched with `↻`. *Keeps* says what
is kept with each step, so that going on, branching, undo, sessions and the inspector find it again. *How*: `first n`
keeps the first tokens in order, for which only the most probable ones have to be sorted; `order kept` leaves the order
as it is. What is banned stays so, whatever comes after; a stage that would leave nothing says so in a sentence.
"""
BEHIND_SETTINGS = """
A setting that a server has no field for is refused in a sentence, and so is one by which it means something else
(llama.cpp's presence penalty reads the prompt). OpenAI's column is for any other server with its completions.
"""
ORDER = """
`order` names the stages in the order in which they act, or is one of the names below; without it they act as in
transformers, and those that transformers lacks stand where the first line has them. Guidance, amateur and biases come
first in every order. A stage that is set and not named is refused, so that none is left out unseen. llama-server is
sent the order as its `samplers`.
"""
COMMANDS = """
```console
$ logitlab generate "The sky above" --strategy sample --top-k 40 --seed 1 --order llama.cpp --max-new-tokens 8
$ logitlab next "The sky above" --top-p 0.9 --temperature 2 --order "top_p temperature" --top 5
```"""
READS = {"nothing": "", "text": "prompt and text", "written": "what is written"}
SERVERS = ("OpenAI", "vLLM", "llama.cpp", "llama-cpp-python")


def page() -> str:
    """The whole page."""
    lines = [HEAD, "## What they are", ""]
    lines += ["| stage | what it does | reads | keeps | how |", "|---|---|---|---|---|", *map(_stage, STAGES)]
    lines += [BEHIND_STAGES, "## Their settings", "", "| setting | default | range | " + " | ".join(SERVERS) + " |"]
    lines += ["|---|---|---|" + "---|" * len(SERVERS), *(_parameter(one) for s in STAGES for one in s.parameters)]
    lines += [BEHIND_SETTINGS, "## Their order", ORDER]
    lines += [f"- **{name}**: {' · '.join(f'`{stage}`' for stage in names)}" for name, names in ORDERS.items()]
    return "\n".join([*lines, COMMANDS]) + "\n"


def _stage(stage: Stage) -> str:
    keeps = "a draw" if stage.draws else "a state" if stage.begin else ""
    how = "first n" if stage.truncates else "order kept" if stage.keeps_order else ""
    return f"| `{stage.name}` | {_cell(stage.definition)} | {READS[stage.reads]} | {keeps} | {how} |"


def _parameter(one: Parameter) -> str:
    number = isinstance(one.default, (int, float))
    shown = f"{one.default:g}" if number else "off" if one.default is None else _texts(one.default) or "none"
    reach = "" if one.type is None else f"{'above ' if one.above else ''}{one.least:g} to {one.most:,.10g}"
    fields = [f"`{one.servers[server].field}`" if server in one.servers else "" for server in SERVERS]
    return f"| `{one.name}` | {shown} | {reach} | " + " | ".join(fields) + " |"


def _texts(values: Sequence[str]) -> str:
    return " ".join(f"`{value}`".replace("\n", "\\n") for value in values)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.name}: {len(STAGES)} stages")
