"""The engine knows no screen, and the screen knows no tensors."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imports(package: str) -> set[tuple[str, str]]:
    """(file, top-level module) of every import in a package, those inside functions too."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            found |= {(path.relative_to(ROOT).as_posix(), name.split(".")[0]) for name in names}
    return found


def test_the_engine_never_imports_the_screen() -> None:
    assert {pair for pair in imports("engine") if pair[1] in ("textual", "tui")} <= {
        ("engine/cli/__init__.py", "tui"),
        ("engine/cli/lessons.py", "tui"),
    }


def test_the_screen_never_imports_torch() -> None:
    assert not {pair for pair in imports("tui") if pair[1] in ("torch", "transformers")}


@pytest.mark.parametrize("module", ["engine", "engine.cli", "engine.lab", "engine.timing.sweep", "tui.app"])
def test_importing_does_not_import_torch(module: str) -> None:
    script = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_public_surface_is_there() -> None:
    import engine

    assert all(getattr(engine, name) is not None for name in engine.__all__)
    with pytest.raises(AttributeError):
        _ = engine.nothing
