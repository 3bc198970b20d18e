"""What an S3 server's error codes mean, in plain words and with what to do; pure.

Only codes are looked at: a server's own texts may name accounts, keys and users. The codes are
those of the S3 API reference ("Error responses") and of the servers that speak it.
"""

from __future__ import annotations

from consumer.errors import Permanent, Transient

# What may succeed a moment later, and, for a write, may have succeeded already.
BRIEF = frozenset({"store-busy", "store-failed", "store-disconnected", "store-torn"})
DOUBTFUL = BRIEF | {"store-timeout", "store-slow"}

_PERMISSIONS = {
    "GetObject": "s3:GetObject, and s3:ListBucket on the bucket, without which S3 answers "
    "'denied' for an object that is not there",
    "PutObject": "s3:PutObject",
    "CopyObject": "s3:GetObject and s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "HeadObject": "s3:GetObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListObjectsV2": "s3:ListBucket on the bucket",
}
_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
_REGION = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
_TORN = frozenset({"BadDigest", "IncompleteBody", "InvalidDigest", "XAmzContentSHA256Mismatch"})
_BUSY = frozenset({"RequestLimitExceeded", "SlowDown", "Throttling", "ThrottlingException"})
_UNANSWERED = {
    "store-credentials": "there are no credentials for {where}: set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or a profile or role that boto3 finds",
    "store-timeout": "{where} did not answer in time: look at the server and the network",
    "store-tls": "no trusted TLS connection to {where}: check the endpoint, and AWS_CA_BUNDLE",
    "store-unreachable": "{where} cannot be reached: check the endpoint, the network, the server",
    "store-disconnected": "{where} broke the connection",
    "store-refused": "{where} cannot be asked: check bucket and endpoint in {setting}",
    "store-failed": "asking {where} failed",
}


def unanswered(reason: str, where: str, *, setting: str = "`lake`") -> Transient:
    """The error for a request that the server did not answer."""
    text = _UNANSWERED[reason].format(where=where, setting=setting)
    return Transient(reason, text, shared=True)


def explain(
    code: str,
    status: int,
    *,
    operation: str,
    where: str,
    after_s: float | None = None,
    setting: str = "`lake`",
) -> Transient | Permanent:
    """The error for an S3 error code; ``where`` names the bucket and its server, ``setting``
    what a person must correct where the bucket is wrong.

    ``Permanent`` only for what can never work; what a person can mend is tried again until then.
    """
    if code == "KeyTooLongError":
        return Permanent("key-too-long", "an object key is longer than the store allows")
    if code == "EntityTooLarge":
        return Permanent("object-too-large", "an object is larger than the store allows")
    named = _named(code, operation, where, setting)
    reason, text = named or _by_status(code, status, operation, where)
    return Transient(reason, text, after_s=after_s, shared=reason != "store-torn")


def _named(code: str, operation: str, where: str, setting: str) -> tuple[str, str] | None:
    if code == "NoSuchBucket":
        return (
            "store-bucket-missing",
            f"there is no {where}: create the bucket, or correct {setting}",
        )
    if code == "InvalidBucketName":
        return "store-bucket-missing", f"{where} is no valid bucket name: correct {setting}"
    if code in _CREDENTIALS:
        return "store-credentials", (
            f"{where} does not accept the credentials (unknown, wrong or expired): renew "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile or role in use"
        )
    if code in ("RequestTimeTooSkewed", "RequestExpired"):
        return "store-clock", "this machine's clock is too far off for the store: set it"
    if code in _REGION:
        return "store-region", f"{where} is in another region: set AWS_REGION to the bucket's"
    if code in _TORN:
        return "store-torn", "the store refused an upload that was damaged on its way"
    if code in _BUSY:
        return "store-busy", f"{where} asks for fewer requests"
    if code == "NotImplemented":
        return "store-not-conditional", (
            f"{where} does not know a request that is needed ({operation}, perhaps its conditional "
            "form): use a server that enforces If-Match and If-None-Match"
        )
    return None


def _by_status(code: str, status: int, operation: str, where: str) -> tuple[str, str]:
    if status in (401, 403):
        needed = _PERMISSIONS.get(operation, operation)
        return "store-denied", f"{where} denies {operation}: allow the credentials {needed}"
    if status in (429, 503):
        return "store-busy", f"{where} is busy or starting (status {status})"
    if status >= 500 or code == "RequestTimeout":
        return "store-failed", f"{where} failed (status {status})"
    known = code if code.isalnum() and len(code) <= 64 else "unnamed"
    return "store-refused", f"{where} refused {operation}: {known} (status {status})"
