"""Frames drawn in Labelbox end as volumes in the lake that are the truth voxel by voxel: told once
by real webhooks to a real process, and looked at by many tests."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from consumer.demo.labelbox import Drawing, SimulatedLabelbox
from consumer.log.verify import verify
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, house, until
from tests.end_to_end.volume_rows import (
    CLASSES,
    MIRRORED,
    PHANTOM,
    PLAIN,
    SCAN,
    SURPRISING,
    TURNED,
    Task,
    Views,
    by_view,
    composites,
    configure,
    expected,
    in_row,
    multi_frame,
    slices,
    tell,
    until_exported,
    views_toml,
)

AXIS = ((3.0, 4.0), (6.5, 9.0), (10.0, 11.25))
TUBE = ((2.5, 3.5), (8.5, 3.5), (8.5, 9.5), (2.5, 9.5))  # round 6 x 6 pixels
VIEWS: dict[str, Views] = {
    "plain": PLAIN,
    "mirrored": MIRRORED,
    "turned": TURNED,
    "legacy": TURNED,
    "binary": MIRRORED,
}


@dataclass
class Story:
    """The rows of several sources, by name, and what the commands said."""

    place: House
    legacy: SimulatedLabelbox
    sources: dict[str, tuple[SimulatedLabelbox, str]] = field(default_factory=dict)
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def configure(self, surprising: str = "") -> None:
        """``surprising`` is what is known of that source's views."""
        for name in (*VIEWS, "surprising"):
            simulator = self.legacy if name == "legacy" else self.place.cast.labelbox
            if name not in self.sources:
                self.sources[name] = (simulator, simulator.add_project(name).id)
        own = {name: views_toml(name, views) for name, views in VIEWS.items()}
        own["binary"] += '\n[sources.binary.export]\nmasks = "binary"\n'
        configure(self.place, {**own, "surprising": surprising}, self.sources)

    def create(
        self,
        source: str,
        name: str,
        drawings: list[Drawing],
        images: dict[str, bytes],
        at: str = "",
    ) -> None:
        simulator, project = self.sources[source]
        row = simulator.create_row(f"{source}-{name}", at, project=project, images=images)
        simulator.label(row, in_row(drawings, f"{source}.{name}"))
        simulator.submit(row)
        self.rows[f"{source} {name}"] = (project, row)

    async def tell(self, source: str) -> None:
        await tell(self.place, source, self.sources[source][0])


def listed_images(simulator: SimulatedLabelbox) -> dict[str, bytes]:
    """A JSON list of where the slices are."""
    elsewhere = simulator.add_project("storage").id
    urls = []
    for name, data in slices().items():
        row = simulator.create_row(name, project=elsewhere, images={name: data})
        urls.append(f"{simulator.base_url}/images/{row}/{name}")
    simulator.outbox.clear()
    return {"series.json": json.dumps(urls).encode()}


async def create_rows(story: Story) -> None:
    for source in ("mirrored", "turned", "legacy"):
        story.create(source, "frames", by_view(VIEWS[source]), slices())
        await story.tell(source)
    for source in ("mirrored", "turned", "binary"):
        story.create(source, "composites", composites(VIEWS[source]), slices())
        await story.tell(source)
    lines = [
        Drawing("Coronal", 5, "axis", line=AXIS, feature="axis"),
        Drawing("Axial", 3, "tube", line=TUBE, feature="tube"),
    ]
    story.create("turned", "lines", lines, slices())
    await story.tell("turned")
    frames, listed = by_view(PLAIN), listed_images(story.sources["plain"][0])
    story.create("plain", "multi-frame", frames, multi_frame(story.place.directory / "dicom"))
    story.create("plain", "list", frames, listed)
    story.create("plain", "tilted", frames, slices(tilt_mm=0.7))
    story.create("plain", "unreachable", frames, {}, "s3://nobody-allowed/it/")
    await story.tell("plain")


