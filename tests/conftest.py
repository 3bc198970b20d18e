"""Servers that tests share: each is started once, when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers_rabbitmq import RabbitServer, rabbitmq


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitServer]:
    """A real RabbitMQ on loopback; tests share it, so each uses a queue prefix of its own."""
    with rabbitmq() as server:
        yield server
