"""What the demo shows: a webhook, its answer, and what changed in lake and log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.text import Text
from rich.tree import Tree

from consumer.demo.script import Post, Scene
from consumer.model import Pointer

MOST = 10  # entries of the log that are shown before the rest is counted
MANY = 6  # lines of one kind that are shown before the rest is counted


class Screen:
    """Prints to a console: in colour on a terminal, plain elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    def scene(self, number: int, scene: Scene) -> None:
        self._console.print()
        self._console.print(Rule(Text(f" {number}. {scene.title} ", style="bold"), align="left"))
        self.say(f"   {scene.watch}", "dim")

    def answers(self, answers: Sequence[tuple[Post, int, str]]) -> None:
        """Each webhook with its answer; the later ones of many are counted."""
        for post, status, body in answers[:MANY]:
            colour = "green" if status == 202 else "red"
            self._line(
                "webhook",
                f"{post.source:9} {_about(post)}",
                f"-> [{colour}]{status}[/] {escape(body)}",
            )
        if len(answers) > MANY:
            statuses = sorted({status for _, status, _ in answers[MANY:]})
            self._line("webhook", f"and {len(answers) - MANY} more", f"-> {statuses}")

    def pointers(self, before: Mapping[str, Pointer], after: Mapping[str, Pointer]) -> None:
        for key, pointer in after.items():
            if before.get(key) == pointer:
                continue
            truth = "[bold green]ground truth[/]" if pointer.ground_truth else "not ground truth"
            if pointer.was_ground_truth and not pointer.ground_truth:
                truth = "[bold red]left the ground truth[/]"
            revision = pointer.revision[:12] if pointer.revision else "none"
            self._line(
                "pointer",
                f"{escape(pointer.name):9} #{pointer.sequence} [bold]{pointer.change}[/]",
                f"stage {escape(pointer.stage or '-')}, revision {revision}, {truth}",
            )

    def files(self, new: Iterable[tuple[str, int]]) -> None:
        masks = [one for one in new if one[0].endswith((".nii.gz", ".png", "annotations.json"))]
        for key, size in masks[:MANY]:
            self._line("file", escape(_short(key)), f"{size:,} bytes")
        if len(masks) > MANY:
            self._line("file", f"and {len(masks) - MANY} more", "")

    def downloads(self, count: int) -> None:
        self._line("masks", f"{count} downloaded from the platforms", "")

    def entries(self, entries: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        for index, entry in entries[:MOST]:
            self._line("log", f"{index:4} {entry['kind']:9}", escape(_entry(entry)))
        if len(entries) > MOST:
            self._line("log", f"and {len(entries) - MOST} more entries", "")
        if not entries:
            self._line("log", "no new entry", "")

    def tree(self, root: str, objects: Iterable[tuple[str, int]]) -> None:
        tree = Tree(Text(root, style="bold"))
        folders: dict[str, Tree] = {"": tree}
        shown: dict[str, int] = {}
        for key, size in objects:
            *parents, name = key.split("/")
            path = ""
            for parent in parents:
                above, path = path, f"{path}{parent}/"
                if path not in folders:
                    folders[path] = folders[above].add(Text(f"{_shorten(parent)}/", style="blue"))
            shown[path] = shown.get(path, 0) + 1
            if shown[path] <= MANY:
                folders[path].add(Text(f"{_shorten(name)}  {size:,}"))
            elif shown[path] == MANY + 1:
                folders[path].add(Text("..."))
        self._console.print(tree)

    def _line(self, kind: str, what: str, result: str) -> None:
        self._console.print(
            f"   [cyan]{kind:8}[/] {what}  {result}", highlight=False, soft_wrap=True
        )


def _about(post: Post) -> str:
    if post.what:
        return post.what
    if post.source == "labelbox":
        return escape(post.headers.get("X-Labelbox-Event", ""))
    events = json.loads(post.body).get("payload", [])
    names = [f"{one['event']} {one['data'].get('stageName', '')}".strip() for one in events]
    return escape(", ".join(names))


def _entry(entry: Mapping[str, Any]) -> str:
    match entry["kind"]:
        case "receipt":
            return f"{entry['source']} {entry['action']} {entry.get('stage') or ''}".rstrip()
        case "history":
            actor = _shorten(entry.get("actor") or "-")
            return f"{entry['type']} at {entry.get('stage') or '-'} by {actor}"
        case "lake":
            return f"{entry['change']}: {entry['old_stage']} -> {entry['stage']}"
        case "decided":
            return f"policy {entry['policy']}: {entry['tasks']} tasks, {entry['reason']}"
        case "snapshot":
            return f"{entry['name']}/{entry['snapshot']}: {entry['tasks']} tasks"
        case "triggered":
            return f"policy {entry['policy']}, decision {entry['decision']}"
    return str(entry["id"])


def _short(key: str) -> str:
    return "/".join(_shorten(part) for part in key.split("/"))


def _shorten(part: str) -> str:
    """Ids and hashes by their beginning; names as they are."""
    long_id = len(part) >= 25 and " " not in part
    return part if not long_id else f"{part[:8]}..{part[-8:] if '.' in part else ''}"
