"""Which words are one of our commands, so that what is written about them stays true."""

from __future__ import annotations

from typing import Any

import typer.main

from consumer.cli import app


def is_command(words: list[str]) -> bool:
    """Whether the words begin with one of our commands, its subcommand included."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if word.startswith("-") or not getattr(command, "commands", None):
            break
        if word not in command.commands:
            return False
        command = command.commands[word]
    options = {opt for param in command.params for opt in param.opts}
    return all(word in options for word in words if word.startswith("--"))
