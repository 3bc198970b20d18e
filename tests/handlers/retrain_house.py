"""``retrain`` over a real log, turn by turn as its loop runs it; only the test moves the clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from consumer.errors import Conflict, GroundwireError
from consumer.follow import Stored, cursor_key, read_cursor
from consumer.log.tail import LogTail
from consumer.model import Message, Record, encode
from consumer.ports import Batch, Cursor, FollowPorts, LogEntry, Queue, Step, Store
from handlers.retrain import Retrain
from handlers.retrain_policy import Policy
from handlers.retrain_records import Decision
from handlers.retrain_state import Taken
from handlers.targets.trigger import Fired, Trigger
from tests.handlers.lake_house import AUDIT, LakeHouse, lake_house

TURNS = 400  # no story of a test takes as many


@dataclass
class FakeTarget:
    """An oracle: one key has one content, for ever. ``fails`` are raised, one a call; ``holding``
    keeps calls from returning while it is not set; ``broken`` is raised when it began so many
    times, though it did begin."""

    fails: list[BaseException] = field(default_factory=list)
    broken: dict[int, BaseException] = field(default_factory=dict)
    told: list[Trigger] = field(default_factory=list)  # each time that it began, or had begun
    asked: int = 0
    at_once: int = 0
    most_at_once: int = 0
    cancelled: int = 0
    holding: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.holding.set()

    async def fire(self, trigger: Trigger) -> Fired:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.holding.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1
        if self.fails:
            raise self.fails.pop(0)
        already = trigger.key in {one.key for one in self.told}
        for one in self.told:
            assert one.key != trigger.key or one == trigger, "one key, two contents"
        self.told.append(trigger)
        if len(self.told) in self.broken:
            raise self.broken[len(self.told)]
        return Fired(f"run-{trigger.decision}", already)

    @property
    def keys(self) -> list[str]:
        """Each once, in the order in which they began."""
        return list(dict.fromkeys(one.key for one in self.told))

    @property
    def begun(self) -> list[tuple[str, int]]:
        """(policy, decision), each once, in their order."""
        return list(dict.fromkeys((one.policy, one.decision) for one in self.told))


@dataclass
class FakeSnapshots:
    """Made of the decision alone."""

    store: Store
    fails: list[BaseException] = field(default_factory=list)
    made: list[Decision] = field(default_factory=list)

    async def __call__(self, decision: Decision) -> tuple[Taken, Record]:
        if self.fails:
            raise self.fails.pop(0)
        self.made.append(decision)
        made = f"{decision.log_size}-{'-'.join(decision.classes) or 'all'}"
        key = f"snapshots/{decision.policy}/{made}/snapshot.json"
        await self.store.create(key, made.encode())
        taken = Taken(
            id=made, name=decision.policy, key=key, sha256="5" * 64, log_root="root", tasks=7
        )
        return taken, Record(id=f"{decision.policy}:{made}", kind="snapshot", fields={})


@dataclass
class Process:
    """One follower as its loop runs it: read, follow, store the cursor; begun again after a
    failure, with nothing but the stored cursor."""

    house: LakeHouse
    follower: Retrain
    store: Store
    log: LogTail
    batch: int = 1000
    step: Step | None = None
    failures: list[Exception] = field(default_factory=list)
    position: int = 0
    _stored: Stored | None = None
    _etag: str | None = None

    async def turn(self) -> None:
        try:
            await self._turn()
        except (GroundwireError, Conflict) as error:
            self.failures.append(error)
            self.step = None

    async def _turn(self) -> None:
        if self.step is None:
            await self._begin()
        size = await self.log.size()
        end = min(size, self.position + self.batch)
        entries = await self.log.read(self.position, end)
        wanted = [one for one in entries if one.data["kind"] in self.follower.kinds]
        self.step = await self.follower.follow(Batch(wanted, self.position, end, size))
        await self._keep(self.step)
        self.position = end

    async def _begin(self) -> None:
        self._stored, self._etag = await read_cursor(self.store, "retrain")
        now = self._stored or Stored(
            follower="retrain", log=await self.log.identity(), next=0, sequence=0
        )
        self._stored = now
        self.position = (await self.follower.start(Cursor(now.next, now.state))).next

    async def _keep(self, step: Step) -> None:
        assert self._stored is not None
        before = self._stored
        now = Stored(
            follower="retrain",
            log=before.log,
            next=step.cursor.next,
            sequence=before.sequence + 1,
            state=dict(step.cursor.state),
        )
        if (now.next, now.state) == (before.next, before.state):
            return
        key = cursor_key("retrain")
        self._etag = await self.store.swap(key, encode(now), if_match=self._etag)
        self._stored = now

    @property
    def troubles(self) -> tuple[str, ...]:
        return self.step.troubles if self.step else ()


@dataclass
class RetrainHouse:
    """A lake with its log, policies, and a target that all of them share."""

    lake: LakeHouse
    policies: list[Policy]
    target: FakeTarget
    snapshots: FakeSnapshots
    more: dict[str, Any] = field(default_factory=dict)  # of the follower's arguments
    processes: list[Process] = field(default_factory=list)

    def process(
        self, *, store: Store | None = None, queue: Queue | None = None, batch: int = 1000
    ) -> Process:
        """A new process, beside those that run."""
        store = store or self.lake.store
        log = LogTail(store, poll_s=0.001)
        ports = FollowPorts(
            store=store,
            queue=queue or cast(Any, self.lake.queue),
            log=log,
            clock=self.lake.clock,
        )
        targets = {policy.name: self.target for policy in self.policies}
        self.snapshots.store = store
        follower = Retrain(
            self.policies,
            targets,
            ports=ports,
            snapshot=self.snapshots,
            random=lambda: 1.0,
            **self.more,
        )
        made = Process(self.lake, follower, store, log, batch)
        self.processes.append(made)
        return made

    async def settle(self, *processes: Process) -> None:
        """Turn by turn, the log written in between, until nothing but time can change anything, or
        a call that the target holds back."""
        running = processes or (self.processes[-1],)
        still = 0
        for _ in range(TURNS):
            before = self._seen(running)
            for one in running:
                await one.turn()
            await asyncio.sleep(0)
            size = await self.lake.tail.size()
            await self.lake.write_log()
            is_new = before != self._seen(running) or size != await self.lake.tail.size()
            still = 0 if is_new else still + 1
            held = not self.target.holding.is_set() and self.target.at_once > 0
            rests = all(one.step and _waits(one.step) for one in running)
            if not is_new and (rests or (held and still > 10)):
                return
        raise AssertionError("it never comes to rest")

    def _seen(self, running: Sequence[Process]) -> list[Any]:
        return [(one.position, one.step and encode(one.step.cursor.state)) for one in running]

    async def lose(self) -> list[Message]:
        """What waits for the log is taken, and whoever took it dies with it."""
        leases = await self.lake.queue.take(AUDIT)
        for lease in leases:
            await lease.ack()
        return [lease.message for lease in leases]

    async def entries(self, *kinds: str) -> list[LogEntry]:
        found = await self.lake.tail.read(0, await self.lake.tail.size())
        return [one for one in found if one.data["kind"] in (kinds or ("decided", "triggered"))]

    async def decisions(self) -> list[tuple[str, int, int]]:
        """(policy, decision, tasks) of each that was logged."""
        found = await self.entries("decided")
        return [(e.data["policy"], e.data["decision"], e.data["tasks"]) for e in found]

    async def assert_every_decision_ends(self) -> None:
        """Logged once, told to the target under the one key, and its end logged."""
        decided = [e.data for e in await self.entries("decided")]
        assert len({one["id"] for one in decided}) == len(decided)
        ends = [e.data for e in await self.entries("triggered")]
        fired = {(one["policy"], one["decision"]) for one in decided if not one["dry_run"]}
        assert {(one["policy"], one["decision"]) for one in ends} == fired
        assert set(self.target.begun) == fired
        assert {one["key"] for one in ends} == set(self.target.keys)

    async def close(self) -> None:
        for process in self.processes:
            await process.follower.close()


@asynccontextmanager
async def retrain_house(*policies: Policy, **settings: Any) -> AsyncIterator[RetrainHouse]:
    async with lake_house(**settings) as lake:
        made = RetrainHouse(lake, list(policies), FakeTarget(), FakeSnapshots(lake.store))
        try:
            yield made
        finally:
            await made.close()


def _waits(step: Step) -> bool:
    return step.wake_s is None or step.wake_s > 0.25
