"""Whatever tasks, series, labels and classes are called: nothing is written outside the project's
prefix and the pulled folder, and no two meet; not even where the lake itself is an enemy's.
"""

from __future__ import annotations

import contextlib
import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.errors import GroundwireError
from consumer.model import FileRef, Label, Segment, canonical, digest
from consumer.stores.directory import DirectoryStore
from handlers import layout
from handlers.pull.names import folded
from handlers.pull.options import Options
from tests.fakes_platform import PROJECT, nifti_label
from tests.fakes_store import FakeStore
from tests.handlers.export_house import House
from tests.handlers.mirror_house import MirrorHouse
from tests.handlers.pull.lakes import File, Lake, Mask, pulled, tree
from tests.seeds import seeds

NASTY = [
    "..", ".", "../../escape", "/etc/passwd", "\\\\host\\share", "C:\\x", "a/b", "a\\b", "a\0b",
    "a" * 5000, "é", "e\u0301", "CON", "con.nii.gz", "NUL", "com1.txt", "aux", "x.", "x ", "x...",
    " x", "~", "~root", "-rf", "\u202egnp.exe", "study", "Study", "STUDY", "ſtudy", "ß", "ss",
    "\ud800", "\n", "\r\n", "\x1b[2J", "$(id)", "`id`", "%2e%2e%2f", "..%2f", "..;", "file:///x",
    "tasks.json", "current.json", "log", "followers", "segmentations", ".groundwire-pull", "*", "?",
    "\uff0e\uff0e\uff0f", "\u2024\u2024/", "a:b", "a|b", "<a>", '"', "", "   ", "\u200b", "..\\..",
    "İ", "i̇", "ﬁ", "fi", "A", "a", "Å", "A\u030a", "\U0001f9e0", "x" * 255, "x" * 256, ".hidden",
]  # fmt: skip

PIECES = ["..", "/", "\\", "\0", "a", "A", "é", ".", " ", "~", "\u202e", "%2f"]


def name(rng: random.Random) -> str:
    if rng.random() < 0.7:
        return rng.choice(NASTY)
    return "".join(rng.choices(PIECES, k=rng.randrange(1, 12)))


def sound(text: str) -> str:
    """As platforms' adapters give it: half a surrogate pair is no text."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def outside(folder: Path, *but: str) -> dict[str, bytes]:
    """Every file below the folder that is not in one of these."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in but
    }


async def copied(store: FakeStore, folder: Path) -> DirectoryStore:
    """The same lake on a real file system."""
    real = DirectoryStore(folder)
    for key, data in store.objects.items():
        await real.create(key, data)
    return real


@pytest.mark.parametrize("seed", seeds())
async def test_no_name_leads_out_of_the_lake_or_meets_another(seed: int, tmp_path: Path) -> None:
    """From the platform's answer to the export's keys, on a real file system."""
    rng, house = random.Random(seed), House()
    names = {sound(name(rng)) or "x" for _ in range(8)}
    for number, task in enumerate(sorted(names)):
        label = labelled(rng, f"{task}-{number}")
        await house.see(task, name=sound(name(rng)), labels=(label,))
    keys = await house.keys()
    assert all(key.startswith(f"{PROJECT}/") for key in keys)
    for key in keys:
        parts = key.split("/")
        assert all(part.isascii() and part.isprintable() for part in parts)
        assert not {"", ".", ".."} & set(parts)
        assert all(len(part) <= 255 for part in parts)
    assert len([key for key in keys if key.endswith("/current.json")]) == len(names)
    (tmp_path / "beside").write_text("here")
    real = await copied(house.store, tmp_path / "lake")
    real.close()
    below = {
        str(p.relative_to(tmp_path / "lake"))
        for p in (tmp_path / "lake").rglob("*.json")
        if p.is_file()
    }
    assert {key for key in keys if key.endswith(".json")} == below
    assert list(outside(tmp_path, "lake")) == [str(tmp_path / "beside")]


def labelled(rng: random.Random, label: str) -> Label:
    made = nifti_label(sound(label))
    series = msgspec.structs.replace(
        made.series[0],
        name=sound(name(rng)),
        segments=(Segment(value=1, category=sound(name(rng))),),
    )
    return msgspec.structs.replace(made, series=(series,))


@pytest.mark.parametrize("seed", seeds())
async def test_no_name_leads_out_of_the_mirror_or_a_pulled_folder(
    seed: int, tmp_path: Path
) -> None:
    """Names that a file system without case or with its own normal form takes for one are two."""
    rng, house = random.Random(seed), MirrorHouse()
    for number in range(4):
        mask = Mask(series=sound(name(rng)), label=f"label-{number}")
        task = f"task-{number}"
        document = {"taskId": task, "name": f"study {number}", "series": []}
        await house.task(task, mask, name=sound(name(rng)) or "x", document=document)
    await house.run()
    before = set(house.fake.objects)
    assert all(key.startswith((f"{PROJECT}/", "followers/")) for key in before)
    real = await copied(house.fake, tmp_path / "lake")
    (tmp_path / "beside").write_text("here")
    folder = tmp_path / "pulled"
    folder.mkdir()
    await pulled(house, folder, Options(paths=rng.choice(["name", "name", "id"])), store=real)
    paths = tree(folder / PROJECT)
    assert len(paths) >= 4
    assert len({folded(path) for path in paths}) == len(paths)
    for part in (part for path in paths for part in path.split("/")):
        assert part == unicodedata.normalize("NFC", part)
        assert part.isprintable()
        assert part[-1] not in ". "
        assert part.partition(".")[0].lower() not in ("con", "nul", "aux", "com1")
    real.close()
    assert list(outside(tmp_path, "lake", "pulled")) == [str(tmp_path / "beside")]


