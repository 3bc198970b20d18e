"""Snapshots: the ground truth as it was at one size of the log, written down once for ever.

A snapshot is a folder ``snapshots/{name}/{id}/`` of immutable objects; its ``snapshot.json`` is
stored last, so whoever sees it finds the whole.
"""
