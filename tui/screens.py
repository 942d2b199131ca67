"""Screens whose keys are named in the language in use, and shown while they can do something."""

from dataclasses import replace
from typing import Generic, Protocol, runtime_checkable

from textual.screen import ActiveBinding, ModalScreen, Screen, ScreenResultType

from engine.base.language import _


@runtime_checkable
class Knowing(Protocol):
    """Something with keys that knows which of its actions can do something now."""

    def possible(self, action: str) -> bool: ...


class LabScreen(Screen[None]):
    """The lab's own screen."""

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        return _told(super().active_bindings)


class Dialog(ModalScreen[ScreenResultType], Generic[ScreenResultType]):
    """A screen over the lab's."""

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        return _told(super().active_bindings)


def _told(bindings: dict[str, ActiveBinding]) -> dict[str, ActiveBinding]:
    """The same keys, named in the language in use: classes write them down before that is known.

    Keys that can do nothing now are not shown; pressed all the same, they say why.
    """
    told = {}
    for key, active in bindings.items():
        node, binding = active.node, active.binding
        show = binding.show and (not isinstance(node, Knowing) or node.possible(binding.action))
        told[key] = active._replace(binding=replace(binding, description=_(binding.description), show=show))
    return told
