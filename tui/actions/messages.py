"""The keys of a conversation's messages."""

from engine.base.language import N_
from tui.actions.action import Action, Line, Where

ACTIONS: dict[Where, tuple[Action, ...]] = {
    "messages": (
        Action("move(-1)", "up", called="up"),
        Action(
            "move(1)",
            "down",
            called="down",
            pair="up",
            does=N_("Another message; behind the last one, back to the text"),
        ),
        Action("page(-1)", "pageup", called="page_up"),
        Action("page(1)", "pagedown", called="page_down", pair="page_up", does=N_("A page up or down")),
        Action("go(0)", "home,ctrl+home", called="first"),
        Action("go(-1)", "end,ctrl+end", called="last", pair="first", does=N_("The first, the last")),
        Action(
            "edit",
            "enter,e",
            N_("edit"),
            does=N_("Edit the message"),
            rank=0,
            help=Line(
                0,
                "{edit} · {add} · {add_system}",
                N_("edit a message; ↑ in its first line leads back here · add one behind it · add a system message"),
            ),
        ),
        Action("add", "n", N_("add"), palette=N_("Messages: add one behind the chosen one"), rank=1),
        Action(
            "role",
            "r",
            N_("role"),
            palette=N_("Messages: the next role for the chosen one"),
            rank=1,
            help=Line(1, "{role} · {special}", N_("its next role · names of control tokens in it: letters, or tokens")),
        ),
        Action(
            "special",
            "s",
            N_("tokens or letters"),
            palette=N_("Messages: names of control tokens in the chosen one are tokens, or letters"),
            rank=4,
        ),
        Action("remove", "delete,backspace", N_("remove"), does=N_("Remove the message"), rank=2),
        Action(
            "shift(-1)",
            "K,alt+up",
            called="move_up",
            help=Line(2, "{move_up} · {move_down} · {remove}", N_("move it up or down · remove it")),
        ),
        Action("shift(1)", "J,alt+down", called="move_down", pair="move_up", does=N_("Move the message up or down")),
        Action(
            "undo",
            "u,ctrl+z",
            N_("undo"),
            palette=N_("Messages: undo the last change"),
            rank=3,
            help=Line(3, "{undo} · {redo}", N_("undo the last change of messages · redo it")),
        ),
        Action("redo", "ctrl+y", palette=N_("Messages: redo what was undone")),
        Action(
            "add_system",
            "S",
            palette=N_("Messages: add a system message at the top"),
        ),
        Action(
            "options",
            "o",
            N_("options"),
            palette=N_("Messages: options of the chat template"),
            rank=3,
            help=Line(
                4, "{options} · {join}", N_("options of the model's chat template · make one thread of both lanes'")
            ),
        ),
        Action(
            "open",
            "f",
            N_("open file"),
            palette=N_("Open messages from a file"),
            rank=5,
            help=Line(5, "{open}", N_("open a file of messages, as OpenAI has them (JSON, JSONL)")),
        ),
        Action("remarks", "w", N_("warnings"), palette=N_("Messages: all warnings of the conversation"), rank=6),
        Action("join", "j", N_("one thread"), palette=N_("Messages: both lanes go on with the thread shown"), rank=4),
    ),
}
