"""Sends fuzzed requests over raw sockets, many on a connection, and counts what is answered.

By hand, a million of them against a receiver of its own::

    python -m tests.faults.fuzz_driver --requests 1000000 --seed 7 [--recorded FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.end_to_end.house import free_port
from tests.faults.fuzz_requests import (
    ORGANIZATION,
    PROJECT,
    RED_PROJECT,
    SECRET,
    TOKEN,
    Asked,
    Fuzzer,
    recorded,
)

ANSWER_S = 15.0  # for one answer that must come
SILENCE_S = 0.1  # for one that may not
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(slots=True)
class Tally:
    """What was sent and answered; ``wrong`` names answers that nobody may get."""

    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_good_s: float = 0.0

    def answered(self, asked: Sequence[Asked], statuses: Sequence[int]) -> None:
        self.statuses.update(statuses)
        signed = any(one.signed for one in asked)
        for status in statuses:
            allowed = 400 <= status < 500 or status in (100, 503) or (status == 202 and signed)
            if not allowed and len(self.wrong) < 100:
                self.wrong.append(f"{status} to {b''.join(one.data for one in asked)[:400]!r}")


class _Socket:
    """One connection, opened anew whenever it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, parts: Sequence[bytes]) -> None:
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        with contextlib.suppress(ConnectionError):  # the answer to the first part is final
            for part in parts:
                self._writer.write(part)
                await self._writer.drain()
                if len(parts) > 1:
                    await asyncio.sleep(0)

    async def status(self, within_s: float) -> int | None:
        """Of the next answer; None when none comes, or the other side closes: whoever is refused
        while he still sends may see no more than that. Raises ``TimeoutError`` for one that must
        come."""
        assert self._reader is not None
        try:
            async with asyncio.timeout(within_s):
                head = await self._reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                await self._reader.readexactly(int(length[1]) if length else 0)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.drop()
            return None
        except TimeoutError:
            self.drop()
            if within_s == ANSWER_S:
                raise
            return None
        if b"\r\nConnection: close" in head or head.startswith(b"HTTP/1.0"):
            self.drop()
        return int(head[9:12])

    @property
    def open(self) -> bool:
        return self._writer is not None

    def drop(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._writer = None


async def drive(port: int, fuzzer: Fuzzer, requests: int, tally: Tally) -> None:
    """One connection's requests, one after the other."""
    socket = _Socket(port)
    left = requests
    while left > 0:
        turn = fuzzer.random.random()
        together = min(left, fuzzer.random.randint(2, 6)) if turn < 0.03 else 1
        asked = [fuzzer.next() for _ in range(together)]
        left -= together
        tally.sent += together
        data = b"".join(one.data for one in asked)
        if turn > 0.98:  # goes away in the middle
            await socket.send([data[: fuzzer.random.randrange(len(data) + 1)]])
            socket.drop()
            continue
        await socket.send(fuzzer.splits(data))
        whole = all(one.whole for one in asked)
        statuses: list[int] = []
        try:
            statuses = await _statuses(socket, together, must=whole and together == 1)
        except TimeoutError:
            tally.wrong.append(f"no answer to {data[:400]!r}")
        if not whole:
            socket.drop()
        tally.answered(asked, statuses)
    socket.drop()


async def _statuses(socket: _Socket, most: int, *, must: bool) -> list[int]:
    found: list[int] = []
    while len(found) < most and socket.open:
        status = await socket.status(ANSWER_S if must else SILENCE_S)
        if status is None:
            break
        if status != 100:
            found.append(status)
    return found


async def flood(
    port: int, *, seed: int, requests: int, connections: int, bodies: Sequence[bytes] = ()
) -> Tally:
    """All of one seed's requests, over so many connections at a time; meanwhile a platform goes on
    sending good ones, each of which must be kept."""
    tally = Tally()
    fuzzers = [Fuzzer(seed * 1000 + n, bodies) for n in range(connections)]
    each = -(-requests // connections)
    good = asyncio.create_task(_good(port, Fuzzer(seed * 1000 + 999), tally))
    await asyncio.gather(*(drive(port, fuzzer, each, tally) for fuzzer in fuzzers))
    good.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await good
    return tally


async def _good(port: int, fuzzer: Fuzzer, tally: Tally) -> None:
    socket = _Socket(port)
    while True:
        asked = fuzzer.good()
        began = time.perf_counter()
        await socket.send([asked.data])
        status: int | None = None
        with contextlib.suppress(TimeoutError):
            status = await socket.status(ANSWER_S)
        tally.slowest_good_s = max(tally.slowest_good_s, time.perf_counter() - began)
        if status != 202:
            tally.wrong.append(f"{status} to a good request")
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def receiver(folder: Path, extra: str = "") -> AsyncIterator[Receiving]:
    """A real receiver of its own process, with a queue in a file, that watches itself."""
    port, watched = free_port(), folder / "watched.json"
    configuration = folder / "groundwire.toml"
    configuration.write_text(_CONFIGURATION.format(folder=folder, port=port, extra=extra))
    (folder / "labelbox-secret").write_text(SECRET)
    (folder / "redbrick-token").write_text(TOKEN)
    with (folder / "receiver.log").open("wb") as lines:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.fuzz_watched", configuration, watched),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
        )
    made = Receiving(port, folder, watched, process.pid)
    try:
        async with asyncio.timeout(60):
            while not made.looks:
                assert process.returncode is None, made.lines
                await asyncio.sleep(0.05)
        yield made
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@dataclass(frozen=True, slots=True)
class Receiving:
    """A receiver under attack."""

    port: int
    folder: Path
    watched: Path
    pid: int

    @property
    def looks(self) -> dict[str, float]:
        """What it saw of itself up to now (see `fuzz_watched`); nothing before it listens."""
        try:
            found: dict[str, float] = json.loads(self.watched.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    @property
    def lines(self) -> str:
        return (self.folder / "receiver.log").read_text(errors="replace")


_CONFIGURATION = f"""
queue = "sqlite://{{folder}}/queue.db"
lake = "file://{{folder}}/lake"
[http]
listen = "127.0.0.1:{{port}}"
{{extra}}
[admin]
listen = "127.0.0.1:0"
[sweep]
every_s = 0
[sources.labelbox]
platform = "labelbox"
secrets = ["file:{{folder}}/labelbox-secret"]
api_key = "file:{{folder}}/labelbox-secret"
projects = ["{PROJECT}"]
[sources.redbrick]
platform = "redbrick"
secrets = ["file:{{folder}}/redbrick-token"]
api_key = "file:{{folder}}/redbrick-token"
organization = "{ORGANIZATION}"
projects = ["{RED_PROJECT}"]
"""


async def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recorded", type=Path, help="a folder of recorded webhooks' bodies")
    asked = parser.parse_args()
    bodies = recorded(asked.recorded) if asked.recorded else []
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="groundwire-fuzz-") as name:
        async with receiver(Path(name)) as it:
            done, turn = 0, 0
            while done < asked.requests:
                part = min(20_000, asked.requests - done)
                began = time.perf_counter()
                tally = await flood(
                    it.port,
                    seed=asked.seed + turn,
                    requests=part,
                    connections=asked.connections,
                    bodies=bodies,
                )
                done, turn, wrong = done + tally.sent, turn + 1, wrong + len(tally.wrong)
                statuses = dict(sorted(tally.statuses.items()))
                seconds = time.perf_counter() - began
                sys.stdout.write(
                    f"{done:>9,} sent, {tally.sent / seconds:,.0f}/s, {statuses}, {it.looks},"
                    f" slowest good one {tally.slowest_good_s * 1e3:.0f} ms\n"
                )
                sys.stdout.writelines(f"WRONG {one}\n" for one in tally.wrong)
                sys.stdout.flush()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
