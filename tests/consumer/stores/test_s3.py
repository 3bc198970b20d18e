"""What goes wrong with a bucket is named, and nothing is said that should not be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from consumer.errors import Conflict, Permanent, Transient
from consumer.stores import s3_errors
from consumer.stores.s3 import S3Store
from tests.fakes_clock import FakeClock
from tests.proxy_http import HttpProxy, Verdict
from tests.servers_s3 import (
    ACCESS_KEY,
    READER_KEY,
    READER_SECRET,
    SECRET_KEY,
    S3Server,
    free_ports,
    use_credentials,
)

Opens = Callable[..., S3Store]
Verb = Callable[[S3Store], Awaitable[object]]


async def _listed(store: S3Store) -> list[str]:
    return [item.key async for item in store.list("")]


VERBS: dict[str, Verb] = {
    "read": lambda store: store.read("a"),
    "create": lambda store: store.create("a", b"1"),
    "swap": lambda store: store.swap("a", b"1", if_match=None),
    "list": _listed,
    "delete": lambda store: store.delete("a"),
    "check": lambda store: store.check(),
}
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())


@pytest.fixture
def opens(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opens]:
    """Makes stores at a fresh prefix of the server's bucket, unless told otherwise."""
    use_credentials(monkeypatch)
    prefix = s3_server.new_prefix()
    opened: list[S3Store] = []

    def make(bucket: str = s3_server.bucket, **options: Any) -> S3Store:
        options = {"prefix": prefix, "endpoint": s3_server.endpoint, **options}
        opened.append(S3Store(bucket, **options))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
async def proxy(s3_server: S3Server) -> AsyncIterator[HttpProxy]:
    async with HttpProxy(s3_server.port) as proxy:
        yield proxy


async def failure(attempt: Awaitable[object]) -> Transient:
    with pytest.raises(Transient) as caught:
        await attempt
    error = caught.value
    assert error.shared
    for secret in (ACCESS_KEY, SECRET_KEY, READER_KEY, READER_SECRET, "wrong-secret"):
        assert secret not in str(error)
    return error


# What a person must mend


@every_verb
async def test_a_missing_bucket_is_named(opens: Opens, verb: Verb) -> None:
    error = await failure(verb(opens("not-there")))
    assert error.reason == "store-bucket-missing"
    assert "not-there" in error.message
    assert "create the bucket" in error.message


