"""Files on their way into a bucket and out of it, while requests and answers get lost."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from consumer.errors import Conflict, Transient
from consumer.stores.s3 import S3Store
from tests.contracts.files import (
    IN_PARTS,
    PART,
    PIECE,
    bytes_of,
    data_of,
    file_of,
    keys_of,
    names_in,
    pending,
    until,
)
from tests.proxy_http import HttpProxy, Verdict
from tests.servers_s3 import S3Server, use_credentials


@pytest.fixture
async def lossy(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[S3Store, HttpProxy]]:
    """A bucket behind a proxy that loses answers; files over 5 MiB go in parts."""
    use_credentials(monkeypatch)

    async def at_once(_: float) -> None:
        return None

    async with HttpProxy(s3_server.port) as proxy:
        store = S3Store(
            s3_server.bucket,
            s3_server.new_prefix(),
            endpoint=proxy.endpoint,
            read_timeout_s=6.0,
            single_bytes=PART,
            part_bytes=PART,
            piece_bytes=PIECE,
            sleep=at_once,
        )
        yield store, proxy
        store.close()


EFFECT = [Verdict.LOSE_ANSWER, Verdict.FAIL_AFTER, Verdict.BUSY_AFTER, Verdict.STALL_AFTER]
NO_EFFECT = [Verdict.LOSE_REQUEST, Verdict.FAIL_BEFORE, Verdict.RACE]


def asked(proxy: HttpProxy, method: str) -> int:
    return [one for one, _ in proxy.requests].count(method)


@pytest.mark.parametrize("verdict", [*EFFECT, *NO_EFFECT, Verdict.DAMAGE])
async def test_a_small_upload_whose_answer_or_request_was_lost_succeeds(
    lossy: tuple[S3Store, HttpProxy], tmp_path: Path, verdict: Verdict
) -> None:
    store, proxy = lossy
    proxy.plan("PUT", verdict)
    await store.upload("a", file_of(tmp_path, b"ours"))
    assert await data_of(store, "a") == b"ours"
    assert asked(proxy, "PUT") == (1 if verdict in EFFECT else 2)


@pytest.mark.parametrize("verdict", [*EFFECT, *NO_EFFECT])
async def test_a_join_whose_answer_or_request_was_lost_succeeds(
    lossy: tuple[S3Store, HttpProxy], s3_server: S3Server, tmp_path: Path, verdict: Verdict
) -> None:
    store, proxy = lossy
    proxy.plan("POST", Verdict.PASS, verdict)
    await store.upload("a", file_of(tmp_path, bytes_of(IN_PARTS)))
    assert await data_of(store, "a") == bytes_of(IN_PARTS)
    assert asked(proxy, "POST") == (2 if verdict in EFFECT else 3)
    assert pending(s3_server) == []


@pytest.mark.parametrize("verdict", [*EFFECT, *NO_EFFECT[:2], Verdict.DAMAGE])
async def test_a_part_whose_answer_or_request_was_lost_is_sent_again(
    lossy: tuple[S3Store, HttpProxy], s3_server: S3Server, tmp_path: Path, verdict: Verdict
) -> None:
    store, proxy = lossy
    proxy.plan("PUT", Verdict.PASS, verdict)
    await store.upload("a", file_of(tmp_path, bytes_of(IN_PARTS)))
    assert await data_of(store, "a") == bytes_of(IN_PARTS)
    assert asked(proxy, "PUT") == 4
    assert pending(s3_server) == []


@pytest.mark.parametrize("verdict", EFFECT)
async def test_a_join_that_met_another_object_is_a_conflict_whatever_got_lost(
    lossy: tuple[S3Store, HttpProxy], s3_server: S3Server, tmp_path: Path, verdict: Verdict
) -> None:
    """The other one appears while our first part is on its way."""
    store, proxy = lossy
    proxy.plan("POST", Verdict.PASS, verdict)
    proxy.plan("PUT", Verdict.STALL)
    upload = asyncio.create_task(store.upload("a", file_of(tmp_path, bytes_of(IN_PARTS))))
    await until(lambda: asked(proxy, "PUT") > 0)
    intrude = partial(s3_server.client().put_object, Bucket=s3_server.bucket, Body=b"theirs")
    (place,) = pending(s3_server)
    await asyncio.to_thread(lambda: intrude(Key=place))
    with pytest.raises(Conflict):
        await upload
    assert await data_of(store, "a") == b"theirs"
    assert pending(s3_server) == []


async def test_an_object_that_a_racing_join_replaced_is_noticed(
    lossy: tuple[S3Store, HttpProxy],
    s3_server: S3Server,
    tmp_path: Path,
) -> None:
    """As where joins at the very same moment both succeed: the other one's object is there when
    ours is looked at, at the second try."""
    _, proxy = lossy
    proxy.plan("HEAD", Verdict.FAIL_BEFORE)
    prefix = s3_server.new_prefix()

    async def intrude(_: float) -> None:
        put = partial(s3_server.client().put_object, Bucket=s3_server.bucket, Body=b"theirs")
        await asyncio.to_thread(lambda: put(Key=f"{prefix}/a"))

    store = S3Store(
        s3_server.bucket,
        prefix,
        endpoint=proxy.endpoint,
        single_bytes=PART,
        part_bytes=PART,
        sleep=intrude,
    )
    with pytest.raises(Conflict):
        await store.upload("a", file_of(tmp_path, bytes_of(PART + 1)))
    store.close()


async def test_an_upload_that_is_torn_leaves_nothing(
    lossy: tuple[S3Store, HttpProxy], s3_server: S3Server, tmp_path: Path
) -> None:
    store, proxy = lossy
    proxy.plan("PUT", Verdict.PASS, *[Verdict.LOSE_REQUEST] * 99)
    with pytest.raises(Transient) as caught:
        await store.upload("a", file_of(tmp_path, bytes_of(IN_PARTS)))
    assert caught.value.reason == "store-disconnected"
    assert asked(proxy, "DELETE") == 1
    assert await keys_of(store) == []
    assert pending(s3_server) == []
    proxy.plan("PUT")
    await store.upload("a", file_of(tmp_path, bytes_of(IN_PARTS)))
    assert await data_of(store, "a") == bytes_of(IN_PARTS)


async def test_nobody_sees_a_part(
    lossy: tuple[S3Store, HttpProxy], s3_server: S3Server, tmp_path: Path
) -> None:
    """While the last part is on its way, the others are there and the object is not."""
    store, proxy = lossy
    proxy.plan("PUT", Verdict.PASS, Verdict.PASS, Verdict.STALL)
    upload = asyncio.create_task(store.upload("a", file_of(tmp_path, bytes_of(IN_PARTS))))
    await until(lambda: asked(proxy, "PUT") >= 3)
    assert await store.read("a") is None
    assert await keys_of(store) == []
    await upload
    assert await data_of(store, "a") == bytes_of(IN_PARTS)


async def test_a_cancelled_upload_is_aborted(
    lossy: tuple[S3Store, HttpProxy], s3_server: S3Server, tmp_path: Path
) -> None:
    store, proxy = lossy
    proxy.plan("PUT", *[Verdict.STALL] * 9)
    upload = asyncio.create_task(store.upload("a", file_of(tmp_path, bytes_of(IN_PARTS))))
    await until(lambda: asked(proxy, "PUT") > 0)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert pending(s3_server) == []


@pytest.mark.parametrize("verdict", [Verdict.LOSE_ANSWER, Verdict.FAIL_BEFORE, Verdict.CUT_ANSWER])
async def test_a_piece_whose_answer_was_lost_is_asked_again(
    lossy: tuple[S3Store, HttpProxy], tmp_path: Path, verdict: Verdict
) -> None:
    store, proxy = lossy
    data = bytes_of(2 * PIECE + 5)
    await store.create("a", data)
    proxy.plan("GET", Verdict.PASS, verdict)
    digest = await store.download("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == data
    assert digest == hashlib.sha256(data).hexdigest()
    assert asked(proxy, "GET") == 4


async def test_a_download_that_breaks_off_leaves_the_file_as_it_was(
    lossy: tuple[S3Store, HttpProxy], tmp_path: Path
) -> None:
    store, proxy = lossy
    await store.create("a", bytes_of(PIECE + 100))
    to = tmp_path / "to"
    to.mkdir()
    old = file_of(to, b"old")
    proxy.plan("GET", Verdict.PASS, *[Verdict.CUT_ANSWER] * 9)
    with pytest.raises(Transient):
        await store.download("a", old)
    assert names_in(to) == [old.name]
    assert old.read_bytes() == b"old"