async def calibrate(story: Story) -> None:
    """A source of which nothing is known is asked for its conventions, and configured as told."""
    story.create("surprising", "row", composites(SURPRISING), slices())
    await story.tell("surprising")
    await until_exported(story.place, story.rows)
    project, row = story.rows["surprising row"]
    story.tasks["before"] = await Task.read(story.place.store, project, row)
    done = await story.place.run("calibrate", "surprising", row)
    assert done.returncode == 0, done.stdout + done.stderr
    story.said["calibrate"] = done.stdout
    lines = done.stdout[done.stdout.index("[sources.") :]
    assert await story.place.stop("run") == 0
    story.configure(surprising=lines)
    story.place.start("run", "run")
    await story.place.listening()
    story.sources["surprising"][0].approve(row)
    await story.tell("surprising")

    async def approved() -> str | None:
        pointer = await story.place.pointer(project, row)
        return None if pointer and pointer.ground_truth else "it is not approved"

    await until(approved)


async def told(folder: Path) -> Story:
    legacy = SimulatedLabelbox(legacy=True, seed="legacy")
    store = DirectoryStore(folder / "lake")
    async with legacy.serve(), house(folder, store) as place:
        for name in ("api_key", "webhook_secret"):
            setattr(legacy, name, getattr(place.cast.labelbox, name))
        legacy.outbox.clear()
        story = Story(place, legacy)
        story.configure()
        place.start("run", "run")
        await place.listening()
        await create_rows(story)
        await calibrate(story)
        assert await place.stop("run") == 0
        for name, (project, row) in story.rows.items():
            story.tasks[name] = await Task.read(store, project, row)
        verified = await place.run("verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        story.said["verify"] = verified.stdout
        return story


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return asyncio.run(told(tmp_path_factory.mktemp("volumes")))


def object_of(feature: str) -> str:
    """The object's name: features are ids, no two rows have the same."""
    return feature.split(".")[0]


VOLUME = "segmentations/A.nii.gz"
FRAMED = ["mirrored frames", "turned frames", "legacy frames", "plain multi-frame", "plain list"]
COMPOSED = ["mirrored composites", "turned composites"]


@pytest.mark.parametrize("row", [*FRAMED, *COMPOSED])
def test_a_volume_is_the_truth_voxel_by_voxel(story: Story, row: str) -> None:
    task = story.tasks[row]
    assert np.array_equal(task.voxels(), expected())
    table = {one.category: (one.value, one.voxels) for one in task.refs[VOLUME].labels}
    counted = {name: int((expected() == value).sum()) for name, value in CLASSES.items()}
    assert table == {name: (value, counted[name]) for name, value in CLASSES.items()}
    assert task.manifest.refused == ()


@pytest.mark.parametrize("row", [*FRAMED, *COMPOSED])
def test_image_and_label_map_share_shape_and_affine_to_the_last_bit(story: Story, row: str) -> None:
    image, mask = (story.tasks[row].image(path) for path in ("images/A.nii.gz", VOLUME))
    assert image.shape == mask.shape
    for part in ("srow_x", "srow_y", "srow_z"):
        assert image.header[part].tobytes() == mask.header[part].tobytes()
    true = SCAN.affine if row == "plain multi-frame" else PHANTOM.affine
    assert np.allclose(mask.affine, true, atol=1e-4)


@pytest.mark.parametrize("row", COMPOSED)
def test_groups_that_show_one_object_agree_and_it_is_told(story: Story, row: str) -> None:
    (volume,) = [one for one in story.tasks[row].manifest.volumes if one.label]
    assert {object_of(one.feature) for one in volume.agreements} == set(CLASSES)
    assert {one.dice for one in volume.agreements} == {1.0}
    assert (volume.views, volume.assumed_views) == (VIEWS[row.split()[0]], ())


def test_conventions_that_nobody_configured_are_told_as_assumed(story: Story) -> None:
    (volume,) = [one for one in story.tasks["plain list"].manifest.volumes if one.label]
    assert volume.assumed_views == ("Axial", "Coronal", "Sagittal")


@pytest.mark.parametrize("row", ["mirrored frames", "legacy frames", "plain list"])
def test_images_are_copied_byte_for_byte(story: Story, row: str) -> None:
    assert dict(story.tasks[row].images()) == slices()


def test_binary_masks_are_a_file_for_each_object(story: Story) -> None:
    task = story.tasks["binary composites"]
    found = {
        object_of(ref.feature or ""): task.voxels(path)
        for path, ref in task.refs.items()
        if ref.instance is not None
    }
    assert set(found) == set(CLASSES)
    for name, drawn in found.items():
        assert np.array_equal(drawn > 0, expected() == CLASSES[name])


def test_a_line_is_geometry_in_pixels_and_in_the_patient(story: Story) -> None:
    task = story.tasks["turned lines"]
    lines = json.loads(task.data("geometry/A.json"))["lines"]
    (axis,) = [one for one in lines if object_of(one["feature"]) == "axis"]
    assert axis["pixels"] == [list(point) for point in AXIS]
    (i, j, k), (x0, y0, z0) = PHANTOM.spacing, PHANTOM.origin
    columns = PHANTOM.shape[0]  # Coronal: frames from 0, x mirrored
    patient = [[x0 + (columns - 1 - x) * i, y0 + 5 * j, z0 + y * k] for x, y in AXIS]
    assert np.allclose(axis["patient"], patient, atol=1e-3)
    assert not axis["closed"]


def test_a_line_of_a_closed_class_is_filled_and_no_other(story: Story) -> None:
    task = story.tasks["turned lines"]
    drawn = np.zeros(PHANTOM.shape, np.uint8)
    columns, slices_ = PHANTOM.shape[0], PHANTOM.shape[2]  # Axial: from 0, x and frames mirrored
    drawn[columns - 9 : columns - 3, 4:10, slices_ - 1 - 3] = 9
    assert np.array_equal(task.voxels(), drawn)


@pytest.mark.parametrize("row", ["plain tilted"])
def test_masks_on_images_that_are_refused_are_kept_in_voxel_space(story: Story, row: str) -> None:
    task = story.tasks[row]
    assert np.array_equal(task.voxels(), expected())
    ref = task.refs[VOLUME]
    assert (ref.geometry, ref.affine) == ("unknown", None)
    assert {one.what for one in task.manifest.refused} == {"image", "volume"}
    assert all("tilt" in one.reason for one in task.manifest.refused)
    assert "images/A.nii.gz" not in task.refs
    assert len(list(task.images())) == PHANTOM.shape[2]


def test_pictures_whose_images_nobody_may_read_are_kept_as_they_came(story: Story) -> None:
    task = story.tasks["plain unreachable"]
    kept = {path: task.data(path) for path in task.refs if path.startswith("masks/")}
    assert sorted(kept.values()) == sorted(one.png or b"" for one in by_view(PLAIN))
    assert {one.reason for one in task.manifest.refused} == {"images-unreachable"}


def test_groups_that_disagree_refuse_the_volume(story: Story) -> None:
    task = story.tasks["before"]
    assert "groups-disagree" in {one.reason for one in task.manifest.refused}
    assert VOLUME not in task.refs


def test_what_calibrate_prints_makes_the_next_export_right(story: Story) -> None:
    task = story.tasks["surprising row"]
    assert np.array_equal(task.voxels(), expected())
    assert task.manifest.refused == ()
    (volume,) = [one for one in task.manifest.volumes if one.label]
    assert volume.views == SURPRISING
    assert task.pointer.change == "exported"


def test_every_file_is_referenced_and_verifies(story: Story) -> None:
    assert "unreferenced" not in story.said["verify"]
    assert f"Lake: {len(story.rows)} tasks, {len(story.rows) + 1} revisions" in story.said["verify"]


@pytest.mark.parametrize(
    "path", ["images/A/003.dcm", "images/A.nii.gz", VOLUME, "annotations.json"]
)
async def test_a_flipped_bit_is_found(story: Story, tmp_path: Path, path: str) -> None:
    await asyncio.to_thread(shutil.copytree, story.place.directory / "lake", tmp_path / "lake")
    key = story.tasks["mirrored frames"].refs[path].key
    _flip(tmp_path / "lake" / key)
    found = await verify(DirectoryStore(tmp_path / "lake"))
    assert [one.place for one in found.findings] == [key]


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)
