"""A project of which little or nothing changed, exported again: by the vendor's SDK and by ours.

Both run as processes of their own against one simulated RedBrick, which counts what it is asked.
Each first exports everything, unmeasured. The SDK pauses for most of a second after each task with
masks, so what it takes is measured once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from consumer.demo.redbrick import Drawing, Instance, SeriesSpec, SimulatedRedBrick, TickingClock
from tests.bench.table import Candidate, Result

ROOT = Path(__file__).parents[2]
COLUMNS = ("mask GETs", "requests", "bytes")


class Counted(SimulatedRedBrick):
    """Counts requests and the bytes of answers, too."""

    def app(self) -> web.Application:
        app = super().app()
        app.on_response_prepare.append(self._count)
        return app

    async def _count(self, request: web.Request, response: web.StreamResponse) -> None:
        self.counters["requests"] += 1
        self.counters["bytes"] += response.content_length or 0


@dataclass(slots=True)
class Way:
    """A process that exports when it is told to, and what its exports cost."""

    name: str
    process: Process
    since: bool = False  # whether it is told the time of the last change
    rounds: int = 5
    seconds: list[float] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    async def export(self, simulator: Counted, tasks: Sequence[str], since_s: float) -> None:
        """Raises ``RuntimeError`` when the process ended instead."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        simulator.counters.clear()
        told = {"tasks": list(tasks), "since": since_s if self.since else None}
        self.process.stdin.write(json.dumps(told).encode() + b"\n")
        async with asyncio.timeout(600):
            while not (line := await self.process.stdout.readline()).startswith(b"seconds "):
                if not line:
                    raise RuntimeError(f"{self.name} ended")
        self.seconds.append(float(line.split()[1]))
        self.counted = Counter(simulator.counters)


def run(*, quick: bool) -> Iterator[Result]:
    number, few = (20, 2) if quick else (100, 5)
    with tempfile.TemporaryDirectory(prefix="groundwire-bench-") as name:
        measured = asyncio.run(_measure(Path(name), number, few))
    for changed, ways in measured.items():
        first = f"{changed} of {number} changed" if changed else "nothing changed"
        told = f"the {changed} tasks" if changed else f"all {number} tasks, as by a sweep"
        yield Result(
            f"A second export of {number} tasks: {first}",
            "seconds",
            [_candidate(way) for way in ways],
            columns=COLUMNS,
            remark=f"Groundwire is told of {told}."
            + (
                ""
                if len(ways) > 1
                else " The peer, RedBrick's SDK, is absent: see tests/end_to_end."
            ),
        )


def sdk_python() -> str | None:
    made = ROOT / ".venv-redbrick-sdk" / "bin" / "python"
    named = os.environ.get("GROUNDWIRE_SDK_PYTHON_REDBRICK")
    return named or (str(made) if made.exists() else None)


async def _measure(folder: Path, number: int, few: int) -> dict[int, list[Way]]:
    """By how many tasks changed before each export, the ways to export."""
    clock = TickingClock()
    simulator = Counted(reviews=1, seed="bench", clock=clock)
    tasks = [_task(simulator, n) for n in range(number)]
    measured: dict[int, list[Way]] = {}
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(simulator.serve())
        account = (simulator.api_key, simulator.org_id, simulator.project_id, str(folder))
        ours = await stack.enter_async_context(
            _process([sys.executable, "-m", "tests.bench.our_export", url, *account], folder)
        )
        sdk = None
        if python := sdk_python():
            script = str(Path(__file__).with_name("vendor_export.py"))
            command = [python, script, _localhost(url), *account]
            sdk = await stack.enter_async_context(_process(command, folder))
        for way in _ways(sdk, ours):
            if not way.since:
                await way.export(simulator, tasks, 0)  # the first finds nothing there
        for changed in (0, few):
            measured[changed] = _ways(sdk, ours)
            for round_number in range(max(way.rounds for way in measured[changed])):
                since_s = clock().timestamp()
                told = _change(simulator, tasks, changed, 1 + round_number)
                for way in measured[changed]:
                    if round_number < way.rounds:
                        await way.export(simulator, told, since_s)
    return measured


def _ways(sdk: Process | None, ours: Process) -> list[Way]:
    made = [Way("groundwire, export handler", ours)]
    if sdk is not None:
        made.insert(0, Way("RedBrick's SDK", sdk, rounds=1))
        made.insert(1, Way("RedBrick's SDK, from_timestamp", sdk, since=True))
    return made


def _task(simulator: Counted, number: int) -> str:
    """In the ground truth, with a mask of some tens of kB."""
    series = SeriesSpec("ct", dimensions=(128, 128, 60), spacing=(1.0, 1.0, 2.5))
    task = simulator.create_task(f"task-{number:03d}", [series])
    simulator.label(task, [_drawing(number)])
    simulator.approve(task)
    return task


def _drawing(seed: int) -> Drawing:
    first = 1 + random.Random(seed).randrange(200)
    return Drawing(0, tuple(Instance(first + n, n % 3) for n in range(3)))


def _change(simulator: Counted, tasks: Sequence[str], number: int, seed: int) -> Sequence[str]:
    """Which tasks a webhook would tell of: those drawn anew, or all of them again."""
    chosen = random.Random(seed).sample(list(tasks), number)
    for task in chosen:
        simulator.label(task, [_drawing(1000 * seed + number)])
    return chosen or tasks


def _localhost(url: str) -> str:
    return url.replace("127.0.0.1", "localhost")  # or the SDK rewrites it


@contextlib.asynccontextmanager
async def _process(command: Sequence[str], home: Path) -> AsyncIterator[Process]:
    environment = {**os.environ, "HOME": str(home), "VIRTUAL_ENV": ""}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment, cwd=ROOT
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _candidate(way: Way) -> Candidate:
    notes = [f"{way.counted[name]:,}" for name in ("mask GET", "requests", "bytes")]
    return Candidate(way.name, way.seconds, notes)
