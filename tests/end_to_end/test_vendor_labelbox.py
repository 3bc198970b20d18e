"""The simulated Labelbox answers the vendor's own SDK as the platform does.

``GROUNDWIRE_SDK_PYTHON_LABELBOX`` names an interpreter that has the SDK; without it, the SDK is
installed once into a folder beside the project's own environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from consumer.demo.labelbox import Drawing, SimulatedLabelbox

SDK = "labelbox==7.17.0"
SCRIPT = Path(__file__).with_name("vendor_labelbox.py")
CACHE = Path(__file__).parents[2] / ".venv-labelbox-sdk"
PNG = b"\x89PNG\r\n\x1a\n of the liver"

pytestmark = [pytest.mark.vendor, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def sdk_python() -> str:
    """The interpreter that has the vendor's SDK."""
    given = os.environ.get("GROUNDWIRE_SDK_PYTHON_LABELBOX")
    if given:
        return given
    python = CACHE / "bin" / "python"
    marker = CACHE / SDK
    if not marker.exists():
        subprocess.run([sys.executable, "-m", "venv", str(CACHE)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", SDK], check=True)
        marker.touch()
    return str(python)


async def _export(python: str, platform: SimulatedLabelbox, *row_ids: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        python,
        str(SCRIPT),
        platform.base_url,
        platform.api_key,
        platform.project_id,
        *row_ids,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    answer: dict[str, Any] = json.loads(out)
    return answer


def _story(platform: SimulatedLabelbox) -> list[str]:
    rows = [platform.create_row(f"study-{n}", f"https://x.test/{n}.dcm") for n in range(3)]
    platform.label(
        rows[0],
        [
            Drawing("Axial", 6, "liver", png=PNG),
            Drawing("Sagittal", 256, "vessel", line=((1.5, 2.0), (3.0, 4.25))),
        ],
    )
    platform.submit(rows[0])
    platform.approve(rows[0])
    platform.label(rows[1], [])
    platform.submit(rows[1])
    platform.reject(rows[1])
    return rows


async def test_the_vendors_sdk_exports_a_project_unmodified(sdk_python: str) -> None:
    platform = SimulatedLabelbox(export_polls=1, chunk_bytes=2_000)
    first, second, third = _story(platform)
    async with platform.serve():
        got = await _export(sdk_python, platform)

    assert got["project"] == platform.projects[platform.project_id].name
    assert got["errors"] is False
    assert [row["data_row"]["id"] for row in got["rows"]] == [first, second, third]
    assert got["masks"] == [PNG.hex()]
    history = [
        [step["action"] for step in _project(platform, row)["project_details"]["workflow_history"]]
        for row in got["rows"]
    ]
    assert history == [["APPROVE", "MOVE", "MOVE"], ["REJECT", "MOVE", "MOVE"], ["MOVE"]]
    assert platform.counters["export"] == 1
    assert platform.counters["poll"] == 2
    assert platform.counters["export file GET"] > 1


async def test_the_vendors_sdk_exports_chosen_rows(sdk_python: str) -> None:
    platform = SimulatedLabelbox()
    rows = _story(platform)
    async with platform.serve():
        got = await _export(sdk_python, platform, rows[1])

    assert [row["data_row"]["id"] for row in got["rows"]] == [rows[1]]
    labels = _project(platform, got["rows"][0])["labels"]
    assert [one["id"] for one in labels] == list(platform.rows[rows[1]].labels)


async def test_the_vendors_sdk_exports_nothing_from_an_empty_project(sdk_python: str) -> None:
    platform = SimulatedLabelbox()
    async with platform.serve():
        got = await _export(sdk_python, platform)

    assert got["rows"] == []


def _project(platform: SimulatedLabelbox, row: dict[str, Any]) -> dict[str, Any]:
    project: dict[str, Any] = row["projects"][platform.project_id]
    return project
