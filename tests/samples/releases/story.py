"""What happened on two simulated platforms while a release's fixture was written, act by act.

It is played twice: by `make.py` on the release's own simulated platforms, and by the test on
today's, so that both hold the same tasks with the same ids and times. The clock stands still
between the acts, because a platform may look at it for whoever asks; and no Labelbox id is made
after the first act, because its export jobs take ids, too.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from PIL import Image

from consumer.demo.labelbox import Drawing as Frame
from consumer.demo.labelbox import SimulatedLabelbox
from consumer.demo.phantom import Phantom, ct_series
from consumer.demo.redbrick import Drawing, Instance, SeriesSpec, SimulatedRedBrick, phantom_series
from consumer.demo.script import Cast

SEED = "release"
TOKEN = "release-hook-token"
# Addresses that nothing else uses, since what the lake holds tells where images were.
REDBRICK = ("127.61.82.1", 18471)
LABELBOX = ("127.61.82.2", 18472)

SERIES = SeriesSpec(name="ct", dimensions=(12, 10, 6))
BODY = Phantom(shape=(12, 10, 6))
UNREADABLE = Drawing(0, (Instance(1),), b"this is no NIfTI")


@dataclass
class Clock:
    """Goes on by a second at each look while an act is played."""

    at: datetime = datetime(2026, 3, 2, 9, tzinfo=UTC)
    moving: bool = False

    def __call__(self) -> datetime:
        if self.moving:
            self.at += timedelta(seconds=1)
        return self.at


@dataclass
class Stage:
    """The platforms, and the one clock of both."""

    clock: Clock = field(default_factory=Clock)
    cast: Cast = field(init=False)

    def __post_init__(self) -> None:
        self.cast = Cast(
            SimulatedRedBrick(reviews=2, seed=SEED, clock=self.clock),
            SimulatedLabelbox(seed=SEED, clock=self.clock),
            token=TOKEN,
        )

    def play(self, act: Callable[[Cast], None]) -> None:
        self.clock.moving = True
        act(self.cast)
        self.clock.moving = False


def opening(cast: Cast) -> None:
    """Two patients' worth of everything; one mask cannot be read."""
    redbrick, tasks = cast.redbrick, cast.tasks
    for name in ("approved", "retracted", "reviewed", "deleted", "fresh", "spoilt", "corrected"):
        tasks[name] = redbrick.create_task(name, [SERIES])
    tasks["dicom"] = redbrick.create_task("dicom", [phantom_series(BODY)])
    for number, name in enumerate(("approved", "retracted", "reviewed", "deleted", "corrected")):
        redbrick.label(tasks[name], _drawn(number + 1))
    redbrick.label(tasks["spoilt"], [UNREADABLE])
    redbrick.label(tasks["dicom"], _drawn(7))
    for name in ("approved", "retracted", "corrected", "dicom"):
        redbrick.approve(tasks[name])
        redbrick.approve(tasks[name], by="dora")
    for name in ("done", "sent back", "idle"):
        _row(cast, name)
    for name in ("done", "sent back"):
        cast.labelbox.submit(tasks[name])
        cast.labelbox.approve(tasks[name])


def sent_back(cast: Cast) -> None:
    """What was ground truth leaves it; one task is deleted."""
    cast.redbrick.move(cast.tasks["retracted"], "Label")
    cast.redbrick.delete(cast.tasks["deleted"])
    cast.labelbox.reject(cast.tasks["sent back"])


def exported_unlogged(cast: Cast) -> None:
    """The exporters work, the auditor does not: outcomes wait."""
    cast.redbrick.approve(cast.tasks["reviewed"])
    cast.labelbox.submit(cast.tasks["idle"])


def tried_in_vain(cast: Cast) -> None:
    """The platform fails: retries wait."""
    cast.redbrick.move(cast.tasks["approved"], "Label")
    cast.redbrick.label(cast.tasks["approved"], _drawn(11))


def died_over(cast: Cast) -> None:
    """The platform hangs, and who asked it is killed: leases of a dead process."""
    cast.redbrick.move(cast.tasks["corrected"], "Label")
    cast.redbrick.label(cast.tasks["corrected"], _drawn(12))
    cast.redbrick.approve(cast.tasks["corrected"])


def left_waiting(cast: Cast) -> None:
    """Only the receiver is there."""
    redbrick, tasks = cast.redbrick, cast.tasks
    redbrick.label(tasks["fresh"], _drawn(13))
    redbrick.approve(tasks["fresh"])
    redbrick.approve(tasks["fresh"], by="dora")
    redbrick.delete(tasks["reviewed"])
    redbrick.label(tasks["retracted"], _drawn(15))
    tasks["late"] = redbrick.create_task("late", [SERIES])
    cast.labelbox.approve(tasks["idle"])
    cast.labelbox.rework(tasks["sent back"])


def mended_in_silence(cast: Cast) -> None:
    """The mask that nobody can read is drawn anew; its webhook is lost."""
    cast.redbrick.move(cast.tasks["spoilt"], "Label")
    cast.redbrick.label(cast.tasks["spoilt"], _drawn(14))
    cast.redbrick.take_webhooks()


# Labels that were drawn after the last one that the release exported, and so are to be fetched.
DRAWN_SINCE = ("approved", "corrected", "fresh", "retracted", "spoilt")
ACTS = (
    opening,
    sent_back,
    exported_unlogged,
    tried_in_vain,
    died_over,
    left_waiting,
    mended_in_silence,
)


def _drawn(value: int) -> list[Drawing]:
    return [Drawing(0, (Instance(value, 0), Instance(value + 40, 1)))]


def _row(cast: Cast, name: str) -> None:
    slices = {f"{k}.dcm": data for k, data in enumerate(ct_series(BODY))}
    row = cast.tasks[name] = cast.labelbox.create_row(name, images=slices)
    liver = Frame("Axial", 3, "liver", png=_png(), feature=f"liver of {name}")
    cast.labelbox.label(row, [liver])


def _png() -> bytes:
    data = io.BytesIO()
    picture = Image.new("L", (12, 10))
    picture.paste(255, (3, 2, 8, 7))
    picture.save(data, "PNG")
    return data.getvalue()
