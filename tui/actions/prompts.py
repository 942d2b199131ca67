"""The keys of the Prompts view."""

from engine.base.language import N_
from tui.actions.action import Action, Line, Where

ACTIONS: dict[Where, tuple[Action, ...]] = {
    "prompts": (
        Action(
            "edit",
            "enter,e",
            N_("edit"),
            does=N_("Edit the prompt"),
            rank=1,
            help=Line(
                0,
                "{edit} · {add} · {open}",
                N_("edit a prompt, add one, open a file of one a line; paste adds lines"),
            ),
        ),
        Action("add", "a", N_("add"), does=N_("Add a prompt"), rank=2),
        Action(
            "use",
            "g",
            N_("to the prompt"),
            does=N_("Make it the lab's prompt"),
            rank=2,
            help=Line(
                2, "{use} · {tokenizers}", N_("make it the lab's prompt · count with other models' tokenizers too")
            ),
        ),
        Action("open", "o", N_("open file"), does=N_("Open a file of one prompt a line")),
        Action("remove", "delete,backspace", N_("remove"), does=N_("Remove the prompt")),
        Action(
            "move(-1)",
            "K,ctrl+up",
            called="up",
            help=Line(1, "{up} · {down} · {remove}", N_("move up or down · remove")),
        ),
        Action("move(1)", "J,ctrl+down", called="down", pair="up", does=N_("Move the prompt up or down")),
        Action("tokenizers", "k", N_("tokenizers"), does=N_("Count with other models' tokenizers too")),
    ),
    "variants": (
        Action(
            "add",
            "v",
            N_("add variant"),
            does=N_("Add a variant"),
            rank=2,
            help=Line(
                3,
                "{add} · {edit} · {systems} · {again}",
                N_("add a variant, edit it · three system messages · run the variants with another seed"),
            ),
        ),
        Action("edit", "e", N_("edit"), does=N_("Edit the variant"), rank=2),
        Action("systems", "m", N_("system messages"), does=N_("Put the prompt under three system messages"), rank=3),
        Action("again", "s", N_("another seed"), does=N_("Run the variants with another seed"), rank=3),
        Action("remove", "delete,backspace", N_("remove"), does=N_("Remove the variant")),
    ),
}

# The same keys as sentences, below the lists that have no footer of theirs.
HINTS: dict[Where, str] = {
    "prompts": N_(
        "{edit} edits · {add} adds, paste adds lines, {open} opens a file · {remove} removes · {up} {down} move · "
        "{use} to the prompt · {tokenizers} tokenizers"
    ),
    "variants": N_(
        "{run} runs them · enter shows all · {again} another seed · {add} adds a variant, "
        "{systems} system messages, {edit} edits, {remove} removes"
    ),
}
