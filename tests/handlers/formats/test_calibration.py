"""What drawings say about the conventions by which they were exported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from consumer.demo.phantom import Phantom, truth
from consumer.model import ViewConvention
from handlers.formats.calibration import GroupScores, calibrate
from tests.handlers.formats.frame_samples import DEFAULT, EVERY, Drawn, ball, pictures

SHAPE = (20, 17, 12)
LIVER = truth(Phantom(seed=3, shape=SHAPE)) == 1
OFF = ViewConvention(frame_base=0, flip_y=True, flip_frame=True)


def scored(
    volume: Any, views: dict[str, ViewConvention], configured: Any = None
) -> dict[str, GroupScores]:
    drawn = Drawn()
    for group, convention in views.items():
        drawn.add("f", "x", group, pictures(volume, group, convention))
    made = calibrate(drawn.series(), drawn.read, volume.shape, configured or {})
    return {one.group: one for one in made}


@pytest.mark.parametrize("convention", EVERY, ids=str)
@pytest.mark.parametrize("group", ["Sagittal", "Coronal"])
def test_every_convention_is_found_against_axial(group: str, convention: ViewConvention) -> None:
    found = scored(LIVER, {"Axial": DEFAULT, group: convention})

    assert found[group].decided == convention
    assert found[group].rows[0].dice == 1.0
    assert found[group].rows[1].dice < 1.0


@pytest.mark.parametrize("convention", EVERY, ids=str)
def test_all_three_groups_are_found_together(convention: ViewConvention) -> None:
    found = scored(LIVER, {"Axial": DEFAULT, "Sagittal": convention, "Coronal": OFF})

    assert {group: one.decided for group, one in found.items()} == {
        "Axial": DEFAULT,
        "Sagittal": convention,
        "Coronal": OFF,
    }


def test_axials_frame_base_is_judged_and_its_flips_are_taken_as_configured() -> None:
    axial = ViewConvention(frame_base=0, flip_x=True)

    found = scored(
        LIVER, {"Axial": axial, "Sagittal": OFF}, {"Axial": ViewConvention(flip_x=True)}
    )["Axial"]

    assert (found.decided, found.anchored) == (axial, True)
    assert "taken as configured" in found.why
    assert {row.status for row in found.rows if not row.convention.flip_x} <= {
        "unknown",
        "impossible",
    }


def test_without_axial_the_next_group_is_taken_as_configured() -> None:
    found = scored(LIVER, {"Sagittal": DEFAULT, "Coronal": OFF})

    assert found["Sagittal"].anchored
    assert found["Coronal"].decided == OFF


def test_every_group_has_sixteen_rows_best_first() -> None:
    rows = scored(LIVER, {"Axial": DEFAULT, "Sagittal": OFF})["Sagittal"].rows

    assert len({row.convention for row in rows}) == 16
    dice = [row.dice for row in rows if row.status in ("best", "worse")]
    assert dice == sorted(dice, reverse=True)


def test_one_group_alone_decides_nothing() -> None:
    found = scored(LIVER, {"Coronal": DEFAULT})["Coronal"]

    assert found.decided is None
    assert {row.status for row in found.rows} == {"unknown"}
    assert "no object in Coronal is also drawn in another group" in found.why


def test_a_symmetric_object_is_a_tie_and_not_a_choice() -> None:
    found = scored(ball((21, 21, 21), (10, 10, 10), 7), {"Axial": DEFAULT, "Sagittal": DEFAULT})

    assert found["Sagittal"].decided is None
    assert sum(row.status == "best" for row in found["Sagittal"].rows) == 8
    assert "8 conventions of Sagittal fit equally well" in found["Sagittal"].why


def test_a_frame_outside_the_volume_rules_a_convention_out() -> None:
    touching = np.zeros(SHAPE, np.bool_)
    touching[2:6, 3:9, :5] = True

    found = scored(touching, {"Axial": ViewConvention(frame_base=0)})["Axial"]

    assert all(
        (row.status == "impossible") == (row.convention.frame_base == 1) for row in found.rows
    )


def test_frames_that_fit_no_convention_are_told() -> None:
    drawn = Drawn()
    for frame in (0, SHAPE[2]):
        picture = np.ones((SHAPE[1], SHAPE[0]), np.bool_)
        drawn.add("f", "x", "Axial", {frame: picture})

    (found,) = calibrate(drawn.series(), drawn.read, SHAPE, {})

    assert found.decided is None
    assert "under every convention" in found.why


def test_groups_that_show_different_things_are_not_explained_by_a_convention() -> None:
    drawn = Drawn()
    drawn.add("f", "x", "Axial", pictures(LIVER, "Axial", DEFAULT))
    other = ball(SHAPE, (12, 9, 6), 3)
    drawn.add("f", "x", "Sagittal", pictures(other, "Sagittal", DEFAULT))

    found = {one.group: one for one in calibrate(drawn.series(), drawn.read, SHAPE, {})}

    assert found["Sagittal"].decided is None
    assert "no convention of Sagittal makes the groups agree" in found["Sagittal"].why


def test_nothing_drawn_has_nothing_to_score() -> None:
    assert calibrate(Drawn().series(), Drawn().read, SHAPE, {}) == ()


def test_more_objects_than_are_compared_cost_no_more() -> None:
    drawn, reads = Drawn(), []
    for number in range(30):
        for group in ("Axial", "Sagittal"):
            drawn.add(f"f{number}", "x", group, pictures(LIVER, group, DEFAULT))

    def read(mask: Any) -> bytes:
        reads.append(mask.feature)
        return drawn.files[mask.reference]

    calibrate(drawn.series(), read, SHAPE, {})

    assert len(set(reads)) == 8


def test_of_a_large_object_only_some_frames_are_read() -> None:
    large = np.zeros((200, 190, 180), np.bool_)
    large[20:170, 30:150, 25:160] = ball((150, 120, 135), (60, 50, 70), 70)
    drawn = Drawn()
    for group in ("Axial", "Sagittal"):
        index = {"Axial": 2, "Sagittal": 0}[group]
        planes = np.moveaxis(large, index, 0).transpose(0, 2, 1)
        drawn.add("f", "x", group, {n + 1: p for n, p in enumerate(planes) if p.any()})
    reads: list[int] = []

    def read(mask: Any) -> bytes:
        reads.append(mask.frame)
        return drawn.files[mask.reference]

    found = calibrate(drawn.series(), read, large.shape, {})

    assert len(reads) <= 64
    assert [one.decided for one in found] == [DEFAULT, DEFAULT]
