"""A process that uploads a file, downloads it and compares: ``... file_mover STORE FILE``.

It prints whether both are equal and by how many bytes its peak memory grew meanwhile.
"""

from __future__ import annotations

import asyncio
import filecmp
import resource
import sys
from pathlib import Path

from tests.consumer.stores.writer import store_from


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def move(spec: str, file: Path) -> str:
    store, back = store_from(spec), file.with_name("back")
    await store.read("warm")  # what clients and connections take is not counted
    before = peak_bytes()
    await store.upload("large", file)
    await store.upload("large", file)  # which compares
    await store.download("large", back)
    grown = peak_bytes() - before
    return f"{'equal' if filecmp.cmp(file, back, shallow=False) else 'other'} {grown}"


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(move(sys.argv[1], Path(sys.argv[2]))))
