"""A data row's images on this machine's disk, from wherever the row says that they are."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from consumer.demo.labelbox import SimulatedLabelbox
from consumer.demo.labelbox_images import zipped
from consumer.demo.phantom import Phantom, ct_series
from consumer.download import Downloader
from consumer.errors import GroundwireError, Permanent, Refused, Transient
from consumer.model import Image, Series, TaskKey, TaskSnapshot
from consumer.platforms import archives, labelbox_images
from consumer.platforms.labelbox import Labelbox
from consumer.ports import SavedImage
from tests.loopback import LOOPBACK

SLICES = {f"IM{number:03}.dcm": bytes([number]) * 1000 for number in range(12)}
TASK = TaskSnapshot(
    source="lb", project="p", task="crow7", name="study 7/a", stage=None, ground_truth=False
)


@dataclass
class Storage:
    """A customer's storage: files by their path; ``most`` is how many were asked for at once."""

    files: dict[str, bytes] = field(default_factory=dict)
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    open: int = 0
    most: int = 0
    server: TestServer | None = None

    def url(self, path: str) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.port}/{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers.get("Authorization"))
        self.paths.append(request.raw_path)
        self.open += 1
        self.most = max(self.most, self.open)
        for _ in range(20):  # others may come meanwhile
            await asyncio.sleep(0)
        self.open -= 1
        data = self.files.get(request.match_info["path"])
        return web.Response(status=404) if data is None else web.Response(body=data)


@pytest_asyncio.fixture
async def storage() -> AsyncIterator[Storage]:
    made, app = Storage(), web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    made.server = TestServer(app)
    await made.server.start_server()
    yield made
    await made.server.close()


class Buckets:
    """``ImageObjects`` in memory, with one bucket of which everything may be read."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = {f"s3://b/{key}": data for key, data in objects.items()}
        self.asked: list[str] = []

    async def list(self, url: str) -> list[tuple[str, int]]:
        self.asked.append(url)
        found = [key for key in self.objects if key.startswith(url)]
        return [(key, len(self.objects[key])) for key in sorted(found)]

    async def save(self, url: str, path: Path, max_bytes: int) -> tuple[str, int]:
        self.asked.append(url)
        data = self.objects[url]
        assert len(data) <= max_bytes
        write(path, data)
        return hashlib.sha256(data).hexdigest(), len(data)


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


Make = Callable[..., Labelbox]


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    opened: list[Any] = []

    def one(**given: Any) -> Labelbox:
        downloader = Downloader(stall_s=5, networks=LOOPBACK)
        platform = Labelbox(
            source="lb",
            secrets=[b"s"],
            api_key=given.pop("api_key", "key"),
            downloader=downloader,
            clock=lambda: datetime.now(UTC),
            api_url=given.pop("api_url", "http://127.0.0.1:1/graphql"),
            **given,
        )
        opened.extend([platform, downloader])
        return platform

    yield one
    for closable in opened:
        await closable.close()


def series_at(*references: str) -> Series:
    return Series(name=None, images=tuple(Image(reference=one, name="x") for one in references))


def content(saved: list[SavedImage]) -> list[tuple[str, bytes]]:
    """Names and bytes, after what is told of each was found to be true."""
    found = []
    for one in saved:
        data = one.path.read_bytes()
        assert (one.sha256, one.size) == (hashlib.sha256(data).hexdigest(), len(data))
        found.append((one.name, data))
    return found


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def failure(platform: Labelbox, series: Series, folder: Path) -> GroundwireError:
    with pytest.raises((Transient, Permanent)) as caught:
        await platform.save_images(TASK, series, folder)
    return caught.value


def archive(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """As given, in this order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return buffer.getvalue()


# One file, an archive, a list


