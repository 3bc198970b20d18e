"""One task's masks over its image as a picture, from what the lake holds."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from consumer.errors import Permanent, Refused
from consumer.model import FileRef, Manifest, Pointer, decode
from consumer.ports import Store
from handlers import layout
from handlers.formats import contact_sheet, nifti, volume_file
from handlers.pull.current import pointers, projects, read_facts
from handlers.threads import converted

_NAMED = 10  # tasks that an error names


@dataclass(frozen=True, slots=True)
class Shown:
    """A contact sheet, and in words what it shows and what it lacks."""

    png: bytes
    about: str


async def show(
    store: Store,
    project: str,
    task: str,
    *,
    series: str | None = None,
    label: str | None = None,
    slices: int = contact_sheet.MAX_SLICES,
) -> Shown:
    """``project`` is the project's name in the lake, ``task`` the platform's id of the task.

    Of several label maps the one of ``series`` and ``label`` is shown; without them the ground
    truth's, else the first. Raises ``Permanent`` when there is none.
    """
    pointer = await _pointer(store, project, task)
    if pointer.manifest is None:
        raise Permanent("nothing-exported", f"task {task} has no files: it is {pointer.change}")
    manifest = decode(await _bytes(store, pointer.manifest), Manifest)
    mask = _chosen(manifest, pointer, series, label)
    image = _image_of(manifest, mask)
    label_map = await converted(nifti.read_label_map, await _bytes(store, mask.key))
    voxels, lacking = await _voxels(store, image, label_map.shape)
    about = f"{mask.path} of {task}, stage {pointer.stage}, revision {str(pointer.revision)[:12]}"
    sheet = await converted(
        contact_sheet.contact_sheet, label_map, mask.labels, voxels, title=about, slices=slices
    )
    said = f"{about}: {len(sheet.slices)} of {label_map.shape[2]} slices{lacking}"
    return Shown(sheet.png, said)


async def find(store: Store, task: str, project: str | None) -> tuple[str, str]:
    """(project, task id) of a task given by its id or its name. Raises ``Permanent`` when there is
    none, or several."""
    among = [project] if project else await projects(store)
    for one in among:
        if await store.read(layout.pointer_key(one, task)) is not None:
            return one, task
    named: list[tuple[str, str]] = []
    for one in among:
        facts, _ = await read_facts(store, await pointers(store, one), {}, asyncio.sleep)
        named += [(one, found.task) for found in facts if found.name == task]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(f"{found} in {one}" for one, found in named[:_NAMED])
        raise Permanent("task-ambiguous", f"several tasks are called so: {ids}")
    raise Permanent("task-unknown", "the lake holds no task of that id or name")


async def _pointer(store: Store, project: str, task: str) -> Pointer:
    stored = await store.read(layout.pointer_key(project, task))
    if stored is None:
        raise Permanent("task-unknown", f"the lake holds no task {task} in {project}")
    try:
        return decode(stored.data, Pointer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Permanent("pointer-unreadable", f"the pointer of {task} cannot be read") from error


async def _bytes(store: Store, key: str) -> bytes:
    stored = await store.read(key)
    if stored is None:
        raise Permanent("lake-damaged", f"{key} is gone; groundwire verify tells more")
    return stored.data


def _chosen(manifest: Manifest, pointer: Pointer, series: str | None, label: str | None) -> FileRef:
    """Of binary masks the first object's."""
    maps = [file for file in manifest.files if _is_label_map(file)]
    wanted = label or pointer.ground_truth_label
    if label is not None or any(file.label == wanted for file in maps):
        maps = [file for file in maps if file.label == wanted]
    if series is not None:
        maps = [file for file in maps if series in (file.series, _name(file))]
    if not maps:
        raise Permanent("nothing-drawn", "the task has no such label map in the lake")
    return maps[0]


def _is_label_map(file: FileRef) -> bool:
    return file.label is not None and file.path.endswith(".nii.gz")


def _name(file: FileRef) -> str:
    return file.path.rpartition("/")[2].removesuffix(".nii.gz")


def _image_of(manifest: Manifest, mask: FileRef) -> FileRef | None:
    """The volume of the mask's series, converted or as the platform had it."""
    for file in manifest.files:
        volume = file.path.startswith("images/") and file.path.endswith((".nii.gz", ".nii"))
        if volume and (file.position, file.series) == (mask.position, mask.series):
            return file
    return None


async def _voxels(
    store: Store, image: FileRef | None, shape: tuple[int, int, int]
) -> tuple[NDArray[Any] | None, str]:
    """The image's voxels, or why there is none beneath the mask."""
    if image is None:
        return None, "; no image beneath: [export] dicom_to_nifti = true would bring it"
    with tempfile.TemporaryDirectory(prefix="groundwire-") as folder:
        file = Path(folder) / Path(image.path).name
        if await store.download(image.key, file) != image.sha256:
            raise Permanent("lake-damaged", f"{image.key} does not hold what its name says")
        try:
            return await converted(volume_file.read_voxels, file, shape), ""
        except Refused as refused:
            return None, f"; no image beneath: {refused.message}"
