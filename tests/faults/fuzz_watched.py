"""A receiver that watches itself: ``python -m tests.faults.fuzz_watched CONFIGURATION LOOKS``.

In time of its own, so that what neighbours on the same machine take is none of it: ``stall_s``, the
longest that one callback kept the loop; and ``turn_s``, the longest between two turns of a task
that wants one every 2 ms, which is the callbacks of all connections that were ready at once, or
another thread that would not let go.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from consumer.app import serve
from consumer.settings import load
from consumer.telemetry import configure_logging

_run = asyncio.Handle._run
_longest: list[float] = [0.0]


def _timed_run(handle: asyncio.Handle) -> None:
    began = time.process_time()
    _run(handle)
    _longest[0] = max(_longest[0], time.process_time() - began)


async def _watch(looks: Path, listening: asyncio.Event) -> None:
    await listening.wait()
    await asyncio.sleep(1.0)  # what starting costs is no stall
    asyncio.Handle._run = _timed_run  # type: ignore[method-assign]  # asyncio has no other way
    longest, written = 0.0, 0.0
    before = time.process_time()
    while True:
        await asyncio.sleep(0.002)
        now = time.process_time()
        longest = max(longest, now - before)
        if time.monotonic() - written > 0.25:
            written = time.monotonic()
            seen = {"stall_s": round(_longest[0], 4), "turn_s": round(longest, 4)}
            _write(looks, {**seen, "memory_bytes": _memory()})
        before = time.process_time()


def _write(looks: Path, seen: dict[str, float]) -> None:
    new = looks.with_suffix(".new")
    new.write_text(json.dumps(seen))
    new.replace(looks)


def _memory() -> int:
    """Resident, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _main(configuration: Path, looks: Path) -> None:
    configure_logging()
    listening = asyncio.Event()
    watching = asyncio.create_task(_watch(looks, listening))
    try:
        await serve(
            load(configuration),
            command="receive",
            hooks=True,
            lanes=[],
            announce=lambda what, _: listening.set() if what == "hooks" else None,
        )
    finally:
        watching.cancel()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), Path(sys.argv[2])))
