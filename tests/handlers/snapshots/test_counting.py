"""What is counted of each class: shared voxels once, one form of a series only."""

from __future__ import annotations

import msgspec

from consumer.model import FileRef, LabelCount, Manifest
from handlers.snapshots.counting import Counting, voxels_of
from handlers.snapshots.rows import Row, rows_of, spacing_of
from handlers.snapshots.truth import Move

MOVE = Move(
    source="clinic", project="p", task="t", project_key="p", sequence=1, ground_truth=True,
    revision="r", manifest_key="k", manifest_sha256="s", ground_truth_label="l",
)  # fmt: skip


def file(path: str, *labels: LabelCount, position: int = 0, label: str | None = "l") -> FileRef:
    return FileRef(
        path=path, key=f"k/{path}", sha256="s", size=1, label=label, position=position,
        labels=labels,
    )  # fmt: skip


def drawn(value: int, voxels: int, category: str | None, *overlaps: int) -> LabelCount:
    return LabelCount(value=value, voxels=voxels, category=category, overlaps=overlaps)


def rows(*files: FileRef, move: Move = MOVE, split: str = "train") -> list[Row]:
    manifest = Manifest(
        source="clinic", project="p", task="t", taxonomy=None, taxonomy_key=None, files=files
    )
    return rows_of(move, manifest, split)


def test_voxels_that_objects_share_are_of_each_class_and_of_one_class_once() -> None:
    table = (
        drawn(1, 10, "liver", 3),
        drawn(2, 20, "tumour", 3),
        drawn(4, 5, "liver", 3),
        drawn(3, 7, None),
    )
    made = rows(file("segmentations/a.nii.gz", *table))
    assert voxels_of(made) == {"liver": 10 + 5 + 7, "tumour": 20 + 7}


def test_of_several_forms_of_a_series_one_is_counted() -> None:
    made = rows(
        file("segmentations/a.nii.gz", drawn(1, 10, "liver")),
        file("segmentations/a.seg.dcm", drawn(1, 10, "liver")),
    )
    assert [row.format for row in made] == ["nifti", "seg"]
    counting = Counting()
    counting.add(made)
    counts = counting.counts()
    assert (counts.series, counts.files) == (1, 2)
    assert counts.classes["liver"]["train"].voxels == 10


def test_masks_of_one_object_each_are_added_up() -> None:
    made = rows(
        file("segmentations/a/instance-1.nii.gz", drawn(1, 10, "liver")),
        file("segmentations/a/instance-2.nii.gz", drawn(1, 3, "liver")),
    )
    assert [row.format for row in made] == ["instance", "instance"]
    assert voxels_of(made) == {"liver": 13}


def test_parts_and_projects_are_counted_apart() -> None:
    counting = Counting()
    other = msgspec.structs.replace(MOVE, project_key="q")
    one = file("segmentations/a.nii.gz", drawn(1, 10, "liver"))
    counting.add(rows(one))
    counting.add(rows(one, move=other, split="test"))
    counting.add(rows(move=other, split="test"))
    counts = counting.counts()
    assert counts.projects == {"p": 1, "q": 2}
    assert counts.splits == {"test": 2, "train": 1}
    assert counts.classes["liver"].keys() == {"test", "train"}
    assert (counts.tasks, counts.series) == (3, 2)


def test_another_labels_files_are_in_no_row_and_images_are() -> None:
    image = file("images/a.nii.gz", label=None)
    elsewhere = file("images/b.nii.gz", label=None, position=1)
    (row,) = rows(
        file("segmentations/l/a.nii.gz", drawn(1, 1, "liver")),
        file("segmentations/m/a.nii.gz", drawn(1, 1, "spleen"), label="m"),
        image,
        elsewhere,
    )
    assert row.path == "segmentations/l/a.nii.gz"
    assert row.images is not None
    assert [one.key for one in row.images] == [image.key]
    (bare,) = rows(image, elsewhere)
    assert bare.label_key is None
    assert bare.images is not None
    assert [one.key for one in bare.images] == [image.key, elsewhere.key]


def test_spacing_is_the_length_of_the_affines_columns() -> None:
    turned = ((0.0, -2.0, 0.0, 5.0), (3.0, 0.0, 0.0, 1.0), (4.0, 0.0, 2.5, 0.0), (0, 0, 0, 1.0))
    assert spacing_of(turned) == (5.0, 2.0, 2.5)
    assert spacing_of(None) is None
