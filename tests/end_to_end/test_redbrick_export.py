"""A RedBrick project's story, told by its webhooks in any order, ends as files in the lake."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from consumer.demo.redbrick import Drawing, Instance, SeriesSpec, SimulatedRedBrick
from consumer.download import Downloader
from consumer.model import (
    ExportRules,
    Failure,
    LaneSpec,
    Manifest,
    Message,
    Outcome,
    Pointer,
    TaskEvent,
    decode,
)
from consumer.platforms.redbrick import RedBrick
from consumer.ports import Ports
from handlers import export, layout
from tests.fakes_queue import FakeQueue
from tests.fakes_store import FakeStore
from tests.loopback import LOOPBACK

_AUDIT = LaneSpec(name="audit", wants=("outcome", "record"))


@dataclass(frozen=True)
class OneWork:
    message: Message
    attempt: int = 9  # a late attempt: what does not show its event is taken as it is
    failure: Failure | None = None


class NoLog:
    async def append(self, entries: Sequence[Any]) -> int:
        raise AssertionError("the export never writes the log itself")


@dataclass
class House:
    """The export over the simulated RedBrick, with a lake in memory."""

    simulator: SimulatedRedBrick
    platform: RedBrick
    store: FakeStore

    @property
    def ports(self) -> Ports:
        return Ports(
            platforms={"redbrick": self.platform},
            queue=cast(Any, FakeQueue((_AUDIT,), opened=True)),
            store=self.store,
            log=NoLog(),
            rules={"redbrick": ExportRules()},
            project_key=lambda key: layout.project_key(key.source, key.project, unique=True),
            clock=lambda: datetime(2026, 1, 2, tzinfo=UTC),
        )

    def events(self) -> list[TaskEvent]:
        """What the webhooks not taken yet tell."""
        bodies = [json.dumps(body).encode() for body in self.simulator.take_webhooks()]
        deliveries = [self.platform.verify({}, {"token": "token"}, body) for body in bodies]
        return [event for one in deliveries for event in self.platform.parse(one)]

    async def export(self, events: Sequence[TaskEvent]) -> None:
        async for _, result in export.handle([OneWork(event) for event in events], self.ports):
            assert result is None or isinstance(result, Outcome), result

    def pointer(self, task_id: str) -> Pointer:
        key = layout.pointer_key(self.simulator.project_id, task_id)
        return decode(self.store.objects[key], Pointer)

    def manifest(self, task_id: str) -> Manifest:
        return decode(self.store.objects[self.pointer(task_id).manifest or ""], Manifest)

    def document(self, task_id: str) -> dict[str, Any]:
        files = {file.path: file.key for file in self.manifest(task_id).files}
        document: dict[str, Any] = json.loads(self.store.objects[files["annotations.json"]])
        return document


@asynccontextmanager
async def a_house(**settings: Any) -> AsyncIterator[House]:
    simulator, downloader = SimulatedRedBrick(**settings), Downloader(networks=LOOPBACK)
    async with simulator.serve() as url:
        platform = RedBrick(
            "redbrick",
            secrets=[b"token"],
            api_key=simulator.api_key,
            organization=simulator.org_id,
            downloader=downloader,
            api_url=url,
        )
        try:
            yield House(simulator, platform, FakeStore())
        finally:
            await platform.close()
            await downloader.close()


async def test_an_approved_task_is_files_and_its_document_names_them() -> None:
    async with a_house() as house:
        task_id = house.simulator.create_task("study01", [SeriesSpec("ct"), SeriesSpec("ct")])
        house.simulator.label(task_id, [Drawing(0, (Instance(1), Instance(2, 1))), Drawing(1)])
        house.simulator.approve(task_id)
        await house.export(house.events())
        masks = {f.path: f for f in house.manifest(task_id).files if f.series}
        assert sorted(masks) == ["segmentations/ct.nii.gz", "segmentations/ct_1.nii.gz"]
        named = [series["segmentations"] for series in house.document(task_id)["series"]]
        assert named == [masks[path].key for path in sorted(masks)]
        counted = masks["segmentations/ct.nii.gz"].labels
        assert [(count.value, count.category) for count in counted] == [(1, "liver"), (2, "lesion")]
        assert house.pointer(task_id).ground_truth


async def test_a_stage_move_downloads_no_mask_and_a_new_version_does() -> None:
    async with a_house(reviews=2) as house:
        task_id = house.simulator.create_task("study01")
        downloads = []
        for change in ("label", "approve", "approve", "label"):
            getattr(house.simulator, change)(task_id)
            await house.export(house.events() or [_again(house, task_id)])
            downloads.append(house.simulator.counters["mask GET"])
        assert downloads == [1, 1, 1, 2]


def _again(house: House, task_id: str) -> TaskEvent:
    """An event for what RedBrick announces by no webhook: an edit of a ground-truth task."""
    about = {"projectId": house.simulator.project_id, "taskId": task_id}
    body = {"payload": [{"event": "TASK_UPDATED", "data": about}]}
    delivery = house.platform.verify({}, {"token": "token"}, json.dumps(body).encode())
    (event,) = house.platform.parse(delivery)
    return event


async def test_a_task_sent_back_after_approval_leaves_the_ground_truth() -> None:
    async with a_house() as house:
        task_id = house.simulator.create_task("study01")
        house.simulator.label(task_id)
        house.simulator.approve(task_id)
        await house.export(house.events())
        house.simulator.move(task_id, "Label")
        await house.export(house.events())
        pointer = house.pointer(task_id)
        assert (pointer.change, pointer.ground_truth) == ("retracted", False)
        house.simulator.delete(task_id)
        await house.export(house.events())
        assert house.pointer(task_id).change == "deleted"


async def test_an_approval_with_nothing_drawn_is_an_empty_label_map() -> None:
    async with a_house() as house:
        task_id = house.simulator.create_task("study01")
        house.simulator.label(task_id, [])
        house.simulator.approve(task_id)
        await house.export(house.events())
        (mask,) = [f for f in house.manifest(task_id).files if f.label]
        assert (mask.path, mask.shape, mask.labels) == ("segmentations/A.nii.gz", (16, 16, 8), ())
        assert house.document(task_id)["series"][0]["segmentations"] == mask.key


async def test_a_consensus_keeps_every_label_and_names_the_merged_one_as_truth() -> None:
    async with a_house(consensus=True, labels_in_files=True) as house:
        task_id = house.simulator.create_task("study01")
        house.simulator.assign(task_id, "ben", "dora")
        house.simulator.label(task_id, [Drawing(0, (Instance(1, 1),))], by="ben")
        house.simulator.label(task_id, [Drawing(0, (Instance(2, 2),))], by="dora")
        house.simulator.approve(task_id)
        await house.export(house.events())
        ben, dora = (house.simulator.users[name].user_id for name in ("ben", "dora"))
        paths = {f.path for f in house.manifest(task_id).files if f.label}
        assert paths == {f"segmentations/{label}/A.nii.gz" for label in (ben, dora, "super-truth")}
        assert house.pointer(task_id).ground_truth_label == "super-truth"


async def test_eighty_of_a_hundred_and_five_more_are_eighty_five_and_five_transfers() -> None:
    async with a_house() as house:
        tasks = [house.simulator.create_task(f"study{n}") for n in range(100)]
        for task_id in tasks[:80]:
            house.simulator.label(task_id)
        await house.export(house.events())
        assert sum(house.pointer(task_id).revision is not None for task_id in tasks) == 80
        assert house.simulator.counters["mask GET"] == 80
        for task_id in tasks[80:85]:
            house.simulator.label(task_id)
        await house.export(house.events())
        assert sum(house.pointer(task_id).revision is not None for task_id in tasks) == 85
        assert house.simulator.counters["mask GET"] == 85


@pytest.mark.parametrize("seed", range(3))
async def test_webhooks_shuffled_and_duplicated_end_in_the_same_lake(seed: int) -> None:
    chance = random.Random(seed)
    async with a_house(reviews=2, seed=f"shuffled {seed}") as house:
        tasks = [house.simulator.create_task(f"study{n}") for n in range(6)]
        for _ in range(30):
            _something(house.simulator, chance.choice(tasks), chance)
        events = house.events() * 2
        chance.shuffle(events)
        for start in range(0, len(events), 7):
            await house.export(events[start : start + 7])
        for task_id in tasks:
            held = house.simulator.task(task_id)
            pointer = house.pointer(task_id)
            assert (pointer.stage, pointer.ground_truth) == (held.stage, held.stage == "END")
        assert house.store.violations == []


def _something(simulator: SimulatedRedBrick, task_id: str, chance: random.Random) -> None:
    stage = simulator.task(task_id).stage
    if stage == "Label":
        simulator.label(task_id)
    elif stage == "END":
        simulator.move(task_id, "Label")
    else:
        chance.choice([simulator.approve, simulator.approve, simulator.reject])(task_id)
