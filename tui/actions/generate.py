"""The keys of prompt, tokens and lanes."""

from engine.base.language import N_
from tui.actions.action import Action, Line, Where

ACTIONS: dict[Where, tuple[Action, ...]] = {
    "prompt": (
        Action(
            "leave",
            "escape",
            N_("lanes"),
            does=N_("Leave the prompt for lane A, or for the pane that had the focus"),
            rank=0,
        ),
    ),
    "tokens": (
        Action("colour", "c", N_("colour"), does=N_("Colour tokens by the next measure")),
        Action("remarks", "w", N_("warnings"), does=N_("All warnings of the conversation")),
    ),
    "lanes": (
        Action(
            "adopt(False)",
            "enter",
            N_("go on with it"),
            palette=N_("Conversation: go on with this lane's answer"),
            called="adopt",
            help=Line(
                11, "{adopt} · {adopt_both}", N_("conversation: go on with this answer · each lane with its own")
            ),
            rank=0,
        ),
        Action(
            "adopt(True)",
            "e",
            N_("each with its own"),
            palette=N_("Conversation: each lane goes on with its own answer"),
            called="adopt_both",
            rank=1,
        ),
        Action(
            "branch",
            "b",
            N_("branch"),
            palette=N_("Branch: go on from the token under the cursor with any text"),
            help=Line(1, "{branch}", N_("go on from that token with any text instead")),
            rank=2,
        ),
        Action(
            "branches",
            "t",
            N_("branches"),
            palette=N_("Branches of the lane"),
            help=Line(2, "{branches}", N_("all branches of the lane: show, compare, delete")),
        ),
        Action(
            "sample_many",
            "m",
            N_("sample many"),
            palette=N_("Sample many continuations"),
            help=Line(3, "{sample_many}", N_("draw many continuations from there")),
            rank=3,
        ),
        Action(
            "colour",
            "c",
            N_("colour"),
            palette=N_("Colour tokens by the next measure"),
            rank=5,
            help=Line(4, "{colour}", N_("colour tokens by probability, rank, entropy or surprisal")),
        ),
        Action(
            "fold",
            "h",
            N_("fold thinking"),
            palette=N_("Fold what the lanes thought before they answered, or unfold it"),
            rank=4,
            help=Line(10, "{fold}", N_("of thinking, show only how long it is; and all of it again")),
        ),
        Action(
            "opinion",
            "o",
            N_("other's opinion"),
            palette=N_("The other lane's model on this text"),
            help=Line(
                9,
                "{opinion} · {next_place} {previous_place}",
                N_("what the other lane's model thinks of each token · where they disagree most"),
            ),
            rank=6,
        ),
        Action(
            "disagreement(1)",
            "n",
            palette=N_("The next place where the models disagree most"),
            called="next_place",
        ),
        Action(
            "disagreement(-1)",
            "p",
            called="previous_place",
            does=N_("Back to the place before, where they disagree more"),
        ),
        Action(
            "inspector",
            "i",
            N_("inspector"),
            palette=N_("Show or hide the inspector"),
            rank=9,
            called="show_inspector",
            help=Line(6, "{show_inspector}", N_("show or hide the inspector")),
        ),
        Action(
            "split(-2)",
            "less_than_sign",
            palette=N_("Inspector: lower"),
            called="lower",
            help=Line(8, "{lower} {higher}", N_("the inspector lower, higher; it stays so")),
        ),
        Action("split(2)", "greater_than_sign", palette=N_("Inspector: higher"), called="higher"),
        Action(
            "undo",
            "u,ctrl+z",
            N_("undo"),
            palette=N_("Undo"),
            help=Line(7, "{undo} · {redo}", N_("undo · redo")),
        ),
        Action("redo", "r,ctrl+y", N_("redo"), palette=N_("Redo")),
        Action(
            "lock",
            "l",
            N_("lock cursors"),
            palette=N_("Move both cursors together, or not"),
            help=Line(5, "{lock}", N_("move both lanes' cursors together; they write in step")),
        ),
    ),
    "token flow": (
        Action(
            "move(-1)",
            "left",
            help=Line(
                0,
                "{previous} {next} {line_up} {line_down}",
                N_("look at a token: the inspector shows what it was chosen from"),
            ),
            called="previous",
        ),
        Action("move(1)", "right", N_("look"), called="next", pair="previous", does=N_("Another token"), rank=2),
        Action("move_line(-1)", "up", called="line_up"),
        Action("move_line(1)", "down", called="line_down", pair="line_up", does=N_("A line up or down")),
        Action("jump(0)", "home", called="first"),
        Action("jump(-1)", "end", called="last", pair="first", does=N_("The first, the last")),
    ),
}