def test_two_project_keys_are_equal_only_for_one_project() -> None:
    keys = {
        layout.project_key("source", sound(one) or "x", unique=unique): (one, unique)
        for one in NASTY
        for unique in (True, False)
    }
    assert len(keys) >= 2 * len({sound(one) for one in NASTY}) - 4
    assert not {"log", "followers", "..", ".", ""} & set(keys)
    assert not any("/" in key or "\\" in key for key in keys)


# an enemy's lake


OUT = [
    "../../escape.nii.gz", "/var/escape.nii.gz", "segmentations/../../escape.nii.gz",
    "segmentations/a/../../../escape", "..\\..\\escape", "segmentations/a\0b", "segmentations//x",
    "segmentations/con/../x", "./x", "segmentations/./x", "segmentations/", "C:/x", "C:\\x",
    "segmentations/x\n", "segmentations/" + "x" * 300, "..", ".", "", "/", ".groundwire-pull/state",
    "tasks.json", "../tasks.json", "segmentations/x.", "~/x", "segmentations/x:y",
    *(f"{tree}/{steps}.nii.gz"
      for tree in ("segmentations", "images", "masks", "geometry")
      for steps in ("../escape", "../../escape", "../../../escape", "a/../../../../escape",
                    "/escape", "..\\..\\escape", "a\0b", "label-1/../../../../escape",
                    "x" * 300, "a:b")),
]  # fmt: skip


KEYS = ["../secret", "/etc/passwd", "../../secret", "\0", "", "log/../x", "../lake/../secret"]


class Enemy(Lake):
    """Writes manifests that nobody who is honest makes, over objects that are there."""

    async def _put(self, task: str, path: str, data: bytes, **told: Any) -> FileRef:
        sha256 = digest(data)
        key = layout.file_key(self.project, task, sha256, "file")
        await self.store.create(key, data)
        return FileRef(path=path, key=key, sha256=sha256, size=len(data), **told)


@pytest.mark.parametrize("path", OUT)
async def test_a_manifest_whose_paths_lead_out_writes_nothing_outside(
    path: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (tmp_path / "beside").write_text("here")
    lake = Enemy()
    await lake.task("good", Mask())
    await lake.task("bad", File(path, b"evil", label="label-1", series="series1"))
    await whatever(lake, folder)
    assert outside(tmp_path, "mine") == {str(tmp_path / "beside"): b"here"}
    assert set(outside(folder, PROJECT)) == set()
    for place in tree(folder / PROJECT) if (folder / PROJECT).exists() else []:
        assert not set(place.split("/")) & {"..", ".", ""}


@pytest.mark.parametrize("seed", seeds())
async def test_whatever_an_enemy_writes_into_a_lake_it_is_pulled_into_its_folder_or_not_at_all(
    seed: int, tmp_path: Path
) -> None:
    """Keys, names, paths and series of pointers and manifests; hashes are made to agree."""
    rng = random.Random(seed)
    for round_ in range(2):
        root = tmp_path / str(round_)
        folder = root / "mine"
        folder.mkdir(parents=True)
        (root / "secret").write_text("secret")
        store = DirectoryStore(root / "lake")
        lake = Enemy(store)
        await lake.task("task-1", Mask())
        spoilt(rng, root / "lake")
        await whatever(lake, folder)
        store.close()
        assert outside(root, "mine", "lake") == {str(root / "secret"): b"secret"}
        assert set(outside(folder, PROJECT)) == set()
        assert b"secret" not in outside(folder).values()


def spoilt(rng: random.Random, lake: Path) -> None:
    """The task's manifest and pointer say what an enemy wants."""
    pointer_file = lake / layout.pointer_key(PROJECT, "task-1")
    pointer: dict[str, Any] = json.loads(pointer_file.read_bytes())
    manifest: dict[str, Any] = json.loads((lake / pointer["manifest"]).read_bytes())
    secret = {"sha256": digest(b"secret"), "size": 6}
    for file in manifest["files"]:
        for field, values in (("path", OUT), ("key", KEYS), ("series", NASTY), ("label", NASTY)):
            if rng.random() < 0.4:
                file[field] = sound(rng.choice(values))
        if rng.random() < 0.3:
            file |= secret
    for holder in (pointer, manifest):
        for field in ("name", "task", "project", "source", "stage"):
            if field in holder and rng.random() < 0.3:
                holder[field] = sound(rng.choice(NASTY))
    data = canonical(manifest)
    honest = layout.manifest_key(PROJECT, "task-1", digest(data))
    (lake / honest).write_bytes(data)
    pointer |= {"manifest_sha256": digest(data), "revision": digest(data)}
    pointer["manifest"] = rng.choice([honest, honest, honest, rng.choice(KEYS)])
    pointer_file.write_bytes(canonical(pointer))


async def whatever(lake: Lake, folder: Path) -> None:
    """A pull may fail as a command may, and in no other way."""
    with contextlib.suppress(GroundwireError):
        await pulled(lake, folder, Options(with_files=True))
