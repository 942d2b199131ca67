"""Small files: whole or not at all, whatever the disk does."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from engine.base.errors import InputError, MachineError
from engine.base.files import check_writable, read_text, write_text

FILL = """
import resource, sys
from pathlib import Path
from engine.base.errors import MachineError
from engine.base.files import write_text
path = Path(sys.argv[1])
try:
    write_text(path, "x" * 200_000)
except MachineError as error:
    print(error)
"""


def test_a_disk_that_fills_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    write_text(path, "old")

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64_000, 64_000))

    run = subprocess.run(
        [sys.executable, "-c", FILL, str(path)], preexec_fn=no_room, capture_output=True, text=True, check=True
    )
    assert "cannot write" in run.stdout
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["kept.json"]


def test_a_real_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    script = (
        f"mount -t tmpfs -o size=64k none {tmp_path} && {sys.executable} -c '{FILL}' {tmp_path}/f; ls -A {tmp_path}"
    )
    run = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "mount" in run.stderr or "unshare" in run.stderr:
        pytest.skip(f"no small disk can be mounted here: {run.stderr.strip()}")
    assert run.stdout.splitlines() == [f"cannot write {tmp_path}/f: No space left on device; choose another place"], (
        run.stderr
    )


def test_reading_is_bounded_and_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfab")
    assert read_text(path, 10) == "ab"
    for data, words in ((b"x" * 11, "has 11 bytes; at most 10"), (b"\xff", "not UTF-8"), (b"a\0", "binary file")):
        path.write_bytes(data)
        with pytest.raises(InputError, match=words):
            read_text(path, 10)
    for odd in (tmp_path / "none", tmp_path, Path("a\0b")):
        with pytest.raises(InputError, match="cannot read"):
            read_text(odd, 10)


def test_places_that_cannot_be_written_are_told_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.json")
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "a" / "b", "there is no folder")):
        with pytest.raises(MachineError, match=words):
            check_writable(path)
    (tmp_path / "folder").mkdir()
    twice = tmp_path / "folder" / ".." / "new.json"
    with pytest.raises(InputError, match="would be written twice"):
        check_writable(tmp_path / "new.json", None, twice)
    with pytest.raises(InputError, match="is read, and would be written over"):
        check_writable(tmp_path / "new.json", read=[twice])
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.geteuid() != 0:
        with pytest.raises(MachineError, match="read-only"):
            check_writable(closed / "x")
    with pytest.raises(MachineError, match="cannot write /proc/x"):
        write_text(Path("/proc/x"), "")


def test_permissions_are_those_asked_for(tmp_path: Path) -> None:
    write_text(tmp_path / "private", "x", mode=0o600)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
