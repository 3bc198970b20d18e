"""Where the suites of the store's port keep their objects: a folder, a real bucket, the fake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from consumer.ports import Store
from consumer.stores.directory import DirectoryStore
from consumer.stores.s3 import S3Store
from tests.fakes_store import FakeStore
from tests.servers_s3 import S3Server, use_credentials


class Place:
    """Somewhere to keep objects; each ``open`` is another store at the same place."""

    def __init__(self, make: Callable[..., Store], where: dict[str, str] | None = None) -> None:
        self._make = make
        self._where = where
        self._opened: list[Store] = []

    def open(self, **options: int) -> Store:
        self._opened.append(self._make(**options))
        return self._opened[-1]

    def close(self) -> None:
        for store in self._opened:
            if isinstance(store, DirectoryStore | S3Store):
                store.close()

    @property
    def spec(self) -> str:
        """For another process."""
        assert self._where is not None
        return json.dumps(self._where)


def _bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Place:
    use_credentials(monkeypatch)
    where = {"bucket": server.bucket, "prefix": server.new_prefix(), "endpoint": server.endpoint}

    def make(**options: int) -> Store:
        at = {"endpoint": where["endpoint"]}
        return S3Store(where["bucket"], where["prefix"], **at, **options)  # type: ignore[arg-type]

    return Place(make, where)


def _folder(path: Path) -> Place:
    def make(**options: int) -> Store:
        return DirectoryStore(path, **options)  # type: ignore[arg-type]

    return Place(make, {"path": str(path)})


def _memory() -> Place:
    fake = FakeStore(may_recur=lambda key: key.startswith("copies/"))
    return Place(lambda **_: fake)


def place_of(request: pytest.FixtureRequest) -> Place:
    if request.param == "fake":
        return _memory()
    if request.param == "directory":
        return _folder(request.getfixturevalue("tmp_path") / "lake")
    monkeypatch = request.getfixturevalue("monkeypatch")
    return _bucket(request.getfixturevalue("s3_server"), monkeypatch)
