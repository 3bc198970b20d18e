"""Recomputes a log and its lake from nothing but the files and, at best, a public key.

Nothing in the store is believed: each byte either follows from the entries, which the signed root
fixes, or is named by its hash in them.
"""

from __future__ import annotations

from dataclasses import replace

from consumer.log.check_head import check_head
from consumer.log.check_lake import LakeCheck
from consumer.log.check_tree import TreeCheck
from consumer.log.finding import Counts, Findings, Verification
from consumer.ports import Store


async def verify(
    store: Store, *, vkey: str | None = None, older: bytes | None = None, lake: bool = True
) -> Verification:
    """Checks everything and tells all that is wrong.

    ``vkey`` is the log's public key from outside the store; without it the signature is checked
    with the key that the store holds, which proves nothing about the origin. ``older`` is a
    checkpoint kept from before: the log must extend it. ``lake`` False leaves out the manifests,
    files and pointers.

    Raises ``ValueError`` when ``vkey`` or ``older`` cannot be read, and what the store raises.
    """
    findings = Findings()
    claim = await check_head(store, findings, vkey=vkey, older=older)
    if claim is None:
        return _nothing(findings, origin_checked=vkey is not None)
    tree = TreeCheck(store, claim.tree, claim.older, findings)
    content = LakeCheck(store, findings)
    entries = 0
    async for entry in tree.entries():
        entries += 1
        content.add(entry)
    unreferenced, counts = await content.finish() if lake else ([], Counts())
    strays = [key for key in unreferenced if key != claim.stage] + tree.strays
    return Verification(
        size=claim.tree.size,
        root=claim.tree.root.hex(),
        origin=claim.tree.origin,
        origin_checked=vkey is not None,
        prefix_checked=claim.older.size if claim.older else None,
        findings=tuple(findings.kept),
        finding_count=findings.count,
        notes=tuple(findings.notes),
        unreferenced=tuple(strays),
        counts=replace(counts, entries=entries),
        ahead=findings.ahead,
    )


def _nothing(findings: Findings, *, origin_checked: bool) -> Verification:
    return Verification(
        size=0,
        root="",
        origin="",
        origin_checked=origin_checked,
        prefix_checked=None,
        findings=tuple(findings.kept),
        finding_count=findings.count,
    )
