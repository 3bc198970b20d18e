"""The ground truth at a size of the log: the newest move of each task, read in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from consumer.errors import Permanent
from consumer.ports import LogEntry, LogReader, Sleep
from handlers.pull.together import retried

READ = 1024  # entries that are read at once, a multiple of a bundle
AT_ONCE = 8  # such reads

_Task = tuple[str, str, str]  # source, project, task


class Move(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a snapshot needs of a ``lake`` entry."""

    source: str
    project: str
    task: str
    project_key: str
    sequence: int
    ground_truth: bool
    revision: str | None
    manifest_key: str | None
    manifest_sha256: str | None
    stage: str | None = None
    ground_truth_label: str | None = None
    approved_by: str | None = None
    approved_at: str | None = None
    platform: str = ""
    nameless: bool = False
    index: int = 0

    @property
    def is_truth(self) -> bool:
        """As in `consumer.changes`: what is in the lake, and counts."""
        return self.ground_truth and self.revision is not None


async def truth_at(log: LogReader, size: int, sleep: Sleep) -> list[Move]:
    """The tasks in the ground truth after the first ``size`` entries, in the order of project and
    task. What it keeps is one move of each task. Raises ``Permanent`` (``lake-entry-unreadable``).
    """
    newest: dict[_Task, Move | int] = {}  # of a task out of the ground truth, only its sequence
    async for entries in _read(log, size, sleep):
        for entry in entries:
            if entry.data.get("kind") == "lake":
                _take(newest, _move(entry))
    moves = [move for move in newest.values() if isinstance(move, Move)]
    return sorted(moves, key=lambda move: (move.project_key, move.task, move.source))


def _take(newest: dict[_Task, Move | int], move: Move) -> None:
    task = (move.source, move.project, move.task)
    before = newest.get(task, 0)
    if move.sequence > (before.sequence if isinstance(before, Move) else before):
        newest[task] = move if move.is_truth else move.sequence


async def size_of_truth(log: LogReader, size: int, sleep: Sleep) -> int:
    """The size of the log up to and with its last ``lake`` entry below ``size``; 0 without one."""
    end = size
    while end > 0:
        start = (end - 1) // READ * READ
        for entry in reversed(await _some(log, start, end, sleep)):
            if entry.data.get("kind") == "lake":
                return entry.index + 1
        end = start
    return 0


async def _read(log: LogReader, size: int, sleep: Sleep) -> AsyncIterator[Sequence[LogEntry]]:
    """The log in order, some of it read ahead."""
    starts = list(range(0, size, READ))
    for first in range(0, len(starts), AT_ONCE):
        some = starts[first : first + AT_ONCE]
        for entries in await asyncio.gather(
            *(_some(log, start, min(size, start + READ), sleep) for start in some)
        ):
            yield entries


async def _some(log: LogReader, start: int, end: int, sleep: Sleep) -> Sequence[LogEntry]:
    return await retried(lambda: log.read(start, end), sleep)


def _move(entry: LogEntry) -> Move:
    try:
        return msgspec.convert({**entry.data, "index": entry.index}, Move)
    except msgspec.ValidationError as error:
        said = f"entry {entry.index} of the log is no move of a task; groundwire verify tells more"
        raise Permanent("lake-entry-unreadable", said) from error
