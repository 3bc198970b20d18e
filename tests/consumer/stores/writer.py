"""A process that writes to a store: ``python -m tests.consumer.stores.writer STORE JOB NAME``.

It says ``ready``, waits for a line, works, and prints one JSON value. Many of them, started first
and let loose together, meet in the store from different processes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from consumer.errors import Conflict
from consumer.ports import Store
from consumer.stores.directory import DirectoryStore
from consumer.stores.s3 import S3Store

WRITERS = 4  # in one process
TURNS = 5  # of each, when they count


def store_from(spec: str) -> Store:
    """``{"path": ...}`` or ``{"bucket": ..., "prefix": ..., "endpoint": ...}``."""
    given = json.loads(spec)
    if "path" in given:
        return DirectoryStore(Path(given["path"]))
    return S3Store(given["bucket"], given["prefix"], endpoint=given["endpoint"])


async def race(store: Store, key: str, name: str, *, once: bool) -> bool:
    """Whether this writer was the one that made the object."""
    try:
        if once:
            await store.create(key, name.encode())
        else:
            await store.swap(key, name.encode(), if_match=None)
    except Conflict:
        return False
    return True


async def count(store: Store, key: str, name: str, turns: int = TURNS) -> int:
    """Adds one to a number, ``turns`` times; how often another writer was first."""
    lost = 0
    for turn in range(turns):
        while True:
            found = await store.read(key)
            number = json.loads(found.data)["number"] if found else 0
            data = json.dumps({"number": number + 1, "by": f"{name}-{turn}"}).encode()
            try:
                await store.swap(key, data, if_match=found.etag if found else None)
                break
            except Conflict:
                lost += 1
    return lost


async def work(store: Store, job: str, process: str) -> object:
    names = [f"{process}-{number}" for number in range(WRITERS)]
    if job == "count-on":  # until it is killed
        await asyncio.gather(*(count(store, "counter", name, 10**9) for name in names))
    if job == "count":
        return sum(await asyncio.gather(*(count(store, "counter", name) for name in names)))
    won = await asyncio.gather(
        *(race(store, "contested", name, once=job == "create") for name in names)
    )
    return [name for name, winner in zip(names, won, strict=True) if winner]


async def main() -> None:
    spec, job, process = sys.argv[1:]
    store = store_from(spec)
    await store.read("warm")  # connections and clients are made before the race
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps(await work(store, job, process)) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
