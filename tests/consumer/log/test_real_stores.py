"""The log in a real folder and in a real bucket, with two writers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from consumer.log.verify import verify
from consumer.ports import Store
from consumer.stores.directory import DirectoryStore
from consumer.stores.s3 import S3Store
from tests.consumer.log.logs import SIGNER, entry, ids, numbered, writer
from tests.servers_s3 import S3Server, use_credentials


@pytest.fixture(params=["folder", "bucket"])
def open_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Store]]:
    """Each call is another store at the same place."""
    opened: list[DirectoryStore | S3Store] = []
    if request.param == "folder":

        def make() -> DirectoryStore | S3Store:
            return DirectoryStore(tmp_path / "lake")
    else:
        server: S3Server = request.getfixturevalue("s3_server")
        use_credentials(monkeypatch)
        prefix = server.new_prefix()

        def make() -> DirectoryStore | S3Store:
            return S3Store(server.bucket, prefix, endpoint=server.endpoint)

    def opening() -> Store:
        opened.append(make())
        return opened[-1]

    yield opening
    for store in opened:
        store.close()


async def test_two_writers_share_a_log_that_verifies(open_store: Callable[[], Store]) -> None:
    async def work(number: int) -> None:
        log = writer(open_store())
        for batch in range(6):
            shared = numbered(range(batch * 50, batch * 50 + 50))
            await log.append([*shared, entry(1_000 * number + batch)])
        await log.close()

    await asyncio.gather(work(1), work(2))
    store = open_store()
    found = await ids(store)
    assert len(found) == len(set(found)) == 312
    verified = await verify(store, vkey=SIGNER.verifier.vkey)
    assert verified.ok, verified.findings
    assert verified.unreferenced == ()
    assert (verified.size, verified.counts.entries) == (312, 312)
