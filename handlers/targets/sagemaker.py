"""The target ``sagemaker``: an execution of a SageMaker pipeline, through boto3.

``StartPipelineExecution`` with a ``ClientRequestToken`` made of the key: for the same token
SageMaker answers with the same execution. botocore's own retries are off; who fires again is
retraining. Credentials come by boto3's usual chain, when the first is needed.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any

from consumer.errors import Permanent, Transient
from handlers.targets.filling import fill_text
from handlers.targets.trigger import Fired, Trigger

MAX_VALUE = 1024  # characters of a parameter, by the API
MAX_NAME = 82  # of an execution

# What botocore's parsers raise for an answer that is no such answer.
_MALFORMED = (AttributeError, KeyError, RecursionError, TypeError, ValueError)

_DENIED = ("target-refused", "denies it: allow sagemaker:StartPipelineExecution")

# Error codes of the API ("Common Errors", and the operation's own) that a person must mend. All
# others pass, or may.
_MENDED = {
    "AccessDeniedException": (
        "target-refused",
        "denies it: allow sagemaker:StartPipelineExecution",
    ),
    "ResourceNotFound": ("target-missing", "knows no such pipeline: look at pipeline and region"),
    "ValidationException": ("target-rejected", "rejects it: look at pipeline and parameters"),
}
_BUSY = frozenset(
    {
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_CREDENTIALS = frozenset(
    {
        "ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "InvalidClientTokenId",
        "InvalidSignatureException", "MissingAuthenticationToken",
        "MissingAuthenticationTokenException", "RequestExpired",
        "UnrecognizedClientException",
    }
)  # fmt: skip


class SageMakerTarget:
    """Implements ``Target``. ``parameters`` holds templates; ``endpoint`` is another API's than
    Amazon's.

    A call that is given up runs on in its thread. There is one thread at a time: who fires again
    waits until it has ended, and asks anew, with the same token.
    """

    def __init__(
        self,
        pipeline: str,
        *,
        parameters: Mapping[str, str],
        region: str = "",
        endpoint: str = "",
        timeout_s: float,
    ) -> None:
        self._pipeline = pipeline
        self._parameters = dict(parameters)
        self._region = region or None
        self._endpoint = endpoint or None
        self._timeout_s = timeout_s
        self._running: Future[Fired] | None = None

    async def fire(self, trigger: Trigger) -> Fired:
        request = self._request(trigger)
        try:
            async with asyncio.timeout(self._timeout_s):
                while self._running is not None and not self._running.done():
                    with suppress(Exception):
                        await asyncio.wrap_future(self._running)
                self._running = _in_a_thread(lambda: self._start(request))
                return await asyncio.wrap_future(self._running)
        except TimeoutError:
            said = f"SageMaker did not answer within {self._timeout_s:g} s"
            raise Transient("target-timeout", said) from None

    def _request(self, trigger: Trigger) -> dict[str, Any]:
        fields = trigger.fields()
        values = {name: fill_text(value, fields) for name, value in self._parameters.items()}
        for name, value in values.items():
            if len(value) > MAX_VALUE:
                said = f"the parameter {name} is over {MAX_VALUE} characters once it is filled in"
                raise Permanent("target-request", said)
        return {
            "PipelineName": self._pipeline,
            "ClientRequestToken": request_token(trigger.key, self._pipeline),
            "PipelineExecutionDisplayName": display_name(trigger.key),
            "PipelineParameters": [{"Name": k, "Value": v} for k, v in values.items()],
        }

    # What follows runs in a thread.

    def _start(self, request: Mapping[str, Any]) -> Fired:
        from botocore import exceptions  # only who has this target pays for it
        from botocore.parsers import ResponseParserError

        try:
            answer = self._connect().start_pipeline_execution(**request)
        except exceptions.ClientError as error:
            raise _explained(error.response) from None
        except exceptions.NoRegionError:
            said = "SageMaker's region is not known: write region, or set AWS_REGION"
            raise Permanent("target-request", said) from None
        except (exceptions.ParamValidationError, exceptions.InvalidRegionError):
            raise _no_request() from None
        except (exceptions.BotoCoreError, OSError) as error:
            raise _unanswered(error) from None
        except (ResponseParserError, *_MALFORMED):
            raise _malformed() from None
        return Fired(reference=_reference(answer.get("PipelineExecutionArn")))

    def _connect(self) -> Any:
        """A client for one call: one that found no credentials would never look again."""
        import boto3.session
        from botocore.config import Config

        patience_s = max(min(self._timeout_s, 60.0), 0.001)
        config = Config(
            connect_timeout=patience_s,
            read_timeout=patience_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        try:
            return boto3.session.Session().client(
                "sagemaker",
                region_name=self._region,
                endpoint_url=self._endpoint,
                config=config,
            )
        except ValueError:  # an endpoint that is no URL
            raise _no_request() from None


def request_token(key: str, pipeline: str) -> str:
    """64 characters, where the API wants 32 to 128: the same for the same key and pipeline."""
    return hashlib.sha256(f"groundwire\n{pipeline}\n{key}".encode()).hexdigest()


def display_name(key: str) -> str:
    """The key in the letters that an execution's name may have."""
    return re.sub(r"[^A-Za-z0-9]+", "-", key).strip("-")[:MAX_NAME].rstrip("-") or "groundwire"


