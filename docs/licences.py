"""Make `docs/licences.md`: what logitlab is built on, and under which licences, as the packages themselves say.

.venv/bin/python docs/licences.py
"""

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parent / "licences.md"
HEAD = """# Licences

logitlab is Apache-2.0. It is built on these packages, in the versions of `constraints.txt` on Linux; licences as the
packages state them. `docs/licences.py` makes this page, and a test says when it is out of date.

The embedded model, SmolLM2-135M-Instruct, is Apache-2.0; models that you fetch have licences of their own, which
`logitlab models list` shows.
"""
EXACT = {"BSD License": "BSD", "MIT License": "MIT", "Apache Software License": "Apache-2.0"}


def closure(extras: set[str]) -> dict[str, Distribution]:
    """Every distribution that logitlab needs here with some of its extras, by its canonical name."""
    found: dict[str, Distribution] = {}
    waiting = [("logitlab", frozenset(extras))]
    seen = set(waiting)
    while waiting:
        name, wanted = waiting.pop()
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # for another system: markers of an extra that is not installed
            continue
        for text in found[name].requires or []:
            needed = Requirement(text)
            if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                continue
            case = (canonicalize_name(needed.name), frozenset(needed.extras))
            if case not in seen:
                seen.add(case)
                waiting.append(case)
    del found["logitlab"]
    return found


def licence(package: Distribution) -> str:
    """What a package says of its licence: an expression, a word, or a classifier."""
    metadata = package.metadata
    said = metadata.get("License-Expression") or (metadata.get("License") or "").strip().split("\n")[0]
    if said and len(said) < 120:
        return said
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", []) if "License ::" in line]
    return ", ".join(EXACT.get(one, one) for one in classifiers) or "see the package"


def page() -> str:
    """The whole page."""
    run, dev = closure(set()), closure({"dev"})
    text = HEAD
    for title, packages in (
        ("Needed to run", run),
        ("Needed to develop and test", {name: one for name, one in dev.items() if name not in run}),
    ):
        text += f"\n## {title}\n\n| package | version | licence |\n|---|---|---|\n"
        for name, package in sorted(packages.items()):
            version = re.sub(r"\+.*", "", package.version)
            text += f"| {name} | {version} | {licence(package)} |\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
