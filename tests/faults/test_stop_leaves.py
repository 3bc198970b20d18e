"""When all has stopped in order, the process is gone: the interpreter's own end takes no time."""

from __future__ import annotations

import os
from pathlib import Path

from consumer.stores.directory import DirectoryStore
from tests.end_to_end.house import house

SLOW_END = "import atexit, time\natexit.register(time.sleep, 60)\n"


async def test_an_interpreter_that_is_slow_to_end_holds_up_no_stop(tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW_END)
    path = os.pathsep.join([str(tmp_path / "slow"), os.environ.get("PYTHONPATH", "")])
    store = DirectoryStore(tmp_path / "lake")
    async with house(tmp_path, store, environment={"PYTHONPATH": path}) as place:
        place.start("run", "run")
        await place.listening()
        assert await place.stop("run") == 0
        said = (tmp_path / "run.log").read_text()
    assert '"stopped"' in said.splitlines()[-1]
    assert "not stopped in time" not in said
