"""Just enough GraphQL for a simulated server: read a query's selections, and give what it asks
for and nothing else. A field that the server does not have is an error, as on a real one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r'[\s,]+|#[^\n]*|(\.\.\.|[{}():!$=@\[\]]|"[^"\n]*"|-?\d+(?:\.\d+)?|\w+)')
_LITERALS = {"true": True, "false": False, "null": None}


class QueryError(Exception):
    """The query is not one that this server can answer: HTTP 400."""


@dataclass(frozen=True, slots=True)
class Field:
    """One selected field, or an inline fragment when ``on`` names a type."""

    name: str
    alias: str
    arguments: tuple[tuple[str, Any], ...] = ()
    selection: tuple[Field, ...] = ()
    on: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """A parsed query: its name counts, its selection is answered."""

    name: str
    selection: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    name: str


Resolver = Callable[[Mapping[str, Any]], Any]


def parse(query: str) -> Operation:
    """Raises `QueryError` when the text is not one operation."""
    try:
        return _Parser(query).operation()
    except IndexError as error:
        raise QueryError("Syntax Error: unexpected end") from error


def select(value: Any, selection: tuple[Field, ...], variables: Mapping[str, Any]) -> Any:
    """What the selection asks of a value: dicts by field, lists item by item, callables with their
    arguments. Raises `QueryError` for a field that is not there."""
    if value is None or (not selection and not isinstance(value, dict)):
        return value
    if isinstance(value, list):
        return [select(item, selection, variables) for item in value]
    if not isinstance(value, dict) or not selection:
        raise QueryError("selection and type do not fit")
    answer: dict[str, Any] = {}
    for field in selection:
        if field.on is not None:
            if value.get("__typename") == field.on:
                answer.update(select(value, field.selection, variables))
        elif field.name not in value:
            raise QueryError(f"Cannot query field '{field.name}'")
        else:
            answer[field.alias] = select(
                _resolved(value[field.name], field, variables), field.selection, variables
            )
    return answer


def _resolved(value: Any, field: Field, variables: Mapping[str, Any]) -> Any:
    if not callable(value):
        return value
    arguments = {
        name: variables.get(given.name) if isinstance(given, Variable) else given
        for name, given in field.arguments
    }
    return value(arguments)


class _Parser:
    def __init__(self, query: str) -> None:
        self._tokens: list[str] = [match for match in _TOKEN.findall(query) if match]
        self._at = 0

    def operation(self) -> Operation:
        name = ""
        if self._peek() in ("query", "mutation"):
            self._next()
            name = self._next() if self._peek() not in ("(", "{") else ""
            if self._peek() == "(":
                self._skip_parentheses()
        operation = Operation(name, self._selection())
        if self._at != len(self._tokens):
            raise QueryError("Syntax Error: more than one operation")
        return operation

    def _selection(self) -> tuple[Field, ...]:
        self._expect("{")
        fields = []
        while self._peek() != "}":
            fields.append(self._field())
        self._next()
        return tuple(fields)

    def _field(self) -> Field:
        if self._peek() == "...":
            self._next()
            self._expect("on")
            return Field("...", "...", on=self._next(), selection=self._selection())
        name = alias = self._next()
        if self._peek() == ":":
            self._next()
            name = self._next()
        arguments = self._arguments() if self._peek() == "(" else ()
        selection = self._selection() if self._peek() == "{" else ()
        return Field(name, alias, arguments, selection)

    def _arguments(self) -> tuple[tuple[str, Any], ...]:
        self._expect("(")
        arguments = []
        while self._peek() != ")":
            name = self._next()
            self._expect(":")
            arguments.append((name, self._value()))
        self._next()
        return tuple(arguments)

    def _value(self) -> Any:
        token = self._next()
        if token == "$":
            return Variable(self._next())
        if token in _LITERALS:
            return _LITERALS[token]
        if token.startswith('"'):
            return token[1:-1]
        return int(token) if token.lstrip("-").isdigit() else token

    def _skip_parentheses(self) -> None:
        depth = 0
        while True:
            depth += {"(": 1, ")": -1}.get(self._next(), 0)
            if depth == 0:
                return

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _expect(self, token: str) -> None:
        if (found := self._next()) != token:
            raise QueryError(f"Syntax Error: expected {token}, found {found}")
