"""A changed [export] setting takes effect on each task when it is next seen."""

from __future__ import annotations

from pathlib import Path

from consumer.demo.redbrick import Drawing, SeriesSpec
from consumer.model import Pointer
from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import House, house, until


async def started_with(place: House, when: str) -> None:
    if "run" in place.processes:
        assert await place.stop("run") == 0
    place.environment = {**place.environment, "GROUNDWIRE_EXPORT__WHEN": when}
    place.start("run", "run")
    await place.listening()


async def seen_again(place: House, task_id: str, sequence: int) -> Pointer:
    """The pointer after the task's last webhook came once more, at its ``sequence``-th move."""
    await place.post_all(place.cast.sent[-1:])
    found: list[Pointer] = []

    async def moved() -> str | None:
        pointer = await place.pointer(place.cast.redbrick.project_id, task_id)
        found[:] = [pointer] if pointer else []
        return None if pointer and pointer.sequence >= sequence else f"still at {pointer}"

    await until(moved, within_s=30)
    return found[0]


async def test_files_go_and_come_back_with_the_setting_and_nothing_is_downloaded_again(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, DirectoryStore(tmp_path / "lake")) as place:
        await started_with(place, "always")
        redbrick = place.cast.redbrick
        task_id = redbrick.create_task("study", [SeriesSpec(name="ct", dimensions=(12, 10, 6))])
        redbrick.label(task_id, [Drawing(0)])
        place.cast.sent = place.webhooks()
        first = await seen_again(place, task_id, 1)
        assert first.revision is not None

        await started_with(place, "ground-truth")
        without = await seen_again(place, task_id, first.sequence + 1)
        assert (without.change, without.revision) == ("retracted", None)

        await started_with(place, "always")
        again = await seen_again(place, task_id, without.sequence + 1)
        assert again.change == "exported"
        assert again.revision == first.revision
        assert place.downloads() == 1
