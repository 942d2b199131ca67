"""Which keys text fields take."""

from textual.keys import REPLACED_KEYS, key_to_character

# What text fields use beside characters.
TYPED = frozenset(("enter", "space", "backspace", "delete", "left", "right", "up", "down", "home", "end"))


def character_of(key: str) -> str | None:
    """What a text field gets of a key; `None` of one that is no character."""
    character = key_to_character(REPLACED_KEYS.get(key, key))
    return character if character is not None and character.isprintable() else None


def is_typed(key: str) -> bool:
    """Whether a text field takes the key."""
    return key in TYPED or character_of(key) is not None
