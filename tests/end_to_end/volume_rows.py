"""Rows of a simulated Labelbox whose truth is a phantom's, and sources configured for them."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray

from consumer.demo.labelbox import Drawing, SimulatedLabelbox
from consumer.demo.phantom import Phantom, ct_series, truth
from consumer.demo.script import Post
from consumer.model import FileRef, Manifest, Pointer, ViewConvention, decode
from consumer.ports import Store
from tests.end_to_end.house import House, until
from tests.handlers.formats.dicom_phantoms import Scan, enhanced, write
from tests.handlers.formats.frame_samples import GROUPS, pictures, png

Views = Mapping[str, ViewConvention]

PHANTOM = Phantom(seed=3, shape=(24, 20, 14))
TRUTH = truth(PHANTOM)
ORGANS = {organ.name: organ.value for organ in PHANTOM.organs}
CLASSES = {"liver": 7, "spleen": 300, "aorta": 2}
COLORS = {"liver": (255, 0, 0), "spleen": (0, 200, 10), "aorta": (1, 2, 3)}

PLAIN: Views = {}
MIRRORED: Views = {
    "Axial": ViewConvention(flip_y=True),
    "Sagittal": ViewConvention(frame_base=0, flip_x=True),
    "Coronal": ViewConvention(flip_y=True, flip_frame=True),
}
TURNED: Views = {
    "Axial": ViewConvention(frame_base=0, flip_x=True, flip_frame=True),
    "Sagittal": ViewConvention(flip_y=True, flip_frame=True),
    "Coronal": ViewConvention(frame_base=0, flip_x=True),
}
SURPRISING: Views = {
    "Axial": ViewConvention(frame_base=0),
    "Sagittal": ViewConvention(flip_y=True),
    "Coronal": ViewConvention(flip_x=True, flip_frame=True),
}


def in_row(drawings: Sequence[Drawing], row: str) -> list[Drawing]:
    """The same objects by ids of their own: no two rows have an object in common."""
    return [replace(one, feature=f"{one.feature}.{row}") for one in drawings]


def expected() -> NDArray[np.uint16]:
    """The truth in the values that are configured for its classes."""
    values = np.zeros(4, np.uint16)
    for name, value in ORGANS.items():
        values[value] = CLASSES[name]
    drawn: NDArray[np.uint16] = values[TRUTH]
    return drawn


def by_view(views: Views) -> list[Drawing]:
    """Each organ in a view of its own."""
    return [
        Drawing(group, frame, name, png=png(picture), feature=name)
        for group, name in zip(GROUPS, ORGANS, strict=True)
        for frame, picture in pictures(
            np.equal(TRUTH, ORGANS[name]), group, _in(views, group)
        ).items()
    ]


def composites(views: Views) -> list[Drawing]:
    """All organs in all views, one picture for each frame, told apart by their colours."""
    drawings = []
    for group in GROUPS:
        of_organs = {
            n: pictures(np.equal(TRUTH, v), group, _in(views, group)) for n, v in ORGANS.items()
        }
        for frame in sorted({frame for made in of_organs.values() for frame in made}):
            shown = {name: made[frame] for name, made in of_organs.items() if frame in made}
            canvas = np.zeros((*next(iter(shown.values())).shape, 3), np.uint8)
            for name, picture in shown.items():
                canvas[picture] = COLORS[name]
            drawings += [
                Drawing(group, frame, name, png=png(canvas), feature=name, color=COLORS[name])
                for name in shown
            ]
    return drawings


def _in(views: Views, group: str) -> ViewConvention:
    return views.get(group, ViewConvention())


def slices(phantom: Phantom = PHANTOM, *, tilt_mm: float = 0.0) -> dict[str, bytes]:
    """The phantom's files by name; with a tilt each slice lies a little further back."""
    files = {}
    for k, data in enumerate(ct_series(phantom)):
        if tilt_mm:
            dataset = pydicom.dcmread(io.BytesIO(data))
            x, y, z = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [x, y + tilt_mm * k, z]
            out = io.BytesIO()
            dataset.save_as(out)
            data = out.getvalue()
        files[f"{k:03d}.dcm"] = data
    return files


