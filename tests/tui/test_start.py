"""How the lab begins: what is mounted has its styles at once, and is not styled again for what has not changed."""

from pathlib import Path
from typing import Any

import pytest
from textual.css.stylesheet import Stylesheet
from textual.widget import Widget

import tui.app
from tests.tui.conftest import until
from tests.tui.test_snapshots import SIZES
from tui.screens import Dialog

STYLES = Path(tui.app.__file__).with_name("app.tcss").read_text("utf-8")
MANY = 40  # nodes, of a hundred; a pane has fewer


def styles(widget: Widget) -> dict[str, Any]:
    """All of a widget's styles, and those of its parts."""
    parts = {name: dict(part.get_rules()) for name, part in widget._component_styles.items()}
    return {"": dict(widget.styles.base.get_rules()), **parts}


@pytest.mark.parametrize("size", [(50, 14), *SIZES])
async def test_everything_is_styled_once_and_for_its_size(lab, monkeypatch: pytest.MonkeyPatch, size) -> None:
    updated, read = [], []
    update, parse = Stylesheet.update_nodes, Stylesheet._parse_rules

    def counted(self, nodes, animate: bool = False) -> None:
        nodes = list(nodes)
        updated.append(len(nodes))
        update(self, nodes, animate)

    def parsed(self, css: str, *arguments: Any, **options: Any) -> Any:
        rules = parse(self, css, *arguments, **options)
        read.append((css, id(rules)))
        return rules

    monkeypatch.setattr(Stylesheet, "update_nodes", counted)
    monkeypatch.setattr(Stylesheet, "_parse_rules", parsed)
    async with lab(size) as (app, pilot):
        ours = {rules for css, rules in read if css == STYLES}
        assert len(ours) == 1, "the stylesheet is read once"
        assert [count for count in updated if count > MANY] == []
        everything = list(app.screen.walk_children(with_self=True))
        assert len(everything) > 2 * MANY
        before = [styles(widget) for widget in everything]
        app.stylesheet.update(app.screen)
        assert [styles(widget) for widget in everything] == before
        await pilot.resize_terminal(*(SIZES[0] if size != SIZES[0] else SIZES[-1]))
        assert max(updated) > 2 * MANY  # another size has other styles


@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize("opens", ["f1", "f2", "f3", "ctrl+s"])
async def test_so_is_a_dialog(lab, monkeypatch: pytest.MonkeyPatch, opens: str, size) -> None:
    updated = []
    update = Stylesheet.update_nodes

    def counted(self, nodes, animate: bool = False) -> None:
        nodes = list(nodes)
        updated.extend(len(nodes) for node in nodes[:1] if isinstance(node, Dialog))
        update(self, nodes, animate)

    async with lab(size) as (app, pilot):
        monkeypatch.setattr(Stylesheet, "update_nodes", counted)
        await pilot.press(opens)
        await until(pilot, lambda: isinstance(app.screen, Dialog) and bool(app.screen.query("*")), 20)
        everything = list(app.screen.walk_children(with_self=True))
        assert set(updated) == {1}, "the dialog's own node"
        assert len(everything) > 3
        before = [styles(widget) for widget in everything]
        app.stylesheet.update(app.screen)
        assert [styles(widget) for widget in everything] == before
