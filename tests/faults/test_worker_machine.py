"""Exporters, auditors and a mirror that die, sleep and wake in any order, with clocks that jump:
nothing is lost, nothing doubled, no pointer goes back, no resubmission is ground truth.

On top of `ExportMachine`: the real loop settles the leases, the real log is written by two auditors
of which either may be stopped between any two store calls, and a mirror follows it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from consumer.errors import Conflict, Transient
from consumer.log.note import Signer
from consumer.log.read import entries
from consumer.log.tail import LogTail
from consumer.log.verify import verify
from consumer.model import Action, EventType, HistoryItem, Message, identifier
from consumer.ports import Batch, Cursor, FollowPorts
from handlers import audit, layout
from handlers.mirror import Mirror
from tests.fakes_platform import PROJECT, event
from tests.fakes_store import FakeStore, FaultyStore
from tests.faults import changing_platform as platform
from tests.faults.changing_platform import Task, World
from tests.faults.test_export_machine import (
    TASKS,
    ExportMachine,
    changes,
    faults,
    names,
    numbers,
    picks,
)
from tests.faults.two_exporters import Crash, Waiting
from tests.faults.worker_crew import ORIGIN, Crew
from tests.handlers.export_house import OneWork
from tests.handlers.lake_house import is_mirrored
from tests.seeds import seeds

whos = st.integers(0, 1)
calls = st.integers(1, 12)
EMPTY = b"[]\n"  # an index file of nothing: there because there was something once
HOURS = (-24, -3, -1, 1, 3, 24)
STEPS = (  # what a reviewer and an annotator do, one after the other
    (Action.APPROVE, EventType.ACCEPTED, "END"),
    (Action.REJECT, EventType.REJECTED, "Label"),
    (Action.REWORK, EventType.SUBMITTED, "Review_1"),
)


class WorkerMachine(ExportMachine):
    def __init__(self) -> None:
        super().__init__()
        self.crew = Crew(self.world)
        self.both = self.crew
        self.cursor = Cursor()

    def teardown(self) -> None:
        """All is quiet, then the last sleeper wakes, and all is quiet again."""
        try:
            self.settle()
            while self.crew.sleepers:
                self.runner.run(self.crew.wake(0))
            self.settle()
            self.runner.run(self.the_log_tells_all())
            self.runner.run(self.the_mirror_shows_the_lake())
        finally:
            self.runner.close()

    # rules

    @rule(name=names, order=st.permutations(range(3)), who=whos, early=st.sets(st.integers(0, 2)))
    def an_approved_task_is_sent_back_and_resubmitted(
        self, name: str, order: Sequence[int], who: int, early: set[int]
    ) -> None:
        """Their webhooks come in any order; some while the task still is where they say."""
        task, house = self.world.tasks[name], self.crew.houses[who]
        task.gone = False
        told: list[Waiting] = []
        for number, (action, kind, stage) in enumerate(STEPS):
            self.world.remember()
            if action is not Action.REJECT:
                platform.save(self.world, task, number)
            happens(self.world, task, action, kind, stage)
            one = self.tell(name, action, stage)
            if number in early:
                self.runner.run(self.crew.deliver(house, [one]))
            else:
                told.append(one)
        for number in order:
            if number < len(told):
                house = self.crew.houses[number % 2]
                self.runner.run(self.crew.deliver(house, [told[number]]))

    def tell(self, name: str, action: Action, stage: str) -> Waiting:
        self.crew.events += 1
        told = event(name, name=f"r{self.crew.events}", action=action, stage=stage)
        self.crew.accept(told)
        return Waiting(OneWork(told))

    @rule(chosen=picks, who=whos, number=calls, after=st.booleans())
    def an_exporter_is_stopped(self, chosen: list[int], who: int, number: int, after: bool) -> None:
        """For longer than its lease lasts."""
        house, taken = self.crew.houses[who], self.crew.pick(chosen, again=False)
        if taken:
            self.runner.run(self.crew.fall_asleep(house, taken, number, after=after))

    @rule(change=changes, name=names, who=whos, number=calls, after=st.booleans())
    def an_exporter_is_stopped_at_a_change(
        self, change: Any, name: str, who: int, number: int, after: bool
    ) -> None:
        self.the_platform_changes(change, name, number, lost=True, much=False)
        one = Waiting(self.crew.announce(name))
        house = self.crew.houses[who]
        self.runner.run(self.crew.fall_asleep(house, [one], number, after=after))

    @precondition(lambda self: self.crew.sleepers)
    @rule(number=numbers)
    def a_sleeper_wakes(self, number: int) -> None:
        self.runner.run(self.crew.wake(number))

    @rule(who=whos, count=st.integers(1, 30), fault=faults)
    def an_auditor_works(self, who: int, count: int, fault: Any) -> None:
        self.runner.run(self.crew.audit(who, count, fault))

    @rule(who=whos, count=st.integers(1, 30), number=calls, after=st.booleans())
    def an_auditor_is_stopped(self, who: int, count: int, number: int, after: bool) -> None:
        self.runner.run(self.crew.auditor_falls_asleep(who, count, number, after=after))

    @rule()
    def a_sweep_asks_for_all(self) -> None:
        self.crew.waiting += [Waiting(self.crew.sweep(name)) for name in TASKS]

    @rule(who=st.integers(0, 3), hours=st.sampled_from(HOURS))
    def a_clock_jumps(self, who: int, hours: int) -> None:
        whose = (*self.crew.houses, *self.crew.auditors)[who]
        cast(Any, whose).skew += 60 * hours

    @rule(fault=faults)
    def the_mirror_follows(self, fault: Any) -> None:
        store: Any = self.crew.store
        if fault is not None:
            number, when, dies = fault
            store = FaultyStore(store, {number: when}, *([Crash] if dies else []))
        try:
            self.runner.run(self.follow(store))
        except (Crash, Transient, Conflict):
            return

    # what holds at every step

    @invariant()
    def nothing_is_left_running(self) -> None:
        """But who sleeps."""
        if not self.crew.sleepers:
            assert not asyncio.all_tasks(self.runner.get_loop())

    @invariant()
    def nobody_innocent_is_buried(self) -> None:
        """Only what nobody ever heard of: a task that was gone before it was seen."""
        reasons = {failure.reason for _, failure in self.crew.dead}
        assert reasons <= {"task-unknown"}, reasons

    # what holds when all is quiet

    def check_settled(self, name: str) -> None:
        super().check_settled(name)
        pointer, task = self.pointer(name), self.world.tasks[name]
        if pointer is not None and task.stage != "END":
            assert not pointer.ground_truth, "a resubmission is ground truth"

    async def the_log_tells_all(self) -> None:
        await self.crew.audit_all()
        store = self.crew.store
        log = [one.data async for one in entries(store)]
        ids = Counter(entry["id"] for entry in log)
        assert not ids or max(ids.values()) == 1, "an entry is there twice"
        accepted = {id_ for one in self.crew.accepted for id_ in audited(one)}
        missing = accepted - ids.keys()
        assert not missing, f"accepted and lost: {missing}"
        times = [entry["logged_at"] for entry in log]
        assert times == sorted(times), "the log's time went back"
        for name in TASKS:
            moves = [e for e in log if e["kind"] == "lake" and e["task"] == name]
            pointer = self.pointer(name)
            last = pointer.sequence if pointer else 0
            assert [move["sequence"] for move in moves] == list(range(1, last + 1))
            if pointer is not None:
                assert moves[-1]["ground_truth"] == pointer.ground_truth
                assert moves[-1]["stage"] == pointer.stage
            seen = {e["history_id"] for e in log if e["kind"] == "history" and e["task"] == name}
            assert seen == set(pointer.history if pointer else ())
        if log:
            vkey = Signer.from_seed(ORIGIN, b"s" * 32).verifier.vkey
            found = await verify(store, vkey=vkey)
            assert found.ok, found.findings

    # the mirror

    async def follow(self, store: Any) -> Mirror:
        """A process that begins where the cursor is, takes in all, and ends."""
        mirror = self.mirror(store)
        began = await mirror.start(self.cursor)
        self.cursor = await taken_in(mirror, store, began.next)
        return mirror

    def mirror(self, store: Any) -> Mirror:
        ports = FollowPorts(
            store=store,
            queue=cast(Any, self.crew.queue),
            log=LogTail(store, poll_s=0.001),
            clock=self.crew.houses[0].ports.clock,
        )
        return Mirror(ports, interval_s=0.0, check_s=3600.0)

    async def the_mirror_shows_the_lake(self) -> None:
        """As one that begins anew, beside it, does."""
        await self.follow(self.crew.store)
        told = [one for one in self.crew.queue.audit if cast(Any, one).kind == "restored"]
        assert not told, "what a crash left was taken for an edit"
        fresh = FakeStore(may_recur=is_mirrored)
        for key, data in self.crew.store.objects.items():
            if not (is_mirrored(key) or key.startswith("followers/")):
                fresh.objects[key] = data
        await taken_in(self.mirror(fresh), fresh, 0)
        assert shown(self.crew.store.objects) == shown(fresh.objects)


def audited(message: Message) -> list[str]:
    """The ids of its entries: a webhook's receipt, or what a sweep says."""
    return [str(entry["id"]) for entry in audit.entries_of(message)]


def happens(world: World, task: Task, action: Action, kind: EventType, stage: str) -> None:
    at = world.tick()
    item = HistoryItem(
        id=identifier(task.name, at), type=kind, at=at, action=action, final=stage == "END",
        workflow=True,
    )  # fmt: skip
    task.history.append(item)
    task.stage, task.chosen = stage, None


async def taken_in(mirror: Mirror, store: Any, position: int) -> Cursor:
    size = await LogTail(store, poll_s=0.001).size()
    wanted = [one async for one in entries(store, position, size) if one.data["kind"] == "lake"]
    return (await mirror.follow(Batch(wanted, position, size, size))).cursor


def shown(objects: Mapping[str, bytes]) -> dict[str, bytes]:
    tasks = layout.task_prefix(PROJECT, "")
    kept = {k: v for k, v in objects.items() if is_mirrored(k) and not k.startswith(tasks)}
    return {k: v for k, v in kept.items() if v != EMPTY}


TestWorkerMachine = seed(seeds().start)(WorkerMachine).TestCase
TestWorkerMachine.settings = settings(
    database=None,
    max_examples=2 * len(seeds()),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
