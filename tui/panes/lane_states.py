"""Undo and redo over states that are never changed."""

from typing import Generic, TypeVar

S = TypeVar("S")


class History(Generic[S]):
    """The states that were, and those that were undone."""

    LIMIT = 50

    def __init__(self, state: S) -> None:
        self._past: list[tuple[S, str]] = []
        self._future: list[tuple[S, str]] = []
        self.state = state

    def push(self, state: S, what: str) -> None:
        """Go on to another state; `what` says in a few words how it came about."""
        if state == self.state:
            return
        self._past = [*self._past, (self.state, what)][-self.LIMIT :]
        self._future = []
        self.state = state

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._future)

    def undo(self) -> str | None:
        """Go back one state; what was undone, or `None` at the beginning."""
        if not self._past:
            return None
        state, what = self._past.pop()
        self._future.append((self.state, what))
        self.state = state
        return what

    def redo(self) -> str | None:
        """Go forward again; what was done again, or `None` at the end."""
        if not self._future:
            return None
        state, what = self._future.pop()
        self._past.append((self.state, what))
        self.state = state
        return what
