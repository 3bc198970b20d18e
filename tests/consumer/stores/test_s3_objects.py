"""Images in buckets: only below what the operator named, complete, and with errors that help."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import Permanent, Refused, Transient
from consumer.stores import s3_objects
from consumer.stores.s3_objects import S3Objects
from tests.servers_s3 import S3Server, free_ports, use_credentials

DATA = hashlib.shake_128(b"slice").digest(100_000)

Opens = Callable[..., S3Objects]


@pytest.fixture
def root(s3_server: S3Server) -> str:
    """A prefix of the server's bucket that is this test's own, as a URL."""
    return f"s3://{s3_server.bucket}/{s3_server.new_prefix()}"


@pytest.fixture
def opens(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opens]:
    use_credentials(monkeypatch)
    opened: list[S3Objects] = []

    def make(*prefixes: str, **options: Any) -> S3Objects:
        options = {"endpoint": s3_server.endpoint, **options}
        opened.append(S3Objects(prefixes, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def put(server: S3Server, url: str, data: bytes = DATA) -> None:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    server.client().put_object(Bucket=bucket, Key=key, Body=data)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_prefix_is_listed_in_order_of_its_keys(
    s3_server: S3Server, root: str, opens: Opens
) -> None:
    for name in ("b/2.dcm", "b/10.dcm", "b/1.dcm", "b/deep/er.dcm", "b2/x.dcm"):
        put(s3_server, f"{root}/{name}", name.encode())
    put(s3_server, f"{root}/b/", b"")
    found = await opens(root).list(f"{root}/b/")
    names = ["b/1.dcm", "b/10.dcm", "b/2.dcm", "b/deep/er.dcm"]
    assert found == [(f"{root}/{name}", len(name)) for name in names]


async def test_a_listing_goes_past_a_page_and_not_past_its_limit(
    s3_server: S3Server, root: str, opens: Opens
) -> None:
    for number in range(12):
        put(s3_server, f"{root}/{number:02}.dcm", b"")
    objects = opens(root, page_size=5, max_files=12)
    assert len(await objects.list(f"{root}/")) == 12
    with pytest.raises(Permanent) as caught:
        await opens(root, page_size=5, max_files=11).list(f"{root}/")
    assert caught.value.reason == "images-too-many"
    assert s3_objects.MAX_FILES == 20_000


async def test_an_object_is_saved_with_its_hash_and_size(
    s3_server: S3Server, root: str, opens: Opens, tmp_path: Path
) -> None:
    put(s3_server, f"{root}/study 7/ä+b.dcm")
    objects = opens(root)
    found = await objects.save(f"{root}/study 7/ä+b.dcm", tmp_path / "0", len(DATA))
    assert found == (hashlib.sha256(DATA).hexdigest(), len(DATA))
    assert (tmp_path / "0").read_bytes() == DATA


async def test_an_object_over_the_limit_is_not_kept(
    s3_server: S3Server, root: str, opens: Opens, tmp_path: Path
) -> None:
    put(s3_server, f"{root}/a.dcm")
    with pytest.raises(Permanent) as caught:
        await opens(root).save(f"{root}/a.dcm", tmp_path / "0", len(DATA) - 1)
    assert caught.value.reason == "images-too-large"
    assert names_in(tmp_path) == []


async def test_an_object_that_is_not_there_may_come(
    root: str, opens: Opens, tmp_path: Path
) -> None:
    with pytest.raises(Transient) as caught:
        await opens(root).save(f"{root}/a.dcm", tmp_path / "0", 10)
    assert caught.value.reason == "images-missing"
    assert "a.dcm" not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "s3://lake/allowed-not/a.dcm",
        "s3://lake/allowed../a.dcm",
        "s3://lake/a.dcm",
        "s3://lake/",
        "s3://lake",
        "s3://other/allowed/a.dcm",
        "s3://lake.other/allowed/a.dcm",
        "s3://lake/Allowed/a.dcm",
        "s3://lake//allowed/a.dcm",
        "s3://lake/allowed/../secret/a.dcm",
        "s3://lake/allowed/./a.dcm",
        "s3://lake/allowed//a.dcm",
        "s3://lake/allowed/a\n.dcm",
        "s3://lake/allowed/\ud800",
        "s3://lake/allowed/" + "a" * 1024,
        "s3:///allowed/a.dcm",
        "s3://LAKE/allowed/a.dcm",
        "s3://user@lake/allowed/a.dcm",
        "S3://lake/allowed/a.dcm",
        "https://lake/allowed/a.dcm",
        "",
    ],
)
async def test_nothing_is_read_but_what_lies_below_the_prefixes(
    opens: Opens, tmp_path: Path, url: str
) -> None:
    """The endpoint is nobody's: a request would be another error."""
    objects = opens("s3://lake/allowed", endpoint=f"http://127.0.0.1:{free_ports(1)[0]}")
    for call in (objects.list(f"{url}/x/"), objects.save(url, tmp_path / "0", 10)):
        with pytest.raises(Refused) as caught:
            await call
        assert caught.value.reason == "images-unreachable"
        assert "secret" not in caught.value.message


async def test_without_prefixes_nothing_is_read(opens: Opens, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        await opens().save("s3://lake/a.dcm", tmp_path / "0", 10)


@pytest.mark.parametrize(
    "prefix", ["lake/a", "https://lake/", "s3://", "s3://lake/../a", "s3://L/"]
)
def test_a_prefix_that_is_none_is_said_at_once(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        S3Objects([prefix])


async def test_a_bucket_that_is_not_there_is_one_tasks_own_failure(
    opens: Opens, tmp_path: Path
) -> None:
    objects = opens("s3://not-there")
    for call in (objects.list("s3://not-there/a/"), objects.save("s3://not-there/a", tmp_path, 1)):
        with pytest.raises(Transient) as caught:
            await call
        assert caught.value.reason == "store-bucket-missing"
        assert not caught.value.shared
        assert "image_prefixes" in caught.value.message
        assert "`lake`" not in caught.value.message
