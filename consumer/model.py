"""The vocabulary: frozen values that know nothing of where they came from or go to.

Every value becomes JSON and back without loss (`encode`, `decode`); what is hashed or logged is
canonical JSON (RFC 8785, `canonical`). Times are RFC 3339 in UTC with microseconds (`timestamp`),
so that they sort as text. Nothing here imports anything of ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar

import msgspec
import rfc8785
from msgspec import Struct

FORMAT = 1  # of every JSON that Groundwire writes

T = TypeVar("T")

_EXACT = 1 << 53  # integers below it are exact in every JSON reader


class Action(StrEnum):
    """What happened to a task, in our meaning; platforms map their own words into it."""

    CREATE = "CREATE"  # the task came into being
    MOVE = "MOVE"  # it went on to another stage, nothing judged
    APPROVE = "APPROVE"  # a review accepted it; final when no review follows
    REJECT = "REJECT"  # it was sent back: it leaves the ground truth
    REWORK = "REWORK"  # the resubmission after a REJECT: never ground truth
    UPDATE = "UPDATE"  # its labels or its metadata changed
    DELETE = "DELETE"  # it is gone
    SWEEP = "SWEEP"  # nobody told; a comparison found it changed


class EventType(StrEnum):
    """The event types of an audit report, as RedBrick names them."""

    CREATED = "TASK_CREATED"
    SUBMITTED = "TASK_SUBMITTED"
    ACCEPTED = "TASK_ACCEPTED"
    REJECTED = "TASK_REJECTED"
    CORRECTED = "TASK_CORRECTED"
    MOVED = "TASK_MOVED"
    ASSIGNED = "TASK_ASSIGNED"
    REASSIGNED = "TASK_REASSIGNED"
    UNASSIGNED = "TASK_UNASSIGNED"
    SKIPPED = "TASK_SKIPPED"
    SAVED = "TASK_SAVED"
    GROUND_TRUTH_EDITED = "GROUNDTRUTH_TASK_EDITED"
    CONSENSUS_COMPUTED = "CONSENSUS_COMPUTED"
    CONSENSUS_EDITED = "CONSENSUS_TASK_EDITED"
    COMMENT_ADDED = "COMMENT_ADDED"


class Change(StrEnum):
    """What a pointer move did to the lake."""

    EXPORTED = "exported"  # new labels or a new recipe: new files
    MOVED = "moved"  # the same masks; stage, history or document went on
    RETRACTED = "retracted"  # the task left the ground truth, or what is exported
    DELETED = "deleted"  # the platform no longer has the task


JsonPath = tuple[str | int, ...]  # a place in a JSON document, from its root


class _Value(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A frozen value; fields at their default are left out of its JSON."""


class TaskKey(_Value, frozen=True):
    """One task of one project of one source, by the platform's own ids."""

    source: str
    project: str
    task: str


class Delivery(_Value, frozen=True):
    """One HTTP request whose authenticity was verified; only ``Platform.verify`` makes one."""

    source: str
    body: bytes
    headers: dict[str, str]  # names in lower case
    received_at: str


class TaskEvent(_Value, frozen=True, tag="event"):
    """One thing that happened to one task; only ``Platform.parse`` (and the sweep) makes one.

    ``id`` is the same on every redelivery the platform identifies; where the platform gives
    neither id nor timestamp, it includes the arrival. What the event *announces* - ``stage`` it
    entered, ``history_id`` it made - lets a fetch notice that the platform's answer is older.
    """

    id: str
    source: str
    project: str
    task: str
    action: Action
    received_at: str
    body_sha256: str  # of the request that brought it
    final: bool = False  # no review follows
    stage: str | None = None
    history_id: str | None = None
    occurred_at: str | None = None  # by the platform's clock
    delivery_id: str | None = None  # the platform's own, of the request
    run: str | None = None  # the sweep that found it
    gap: str | None = None  # why the sweep queued it, as a slug

    @property
    def key(self) -> TaskKey:
        return TaskKey(source=self.source, project=self.project, task=self.task)


