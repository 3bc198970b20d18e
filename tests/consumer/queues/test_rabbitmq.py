"""What only the RabbitMQ adapter does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aio_pika
import pytest

from consumer.errors import GroundwireError, Permanent, Transient
from consumer.model import Action, Failure, TaskEvent, decode_message
from consumer.ports import ALONE_AFTER, Lease
from consumer.queues.rabbitmq import RabbitQueue
from tests.contracts.queue_harness import AUDIT, EXPORT, LANES, RabbitHarness, eventually
from tests.proxy import Proxy
from tests.servers_rabbitmq import RabbitServer

FAILURE = Failure(reason="platform-down", message="it is down", at="2026-01-02T03:04:05.000000Z")


@pytest.fixture
async def broker(rabbitmq_server: RabbitServer) -> AsyncIterator[RabbitHarness]:
    async with Proxy(rabbitmq_server.port) as proxy:
        harness = RabbitHarness(rabbitmq_server, proxy)
        yield harness
        await harness.sweep()


@pytest.fixture
async def queue(broker: RabbitHarness) -> AsyncIterator[RabbitQueue]:
    queue = broker.queue()
    await queue.open()
    yield queue
    await queue.close()


def event(name: str = "e1") -> TaskEvent:
    return TaskEvent(
        id=name,
        source="redbrick",
        project="p",
        task="t",
        action=Action.MOVE,
        received_at="2026-01-02T03:04:05.000000Z",
        body_sha256="0" * 64,
    )


async def take(queue: RabbitQueue) -> Sequence[Lease]:
    async with asyncio.timeout(20):
        return await queue.take(EXPORT)


async def refused(queue: RabbitQueue) -> GroundwireError:
    """The error with which it does not open."""
    try:
        await queue.open()
    except GroundwireError as error:
        return error
    finally:
        await queue.close()
    raise AssertionError("it opened")


async def put_fails(queue: RabbitQueue, name: str) -> bool:
    try:
        await queue.put([event(name)])
    except Transient:
        return True
    return False


async def test_a_message_in_the_broker_is_persistent_and_says_what_it_is(
    broker: RabbitHarness, queue: RabbitQueue
) -> None:
    await queue.put([event()])
    async with broker.channel() as channel:
        lane = await channel.get_queue(broker.name(EXPORT))
        message = await lane.get()
        assert message is not None
        assert message.message_id == "e1"
        assert message.content_type == "application/json"
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
        assert message.headers["cloudEvents:type"] == "groundwire.event"
        assert decode_message(message.body) == event()


async def test_what_reached_the_broker_s_limit_is_handed_out_alone_and_not_buried(
    broker: RabbitHarness, queue: RabbitQueue
) -> None:
    await queue.put([event()])
    await crash_a_thousand_times(broker)
    await queue.put([event("neighbour")])
    batches = [await queue.take(EXPORT) for _ in range(2)]
    assert sorted(len(batch) for batch in batches) == [1, 1]
    killed = next(lease for (lease,) in batches if lease.message == event())
    assert (killed.attempt, killed.failure, killed.losses) == (1, None, ALONE_AFTER)


async def crash_a_thousand_times(broker: RabbitHarness) -> None:
    """As a consumer would that never answers, only faster."""
    async with broker.channel() as channel:
        lane = await channel.get_queue(broker.name(EXPORT))

        async def reject(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            await message.reject(requeue=True)

        await lane.consume(reject)

        async def is_killed() -> bool:
            killed = await channel.declare_queue(f"{broker.name(EXPORT)}.killed", passive=True)
            return killed.declaration_result.message_count == 1

        await eventually(is_killed, within_s=60)


async def test_no_put_of_one_id_succeeds_while_a_lane_is_gone_however_many_race(
    broker: RabbitHarness, queue: RabbitQueue
) -> None:
    await broker.remove(AUDIT)
    failed = await asyncio.gather(*(put_fails(queue, "same") for _ in range(20)))
    assert all(failed)


async def test_a_lane_works_again_once_somebody_declared_it_again(
    broker: RabbitHarness, queue: RabbitQueue
) -> None:
    taking = asyncio.create_task(queue.take(AUDIT))
    await queue.ready()
    await broker.remove(AUDIT)
    assert await put_fails(queue, "lost")
    other = broker.queue()
    await other.open()
    await other.close()
    await queue.put([event("found")])
    leases = await asyncio.wait_for(taking, 20)
    assert [lease.message.id for lease in leases] == ["found"]


async def test_a_lane_is_not_ready_while_the_broker_is_unreachable_and_ready_after(
    broker: RabbitHarness, queue: RabbitQueue
) -> None:
    async def is_ready() -> bool:
        try:
            await queue.ready()
        except Transient:
            return False
        return True

    broker.proxy.cut()
    await eventually(is_ready)


@pytest.mark.parametrize(("verb", "target"), [("retry", "wait.200ms"), ("bury", "dead")])
async def test_a_message_that_cannot_be_moved_stays_in_its_lane(
    broker: RabbitHarness, queue: RabbitQueue, verb: str, target: str
) -> None:
    await queue.put([event()])
    (lease,) = await take(queue)
    async with broker.channel() as channel:
        await channel.queue_delete(f"{broker.name(EXPORT)}.{target}")
    arguments: dict[str, tuple[Any, ...]] = {"retry": (0.1, FAILURE), "bury": (FAILURE,)}
    await getattr(lease, verb)(*arguments[verb])
    (again,) = await take(queue)
    assert again.message == event()
    assert again.attempt == 1


@pytest.mark.parametrize("verb", ["replay", "drop"])
async def test_a_dead_letter_that_somebody_else_looks_at_is_found_when_he_is_done(
    broker: RabbitHarness, queue: RabbitQueue, verb: str
) -> None:
    await queue.put([event()])
    (lease,) = await take(queue)
    await lease.bury(FAILURE)
    async with broker.channel() as channel:
        dead = await channel.get_queue(f"{broker.name(EXPORT)}.dead", ensure=False)
        assert await dead.get(timeout=20) is not None
        removing = asyncio.create_task(getattr(queue, verb)(EXPORT, "e1"))
        await asyncio.sleep(0.3)  # it has looked
    letter = await removing
    assert letter is not None
    assert letter.message == event()


async def test_opening_again_finds_everything_as_it_is(
    broker: RabbitHarness, queue: RabbitQueue
) -> None:
    await queue.put([event()])
    again = broker.queue()
    await again.open()
    assert (await again.depth(EXPORT)).ready == 1
    await again.close()


async def test_without_declaring_a_missing_queue_is_told_and_not_made(
    broker: RabbitHarness,
) -> None:
    for _ in range(2):
        error = await refused(broker.queue(declare=False))
        assert isinstance(error, Permanent)
        assert error.reason == "queue-missing"


async def test_without_declaring_existing_queues_are_used(
    broker: RabbitHarness, queue: RabbitQueue
) -> None:
    other = broker.queue(declare=False)
    await other.open()
    await other.put([event()])
    (lease,) = await take(queue)
    assert lease.message == event()
    await other.close()


async def test_a_queue_of_another_kind_under_our_name_is_told(broker: RabbitHarness) -> None:
    async with broker.channel() as channel:
        await channel.declare_queue(broker.name(EXPORT), durable=True)
    error = await refused(broker.queue())
    assert isinstance(error, Permanent)
    assert error.reason == "queue-mismatch"


async def test_a_refused_password_is_told_and_not_repeated(rabbitmq_server: RabbitServer) -> None:
    url = f"amqp://guest@127.0.0.1:{rabbitmq_server.port}/"
    error = await refused(RabbitQueue(url, LANES, password="hunter/2"))
    assert isinstance(error, Permanent)
    assert error.reason == "queue-denied"
    assert "hunter" not in str(error)


async def test_an_unknown_virtual_host_is_told(rabbitmq_server: RabbitServer) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{rabbitmq_server.port}/nowhere"
    error = await refused(RabbitQueue(url, LANES))
    assert isinstance(error, Permanent)
    assert error.reason == "queue-denied"


async def test_a_broker_that_is_not_there_may_come_later() -> None:
    error = await refused(RabbitQueue("amqp://guest@127.0.0.1:1/", LANES))
    assert isinstance(error, Transient)
    assert error.reason == "queue-unavailable"


async def test_amqps_trusts_the_authority_it_is_given(
    rabbitmq_server: RabbitServer, broker: RabbitHarness
) -> None:
    queue = RabbitQueue(
        rabbitmq_server.tls_url, LANES, prefix=broker.prefix, ca=rabbitmq_server.ca, steps_s=(0.2,)
    )
    await queue.open()
    await queue.put([event()])
    (lease,) = await take(queue)
    assert lease.message == event()
    await queue.close()


async def test_amqps_does_not_trust_an_authority_nobody_named(
    rabbitmq_server: RabbitServer,
) -> None:
    error = await refused(RabbitQueue(rabbitmq_server.tls_url, LANES))
    assert isinstance(error, Permanent)
    assert error.reason == "queue-denied"
