"""The keys that shape files: class values, views, privacy; each becomes part of the rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.model import ClassRule, ViewConvention
from consumer.settings import ConfigurationError, Settings, load
from handlers.pointers import recipe_of

SOURCE = """
[sources.lb]
platform = "labelbox"
secrets = ["env:HOOK"]
api_key = "env:KEY"
"""
ENVIRON = {"HOOK": "hook-secret-1", "KEY": "key-secret-2", "MAIL": "mail-secret-3"}


def loaded(folder: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    file = folder / "groundwire.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, {**ENVIRON, **(environ or {})})


def mistakes(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    return caught.value.mistakes


def recipe(folder: Path, text: str) -> str:
    return recipe_of(loaded(folder, text).rules()["lb"])


def test_a_class_is_a_value_or_a_table(tmp_path: Path) -> None:
    text = SOURCE + '[classes]\n"portal vein" = 3\n[classes.lesion]\nvalue = 2\nclosed = true\n'
    assert loaded(tmp_path, text).rules()["lb"].classes == (
        ClassRule(name="lesion", value=2, closed=True),
        ClassRule(name="portal vein", value=3),
    )


def test_classes_may_come_from_the_environment(tmp_path: Path) -> None:
    rules = loaded(tmp_path, SOURCE, {"GROUNDWIRE_CLASSES": '{"liver": 7}'}).rules()["lb"]
    assert rules.classes == (ClassRule(name="liver", value=7),)


@pytest.mark.parametrize("value", ["0", "-1", "65536", "true", '"1"', "1.5"])
def test_a_class_value_is_a_voxel_value(tmp_path: Path, value: str) -> None:
    (said,) = mistakes(tmp_path, SOURCE + f"[classes]\nliver = {value}\n")
    assert said.startswith("classes.liver.value: ")


def test_a_source_may_have_classes_of_its_own(tmp_path: Path) -> None:
    text = SOURCE + "[sources.lb.classes]\nspleen = 5\n[classes]\nliver = 1\n"
    assert loaded(tmp_path, text).rules()["lb"].classes == (ClassRule(name="spleen", value=5),)


def test_views_say_how_frames_lie(tmp_path: Path) -> None:
    text = SOURCE + "[sources.lb.views.Sagittal]\nframe_base = 0\nflip_y = true\n"
    assert loaded(tmp_path, text).rules()["lb"].views == {
        "Sagittal": ViewConvention(frame_base=0, flip_y=True)
    }


def test_no_other_view_and_no_other_base_is_known(tmp_path: Path) -> None:
    assert mistakes(tmp_path, SOURCE + "[sources.lb.views.Oblique]\nflip_x = true\n")
    assert mistakes(tmp_path, SOURCE + "[sources.lb.views.Axial]\nframe_base = 2\n")


def test_hashed_emails_need_a_key(tmp_path: Path) -> None:
    (said,) = mistakes(tmp_path, SOURCE + '[privacy]\nemails = "hash"\n')
    assert said.startswith("privacy.key: is missing")


def test_the_key_that_hashes_emails_is_a_secret_and_known_by_its_id_only(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SOURCE + '[privacy]\nemails = "hash"\nkey = "env:MAIL"\n')
    assert settings.email_key == b"mail-secret-3"
    assert "mail-secret-3" in settings.secrets()
    assert len(settings.rules()["lb"].email_key_id) == 16


@pytest.mark.parametrize(
    "setting",
    [
        "[export]\nwith_files = true\n",
        "[export]\ndicom_to_nifti = true\n",
        '[export]\nformats = ["nifti", "seg"]\n',
        '[export]\nmasks = "binary"\n',
        "[export]\nlabelmap_seg = true\n",
        "[export]\npitch_tolerance = 0.01\n",
        "[classes]\nliver = 1\n",
        "[sources.lb.views.Axial]\nflip_x = true\n",
        'images = "s3://bucket/{task}/"\n',
        'image_prefixes = ["s3://bucket/a"]\n',
        '[privacy]\npaths = "id"\n',
        '[privacy]\nemails = "drop"\n',
        '[privacy]\nemails = "hash"\nkey = "env:MAIL"\n',
        '[privacy]\nemails = "hash"\nkey = "env:HOOK"\n',
    ],
)
def test_whatever_shapes_files_changes_the_recipe(tmp_path: Path, setting: str) -> None:
    others = {recipe(tmp_path, SOURCE), recipe(tmp_path, SOURCE + "[classes]\nspleen = 9\n")}
    assert recipe(tmp_path, SOURCE + setting) not in others


def test_what_only_chooses_tasks_does_not(tmp_path: Path) -> None:
    text = SOURCE + '[export]\nwhen = "ground-truth"\nstages = ["Done"]\n'
    assert recipe(tmp_path, text) == recipe(tmp_path, SOURCE)
