"""`variants`: one prompt put in several ways."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from engine.base import plain
from engine.base.errors import InputError
from engine.base.language import _
from engine.cli.inputs import require, text_of
from engine.cli.options import Config, Json, Options, Settings, shares_options, takes_settings
from engine.cli.output import ProgressBar, count, events_of, print_json
from engine.generation.events import Prompt
from engine.generation.result import RunResult
from engine.models.progress import Loading
from engine.text.prompts import PLACE, VARIANTS, Variant


@shares_options
@takes_settings
def variants(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    template: Annotated[
        list[str] | None, typer.Option(help="Another way to put it, with {prompt} in its place; repeatable.")
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(help="The same prompt under this system message, in the model's chat template; repeatable."),
    ] = None,
    json: Json = False,
    config: Config = "creative",
    *,
    settings: Settings,
    options: Options,
) -> None:
    """Continue PROMPT put in different ways, all at once: plain, as a mystery, as a cheerful children's story.

    Or under different system messages.
    """
    known = settings.config(config)  # what cannot be used is said before the model is loaded
    ways = ways_of(template or (), system or ())
    text = text_of(prompt)
    require(text)
    (model,), (amateur,), (draft,) = options.load_lanes([known])
    chosen = settings.config_for(config, model)
    prompts = [way.fill(text) for way in ways]
    result = RunResult()
    starts = [Prompt(way.fill(text), way.conversation(text)).start(model.tokenizer) for way in ways]
    with ProgressBar() as report:
        every = len(ways)
        beside = [amateur] * every, [draft] * every
        for event in events_of([model] * every, starts, [chosen] * every, 1, *beside):
            result.add(event)
            report(Loading("read", sum(len(lane.steps) for lane in result.lanes), 0, _("tokens written")))
    if json:
        lanes = [
            {"name": way.name, "prompt": prompt, "prompt_tokens": len(result.prompts[index])}
            | ({"system": way.system} if way.system else {})
            | result.lane_dict(index)
            for index, (way, prompt) in enumerate(zip(ways, prompts))
        ]
        print_json({"model": asdict(model.facts), "variants": lanes})
        return
    for index, (way, prompt) in enumerate(zip(ways, prompts)):
        lane = result.lanes[index]
        print(
            _(
                "{name} · {count} in, {written} out",
                name=way.name,
                count=count(len(result.prompts[index])),
                written=count(len(lane.steps)),
            )
        )
        if way.system:
            print("  " + _("system: {text}", text=plain.one_line(way.system)))
        print(f"  {plain.one_line(prompt)}")
        print(f"  → {plain.one_line(lane.text).strip()}\n")


def ways_of(templates: Sequence[str], systems: Sequence[str]) -> Sequence[Variant]:
    """Each template under each system message; three ways of the lab's own where there are neither."""
    if not templates and not systems:
        return VARIANTS
    if any(not system.strip() for system in systems):
        raise InputError(_("--system is empty; give the system message"))
    pairs = [(template, system) for system in systems or ("",) for template in templates or (PLACE,)]
    return [
        Variant(_("variant {index}", index=index), template, system)
        for index, (template, system) in enumerate(pairs, start=1)
    ]