@every_verb
async def test_a_wrong_secret_is_named(
    opens: Opens, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_credentials(monkeypatch, secret="wrong-secret")
    error = await failure(verb(opens()))
    assert error.reason == "store-credentials"
    assert "AWS_SECRET_ACCESS_KEY" in error.message


@every_verb
async def test_credentials_that_nobody_gave_are_named(
    s3_server: S3Server, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_credentials(monkeypatch, key=None)
    error = await failure(verb(S3Store(s3_server.bucket, endpoint=s3_server.endpoint)))
    assert error.reason == "store-credentials"
    assert "there are no credentials" in error.message


@pytest.mark.parametrize(
    ("verb", "permission"),
    [("create", "s3:PutObject"), ("swap", "s3:PutObject"), ("delete", "s3:DeleteObject")],
)
async def test_a_denied_write_is_named_with_the_permission_it_needs(
    opens: Opens, verb: str, permission: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opens().create("a", b"1")
    use_credentials(monkeypatch, READER_KEY, READER_SECRET)
    reader = opens()
    assert await reader.read("a") is not None
    error = await failure(VERBS[verb](reader))
    assert error.reason == "store-denied"
    assert permission in error.message


@every_verb
async def test_an_endpoint_where_nobody_listens_is_named(opens: Opens, verb: Verb) -> None:
    error = await failure(verb(opens(endpoint=f"http://127.0.0.1:{free_ports(1)[0]}")))
    assert error.reason == "store-unreachable"


@pytest.mark.parametrize("endpoint", ["no url at all", "http://", "127.0.0.1:1"])
async def test_an_endpoint_that_is_none_is_named(opens: Opens, endpoint: str) -> None:
    error = await failure(opens(endpoint=endpoint).read("a"))
    assert error.reason == "store-refused"


async def test_a_bucket_name_that_is_none_is_named(opens: Opens) -> None:
    error = await failure(opens("Not A Bucket").read("a"))
    assert error.reason == "store-refused"


async def test_tls_where_there_is_none_is_named(opens: Opens, s3_server: S3Server) -> None:
    error = await failure(opens(endpoint=f"https://127.0.0.1:{s3_server.port}").read("a"))
    assert error.reason == "store-tls"


def test_making_a_store_asks_nobody() -> None:
    S3Store("bucket", endpoint="http://127.0.0.1:1").close()


async def test_check_passes_where_all_is_well_and_leaves_nothing(opens: Opens) -> None:
    store = opens()
    await store.check()
    assert await _listed(store) == []


# Slow and busy servers


@every_verb
async def test_a_server_that_stalls_is_given_up_in_time(
    opens: Opens, proxy: HttpProxy, verb: Verb
) -> None:
    for method in ("GET", "PUT", "DELETE"):
        proxy.plan(method, *[Verdict.STALL] * 9)
    started = time.monotonic()
    error = await failure(verb(opens(endpoint=proxy.endpoint, read_timeout_s=0.5)))
    assert error.reason == "store-timeout"
    assert time.monotonic() - started < 5


async def test_a_write_that_stalls_is_not_sent_a_second_time(
    opens: Opens, proxy: HttpProxy
) -> None:
    proxy.plan("PUT", *[Verdict.STALL] * 9)
    store = opens(endpoint=proxy.endpoint, read_timeout_s=0.5)
    assert (await failure(store.create("a", b"1"))).reason == "store-timeout"
    assert [method for method, _ in proxy.requests].count("PUT") == 1


async def test_the_event_loop_goes_on_while_a_server_stalls(opens: Opens, proxy: HttpProxy) -> None:
    """The stalled request is answered only after the loop has done other work."""
    proxy.plan("GET", Verdict.STALL)
    store = opens(endpoint=proxy.endpoint, read_timeout_s=1.0)
    stalled = asyncio.create_task(store.read("a"))
    await store.create("b", b"1")
    found = await store.read("b")
    assert found is not None
    assert not stalled.done()
    await failure(stalled)


async def test_a_request_that_takes_too_long_in_all_is_given_up(
    opens: Opens, proxy: HttpProxy
) -> None:
    proxy.plan("GET", Verdict.STALL)
    store = opens(endpoint=proxy.endpoint, read_timeout_s=2.0, deadline_s=0.3)
    assert (await failure(store.read("a"))).reason == "store-slow"


@pytest.mark.parametrize("verb", ["read", "create", "list", "delete"])
async def test_a_busy_server_is_asked_four_times_with_growing_waits(
    opens: Opens, proxy: HttpProxy, verb: str
) -> None:
    for method in ("GET", "PUT", "DELETE"):
        proxy.plan(method, *[Verdict.FAIL_BEFORE] * 99)
    clock = FakeClock()
    store = opens(endpoint=proxy.endpoint, sleep=clock.sleep, jitter=lambda: 0.5)
    error = await failure(VERBS[verb](store))
    assert error.reason == "store-busy"
    assert clock.slept[:3] == [0.05, 0.1, 0.2]
    assert len(proxy.requests) <= 5  # a create that fails reads, and that fails as well


async def test_what_a_busy_server_asks_to_wait_is_passed_on(opens: Opens, proxy: HttpProxy) -> None:
    proxy.plan("GET", *[Verdict.FAIL_BEFORE] * 9)
    error = await failure(opens(endpoint=proxy.endpoint, sleep=FakeClock().sleep).read("a"))
    assert error.after_s == 7


async def test_a_write_that_never_arrives_is_given_up_after_four_tries(
    opens: Opens, proxy: HttpProxy
) -> None:
    proxy.plan("PUT", *[Verdict.LOSE_REQUEST] * 99)
    clock = FakeClock()
    error = await failure(opens(endpoint=proxy.endpoint, sleep=clock.sleep).create("a", b"1"))
    assert error.reason == "store-disconnected"
    assert [method for method, _ in proxy.requests].count("PUT") == 4
    assert len(clock.slept) == 3


@pytest.mark.parametrize("jitter", [0.0, 0.999])
async def test_waits_are_jittered_by_half(opens: Opens, proxy: HttpProxy, jitter: float) -> None:
    proxy.plan("GET", Verdict.FAIL_BEFORE)
    clock = FakeClock()
    await opens(endpoint=proxy.endpoint, sleep=clock.sleep, jitter=lambda: jitter).read("a")
    assert clock.slept == [pytest.approx(0.05 * (0.5 + jitter))]


# What travels


async def test_a_body_damaged_on_its_way_is_refused_and_sent_again(
    opens: Opens, proxy: HttpProxy
) -> None:
    proxy.plan("PUT", Verdict.DAMAGE)
    store = opens(endpoint=proxy.endpoint, sleep=FakeClock().sleep)
    await store.create("a", b"ours")
    found = await store.read("a")
    assert found is not None
    assert found.data == b"ours"
    assert [method for method, _ in proxy.requests].count("PUT") == 2


async def test_an_object_damaged_on_its_way_is_noticed_and_read_again(
    opens: Opens, proxy: HttpProxy
) -> None:
    store = opens(endpoint=proxy.endpoint, sleep=FakeClock().sleep)
    await store.create("a", b"some bytes")
    proxy.plan("GET", Verdict.DAMAGE_ANSWER)
    found = await store.read("a")
    assert found is not None
    assert found.data == b"some bytes"
    assert [method for method, _ in proxy.requests].count("GET") == 2


async def test_a_swap_of_a_missing_object_is_a_conflict_as_aws_answers_it(
    opens: Opens, proxy: HttpProxy
) -> None:
    proxy.plan("PUT", Verdict.GONE)
    with pytest.raises(Conflict):
        await opens(endpoint=proxy.endpoint).swap("a", b"2", if_match='"0123"')


async def test_stores_with_different_prefixes_do_not_see_each_other(opens: Opens) -> None:
    one, other = opens(prefix="shared/one"), opens(prefix="/shared/one-more/")
    await one.create("a", b"1")
    await other.create("b", b"2")
    assert await _listed(one) == ["a"]
    assert await _listed(other) == ["b"]
    assert await one.read("b") is None


async def test_folder_markers_are_not_listed(opens: Opens, s3_server: S3Server) -> None:
    store = opens(prefix="marked")
    await store.create("folder/a", b"1")
    s3_server.client().put_object(Bucket=s3_server.bucket, Key="marked/folder/", Body=b"")
    assert await _listed(store) == ["folder/a"]


async def test_the_prefix_counts_towards_the_length_of_a_key(opens: Opens) -> None:
    store = opens(prefix="p" * 200)
    key = "/".join(["k" * 200] * 4)
    await store.create(key, b"1")
    with pytest.raises(Permanent) as caught:
        await store.create(f"{key}/{'k' * 100}", b"1")
    assert caught.value.reason == "key-too-long"


# The meaning of codes


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("NoSuchBucket", 404, "store-bucket-missing"),
        ("AccessDenied", 403, "store-denied"),
        ("AllAccessDisabled", 403, "store-denied"),
        ("InvalidAccessKeyId", 403, "store-credentials"),
        ("ExpiredToken", 400, "store-credentials"),
        ("RequestTimeTooSkewed", 403, "store-clock"),
        ("PermanentRedirect", 301, "store-region"),
        ("AuthorizationHeaderMalformed", 400, "store-region"),
        ("BadDigest", 400, "store-torn"),
        ("SlowDown", 503, "store-busy"),
        ("429", 429, "store-busy"),
        ("InternalError", 500, "store-failed"),
        ("RequestTimeout", 400, "store-failed"),
        ("502", 502, "store-failed"),
        ("NotImplemented", 501, "store-not-conditional"),
        ("MethodNotAllowed", 405, "store-refused"),
        ("<script>", 400, "store-refused"),
    ],
)
def test_a_code_has_one_reason(code: str, status: int, reason: str) -> None:
    error = s3_errors.explain(code, status, operation="PutObject", where="bucket lake")
    assert isinstance(error, Transient)
    assert error.reason == reason
    assert "<script>" not in error.message


@pytest.mark.parametrize(
    ("code", "reason"),
    [("KeyTooLongError", "key-too-long"), ("EntityTooLarge", "object-too-large")],
)
def test_what_can_never_work_is_permanent(code: str, reason: str) -> None:
    error = s3_errors.explain(code, 400, operation="PutObject", where="bucket lake")
    assert isinstance(error, Permanent)
    assert error.reason == reason
