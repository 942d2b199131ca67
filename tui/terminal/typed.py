"""What a terminal delivers as text is typed in, whatever Python calls printable.

`str.isprintable` says no to U+3000, which Japanese input methods write, to U+00A0, and to the joiners of Persian words
and of emoji; Textual's fields ask it.
"""

import unicodedata

from textual import events


class Key(events.Key):
    """A key whose character is text. Its class has the name that Textual calls handlers by: `_on_key`."""

    @property
    def is_printable(self) -> bool:
        return True


def typed(event: events.Event) -> events.Event:
    """The event, or a key that types where its character is neither a control nor a part of one."""
    if not isinstance(event, events.Key) or event.is_forwarded or event.is_printable or not event.character:
        return event
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in event.character):
        return event
    return Key(event.key, event.character)