def _reference(arn: object) -> str:
    """Raises ``Transient`` where no execution is named: a proxy's page, perhaps."""
    if not isinstance(arn, str) or not arn:
        raise _malformed()
    return arn if re.fullmatch(r"arn:[A-Za-z0-9:/_-]{1,250}", arn) else ""


def _no_request() -> Permanent:
    said = "SageMaker cannot be asked so: look at pipeline, region and endpoint"
    return Permanent("target-request", said)


def _malformed() -> Transient:
    return Transient("target-answer-malformed", "SageMaker's answer does not name the execution")


def _explained(response: Any) -> Transient | Permanent:
    """By code alone: the texts name accounts and roles."""
    code = str(response.get("Error", {}).get("Code", ""))
    meta = response.get("ResponseMetadata", {})
    status = meta.get("HTTPStatusCode", 0)
    if code in _MENDED:
        reason, said = _MENDED[code]
        return Permanent(reason, f"SageMaker {said}")
    if code in _CREDENTIALS:
        return Transient("target-credentials", "SageMaker does not accept the credentials")
    after_s = _seconds(str(meta.get("HTTPHeaders", {}).get("retry-after", "")))
    if code in _BUSY or status in (429, 503):
        return Transient("target-rate-limited", "SageMaker asks for fewer calls", after_s=after_s)
    named = code if code.isalnum() and len(code) <= 64 else "unnamed"
    return Transient(
        "target-failed", f"SageMaker failed: {named} (status {status})", after_s=after_s
    )


def _unanswered(error: Exception) -> Transient:
    name = type(error).__name__
    if "Credential" in name or "Token" in name or "SSO" in name or "Profile" in name:
        said = "there are no credentials for SageMaker: set AWS_ACCESS_KEY_ID, a profile or a role"
        return Transient("target-credentials", said)
    if "Timeout" in name:
        return Transient("target-timeout", "SageMaker did not answer in time")
    return Transient("target-unreachable", f"SageMaker cannot be reached: {name}")


def _seconds(retry_after: str) -> float | None:
    return min(float(retry_after), 3600.0) if retry_after.isdecimal() else None


def _in_a_thread(call: Callable[[], Fired]) -> Future[Fired]:
    """A daemon's: an API that stalls must not keep the process from ending."""
    answer: Future[Fired] = Future()
    answer.set_running_or_notify_cancel()  # who stops waiting does not stop it

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=work, name="sagemaker", daemon=True).start()
    return answer