class HistoryItem(_Value, frozen=True):
    """One thing the platform says happened to a task: who did what, when, at which stage.

    ``id`` hashes immutable fields only (`history_id`), never display names, so that an item is
    logged once for ever. ``workflow`` items are append-only on the platform: an answer that lacks
    one which was seen before is stale; others (comments) may be taken back.
    """

    id: str
    type: EventType
    at: str
    actor: str | None = None  # the platform's id of the person, an opaque string
    stage: str | None = None
    assignee: str | None = None
    ground_truth: bool = False
    action: Action | None = None  # what it means to us, where it means something
    final: bool = False
    workflow: bool = True


class Mask(_Value, frozen=True):
    """A mask that the platform holds, by a reference that only its platform can open. Several
    masks may have one reference: instances in one picture, told apart by their colour."""

    reference: str  # never logged: it may be, or become, a signed URL
    kind: str  # "nifti" or "png"
    slot: JsonPath = ()  # where the document names the file
    group: str | None = None  # png: Axial, Sagittal, Coronal
    feature: str | None = None  # png: the platform's id of the object
    frame: int | None = None  # png: as the platform counts
    category: str | None = None  # png: the name of the object's class
    color: tuple[int, int, int] | None = None  # png: of the object's pixels; None: all but zero


class Polyline(_Value, frozen=True):
    """A line drawn on one frame, open unless its class is configured as closed. ``points`` are
    (x, y) in pixels: x along columns, y along rows, as the platform gives them."""

    group: str
    feature: str
    frame: int
    category: str | None
    points: tuple[tuple[float, float], ...]


class Segment(_Value, frozen=True):
    """One voxel value of a mask and what it stands for."""

    value: int
    category: str | None = None
    category_value: int | None = None  # the class's own number, in semantic masks
    overlaps: tuple[int, ...] = ()  # further voxel values that the instance also occupies
    slot: JsonPath = ()  # where the document names the file that the segment is in


class Image(_Value, frozen=True):
    """An image of a series (a DICOM file, a NIfTI volume, a whole folder), by a reference that
    only its platform can open."""

    reference: str  # never logged: it may be, or become, a signed URL
    name: str  # the last part of its path, without a query


class Series(_Value, frozen=True):
    """One image series of a task, with its masks under one label."""

    name: str | None  # as the platform has it; the lake's names are `handlers.layout`'s
    masks: tuple[Mask, ...] = ()
    polylines: tuple[Polyline, ...] = ()
    segments: tuple[Segment, ...] = ()
    images: tuple[Image, ...] = ()  # in viewing order
    dimensions: tuple[int, ...] | None = None  # (columns, rows, slices), where known
    affine: tuple[tuple[float, ...], ...] | None = None  # 4 x 4, RAS+, millimetres, where known
    slot: JsonPath = ()  # where the document names the label map: a key, or a list of several
    png_slot: JsonPath = ()  # where the document says whether the masks are PNG files


class Label(_Value, frozen=True):
    """One label of a task: one annotator's, or the only one."""

    id: str
    version: str  # changes when, and only when, what was drawn may have changed
    updated_at: str | None = None
    created_at: str | None = None
    skipped: bool = False
    approved: bool = False
    super_truth: bool = False
    series: tuple[Series, ...] = ()


class TaskSnapshot(_Value, frozen=True):
    """A task as the platform holds it now. All times are in `timestamp` form.

    ``document`` is its entry in the platform's own export shape, URLs without their query; the
    export sets the ``slot`` of each mask in it to the lake key of the file it wrote.
    """

    source: str
    project: str
    task: str
    name: str
    stage: str | None
    ground_truth: bool
    ground_truth_label: str | None = None  # the id of the label that is the ground truth
    ground_truth_reason: str | None = None  # why there is none, as a slug
    labels: tuple[Label, ...] = ()
    history: tuple[HistoryItem, ...] = ()  # oldest first
    document: dict[str, Any] = {}
    taxonomy: dict[str, Any] = {}
    active_at: str | None = None  # the newest time the platform tells of the task
    created_at: str | None = None

    @property
    def key(self) -> TaskKey:
        return TaskKey(source=self.source, project=self.project, task=self.task)


