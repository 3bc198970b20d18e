"""A process that works on both lanes with little memory to spare, until they are empty or it dies.

``python -m tests.faults.memory_child FOLDER MEGABYTES TASKS``: 0 megabytes is as much as there is.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

from msgspec.structs import replace

from consumer.telemetry import configure_logging
from tests.fakes_platform import label_map_bytes, nifti_label, snapshot
from tests.faults.worker_shop import Shop, working

SHAPE = (160, 160, 160)  # 4 MB of voxels


def shop_of(folder: Path, tasks: int) -> Shop:
    shop = Shop(folder)
    shop.platform.masks["mask-1"] = label_map_bytes(shape=SHAPE)
    for number in range(tasks):
        drawn = nifti_label(f"label-{number}")
        label = replace(drawn, series=(replace(drawn.series[0], dimensions=SHAPE),))
        shop.platform.tasks[f"t{number}"] = snapshot(f"t{number}", labels=(label,))
    return shop


async def work(folder: Path, megabytes: int, tasks: int) -> None:
    configure_logging()
    shop = shop_of(folder, tasks)
    async with working(shop):
        if megabytes:
            limit = _size_now() + (megabytes << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        await shop.idle()


def _size_now() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
