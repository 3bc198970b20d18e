"""From the chosen tasks' manifests to a whole plan: every layout's files, and its index."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from consumer.errors import Permanent, Transient
from consumer.model import Manifest, canonical, digest
from handlers.pull import documents, masks, monai, nnunet, training
from handlers.pull.content import Contents
from handlers.pull.current import Problem, read_manifest
from handlers.pull.names import clashing, folded
from handlers.pull.options import Options
from handlers.pull.plan import TaskPlan
from handlers.pull.select import Facts
from handlers.pull.together import each


@dataclass(slots=True)
class Whole:
    """Everything that is to be in the folder. ``documents`` are the tasks' documents, as read."""

    options: Options
    plans: list[TaskPlan]
    index: str = documents.TASKS
    cases: list[training.Case] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def made_of(self, there: Collection[str]) -> str:
        """Equal for equal indices of those tasks that are there, by their places."""
        told = [
            [plan.document.sha256 if plan.document else "", sorted(plan.names.items()),
             sorted(plan.images.items()), plan.task.truth_label]
            for plan in self.plans if plan.task.place in there
        ]  # fmt: skip
        cases = [[case.name, case.image.sha256, case.label.sha256]
                 for case in self.cases if case.plan.task.place in there]  # fmt: skip
        kind = [self.index, self.options.layout, self.options.channel, self.options.format]
        flags = [self.options.only_truth, sorted(self.classes.items())]
        return digest(canonical(_plain([kind, flags, told, cases])))

    async def chunks(self, there: Collection[str], contents: Contents) -> AsyncIterator[bytes]:
        """The index of those tasks that are there."""
        if self.options.layout != "redbrick":
            cases = [case for case in self.cases if case.plan.task.place in there]
            write = nnunet.index if self.options.layout == "nnunet" else monai.index
            yield write(cases, self.classes, self.options.channel)
            return
        number = 0
        for plan in self.plans:
            if plan.task.place in there and plan.document is not None:
                data = await contents.read(plan.document.key, plan.document.sha256)
                document = documents.parsed(data)
                yield documents.joined(self.index, number)
                yield documents.localized(document, plan, self.options)
                if self.index == documents.ROWS:
                    yield b"\n"
                number += 1
        yield documents.ending(self.index, number)


async def planned(
    chosen: Sequence[Facts],
    folders: Mapping[str, str],
    options: Options,
    contents: Contents,
) -> Whole:
    """Reads what manifests and documents are new. A task whose own cannot be read is a problem."""
    found: dict[str, tuple[Manifest, TaskPlan]] = {}
    problems: list[Problem] = []

    async def one(task: Facts) -> None:
        folder = folders[task.place]
        try:
            manifest = await read_manifest(task, contents)
            plan = TaskPlan(task, folder)
            if options.layout == "redbrick":
                plan = masks.plan_task(task, manifest, folder, options)
                if plan.document is not None:
                    await contents.bring(plan.document.key, plan.document.sha256)
            found[task.place] = (manifest, plan)
        except (Transient, Permanent) as error:
            if isinstance(error, Transient) and error.shared:
                raise
            problems.append(Problem(folder, error.reason, error.message, task.place))

    await each(chosen, one)
    ordered = [found[task.place] for task in chosen if task.place in found]
    ordered.sort(key=lambda pair: pair[1].folder)
    plans = [plan for _, plan in ordered]
    whole = Whole(options, plans, problems=problems)
    if options.layout != "redbrick":
        _add_cases(whole, ordered)
    elif await _are_rows(plans, contents):
        whole.index = documents.ROWS
    _refuse_in_vain(plans)
    whole.problems += [problem for plan in plans for problem in plan.refused]
    whole.plans = [plan for plan in plans if not plan.lacks_masks]
    _check(whole)
    return whole


async def _are_rows(plans: Sequence[TaskPlan], contents: Contents) -> bool:
    """Whether it is a project of Labelbox; one project is of one platform."""
    for plan in plans:
        if plan.document is not None:
            data = await contents.read(plan.document.key, plan.document.sha256)
            return documents.is_row(documents.parsed(data))
    return False


def _refuse_in_vain(plans: Sequence[TaskPlan]) -> None:
    """Nothing is touched when what was asked for is held of no task at all. Raises ``Permanent``
    with the first reason."""
    if plans and all(plan.refused for plan in plans):
        first = plans[0].refused[0]
        raise Permanent(first.reason, f"{first.task}: {first.message} (no task can be pulled so)")


def _add_cases(whole: Whole, ordered: Sequence[tuple[Manifest, TaskPlan]]) -> None:
    add: Callable[[Sequence[training.Case], Mapping[str, int]], None] = nnunet.add_jobs
    whole.index = nnunet.INDEX
    if whole.options.layout == "monai":
        add, whole.index = monai.add_jobs, monai.INDEX
    cases = [
        case for manifest, plan in ordered for case in training.cases_of(plan.task, manifest, plan)
    ]
    whole.cases = training.distinctly(cases)
    whole.classes = training.classes_of(whole.cases)
    add(whole.cases, whole.classes)


def _check(whole: Whole) -> None:
    """No file lies where another needs a folder, or where another lies. Raises ``Permanent``
    (``path-collides``)."""
    paths = [path for plan in whole.plans for path in plan.outputs]
    taken = {folded(path) for path in paths}
    clash = clashing(paths, taken.__contains__)
    if clash is not None or len(taken) < len(paths):
        raise Permanent("path-collides", f"two files would be in each other's way: {clash or ''}")


def _plain(value: object) -> object:
    """Tuples as lists, which is what canonical JSON knows."""
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
