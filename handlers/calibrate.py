"""Which view conventions one task speaks for: its pictures and images are fetched and compared."""

from __future__ import annotations

from collections.abc import Iterator

from consumer.errors import Permanent, Transient
from consumer.model import Mask, Missing, Series, TaskKey, TaskSnapshot
from consumer.ports import Ports
from handlers.formats.calibration import GroupScores
from handlers.formats.calibration import calibrate as score
from handlers.images import SeriesImages
from handlers.threads import converted, together

AT_ONCE = 4  # downloads


async def calibrate(key: TaskKey, ports: Ports) -> tuple[GroupScores, ...]:
    """The scores of each group of the task's label: the ground truth's, else the first that has
    pictures of frames. Nothing is written.

    Raises ``Transient``; ``Permanent`` when the task has no such label or is not there, and
    ``Refused`` when its images cannot be read rightly.
    """
    platform = ports.platforms[key.source]
    snapshot = (await platform.fetch([key]))[key]
    if isinstance(snapshot, Transient | Permanent):
        raise snapshot
    if isinstance(snapshot, Missing):
        raise Permanent("task-unknown", f"the platform knows no task {key.task} in {key.project}")
    position, series = _framed(snapshot)

    async def picture(mask: Mask) -> tuple[str, bytes]:
        return mask.reference, await platform.download(snapshot, mask)

    async with SeriesImages(snapshot, series, position, known=None, ports=ports) as images:
        place = await images.place()
        where = place.grid or place.shape
        if where is None:
            raise place.refused or Permanent("images-unknown", "the task has no images")
        masks = {mask.reference: mask for mask in series.masks}
        pictures = dict(await together(map(picture, masks.values()), at_once=AT_ONCE))
        views = ports.rules[key.source].views
        return await converted(score, series, lambda mask: pictures[mask.reference], where, views)


def _framed(snapshot: TaskSnapshot) -> tuple[int, Series]:
    labels = sorted(snapshot.labels, key=lambda one: one.id != snapshot.ground_truth_label)
    found: Iterator[tuple[int, Series]] = (
        (position, series)
        for label in labels
        for position, series in enumerate(label.series)
        if any(mask.kind == "png" for mask in series.masks)
    )
    first = next(found, None)
    if first is None:
        raise Permanent("nothing-drawn", "no label of the task has masks on frames")
    return first
