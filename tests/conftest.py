"""Servers that tests share: each is started once, when the first test asks for it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.servers_rabbitmq import RabbitServer, rabbitmq
from tests.servers_s3 import S3Server, s3


def pytest_collection_finish() -> None:
    """What thousands of tests are made of stays: the collector need not look at it at every turn,
    which takes a tenth of their time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitServer]:
    """A real RabbitMQ on loopback; tests share it, so each uses a queue prefix of its own."""
    with rabbitmq() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server on loopback; tests share its bucket, so each uses a prefix of its own."""
    with s3() as server:
        yield server
