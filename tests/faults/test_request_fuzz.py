"""Requests as no platform would send them: never another 5xx than 503, never a 202 for what is not
signed, nothing of it in a log line, no growth, no stall."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer.crowd import MOST_BYTES, Crowd
from consumer.download import Downloader
from consumer.gather import Gatherer
from consumer.listener import UNREAD_S, Listener
from consumer.model import LaneSpec, TaskEvent
from consumer.platforms.labelbox import Labelbox
from consumer.platforms.redbrick import RedBrick
from consumer.receive import Receiver
from consumer.telemetry import Metrics
from tests.fakes_clock import FakeClock
from tests.fakes_queue import FakeQueue
from tests.faults.fuzz_driver import flood, receiver
from tests.faults.fuzz_requests import ORGANIZATION, PROJECT, RED_PROJECT, SECRET, TOKEN, Fuzzer
from tests.seeds import seeds

EXPORT = LaneSpec(name="export", wants=("event",))
STALL_S = 0.05
GROWTH_BYTES = 32 << 20  # of a process that has seen a few thousand requests already
MARKS = re.compile(r"task-\d|Review_1|a@b\.example|\\u00e9|X-Odd|hooks\.example")


@contextlib.asynccontextmanager
async def both_platforms(queue: FakeQueue) -> AsyncIterator[int]:
    """A receiver of both platforms on a port of this process."""
    downloader = Downloader(hosts=frozenset(), max_bytes=1, max_file_bytes=1, timeout_s=1)
    clock = FakeClock()
    labelbox = Labelbox(
        source="labelbox",
        secrets=[SECRET.encode()],
        api_key="k",
        downloader=downloader,
        clock=clock,
        projects=[PROJECT],
    )
    redbrick = RedBrick(
        "redbrick",
        secrets=[TOKEN.encode()],
        api_key="k",
        organization=ORGANIZATION,
        downloader=downloader,
        projects=[RED_PROJECT],
        clock=clock,
    )
    await queue.open()
    crowd = Crowd(200, MOST_BYTES)
    platforms = {"labelbox": labelbox, "redbrick": redbrick}
    made = Receiver(platforms, Gatherer(queue).put, Metrics(platforms), crowd=crowd)
    listener = Listener(
        made.application(),
        header_timeout_s=5,
        stop_s=1,
        crowd=crowd,
        unread_s=UNREAD_S,
        malformed=made.malformed,
    )
    try:
        yield await listener.start("127.0.0.1", 0)
    finally:
        await listener.stop()
        for one in (labelbox, redbrick, downloader):
            await one.close()
        assert (len(crowd), crowd.held) == (0, 0)


@pytest.mark.parametrize("seed", seeds())
async def test_whatever_is_sent_is_refused_or_kept_and_never_repeated(seed: int) -> None:
    queue = FakeQueue([EXPORT])
    with capture_logs() as lines:
        async with both_platforms(queue) as port:
            tally = await flood(port, seed=seed, requests=80, connections=8)
    assert tally.wrong == []
    assert {202, 422} <= set(tally.statuses)
    refused = [line for line in lines if line["event"] != "accepted"]
    assert {line["event"] for line in refused} == {"refused"}
    assert not [line for line in refused if MARKS.search(json.dumps(line, default=repr))]
    assert all(_is_exact(event) for event in queue.messages("export"))


def _is_exact(event: object) -> bool:
    """What was understood has all it needs, and no half characters."""
    assert isinstance(event, TaskEvent)
    texts = (event.project, event.task, event.stage or "", event.delivery_id or "")
    return all(text.isprintable() for text in texts) and event.task != ""


@pytest.mark.parametrize("seed", seeds(0.05))
async def test_a_real_receiver_neither_grows_nor_stalls(seed: int, tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        await flood(it.port, seed=seed, requests=500, connections=16)
        before = it.looks["memory_bytes"]
        tally = await flood(it.port, seed=seed + 1, requests=500, connections=16)
        after = it.looks
        lines = it.lines
    assert tally.wrong == []
    assert tally.statuses[202] > 50
    assert after["memory_bytes"] - before < GROWTH_BYTES
    assert after["stall_s"] < STALL_S
    assert "Traceback" not in lines
    assert SECRET not in lines
    assert TOKEN not in lines


HEAVY = {
    "ten thousand events": json.dumps(
        {
            "payload": [
                {
                    "event": "TASK_UPDATED",
                    "id": str(n),
                    "timestamp": 1.7e9,
                    "data": {"projectId": RED_PROJECT, "taskId": f"t{n}"},
                }
                for n in range(9_000)
            ]
        },
        separators=(",", ":"),
    ),
    "numbers": "[" + ",".join(["1"] * 500_000) + "]",
    "fractions": "[" + ",".join(["1.2345678901234567e-300"] * 43_000) + "]",
    "long integers": "[" + ",".join(["9" * 4300] * 240) + "]",
    "lists": "[" + ",".join(["[]"] * 190_000) + "]",
    "too many lists": "[" + ",".join(["[]"] * 349_000) + "]",
    "objects": "[" + ",".join(["{}"] * 349_000) + "]",
    "keys": "{" + ",".join(f'"{n}":1' for n in range(100_000)) + "}",
    "texts": "[" + ",".join(['"a"'] * 260_000) + "]",
    "deep": "[" * 150_000,
}


async def test_the_heaviest_bodies_that_are_allowed_stall_nothing(tmp_path: Path) -> None:
    fuzzer = Fuzzer(0)
    async with receiver(tmp_path) as it:
        tally = await flood(it.port, seed=0, requests=50, connections=4)
        assert tally.wrong == []
        answers = {}
        for name, text in HEAVY.items():
            answers[name] = await _post(it.port, fuzzer.signed(text.encode()))
        looks = it.looks
    assert answers.pop("ten thousand events") == 202
    assert set(answers.values()) == {422}
    assert looks["stall_s"] < STALL_S
    assert looks["turn_s"] < 2 * STALL_S  # what another thread's last step takes is in it, too


async def _post(port: int, request: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    writer.close()
    return int(head[9:12])


def test_the_same_seed_makes_the_same_requests() -> None:
    one, other = Fuzzer(3), Fuzzer(3)
    assert [one.next() for _ in range(500)] == [other.next() for _ in range(500)]
