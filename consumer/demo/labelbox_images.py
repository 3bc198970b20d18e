"""The images that a simulated Labelbox serves in place of a customer's storage."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from consumer.demo.labelbox_rows import SimulatedRow


def served(row: SimulatedRow | None) -> bytes | None:
    """What lies behind the row's ``row_data``: one file, or an archive of several."""
    if row is None or not row.images:
        return None
    return next(iter(row.images.values())) if len(row.images) == 1 else zipped(row.images)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """The same archive for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
