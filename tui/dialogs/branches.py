"""All that a lane has written, as a tree: show, compare, delete; and the beams of a search while it goes on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static, Tree
from textual.widgets.tree import TreeNode

from engine.base.language import _, counted
from engine.base.plain import one_line
from engine.generation.branches import Branch, BranchTree, parting
from engine.generation.events import Beam, Beamed
from tui.actions import bindings
from tui.screens import Dialog
from tui.sentences import sentence
from tui.widgets.footer import Footer

LOOK_SECONDS = 1 / 4
ROWS = 200  # of beams under one branch, at most: a long search has thousands


def ranked(beams: Sequence[Beam], best: Beam | None = None) -> list[Beam]:
    """The best, then those that ended, those that run, and those that died, the newest first."""

    def place(beam: Beam) -> tuple[bool, bool, bool, int, float]:
        died = beam.state == "died"
        return beam is not best, died, beam.state == "running", -(beam.died or 0), -beam.score

    return sorted(beams, key=place)


def beam_rows(beams: Sequence[Beam], best: Beam | None = None, *, over: bool = False) -> list[tuple[Text, Beam | None]]:
    """Rows of beams that are no branches, and at the end how many more there were."""
    found = ranked(beams, best)
    rows: list[tuple[Text, Beam | None]] = [
        (beam_label(beam, best=beam is best, over=over), beam) for beam in found[:ROWS]
    ]
    if more := len(found[ROWS:]):
        rows.append((Text(_("(those that died before: {count})", count=more), style="dim"), None))
    return rows


def beam_words(beam: Beam, *, over: bool = False) -> str:
    """Number, score and state of a beam, and by which it died; whether its search is over."""
    words = {"running": _("stopped") if over else _("still running"), "ended": _("ended"), "died": _("died")}
    said = _("beam {number}: {score:.3f}, {state}", number=beam.id + 1, score=beam.score, state=words[beam.state])
    if beam.by is None:
        return said
    return said + _(" in round {round}, by beam {by}", round=beam.died, by=beam.by + 1)


def beam_label(beam: Beam, *, best: bool = False, over: bool = False) -> Text:
    """The row of a beam that is no branch."""
    label = Text("★ " if best else "✗ " if beam.state == "died" else "  ", no_wrap=True)
    label.append(f"{beam.fork + 1:>3} " if beam.parent is not None else "", style="dim")
    label.append(beam_words(beam, over=over) + "  ", style="dim" if beam.state == "died" else "")
    text = one_line(beam.text).strip()
    label.append(text[:48] + ("…" if len(text) > 48 else ""))
    return label


@dataclass(frozen=True, slots=True)
class Outcome:
    """The tree as it was left."""

    tree: BranchTree


class BranchesDialog(Dialog[Outcome | None]):
    """Gives back the tree with another branch shown, or without those deleted; nothing if left by Esc.

    Args:
        look: the tree as it is now, and the newest round of the beam search that writes the branch that is shown;
            `None` where none goes on.
    """

    BINDINGS = bindings("branches")

    def __init__(self, lane: str, look: Callable[[], tuple[BranchTree, Beamed | None]]) -> None:
        super().__init__()
        self._lane = lane
        self._look = look
        self._tree, self._search = look()
        self._first = self._tree
        self._searching: TreeNode[int | Beam] | None = None  # the branch that a search writes

    def compose(self) -> ComposeResult:
        with Vertical(id="branches", classes="dialog"):
            yield Tree[int | Beam](_("lane {lane}", lane=self._lane), id="branch-tree")
            yield Static(id="branch-compare")
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#branches").border_title = _("Branches of lane {lane}", lane=self._lane)
        widget = self.query_one(Tree)
        widget.show_root = False
        self._fill()
        widget.focus()
        if self._search is not None:
            self._timer = self.set_interval(LOOK_SECONDS, self._follow)

    def _follow(self) -> None:
        """The search goes on, or is over and its beams are branches."""
        tree, search = self._look()
        if search is None:
            self._timer.stop()
            self._tree = self._first = tree
            self._search = self._searching = None
            self._fill()
        elif search is not self._search:
            self._search = search
            self._show_beams()

    def _show_beams(self) -> None:
        """The rows of a search's beams as it goes on: the best first, so that a beam changes its row."""
        node, search = self._searching, self._search
        if node is None or search is None:
            return
        node.set_label(self._label(self._tree.get(node.data)) if isinstance(node.data, int) else node.label)
        rows = beam_rows(search.beams, search.leader)
        for row, (label, beam) in zip(node.children, rows):
            row.data = beam
            row.set_label(label)
        for label, beam in rows[len(node.children) :]:
            node.add_leaf(label, data=beam)
        node.allow_expand = True
        chosen = self.query_one(Tree).cursor_node
        if chosen is not None:
            self._tell_of(chosen.data)

    def _fill(self) -> None:
        widget: Tree[int | Beam] = self.query_one(Tree)
        widget.clear()
        chosen: list[TreeNode[int | Beam]] = []

        def add(under: TreeNode[int | Beam], branch: Branch) -> None:
            node = under.add(self._label(branch), data=branch.id, expand=True)
            if branch.id == self._tree.current:
                chosen.append(node)
                self._searching = None if self._search is None else node
            children = self._tree.children(branch.id)
            node.allow_expand = bool(children) or bool(branch.beams)
            for child in children:
                add(node, child)
            for label, beam in beam_rows(branch.beams, over=True):
                node.add_leaf(label, data=beam)

        for branch in self._tree.children(None):
            add(widget.root, branch)
        widget.root.expand()
        self._show_beams()
        if chosen:
            self.call_after_refresh(widget.move_cursor, chosen[0])
        self._compare(self._tree.shown)

    def _label(self, branch: Branch) -> Text:
        label = Text("● " if branch.id == self._tree.current else "○ ", no_wrap=True)
        label.append(f"{branch.fork + 1:>3} " if branch.parent is not None else "", style="dim")
        if branch.id == self._tree.current and self._search is not None:
            label.append(_("beam search, round {round}", round=self._search.round))
            label.append(f"  {branch.config.summary}", style="dim")
            return label
        if branch.beam is not None:
            label.append(beam_words(branch.beam, over=True) + "  ", style="dim")
        text = one_line(branch.text(branch.fork)).strip()
        label.append(text[:48] + ("…" if len(text) > 48 else "") if text else _("(nothing yet)"))
        label.append(
            counted(
                "  {summary} · {count} token",
                "  {summary} · {count} tokens",
                len(branch.steps),
                summary=branch.config.summary,
            ),
            style="dim",
        )
        return label

    def on_tree_node_highlighted(self, event: Tree.NodeHighlighted[int | Beam]) -> None:
        event.stop()
        self._tell_of(event.node.data)

    def _tell_of(self, data: int | Beam | None) -> None:
        """What there is to know of the row under the cursor."""
        if isinstance(data, Beam):
            self._tell(data)
        elif data is not None and data == self._tree.current and self._search is not None:
            best = "".join(token.text for token in self._search.best)
            text = Text(_("the best so far\n"), style="dim", no_wrap=True, overflow="ellipsis")
            text.append(f"“{one_line(best)}”", style="not dim bold")
            self.query_one("#branch-compare", Static).update(text)
        elif data is not None:
            self._compare(self._tree.get(data))

    def _tell(self, beam: Beam) -> None:
        """What there is to know of a beam that is no branch."""
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(beam_words(beam, over=self._search is None) + "\n", style="dim")
        text.append(f"“{one_line(beam.text)}”\n", style="bold")
        if beam.parent is not None:
            text.append(
                _("it left beam {parent} at token {place}", parent=beam.parent + 1, place=beam.fork + 1), style="dim"
            )
        self.query_one("#branch-compare", Static).update(text)

    def _compare(self, branch: Branch | None) -> None:
        """The branch under the cursor beside the one that is shown, from where they part."""
        shown = self._tree.shown
        text = Text(no_wrap=True, overflow="ellipsis")
        if branch is not None and shown is not None and branch.id != shown.id:
            place = parting(branch.steps, shown.steps)
            start = place if place is not None else min(len(branch.steps), len(shown.steps))
            text.append(
                counted(
                    "the same for {count} token: “{text}…”\n",
                    "the same for {count} tokens: “{text}…”\n",
                    start,
                    text=one_line(branch.text()[:40]),
                ),
                style="dim",
            )
            text.append(_("this   “{start}”\n", start=one_line(branch.text(start))), style="bold")
            text.append(_("shown  “{start}”", start=one_line(shown.text(start))))
        elif branch is not None:
            text.append(_("this is the one that is shown\n"), style="dim")
            text.append(f"“{one_line(branch.text())}”\n", style="bold")
        self.query_one("#branch-compare", Static).update(text)

    def on_tree_node_selected(self, event: Tree.NodeSelected[int | Beam]) -> None:
        event.stop()
        self.action_show()

    def action_show(self) -> None:
        node = self.query_one(Tree).cursor_node
        if node is None or node.data is None or self._is_searching():
            return
        if isinstance(node.data, Beam):
            self._say_gone(node.data)
        else:
            self.dismiss(Outcome(self._tree.switch(node.data)))

    def action_delete(self) -> None:
        node = self.query_one(Tree).cursor_node
        if node is None or node.data is None or self._is_searching():
            return
        if isinstance(node.data, Beam):
            self._say_gone(node.data)
            return
        if len(self._tree.branches) == 1:
            self.notify(sentence(_("The last branch stays: a new run ({run}) begins another.")), severity="warning")
            return
        self._tree = self._tree.delete(node.data)
        self._fill()

    def _is_searching(self) -> bool:
        """Whether the run of the search goes on, so that nothing can be chosen yet; and says so."""
        if self._search is not None:
            self.notify(
                _("The lanes are running: beams can be shown once they have ended, or were stopped."),
                severity="warning",
            )
        return self._search is not None

    def _say_gone(self, beam: Beam) -> None:
        said = _("Beam {number} was left behind, and the lane has no steps of it.", number=beam.id + 1)
        self.notify(said, severity="warning")

    def action_leave(self) -> None:
        self.dismiss(Outcome(self._tree) if self._tree != self._first else None)
