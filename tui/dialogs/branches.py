"""All that a lane has written, as a tree: show, compare, delete."""

from dataclasses import dataclass

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static, Tree
from textual.widgets.tree import TreeNode

from engine.base.language import _
from engine.base.plain import one_line
from engine.generation.branches import Branch, BranchTree, parting
from tui.actions import bindings
from tui.screens import Dialog
from tui.sentences import sentence
from tui.widgets.footer import Footer


@dataclass(frozen=True, slots=True)
class Outcome:
    """The tree as it was left."""

    tree: BranchTree


class BranchesDialog(Dialog[Outcome | None]):
    """Gives back the tree with another branch shown, or without those deleted; nothing if left by Esc."""

    BINDINGS = bindings("branches")

    def __init__(self, lane: str, tree: BranchTree) -> None:
        super().__init__()
        self._lane = lane
        self._tree = tree
        self._first = tree

    def compose(self) -> ComposeResult:
        with Vertical(id="branches", classes="dialog"):
            yield Tree[int](_("lane {lane}", lane=self._lane), id="branch-tree")
            yield Static(id="branch-compare")
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#branches").border_title = _("Branches of lane {lane}", lane=self._lane)
        widget = self.query_one(Tree)
        widget.show_root = False
        self._fill()
        widget.focus()

    def _fill(self) -> None:
        widget: Tree[int] = self.query_one(Tree)
        widget.clear()
        chosen: list[TreeNode[int]] = []

        def add(under: TreeNode[int], branch: Branch) -> None:
            node = under.add(self._label(branch), data=branch.id, expand=True)
            if branch.id == self._tree.current:
                chosen.append(node)
            children = self._tree.children(branch.id)
            node.allow_expand = bool(children)
            for child in children:
                add(node, child)

        for branch in self._tree.children(None):
            add(widget.root, branch)
        widget.root.expand()
        if chosen:
            self.call_after_refresh(widget.move_cursor, chosen[0])
        self._compare(self._tree.shown)

    def _label(self, branch: Branch) -> Text:
        label = Text("● " if branch.id == self._tree.current else "○ ", no_wrap=True)
        label.append(f"{branch.fork + 1:>3} " if branch.parent is not None else "", style="dim")
        text = one_line(branch.text(branch.fork)).strip()
        label.append(text[:48] + ("…" if len(text) > 48 else "") if text else _("(nothing yet)"))
        label.append(
            _("  {summary} · {count} tokens", summary=branch.config.summary, count=len(branch.steps)), style="dim"
        )
        return label

    def on_tree_node_highlighted(self, event: Tree.NodeHighlighted[int]) -> None:
        event.stop()
        self._compare(self._tree.get(event.node.data) if event.node.data is not None else None)

    def _compare(self, branch: Branch | None) -> None:
        """The branch under the cursor beside the one that is shown, from where they part."""
        shown = self._tree.shown
        text = Text(no_wrap=True, overflow="ellipsis")
        if branch is not None and shown is not None and branch.id != shown.id:
            place = parting(branch.steps, shown.steps)
            start = place if place is not None else min(len(branch.steps), len(shown.steps))
            text.append(
                _("the same for {start} tokens: “{text}…”\n", start=start, text=one_line(branch.text()[:40])),
                style="dim",
            )
            text.append(_("this   “{start}”\n", start=one_line(branch.text(start))), style="bold")
            text.append(_("shown  “{start}”", start=one_line(shown.text(start))))
        elif branch is not None:
            text.append(_("this is the one that is shown\n"), style="dim")
            text.append(f"“{one_line(branch.text())}”\n", style="bold")
        self.query_one("#branch-compare", Static).update(text)

    def on_tree_node_selected(self, event: Tree.NodeSelected[int]) -> None:
        event.stop()
        self.action_show()

    def action_show(self) -> None:
        node = self.query_one(Tree).cursor_node
        if node is not None and node.data is not None:
            self.dismiss(Outcome(self._tree.switch(node.data)))

    def action_delete(self) -> None:
        node = self.query_one(Tree).cursor_node
        if node is None or node.data is None:
            return
        if len(self._tree.branches) == 1:
            self.notify(sentence(_("The last branch stays: a new run ({run}) begins another.")), severity="warning")
            return
        self._tree = self._tree.delete(node.data)
        self._fill()

    def action_leave(self) -> None:
        self.dismiss(Outcome(self._tree) if self._tree != self._first else None)