async def test_one_file_is_saved_under_a_number_and_named_by_its_url(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    storage.files = {"studies/a b.dcm": SLICES["IM001.dcm"]}
    url = storage.url("studies/a%20b.dcm?X-Signature=secret")
    saved = await make().save_images(TASK, series_at(url), tmp_path)
    assert content(saved) == [("a b.dcm", SLICES["IM001.dcm"])]
    assert files_in(tmp_path) == ["000000"]


async def test_an_archive_is_unpacked_in_order_of_its_names_whatever_it_is_called(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    shuffled = dict(sorted(SLICES.items(), key=lambda one: hashlib.sha256(one[1]).digest()))
    storage.files = {"series": archive({"CT/": b"", **{f"CT/{k}": v for k, v in shuffled.items()}})}
    saved = await make().save_images(TASK, series_at(storage.url("series")), tmp_path)
    assert content(saved) == list(SLICES.items())
    assert files_in(tmp_path) == [f"000000-{number:06d}" for number in range(12)]


@pytest.mark.parametrize("path", ["series.json", "series?list=1"])
async def test_a_list_of_urls_is_followed_in_its_order(
    make: Make, storage: Storage, tmp_path: Path, path: str
) -> None:
    names = sorted(SLICES, reverse=True)
    listed = json.dumps([storage.url(name) for name in names]).encode()
    storage.files = {**SLICES, "series.json": listed, "series": b"\n " + listed}
    saved = await make().save_images(TASK, series_at(storage.url(path)), tmp_path)
    assert content(saved) == [(name, SLICES[name]) for name in names]
    assert storage.most == 4


async def test_several_references_follow_each_other(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    storage.files = {"a.dcm": b"a", "b.zip": archive({"1": b"1", "2": b"2"}), "c.dcm": b"c"}
    series = series_at(*(storage.url(name) for name in storage.files))
    saved = await make().save_images(TASK, series, tmp_path)
    assert content(saved) == [("a.dcm", b"a"), ("1", b"1"), ("2", b"2"), ("c.dcm", b"c")]


async def test_what_begins_like_a_list_and_is_none_is_an_image(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    storage.files = {"a": b"[not a list", "b": b'[1, "x"]', "c": b'{"a": 1}'}
    series = series_at(*(storage.url(name) for name in storage.files))
    assert [data for _, data in content(await make().save_images(TASK, series, tmp_path))] == [
        *storage.files.values()
    ]


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"[" * 100_000, b"\xff\xfe", b'["a"'])
async def test_a_json_file_that_is_no_list_is_refused(
    make: Make, storage: Storage, tmp_path: Path, data: bytes
) -> None:
    storage.files = {"series.json": data}
    error = await failure(make(), series_at(storage.url("series.json")), tmp_path)
    assert isinstance(error, Refused)
    assert error.reason == "images-list-unreadable"


async def test_a_list_within_a_list_is_refused(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    storage.files["outer.json"] = json.dumps([storage.url("inner.json")]).encode()
    storage.files["inner.json"] = json.dumps([storage.url("a.dcm")]).encode()
    error = await failure(make(), series_at(storage.url("outer.json")), tmp_path)
    assert (type(error), error.reason) == (Refused, "images-nested")
    assert "/a.dcm" not in storage.paths


async def test_a_series_without_images_is_refused(make: Make, tmp_path: Path) -> None:
    error = await failure(make(), series_at(), tmp_path)
    assert (type(error), error.reason) == (Refused, "images-unknown")


async def test_an_image_that_is_not_there_may_come(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    error = await failure(make(), series_at(storage.url("gone.dcm")), tmp_path)
    assert (type(error), error.reason) == (Transient, "download-missing")


# Buckets


async def test_a_prefix_gives_what_lies_below_it(make: Make, tmp_path: Path) -> None:
    objects = Buckets(**{f"study/{name}": data for name, data in SLICES.items()}, other=b"x")
    saved = await make(objects=objects).save_images(TASK, series_at("s3://b/study/"), tmp_path)
    assert content(saved) == list(SLICES.items())


async def test_an_object_may_be_an_archive_or_a_list(make: Make, tmp_path: Path) -> None:
    listed = json.dumps(["s3://b/a.dcm"]).encode()
    objects = Buckets(**{"a.zip": archive({"1": b"1"}), "l.json": listed, "a.dcm": b"a"})
    series = series_at("s3://b/a.zip", "s3://b/l.json")
    saved = await make(objects=objects).save_images(TASK, series, tmp_path)
    assert content(saved) == [("1", b"1"), ("a.dcm", b"a")]


async def test_a_list_names_no_prefix(make: Make, tmp_path: Path) -> None:
    objects = Buckets(**{"l.json": b'["s3://b/study/"]', "study/a.dcm": b"a"})
    error = await failure(make(objects=objects), series_at("s3://b/l.json"), tmp_path)
    assert (type(error), error.reason) == (Refused, "images-nested")
    assert objects.asked == ["s3://b/l.json"]


async def test_an_empty_prefix_is_refused(make: Make, tmp_path: Path) -> None:
    error = await failure(make(objects=Buckets()), series_at("s3://b/study/"), tmp_path)
    assert (type(error), error.reason) == (Refused, "images-missing")


@pytest.mark.parametrize("reference", ["s3://b/a.dcm", "s3://b/study/"])
async def test_without_named_buckets_none_is_read(
    make: Make, tmp_path: Path, reference: str
) -> None:
    error = await failure(make(), series_at(reference), tmp_path)
    assert (type(error), error.reason) == (Refused, "images-unreachable")
    assert "image_prefixes" in error.message


# Where images cannot be


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("gs://bucket/patient-doe/a.dcm", "https://"),
        ("azure://x/patient-doe", "azure:"),
        ("file:///etc/patient-doe", "file:"),
        ("FTP://patient-doe/", "ftp:"),
        ("/mnt/patient-doe.dcm", "no URL"),
        ("patient-doe", "no URL"),
        ("", "no URL"),
        ("x" * 30 + ":patient-doe", "no URL"),
    ],
)
async def test_another_scheme_is_refused_and_only_the_scheme_is_told(
    make: Make, tmp_path: Path, reference: str, said: str
) -> None:
    error = await failure(make(objects=Buckets()), series_at(reference), tmp_path)
    assert (type(error), error.reason) == (Refused, "images-unreachable")
    assert said in error.message
    assert "doe" not in error.message


# The key


async def test_the_key_goes_to_the_apis_own_origin_only(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    storage.files = {"a.dcm": b"a"}
    series = series_at(storage.url("a.dcm"))
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    await make(api_url=storage.url("graphql")).save_images(TASK, series, tmp_path / "1")
    await make().save_images(TASK, series, tmp_path / "2")
    assert storage.keys == ["Bearer key", None]


# Limits


@pytest.mark.parametrize("number", [1, 3])
async def test_a_series_over_its_limit_is_not_fetched(
    make: Make, storage: Storage, tmp_path: Path, number: int
) -> None:
    storage.files = {str(each): b"x" * 1000 for each in range(number)}
    series = series_at(*(storage.url(name) for name in storage.files))
    assert len(await make(max_image_bytes=1000 * number).save_images(TASK, series, tmp_path)) > 0
    (tmp_path / "again").mkdir()
    error = await failure(make(max_image_bytes=1000 * number - 1), series, tmp_path / "again")
    assert isinstance(error, Permanent)
    assert error.reason in ("images-too-large", "download-too-large")


async def test_a_prefix_over_the_limit_is_not_begun(make: Make, tmp_path: Path) -> None:
    objects = Buckets(**{f"s/{number}": b"x" * 100 for number in range(5)})
    platform = make(objects=objects, max_image_bytes=499)
    error = await failure(platform, series_at("s3://b/s/"), tmp_path)
    assert error.reason == "images-too-large"
    assert objects.asked == ["s3://b/s/"]


async def test_too_many_files_are_refused(make: Make, storage: Storage, tmp_path: Path) -> None:
    urls = [storage.url("a.dcm")] * (labelbox_images.MAX_FILES + 1)
    storage.files = {"series.json": json.dumps(urls).encode()}
    error = await failure(make(), series_at(storage.url("series.json")), tmp_path)
    assert (type(error), error.reason) == (Permanent, "images-too-many")
    assert len(storage.paths) == 1


# What archives hold


async def unpacked(
    make: Make, storage: Storage, folder: Path, data: bytes, **options: Any
) -> list[tuple[str, bytes]]:
    storage.files = {"a.zip": data}
    platform = make(**options)
    return content(await platform.save_images(TASK, series_at(storage.url("a.zip")), folder))


async def test_names_in_an_archive_lead_nowhere(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    names = ["../../evil.dcm", "/etc/evil.dcm", "a/../../../b.dcm", "C:\\x\\c.dcm", "..", "a\0b"]
    (tmp_path / "to").mkdir()
    found = await unpacked(
        make, storage, tmp_path / "to", archive({name: name.encode() for name in names})
    )
    assert len(found) == len(names)
    assert all("/" not in name and "\\" not in name for name, _ in found)
    assert files_in(tmp_path / "to") == [f"000000-{number:06d}" for number in range(len(names))]
    assert files_in(tmp_path) == ["to"]


async def test_folders_and_what_a_mac_adds_are_left_out(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    data = archive({"CT/": b"", "__MACOSX/CT/._a.dcm": b"fork", "CT/a.dcm": b"a"})
    assert await unpacked(make, storage, tmp_path, data) == [("a.dcm", b"a")]


async def test_names_that_are_equal_stay_two_files(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    data = archive({"1/a.dcm": b"1", "2/a.dcm": b"2"})
    assert await unpacked(make, storage, tmp_path, data) == [("a.dcm", b"1"), ("a.dcm", b"2")]


def flagged(data: bytes, flag: int) -> bytes:
    """The archive with a flag set at its first file, in both places that tell it."""
    raw = bytearray(data)
    raw[6] |= flag
    raw[data.index(b"PK\x01\x02") + 8] |= flag
    return bytes(raw)


def bomb(size: int) -> bytes:
    return archive({"a.dcm": bytes(size)})


HOSTILE = {
    "encrypted": (flagged(archive({"a": b"1"}), 0x1), "archive-encrypted"),
    "nested": (archive({"a.dcm": archive({"b": b"1"})}, zipfile.ZIP_STORED), "images-nested"),
    "bomb": (bomb(100 << 20), "archive-ratio"),
    "empty": (archive({}), "archive-empty"),
    "only folders": (archive({"a/": b"", "__MACOSX/b": b""}), "archive-empty"),
    "lzma": (archive({"a": b"1" * 100}, zipfile.ZIP_LZMA), "archive-unreadable"),
    "bzip2": (archive({"a": b"1" * 100}, zipfile.ZIP_BZIP2), "archive-unreadable"),
    "cut": (archive(SLICES)[:-30], "archive-unreadable"),
    "cut at its start": (archive(SLICES)[:50], "archive-unreadable"),
    "damaged": (archive({"a": b"x" * 50}, 0).replace(b"xxx", b"xyx", 1), "archive-unreadable"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_or_broken_archive_is_refused(
    make: Make, storage: Storage, tmp_path: Path, kind: str
) -> None:
    data, reason = HOSTILE[kind]
    storage.files = {"a.zip": data}
    error = await failure(make(), series_at(storage.url("a.zip")), tmp_path)
    assert (type(error), error.reason) == (Refused, reason)


async def test_an_archive_counts_with_what_it_holds(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    data = archive({"a": hashlib.shake_128(b"a").digest(3000)}, zipfile.ZIP_STORED)
    with pytest.raises(Permanent) as caught:
        await unpacked(make, storage, tmp_path, data, max_image_bytes=len(data) + 2999)
    assert caught.value.reason == "images-too-large"
    (tmp_path / "again").mkdir()
    room = len(data) + 3000
    assert await unpacked(make, storage, tmp_path / "again", data, max_image_bytes=room)


def test_a_directory_of_a_million_names_is_not_read(tmp_path: Path) -> None:
    """A small archive may say that its list of names is huge."""
    path = tmp_path / "a"
    data = bytearray(archive({"a": b"1"}) + bytes(archives.MAX_DIRECTORY_BYTES + 100))
    end = data.index(b"PK\x05\x06")
    tail = bytes(data[end : end + 22])
    grown = bytes(data[:end]) + bytes(archives.MAX_DIRECTORY_BYTES + 1)
    start = grown.index(b"PK\x01\x02")
    size = (len(grown) - start).to_bytes(4, "little")
    path.write_bytes(grown + tail[:12] + size + tail[16:])
    with pytest.raises(Refused) as caught:
        archives.unpack(path, labelbox_images.Budget(1 << 30))
    assert caught.value.reason == "archive-directory"


def test_an_archive_of_too_many_files_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(archive({str(n): b"" for n in range(labelbox_images.MAX_FILES + 1)}, 0))
    with pytest.raises(Permanent) as caught:
        archives.unpack(path, labelbox_images.Budget(1 << 30))
    assert caught.value.reason == "images-too-many"
    assert files_in(tmp_path) == ["a"]


# The template


@pytest.mark.parametrize(
    ("template", "asked"),
    [
        ("s3://b/studies/{task}/", "s3://b/studies/crow7/"),
        ("s3://b/studies/{name}/", "s3://b/studies/study 7%2Fa/"),
        ("s3://b/{task}-{name}.zip", "s3://b/crow7-study 7%2Fa.zip"),
    ],
)
async def test_a_template_replaces_what_the_row_says(
    make: Make, tmp_path: Path, template: str, asked: str
) -> None:
    key = asked.removeprefix("s3://b/")
    objects = Buckets(**{key + "a.dcm" if key.endswith("/") else key: b"a"})
    platform = make(objects=objects, images=template)
    saved = await platform.save_images(TASK, series_at("gs://elsewhere/"), tmp_path)
    assert [data for _, data in content(saved)] == [b"a"]
    assert objects.asked[0] == asked


async def test_a_template_of_a_url_is_quoted_in_full(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    storage.files = {"studies/study 7/a.zip": b"a"}
    platform = make(images=storage.url("studies/{name}.zip"))
    await platform.save_images(TASK, series_at(), tmp_path)
    assert storage.paths == ["/studies/study%207%2Fa.zip"]


@pytest.mark.parametrize("name", ["..", ".", "...", "", "a\nb", "x" * 501])
async def test_a_name_that_could_lead_elsewhere_is_refused(
    make: Make, tmp_path: Path, name: str
) -> None:
    task = TaskSnapshot(
        source="lb", project="p", task="t", name=name, stage=None, ground_truth=False
    )
    objects = Buckets()
    platform = make(objects=objects, images="s3://b/studies/{name}/")
    with pytest.raises(Refused) as caught:
        await platform.save_images(task, series_at(), tmp_path)
    assert caught.value.reason == "images-unreachable"
    assert objects.asked == []


@pytest.mark.parametrize(
    "template",
    ["s3://b/{label}/", "s3://b/{task!r}/", "s3://b/{}/", "s3://b/{task", "gs://b/{task}/",
     "{task}", "s3://{task}/", "https://{name}.example/a", "s3://b"],
)  # fmt: skip
def test_a_template_that_is_none_is_said_at_once(make: Make, template: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        make(images=template)


# From end to end


async def test_the_phantoms_series_comes_from_the_simulated_platform(
    make: Make, tmp_path: Path
) -> None:
    phantom = Phantom(shape=(16, 16, 5))
    slices = {f"IM{number}.dcm": data for number, data in enumerate(ct_series(phantom))}
    simulated = SimulatedLabelbox()
    row = simulated.create_row("k", images=slices)
    async with simulated.serve() as base:
        platform = make(api_url=f"{base}/graphql", api_key=simulated.api_key)
        key = TaskKey(source="lb", project=simulated.project_id, task=row)
        seen = (await platform.fetch([key]))[key]
        assert isinstance(seen, TaskSnapshot)
        series = series_at(seen.document["data_row"]["row_data"])
        saved = await platform.save_images(seen, series, tmp_path)
    assert content(saved) == list(slices.items())
    assert zipped(slices) == zipped(dict(reversed(slices.items())))
