"""The screen's files stand on floors: each imports only from its own or from a lower one, and none in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
# From the lowest up; a folder stands for all of its files.
FLOORS = (
    ("tui/actions", "tui/style", "tui/terminal", "tui/trouble"),
    ("tui/screens", "tui/widgets"),
    ("tui/dialogs",),
    ("tui/panes",),
    ("tui/workbench",),
    ("tui/exports", "tui/lesson_driver", "tui/model_loader", "tui/session_keeper"),
    ("tui/app",),
)


def imported() -> dict[str, set[str]]:
    """Each file of the screen and those it imports, inside functions and for types too."""
    files = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "tui").rglob("*.py")}
    found: dict[str, set[str]] = {}
    for file in files:
        names = set()
        for node in ast.walk(ast.parse((ROOT / f"{file}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[file] = {name.replace(".", "/") for name in names} & files
    return found


def floor(file: str) -> int:
    (number,) = [
        number
        for number, rooms in enumerate(FLOORS)
        if any(file == room or file.startswith(f"{room}/") for room in rooms)
    ]
    return number


def test_no_file_imports_from_a_higher_floor() -> None:
    edges = [(file, other) for file, others in imported().items() for other in others]
    assert len(edges) > 50
    assert not [f"{file} imports {other}" for file, other in edges if floor(file) < floor(other)]


def test_no_files_import_each_other_in_a_circle() -> None:
    TopologicalSorter(imported()).prepare()  # raises CycleError, which names them
