"""The platforms' own layout: ``segmentations/<task>/<series>.nii.gz`` and what goes with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from consumer.model import Manifest
from handlers.pull.lake_files import CLASSES, DOCUMENT, LakeFile, local_paths, sorted_out
from handlers.pull.options import Format, Options
from handlers.pull.plan import Conversion, Job, TaskPlan
from handlers.pull.select import Facts

SUFFIXES = {"png": ".png", "seg": ".seg.dcm", "rtstruct": ".rtstruct.dcm"}
WITH_FILES = "set [export] with_files = true and let the task be exported anew"
TO_NIFTI = (
    "set [export] with_files = true and dicom_to_nifti = true and let the task be exported anew"
)

Located = list[tuple[LakeFile, str]]  # files of the lake, and where they go


def plan_task(task: Facts, manifest: Manifest, folder: str, options: Options) -> TaskPlan:
    """Raises ``Permanent`` (``path-unsafe``)."""
    plan = TaskPlan(task, folder)
    plan.document = next((file for file in manifest.files if file.path == DOCUMENT), None)
    wanted = (None, task.truth_label)
    files = [
        file
        for file in sorted_out(manifest, task)
        if not options.only_truth or file.ref.label in wanted
    ]
    located = list(zip(files, local_paths(files, folder, options), strict=True))
    groups: defaultdict[tuple[str | None, int], Located] = defaultdict(list)
    images: defaultdict[int, Located] = defaultdict(list)
    for file, path in located:
        if file.kind in ("image", "volume"):
            images[file.ref.position].append((file, path))
        elif file.kind == "geometry":
            _copy(plan, [(file, path)])
        else:
            groups[file.of].append((file, path))
    for group in groups.values():
        _plan_masks(plan, group, images, manifest, options)
    if options.images:
        positions = {file.ref.position for file in files}
        _plan_images(plan, images, positions, manifest, options)
    return plan


def _plan_masks(
    plan: TaskPlan,
    group: Located,
    images: dict[int, Located],
    manifest: Manifest,
    options: Options,
) -> None:
    """The masks of one series under one label. Pictures that came as masks are always copied: the
    document is about them."""
    classes = [one for one in group if one[0].kind == "classes"]
    masks = [one for one in group if one[0].kind not in ("mask", "classes")]
    _copy(plan, [one for one in group if one[0].kind == "mask"])
    ours = [one for one in masks if one[0].kind in ("nifti", "instance")]
    asked: Format | None = options.format
    if asked in (None, "nifti"):
        chosen = ours or (masks if asked is None else [])
    else:
        chosen = [one for one in masks if one[0].kind == asked]
    if chosen:
        # What the pixels mean goes with the pictures.
        _copy(plan, [*chosen, *(classes if chosen[0][0].kind == "png" else [])])
        paths = tuple(path for _, path in chosen)
    elif asked in ("png", "seg", "rtstruct") and any(one[0].kind == "nifti" for one in ours):
        paths = _convert(plan, ours[0], asked, images)
    else:
        if asked is not None:
            plan.lacks_masks = True
            plan.refuse("format-not-held", _why([file for file, _ in group], manifest, asked))
        paths = ()
    for file, _ in masks:
        plan.names.setdefault(file.ref.key, paths)


def _copy(plan: TaskPlan, located: Located) -> None:
    for file, path in located:
        plan.jobs.append(Job((path,), (file.ref,)))
        plan.names.setdefault(file.ref.key, (path,))


def _convert(
    plan: TaskPlan,
    mask: tuple[LakeFile, str],
    asked: Format,
    images: dict[int, Located],
) -> tuple[str, ...]:
    """The paths of what is made of a label map, or none with the reason told."""
    ref, path = mask[0].ref, mask[1]
    stem = path.removesuffix(".nii.gz")
    segments = ref.labels
    if asked == "png":
        slices = ref.shape[2] if ref.shape and len(ref.shape) == 3 else 1
        names = tuple(f"{stem}/{k:06d}.png" for k in range(slices))
        if slices == 1:
            names = (f"{stem}.png",)
        conversion = Conversion("png", segments=segments, shape=ref.shape)
        plan.jobs.append(Job((*names, f"{stem}{CLASSES}"), (ref,), conversion))
        return names
    originals = [file for file, _ in images.get(ref.position, []) if file.kind == "image"]
    if not originals:
        needs = f"{path}: {asked} refers to the DICOM images, which the lake does not hold"
        plan.lacks_masks = True
        plan.refuse("images-not-held", f"{needs}: {WITH_FILES}")
        return ()
    conversion = Conversion(
        "seg" if asked == "seg" else "rtstruct",
        segments=segments,
        names=tuple(file.steps[-1] for file in originals),
    )
    output = (stem + SUFFIXES[asked],)
    sources = (ref, *(file.ref for file in originals))
    plan.jobs.append(Job(output, sources, conversion))
    return output


def _why(files: Sequence[LakeFile], manifest: Manifest, asked: Format) -> str:
    file = files[0]
    series = file.ref.series or f"series {file.ref.position + 1}"
    refused = [
        one.message
        for one in manifest.refused
        if one.position == file.ref.position and one.what in ("volume", asked)
    ]
    if refused:
        return f"{series}: {refused[0]}"
    if asked != "nifti" and any(one.kind == "instance" for one in files):
        return f'{series}: the lake holds one mask per instance: set [export] masks = "instance"'
    forms = "not as NIfTI" if asked == "nifti" else f"neither as {asked} nor as NIfTI"
    held = f"{series}: the lake holds it {forms}"
    return f'{held}: set [export] formats = ["nifti"] and let the task be exported anew'


def _plan_images(
    plan: TaskPlan,
    images: dict[int, Located],
    positions: set[int],
    manifest: Manifest,
    options: Options,
) -> None:
    """The images of every series that the lake knows of the task."""
    for position in sorted(positions | set(images) or {0}):
        found = images.get(position, [])
        chosen = chosen_images(found, options)
        if chosen:
            _copy(plan, chosen)
            plan.images[position] = [path for _, path in chosen]
            continue
        said = [one.message for one in manifest.refused if one.position == position
                and one.what == "image"]  # fmt: skip
        if found and options.images == "original":
            said.append("the lake holds only the converted image: say --dicom-to-nifti")
        advice = TO_NIFTI if options.images == "nifti" else WITH_FILES
        said.append(f"the lake does not hold its image so: {advice}")
        plan.refuse("images-not-held", f"series {position + 1}: {said[0]}")


def chosen_images(found: Sequence[tuple[LakeFile, str]], options: Options) -> Located:
    """The originals, or the volume: converted, or NIfTI from the start."""
    originals = [one for one in found if one[0].kind == "image"]
    if options.images == "original":
        return originals
    volumes = [one for one in found if one[0].kind == "volume"]
    nifti = (".nii", ".nii.gz")
    if not volumes and all(file.steps[-1].casefold().endswith(nifti) for file, _ in originals):
        return originals
    return volumes
