"""What a platform answers about many tasks: one answer for each, and one task's failure its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from consumer.errors import Permanent, Transient
from consumer.model import Missing, TaskKey, TaskSnapshot
from consumer.ports import Platform, Ports, Work
from handlers.privacy import without_addresses

SHARED_IN_A_ROW = 8  # tasks asked alone

Answer = TaskSnapshot | Missing | Transient | Permanent


async def fetch_apart(
    works: Mapping[TaskKey, Sequence[Work]], ports: Ports
) -> dict[TaskKey, Answer]:
    """The answers about tasks of one source, failures first: whatever comes out well after them
    shows that the platform is there. What failed before is not asked for together with what did
    not, which it would delay again."""
    fresh = [key for key, some in works.items() if all(work.attempt == 1 for work in some)]
    tried = [key for key in works if key not in set(fresh)]
    answers: dict[TaskKey, Answer] = {}
    for group in (fresh, tried):
        answers |= await fetch(group, ports) if group else {}
    failed = [key for key, answer in answers.items() if _is_failure(answer)]
    return {**{key: answers[key] for key in failed}, **answers}


async def fetch(keys: Sequence[TaskKey], ports: Ports) -> dict[TaskKey, Answer]:
    """One answer for each task. A group that fails is halved until the culprit stands alone.

    A failure that all would share (credentials, outage) may be one task's doing all the same: when
    the group's first or last task is answered alone, the platform is there, and the others are
    halved, too. When neither is, or at a rate limit, nobody else is asked.
    """
    platform = ports.platforms.get(keys[0].source)
    if platform is None:
        gone = Permanent("unknown-source", f"no [sources.{keys[0].source}] is configured")
        return dict.fromkeys(keys, gone)
    found = await _ask(keys, platform, ports)
    if isinstance(found, dict):
        return found
    ends: dict[TaskKey, Answer] = {}
    if len(keys) > 1 and _is_shared(found) and not _is_rate_limit(found):
        for key in (keys[0], keys[-1]):
            answer = await _ask([key], platform, ports)
            ends |= answer if isinstance(answer, dict) else {key: answer}
    if len(keys) == 1 or (_is_shared(found) and all(map(_is_shared, ends.values()))):
        return {**dict.fromkeys(keys, found), **ends}
    return {**ends, **await _halved([key for key in keys if key not in ends], platform, ports)}


def crash(error: Exception) -> Transient:
    """One task's surprise is its own, and is seen in the log lines."""
    crash = Transient("export-crashed", f"unexpected {type(error).__name__}")
    crash.__cause__ = error
    return crash


async def _halved(
    keys: Sequence[TaskKey], platform: Platform, ports: Ports
) -> dict[TaskKey, Answer]:
    """The answers of a platform that is there; unless so many tasks in a row have a failure that
    all would share that it must have gone meanwhile."""
    answers: dict[TaskKey, Answer] = {}
    waiting, in_a_row = list(_halves(keys)), 0
    while waiting:
        group = waiting.pop()
        found = await _ask(group, platform, ports)
        if isinstance(found, dict):
            answers |= found
            in_a_row = 0
        elif len(group) > 1 and not _is_rate_limit(found):
            waiting += _halves(group)
        else:
            answers |= dict.fromkeys(group, found)
            in_a_row += _is_shared(found)
            if in_a_row >= SHARED_IN_A_ROW or _is_rate_limit(found):
                return answers | {key: found for left in waiting for key in left}
    return answers


async def _ask(
    keys: Sequence[TaskKey], platform: Platform, ports: Ports
) -> dict[TaskKey, Answer] | Transient | Permanent:
    """The tasks' answers, or why the request as a whole failed."""
    try:
        answers: dict[TaskKey, Answer] = dict(await platform.fetch(keys))
    except (Transient, Permanent) as error:
        return error
    except Exception as error:  # what nobody foresaw is halved like the rest
        return crash(error)
    unanswered = Transient("no-answer", "the platform's answer leaves the task out")
    return {key: _private(answers.get(key, unanswered), ports) for key in keys}


def _halves(keys: Sequence[TaskKey]) -> Iterator[Sequence[TaskKey]]:
    middle = len(keys) // 2
    return (half for half in (keys[middle:], keys[:middle]) if half)


def _is_failure(answer: Answer) -> bool:
    return isinstance(answer, Transient | Permanent)


def _is_shared(answer: Answer) -> bool:
    return isinstance(answer, Transient) and answer.shared


def _is_rate_limit(answer: Answer) -> bool:
    return isinstance(answer, Transient) and answer.reason.endswith("rate-limited")


def _private(answer: Answer, ports: Ports) -> Answer:
    """As the rules want it; whatever is written or logged comes of this."""
    if not isinstance(answer, TaskSnapshot):
        return answer
    try:
        return without_addresses(answer, ports.rules[answer.source], ports.email_key)
    except Permanent as error:
        return error
    except Exception as error:
        return crash(error)
