"""The rights in the bucket: what the store calls, and nothing more."""

from __future__ import annotations

import ast
import json
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

from consumer.log import keys
from consumer.log.tiles import Tile
from consumer.stores import probe, s3, s3_calls, s3_copy, s3_objects, s3_pieces, s3_upload
from handlers import layout

DEPLOY = Path(__file__).parents[2] / "deploy"


def statements(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / name).read_text())["Statement"]
    return found


def may(policy: str, action: str, key: str) -> bool:
    """As IAM decides: a deny beats every allow."""
    resource = "arn:aws:s3:::BUCKET/PREFIX/" + key
    effects = {
        one["Effect"]
        for one in statements(policy)
        if action in one["Action"] and any(fnmatchcase(resource, p) for p in one["Resource"])
    }
    return effects == {"Allow"}


RIGHTS = {
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "put_object": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "upload_part": "s3:PutObject",
    "complete_multipart_upload": "s3:PutObject",
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "copy_object": "s3:PutObject",  # and s3:GetObject
    "delete_object": "s3:DeleteObject",
    "list_objects_v2": "s3:ListBucket",
}


def needed(*modules: ModuleType) -> set[str]:
    """The rights for what these modules call."""
    calls = {
        node.attr
        for module in modules
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "client"
    }
    return {RIGHTS[call] for call in calls - {"exceptions"}}


def allowed(policy: str) -> set[str]:
    return {action for one in statements(policy) for action in one["Action"]}


def test_the_policy_allows_exactly_the_calls_of_the_store() -> None:
    assert needed(s3, s3_calls, s3_copy, s3_pieces, s3_upload) == allowed("s3-policy.json")


def test_images_are_listed_and_read_and_no_more() -> None:
    assert needed(s3_calls, s3_objects, s3_pieces) == allowed("s3-policy-images.json")


def test_listing_is_of_the_bucket_and_unconditional_so_that_absence_is_no_denial() -> None:
    listing = [one for one in statements("s3-policy.json") if "s3:ListBucket" in one["Action"]]
    assert [one["Resource"] for one in listing] == [["arn:aws:s3:::BUCKET"]]
    assert all("Condition" not in one for one in listing)


FILE = layout.file_key("project", "task", "0" * 64, "A.nii.gz")
POINTER = layout.pointer_key("project", "task")
PARTIAL = keys.tile_key(Tile(0, 3, 17))
STAGED = keys.stage_key(b"staged")


def test_processes_write_everywhere_and_remove_only_what_they_tidy() -> None:
    for key in (FILE, POINTER, keys.HEAD, keys.CHECKPOINT, PARTIAL, STAGED):
        assert may("s3-policy.json", "s3:PutObject", key)
        assert may("s3-policy.json", "s3:GetObject", key)
    for key in (PARTIAL, STAGED, f"{probe.PREFIX}1234"):
        assert may("s3-policy.json", "s3:DeleteObject", key)
    for key in (FILE, POINTER, keys.HEAD, keys.CHECKPOINT, keys.tile_key(Tile(0, 3))):
        assert not may("s3-policy.json", "s3:DeleteObject", key)


def test_what_follows_the_log_removes_only_its_own_copies() -> None:
    for key in (
        "project/segmentations/task/A.nii.gz",
        "project/export.ndjson",  # a project without tasks shows tasks.json instead, as a pull does
        "tables/revisions/part-0.parquet",
    ):
        assert may("s3-policy.json", "s3:DeleteObject", key)
    for key in ("followers/mirror.json", "snapshots/name/1-ab/snapshot.json"):
        assert may("s3-policy.json", "s3:PutObject", key)
        assert not may("s3-policy.json", "s3:DeleteObject", key)


def test_collecting_removes_files_but_never_the_log_a_note_or_a_pointer() -> None:
    assert may("s3-policy-gc.json", "s3:DeleteObject", FILE)
    assert may("s3-policy-gc.json", "s3:DeleteObject", layout.manifest_key("project", "task", "ab"))
    for key in (keys.HEAD, PARTIAL, layout.note_key("ab"), POINTER):
        assert not may("s3-policy-gc.json", "s3:DeleteObject", key)
