"""Secrets in files, rotated and revoked while webhooks come: both platforms, a real receiver."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import io
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from consumer.download import Downloader
from consumer.gather import Gatherer
from consumer.limits import Failures
from consumer.listener import Listener
from consumer.live_secrets import LiveSecret, LiveSecrets
from consumer.model import LaneSpec
from consumer.platforms.labelbox import Labelbox
from consumer.platforms.redbrick import RedBrick
from consumer.receive import Receiver
from consumer.settings_values import Secret
from consumer.signature import hmac_matches, token_matches
from consumer.telemetry import Metrics, configure_logging, learn_secret, logger
from tests.fakes_clock import FakeClock
from tests.fakes_queue import FakeQueue

REVOKED_S = 1.0
BODY = b'{"data_row": {"id": "r"}, "project": {"id": "p"}, "payload": []}'
OLD, NEW = "old-secret-0001", "new-secret-0002"


@dataclass
class House:
    """A receiver whose secrets are two files."""

    port: int
    old: Path
    new: Path
    http: aiohttp.ClientSession

    async def status(self, source: str, secret: str) -> int:
        headers, query = {}, ""
        if source == "labelbox":
            made = hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest()
            headers = {"X-Hub-Signature-256": f"sha256={made}"}
        else:
            query = f"?token={secret}"
        url = f"http://127.0.0.1:{self.port}/hooks/{source}{query}"
        async with self.http.post(url, data=BODY, headers=headers) as answer:
            return answer.status

    async def until(self, source: str, secret: str, status: int) -> float:
        """Seconds until a request with this secret is answered so."""
        began = time.monotonic()
        async with asyncio.timeout(10):
            while await self.status(source, secret) != status:
                await asyncio.sleep(0.01)
        return time.monotonic() - began


def put_in_place(path: Path, text: str) -> None:
    """As secret managers do: whoever reads meanwhile finds the old file or the new one."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)


@contextlib.asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    old, new = folder / "old", folder / "new"
    old.write_text(OLD)
    new.write_text(NEW)
    references = [Secret(f"file:{old}", OLD), Secret(f"file:{new}", NEW)]
    live = LiveSecrets([LiveSecret(one, learn_secret) for one in references])
    fetch = Downloader(hosts=frozenset(), max_bytes=1, max_file_bytes=1, timeout_s=1)
    clock = FakeClock()
    labelbox = Labelbox(source="labelbox", secrets=live, api_key="k", downloader=fetch, clock=clock)
    redbrick = RedBrick(
        "redbrick", secrets=live, api_key="k", organization="o", downloader=fetch, clock=clock
    )
    queue = FakeQueue([LaneSpec(name="export", wants=("event",))])
    await queue.open()
    platforms = {"labelbox": labelbox, "redbrick": redbrick}
    made = Receiver(
        platforms, Gatherer(queue).put, Metrics(platforms), failures=Failures(10**6, 10**6)
    )
    listener = Listener(made.application(), header_timeout_s=5, stop_s=1)
    async with aiohttp.ClientSession() as http:
        yield House(await listener.start("127.0.0.1", 0), old, new, http)
    await listener.stop()
    for one in (labelbox, redbrick, fetch):
        await one.close()


@pytest.mark.parametrize("source", ["labelbox", "redbrick"])
@pytest.mark.parametrize("revoke", [Path.unlink, lambda path: put_in_place(path, "")])
async def test_an_old_secret_is_void_within_a_second_and_the_new_one_is_not(
    tmp_path: Path, source: str, revoke: Callable[[Path], None]
) -> None:
    async with house(tmp_path) as it:
        assert await it.status(source, OLD) == 202  # they overlap
        assert await it.status(source, NEW) == 202
        revoke(it.old)
        assert await it.until(source, OLD, 401) < REVOKED_S
        assert await it.status(source, NEW) == 202


@pytest.mark.parametrize("source", ["labelbox", "redbrick"])
async def test_without_any_live_secret_nothing_is_let_in(tmp_path: Path, source: str) -> None:
    async with house(tmp_path) as it:
        it.old.unlink()
        it.new.write_text("")
        await it.until(source, OLD, 401)
        await it.until(source, NEW, 401)
        assert await it.status(source, "") == 401
        it.new.write_text(NEW)
        assert await it.until(source, NEW, 202) < REVOKED_S


async def test_a_file_that_is_replaced_again_and_again_opens_no_door(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        it.new.unlink()
        for turn in range(60):
            if turn % 3 == 0:
                it.old.unlink(missing_ok=True)
            else:
                put_in_place(it.old, OLD if turn % 3 == 1 else "")
            assert await it.status("redbrick", "") == 401
            assert await it.status("labelbox", "") == 401
            assert await it.status("redbrick", "guess") == 401
            await asyncio.sleep(0.01)


async def test_a_new_secret_stands_in_no_log_line(tmp_path: Path) -> None:
    lines = io.StringIO()
    configure_logging(stream=lines)
    try:
        async with house(tmp_path) as it:
            put_in_place(it.old, "fresh-secret-0003")
            await it.until("redbrick", "fresh-secret-0003", 202)
            logger().warning("said", text="somebody repeats fresh-secret-0003 here")
    finally:
        configure_logging()
    assert "somebody repeats" in lines.getvalue()
    assert "fresh-secret-0003" not in lines.getvalue()
    assert f"file:{it.old}" in lines.getvalue()  # which of them changed, not into what


@pytest.mark.parametrize("given", ["", "x", "\ud800", "\u212a", "a" * 100_000])
def test_nothing_matches_where_no_secret_is_live(given: str) -> None:
    for secrets in ([], [b""], LiveSecrets([]), LiveSecrets([lambda: ""])):
        assert not token_matches(given, secrets)
        assert not hmac_matches(given, b"body", secrets, "sha256")


def test_every_live_secret_is_compared_whichever_matches() -> None:
    asked: list[str] = []

    def secret(text: str) -> Callable[[], str]:
        return lambda: (asked.append(text), text)[1]

    live = LiveSecrets([secret("one"), secret("two"), secret("three")])
    assert token_matches("one", live)
    assert token_matches("three", live)
    assert asked == ["one", "two", "three"] * 2
