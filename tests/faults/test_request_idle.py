"""Thousands of connections that ask nothing, half of something, or ever so slowly: webhooks are
answered as if nobody else were there, and memory is bounded. ``GROUNDWIRE_IDLE`` says how many, of
which the receiver keeps a fifth."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.fuzz_driver import Receiving, receiver
from tests.faults.fuzz_requests import TOKEN, Fuzzer
from tests.seeds import seeds

pytestmark = pytest.mark.chaos

IDLE = int(os.environ.get("GROUNDWIRE_IDLE", "1500"))
MOST = IDLE // 5  # connections that the receiver keeps
GOOD = 15  # webhooks that are sent on connections of their own, while all the others are there
GOOD_S = 1.0  # within which half of them are answered, on a busy machine
STALL_S = 0.05
GROWTH_BYTES = 96 << 20  # 64 MiB of them are what all requests may hold


async def _post(it: Receiving, fuzzer: Fuzzer) -> float:
    """Seconds until a good webhook, on a connection of its own, was answered 202."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
    writer.write(fuzzer.good().data)
    line = await asyncio.wait_for(reader.readline(), 30)
    writer.transport.abort()
    assert line.startswith(b"HTTP/1.1 202"), line
    return time.perf_counter() - began


@dataclass(slots=True)
class _Told:
    """How many connections the attacker has opened up to now, and the most at a time."""

    opened: int = 0
    most: int = 0

    async def listen(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            self.opened, self.most = map(int, line.split())


@contextlib.asynccontextmanager
async def _slow(port: int, seed: int) -> AsyncIterator[_Told]:
    """The attacker, in a process of his own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.fuzz_slow", str(port), str(seed), str(IDLE)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    told = _Told()
    listening = asyncio.create_task(told.listen(process.stdout))
    try:
        yield told
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()
        await listening


@pytest.mark.parametrize("seed", seeds(0.05))
async def test_thousands_of_slow_connections_keep_no_webhook_waiting(
    seed: int, tmp_path: Path
) -> None:
    fuzzer = Fuzzer(seed)
    async with receiver(tmp_path, extra=f"max_connections = {MOST}") as it:
        await _post(it, fuzzer)
        before = it.looks["memory_bytes"]
        async with _slow(it.port, seed) as told:
            async with asyncio.timeout(100):
                while told.opened < IDLE:
                    await asyncio.sleep(0.05)
            times = sorted([await _post(it, fuzzer) for _ in range(GOOD)])
        after = it.looks
        lines = it.lines
    print(  # noqa: T201 - the figures, for whoever asks with -s
        f"{told.opened} opened, {told.most} at a time; {GOOD} good ones: median"
        f" {times[GOOD // 2] * 1e3:.0f} ms, slowest {times[-1] * 1e3:.0f} ms; memory"
        f" {before / 2**20:.0f} MiB before, {after}"
    )
    assert told.opened >= IDLE
    assert times[GOOD // 2] < GOOD_S
    assert after["memory_bytes"] - before < GROWTH_BYTES
    assert after["stall_s"] < STALL_S
    assert "Traceback" not in lines
    assert TOKEN not in lines