class Missing(_Value, frozen=True):
    """The project can be read, and the platform says that it holds no such task."""

    source: str
    project: str
    task: str


class FileRef(_Value, frozen=True):
    """One immutable file of the lake, as a manifest names it.

    ``path`` is its name within the task; ``key`` where it lies in the lake. A mask's ``shape`` is
    (i, j, k) of the NIfTI array, ``affine`` its 4 x 4 matrix in millimetres (RAS+), or
    ``geometry`` is ``unknown`` because the source told none, or none that can be trusted (a
    `Refusal` then says why); ``labels`` are the segments that occur, with their voxel counts. A
    PNG's ``shape`` is (width, height). A mask of one object alone has that object's number as its
    ``instance``. An image has no ``label``.
    """

    path: str
    key: str
    sha256: str
    size: int
    label: str | None = None
    series: str | None = None
    position: int = 0  # of the series among the task's: names may be given anew
    shape: tuple[int, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    geometry: str | None = None  # "affine" or "unknown"
    labels: tuple[LabelCount, ...] = ()
    group: str | None = None
    feature: str | None = None
    frame: int | None = None
    instance: int | None = None


class LabelCount(_Value, frozen=True):
    """A voxel value, its category, and how many voxels have it; ``feature`` is the platform's id
    of the object, where the value is that object's alone or shared by objects of one class.
    ``overlaps`` are further values whose voxels the object also occupies: those of a value that
    is of no category itself are shared by objects."""

    value: int
    voxels: int
    category: str | None = None
    feature: str | None = None
    overlaps: tuple[int, ...] = ()


class ViewConvention(_Value, frozen=True, omit_defaults=False):
    """How the frames of one group (Axial, Sagittal, Coronal) lie in a volume of (i, j, k) =
    (column, row, slice).

    A pixel is x (along a picture's row) and y (down its columns), a frame f counts from
    ``frame_base``. Axial: x is i, y is j, f is k. Sagittal: x is j, y is k, f is i. Coronal: x is
    i, y is k, f is j. A flip counts that direction from its other end. k is the slice in the
    order of the DICOM normal, as in the NIfTI file.
    """

    frame_base: int = 1
    flip_x: bool = False
    flip_y: bool = False
    flip_frame: bool = False


class Agreement(_Value, frozen=True):
    """How well two groups agree about one object that was drawn in both; ``voxels`` is how many
    either has where both can be compared."""

    feature: str
    groups: tuple[str, str]
    dice: float
    voxels: int


class Volume(_Value, frozen=True):
    """How a series' grid was found, and how masks were laid into it.

    ``pitch_deviation`` is the largest departure of a gap between slices from ``pitch_mm``, as a
    fraction of it; ``overlaps`` counts voxels that more than one object claimed, where the later
    object won; ``blank`` counts pictures that show nothing of the object they are of.
    """

    position: int
    series: str | None
    label: str | None = None
    shape: tuple[int, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    pitch_mm: float | None = None
    pitch_deviation: float | None = None
    views: dict[str, ViewConvention] = {}
    assumed_views: tuple[str, ...] = ()  # groups whose convention nobody has configured
    agreements: tuple[Agreement, ...] = ()
    overlaps: int = 0
    blank: int = 0


class Refusal(_Value, frozen=True):
    """What could not be made rightly and therefore was not made: ``what`` is volume, image, png,
    seg or rtstruct; ``reason`` a constant slug; ``message`` names the file and the measure."""

    what: str
    reason: str
    message: str
    position: int
    series: str | None = None
    label: str | None = None


class Manifest(_Value, frozen=True, omit_defaults=False):
    """What a revision consists of: free of times and provenance, so that the same content has the
    same revision, the SHA-256 of its canonical JSON."""

    source: str
    project: str
    task: str
    taxonomy: str | None  # sha256 of the stored taxonomy
    taxonomy_key: str | None
    files: tuple[FileRef, ...]
    name: str = ""  # the task's, as its document has it
    empty: tuple[str, ...] = ()  # series in the ground truth without a mask, whose grid is not told
    volumes: tuple[Volume, ...] = ()
    refused: tuple[Refusal, ...] = ()
    format: int = FORMAT


class LakeMove(_Value, frozen=True, omit_defaults=False):
    """One move of one task's pointer: what the ``lake`` entry of the log says."""

    project_key: str
    sequence: int
    change: Change
    stage: str | None
    old_stage: str | None
    revision: str | None
    old_revision: str | None
    ground_truth: bool
    was_ground_truth: bool
    ground_truth_label: str | None  # of several labels, the one that is the ground truth
    ground_truth_reason: str | None
    label_version: str | None
    recipe: str
    manifest_key: str | None
    manifest_sha256: str | None
    refused: tuple[str, ...] = ()  # reasons of what could not be made rightly; see the manifest
    pointer_sha256: str = ""  # of the pointer that carries this, by `pointer_sha256`
    platform: str = ""  # which annotation platform the source is
    old_ground_truth_label: str | None = None
    approved_by: str | None = None  # of the ground truth: the platform's id of the person,
    approved_at: str | None = None  # and when, by the platform's clock
    nameless: bool = False  # the task's name is to stand in no path


class Outcome(_Value, frozen=True, tag="outcome"):
    """What a pointer move did, carried by the pointer that made it and put into ``audit``.

    ``id`` is task and sequence, so that putting it again changes nothing.
    """

    id: str
    source: str
    project: str
    task: str
    move: LakeMove
    history: tuple[HistoryItem, ...] = ()  # newly seen, oldest first
    caused_by: tuple[str, ...] = ()  # ids of the events that led to it

    @property
    def key(self) -> TaskKey:
        return TaskKey(source=self.source, project=self.project, task=self.task)


class Record(_Value, frozen=True, tag="record"):
    """Something that Groundwire itself, or a person through it, did: becomes one log entry.

    ``fields`` hold ids, counts, slugs and hashes; free text goes into an erasable note whose hash
    stands in ``fields``.
    """

    id: str
    kind: str  # started, failed, buried, dropped, replayed, ...
    fields: dict[str, Any] = {}


Message = TaskEvent | Outcome | Record


class SeenLabel(_Value, frozen=True):
    """The version and times of a label as last seen, exported or not; ``created_at`` is None where
    the platform tells no such time."""

    version: str
    updated_at: str | None = None
    created_at: str | None = None


class Exported(_Value, frozen=True):
    """What a revision was made of: with the same recipe, labels of these versions keep the files
    that its manifest names."""

    manifest: str  # key
    recipe: str
    labels: dict[str, str]  # label id -> version
    images: str = ""  # where the images were, hashed


class Pointer(_Value, frozen=True, omit_defaults=False):
    """The one mutable object of a task, ``current.json``, moved by compare-and-swap.

    It carries the outcome of the move that made it: whoever reads it can put that outcome into
    the log again, so lake and log cannot disagree.
    """

    source: str
    project: str
    task: str
    name: str
    sequence: int
    change: Change
    stage: str | None
    ground_truth: bool
    was_ground_truth: bool
    ground_truth_label: str | None
    ground_truth_reason: str | None
    revision: str | None
    manifest: str | None  # key
    manifest_sha256: str | None
    label_version: str | None
    labels: dict[str, SeenLabel]  # by label id: older times make an answer stale
    recipe: str
    latest: Exported | None  # the newest revision there was, also when retracted since
    history: tuple[str, ...]  # ids of the items seen and logged
    workflow: tuple[str, ...]  # those of them which the platform never takes back
    outcome: Outcome
    images: str = ""  # where its images are, hashed; empty when they shape no file
    active_at: str | None = None  # the newest time that the platform told when this was written
    paths: Literal["id", "name"] = "name"  # what may name the task's folder, wherever it goes
    format: int = FORMAT


def pointer_sha256(pointer: Mapping[str, Any]) -> str:
    """The SHA-256 of a pointer's canonical JSON, given as plain objects, without the place in it
    that holds this very hash; so the log covers every byte of ``current.json``."""
    outcome = pointer["outcome"]
    move = {k: v for k, v in outcome["move"].items() if k != "pointer_sha256"}
    return digest(canonical({**pointer, "outcome": {**outcome, "move": move}}))


class Failure(_Value, frozen=True):
    """Why a message failed last time; ``reason`` is the error's slug."""

    reason: str
    message: str
    at: str


class DeadLetter(_Value, frozen=True):
    """A message that was given up, with why."""

    lane: str
    message: Message
    attempts: int
    failure: Failure


class ClassRule(_Value, frozen=True):
    """What is configured for one class: the voxel value that it has in every task, and whether its
    lines are outlines to be filled."""

    name: str
    value: int
    closed: bool = False


class ExportRules(_Value, frozen=True):
    """What is exported for one source, and how; what shapes files is the recipe."""

    when: Literal["always", "ground-truth"] = "always"
    stages: tuple[str, ...] = ()  # names; empty is all
    formats: tuple[str, ...] = ("nifti",)  # of masks: nifti, png, seg, rtstruct
    masks: Literal["instance", "binary", "semantic"] = "instance"
    with_files: bool = False
    dicom_to_nifti: bool = False
    pitch_tolerance: float = 0.05  # of gaps between slices, as a fraction of the pitch
    labelmap_seg: bool = False  # DICOM SEG as LABELMAP, which not every reader knows
    classes: tuple[ClassRule, ...] = ()
    views: dict[str, ViewConvention] = {}  # by group
    paths: Literal["id", "name"] = "name"  # what names folders and files
    emails: Literal["keep", "hash", "drop"] = "keep"
    email_key_id: str = ""  # which key hashes e-mails
    images: tuple[str, ...] = ()  # where images are read, if not only where the platform says
    deletion_confirmed_after_s: float = 60.0  # between two answers that must agree

    def wants(self, stage: str | None, *, ground_truth: bool) -> bool:
        """Whether files are kept for a task at this stage."""
        if self.when == "ground-truth" and not ground_truth:
            return False
        return not self.stages or (stage or "").casefold() in {s.casefold() for s in self.stages}


class LaneSpec(_Value, frozen=True):
    """Which messages a handler wants, and how it wants them."""

    name: str
    wants: tuple[str, ...]  # message tags: event, outcome, record
    batch: int = 64
    linger_s: float = 0.02
    exclusive: bool = False  # one consumer at a time, in order; retried in place, never buried

    def takes(self, message: Message) -> bool:
        return message.__struct_config__.tag in self.wants


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, microseconds: ``2026-01-02T03:04:05.678901Z``; sorts as text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical(value: Any) -> bytes:
    """Canonical JSON (RFC 8785) of a value or a plain object: equal content, equal bytes.

    Where there are no fractions, no large integers and only ASCII keys, Python's own JSON with
    sorted keys is that very form, and much quicker.
    """
    plain = msgspec.to_builtins(value)
    if not _is_simple(plain):
        return rfc8785.dumps(plain)
    text = json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return rfc8785.dumps(plain)  # says what is wrong with it


def _is_simple(value: Any) -> bool:
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is dict:
        return all(type(key) is str and key.isascii() for key in value) and all(
            map(_is_simple, value.values())
        )
    if kind is list or kind is tuple:
        return all(map(_is_simple, value))
    return kind is int and -_EXACT < value < _EXACT


def digest(data: bytes) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def identifier(*parts: str) -> str:
    """A short id (128 bits of SHA-256, hex) of immutable parts; no two lists of parts share a text
    because the parts are framed by JSON."""
    return digest(rfc8785.dumps(list(parts)))[:32]


def encode(value: Any) -> bytes:
    """JSON bytes of a value; `decode` gives an equal value."""
    return msgspec.json.encode(value)


def decode(data: bytes, kind: type[T]) -> T:
    """Raises ``msgspec.ValidationError`` when the bytes are not such a value."""
    return msgspec.json.decode(data, type=kind)


def decode_message(data: bytes) -> Message:
    """A queue's message from its bytes; raises ``msgspec.ValidationError``."""
    return _MESSAGES.decode(data)


_MESSAGES: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
