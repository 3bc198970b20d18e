"""The export handler as a process that exports whichever tasks it is told of.

Same arguments, input and answers as ``vendor_export.py``: real platform client, real folder for the
lake, lane-sized batches; only the queue is in memory.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from consumer.download import Downloader
from consumer.errors import Permanent, Transient
from consumer.model import Action, ExportRules, Failure, LaneSpec, TaskEvent
from consumer.platforms.redbrick import RedBrick
from consumer.ports import Ports
from consumer.stores.directory import DirectoryStore
from handlers import export, layout
from tests.fakes_queue import FakeQueue

SOURCE = "redbrick"


@dataclass(frozen=True)
class OneWork:
    message: TaskEvent
    attempt: int = 1
    failure: Failure | None = None


async def main(url: str, api_key: str, org_id: str, project_id: str, destination: str) -> None:
    downloader = Downloader(own_url=url)
    platform = RedBrick(
        SOURCE,
        secrets=[b"token"],
        api_key=api_key,
        organization=org_id,
        downloader=downloader,
        api_url=url,
    )
    ports = Ports(
        platforms={SOURCE: platform},
        queue=cast(Any, FakeQueue((LaneSpec(name="audit", wants=("outcome",)),), opened=True)),
        store=DirectoryStore(Path(destination) / "lake"),
        log=cast(Any, None),  # the export never writes it
        rules={SOURCE: ExportRules()},
        project_key=lambda key: layout.project_key(key.source, key.project, unique=True),
        clock=lambda: datetime.now(UTC),
    )
    while line := await asyncio.to_thread(sys.stdin.readline):
        works = [OneWork(_event(project_id, task)) for task in json.loads(line)["tasks"]]
        began = time.perf_counter()
        for at in range(0, len(works), export.LANE.batch):
            await _handle(works[at : at + export.LANE.batch], ports)
        sys.stdout.write(f"\nseconds {time.perf_counter() - began}\n")
        sys.stdout.flush()
    await platform.close()
    await downloader.close()


async def _handle(batch: list[OneWork], ports: Ports) -> None:
    async for _, result in export.handle(batch, ports):
        if isinstance(result, Transient | Permanent):
            raise result


def _event(project: str, task: str) -> TaskEvent:
    return TaskEvent(
        id=f"event-{task}",
        source=SOURCE,
        project=project,
        task=task,
        action=Action.SWEEP,
        received_at="2026-01-02T03:04:05.000000Z",
        body_sha256="0" * 64,
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
