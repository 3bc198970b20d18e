"""What a process that was killed while it made a snapshot left on this machine's disk."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import pytest

from tests.handlers.lake_house import lake_house
from tests.handlers.snapshots.making import made

MAKER = """
import asyncio, signal, sys, tempfile
from handlers.snapshots.stored import scratch
tempfile.tempdir = sys.argv[1]

async def make():
    async with scratch() as folder:
        (folder / "manifest.jsonl").write_bytes(b"{}")
        print(folder, flush=True)
        signal.pause()

asyncio.run(make())
"""


async def killed_later(folder: Path) -> asyncio.subprocess.Process:
    """A process that is making a snapshot."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MAKER, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline()
    return process


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.jsonl")]


async def test_the_next_snapshot_removes_what_a_killed_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lake_house() as house:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        await house.approve()
        process = await killed_later(tmp_path)
        await made(house)
        assert left(tmp_path) == ["manifest.jsonl"], "it is still being made there"
        process.kill()
        await process.wait()
        await house.approve("task-2")
        await made(house)
        assert left(tmp_path) == []