SCAN = Scan(columns=24, rows=20, slices=14)


def multi_frame(folder: Path) -> dict[str, bytes]:
    """One file that holds all slices of a scan."""
    ((_, path),) = write([enhanced(SCAN)], folder)
    return {"series.dcm": path.read_bytes()}


def configure(place: House, sources: Mapping[str, str], simulators: Mapping[str, Any]) -> None:
    """A configuration of these sources: what stands in each one's table, and its simulator and
    project."""
    text = place.configuration.read_text()
    head = text[: min(text.index("\n[export]"), text.index("\n[sources."))]
    secrets = place.configuration.parent / "secrets"
    for name, own in sources.items():
        simulator, project = simulators[name]
        head += f"""
[sources.{name}]
platform = "labelbox"
secrets = ["file:{secrets}/labelbox-webhook-secret"]
api_key = "file:{secrets}/labelbox-api-key"
api_url = "{simulator.base_url}/graphql"
projects = ["{project}"]
{own}
"""
    classes = "".join(f"{name} = {value}\n" for name, value in CLASSES.items())
    place.configuration.write_text(
        f"{head}\n[export]\nwith_files = true\ndicom_to_nifti = true\n"
        f"\n[classes]\n{classes}tube = {{value = 9, closed = true}}\n"
    )


def views_toml(source: str, views: Views) -> str:
    lines = []
    for group, view in views.items():
        lines += [f"[sources.{source}.views.{group}]", f"frame_base = {view.frame_base}"]
        for flip in ("flip_x", "flip_y", "flip_frame"):
            lines.append(f"{flip} = {json.dumps(getattr(view, flip))}")
    return "\n".join(lines)


async def tell(place: House, source: str, simulator: SimulatedLabelbox) -> None:
    """Posts what the simulator has to tell to the source's hook."""
    posts = [Post(source, dict(headers), body) for headers, body in simulator.outbox]
    simulator.outbox.clear()
    await place.post_all(posts)


async def until_exported(place: House, rows: Mapping[str, tuple[str, str]]) -> None:
    """Until each of the (project, row) by name has files in the lake."""

    async def complaint() -> str | None:
        for name, (project, row) in rows.items():
            pointer = await place.pointer(project, row)
            if pointer is None or pointer.revision is None:
                return f"{name} is not exported: {_log(place)}"
        return None

    await until(complaint, within_s=60)


def _log(place: House) -> str:
    return "".join(
        (place.directory / f"{name}.log").read_text()[-1500:] for name in place.processes
    )


class Task:
    """What the lake holds of a task."""

    def __init__(self, pointer: Pointer, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        self.pointer, self.manifest, self._files = pointer, manifest, files
        self.refs: dict[str, FileRef] = {file.path: file for file in manifest.files}

    @classmethod
    async def read(cls, store: Store, project: str, row: str) -> Task:
        stored = await store.read(f"{project}/tasks/{row}/current.json")
        assert stored is not None, f"{row} has no pointer"
        pointer = decode(stored.data, Pointer)
        assert pointer.manifest is not None, f"{row} has no revision"
        found = await store.read(pointer.manifest)
        assert found is not None
        manifest = decode(found.data, Manifest)
        files = {}
        for file in manifest.files:
            held = await store.read(file.key)
            assert held is not None, f"{file.key} is missing"
            files[file.path] = held.data
        return cls(pointer, manifest, files)

    def data(self, path: str) -> bytes:
        return self._files[path]

    def image(self, path: str) -> Any:
        return nibabel.Nifti1Image.from_bytes(gzip.decompress(self._files[path]))

    def voxels(self, path: str = "segmentations/A.nii.gz") -> Any:
        return np.asanyarray(self.image(path).dataobj)

    def images(self) -> Iterator[tuple[str, bytes]]:
        """The copies, by their names."""
        for path, data in self._files.items():
            if path.startswith("images/A/"):
                yield path.removeprefix("images/A/"), data
