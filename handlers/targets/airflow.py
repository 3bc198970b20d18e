"""The target ``airflow``: a run of a DAG, by the public API of Airflow 3.

``POST /api/v2/dags/{dag}/dagRuns`` with the key as ``dag_run_id``: Airflow answers 409 where there
is a run of that id, so a run is made once however often it is asked for. (Airflow's documentation,
"Airflow public API", and "JWT token" of the authentication it names.)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from consumer.errors import Permanent, Transient
from handlers.targets.call import Answer, Caller, refusal
from handlers.targets.filling import fill_text
from handlers.targets.trigger import Fired, Trigger

_BEGUN = (200, 201)
_MAX_TOKEN = 1 << 14  # characters


class AirflowTarget:
    """Implements ``Target``: with a bearer ``token``, or with ``username`` and ``password``, which
    are exchanged for one at ``POST /auth/token``, again once it has expired.

    ``conf`` holds templates, and is the CloudEvent's data where it is empty.
    """

    def __init__(
        self,
        url: str,
        dag: str,
        *,
        conf: Mapping[str, str],
        token: str = "",
        username: str = "",
        password: str = "",
        timeout_s: float,
    ) -> None:
        if bool(token) == bool(username and password):
            raise ValueError("Airflow needs either a token, or username and password")
        base = url.rstrip("/")
        self._runs_url = f"{base}/api/v2/dags/{quote(dag, safe='')}/dagRuns"
        self._token_url = f"{base}/auth/token"
        self._dag = dag
        self._conf = dict(conf)
        self._login = {"username": username, "password": password} if username else None
        self._token = token
        self._timeout_s = timeout_s
        self._caller = Caller(timeout_s=timeout_s)

    async def close(self) -> None:
        await self._caller.close()

    async def fire(self, trigger: Trigger) -> Fired:
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        known = bool(self._token)
        answer = await self._begin(trigger, deadline)
        if answer.status == 401 and self._login is not None:
            self._token = ""
            if known:  # it may have expired
                answer = await self._begin(trigger, deadline)
        return self._fired(answer, trigger.key)

    async def _begin(self, trigger: Trigger, deadline: float) -> Answer:
        if not self._token:
            self._token = await self._new_token(deadline)
        run = {"dag_run_id": trigger.key, "logical_date": None, "conf": self._filled(trigger)}
        return await self._post(self._runs_url, run, deadline, token=self._token)

    def _filled(self, trigger: Trigger) -> dict[str, Any]:
        if not self._conf:
            data: dict[str, Any] = trigger.event()["data"]
            return data
        fields = trigger.fields()
        return {name: fill_text(value, fields) for name, value in self._conf.items()}

    async def _new_token(self, deadline: float) -> str:
        """Raises ``Permanent`` where Airflow does not give one."""
        answer = await self._post(self._token_url, self._login, deadline)
        if answer.status not in _BEGUN:
            error = refusal(answer)
            if isinstance(error, Transient):
                raise error
            said = f"Airflow gives no token ({answer.status}): look at username and password"
            raise Permanent("target-refused", said)
        token = _member(answer.body, "access_token")
        if not 0 < len(token) <= _MAX_TOKEN or not token.isascii() or not token.isprintable():
            raise Transient("target-answer-malformed", "Airflow's answer holds no access token")
        return token

    async def _post(self, url: str, value: Any, deadline: float, *, token: str = "") -> Answer:
        left = deadline - asyncio.get_running_loop().time()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        body = json.dumps(value).encode()
        return await self._caller.ask("POST", url, headers=headers, body=body, timeout_s=left)

    def _fired(self, answer: Answer, key: str) -> Fired:
        if answer.status == 409:
            return Fired(reference=key, already=True)
        if answer.status in _BEGUN:
            if _member(answer.body, "dag_run_id") != key:  # a proxy's login page, perhaps
                said = "the answer does not name the run: is this Airflow 3?"
                raise Transient("target-answer-malformed", said)
            return Fired(reference=key)
        if answer.status == 404:
            said = f"Airflow knows no DAG {self._dag}, or has no /api/v2: look at url and dag"
            raise Permanent("target-missing", said)
        if answer.status in (400, 422):
            said = f"Airflow answered {answer.status}: the DAG cannot be imported, or refuses conf"
            raise Permanent("target-rejected", said)
        raise refusal(answer)


def _member(body: bytes, name: str) -> str:
    """A text of a JSON object; empty where there is none."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return ""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
