#!/usr/bin/env python3
"""What the image is made of, from requirements.lock: `licences.md` and `sbom.cdx.json` beside this.

    make sbom licences        writes both; a test holds them against the lock

The software bill of materials is CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/). The licences
are what each installed package says of itself, in SPDX terms; where it says it in other words,
`SAID` has the terms, and where a lock names a package that this machine does not install,
`ELSEWHERE`. Nothing here asks the network, and equal locks give equal files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LOCK = HERE.parent / "requirements.lock"
PROJECT = HERE.parent / "pyproject.toml"
SBOM, LICENCES = HERE / "sbom.cdx.json", HERE / "licences.md"

# Licences that anybody may use, change and pass on in a larger work, whatever that one's licence.
ALLOWED = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0",
        "MIT-CMU", "PSF-2.0", "Zlib",
    }
)  # fmt: skip
SAID = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "Dual License": "Apache-2.0 OR BSD-3-Clause",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
ELSEWHERE = {"colorama": "BSD-3-Clause"}  # Windows only

_PINNED = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^ ]+)(?: ; (?P<where>.+?))? ?\\?$"
)
_FOREWORD = """\
# Licences

What runs in the image beside Groundwire itself (Apache-2.0), exactly as requirements.lock pins it.
Written by `make licences` from what each package says of itself; a test holds it against the lock
and refuses a licence that is not on the list of `sbom.py`. The tools of the `dev` group are not
passed on and not listed.

Every licence here is permissive: the package may be used, changed and passed on within a larger
work, if its notice goes along (each installed package has it in its `.dist-info`). None is
copyleft: nothing of GPL, LGPL, AGPL, MPL or the like is imported. Adding such a package fails the
test; then a person decides. LGPL and MPL ask for changes of their own files to be passed on and
would leave Groundwire as it is; GPL and AGPL would bind whoever passes the whole on, and are out.

Wheels carry compiled libraries of others, unchanged, with their terms in `.dist-info`. On Linux
those of numpy hold libgfortran (GPL-3.0 with GCC's runtime exception, which leaves a program that
is linked with it alone) and libquadmath (LGPL-2.1, a shared library that anybody may replace).

| package | version | licence | only where |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Package:
    """One line of the lock; ``where`` is its environment marker."""

    name: str
    version: str
    where: str
    licence: str


def main() -> None:
    packages = read_lock(LOCK.read_text())
    wanted = sys.argv[1:] or ["sbom", "licences"]
    if "sbom" in wanted:
        SBOM.write_text(bill(packages, LOCK.read_bytes(), project_version()))
    if "licences" in wanted:
        LICENCES.write_text(table(packages))


def read_lock(text: str) -> list[Package]:
    found = [match for line in text.splitlines() if (match := _PINNED.match(line))]
    return [
        Package(one["name"], one["version"], one["where"] or "", licence_of(one["name"]))
        for one in found
    ]


def licence_of(name: str) -> str:
    """As SPDX; ``LookupError`` where a person must look."""
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    about = importlib.metadata.metadata(name)
    if expression := about.get("License-Expression"):
        return str(expression)
    prefix = "License :: OSI Approved :: "
    classified = [
        one.removeprefix(prefix)
        for one in about.get_all("Classifier") or []
        if one.startswith(prefix)
    ]
    for said in [about.get("License") or "", *classified]:
        if (spdx := SAID.get(said, said)) and is_known(spdx):
            return spdx
    raise LookupError(f"{name} says no licence that deploy/sbom.py knows: {classified}")


def terms(expression: str) -> set[str]:
    """The licences that an SPDX expression names."""
    return set(re.split(r"\s+(?:AND|OR)\s+|[()\s]+", expression)) - {""}


def is_known(expression: str) -> bool:
    return bool(named := terms(expression)) and named <= ALLOWED


def table(packages: list[Package]) -> str:
    rows = [
        f"| {one.name} | {one.version} | {one.licence} | {one.where and f'`{one.where}`'} |"
        for one in packages
    ]
    return _FOREWORD + "\n".join(rows) + "\n"


def bill(packages: list[Package], lock: bytes, version: str) -> str:
    """The bytes of the lock make its serial number, so that no time stands in it."""
    sha256 = hashlib.sha256(lock).hexdigest()
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, sha256 + version)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "groundwire",
                "name": "groundwire",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
            "properties": [{"name": "groundwire:requirements.lock:sha256", "value": sha256}],
        },
        "components": [_component(one) for one in packages],
    }
    return json.dumps(document, indent=1) + "\n"


def _component(package: Package) -> dict[str, object]:
    purl = f"pkg:pypi/{package.name}@{package.version}"
    single = len(terms(package.licence)) == 1
    where = [{"name": "groundwire:marker", "value": package.where}] if package.where else []
    return {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "licenses": [
            {"license": {"id": package.licence}} if single else {"expression": package.licence}
        ],
        **({"properties": where} if where else {}),
    }


def project_version() -> str:
    found = re.search(r'^version = "([^"]+)"', PROJECT.read_text(), re.MULTILINE)
    if found is None:
        raise LookupError("pyproject.toml has no version")
    return found[1]


if __name__ == "__main__":
    main()
