"""The receiver's inbox: kept when the broker takes nothing, forwarded when it does, never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from consumer.errors import GroundwireError, Permanent, Transient
from consumer.inbox import INBOX, InboxQueue
from consumer.model import LaneSpec, Message, Record
from consumer.queues.sqlite import SqliteQueue
from tests.fakes_queue import FakeQueue

AUDIT = LaneSpec(name="audit", wants=("record",), exclusive=True)
DOWN = Transient("queue-unavailable", "the broker cannot be reached", shared=True)
FULL = Transient("queue-unavailable", "the disk is full", shared=True)


@dataclass(eq=False)
class FakeBroker(FakeQueue):
    """A broker that also refuses single messages, and everything beside them, as a closed channel
    does; ``tried`` holds the ids of each put, whatever came of it."""

    refuses: set[str] = field(default_factory=set)
    crashes: bool = False
    tried: list[list[str]] = field(default_factory=list)

    async def put(self, messages: Sequence[Message]) -> None:
        self.tried.append([message.id for message in messages])
        if self.crashes:
            raise ZeroDivisionError
        if self.refuses & {message.id for message in messages}:
            raise Transient("queue-unavailable", "the broker refused a message")
        await super().put(messages)

    def ids(self) -> list[str]:
        return [message.id for message in self.messages("audit")]


@dataclass(slots=True)
class House:
    broker: FakeBroker = field(default_factory=lambda: FakeBroker([AUDIT]))
    inbox: FakeQueue = field(default_factory=lambda: FakeQueue([INBOX]))
    pauses: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def queue(self, *, patience_s: float = 0.05, most_waiting: int = 1000) -> InboxQueue:
        return InboxQueue(
            self.broker,
            self.inbox,
            patience_s=patience_s,
            most_waiting=most_waiting,
            sleep=self.sleep,
            random=lambda: 0.5,
        )

    @asynccontextmanager
    async def opened(
        self, *, away: bool = False, most_waiting: int = 1000
    ) -> AsyncIterator[InboxQueue]:
        """An open queue, whose broker is known to be there, or away."""
        self.broker.failing = DOWN if away else None
        queue = self.queue(most_waiting=most_waiting)
        await queue.open()
        await until(lambda: queue.state().away == (DOWN.message if away else None))
        yield queue
        await queue.close()

    def waiting(self) -> list[str]:
        return [message.id for message in self.inbox.messages("inbox")]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def record(name: str = "r1") -> Record:
    return Record(id=name, kind="started")


async def refusal(doing: Callable[[], object]) -> GroundwireError:
    with pytest.raises(GroundwireError) as caught:
        await doing()  # type: ignore[misc]
    return caught.value


async def test_what_the_broker_takes_does_not_pass_through_the_inbox() -> None:
    house = House()
    async with house.opened() as queue:
        await queue.put([record()])
        assert house.broker.ids() == ["r1"]
        assert house.inbox.puts == []


async def test_what_the_broker_does_not_take_is_kept_and_forwarded_under_its_id() -> None:
    house = House()
    async with house.opened() as queue:
        house.broker.failing = DOWN
        await queue.put([record("r1"), record("r2")])
        assert len(house.inbox.puts) == 1
        house.broker.failing = None
        await until(lambda: sorted(house.broker.ids()) == ["r1", "r2"])
        await until(lambda: queue.state().away is None)
        assert house.waiting() == []
        assert queue.state().waiting == 0


async def test_while_the_broker_is_away_no_request_tries_it() -> None:
    house = House()
    async with house.opened(away=True) as queue:
        for number in range(20):
            await queue.put([record(f"r{number}")])
        assert house.broker.tried == []
        assert queue.state().waiting == 20


async def test_a_broker_that_does_not_answer_costs_the_patience_once() -> None:
    house = House()
    async with house.opened() as queue:
        house.broker.holding.clear()
        await queue.put([record("r1")])
        await asyncio.wait_for(queue.put([record("r2")]), 0.04)
        assert [[one.id for one in put] for put in house.inbox.puts] == [["r1"], ["r2"]]
        house.broker.holding.set()
        await until(lambda: {"r1", "r2"} <= set(house.broker.ids()))


async def test_the_first_message_after_an_absence_goes_alone() -> None:
    house = House()
    async with house.opened(away=True) as queue:
        await queue.put([record(f"r{number}") for number in range(10)])
        house.broker.failing = None
        house.broker.holding.clear()
        await until(lambda: house.broker.entering == 1)
        await asyncio.sleep(0.02)
        assert house.broker.entering == 1
        house.broker.holding.set()
        await until(lambda: len(house.broker.ids()) == 10)


async def test_a_message_that_the_broker_never_takes_holds_up_no_other_and_stays() -> None:
    house = House()
    async with house.opened(away=True) as queue:
        house.broker.refuses = {"huge"}
        await queue.put([record("huge"), *(record(f"r{number}") for number in range(5))])
        house.broker.failing = None
        await until(lambda: len(house.broker.ids()) == 5)
        await queue.put([record("later")])
        await until(lambda: "later" in house.broker.ids())
    assert house.inbox.messages("inbox") + [one.message for one in house.inbox.leased["inbox"]] == [
        record("huge")
    ]
    assert await house.inbox.dead(INBOX, limit=10) == []


async def test_a_message_that_fails_alone_waits_ever_longer_up_to_half_a_minute() -> None:
    house = House()
    async with house.opened(away=True) as queue:
        house.broker.refuses = {"huge"}
        await queue.put([record("huge")])
        house.broker.failing = None
        await until(lambda: len(house.inbox.waits) >= 9)
    waits = house.inbox.waits[:9]
    assert waits[0] == 0.0
    assert waits == sorted(waits)
    assert 15 <= waits[-1] <= 30


async def test_it_opens_while_the_broker_is_away_and_keeps_what_comes() -> None:
    house = House()
    async with house.opened(away=True) as queue:
        await queue.ready()
        await queue.put([record()])
        assert queue.state().told() == {
            "waiting": 1,
            "broker": "away: the broker cannot be reached",
        }


async def test_a_broker_that_a_person_must_mend_is_waited_for_too() -> None:
    house = House(broker=FakeBroker([AUDIT], failing=Permanent("queue-denied", "no such user")))
    queue = house.queue()
    await queue.open()
    await until(lambda: queue.state().away == "no such user")
    await queue.put([record()])
    house.broker.failing = None
    await until(lambda: house.broker.ids() == ["r1"])
    await queue.close()


async def test_an_inbox_that_cannot_be_used_ends_the_start_with_a_sentence() -> None:
    house = House()
    house.inbox.failing = Permanent("queue-unusable", "the file cannot be used")
    error = await refusal(house.queue().open)
    assert isinstance(error, Permanent)
    assert error.message == "the inbox: the file cannot be used"


async def test_an_inbox_that_fails_for_now_is_done_without_while_the_broker_is_there() -> None:
    house = House()
    house.inbox.failing = FULL
    async with house.opened() as queue:
        await queue.ready()
        await queue.put([record("r1")])
        assert house.broker.ids() == ["r1"]
        assert queue.state().failing == "the disk is full"
        house.inbox.failing = None
        await until(lambda: house.inbox.opened)
        house.broker.failing = DOWN
        await queue.put([record("r2")])
        assert queue.state().failing is None


async def test_without_inbox_and_broker_it_does_not_open() -> None:
    house = House(broker=FakeBroker([AUDIT], failing=DOWN))
    house.inbox.failing = FULL
    assert isinstance(await refusal(house.queue().open), Transient)


async def test_a_broken_inbox_while_the_broker_is_away_is_told_and_keeps_nothing() -> None:
    house = House()
    async with house.opened(away=True) as queue:
        house.inbox.failing = FULL
        for doing in (lambda: queue.put([record()]), queue.ready):
            error = await refusal(doing)
            assert error.reason == "queue-inbox-failed"
            assert "the broker cannot be reached" in error.message
            assert "the disk is full" in error.message
        assert queue.state().told()["failing"] == "the disk is full"


async def test_a_full_inbox_while_the_broker_is_away_is_told_and_keeps_nothing() -> None:
    house = House()
    async with house.opened(away=True, most_waiting=3) as queue:
        await queue.put([record("r1"), record("r2")])
        for doing in (lambda: queue.put([record("r3"), record("r4")]),):
            assert (await refusal(doing)).reason == "queue-inbox-full"
        await queue.put([record("r3")])
        assert (await refusal(queue.ready)).reason == "queue-inbox-full"
        house.broker.failing = None
        await until(lambda: len(house.broker.ids()) == 3)
        await queue.ready()


async def test_a_message_that_is_too_large_is_refused_and_not_kept() -> None:
    house = House()
    async with house.opened() as queue:
        house.broker.failing = Permanent("message-too-large", "over the limit")
        house.inbox.failing = house.broker.failing
        assert (await refusal(lambda: queue.put([record()]))).reason == "message-too-large"
        assert house.inbox.puts == []


async def test_what_a_person_must_mend_at_the_broker_is_no_reason_to_refuse() -> None:
    house = House()
    async with house.opened() as queue:
        house.broker.failing = Permanent("queue-denied", "no such user")
        await queue.put([record()])
        await until(lambda: queue.state().away == "no such user")
        house.broker.failing = None
        await until(lambda: house.broker.ids() == ["r1"])


async def test_a_defect_of_the_queue_loses_nothing() -> None:
    house = House()
    async with house.opened() as queue:
        house.broker.crashes = True
        await queue.put([record()])
        await until(lambda: len(house.broker.tried) > 2)
        house.broker.crashes = False
        await until(lambda: house.broker.ids() == ["r1"])


async def test_lanes_take_from_the_broker_and_its_numbers_are_told() -> None:
    house = House()
    async with house.opened() as queue:
        await queue.put([record()])
        assert (await queue.depth(AUDIT)).ready == 1
        assert (await queue.depth(INBOX)).ready == 0
        (lease,) = await queue.take(AUDIT)
        assert lease.message == record()
        await lease.ack()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


async def test_what_is_in_the_inbox_stays_for_the_next_start(file: Path) -> None:
    broker = FakeBroker([AUDIT], failing=DOWN)
    for name in ("r1", "r2"):
        queue = InboxQueue(broker, SqliteQueue(file, [INBOX]))
        await queue.open()
        await queue.put([record(name)])
        await queue.close()
    broker.failing = None
    queue = InboxQueue(broker, SqliteQueue(file, [INBOX]))
    await queue.open()
    await until(lambda: sorted(broker.ids()) == ["r1", "r2"])
    await until(lambda: queue.state().waiting == 0)
    await queue.close()


async def test_a_stop_in_the_middle_of_forwarding_loses_nothing(file: Path) -> None:
    broker = FakeBroker([AUDIT], failing=DOWN)
    queue = InboxQueue(broker, SqliteQueue(file, [INBOX]))
    await queue.open()
    await queue.put([record(f"r{number}") for number in range(100)])
    broker.failing = None
    broker.holding.clear()
    await until(lambda: broker.entering > 0)
    await queue.close()
    inbox = SqliteQueue(file, [INBOX])
    await inbox.open()
    assert (await inbox.depth(INBOX)).ready == 100
    await inbox.close()


async def test_two_receivers_may_share_one_inbox(file: Path) -> None:
    broker = FakeBroker([AUDIT], failing=DOWN)
    queues = [InboxQueue(broker, SqliteQueue(file, [INBOX])) for _ in range(2)]
    for number, queue in enumerate(queues):
        await queue.open()
        await queue.put([record(f"r{number}")])
    broker.failing = None
    await until(lambda: sorted(broker.ids()) == ["r0", "r1"])
    await until(lambda: all(queue.state().away is None for queue in queues))
    for queue in queues:
        await queue.close()
