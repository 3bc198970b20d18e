"""Locks that tell the living from the dead, and file systems whose locks tell nothing."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from consumer.queues.sqlite_holders import Flock, Holders

ONE, TWO = "1" * 16, "2" * 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "holders"


def unsupported(descriptor: int, operation: int) -> None:
    raise OSError(errno.EOPNOTSUPP, "no locks here")


def pretended(descriptor: int, operation: int) -> None:
    """A file system that grants every lock to everybody."""


def died(folder: Path, name: str) -> None:
    """What the kernel leaves of a holder."""
    holder = Holders(folder, name)
    holder.enter()
    holder.leave(keep_file=True)


def test_whoever_entered_lives(folder: Path) -> None:
    one, two = Holders(folder, ONE), Holders(folder, TWO)
    one.enter()
    two.enter()
    assert (one.gone(), two.gone()) == ([], [])


def test_whoever_died_is_gone_until_it_is_forgotten(folder: Path) -> None:
    died(folder, ONE)
    two = Holders(folder, TWO)
    two.enter()
    assert two.gone() == [ONE]
    two.forget([ONE])
    assert two.gone() == []
    assert [path.name for path in folder.iterdir()] == [TWO]


def test_the_living_are_not_forgotten(folder: Path) -> None:
    one, two = Holders(folder, ONE), Holders(folder, TWO)
    one.enter()
    two.forget([ONE])
    assert [path.name for path in folder.iterdir()] == [ONE]


def test_whoever_left_is_not_gone(folder: Path) -> None:
    one, two = Holders(folder, ONE), Holders(folder, TWO)
    one.enter()
    one.leave()
    assert two.gone() == []


@pytest.mark.parametrize("flock", [unsupported, pretended])
def test_where_locks_do_not_work_nobody_can_be_taken_for_dead(folder: Path, flock: Flock) -> None:
    Holders(folder, ONE, flock=flock).enter()
    assert list(folder.iterdir()) == []


def test_a_holder_whose_file_is_held_as_it_enters_tries_again(folder: Path) -> None:
    """By another process that looks, just then, whether its file is free."""
    refusals = [BlockingIOError(), BlockingIOError()]

    def held_at_first(descriptor: int, operation: int) -> None:
        if refusals:
            raise refusals.pop()
        fcntl.flock(descriptor, operation)

    one = Holders(folder, ONE, flock=held_at_first)
    one.enter()
    assert Holders(folder, TWO).gone() == []
    assert [path.name for path in folder.iterdir()] == [ONE]


def test_a_file_removed_as_its_holder_locks_it_is_made_again(folder: Path) -> None:
    """By another process that took the unlocked file for a dead one's."""
    removals = [folder / ONE]

    def removed_at_first(descriptor: int, operation: int) -> None:
        fcntl.flock(descriptor, operation)
        if removals:
            removals.pop().unlink()

    one = Holders(folder, ONE, flock=removed_at_first)
    one.enter()
    assert [path.name for path in folder.iterdir()] == [ONE]
    assert Holders(folder, TWO).gone() == []


def test_other_files_in_the_folder_are_left_alone(folder: Path) -> None:
    folder.mkdir()
    strange = [folder / "notes.txt", folder / "A1", folder / ("g" * 16)]
    for path in strange:
        path.touch()
    two = Holders(folder, TWO)
    assert two.gone() == []
    assert all(path.exists() for path in strange)


def test_a_folder_that_cannot_be_made_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "holders").write_text("a file")
    one = Holders(tmp_path / "holders", ONE)
    one.enter()
    assert one.gone() == []
    one.leave()
