"""`groundwire run` on RabbitMQ relays the ground truth of the simulated platforms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aio_pika.abc import AbstractIncomingMessage

from consumer.changes import change_of
from consumer.demo.redbrick import Drawing, SeriesSpec
from consumer.log.tail import LogTail
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, house, until
from tests.exchange_rabbitmq import arrived, exchange_house, ids
from tests.servers_rabbitmq import RabbitServer

TASKS = 6


def work_on_tasks(place: House, prefix: str) -> list[str]:
    """Each is approved by both reviewers; the first then goes back to its annotator."""
    redbrick = place.cast.redbrick
    tasks = []
    for number in range(TASKS):
        series = SeriesSpec(name="ct", dimensions=(12, 10, 6))
        tasks.append(redbrick.create_task(f"{prefix}-{number}", [series]))
        redbrick.label(tasks[-1], [Drawing(0)])
        redbrick.approve(tasks[-1])
        redbrick.approve(tasks[-1], by="dora")
    return tasks


async def lake_shows(place: House, tasks: Sequence[str], *, ground_truth: bool) -> str | None:
    for task in tasks:
        pointer = await place.pointer(place.cast.redbrick.project_id, task)
        if pointer is None or pointer.ground_truth != ground_truth:
            return f"{task} is not {'in' if ground_truth else 'out of'} the ground truth"
    return None


async def told(place: House) -> list[tuple[int, str]]:
    """What the log says of the ground truth: index and kind of change."""
    tail = LogTail(place.store)
    identity, size = await tail.identity(), await tail.size()
    changes = [change_of(e.index, e.data, identity) for e in await tail.read(0, size)]
    return [(one.index, one.ground_truth) for one in changes if one and one.ground_truth]


def event(message: AbstractIncomingMessage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message.body)
    return found


@pytest.mark.timeout(240)
async def test_a_subscriber_gets_the_ground_truth_also_across_a_killed_process(
    tmp_path: Path, rabbitmq_server: RabbitServer
) -> None:
    store = DirectoryStore(tmp_path / "lake")
    async with (
        exchange_house(rabbitmq_server) as broker,
        house(
            tmp_path,
            store,
            queue=rabbitmq_server.url,
            environment={
                "GROUNDWIRE_FOLLOW__RELAY": "true",
                "GROUNDWIRE_FOLLOW__MIRROR": "false",
                "GROUNDWIRE_FOLLOW__TABLE": "false",
                "GROUNDWIRE_RELAY__EXCHANGE": broker.name,
            },
        ) as place,
    ):
        await broker.declare()
        everything, added = await broker.bound("redbrick.#"), await broker.bound("*.*.added")
        found: list[AbstractIncomingMessage] = []

        async def relayed() -> str | None:
            found.extend(await arrived(everything))
            missing = {index for index, _ in await told(place)} - set(ids(found))
            return f"{len(missing)} changes did not arrive" if missing else None

        place.start("run", "run")
        await place.listening()
        early = work_on_tasks(place, "early")
        await place.post_all(place.webhooks())
        await until(lambda: lake_shows(place, early, ground_truth=True))
        place.kill("run")
        late = work_on_tasks(place, "late")
        place.cast.redbrick.move(early[0], "Label")
        place.start("run", "run")
        await place.listening()
        await place.post_all(place.webhooks())
        await until(lambda: lake_shows(place, late, ground_truth=True))
        await until(lambda: lake_shows(place, early[:1], ground_truth=False))
        await until(place_is_idle(place))
        await until(relayed)
        assert await place.stop("run") == 0

        changes = await told(place)
        assert list(dict.fromkeys(ids(found))) == [index for index, _ in changes]
        kinds = {int(m.message_id or -1): (m.routing_key or "").split(".")[2] for m in found}
        assert kinds == dict(changes)
        assert {m.content_type for m in found} == {"application/cloudevents+json"}
        assert {event(m)["data"]["task"] for m in await arrived(added)} == {*early, *late}
        removed = [event(m) for m in found if kinds[int(m.message_id or -1)] == "removed"]
        assert {one["data"]["task"] for one in removed} == {early[0]}
        assert {one["source"] for one in removed} == {"demo.groundwire.example"}


def place_is_idle(place: House) -> Any:
    """Until every pointer's move is in the log."""

    async def check() -> str | None:
        logged = {(e["task"], e["sequence"]) for e in await place.log() if e["kind"] == "lake"}
        for task in place.cast.redbrick.projects[place.cast.redbrick.project_id].tasks:
            pointer = await place.pointer(place.cast.redbrick.project_id, task)
            if pointer is None or (task, pointer.sequence) not in logged:
                return f"{task}'s last move is not logged"
        return None

    return check
