"""`groundwire demo --once` as a newcomer types it, and what its end tells him to type next."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).parent / "groundwire"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": f"{PROGRAM.parent}:/usr/bin:/bin"},
    )


def test_it_ends_by_itself_and_its_hints_work_as_they_stand(tmp_path: Path) -> None:
    told = run(tmp_path, str(PROGRAM), "demo", "--once", "--dir", "here")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Traceback" not in told.stdout + told.stderr
    _, _, hints = told.stdout.partition("Where to look:")
    commands = re.findall(r"^  (\S.*?)  ", hints, re.MULTILINE)
    assert [shlex.split(one)[3] for one in commands] == [
        "verify", "report", "pull", "changes", "snapshot", "show", "dead",
    ]  # fmt: skip
    for command in commands:
        result = run(tmp_path, *shlex.split(command))
        assert result.returncode == 0, (command, result.stdout, result.stderr)
    (tasks,) = (tmp_path / "folder").glob("*/tasks.json")  # as RedBrick exports, it was said
    assert "CT-0001" in tasks.read_text()
