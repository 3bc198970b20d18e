"""What every store refuses before it does anything: keys that could lead elsewhere, and sizes.

A key that passes is a relative path of plain components; it means the same object in a folder and
in a bucket, and nothing outside of either.
"""

from __future__ import annotations

from consumer.errors import Permanent

MAX_KEY_BYTES = 1024  # of UTF-8, the store's own prefix included: the limit of S3
MAX_COMPONENT_BYTES = 255  # of UTF-8: the limit of the usual file systems
MAX_OBJECT_BYTES = 5 * 1024**3  # what S3 takes in one request
MAX_UPLOAD_BYTES = 1 << 40  # of a file that is uploaded
RESERVED = ".groundwire"  # the top-level folder where a directory keeps its locks


def check_key(key: str, *, prefix_bytes: int = 0) -> list[str]:
    """The key's components. Raises ``Permanent`` (``key-unsafe``, ``key-too-long``)."""
    try:
        encoded = key.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Permanent("key-unsafe", "an object key holds half a character") from error
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise Permanent("key-unsafe", "an object key has an empty component, '.' or '..'")
    if parts[0] == RESERVED:
        raise Permanent("key-unsafe", f"object keys may not begin with {RESERVED}/")
    if any(byte < 0x20 or byte in (0x5C, 0x7F) for byte in encoded):
        raise Permanent("key-unsafe", "an object key holds a control character or a backslash")
    if len(encoded) + prefix_bytes > MAX_KEY_BYTES:
        raise Permanent("key-too-long", f"an object key is longer than {MAX_KEY_BYTES} bytes")
    if any(len(part.encode("utf-8")) > MAX_COMPONENT_BYTES for part in parts):
        raise Permanent(
            "key-too-long", f"a component of an object key is over {MAX_COMPONENT_BYTES} bytes"
        )
    return parts


def check_prefix(prefix: str, *, prefix_bytes: int = 0) -> list[str]:
    """The components of a listing's prefix, which is empty or ends in ``/``."""
    if not prefix:
        return []
    if not prefix.endswith("/"):
        raise Permanent("key-unsafe", "a listing's prefix ends in '/'")
    return check_key(prefix[:-1], prefix_bytes=prefix_bytes)


def check_size(size_bytes: int, limit_bytes: int) -> None:
    """Raises ``Permanent`` (``object-too-large``)."""
    if size_bytes > limit_bytes:
        raise Permanent("object-too-large", f"an object is larger than {limit_bytes} bytes")
