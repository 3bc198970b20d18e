"""What a data row says was drawn: masks, lines, and the image below."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from consumer.errors import Permanent
from consumer.model import Image, Label, TaskKey
from consumer.platforms.labelbox import EXPORT_PARAMS
from consumer.platforms.labelbox_drawings import MAX_POINTS, MAX_REFERENCE
from consumer.platforms.labelbox_legacy import current_row, frame_urls
from consumer.platforms.labelbox_rows import snapshot_of
from tests.samples.labelbox import ours

Json = dict[str, Any]
PROJECT = "cpro0000000000000000000001"


def label_of(row: Json, project: str = PROJECT) -> Label:
    key = TaskKey(source="lb", project=project, task=row["data_row"]["id"])
    (label,) = snapshot_of(row, key, EXPORT_PARAMS).labels
    return label


def row_with(*objects: tuple[str, str, str, Json]) -> Json:
    """(group, frame, feature, what was drawn)"""
    row = ours().current
    groups: Json = {}
    for group, frame, feature, drawn in objects:
        frames = groups.setdefault(group, {"frames": {}})["frames"]
        frames.setdefault(frame, {"objects": {}})["objects"][feature] = drawn
    row["projects"][PROJECT]["labels"][0]["annotations"]["groups"] = groups
    return row


def mask(url: str = "https://x.example/m", **more: Any) -> Json:
    return {"name": "liver", "mask": {"url": url}, **more}


def composite(color: Any = (1, 2, 3), url: str = "https://x.example/all") -> Json:
    drawn: Json = {"name": "liver", "composite_mask": {"url": url}}
    if color is not None:
        drawn["composite_mask"]["color_rgb"] = list(color) if isinstance(color, tuple) else color
    return drawn


def line(*points: tuple[Any, Any]) -> Json:
    return {"name": "vessel", "line": [{"x": x, "y": y} for x, y in points]}


def refused(row: Json) -> Permanent:
    with pytest.raises(Permanent) as caught:
        label_of(row)
    return caught.value


# masks


def test_a_mask_has_the_name_of_its_objects_class() -> None:
    (seen,) = label_of(ours().current).series[0].masks

    assert (seen.category, seen.color) == ("liver", None)


def test_objects_of_a_composite_have_their_colours_and_one_reference() -> None:
    row = row_with(
        ("Axial", "3", "b", composite((4, 5, 6))), ("Axial", "3", "a", composite((1, 2, 3)))
    )

    one, other = label_of(row).series[0].masks

    assert (one.feature, one.color) == ("a", (1, 2, 3))
    assert (other.feature, other.color) == ("b", (4, 5, 6))
    assert one.reference == other.reference
    assert one.slot != other.slot


@pytest.mark.parametrize(
    "color", [None, "red", [1, 2], [1, 2, 3, 4], [1, 2, 256], [-1, 0, 0], [1.0, 2, 3], [True, 0, 0]]
)
def test_a_composite_that_does_not_tell_its_colour_is_unreadable(color: Any) -> None:
    error = refused(row_with(("Axial", "3", "a", composite(color))))

    assert error.reason == "row-unreadable"
    assert "colour" in error.message


def test_objects_come_by_feature_and_frame_whatever_the_order_of_the_export() -> None:
    places = [("Coronal", "2", "b"), ("Axial", "10", "a"), ("Axial", "9", "b"), ("Axial", "9", "a")]
    rows = [row_with(*((*place, mask()) for place in given)) for given in (places, places[::-1])]

    masks, turned = (label_of(row).series[0].masks for row in rows)

    assert masks == turned
    assert [(one.feature, one.frame) for one in masks] == [
        ("a", 9),
        ("a", 10),
        ("b", 2),
        ("b", 9),
    ]


def test_an_object_without_a_name_has_no_category() -> None:
    (seen,) = label_of(row_with(("Axial", "3", "a", {"mask": {"url": "u"}}))).series[0].masks

    assert seen.category is None


def test_a_name_that_is_no_text_is_unreadable() -> None:
    assert refused(row_with(("Axial", "3", "a", mask(name=7)))).reason == "row-unreadable"


# lines


def test_a_line_has_its_place_and_its_points() -> None:
    (seen,) = label_of(ours().current).series[0].polylines

    assert (seen.group, seen.frame, seen.category) == ("Coronal", 90, "axis")
    assert seen.feature == "cfea0000000000000000000002"
    assert seen.points == ((1.25, 2.5), (3.0, 4.0))


@pytest.mark.parametrize("bad", ["1", None, True, float("nan"), float("inf"), 10**400, [1]])
def test_a_point_that_is_not_finite_numbers_is_unreadable(bad: Any) -> None:
    for point in ((bad, 1), (1, bad)):
        error = refused(row_with(("Axial", "3", "a", line((0, 0), point))))

        assert (error.reason, "finite" in error.message) == ("row-unreadable", True)


@pytest.mark.parametrize("bad", ["line", {"x": 1, "y": 2}, [1, 2], [None]])
def test_a_line_that_is_no_list_of_points_is_unreadable(bad: Any) -> None:
    assert refused(row_with(("Axial", "3", "a", {"line": bad}))).reason == "row-unreadable"


def test_a_line_may_have_so_many_points_and_no_more() -> None:
    fits = row_with(("Axial", "3", "a", line(*[(1, 2)] * MAX_POINTS)))

    assert len(label_of(fits).series[0].polylines[0].points) == MAX_POINTS
    assert (
        str(MAX_POINTS)
        in refused(row_with(("Axial", "3", "a", line(*[(1, 2)] * (MAX_POINTS + 1))))).message
    )


def test_a_label_with_too_many_lines_is_refused() -> None:
    short = line((1, 2))

    error = refused(row_with(*(("Axial", str(n), "a", short) for n in range(50_001))))

    assert error.reason == "too-many-polylines"


@pytest.mark.parametrize("what", ["point", "name", "color"])
def test_another_drawing_is_another_version(what: str) -> None:
    row = row_with(("Axial", "3", "a", line((0, 0), (1, 1))), ("Axial", "3", "b", composite()))
    changed = copy.deepcopy(row)
    objects = changed["projects"][PROJECT]["labels"][0]["annotations"]["groups"]["Axial"]
    drawn = objects["frames"]["3"]["objects"]
    match what:
        case "point":
            drawn["a"]["line"][1]["x"] = 1.5
        case "name":
            drawn["a"]["name"] = "duct"
        case _:
            drawn["b"]["composite_mask"]["color_rgb"][0] = 9

    assert label_of(changed).version != label_of(row).version


def test_another_image_is_not_another_drawing() -> None:
    row, moved = ours().current, ours().current
    moved["data_row"]["row_data"] = "s3://elsewhere/7.dcm"

    assert label_of(row).version == label_of(moved).version
    assert label_of(row).series[0].images != label_of(moved).series[0].images


# images


@pytest.mark.parametrize(
    ("row_data", "name"),
    [
        ("https://storage.example.com/studies/7.dcm?X-Signature=a/b", "7.dcm"),
        ("s3://bucket/studies/7.dcm", "7.dcm"),
        ("s3://bucket/studies/series 4/", "series 4"),
        ("gs://bucket/photo.png", "photo.png"),
        ("7.dcm", "7.dcm"),
        ("///", "image"),
    ],
)
def test_the_image_is_what_the_row_is_about(row_data: str, name: str) -> None:
    row = ours().current
    row["data_row"]["row_data"] = row_data

    assert label_of(row).series[0].images == (Image(reference=row_data, name=name),)


def test_the_kind_of_media_does_not_matter() -> None:
    row = ours().current
    row["media_attributes"] = {"mime_type": "image/png"}

    assert len(label_of(row).series[0].images) == 1


@pytest.mark.parametrize("row_data", [None, "", "  ", 7, {}])
def test_a_row_that_names_nothing_has_no_image(row_data: Any) -> None:
    row = ours().current
    row["data_row"]["row_data"] = row_data

    assert label_of(row).series[0].images == ()


def test_a_reference_may_be_so_long_and_no_longer() -> None:
    row = ours().current
    row["data_row"]["row_data"] = "s3://b/" + "x" * (MAX_REFERENCE - 7)
    assert len(label_of(row).series[0].images) == 1

    row["data_row"]["row_data"] += "x"
    assert refused(row).reason == "row-unreadable"


def test_no_images_name_holds_a_signature() -> None:
    (image,) = label_of(ours().current).series[0].images

    assert "secret" not in image.name


# the legacy shape


def legacy(*frames: Json, group: str = "sagittal") -> Json:
    entry = ours().legacy
    entry["Label"]["groups"][0]["name"] = group
    (url,) = frame_urls([entry])
    return current_row([entry], "cpro", {url: list(frames)})


def frame(number: int, *objects: Json) -> Json:
    return {"frameNumber": number, "objects": list(objects)}


def test_the_legacy_shape_tells_the_same() -> None:
    points = [{"x": 1.5, "y": 2}]
    drawn = [
        {"featureId": "b", "title": "liver", "instanceURI": "https://x.example/m"},
        {"featureId": "a", "title": "vessel", "line": points},
    ]
    now = row_with(
        ("Sagittal", "3", "b", mask()),
        ("Sagittal", "3", "a", {"name": "vessel", "line": points}),
    )

    old, new = label_of(legacy(frame(3, *drawn)), "cpro").series[0], label_of(now).series[0]

    assert old.polylines == new.polylines
    assert [_told(one) for one in old.masks] == [_told(one) for one in new.masks]
    assert old.images == (
        Image(reference="https://storage.example.com/studies/9.dcm", name="9.dcm"),
    )


def _told(seen: Any) -> tuple[Any, ...]:
    return seen.reference, seen.group, seen.feature, seen.frame, seen.category, seen.color


@pytest.mark.parametrize(
    "frames",
    [
        [frame(3), frame(3)],
        [frame(3, {"featureId": "a"}, {"featureId": "a"})],
    ],
)
def test_what_the_legacy_shape_lists_twice_hides_nothing(frames: list[Json]) -> None:
    with pytest.raises(Permanent, match="listed twice"):
        legacy(*frames)


def test_a_legacy_group_that_is_listed_twice_hides_nothing() -> None:
    entry = ours().legacy
    entry["Label"]["groups"] = [{"name": name, "frames": []} for name in ("axial", "Axial")]

    with pytest.raises(Permanent, match="listed twice"):
        current_row([entry], "cpro", {})


def test_a_legacy_row_has_masks_and_lines_by_title() -> None:
    sample = ours()
    (url,) = frame_urls([sample.legacy])
    row = current_row([sample.legacy], "cpro", {url: sample.frames})

    series = label_of(json.loads(json.dumps(row)), "cpro").series[0]

    assert [one.category for one in series.masks] == ["Tool 1"]
    assert [one.category for one in series.polylines] == ["Tool 2"]
    assert series.polylines[0].points == ((95.25, 117.5), (223.75, 196.0))
