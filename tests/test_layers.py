"""The house has floors: nothing imports what stands above it, and no two files import each other, however far around.

Every import counts, those inside functions and under `TYPE_CHECKING` too.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A room is a package or a file; rooms of one floor know nothing of each other.
FLOORS = (
    ("engine.base",),
    ("engine.text",),
    ("engine.networks",),
    ("engine.generation",),
    ("engine.models",),
    ("engine.inside",),
    ("engine.remote",),
    ("engine.timing",),
    ("engine.loading", "engine.job", "engine.lessons", "engine.sessions", "engine.install"),
    ("engine.export", "engine.shelf", "engine.sweeping", "engine.worker"),
    ("engine.batch", "engine.lab"),
    ("engine",),  # the public names
    ("engine.cli",),
)
# The screen's, above all of the engine's but the command line.
TUI_FLOORS = (
    ("tui.style", "tui.terminal", "tui.actions", "tui.background"),
    ("tui.keymap",),
    ("tui.sentences",),
    ("tui.screens", "tui.widgets", "tui.trouble"),
    ("tui.dialogs",),
    ("tui.panes",),
    ("tui.workbench",),
    ("tui.exports", "tui.session_keeper"),
    ("tui.model_loader",),
    ("tui.lesson_driver",),
    ("tui",),
)
# Where the command line opens the lab, and asks for its keys.
OPENS_THE_LAB = {("engine.cli.screen", "tui.app"), ("engine.cli.screen", "tui.keymap")}


@cache
def modules() -> dict[str, Path]:
    """Every module of ours, by its dotted name."""
    found = {}
    for package in ("engine", "tui"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """The dotted names a module imports: modules of ours exactly, of others as they are written."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = {name for name in names if name in modules()}
            found |= inner | ({node.module} if names - inner else set())
    return frozenset(found)


def room_of(module: str, floors: tuple[tuple[str, ...], ...]) -> tuple[int, str]:
    """The floor and the room of a module: the room with the longest name that holds it."""
    rooms = [(len(room), number, room) for number, floor in enumerate(floors) for room in floor]
    _length, number, room = max(one for one in rooms if module == one[2] or module.startswith(f"{one[2]}."))
    return number, room


def broken(floors: tuple[tuple[str, ...], ...], package: str) -> Iterator[str]:
    """Every import of a package that climbs, or goes to another room of the same floor."""
    for module in modules():
        if not module.startswith(package):
            continue
        floor, room = room_of(module, floors)
        for imported in imports(module):
            if imported.startswith(package) and (module, imported) not in OPENS_THE_LAB:
                theirs, other = room_of(imported, floors)
                if theirs > floor or (theirs == floor and other != room):
                    yield f"{modules()[module].relative_to(ROOT)} imports {imported}"


@pytest.mark.parametrize(("package", "floors"), [("engine", FLOORS), ("tui", TUI_FLOORS)])
def test_nothing_imports_what_stands_above_it(package: str, floors: tuple[tuple[str, ...], ...]) -> None:
    assert list(broken(floors, package)) == []


def test_no_two_files_import_each_other() -> None:
    ours = {module: imports(module) & set(modules()) for module in modules()}
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_every_floor_is_there() -> None:
    assert {room for floor in FLOORS + TUI_FLOORS for room in floor} <= set(modules())


def test_the_engine_never_imports_the_screen() -> None:
    assert {
        (module, imported)
        for module in modules()
        for imported in imports(module)
        if module.startswith("engine") and imported.split(".")[0] in ("textual", "tui")
    } <= OPENS_THE_LAB


def test_the_screen_never_imports_torch() -> None:
    assert not {
        (module, imported)
        for module in modules()
        for imported in imports(module)
        if module.startswith("tui") and imported.split(".")[0] in ("torch", "transformers")
    }


def test_importing_does_not_import_torch() -> None:
    script = (
        "import sys, engine, engine.cli, engine.lab, engine.batch, engine.loading, engine.timing.runs, "
        "engine.remote.connect, engine.inside.occlusion, engine.lessons.questions, tui.app\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_each_public_name_is_what_the_package_says() -> None:
    import torch

    import engine
    from engine import PRESETS, GenerationConfig, Sweep, Token, Tokenizer, distribution

    stage = distribution(torch.tensor([1.0, 3.0, 2.0]), None, PRESETS["greedy"])
    assert (stage.top, isinstance(PRESETS["greedy"], GenerationConfig)) == (1, True)
    assert Sweep().lengths == (10, 20, 40, 60)
    assert all(isinstance(one, type) for one in (engine.Lab, GenerationConfig, Sweep, Token, Tokenizer))
    assert all(callable(one) for one in (engine.generate, engine.load_model, engine.load_config, engine.time_runs))
    assert {name for name in engine.__all__ if not hasattr(engine, name)} == set()
    with pytest.raises(AttributeError):
        _ = engine.nothing
