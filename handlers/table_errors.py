"""What delta-rs raises, as errors of ours.

Its texts hold addresses, keys and what servers said, so none of them goes on: they are only looked
at to tell a store that fails from a table that is damaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    DeltaProtocolError,
    SchemaMismatchError,
    TableNotFoundError,
)

from consumer.errors import GroundwireError, Permanent, Transient

ANEW = "move it away and it is built anew from the log"

_OF_THE_STORE = (
    "generic s3 error", "localfilesystem error", "error performing", "http error",
    "necessary privileges", "error sending request", "no space left", "disk quota",
)  # fmt: skip
_DENIED = ("necessary privileges", "permission denied", "403 forbidden", "401 unauthorized")


class Gone(Exception):
    """There is no table."""


class Moved(Exception):
    """Somebody else committed first: nothing of ours was written, or its answer was lost."""


@contextmanager
def ours(doing: str) -> Iterator[None]:
    """Raises `Gone`, `Moved`, ``Transient`` and ``Permanent`` for what delta-rs raises, its panics
    included; ``doing`` is for a person: reading, committing."""
    try:
        yield
    except (GroundwireError, Gone, Moved):
        raise
    except TableNotFoundError:
        raise Gone from None
    except CommitFailedError as error:
        if "unsupported" in str(error).lower():
            raise _unsupported() from None
        raise Moved from None
    except Exception as error:
        raise _explained(error, doing) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise Transient("table-crashed", f"{doing} the table, delta-rs crashed") from None


def _explained(error: Exception, doing: str) -> GroundwireError | Moved:
    text = str(error).lower()
    if isinstance(error, DeltaProtocolError) or "unsupported" in text:
        return _unsupported()
    if isinstance(error, SchemaMismatchError):
        return Permanent("table-schema-changed", f"the table has other columns than ours: {ANEW}")
    if any(sign in text for sign in _DENIED):
        said = "the table's place refuses us: see that its credentials and rights are the lake's"
        return Transient("table-denied", said, shared=True)
    if isinstance(error, OSError) or any(sign in text for sign in _OF_THE_STORE):
        said = f"{doing} the table, its store failed: look at the store, the region, the network"
        return Transient("table-store", said, shared=True)
    if "invalid table version" in text:  # its log is gone since it was opened
        return Moved()
    if "already exists" in text:
        return Moved()
    if isinstance(error, DeltaError):
        return Permanent("table-damaged", f"the table is damaged: {ANEW}")
    return Transient("table-failed", f"{doing} the table failed with {type(error).__name__}")


def _unsupported() -> Permanent:
    said = "somebody gave the table features that this version of delta-rs does not have: use"
    return Permanent("table-unsupported", f"{said} a newer one, or {ANEW}")
