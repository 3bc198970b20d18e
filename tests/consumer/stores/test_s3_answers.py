"""What an S3 server may say in mid-work, and a proxy in its place: each has its reason and its
sentence, nothing is followed elsewhere, and the next request works."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumer.errors import Transient
from consumer.stores.s3 import S3Store
from tests.contracts.files import PART
from tests.fakes_clock import FakeClock
from tests.proxy_http import HttpProxy, Verdict
from tests.servers_s3 import S3Server, use_credentials


@pytest.fixture
async def proxied(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[S3Store, HttpProxy]]:
    use_credentials(monkeypatch)
    async with HttpProxy(s3_server.port) as proxy:
        store = S3Store(
            s3_server.bucket,
            s3_server.new_prefix(),
            endpoint=proxy.endpoint,
            region="us-east-1",
            sleep=FakeClock().sleep,
        )
        yield store, proxy
        store.close()


@pytest.mark.parametrize(
    ("verdict", "reason", "sentence"),
    [
        (Verdict.SKEWED, "store-clock", "this machine's clock is too far off for the store"),
        (Verdict.DENIED, "store-denied", "allow the credentials s3:PutObject"),
        (Verdict.ELSEWHERE, "store-refused", "refused PutObject: TemporaryRedirect (status 307)"),
        (Verdict.MOVED, "store-region", "set AWS_REGION to the bucket's"),
    ],
)
async def test_what_a_person_must_mend_waits_and_then_goes_on(
    proxied: tuple[S3Store, HttpProxy], verdict: Verdict, reason: str, sentence: str
) -> None:
    store, proxy = proxied
    proxy.plan("PUT", *[verdict] * 9)
    with pytest.raises(Transient) as caught:
        await store.create("a", b"1")
    assert (caught.value.reason, caught.value.shared) == (reason, True)
    assert sentence in caught.value.message
    assert "elsewhere" not in caught.value.message
    proxy.plan("PUT")
    await store.create("a", b"1")
    found = await store.read("a")
    assert found is not None
    assert found.data == b"1"


@pytest.mark.parametrize("verdict", [Verdict.NONSENSE, Verdict.CUT_HALF, Verdict.CUT_ANSWER])
async def test_an_answer_that_nobody_understands_is_asked_for_again(
    proxied: tuple[S3Store, HttpProxy], verdict: Verdict
) -> None:
    store, proxy = proxied
    await store.create("a", bytes(10_000))
    for verb in ("read", "list"):
        proxy.plan("GET", verdict)
        if verb == "read":
            found = await store.read("a")
            assert found is not None
            assert found.data == bytes(10_000)
        else:
            assert [item.key async for item in store.list("")] == ["a"]


@pytest.mark.parametrize("verb", ["read", "missing", "create", "list"])
async def test_a_connection_that_is_reset_in_the_middle_of_an_answer_is_nobody_s_defect(
    proxied: tuple[S3Store, HttpProxy], verb: str
) -> None:
    """Also where the answer is a listing, or says that an object is or is not there."""
    store, proxy = proxied
    await store.create("a", bytes(10_000))

    async def asked() -> object:
        if verb == "list":
            return [item.key async for item in store.list("")]
        if verb == "create":
            return await store.create("a", bytes(10_000))
        found = await store.read("a" if verb == "read" else "b")
        return found and found.data

    expected = await asked()
    method = "PUT" if verb == "create" else "GET"
    proxy.plan(method, Verdict.BREAK_HALF)
    assert await asked() == expected
    proxy.plan(method, *[Verdict.BREAK_HALF] * 9)
    proxy.plan("GET", *[Verdict.BREAK_HALF] * 9)
    with pytest.raises(Transient) as caught:
        await asked()
    assert (caught.value.reason, caught.value.shared) == ("store-disconnected", True)


async def test_a_torn_upload_leaves_nothing_and_is_sent_again(
    proxied: tuple[S3Store, HttpProxy],
) -> None:
    """The connection breaks in the middle of the body."""
    store, proxy = proxied
    proxy.plan("PUT", *[Verdict.TEAR] * 9)
    with pytest.raises(Transient) as caught:
        await store.create("a", bytes(100_000))
    assert caught.value.reason == "store-disconnected"
    proxy.plan("PUT")
    assert await store.read("a") is None
    proxy.plan("PUT", Verdict.TEAR)
    await store.create("a", bytes(100_000))
    found = await store.read("a")
    assert found is not None
    assert found.data == bytes(100_000)


async def test_a_swap_that_is_refused_though_nobody_else_wrote_is_tried_again(
    proxied: tuple[S3Store, HttpProxy],
) -> None:
    """As when the answer to the first try got lost between a proxy and the server."""
    store, proxy = proxied
    tag = await store.swap("a", b"1", if_match=None)
    proxy.plan("PUT", Verdict.NOT_MET, Verdict.SLOW_DOWN, Verdict.RACE)
    tag = await store.swap("a", b"2", if_match=tag)
    proxy.plan("PUT", Verdict.NOT_MET)
    await store.swap("a", b"3", if_match=tag)
    found = await store.read("a")
    assert found is not None
    assert found.data == b"3"


async def test_a_wrong_tag_costs_a_conflict_and_never_an_object(
    proxied: tuple[S3Store, HttpProxy],
) -> None:
    store, proxy = proxied
    proxy.plan("PUT", Verdict.WRONG_TAG)
    wrong = await store.swap("a", b"1", if_match=None)
    found = await store.read("a")
    assert found is not None
    assert found.etag != wrong
    await store.swap("a", b"2", if_match=found.etag)


async def test_a_file_torn_in_the_middle_of_a_part_is_whole_in_the_end(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_credentials(monkeypatch)
    data = random.Random(1).randbytes(PART + 1000)
    (tmp_path / "file").write_bytes(data)
    async with HttpProxy(s3_server.port) as proxy:
        store = S3Store(
            s3_server.bucket,
            s3_server.new_prefix(),
            endpoint=proxy.endpoint,
            single_bytes=PART,
            part_bytes=PART,
            sleep=FakeClock().sleep,
        )
        proxy.plan("PUT", Verdict.TEAR, Verdict.TEAR)
        await store.upload("a", tmp_path / "file")
        found = await store.read("a")
        store.close()
    assert found is not None
    assert found.data == data
