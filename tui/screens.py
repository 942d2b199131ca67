"""Screens whose keys are named in the language in use."""

from dataclasses import replace
from typing import Generic

from textual.screen import ActiveBinding, ModalScreen, Screen, ScreenResultType

from engine.language import _


def translated(bindings: dict[str, ActiveBinding]) -> dict[str, ActiveBinding]:
    """The same keys; classes write them down before the language is known."""
    return {
        key: active._replace(binding=replace(active.binding, description=_(active.binding.description)))
        for key, active in bindings.items()
    }


class LabScreen(Screen[None]):
    """The lab's own screen."""

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        return translated(super().active_bindings)


class Dialog(ModalScreen[ScreenResultType], Generic[ScreenResultType]):
    """A screen over the lab's."""

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        return translated(super().active_bindings)
