"""Appending to the log and verifying it, beside the bare hashing that both cannot do without."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from consumer.log.log import TileLog
from consumer.log.note import Signer
from consumer.log.read import entries
from consumer.log.verify import verify
from consumer.model import canonical
from consumer.stores.directory import DirectoryStore
from tests.bench.table import Candidate, Result

BATCH = 1000


def run(*, quick: bool) -> Iterator[Result]:
    number = 10_000 if quick else 100_000
    hashed, appended, verified = asyncio.run(_measure(number, rounds=1 if quick else 3))
    yield Result(
        f"A log of {number:,} entries in a folder, appended in batches of {BATCH:,}",
        "entries/s",
        [
            Candidate("SHA-256 of the same bytes and their tree", hashed),
            Candidate("groundwire, append (synced, signed)", appended),
            Candidate("groundwire, verify", verified),
        ],
    )


async def _measure(number: int, *, rounds: int) -> tuple[list[float], list[float], list[float]]:
    hashed, appended, verified = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="groundwire-bench-") as folder:
            store = DirectoryStore(Path(folder) / "lake")
            signer = Signer.from_seed("bench.example", bytes(32))
            appended.append(number / await _append(store, signer, number))
            began = time.perf_counter()
            result = await verify(store, vkey=signer.verifier.vkey)
            verified.append(number / (time.perf_counter() - began))
            assert (result.size, result.findings) == (number, ())
            plain = [canonical(entry.data) async for entry in entries(store)]
            began = time.perf_counter()
            root = _root(plain)
            hashed.append(number / (time.perf_counter() - began))
            assert root.hex() == result.root, "both hash the same bytes"
    return hashed, appended, verified


async def _append(store: DirectoryStore, signer: Signer, number: int) -> float:
    """Seconds."""
    log = TileLog(
        store,
        signer=signer,
        origin="bench.example",
        index_path=None,
        clock=lambda: datetime.now(UTC),
    )
    await log.open()
    batches = [[_entry(n) for n in range(at, at + BATCH)] for at in range(0, number, BATCH)]
    began = time.perf_counter()
    for batch in batches:
        await log.append(batch)
    took = time.perf_counter() - began
    await log.close()
    return took


def _entry(number: int) -> dict[str, Any]:
    """As long as a receipt is."""
    return {
        "id": f"receipt:{number:032x}",
        "kind": "receipt",
        "source": "redbrick",
        "project": "7a1b0c1e-0000-4000-8000-000000000001",
        "task": f"7a1b0c1e-0000-4000-8000-{number % 1000:012d}",
        "action": "MOVE",
        "stage": "Review_1",
        "body_sha256": hashlib.sha256(str(number).encode()).hexdigest(),
    }


def _root(plain: list[bytes]) -> bytes:
    """RFC 6962, section 2.1."""
    level = [hashlib.sha256(b"\x00" + entry).digest() for entry in plain]
    while len(level) > 1:
        odd = level[len(level) & ~1 :]
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in pairs] + odd
    return level[0]
