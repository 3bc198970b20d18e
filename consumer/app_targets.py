"""A policy's target, composed: the section of the settings becomes what is fired."""

from __future__ import annotations

import os
from collections.abc import Mapping

from consumer.app_adapters import Close
from consumer.settings import ConfigurationError
from consumer.settings_retrain import (
    AirflowTarget,
    CommandTarget,
    HttpTarget,
    SageMakerTarget,
    WebhookTarget,
    signing_key,
)
from consumer.settings_retrain import Target as TargetSection
from consumer.settings_values import Secret
from handlers.targets import airflow, command, http, sagemaker, webhook
from handlers.targets.trigger import Target


def make_target(
    section: TargetSection,
    closing: list[Close],
    *,
    key: str = "target",
    environ: Mapping[str, str] = os.environ,
) -> Target:
    """Nothing is connected to yet; what closes the target is added to ``closing``. ``key`` names
    the section in a `ConfigurationError`, which is raised for what could never be fired."""
    try:
        return _made(section, closing, environ)
    except ValueError as error:
        raise ConfigurationError([f"{key}: {error}"]) from None


def _made(section: TargetSection, closing: list[Close], environ: Mapping[str, str]) -> Target:
    match section:
        case WebhookTarget():
            secrets = [one for one in (section.secret, section.old_secret) if one is not None]
            signed = webhook.WebhookTarget(
                section.url,
                keys=[signing_key(one) for one in secrets],
                timeout_s=section.timeout_s,
            )
            closing.append(signed.close)
            return signed
        case HttpTarget():
            secret_headers = section.secret_headers.items()
            asked = http.HttpTarget(
                section.url,
                method=section.method,
                headers=section.headers,
                secret_headers={name: value.reveal() for name, value in secret_headers},
                body=section.body,
                success=section.success,
                timeout_s=section.timeout_s,
            )
            closing.append(asked.close)
            return asked
        case AirflowTarget():
            return _airflow(section, closing)
        case SageMakerTarget():
            return sagemaker.SageMakerTarget(
                section.pipeline,
                parameters=section.parameters,
                region=section.region,
                endpoint=section.endpoint,
                timeout_s=section.timeout_s,
            )
        case CommandTarget():
            return command.CommandTarget(
                section.command, environ=environ, timeout_s=section.timeout_s
            )


def _airflow(section: AirflowTarget, closing: list[Close]) -> Target:
    token = _revealed(section.token)
    made = airflow.AirflowTarget(
        section.url,
        section.dag,
        conf=section.conf,
        token=token,
        username="" if token else section.username,
        password="" if token else _revealed(section.password),
        timeout_s=section.timeout_s,
    )
    closing.append(made.close)
    return made


def _revealed(secret: Secret | None) -> str:
    return secret.reveal() if secret else ""
