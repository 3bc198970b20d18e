"""What RedBrick says happened to a task, and what asking costs."""

from __future__ import annotations

import gzip
from datetime import timedelta

from consumer.demo.redbrick import (
    Drawing,
    Fault,
    Instance,
    Kind,
    SimulatedRedBrick,
)
from consumer.model import Action, EventType, TaskSnapshot
from tests.consumer.platforms.redbrick_peer import (
    Clock,
    connected,
    key,
    only_label,
    snapshot,
)


async def test_history_says_who_did_what_and_what_it_means() -> None:
    simulator = SimulatedRedBrick(reviews=2)
    task_id = simulator.create_task("study01")
    simulator.label(task_id, by="ben")
    simulator.reject(task_id, by="cleo")
    simulator.label(task_id, by="dora")
    simulator.approve(task_id, by="cleo")
    simulator.correct(task_id, by="ada")
    simulator.move(task_id, "Label", by="ada")
    history = (await snapshot(simulator, task_id)).history
    names = {user.user_id: name for name, user in simulator.users.items()}
    told = [
        (item.type, item.action, item.stage, names[item.actor or ""], item.final)
        for item in history
        if item.workflow
    ]
    assert told == [
        (EventType.CREATED, Action.CREATE, None, "ada", False),
        (EventType.SUBMITTED, Action.MOVE, "Label", "ben", False),
        (EventType.REJECTED, Action.REJECT, "Review_1", "cleo", False),
        (EventType.SUBMITTED, Action.REWORK, "Label", "dora", False),
        (EventType.ACCEPTED, Action.APPROVE, "Review_1", "cleo", False),
        (EventType.CORRECTED, Action.APPROVE, "Review_2", "ada", True),
        (EventType.MOVED, Action.MOVE, "END", "ada", False),
    ]
    assert [item.at for item in history] == sorted(item.at for item in history)


async def test_items_that_may_go_away_are_not_workflow() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.assign(task_id, "ben")
    simulator.assign(task_id, "dora")
    simulator.assign(task_id)
    comment = simulator.comment(task_id, "the lower pole is missing")
    simulator.skip(task_id)
    items = (await snapshot(simulator, task_id)).history
    assert {item.type for item in items if not item.workflow} == {
        EventType.ASSIGNED,
        EventType.REASSIGNED,
        EventType.UNASSIGNED,
        EventType.COMMENT_ADDED,
        EventType.SKIPPED,
    }
    simulator.delete_comment(task_id, comment)
    later = (await snapshot(simulator, task_id)).history
    assert {item.id for item in items} > {item.id for item in later}


async def test_an_item_keeps_its_id_when_people_change_their_names() -> None:
    def story(email: str) -> SimulatedRedBrick:
        simulator = SimulatedRedBrick()
        old = simulator.users["ben"]
        simulator.users["ben"] = type(old)(old.user_id, email, "Benjamin")
        simulator.comment(simulator.create_task("study01"), "a", by="ben")
        return simulator

    ids = []
    for simulator in (story("ben@hospital.example"), story("b@elsewhere.example")):
        (task_id,) = simulator.projects[simulator.project_id].tasks
        ids.append([item.id for item in (await snapshot(simulator, task_id)).history])
    assert ids[0] == ids[1]


async def test_no_history_item_names_a_person_or_quotes_a_comment() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    simulator.comment(task_id, "patient Doe")
    text = repr((await snapshot(simulator, task_id)).history)
    assert "hospital.example" not in text
    assert "Doe" not in text


async def test_an_edit_of_ground_truth_is_an_update() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    simulator.approve(task_id)
    version = simulator.label(task_id, by="dora")
    task = await snapshot(simulator, task_id)
    assert only_label(task).version == version
    assert (task.history[-1].type, task.history[-1].action) == (
        EventType.GROUND_TRUTH_EDITED,
        Action.UPDATE,
    )


async def test_a_stale_answer_lacks_history_that_a_later_one_has() -> None:
    simulator = SimulatedRedBrick()
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    simulator.approve(task_id)
    simulator.faults.add("taskSDK", Fault(Kind.STALE))
    async with connected(simulator) as platform:
        asked = key(simulator, task_id)
        stale, current = [(await platform.fetch([asked]))[asked] for _ in range(2)]
    assert isinstance(stale, TaskSnapshot)
    assert isinstance(current, TaskSnapshot)
    assert {item.id for item in stale.history} < {item.id for item in current.history}
    assert (stale.active_at or "") < (current.active_at or "")


async def test_many_tasks_cost_one_query_each_and_the_project_one() -> None:
    simulator = SimulatedRedBrick()
    tasks = [simulator.create_task(f"study{n}") for n in range(20)]
    async with connected(simulator, clock=Clock()) as platform:
        for _ in range(3):
            answers = await platform.fetch([key(simulator, task) for task in tasks])
    assert [a.name for a in answers.values() if isinstance(a, TaskSnapshot)] == [
        f"study{n}" for n in range(20)
    ]
    assert simulator.counters == {"taskSDK": 60, "getProjectSDK": 1}


async def test_the_project_is_asked_for_again_after_a_minute() -> None:
    simulator, clock = SimulatedRedBrick(), Clock()
    asked = key(simulator, simulator.create_task("study01"))
    async with connected(simulator, clock=clock) as platform:
        for seconds in (0, 59, 1):
            clock.now += timedelta(seconds=seconds)
            await platform.fetch([asked])
    assert simulator.counters["getProjectSDK"] == 2


async def test_a_stage_move_downloads_no_labels_file_again() -> None:
    simulator = SimulatedRedBrick(labels_in_files=True)
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    async with connected(simulator) as platform:
        await platform.fetch([key(simulator, task_id)])
        simulator.approve(task_id)
        await platform.fetch([key(simulator, task_id)])
    assert simulator.counters["other GET"] == 1


async def test_a_class_that_the_known_taxonomy_lacks_is_looked_up_anew() -> None:
    simulator = SimulatedRedBrick(labels_in_files=True)
    task_id = simulator.create_task("study01")
    async with connected(simulator, clock=Clock()) as platform:
        asked = key(simulator, task_id)
        await platform.fetch([asked])
        kinds = simulator.projects[simulator.project_id].taxonomy["objectTypes"]
        kinds.append({**kinds[0], "category": "spleen", "classId": 9})
        simulator.label(task_id, [Drawing(0, (Instance(1, 9),))])
        task = (await platform.fetch([asked]))[asked]
    assert isinstance(task, TaskSnapshot)
    assert only_label(task).series[0].segments[0].category == "spleen"


async def test_labels_that_the_storage_keeps_gzipped_are_read() -> None:
    simulator = SimulatedRedBrick(labels_in_files=True)
    task_id = simulator.create_task("study01")
    simulator.label(task_id)
    path = next(path for path in simulator.files if path.endswith("labels.json"))
    simulator.files[path] = gzip.compress(simulator.files[path])
    assert only_label(await snapshot(simulator, task_id)).series[0].segments[0].category == "liver"
