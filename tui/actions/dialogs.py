"""The keys of dialogs."""

from engine.base.language import N_
from engine.generation.config import OWN, PRESETS
from tui.actions.action import Action, Where

# The presets' keys in the editor of a lane, by their names.
PRESET_KEYS = {"greedy": "f1", "creative": "f2", "sampled": "f3", "contrastive": "f7", OWN: "f4"}
assert {*PRESETS, OWN} == set(PRESET_KEYS)

ACTIONS: dict[Where, tuple[Action, ...]] = {
    "dialogs": (Action("leave", "escape", N_("close"), does=N_("Close a dialog, and take nothing"), rank=9),),
    "lane editor": (
        Action("accept", "ctrl+s", N_("use"), called="use", does=N_("Use the settings"), rank=0),
        Action("open", "f5", N_("open TOML"), does=N_("Open a file of settings"), rank=1),
        Action("save", "f6", N_("save TOML"), does=N_("Save the settings to a file"), rank=1),
        Action("choose_model", "f8", N_("model"), called="model", does=N_("Choose the lane's model"), rank=1),
        *(
            Action(f"preset('{name}')", key, called=name, does=N_("Fill in a preset, or the model's own settings"))
            for name, key in PRESET_KEYS.items()
        ),
    ),
    "export": (
        Action("form", "f6,ctrl+f", N_("form"), does=N_("Another form")),
        Action("write", "ctrl+s", N_("to the file"), does=N_("Write the file")),
        Action("copy", "f5,ctrl+y", N_("to the clipboard"), does=N_("Copy to the clipboard")),
    ),
    "sessions": (
        Action("open", "enter", N_("open"), does=N_("Open the session")),
        Action("new", "n", N_("new"), does=N_("Begin a new session")),
        Action("delete", "delete,backspace", N_("delete"), does=N_("Delete the session")),
    ),
    "models": (
        Action("choose", "enter", N_("load"), does=N_("Load the model")),
        Action("move('cursor_up')", "up", called="up"),
        Action("move('cursor_down')", "down", called="down", pair="up", does=N_("Another model")),
        Action("move('page_up')", "pageup", called="page_up"),
        Action("move('page_down')", "pagedown", called="page_down", pair="page_up", does=N_("A page up or down")),
    ),
    "branches": (
        Action("show", "enter", N_("show"), does=N_("Show the branch")),
        Action("delete", "delete,backspace", N_("delete"), does=N_("Delete the branch")),
    ),
    "variant result": (
        Action("colour", "c", N_("colour by probability"), does=N_("Colour by probability, or not")),
        Action("leave", "enter,q", called="close", does=N_("Close it")),
    ),
    "text editor": (Action("accept", "ctrl+s", N_("use"), called="use", does=N_("Use the text")),),
    "help": (Action("leave", "enter,q", called="close", does=N_("Close it")),),
    "greeting": (Action("begin", "enter", N_("begin"), does=N_("Begin")),),
}

# In these nothing can be typed, so that their keys come before those of the list that has the focus.
LISTS: frozenset[Where] = frozenset({"branches", "sessions"})
# In these, characters and keys as `enter` and `←` are for text fields.
TYPING: frozenset[Where] = frozenset({"dialogs", "lane editor", "models", "text editor", "greeting"})
