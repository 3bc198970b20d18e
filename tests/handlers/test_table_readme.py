"""The README's questions to the table are asked as they stand there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_platform import label_map_bytes, nifti_label
from tests.handlers.table_house import fenced, table_house
from tests.handlers.test_table import TRUTH

README = Path(__file__).parents[2] / "README.md"
HEADING = "## The table"
LAKE_IN_README = "groundwire-data/lake"


def blocks() -> list[str]:
    found = fenced(README.read_text(), HEADING)
    assert len(found) == 3, f"three Python blocks below {HEADING!r}"
    return found


def last_monday() -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=today.weekday())


async def test_the_readme_s_queries_tell_the_ground_truth_of_today_and_of_last_monday(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``kept`` was approved before Monday and still is; ``lost`` was sent back since; ``late`` was
    approved since; ``never`` is not approved."""
    place = tmp_path / LAKE_IN_README / "tables/revisions"
    async with table_house(place, now=last_monday() - timedelta(days=3)) as house:
        for task in ("kept", "lost"):
            await house.see(task, **TRUTH)
        await house.see("never", labels=(nifti_label(),))
        house.now = last_monday()
        house.platform.masks["mask-1"] = label_map_bytes(2)
        await house.see("late", **TRUTH)
        await house.see("lost", labels=(nifti_label(),), history=TRUTH["history"])
        await house.up_to_date()
    monkeypatch.chdir(tmp_path)
    answers: dict[str, Any] = {}
    for block in blocks():
        exec(compile(block, str(README), "exec"), answers)  # noqa: S102 - our own README
    assert sorted(answers["current"]["task"]) == ["kept", "late"]
    assert sorted(answers["as_of_monday"]["task"]) == ["kept", "lost"]
    assert answers["voxels"].rows() == [("liver", 2, 8)]
