"""The images of a RedBrick task: which they are, and how they come to this machine's disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumer.demo.phantom import Phantom, truth
from consumer.demo.redbrick import (
    Drawing,
    SeriesSpec,
    SimulatedRedBrick,
    phantom_drawing,
    phantom_series,
    status,
)
from consumer.demo.redbrick_records import IMAGE_STORAGE
from consumer.download import Downloader
from consumer.errors import Permanent, Refused, Transient
from consumer.model import Image, TaskSnapshot
from consumer.platforms import redbrick_queries as queries
from consumer.platforms.redbrick_api import RedBrickApi
from consumer.platforms.redbrick_images import BATCH, DOWNLOADS, MAX_FILES, ImageSaver
from consumer.ports import SavedImage
from handlers.formats.nifti import read_label_map
from tests.consumer.platforms.redbrick_peer import connected, key, only_label, snapshot

PRESIGN = "presignItemsSDK"
SMALL = Phantom(shape=(8, 8, 5))


def of_files(number: int, name: str = "ct", size: int = 10) -> SeriesSpec:
    files = {f"{name}/{n}.dcm": f"{name} {n}".encode().ljust(size) for n in range(number)}
    return SeriesSpec(name, items=tuple(files), contents=files)


def a_labelled(*series: SeriesSpec) -> tuple[SimulatedRedBrick, str]:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01", list(series))
    simulator.label(task_id)
    return simulator, task_id


async def saved(
    simulator: SimulatedRedBrick, task_id: str, folder: Path, position: int = 0, **settings: Any
) -> list[SavedImage]:
    async with connected(simulator, **settings) as platform:
        asked = key(simulator, task_id)
        task = (await platform.fetch([asked]))[asked]
        assert isinstance(task, TaskSnapshot)
        return await platform.save_images(task, only_label(task).series[position], folder)


async def test_every_series_tells_its_images_by_storage_and_item() -> None:
    simulator, task_id = a_labelled(of_files(2), of_files(1, "mr"))
    first, second = only_label(await snapshot(simulator, task_id)).series
    assert [(i.name, json.loads(i.reference)) for i in first.images] == [
        ("0.dcm", [IMAGE_STORAGE, "ct/0.dcm"]),
        ("1.dcm", [IMAGE_STORAGE, "ct/1.dcm"]),
    ]
    assert [json.loads(i.reference)[1] for i in second.images] == ["mr/0.dcm"]


async def test_every_annotator_s_series_has_the_same_images() -> None:
    simulator = SimulatedRedBrick(consensus=True)
    task_id = simulator.create_task("study01", [of_files(3)])
    simulator.assign(task_id, "ben", "dora")
    for person in ("ben", "dora"):
        simulator.label(task_id, by=person)
    one, other = (await snapshot(simulator, task_id)).labels
    assert one.series[0].images == other.series[0].images
    assert len(one.series[0].images) == 3


async def test_the_name_of_an_image_holds_no_query() -> None:
    spec = SeriesSpec(items=("https://images.example/a/b.nii.gz?signature=1",))
    (series,) = only_label(await snapshot(*a_labelled(spec))).series
    assert [image.name for image in series.images] == ["b.nii.gz"]


async def test_a_phantom_s_files_are_saved_as_they_are_in_viewing_order(tmp_path: Path) -> None:
    spec = phantom_series(SMALL)
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01", [spec])
    simulator.label(task_id, [phantom_drawing(SMALL)])
    got = await saved(simulator, task_id, tmp_path)
    assert [image.path.read_bytes() for image in got] == list(spec.contents.values())
    assert [image.name for image in got] == [f"{n:04d}.dcm" for n in range(1, 6)]
    for image in got:
        data = image.path.read_bytes()
        assert (image.sha256, image.size) == (hashlib.sha256(data).hexdigest(), len(data))


async def test_files_on_disk_are_named_by_their_number_alone(tmp_path: Path) -> None:
    odd = {"../../etc/passwd": b"a", "x/..": b"b"}
    simulator, task_id = a_labelled(SeriesSpec(items=tuple(odd), contents=odd))
    got = await images_of(simulator, task_id, tmp_path)
    assert [image.path for image in got] == [tmp_path / "000000", tmp_path / "000001"]
    assert sorted(os.listdir(tmp_path)) == ["000000", "000001"]


async def images_of(simulator: SimulatedRedBrick, task_id: str, folder: Path) -> list[SavedImage]:
    """Through a downloader that gives a byte for each URL: what the odd paths of a server are to a
    client is not what is looked at here."""
    task = await snapshot(simulator, task_id)
    saver = ImageSaver(Urls(), FakeDownloader(), max_bytes=100)
    return await saver.save(only_label(task).series[0].images, folder)


async def test_a_hundred_items_are_presigned_by_one_question(tmp_path: Path) -> None:
    simulator, task_id = a_labelled(of_files(2 * BATCH + 1))
    got = await saved(simulator, task_id, tmp_path)
    assert [image.path.read_bytes().split()[1] for image in got] == [
        str(n).encode() for n in range(2 * BATCH + 1)
    ]
    assert simulator.counters[PRESIGN] == 3


async def test_an_item_that_is_a_url_is_fetched_where_it_says(tmp_path: Path) -> None:
    elsewhere, _ = a_labelled(of_files(1))
    async with elsewhere.serve() as url:
        api = RedBrickApi(url, elsewhere.api_key)
        asked = {"orgId": elsewhere.org_id, "storageId": IMAGE_STORAGE, "items": ["ct/0.dcm"]}
        signed = (await api.ask(queries.PRESIGN, asked))["presignItems"][0]
        await api.close()
        simulator, task_id = a_labelled(SeriesSpec(items=(signed,)))
        (image,) = await saved(simulator, task_id, tmp_path)
    assert (image.name, image.path.read_bytes()) == ("0.dcm", b"ct 0      ")


async def test_a_url_that_expired_is_presigned_again(tmp_path: Path) -> None:
    simulator, task_id = a_labelled(of_files(3))
    simulator.faults.add("file GET", status(403))
    assert len(await saved(simulator, task_id, tmp_path)) == 3
    assert simulator.counters[PRESIGN] == 2


async def test_a_url_that_is_refused_again_is_an_error(tmp_path: Path) -> None:
    simulator, task_id = a_labelled(of_files(1))
    simulator.faults.add("file GET", status(403), times=9)
    with pytest.raises(Transient) as caught:
        await saved(simulator, task_id, tmp_path)
    assert caught.value.reason == "download-refused"
    assert simulator.counters["file GET"] == 3


async def test_an_image_that_is_gone_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    spec = of_files(3)
    simulator, task_id = a_labelled(spec)
    del simulator.files["items/ct/1.dcm"]
    with pytest.raises(Transient) as caught:
        await saved(simulator, task_id, tmp_path)
    assert caught.value.reason == "download-missing"


@pytest.mark.parametrize("limit", [29, 15, 5])
async def test_more_bytes_than_a_series_may_have_are_refused(limit: int, tmp_path: Path) -> None:
    simulator, task_id = a_labelled(of_files(3))
    with pytest.raises(Permanent) as caught:
        await saved(simulator, task_id, tmp_path, max_image_bytes=limit)
    assert caught.value.reason == "images-too-large"


async def test_as_many_bytes_as_a_series_may_have_are_saved(tmp_path: Path) -> None:
    simulator, task_id = a_labelled(of_files(3))
    simulator.faults.add("file GET", status(403))
    assert len(await saved(simulator, task_id, tmp_path, max_image_bytes=30)) == 3


async def test_a_series_without_images_saves_none(tmp_path: Path) -> None:
    simulator, task_id = a_labelled(SeriesSpec(items=()))
    assert await saved(simulator, task_id, tmp_path) == []


class Urls:
    """Presigns each item as its own URL, or as ``answers`` say."""

    def __init__(self, **answers: str | None) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self._answers = answers

    async def __call__(self, storage: str, paths: Sequence[str]) -> list[str | None]:
        self.asked.append((storage, list(paths)))
        return [self._answers.get(path, f"https://{storage}.example/{path}") for path in paths]


class FakeDownloader(Downloader):
    """Writes each URL's last character; counts how many do so at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    async def save(
        self,
        url: str,
        path: Path,
        *,
        authorization: str | None = None,
        max_bytes: int | None = None,
        spend: Callable[[int], None] | None = None,
    ) -> tuple[str, int]:
        assert authorization is None
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(5):  # others may come in between
            await asyncio.sleep(0)
        self.now -= 1
        written = path.write_bytes(url[-1:].encode())  # noqa: ASYNC240  # one byte
        return "0" * 64, written


