"""Whatever a target does, it is cut off in time, and nobody's secret is told."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from consumer.errors import Transient
from handlers.targets.airflow import AirflowTarget
from handlers.targets.http import HttpTarget
from handlers.targets.sagemaker import SageMakerTarget
from handlers.targets.trigger import Fired, Target
from handlers.targets.webhook import WebhookTarget
from tests.certificates import write_certificates
from tests.handlers.targets.peers import (
    TRIGGER,
    Speak,
    a_closed_port,
    a_socket,
    breaks_off,
    floods,
    says_nothing,
    trickles,
)

TIMEOUT_S = 1.0
SECRET = "s3cret"


def webhook(url: str) -> WebhookTarget:
    return WebhookTarget(f"{url}/?token={SECRET}", keys=[b"k" * 32], timeout_s=TIMEOUT_S)


def http(url: str) -> HttpTarget:
    return HttpTarget(
        f"{url}/?token={SECRET}",
        method="POST",
        headers={},
        secret_headers={"Authorization": SECRET},
        body="$event",
        success=(200,),
        timeout_s=TIMEOUT_S,
    )


def airflow(url: str) -> AirflowTarget:
    return AirflowTarget(url, "dag", conf={}, token=SECRET, timeout_s=TIMEOUT_S)


def airflow_that_logs_in(url: str) -> AirflowTarget:
    login = {"username": "groundwire", "password": SECRET}
    return AirflowTarget(url, "dag", conf={}, timeout_s=TIMEOUT_S, **login)  # type: ignore[arg-type]


def sagemaker(url: str) -> SageMakerTarget:
    return SageMakerTarget(
        "pipeline", parameters={}, region="eu-central-1", endpoint=url, timeout_s=1.5
    )


def sagemaker_that_has_time(url: str) -> SageMakerTarget:
    """boto3 needs a while to be ready on a busy machine."""
    return SageMakerTarget(
        "pipeline", parameters={}, region="eu-central-1", endpoint=url, timeout_s=14
    )


Make = Callable[[str], Target]
BY_HTTP = [webhook, http, airflow, airflow_that_logs_in]
EVERY = [*BY_HTTP, sagemaker]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest_asyncio.fixture
async def tls_port(tmp_path: Path) -> AsyncIterator[int]:
    """Of a server whose certificate is by an authority that nobody knows."""
    write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    server = await asyncio.start_server(says_nothing, "localhost", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def fails(make: Make, url: str) -> Transient:
    target: Any = make(url)
    began = time.monotonic()
    try:
        with pytest.raises(Transient) as raised:
            async with asyncio.timeout(30):
                await target.fire(TRIGGER)
    finally:
        close: Callable[[], Awaitable[None]] | None = getattr(target, "close", None)
        if close is not None:
            await close()
    assert time.monotonic() - began < 15
    assert SECRET not in f"{raised.value!r} {raised.value.message} {target!r}"
    return raised.value


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("speak", [says_nothing, trickles])
async def test_a_target_that_hangs_is_cut_off(make: Make, speak: Speak) -> None:
    async with a_socket(speak) as port:
        assert (await fails(make, f"http://127.0.0.1:{port}")).reason == "target-timeout"


@pytest.mark.parametrize("make", EVERY)
async def test_a_tls_handshake_that_nobody_answers_is_cut_off(make: Make) -> None:
    async with a_socket(says_nothing) as port:
        assert (await fails(make, f"https://127.0.0.1:{port}")).reason == "target-timeout"


@pytest.mark.parametrize("make", [*BY_HTTP, sagemaker_that_has_time])
async def test_a_target_that_is_not_there_is_tried_again(make: Make) -> None:
    port = await a_closed_port()
    assert (await fails(make, f"http://127.0.0.1:{port}")).reason == "target-unreachable"


@pytest.mark.parametrize("make", [*BY_HTTP, sagemaker_that_has_time])
async def test_a_target_that_hangs_up_is_tried_again(make: Make) -> None:
    async with a_socket(breaks_off) as port:
        assert (await fails(make, f"http://127.0.0.1:{port}")).reason == "target-unreachable"


@pytest.mark.parametrize("make", [webhook, http])
async def test_of_a_flood_no_more_than_the_beginning_is_taken(make: Make) -> None:
    async with a_socket(floods) as port:
        target: Any = make(f"http://127.0.0.1:{port}")
        assert await target.fire(TRIGGER) == Fired()
        await target.close()


async def test_a_flood_names_no_run() -> None:
    async with a_socket(floods) as port:
        error = await fails(airflow, f"http://127.0.0.1:{port}")
    assert error.reason == "target-answer-malformed"


@pytest.mark.parametrize("make", [webhook, http, airflow])
async def test_a_certificate_that_nobody_trusts_is_said(make: Make, tls_port: int) -> None:
    error = await fails(make, f"https://localhost:{tls_port}")
    assert error.reason == "target-tls"
    assert "certificate" in error.message
