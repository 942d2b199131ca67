"""What logitlab is built on: versions that are all pinned, licences that are all listed."""

import re
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import licences  # noqa: E402

PERMISSIVE = re.compile(r"MIT|BSD|Apache|ISC|PSF|MPL|Mozilla|CNRI|Zlib|CC0|BSL-1")
OF_ADAPTERS = {"peft", "accelerate", "psutil"}  # an extra that nothing here needs, pinned for those who want it
OF_A_GPU = ("nvidia-", "cuda-", "triton")  # which torch brings where there is one

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11), reason="pinned for Linux and Python 3.11"
)


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_every_package_that_is_needed_is_pinned_and_no_other() -> None:
    needed = {
        name: re.sub(r"\+.*", "", package.version)
        for name, package in licences.closure({"dev", "remote", "parquet"}).items()
        if not name.startswith(OF_A_GPU)
    }
    optional = OF_ADAPTERS - set(needed)
    assert set(pinned()) >= optional
    assert needed == {name: version for name, version in pinned().items() if name not in optional}


def test_the_page_of_licences_is_true() -> None:
    if any(name.startswith(OF_A_GPU) for name in licences.closure(set())):
        pytest.skip("the page lists what a machine without a GPU needs")
    assert licences.PAGE.read_text(encoding="utf-8") == licences.page(), "run: python docs/licences.py"


def test_what_it_takes_to_run_has_permissive_licences() -> None:
    odd = {name: licences.licence(one) for name, one in licences.closure(set()).items()}
    assert not {name: said for name, said in odd.items() if not PERMISSIVE.search(said)}
