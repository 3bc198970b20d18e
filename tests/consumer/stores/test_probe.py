"""``check`` finds a store that does not keep its promises."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from consumer.errors import Conflict, Transient
from consumer.ports import Listed, Stored
from consumer.stores.probe import probe
from tests.fakes_store import FakeStore


class Careless(FakeStore):
    """A server that does not look at conditions, as some do."""

    async def create(self, key: str, data: bytes) -> None:
        self.objects.pop(key, None)
        self._created.clear()
        await super().create(key, data)


class Forgetful(FakeStore):
    """Ignores ``If-Match`` only."""

    async def create(self, key: str, data: bytes) -> None:
        if self.objects.get(key, data) != data:
            raise Conflict(key)
        self._put(key, data)

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        now = await self.read(key)
        return await super().swap(key, data, if_match=now.etag if now else None)


class Late(Forgetful):
    """Lists nothing yet, and compares as it should."""

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        return await FakeStore.swap(self, key, data, if_match=if_match)

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        nothing: list[Listed] = []
        for item in nothing:
            yield item


class Blind(Forgetful):
    """Reads nothing yet."""

    async def read(self, key: str) -> Stored | None:
        return None


@pytest.mark.parametrize(
    ("store", "reason", "word"),
    [
        (Careless(), "store-not-conditional", "If-None-Match"),
        (Forgetful(), "store-not-conditional", "If-Match"),
        (Late(), "store-stale", "listed"),
        (Blind(), "store-stale", "read"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_store_that_breaks_a_promise_is_named(
    store: FakeStore, reason: str, word: str
) -> None:
    with pytest.raises(Transient) as caught:
        await probe(store)
    assert caught.value.reason == reason
    assert word in caught.value.message
    assert store.objects == {}
