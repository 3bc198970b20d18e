"""The webhooks of a simulated Labelbox: headers, signature, and a body in either version.

What the vendor puts into a workflow webhook is documented nowhere: v1 follows its label webhooks
(``id``, ``dataRow``, ``project``), v2 its sentence that it mimics the export.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Literal, NamedTuple

from consumer.demo.labelbox_rows import (
    Details,
    Json,
    SimulatedLabel,
    SimulatedProject,
    SimulatedRow,
    Step,
    export_row,
)

Event = Literal["LABEL_CREATED", "LABEL_UPDATED", "LABEL_DELETED", "WORKFLOW_ACTION"]


class Webhook(NamedTuple):
    """What is POSTed."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class WebhookStyle:
    """``version`` of the body; ``sha256`` adds the second signature header."""

    version: Literal["v1", "v2"]
    sha256: bool

    def webhook(
        self,
        event: Event,
        delivery_id: str,
        secret: str,
        row: SimulatedRow,
        project: SimulatedProject,
        base: str,
        label: SimulatedLabel | None,
        step: Step | None,
    ) -> Webhook:
        if self.version == "v2":
            content = export_row(row, project, base, Details())
        else:
            content = _v1(row, project, label, step)
        body = json.dumps(content).encode()
        return Webhook(self._headers(event, delivery_id, secret.encode(), body), body)

    def _headers(self, event: str, delivery_id: str, secret: bytes, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "X-Labelbox-Event": event,
            "X-Labelbox-Id": delivery_id,
            "X-Hub-Signature": "sha1=" + hmac.new(secret, body, hashlib.sha1).hexdigest(),
        }
        if self.sha256:
            digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
            headers["X-Hub-Signature-256"] = f"sha256={digest}"
        return headers


def _v1(
    row: SimulatedRow, project: SimulatedProject, label: SimulatedLabel | None, step: Step | None
) -> Json:
    body: Json = {
        "id": label.id if label else row.id,
        "dataRow": {"id": row.id, "externalId": row.global_key},
        "project": {"id": project.id, "name": project.name},
    }
    if label is not None:
        body["createdBy"] = {"email": label.created_by}
        body["updatedAt"] = label.updated_at.isoformat()
    if step is not None:
        body |= {
            "action": step.action,
            "createdAt": step.at.isoformat(timespec="microseconds"),
            "taskName": row.stage,
        }
    return body
