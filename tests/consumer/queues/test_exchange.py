"""The topic exchange on a real RabbitMQ: order, confirms, deadlines, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import aio_pika
import pytest

from consumer.errors import GroundwireError, Permanent, Transient
from consumer.queues.exchange import RabbitExchange
from handlers.relay import Publication
from tests.exchange_rabbitmq import ExchangeHouse, arrived, exchange_house, ids
from tests.servers_rabbitmq import RabbitServer


@pytest.fixture
async def house(rabbitmq_server: RabbitServer) -> AsyncIterator[ExchangeHouse]:
    async with exchange_house(rabbitmq_server) as made:
        yield made


def publications(
    numbers: Iterable[int], key: str = "redbrick.p.added", body: bytes = b"{}"
) -> list[Publication]:
    return [
        Publication(
            routing_key=key,
            message_id=str(number),
            content_type="application/cloudevents+json",
            body=body,
        )
        for number in numbers
    ]


async def refusal(exchange: RabbitExchange) -> GroundwireError:
    """Why it is not ready."""
    with pytest.raises(GroundwireError) as caught:
        await exchange.ready()
    await exchange.close()
    return caught.value


async def test_a_thousand_messages_arrive_once_and_in_their_order(house: ExchangeHouse) -> None:
    exchange = house.exchange()
    await exchange.ready()
    queue = await house.bound("#")
    await exchange.publish(publications(range(1000), body=b"." * 700))
    await exchange.publish(publications(range(1000, 1010)))
    assert ids(await arrived(queue)) == list(range(1010))


async def test_a_message_is_persistent_and_says_what_it_is(house: ExchangeHouse) -> None:
    exchange = house.exchange()
    await exchange.ready()
    queue = await house.bound("#")
    await exchange.publish(publications([17], key="a.b.removed", body=b'{"x":1}'))
    (message,) = await arrived(queue)
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert message.content_type == "application/cloudevents+json"
    assert message.message_id == "17"
    assert message.routing_key == "a.b.removed"
    assert message.body == b'{"x":1}'


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.*.added", [0, 2, 4]),
        ("redbrick.#", [0, 1, 4]),
        ("*.p.*", [0, 1, 2]),
        ("labelbox.p.added", [2]),
        ("redbrick.a%2Eb.*", [4]),
        ("redbrick.a.#", []),
    ],
)
async def test_bindings_choose_by_platform_project_and_what_happened(
    house: ExchangeHouse, pattern: str, expected: list[int]
) -> None:
    exchange = house.exchange()
    await exchange.ready()
    queue = await house.bound(pattern)
    keys = (
        "redbrick.p.added", "redbrick.p.removed", "labelbox.p.added", "labelbox.q.changed",
        "redbrick.a%2Eb.added",
    )  # fmt: skip
    for number, key in enumerate(keys):
        await exchange.publish(publications([number], key=key))
    assert ids(await arrived(queue)) == expected


async def test_with_nothing_bound_it_goes_on(house: ExchangeHouse) -> None:
    exchange = house.exchange()
    await exchange.ready()
    await exchange.publish(publications(range(5)))
    queue = await house.bound("#")
    await exchange.publish(publications([5]))
    assert ids(await arrived(queue)) == [5]


async def test_the_exchange_that_is_declared_survives_a_restart_of_the_broker(
    house: ExchangeHouse,
) -> None:
    await house.exchange().ready()
    await house.declare()  # raises if it were not a durable topic exchange


async def test_without_declaring_a_missing_exchange_is_told_and_not_made(
    house: ExchangeHouse,
) -> None:
    for _ in range(2):
        error = await refusal(house.exchange(declare=False))
        assert isinstance(error, Permanent)
        assert error.reason == "exchange-missing"
        assert house.name in error.message
        assert "relay.declare" in error.message


async def test_without_declaring_publishing_into_nothing_is_told(house: ExchangeHouse) -> None:
    exchange = house.exchange(declare=False)
    for _ in range(2):
        with pytest.raises(Permanent, match="does not exist") as caught:
            await exchange.publish(publications(range(3)))
        assert caught.value.reason == "exchange-missing"


async def test_without_declaring_an_existing_exchange_is_used(house: ExchangeHouse) -> None:
    await house.declare()
    queue = await house.bound("#")
    exchange = house.exchange(declare=False)
    await exchange.ready()
    await exchange.publish(publications([1]))
    assert ids(await arrived(queue)) == [1]


async def test_an_exchange_that_disappears_is_told_and_then_made_again(
    house: ExchangeHouse,
) -> None:
    exchange = house.exchange()
    await exchange.ready()
    await exchange.publish(publications([1]))
    await house.remove()
    with pytest.raises(Transient, match="has gone") as caught:
        await exchange.publish(publications([2]))
    assert caught.value.reason == "exchange-missing"
    await exchange.ready()
    queue = await house.bound("#")
    await exchange.publish(publications([2]))
    assert ids(await arrived(queue)) == [2]


async def test_an_exchange_of_another_kind_under_our_name_is_told(house: ExchangeHouse) -> None:
    await house.channel.declare_exchange(house.name, aio_pika.ExchangeType.FANOUT, durable=True)
    error = await refusal(house.exchange())
    assert isinstance(error, Permanent)
    assert error.reason == "exchange-mismatch"


async def test_an_exchange_that_the_user_may_not_make_is_told(
    rabbitmq_server: RabbitServer,
) -> None:
    error = await refusal(RabbitExchange(rabbitmq_server.url, exchange="amq.reserved"))
    assert isinstance(error, Permanent)
    assert error.reason == "exchange-denied"


async def test_a_refused_password_is_told_and_not_repeated(rabbitmq_server: RabbitServer) -> None:
    url = f"amqp://guest@127.0.0.1:{rabbitmq_server.port}/"
    error = await refusal(RabbitExchange(url, exchange="x", password="hunter/2"))
    assert isinstance(error, Permanent)
    assert error.reason == "queue-denied"
    assert "hunter" not in str(error)


async def test_a_broker_that_is_not_there_may_come_later() -> None:
    exchange = RabbitExchange("amqp://guest@127.0.0.1:1/", exchange="x")
    assert isinstance(await refusal(exchange), Transient)
    with pytest.raises(Transient):
        await exchange.publish(publications([1]))


async def test_a_broker_that_swallows_everything_is_given_up_in_time(house: ExchangeHouse) -> None:
    exchange = house.exchange(deadline_s=0.5)
    await exchange.ready()
    queue = await house.bound("#")
    await exchange.publish(publications([1]))
    house.proxy.swallow()
    async with asyncio.timeout(5):
        with pytest.raises(Transient, match="in time"):
            await exchange.publish(publications([2]))
        with pytest.raises(Transient):
            await exchange.ready()
    house.proxy.restore()
    await exchange.publish(publications([2]))
    assert ids(await arrived(queue)) == [1, 2]


async def test_a_cut_connection_is_told_and_the_next_publish_opens_another(
    house: ExchangeHouse,
) -> None:
    exchange = house.exchange()
    await exchange.ready()
    queue = await house.bound("#")
    await exchange.publish(publications([1]))
    publishing = asyncio.create_task(exchange.publish(publications(range(2, 200))))
    house.proxy.cut()
    with pytest.raises(Transient):
        await publishing
    await exchange.publish(publications(range(2, 200)))
    first = list(dict.fromkeys(ids(await arrived(queue))))
    assert first == list(range(1, 200))


async def test_what_a_full_queue_refuses_is_no_success(house: ExchangeHouse) -> None:
    exchange = house.exchange()
    await exchange.ready()
    queue = await house.bound("#", {"x-max-length": 1, "x-overflow": "reject-publish"})
    with pytest.raises(Transient, match="refused a message"):
        await exchange.publish(publications(range(20)))
    await arrived(queue)
    await exchange.publish(publications([20]))
    assert ids(await arrived(queue)) == [20]


async def test_two_publishes_at_once_do_not_disturb_each_other(house: ExchangeHouse) -> None:
    exchange = house.exchange()
    await exchange.ready()
    queue = await house.bound("#")
    await asyncio.gather(
        exchange.publish(publications(range(100))), exchange.publish(publications(range(100, 200)))
    )
    found = ids(await arrived(queue))
    assert [n for n in found if n < 100] == list(range(100))
    assert [n for n in found if n >= 100] == list(range(100, 200))


async def test_amqps_trusts_the_authority_it_is_given_and_no_other(
    rabbitmq_server: RabbitServer, house: ExchangeHouse
) -> None:
    exchange = RabbitExchange(rabbitmq_server.tls_url, exchange=house.name, ca=rabbitmq_server.ca)
    await exchange.ready()
    await exchange.publish(publications([1]))
    await exchange.close()
    error = await refusal(RabbitExchange(rabbitmq_server.tls_url, exchange=house.name))
    assert isinstance(error, Permanent)
    assert error.reason == "queue-denied"
