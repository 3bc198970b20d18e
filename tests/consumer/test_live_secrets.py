"""Secrets that change while we run."""

from __future__ import annotations

import os
from pathlib import Path

from consumer.live_secrets import LOOK_S, LiveSecret, LiveSecrets
from consumer.settings_values import Secret


class Seconds:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at

    def pass_by(self) -> None:
        self.at += LOOK_S


def secret_in(path: Path, text: str) -> Secret:
    path.write_text(text)
    return Secret(f"file:{path}", text)


def test_a_rotated_file_is_the_new_secret_and_is_learnt(tmp_path: Path) -> None:
    learnt: list[str] = []
    now = Seconds()
    live = LiveSecret(secret_in(tmp_path / "s", "old-secret"), learnt.append, now=now)
    assert live() == "old-secret"
    swapped = tmp_path / "new"
    swapped.write_text("new-secret\n")
    os.replace(swapped, tmp_path / "s")
    now.pass_by()
    assert live() == "new-secret"
    assert learnt == ["new-secret"]


def test_a_secret_whose_file_is_gone_or_empty_is_revoked(tmp_path: Path) -> None:
    now = Seconds()
    path = tmp_path / "s"
    live = LiveSecrets([LiveSecret(secret_in(path, "first"), now=now), lambda: "second"])
    assert list(live) == [b"first", b"second"]
    path.unlink()
    now.pass_by()
    assert list(live) == [b"second"]
    path.write_text("")
    now.pass_by()
    assert list(live) == [b"second"]
    path.write_text("first again")
    now.pass_by()
    assert list(live) == [b"first again", b"second"]


def test_a_secret_of_the_environment_stands(tmp_path: Path) -> None:
    assert LiveSecret(Secret("env:NAME", "value"))() == "value"


def test_a_file_is_not_looked_at_with_every_request(tmp_path: Path) -> None:
    now = Seconds()
    path = tmp_path / "s"
    live = LiveSecret(secret_in(path, "old"), now=now)
    assert live() == "old"
    path.write_text("newer")
    assert live() == "old"
    now.pass_by()
    assert live() == "newer"


def test_two_texts_of_one_size_within_one_tick_of_the_clock_are_told_apart(tmp_path: Path) -> None:
    now = Seconds()
    path = tmp_path / "s"
    live = LiveSecret(secret_in(path, "one"), now=now)
    assert live() == "one"
    times = path.stat()
    path.write_text("two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    now.pass_by()
    assert live() == "two"
