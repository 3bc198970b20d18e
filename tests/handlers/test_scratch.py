"""Folders on this machine's disk: they end with their use, or with their process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from consumer.errors import Transient
from handlers.scratch import Scratch, remove_orphans

HOLDER = """
import signal, sys, tempfile
from handlers.scratch import Scratch
tempfile.tempdir = sys.argv[1]
scratch = Scratch()
(scratch.path / "image").write_bytes(b"x")
print(scratch.path, flush=True)
signal.pause()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_all_that_is_in_it(folder: Path) -> None:
    scratch = Scratch()
    (scratch.path / "deeper").mkdir()
    (scratch.path / "deeper" / "image").write_bytes(b"x")
    scratch.remove()
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_is_not(
    folder: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        try:
            assert remove_orphans() == 0
            assert (left / "image").exists()
        finally:
            process.send_signal(signal.SIGKILL)
    assert (left / "image").exists(), "a killed process removes nothing itself"
    assert remove_orphans() == 1
    assert list(folder.iterdir()) == []


REMOVER = """
import os, signal, sys, tempfile
from handlers.scratch import Scratch
tempfile.tempdir = sys.argv[1]
scratch = Scratch()
(scratch.path / "image").write_bytes(b"x")

def killed(event, args):
    if event == "os.remove" and "image" in str(args[0]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(killed)
scratch.remove()
"""


def test_what_was_being_removed_when_its_process_was_killed_is_removed(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", REMOVER, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in folder.rglob("image")] == ["image"]
    assert remove_orphans() == 1
    assert list(folder.iterdir()) == []


def test_our_own_folders_are_in_use(folder: Path) -> None:
    scratch = Scratch()
    assert remove_orphans() == 0
    assert scratch.path.is_dir()
    scratch.remove()


def test_what_is_not_a_folder_of_ours_stays(folder: Path) -> None:
    (folder / "groundwire-scratch-notes").mkdir()
    outside = folder / "outside"
    outside.mkdir()
    (outside / "lock").write_bytes(b"")
    os.symlink(outside, folder / "groundwire-scratch-link")
    assert remove_orphans() == 0
    assert (folder / "groundwire-scratch-notes").is_dir()
    assert (outside / "lock").exists()


def test_a_disk_that_refuses_is_tried_again_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "missing"))
    with pytest.raises(Transient) as caught:
        Scratch()
    assert caught.value.reason == "local-file-failed"
    assert str(folder) not in caught.value.message
