"""Screens whose keys are named in the language in use, and shown while they can do something."""

from dataclasses import replace
from typing import Generic, Protocol, runtime_checkable

from textual.screen import ActiveBinding, ModalScreen, Screen, ScreenResultType

from engine.base.language import _


@runtime_checkable
class HasPossibleActions(Protocol):
    """Something with keys that says which of its actions can do something now."""

    def possible(self, action: str) -> bool: ...


class LabScreen(Screen[None]):
    """The lab's own screen."""

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        return _in_language(super().active_bindings)


class Dialog(ModalScreen[ScreenResultType], Generic[ScreenResultType]):
    """A screen over the lab's."""

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        return _in_language(super().active_bindings)


def _in_language(bindings: dict[str, ActiveBinding]) -> dict[str, ActiveBinding]:
    """The same keys, named in the language in use, which is chosen after the classes have written the names down.

    Keys that can do nothing now are not shown; pressed all the same, they say why.
    """
    found = {}
    for key, active in bindings.items():
        node, binding = active.node, active.binding
        show = binding.show and (not isinstance(node, HasPossibleActions) or node.possible(binding.action))
        found[key] = active._replace(binding=replace(binding, description=_(binding.description), show=show))
    return found
