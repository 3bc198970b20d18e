"""Label maps from frames, against phantoms whose truth is known voxel by voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from consumer.demo.phantom import Phantom, frame_masks, truth
from consumer.errors import Permanent, Refused, Transient
from consumer.model import (
    ClassRule,
    ExportRules,
    LabelCount,
    Mask,
    Polyline,
    Series,
    ViewConvention,
)
from handlers.formats.frames import volumes
from handlers.formats.grid import Grid
from tests.handlers.formats.frame_samples import DEFAULT, EVERY, GROUPS, Drawn, ball, only, pictures

PHANTOM = Phantom(seed=3, shape=(20, 17, 12))
TRUTH = truth(PHANTOM)
GRID = Grid(PHANTOM.shape, PHANTOM.affine)
NAMES = {1: "liver", 2: "spleen", 3: "aorta"}
CLASSES = tuple(ClassRule(name=name, value=value) for value, name in NAMES.items())
SMALL = (6, 5, 4)


def rules(**given: Any) -> ExportRules:
    return ExportRules(**given)


def phantom_in(views: dict[str, ViewConvention]) -> Drawn:
    """Every organ of the phantom, drawn in these groups."""
    drawn = Drawn()
    for value, name in NAMES.items():
        for group, convention in views.items():
            frames = pictures(value == TRUTH, group, convention)
            drawn.add(f"feature-{value}", name, group, frames)
    return drawn


def square(*shape: int, at: tuple[int, int] = (1, 1), side: int = 2) -> np.ndarray[Any, Any]:
    picture = np.zeros(shape, np.bool_)
    picture[at[0] : at[0] + side, at[1] : at[1] + side] = True
    return picture


def refused(drawn: Drawn, given: ExportRules | None = None, shape: Any = SMALL) -> Refused:
    with pytest.raises(Refused) as caught:
        drawn.laid(shape, given)
    return caught.value


# the phantom's truth, voxel by voxel


@pytest.mark.parametrize("convention", EVERY, ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_the_phantom_comes_back_in_every_group_and_convention(
    group: str, convention: ViewConvention
) -> None:
    views = {group: convention}

    laid = only(phantom_in(views).laid(GRID, rules(views=views, classes=CLASSES)))

    assert np.array_equal(laid.label_map.array, TRUTH)
    assert laid.overlaps == 0
    assert laid.views == views
    assert laid.assumed_views == ()


@pytest.mark.parametrize("convention", EVERY, ids=str)
def test_all_three_groups_together_agree_in_every_convention(convention: ViewConvention) -> None:
    turned = replace_base(convention)
    views = {"Axial": convention, "Sagittal": turned, "Coronal": EVERY[-1]}

    laid = only(phantom_in(views).laid(GRID, rules(views=views, classes=CLASSES)))

    assert np.array_equal(laid.label_map.array, TRUTH)
    assert len(laid.agreements) == 9
    assert {one.dice for one in laid.agreements} == {1.0}


def replace_base(convention: ViewConvention) -> ViewConvention:
    return ViewConvention(
        frame_base=1 - convention.frame_base,
        flip_x=not convention.flip_x,
        flip_y=convention.flip_y,
        flip_frame=not convention.flip_frame,
    )


@pytest.mark.parametrize("base", [0, 1])
def test_the_demos_pictures_are_read_as_the_demo_drew_them(base: int) -> None:
    drawn = Drawn()
    for group, frames in frame_masks(TRUTH, 2, frame_base=base).items():
        for frame, data in frames.items():
            drawn.files[f"{group}/{frame}"] = data
            drawn.mask(f"{group}/{frame}", "cfea", "spleen", group, frame)
    views = dict.fromkeys(GROUPS, ViewConvention(frame_base=base))

    laid = only(drawn.laid(GRID, rules(views=views)))

    assert np.array_equal(laid.label_map.array, TRUTH == 2)


def test_the_label_map_is_on_the_grid() -> None:
    label_map = only(phantom_in({"Axial": DEFAULT}).laid(GRID)).label_map

    assert (label_map.shape, label_map.affine) == (GRID.shape, GRID.affine)
    assert label_map.geometry == "sform"
    assert label_map.array.dtype == np.uint8
    assert label_map.array.flags.f_contiguous


def test_without_a_grid_the_voxels_are_the_same_and_their_place_unknown() -> None:
    label_map = only(
        phantom_in({"Axial": DEFAULT}).laid(GRID.shape, rules(classes=CLASSES))
    ).label_map

    assert np.array_equal(label_map.array, TRUTH)
    assert label_map.geometry == "pixdim"


def test_a_convention_that_nobody_configured_is_said_to_be_assumed() -> None:
    views = {"Axial": DEFAULT}

    laid = only(phantom_in({"Axial": DEFAULT, "Coronal": DEFAULT}).laid(GRID, rules(views=views)))

    assert laid.assumed_views == ("Coronal",)
    assert laid.views == {"Axial": DEFAULT, "Coronal": DEFAULT}


def test_nothing_drawn_is_an_empty_label_map() -> None:
    laid = only(Drawn().laid(GRID))

    assert not laid.label_map.array.any()
    assert laid.labels == ()


def test_an_object_on_one_frame_is_one_slice_deep() -> None:
    drawn = Drawn()
    drawn.add("f", "x", "Axial", {3: square(5, 6)})

    array = only(drawn.laid(SMALL)).label_map.array

    assert np.argwhere(array).tolist() == [[1, 1, 2], [1, 2, 2], [2, 1, 2], [2, 2, 2]]


# what does not fit is refused with the numbers


@pytest.mark.parametrize(
    ("group", "plane"), [("Axial", "6 x 5"), ("Sagittal", "5 x 4"), ("Coronal", "6 x 4")]
)
def test_a_picture_of_another_size_is_refused_with_both(group: str, plane: str) -> None:
    drawn = Drawn()
    drawn.add("f", "x", group, {2: square(7, 9)})

    error = refused(drawn)

    assert error.reason == "picture-wrong-size"
    assert f"{group} frame 2 is 9 x 7 pixels" in error.message
    assert plane in error.message
    assert error.shape == SMALL


@pytest.mark.parametrize(
    ("base", "frame", "range_"), [(1, 0, "1 to 4"), (1, 5, "1 to 4"), (0, 4, "0 to 3")]
)
@pytest.mark.parametrize("flip", [False, True])
def test_a_frame_outside_the_volume_is_refused(
    base: int, frame: int, range_: str, flip: bool
) -> None:
    drawn = Drawn()
    drawn.add("f", "x", "Axial", {frame: square(5, 6)})
    views = {"Axial": ViewConvention(frame_base=base, flip_frame=flip)}

    error = refused(drawn, rules(views=views))

    assert error.reason == "frame-outside-volume"
    assert f"Axial frame {frame}" in error.message
    assert range_ in error.message


@pytest.mark.parametrize("group", ["axial", "Oblique", ""])
def test_another_group_is_refused(group: str) -> None:
    drawn = Drawn()
    drawn.add("f", "x", group, {1: square(5, 6)})

    assert refused(drawn).reason == "unknown-group"


def test_a_mask_that_does_not_say_where_it_belongs_is_refused() -> None:
    series = Series(name=None, masks=(Mask(reference="r", kind="nifti"),))

    with pytest.raises(Refused) as caught:
        next(volumes(series, lambda _: b"", SMALL, rules()))

    assert caught.value.reason == "mask-without-place"


def test_an_object_of_two_classes_is_refused() -> None:
    drawn = Drawn()
    drawn.add("f", "x", "Axial", {1: square(5, 6)})
    drawn.add("f", "y", "Axial", {2: square(5, 6)})

    assert refused(drawn).reason == "feature-of-two-classes"


def test_an_unclear_picture_is_refused_with_its_frame() -> None:
    drawn = Drawn()
    drawn.add("f", "x", "Axial", {2: np.full((5, 6, 4), (255, 255, 255, 0))})

    error = refused(drawn)

    assert error.reason == "picture-ambiguous"
    assert error.message.startswith("Axial frame 2, object f: ")


def test_a_torn_picture_may_be_asked_for_again() -> None:
    drawn = Drawn()
    drawn.add("f", "x", "Axial", {2: square(5, 6)})
    drawn.files = {name: data[:-20] for name, data in drawn.files.items()}

    with pytest.raises(Transient, match="Axial frame 2"):
        drawn.laid(SMALL)


def test_more_objects_than_a_label_map_tells_apart_are_refused() -> None:
    drawn = Drawn()
    for number in range(2**16):
        drawn.mask("r", str(number), "x", "Axial", 1)

    assert refused(drawn).reason == "too-many-objects"


def test_a_volume_larger_than_any_file_is_refused() -> None:
    with pytest.raises(Permanent, match="out of bounds"):
        Drawn().laid((40_000, 5, 5))


# values, overlaps, instances


def test_the_later_object_wins_and_what_was_lost_is_counted() -> None:
    drawn = Drawn()
    drawn.add("f1", "x", "Axial", {1: square(5, 6, side=3)})
    drawn.add("f2", "x", "Axial", {1: square(5, 6, at=(2, 2), side=3)})

    laid = only(drawn.laid(SMALL))

    assert laid.overlaps == 4
    assert laid.label_map.array[2, 2, 0] == 2
    assert laid.labels == (
        LabelCount(value=1, voxels=5, category="x", feature="f1"),
        LabelCount(value=2, voxels=9, category="x", feature="f2"),
    )


def test_objects_that_share_a_value_overlap_as_well() -> None:
    drawn = Drawn()
    drawn.add("f1", "x", "Axial", {1: square(5, 6, side=3)})
    drawn.add("f2", "x", "Axial", {1: square(5, 6, at=(2, 2), side=3)})

    laid = only(drawn.laid(SMALL, rules(classes=(ClassRule(name="x", value=9),))))

    assert laid.overlaps == 4
    assert set(np.unique(laid.label_map.array)) == {0, 9}
    assert [one.voxels for one in laid.labels] == [5, 9]


def test_a_voxel_that_three_objects_claim_is_counted_once() -> None:
    drawn = Drawn()
    for feature in ("f1", "f2", "f3"):
        drawn.add(feature, feature, "Axial", {1: square(5, 6)})

    assert only(drawn.laid(SMALL)).overlaps == 4


def test_an_object_that_lost_every_voxel_is_still_listed() -> None:
    drawn = Drawn()
    drawn.add("f1", "x", "Axial", {1: square(5, 6)})
    drawn.add("f2", "y", "Axial", {1: square(5, 6)})

    assert [one.voxels for one in only(drawn.laid(SMALL)).labels] == [0, 4]


def test_one_object_drawn_twice_on_a_frame_does_not_overlap_itself() -> None:
    drawn = Drawn()
    drawn.add("f", "x", "Axial", {1: square(5, 6)})
    drawn.mask("f/Axial/1", "f", "x", "Axial", 1)

    assert only(drawn.laid(SMALL)).overlaps == 0


def test_one_object_seen_in_two_groups_does_not_overlap_itself() -> None:
    laid = only(phantom_in({"Axial": DEFAULT, "Sagittal": DEFAULT}).laid(GRID))

    assert laid.overlaps == 0


def test_overlaps_with_an_object_seen_in_two_groups_are_counted() -> None:
    drawn = Drawn()
    drawn.add("f1", "x", "Axial", pictures(ball((9, 9, 9), (4, 4, 4), 3), "Axial", DEFAULT))
    other = ball((9, 9, 9), (5, 4, 4), 3)
    for group in ("Axial", "Coronal"):
        drawn.add("f2", "y", group, pictures(other, group, DEFAULT))

    laid = only(drawn.laid((9, 9, 9)))

    assert laid.overlaps == (ball((9, 9, 9), (4, 4, 4), 3) & other).sum()
    assert laid.labels[1].voxels == other.sum()


def test_objects_seen_in_two_groups_leave_nothing_to_each_other() -> None:
    shape = (20, 20, 20)
    inner, outer = ball(shape, (10, 9, 8), 3), ball(shape, (10, 9, 8), 6)
    drawn = Drawn()
    for feature, volume in (("a", inner), ("b", outer & ~inner)):
        for group in ("Axial", "Coronal"):
            drawn.add(feature, feature, group, pictures(volume, group, DEFAULT))

    laid = only(drawn.laid(shape))

    assert np.array_equal(laid.label_map.array, np.where(inner, 1, np.where(outer, 2, 0)))
    assert [one.voxels for one in laid.labels] == [inner.sum(), (outer & ~inner).sum()]
    assert laid.overlaps == 0


def test_frames_count_from_zero_or_one() -> None:
    drawn = Drawn()
    drawn.add("f", "x", "Axial", {3: square(5, 6)})

    with pytest.raises(Permanent, match="from 0 or from 1"):
        drawn.laid(SMALL, rules(views={"Axial": ViewConvention(frame_base=2)}))


def test_binary_masks_lose_nothing_to_overlaps() -> None:
    drawn = Drawn()
    drawn.add("f1", "x", "Axial", {1: square(5, 6, side=3)})
    drawn.add("f2", "y", "Axial", {1: square(5, 6, at=(2, 2), side=3)})

    one, other = drawn.laid(SMALL, rules(masks="binary", classes=(ClassRule(name="y", value=7),)))

    assert (one.feature, other.feature) == ("f1", "f2")
    assert one.labels == (LabelCount(value=1, voxels=9, category="x", feature="f1"),)
    assert other.labels == (LabelCount(value=7, voxels=9, category="y", feature="f2"),)
    assert (one.label_map.array != 0).sum() == (other.label_map.array == 7).sum() == 9
    assert one.overlaps == other.overlaps == 0


def test_binary_masks_are_given_only_when_all_of_them_are_right() -> None:
    drawn = Drawn()
    drawn.add("f1", "x", "Axial", {1: square(5, 6)})
    drawn.add("f2", "y", "Axial", {9: square(5, 6)})
    given = volumes(drawn.series(), drawn.read, SMALL, rules(masks="binary"))

    with pytest.raises(Refused):
        next(given)


def test_more_than_255_objects_need_two_bytes() -> None:
    drawn = Drawn()
    for number in range(300):
        picture = np.zeros((20, 20), np.bool_)
        picture[divmod(number, 20)] = True
        drawn.add(f"f{number:03}", f"{number:03}", "Axial", {1: picture})

    laid = only(drawn.laid((20, 20, 1)))

    assert laid.label_map.array.dtype == np.uint16
    assert laid.label_map.array[:, :, 0].T.ravel()[:300].tolist() == list(range(1, 301))


def test_a_large_configured_value_is_kept_whole() -> None:
    drawn = Drawn()
    drawn.add("f", "x", "Axial", {1: square(5, 6)})

    laid = only(drawn.laid(SMALL, rules(classes=(ClassRule(name="x", value=70_000),))))

    assert laid.label_map.array.max() == 70_000


# composites


RED, GREEN = (255, 0, 0), (0, 255, 0)


def composite(*colours: tuple[int, int, int], claimed: dict[str, tuple[int, int, int]]) -> Drawn:
    """One row of pixels in these colours; objects that claim some."""
    drawn = Drawn()
    picture = np.zeros((5, 6, 3), np.uint8)
    picture[0, : len(colours)] = colours
    drawn.add("all", "x", "Axial", {1: picture})
    drawn.masks.clear()
    for number, (feature, colour) in enumerate(claimed.items()):
        drawn.files[f"composite?signed={number}"] = drawn.files["all/Axial/1"]
        drawn.mask(f"composite?signed={number}", feature, feature, "Axial", 1, colour)
    return drawn


def test_instances_of_a_composite_are_told_apart_by_colour() -> None:
    laid = only(composite(RED, GREEN, (0, 0, 0), GREEN, claimed={"a": RED, "b": GREEN}).laid(SMALL))

    assert laid.label_map.array[:, 0, 0].tolist() == [1, 2, 0, 2, 0, 0]
    assert laid.empty == 0


def test_a_composite_is_decoded_once_for_all_its_objects() -> None:
    drawn, reads = composite(RED, GREEN, claimed={"a": RED, "b": GREEN}), []

    def read(mask: Mask) -> bytes:
        reads.append(mask)
        return drawn.files[mask.reference]

    only(list(volumes(drawn.series(), read, SMALL, rules())))

    assert len(reads) == 1


def test_a_colour_without_an_object_refuses_the_volume() -> None:
    error = refused(composite(RED, GREEN, GREEN, claimed={"a": RED}))

    assert error.reason == "composite-unclaimed-color"
    assert "(0, 255, 0) (2 pixels)" in error.message


def test_an_object_whose_colour_does_not_occur_is_told() -> None:
    laid = only(composite(RED, claimed={"a": RED, "b": GREEN}).laid(SMALL))

    assert laid.empty == 1
    assert [one.voxels for one in laid.labels] == [1, 0]


@pytest.mark.parametrize("claimed", [{"a": RED, "b": RED}, {"a": RED, "b": None}])
def test_objects_that_no_colour_tells_apart_are_refused(claimed: dict[str, Any]) -> None:
    assert refused(composite(RED, claimed=claimed)).reason == "composite-without-colors"


def test_one_picture_for_two_frames_is_refused() -> None:
    drawn = composite(RED, claimed={"a": None})
    drawn.mask("composite?signed=0", "a", "a", "Sagittal", 1, None)

    error = refused(drawn)

    assert error.reason == "picture-of-two-frames"
    assert "Axial frame 1 and Sagittal frame 1" in error.message


def test_frames_that_look_alike_may_be_given_one_composite() -> None:
    drawn = composite(RED, GREEN, claimed={"a": RED, "b": GREEN})
    drawn.mask("composite?signed=0", "a", "a", "Axial", 2, RED)
    drawn.mask("composite?signed=1", "b", "b", "Axial", 2, GREEN)

    assert [one.voxels for one in only(drawn.laid(SMALL)).labels] == [2, 2]


def test_on_each_frame_of_a_composite_its_colours_are_claimed() -> None:
    drawn = composite(RED, GREEN, claimed={"a": RED, "b": GREEN})
    drawn.mask("composite?signed=0", "a", "a", "Axial", 2, RED)

    error = refused(drawn)

    assert error.reason == "composite-unclaimed-color"
    assert "frame 2" in error.message


def test_a_composite_that_is_also_an_objects_own_picture_is_of_one_frame() -> None:
    drawn = composite(RED, claimed={"a": RED})
    drawn.mask("composite?signed=0", "a", "a", "Axial", 2, None)

    assert refused(drawn).reason == "picture-of-two-frames"


def test_pictures_that_only_a_query_tells_apart_are_two() -> None:
    drawn = composite(RED, claimed={"a": None, "b": None})
    drawn.masks.clear()
    drawn.mask("composite?signed=0", "a", "a", "Axial", 1, None)
    drawn.mask("composite?signed=1", "b", "b", "Axial", 2, None)

    assert [one.voxels for one in only(drawn.laid(SMALL)).labels] == [1, 1]


# closed lines


TRIANGLE = ((0.0, 0.0), (4.0, 0.0), (0.0, 4.0))


def line(points: Any = TRIANGLE, **given: Any) -> Polyline:
    about = {"group": "Axial", "feature": "f", "frame": 2, "category": "vessel", **given}
    return Polyline(points=points, **about)


def lined(*lines: Polyline, closed: bool) -> Any:
    series = Series(name=None, polylines=lines)
    given = rules(classes=(ClassRule(name="vessel", value=4, closed=closed),))
    return only(list(volumes(series, lambda _: b"", SMALL, given)))


def test_a_closed_line_is_filled() -> None:
    array = lined(line(), closed=True).label_map.array

    assert [(array[:, j, 1] == 4).sum() for j in range(5)] == [5, 4, 3, 2, 1]


def test_an_open_line_leaves_no_voxel() -> None:
    laid = lined(line(), closed=False)

    assert not laid.label_map.array.any()
    assert laid.labels == ()


def test_a_line_of_another_class_is_open() -> None:
    assert not lined(line(category="axis"), closed=True).label_map.array.any()


def test_a_line_that_leaves_all_measure_is_refused_with_its_frame() -> None:
    with pytest.raises(Permanent, match="Axial frame 2, object f"):
        lined(line([(0.0, 0.0), (1e9, 0.0)]), closed=True)


# where groups disagree


def two_groups(
    volume: np.ndarray[Any, Any],
    drawn_as: ViewConvention,
    read_as: ViewConvention = DEFAULT,
    group: str = "Sagittal",
) -> Any:
    drawn = Drawn()
    drawn.add("cfea", "liver", "Axial", pictures(volume, "Axial", DEFAULT))
    drawn.add("cfea", "liver", group, pictures(volume, group, drawn_as))
    return only(drawn.laid(volume.shape, rules(views={"Axial": DEFAULT, group: read_as})))


WRONG = [one for one in EVERY if one != DEFAULT]
LIVER = np.pad(TRUTH == 1, ((1, 1), (1, 1), (1, 1)))


@pytest.mark.parametrize("convention", WRONG, ids=str)
@pytest.mark.parametrize("group", ["Sagittal", "Coronal"])
def test_no_wrong_convention_passes(convention: ViewConvention, group: str) -> None:
    with pytest.raises(Refused) as caught:
        two_groups(LIVER, convention, group=group)

    assert caught.value.reason in ("groups-disagree", "frame-outside-volume")


@pytest.mark.parametrize(("drawn_from", "read_from"), [(0, 1), (1, 0)])
def test_a_disagreement_is_told_with_object_groups_and_numbers(
    drawn_from: int, read_from: int
) -> None:
    drawn_as, read_as = (ViewConvention(frame_base=n) for n in (drawn_from, read_from))

    with pytest.raises(Refused) as caught:
        two_groups(LIVER, drawn_as, read_as)

    shifted = np.roll(LIVER, drawn_from - read_from, axis=0)
    both = int((LIVER & shifted).sum())
    assert caught.value.reason == "groups-disagree"
    assert "Axial and Sagittal" in caught.value.message
    assert "cfea" in caught.value.message
    assert f"Dice {2 * both / (2 * LIVER.sum()):.4f}" in caught.value.message
    assert f"of {(LIVER | shifted).sum()} voxels differ" in caught.value.message
    assert caught.value.shape == LIVER.shape


def test_agreement_is_told_with_its_numbers() -> None:
    (agreement,) = two_groups(LIVER, DEFAULT).agreements

    assert (agreement.feature, agreement.groups) == ("cfea", ("Axial", "Sagittal"))
    assert (agreement.dice, agreement.voxels) == (1.0, LIVER.sum())


def test_one_frame_off_is_noticed_although_dice_is_high() -> None:
    large = np.repeat(ball((28, 48, 46), (13, 22, 23), 12), 4, axis=0)
    shifted = np.roll(large, -1, axis=0)
    assert 2 * (large & shifted).sum() / (2 * large.sum()) > 0.98

    with pytest.raises(Refused, match=r"other conventions would give Dice 1\.0000"):
        two_groups(large, ViewConvention(frame_base=0))


def test_one_frame_off_is_noticed_in_rough_drawings_as_well() -> None:
    large = np.repeat(ball((28, 48, 46), (13, 22, 23), 12), 4, axis=0)
    rough = large & (np.random.default_rng(1).random(large.shape) > 0.003)
    for frame_base in (1, 0):
        drawn = Drawn()
        drawn.add("f", "x", "Axial", pictures(large, "Axial", DEFAULT))
        drawn_as = ViewConvention(frame_base=frame_base)
        drawn.add("f", "x", "Sagittal", pictures(rough, "Sagittal", drawn_as))

        if frame_base == 1:
            assert only(drawn.laid(large.shape)).agreements[0].dice < 1
        else:
            assert "other conventions" in refused(drawn, shape=large.shape).message


def test_a_box_that_is_one_frame_off_is_noticed() -> None:
    box = np.zeros((80, 20, 20), np.bool_)
    box[5:75, 4:12, 5:15] = True

    with pytest.raises(Refused):
        two_groups(box, ViewConvention(frame_base=0))


def test_a_little_roughness_is_no_disagreement() -> None:
    smooth = ball((40, 38, 36), (19, 18, 17), 14)
    rough = smooth & (np.random.default_rng(1).random(smooth.shape) > 0.01)
    drawn = Drawn()
    drawn.add("f", "x", "Axial", pictures(smooth, "Axial", DEFAULT))
    drawn.add("f", "x", "Coronal", pictures(rough, "Coronal", DEFAULT))

    laid = only(drawn.laid(smooth.shape))

    assert 0.98 < laid.agreements[0].dice < 1
    assert np.array_equal(laid.label_map.array != 0, smooth)


def test_drawings_that_differ_more_are_refused_whatever_the_convention() -> None:
    smooth = ball((40, 38, 36), (19, 18, 17), 14)
    rough = smooth & (np.random.default_rng(1).random(smooth.shape) > 0.06)
    drawn = Drawn()
    drawn.add("f", "x", "Axial", pictures(smooth, "Axial", DEFAULT))
    drawn.add("f", "x", "Coronal", pictures(rough, "Coronal", DEFAULT))

    error = refused(drawn, shape=smooth.shape)

    assert "Dice 0.9" in error.message
    assert "other conventions" not in error.message


def test_symmetric_objects_that_are_equal_are_not_refused() -> None:
    symmetric = ball((21, 21, 21), (10, 10, 10), 7)

    mirrored = ViewConvention(flip_x=True, flip_y=True, flip_frame=True)

    assert two_groups(symmetric, mirrored).agreements[0].dice == 1.0


@pytest.mark.parametrize("group", ["Sagittal", "Coronal"])
def test_a_single_voxel_agrees_with_itself(group: str) -> None:
    point = np.zeros((9, 8, 7), np.bool_)
    point[3, 4, 5] = True

    laid = two_groups(point, DEFAULT, group=group)

    assert laid.agreements[0].voxels == 1
    assert np.array_equal(laid.label_map.array != 0, point)


def test_a_single_voxel_in_another_place_is_a_disagreement() -> None:
    point = np.zeros((9, 8, 7), np.bool_)
    point[3, 4, 5] = True

    with pytest.raises(Refused):
        two_groups(point, ViewConvention(flip_x=True))


def test_a_plate_one_voxel_thin_agrees_with_itself() -> None:
    plate = np.zeros((20, 18, 16), np.bool_)
    plate[4:15, 3:9, 7] = True

    assert two_groups(plate, DEFAULT).agreements[0].dice == 1.0


@pytest.mark.parametrize("frames", [[10, 15, 20], [8, 15, 24], [12, 13, 14], [16]])
def test_a_group_that_drew_a_part_is_compared_on_that_part(frames: list[int]) -> None:
    whole = ball((40, 36, 30), (18, 17, 15), 9)
    axial = pictures(whole, "Axial", DEFAULT)
    drawn = Drawn()
    drawn.add("f", "x", "Axial", {frame: axial[frame] for frame in frames})
    drawn.add("f", "x", "Sagittal", pictures(whole, "Sagittal", DEFAULT))

    laid = only(drawn.laid(whole.shape))

    planes = [frame - 1 for frame in frames]
    assert laid.agreements[0].dice == 1.0
    assert laid.agreements[0].voxels == whole[:, :, planes].sum()
    assert np.array_equal(laid.label_map.array != 0, whole)


@pytest.mark.parametrize("convention", WRONG, ids=str)
@pytest.mark.parametrize("step", [3, 5])
def test_wrong_conventions_of_a_few_key_frames_do_not_pass(
    convention: ViewConvention, step: int
) -> None:
    whole = LIVER if step == 3 else ball((40, 36, 30), (13, 15, 10), 8)
    axial = pictures(whole, "Axial", DEFAULT)
    sagittal = pictures(whole, "Sagittal", convention)
    drawn = Drawn()
    drawn.add("f", "x", "Axial", dict(list(axial.items())[::step]))
    drawn.add("f", "x", "Sagittal", dict(list(sagittal.items())[::step]))

    assert refused(drawn, shape=whole.shape).reason in ("groups-disagree", "frame-outside-volume")


def test_drawings_whose_planes_never_meet_cannot_be_compared() -> None:
    shape = (30, 30, 30)
    low, high = ball(shape, (6, 6, 6), 3), ball(shape, (22, 22, 22), 3)
    axial, sagittal = pictures(low, "Axial", DEFAULT), pictures(high, "Sagittal", DEFAULT)
    drawn = Drawn()
    drawn.add("f", "x", "Axial", {7: axial[7]})
    drawn.add("f", "x", "Sagittal", {23: sagittal[23]})

    laid = only(drawn.laid(shape))

    assert laid.agreements == ()
    assert (laid.label_map.array != 0).sum() == axial[7].sum() + sagittal[23].sum()


def test_single_voxels_that_a_mirror_would_join_prove_no_convention() -> None:
    low, high = np.zeros((30, 30, 30), np.bool_), np.zeros((30, 30, 30), np.bool_)
    low[5, 5, 6] = high[24, 5, 23] = True  # joined by mirroring i and k
    drawn = Drawn()
    drawn.add("f", "x", "Axial", pictures(low, "Axial", DEFAULT))
    drawn.add("f", "x", "Sagittal", pictures(high, "Sagittal", DEFAULT))

    assert only(drawn.laid(low.shape)).agreements == ()


def test_whole_drawings_that_never_meet_are_a_disagreement() -> None:
    shape = (30, 30, 30)
    drawn = Drawn()
    drawn.add("f", "x", "Axial", pictures(ball(shape, (6, 6, 6), 3), "Axial", DEFAULT))
    other = pictures(ball(shape, (21, 22, 23), 4), "Sagittal", DEFAULT)
    drawn.add("f", "x", "Sagittal", other)

    assert refused(drawn, shape=shape).reason == "groups-disagree"


def test_a_mirrored_pair_of_key_frames_is_noticed() -> None:
    """Mirrored in both shared directions, the planes do not meet; the right way they agree."""
    whole = ball((40, 36, 30), (9, 17, 7), 6)
    wrong = ViewConvention(flip_y=True, flip_frame=True)
    axial, sagittal = pictures(whole, "Axial", DEFAULT), pictures(whole, "Sagittal", wrong)
    drawn = Drawn()
    drawn.add("f", "x", "Axial", dict(list(axial.items())[::2]))
    drawn.add("f", "x", "Sagittal", dict(list(sagittal.items())[::2]))

    error = refused(drawn, shape=whole.shape)

    assert "see calibrate" in error.message


def test_the_order_of_masks_does_not_change_whether_groups_agree() -> None:
    drawn = phantom_in({"Axial": DEFAULT, "Sagittal": DEFAULT})
    drawn.masks.sort(key=lambda mask: (mask.frame, mask.group), reverse=True)

    laid = only(drawn.laid(GRID, rules(classes=CLASSES)))

    assert np.array_equal(laid.label_map.array, TRUTH)
