"""The story of the demo: what the people of two hospitals do, scene by scene.

A scene acts on the simulated platforms only; what Groundwire makes of the webhooks is not scripted.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from consumer.demo.labelbox import Drawing as FrameDrawing
from consumer.demo.labelbox import SimulatedLabelbox
from consumer.demo.phantom import (
    Organ,
    Phantom,
    Voxels,
    ct_series,
    frame_masks,
    nifti_mask,
    truth,
)
from consumer.demo.redbrick import Drawing, Instance, SeriesSpec, SimulatedRedBrick

ORGANS = (
    Organ("liver", 1, 60, (0.36, 0.46, 0.55), (0.20, 0.22, 0.32)),
    Organ("lesion", 2, 110, (0.40, 0.44, 0.58), (0.06, 0.06, 0.12)),
    Organ("vessel", 3, 250, (0.54, 0.68, 0.50), (0.05, 0.05, 0.48)),
)
INSTANCES = tuple(Instance(organ.value, class_id) for class_id, organ in enumerate(ORGANS))


@dataclass(frozen=True, slots=True)
class Post:
    """One HTTP request to a hook."""

    source: str
    headers: dict[str, str]
    body: bytes
    token: str | None = None  # RedBrick's, in the URL
    what: str = ""


@dataclass(slots=True)
class Cast:
    """The two platforms and what the story knows of their tasks."""

    redbrick: SimulatedRedBrick
    labelbox: SimulatedLabelbox
    token: str
    tasks: dict[str, str] = field(default_factory=dict)  # name -> task id
    sent: list[Post] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens on a platform, and what a reader should watch for."""

    title: str
    watch: str
    act: Callable[[Cast], list[Post] | None]  # None: post what the platforms have to tell
    awaits: str | None = None  # the kind of an entry of the log


def study(seed: int) -> tuple[Phantom, Voxels]:
    """A phantom patient's CT and the truth that annotators come close to."""
    phantom = Phantom(seed=seed, organs=ORGANS)
    return phantom, truth(phantom)


def _upload(cast: Cast) -> None:
    for seed, name in ((1, "CT-0001"), (2, "CT-0002")):
        cast.tasks[name] = cast.redbrick.create_task(name, [_series(seed, "portal venous")])


def _series(seed: int, name: str) -> SeriesSpec:
    phantom, _ = study(seed)
    slices = {f"patient{seed}/{k:03d}.dcm": data for k, data in enumerate(ct_series(phantom))}
    affine = np.asarray(phantom.affine)
    return SeriesSpec(
        name=name,
        items=tuple(slices),
        dimensions=phantom.shape,
        spacing=phantom.spacing,
        origin=(affine[0, 3], affine[1, 3], affine[2, 3]),
        direction=tuple(float(v) for v in (affine[:3, :3] / np.asarray(phantom.spacing)).ravel()),
        contents=slices,
    )


def _label_first(cast: Cast) -> None:
    cast.redbrick.label(cast.tasks["CT-0001"], [_drawing(1)])


def _drawing(seed: int, *, without: int | None = None) -> Drawing:
    phantom, labels = study(seed)
    drawn = labels if without is None else np.where(labels == without, np.uint8(1), labels)
    instances = tuple(one for one in INSTANCES if one.id != without)
    return Drawing(0, instances, nifti_mask(drawn, phantom.affine))


def _first_review(cast: Cast) -> None:
    cast.redbrick.approve(cast.tasks["CT-0001"])


def _final_approval(cast: Cast) -> None:
    cast.redbrick.approve(cast.tasks["CT-0001"], by="dora")


def _everything_again(cast: Cast) -> list[Post]:
    again = [post for post in cast.sent if post.source == "redbrick"] * 2
    random.Random(7).shuffle(again)
    return again


def _sent_back(cast: Cast) -> None:
    cast.redbrick.move(cast.tasks["CT-0001"], "Label")


def _resubmission(cast: Cast) -> None:
    cast.redbrick.label(cast.tasks["CT-0001"], [_drawing(1, without=2)])


def _approved_again(cast: Cast) -> None:
    task = cast.tasks["CT-0001"]
    cast.redbrick.approve(task)
    cast.redbrick.approve(task, by="dora")


def _labelbox_labels(cast: Cast) -> None:
    phantom, labels = study(100)
    slices = {f"{k:03d}.dcm": data for k, data in enumerate(ct_series(phantom))}
    row = cast.labelbox.create_row("CT-0100", images=slices)
    cast.tasks["CT-0100"] = row
    cast.labelbox.label(
        row,
        [
            FrameDrawing(group=view, frame=frame, name=organ.name, png=png, feature=organ.name)
            for organ in ORGANS[:1]
            for view, frames in frame_masks(labels, organ.value).items()
            if view == "Axial"
            for frame, png in frames.items()
        ],
    )
    cast.labelbox.submit(row)


def _labelbox_rework(cast: Cast) -> None:
    row = cast.tasks["CT-0100"]
    cast.labelbox.approve(row)
    cast.labelbox.move(row, cast.labelbox.reviews[0])
    cast.labelbox.reject(row)
    cast.labelbox.rework(row)


def _labelbox_done(cast: Cast) -> None:
    cast.labelbox.approve(cast.tasks["CT-0100"])


def _delete(cast: Cast) -> None:
    cast.redbrick.delete(cast.tasks["CT-0002"])


def _forge(cast: Cast) -> list[Post]:
    body = b'{"version":"v1.0","events":0,"payload":[]}'
    return [
        Post("redbrick", {}, body, token="guess", what="a wrong token"),
        Post("labelbox", {"X-Hub-Signature": "sha1=" + "0" * 40}, body, what="a forged signature"),
    ]


SCENES = (
    Scene(
        "Two CT studies are uploaded to RedBrick",
        "The log knows them, and each has a pointer; nobody drew anything, so there are no files.",
        _upload,
    ),
    Scene(
        "An annotator segments CT-0001 and submits it",
        "The first revision: label map and image as NIfTI, its JSON, a manifest; then the pointer.",
        _label_first,
    ),
    Scene(
        "The first review accepts it: on to the second",
        "Another stage, the same masks: nothing is downloaded.",
        _first_review,
    ),
    Scene("The second review accepts it", "Now it is ground truth.", _final_approval),
    Scene(
        "Every webhook so far comes twice more, shuffled",
        "Accepted, and nothing changes: the log holds each of them once.",
        _everything_again,
    ),
    Scene(
        "A radiologist sends it back after approval",
        "The ground truth loses the task at once; the old revision stays readable.",
        _sent_back,
    ),
    Scene(
        "The annotator corrects the mask and resubmits",
        "A new revision. A resubmission is not ground truth.",
        _resubmission,
    ),
    Scene("Both reviews accept it again", "Ground truth, with the new revision.", _approved_again),
    Scene(
        "On Labelbox, a study is labelled frame by frame",
        "Its pictures become one label map on the grid of its DICOM series.",
        _labelbox_labels,
    ),
    Scene(
        "It is approved, reopened, rejected and resubmitted",
        "APPROVE, MOVE, REJECT, REWORK: each stands in the log once; it is not ground truth.",
        _labelbox_rework,
    ),
    Scene(
        "Its review approves it: Done",
        "Two tasks are new in the ground truth: a decision, a snapshot of it, training begins.",
        _labelbox_done,
        awaits="triggered",
    ),
    Scene("CT-0002 is deleted on RedBrick", "Its pointer says so.", _delete),
    Scene("A stranger sends two forged webhooks", "401; nothing is queued or logged.", _forge),
)
