"""The lake that followers are tested against is one that verifies."""

from __future__ import annotations

from consumer.changes import TaskChange, change_of
from consumer.log.verify import verify
from tests.handlers.lake_house import LakeHouse, lake_house


async def changes(house: LakeHouse) -> list[TaskChange]:
    log = await house.tail.identity()
    entries = await house.tail.read(0, await house.tail.size())
    return [one for entry in entries if (one := change_of(entry.index, entry.data, log))]


async def test_what_the_house_logs_is_what_really_happened() -> None:
    async with lake_house() as house:
        await house.approve("task-1")
        await house.see("task-2")
        await house.approve("task-1", version="v2", value=2)
        await house.send_back("task-1")
        await house.remove("task-2")
        found = await changes(house)
        assert [(one.task, one.change, one.ground_truth) for one in found] == [
            ("task-1", "exported", "added"),
            ("task-2", "moved", None),
            ("task-1", "exported", "changed"),
            ("task-1", "retracted", "removed"),
            ("task-2", "deleted", None),
        ]
        assert (found[0].approved_by, found[3].approved_by) == ("user-1", None)
        verified = await verify(house.store)
        assert verified.ok, verified.findings