def images(*places: tuple[str, str]) -> list[Image]:
    return [Image(reference=json.dumps(place), name="x") for place in places]


async def test_four_files_come_at_a_time_from_one_source(tmp_path: Path) -> None:
    downloader = FakeDownloader()
    saver = ImageSaver(Urls(), downloader, max_bytes=1000)
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    many = images(*((f"s{n % 2}", f"{n}") for n in range(20)))
    await asyncio.gather(*(saver.save(many, folder) for folder in folders))
    assert downloader.most == DOWNLOADS


async def test_images_of_several_storages_keep_their_order(tmp_path: Path) -> None:
    urls = Urls()
    saver = ImageSaver(urls, FakeDownloader(), max_bytes=1000)
    got = await saver.save(images(("a", "1"), ("b", "2"), ("a", "3"), ("b", "2")), tmp_path)
    assert [image.path.read_text() for image in got] == ["1", "2", "3", "2"]
    assert urls.asked == [("a", ["1", "3"]), ("b", ["2", "2"])]


async def test_more_files_than_a_series_may_have_are_refused_unasked(tmp_path: Path) -> None:
    urls = Urls()
    saver = ImageSaver(urls, FakeDownloader(), max_bytes=1000)
    with pytest.raises(Permanent) as caught:
        await saver.save(images(("a", "1")) * (MAX_FILES + 1), tmp_path)
    assert caught.value.reason == "images-too-many"
    assert urls.asked == []


