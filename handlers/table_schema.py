"""The columns of the table ``tables/revisions``: one row for each move of a task's pointer, which
is one ``lake`` entry of the log.

Every column's comment goes into the table, where engines show it (``DESCRIBE``). Times are UTC with
microseconds; hashes are SHA-256 in lower-case hex; keys are relative to the lake.
"""

from __future__ import annotations

import pyarrow as pa

TABLE = "tables/revisions"  # its place in the lake
PARTITION = "project_key"  # safe as a folder's name, and unique across sources, as no id need be
FORMAT = "1"  # raised when the columns change


def _column(name: str, kind: pa.DataType, comment: str) -> pa.Field:
    return pa.field(name, kind, metadata={"comment": comment})


_TEXT, _NUMBER, _FLAG = pa.string(), pa.int64(), pa.bool_()
_TIME = pa.timestamp("us", tz="UTC")

LABEL = pa.struct(
    [
        _column("path", _TEXT, "the file of `files` that holds it"),
        _column("series", _TEXT, "the series' name within the task"),
        _column("position", _NUMBER, "of the series among the task's, from 0"),
        _column("label", _TEXT, "the platform's id of the label, where a task has several"),
        _column("value", _NUMBER, "the voxels' value in the file"),
        _column("category", _TEXT, "the class; null where the value is of none, such as shared"),
        _column("voxels", _NUMBER, "how many voxels (of a picture: pixels) have the value"),
        _column("feature", _TEXT, "the platform's id of the object"),
        _column("overlaps", pa.list_(_NUMBER), "further values whose voxels it occupies, too"),
    ]
)

FILE = pa.struct(
    [
        _column("path", _TEXT, "its name within the task"),
        _column("key", _TEXT, "where it lies in the lake, for ever"),
        _column("size", _NUMBER, "bytes"),
        _column("sha256", _TEXT, "of its bytes"),
        _column("series", _TEXT, "the series' name within the task; null for the document"),
        _column("position", _NUMBER, "of the series among the task's, from 0"),
        _column("label", _TEXT, "the platform's id of the label; null for images and documents"),
        _column("shape", pa.list_(_NUMBER), "voxels: (i, j, k) of a volume, (width, height)"),
        _column("affine", pa.list_(pa.float64()), "4 x 4 in mm, RAS+, one row after the other"),
        _column("geometry", _TEXT, "affine, or unknown; null where the file has none"),
        _column("group", _TEXT, "the view that was drawn in, where a platform has views"),
        _column("feature", _TEXT, "the platform's id of the only object in it"),
        _column("frame", _NUMBER, "the picture's number in its series or video"),
        _column("instance", _NUMBER, "the number of the only object in it"),
    ]
)

SCHEMA = pa.schema(
    [
        _column("log_index", _NUMBER, "of the entry that the row is; unique; never null"),
        _column("logged_at", _TIME, "when it was logged; never decreases with log_index"),
        _column("platform", _TEXT, "labelbox, redbrick"),
        _column("source", _TEXT, "the configured account"),
        _column("project", _TEXT, "the platform's id"),
        _column(PARTITION, _TEXT, "the project's folder in the lake; rows are partitioned by it"),
        _column("task", _TEXT, "the platform's id"),
        _column("name", _TEXT, "the task's, as of this revision; null without a manifest"),
        _column("sequence", _NUMBER, "the task's moves are counted from 1; never null"),
        _column("change", _TEXT, "exported, moved, retracted or deleted"),
        _column("truth_change", _TEXT, "added, changed or removed: the ground truth; or null"),
        _column("revision", _TEXT, "hash of the manifest; null: nothing of the task is exported"),
        _column("old_revision", _TEXT, "before the move"),
        _column("stage", _TEXT, "where the task stands at the platform"),
        _column("old_stage", _TEXT, "before the move"),
        _column("ground_truth", _FLAG, "the platform holds it as such; with a revision it counts"),
        _column("was_ground_truth", _FLAG, "before the move"),
        _column("ground_truth_label", _TEXT, "of several labels, the one that it is"),
        _column("old_ground_truth_label", _TEXT, "before the move"),
        _column("ground_truth_reason", _TEXT, "why it is none, as a slug"),
        _column("approved_by", _TEXT, "the platform's id of the person; ground truth only"),
        _column("approved_at", _TIME, "by the platform's clock; ground truth only"),
        _column("label_version", _TEXT, "one version for all labels of the task"),
        _column("recipe", _TEXT, "hash of what shaped the files on our side"),
        _column("manifest", _TEXT, "read; none: no revision; gone: erased or lost since"),
        _column("manifest_key", _TEXT, "where the revision's manifest lies"),
        _column("taxonomy_key", _TEXT, "the classes as the platform described them then"),
        _column("labels", pa.list_(LABEL), "what is drawn; null unless manifest is read"),
        _column("files", pa.list_(FILE), "all files of the revision; null unless manifest is read"),
        _column("refused", pa.list_(_TEXT), "reasons of what could not be made rightly, as slugs"),
        _column("caused_by", pa.list_(_TEXT), "ids of the events that led to it"),
        _column("pointer_sha256", _TEXT, "of the task's current.json after the move"),
    ]
)

# Which columns' least and greatest values the table keeps for each file: what readers filter by.
STATISTICS = (
    "log_index", "logged_at", "source", "project", "task", "sequence", "change", "truth_change",
    "ground_truth", "approved_at", "revision",
)  # fmt: skip
