"""The fake store catches what it is there to catch, and the faulty one fails where it is told."""

from __future__ import annotations

import pytest

from consumer.errors import Conflict, Transient
from tests.fakes_store import Call, FakeStore, Fault, FaultyStore, each_call_once


async def test_an_immutable_object_that_is_swapped_fails_the_test() -> None:
    store = FakeStore()
    await store.create("a", b"1")
    found = await store.read("a")
    assert found is not None
    with pytest.raises(AssertionError):
        await store.swap("a", b"2", if_match=found.etag)
    with pytest.raises(AssertionError):
        store.assert_sound()
    assert store.objects == {"a": b"1"}


async def test_an_object_that_is_deleted_and_made_with_other_bytes_fails_the_test() -> None:
    store = FakeStore()
    await store.create("a", b"1")
    await store.delete("a")
    await store.create("a", b"1")
    await store.delete("a")
    with pytest.raises(AssertionError):
        await store.create("a", b"2")


async def test_a_swapped_object_that_is_created_fails_the_test() -> None:
    store = FakeStore()
    await store.swap("a", b"1", if_match=None)
    with pytest.raises(AssertionError):
        await store.create("a", b"1")


async def test_swapped_bytes_that_recur_fail_the_test() -> None:
    store = FakeStore()
    first = await store.swap("a", b"1", if_match=None)
    second = await store.swap("a", b"2", if_match=first)
    with pytest.raises(AssertionError):
        await store.swap("a", b"1", if_match=second)


async def test_copies_may_go_back_where_a_test_says_so() -> None:
    store = FakeStore(may_recur=lambda key: key.startswith("mirror/"))
    first = await store.swap("mirror/a", b"1", if_match=None)
    second = await store.swap("mirror/a", b"2", if_match=first)
    await store.swap("mirror/a", b"1", if_match=second)
    store.assert_sound()


async def test_calls_and_conflicts_are_recorded_in_order() -> None:
    store = FakeStore()
    await store.create("a", b"1")
    with pytest.raises(Conflict):
        await store.create("a", b"2")
    await store.read("a")
    [_ async for _ in store.list("t/")]
    await store.delete("a")
    assert store.verbs() == [
        ("create", "a"),
        ("create", "a"),
        ("read", "a"),
        ("list", "t/"),
        ("delete", "a"),
    ]
    assert store.conflicts == [Call("create", "a", b"2")]
    store.assert_sound()


@pytest.mark.parametrize(("fault", "there"), [(Fault.BEFORE, False), (Fault.AFTER, True)])
async def test_a_call_fails_before_or_after_it_took_effect(fault: Fault, there: bool) -> None:
    inner = FakeStore()
    store = FaultyStore(inner, {2: fault})
    await store.create("a", b"1")
    with pytest.raises(Transient):
        await store.create("b", b"1")
    assert ("b" in inner.objects) is there
    assert store.failed == [("create", "b", fault)]
    await store.create("b", b"1")
    assert store.calls == 3


async def test_every_verb_counts_and_can_fail() -> None:
    async def once(store: FaultyStore) -> None:
        await store.create("a", b"1")
        await store.swap("b", b"1", if_match=None)
        await store.read("a")
        [_ async for _ in store.list("")]
        await store.delete("a")

    counted = FaultyStore(FakeStore(), {})
    await once(counted)
    failed = []
    for plan in each_call_once(counted.calls):
        store = FaultyStore(FakeStore(), plan)
        with pytest.raises(Transient):
            await once(store)
        failed += store.failed
    verbs = ("create", "swap", "read", "list", "delete")
    assert [(verb, fault) for verb, _, fault in failed] == [
        (verb, fault) for verb in verbs for fault in Fault
    ]


async def test_a_fault_can_be_a_crash() -> None:
    store = FaultyStore(FakeStore(), {1: Fault.AFTER}, error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        await store.create("a", b"1")