async def test_an_image_without_a_url_may_have_one_later(tmp_path: Path) -> None:
    saver = ImageSaver(Urls(gone=None), FakeDownloader(), max_bytes=1000)
    with pytest.raises(Transient) as caught:
        await saver.save(images(("a", "gone")), tmp_path)
    assert caught.value.reason == "image-not-presigned"


async def test_a_url_that_the_platform_does_not_presign_is_fetched_as_it_is(tmp_path: Path) -> None:
    item = "https://images.example/7"
    saver = ImageSaver(Urls(**{item: None}), FakeDownloader(), max_bytes=1000)
    (image,) = await saver.save(images(("a", item)), tmp_path)
    assert image.path.read_text() == "7"


async def test_what_is_not_fetched_by_http_is_refused_without_naming_the_url(
    tmp_path: Path,
) -> None:
    saver = ImageSaver(Urls(a="altadb://secret/x"), FakeDownloader(), max_bytes=1000)
    with pytest.raises(Refused) as caught:
        await saver.save(images(("s", "a")), tmp_path)
    assert caught.value.reason == "image-not-fetchable"
    assert "altadb" in caught.value.message
    assert "secret" not in caught.value.message


def test_a_phantom_s_mask_is_its_truth_on_its_own_grid() -> None:
    stored = phantom_drawing(SMALL).mask
    assert stored is not None
    label_map = read_label_map(stored)
    assert np.array_equal(label_map.array, truth(SMALL))
    assert label_map.affine == SMALL.affine
    assert label_map.affine[0][0] < 0 < label_map.affine[2][2]


def test_the_drawing_of_a_phantom_is_one_instance_for_each_organ() -> None:
    drawing = phantom_drawing(SMALL, 1)
    assert isinstance(drawing, Drawing)
    assert [(i.id, i.class_id) for i in drawing.instances] == [(1, 0), (2, 1), (3, 2)]
    assert drawing.series_index == 1
