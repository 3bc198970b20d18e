"""What is installed is what was locked, under terms that are known; nothing else comes in."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from deploy import sbom

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
PACKAGES = sbom.read_lock(sbom.LOCK.read_text())


def requirements(lock: str) -> list[str]:
    """Each with its hashes, in one line."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_one_version_with_its_hashes(lock: str) -> None:
    assert requirements(lock)
    for one in requirements(lock):
        assert re.match(r"[a-z0-9][a-z0-9._-]*==[^ *]+ ", one), one
        assert HASH.search(one), one


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_host_and_no_option(lock: str) -> None:
    for one in requirements(lock):
        assert "://" not in one
        assert set(re.findall(r"--(\w+)", one)) == {"hash"}


def test_what_the_project_asks_for_is_locked_within_its_bounds() -> None:
    locked = {one.name: Version(one.version) for one in PACKAGES}
    for wanted in map(Requirement, PROJECT["project"]["dependencies"]):
        assert locked[wanted.name] in wanted.specifier, wanted
        assert any(one.operator == ">=" for one in wanted.specifier), f"{wanted} has no floor"


def test_no_aiohttp_is_accepted_that_unpacks_without_a_bound() -> None:
    """CVE-2026-128131: below 3.14.4."""
    (wanted,) = [d for d in PROJECT["project"]["dependencies"] if d.startswith("aiohttp")]
    assert "3.14.3" not in Requirement(wanted).specifier


def test_what_runs_here_is_what_is_locked() -> None:
    """So that what the tests say is said of the locked versions."""
    for one in PACKAGES:
        marker = Requirement(f"{one.name}; {one.where}").marker if one.where else None
        if marker is None or marker.evaluate():
            assert importlib.metadata.version(one.name) == one.version, one.name


def test_the_list_of_licences_is_that_of_the_lock() -> None:
    assert (DEPLOY / "licences.md").read_text() == sbom.table(PACKAGES), "make licences"


def test_the_bill_of_materials_is_that_of_the_lock() -> None:
    lock, version = sbom.LOCK.read_bytes(), sbom.project_version()
    assert (DEPLOY / "sbom.cdx.json").read_text() == sbom.bill(PACKAGES, lock, version), "make sbom"


def test_the_bill_names_every_requirement_of_the_lock_and_no_other() -> None:
    """Counted without the code that wrote it."""
    listed = json.loads((DEPLOY / "sbom.cdx.json").read_text())["components"]
    pinned = {re.match(r"([^=]+)==(\S+)", one).groups() for one in requirements(LOCKS[0])}  # type: ignore[union-attr]
    assert {(one["name"], one["version"]) for one in listed} == pinned
    assert len(listed) == len(pinned)
    assert all(one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}" for one in listed)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda one: f"{one.name}-{one.version}")
def test_no_licence_forbids_the_use(package: sbom.Package) -> None:
    assert sbom.is_known(package.licence)


@pytest.mark.parametrize(
    "licence", ["GPL-3.0-only", "MIT AND AGPL-3.0-or-later", "LGPL-2.1-only", "Proprietary", ""]
)
def test_a_licence_that_is_not_on_the_list_is_noticed(licence: str) -> None:
    assert not sbom.is_known(licence)


# security.md

SECURITY = (DEPLOY / "security.md").read_text()


def test_the_page_on_security_names_only_files_and_commands_that_exist() -> None:
    for name in re.findall(r"`(tests/[\w/.]+|[\w.]+\.(?:md|json|yaml|py|toml))`", SECURITY):
        assert any((folder / name).exists() for folder in (ROOT, DEPLOY)), name
    targets = set(re.findall(r"^([a-z ]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {word for one in targets for word in one.split()}
    assert set(re.findall(r"`make (\w+)`", SECURITY)) <= known


def test_an_audit_that_could_not_ask_fails() -> None:
    audits = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if "/pip-audit " in line
    ]
    assert [line.split()[-1] for line in audits] == list(LOCKS)
    assert all("--strict" in line and "--require-hashes" in line for line in audits)


def test_the_pod_is_held_as_tight_as_the_container() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", SECURITY, re.DOTALL)
    context = yaml.safe_load(text)["securityContext"]
    image = (DEPLOY / "Dockerfile").read_text()
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in image
    assert (context["runAsNonRoot"], context["readOnlyRootFilesystem"]) == (True, True)
    assert (context["allowPrivilegeEscalation"], context["capabilities"]) == (
        False,
        {"drop": ["ALL"]},
    )
