"""A TOML table whose keys are taken one by one: what is missing, wrong or left over is told with its place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from mediamesh.models.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Entry"]

T = TypeVar("T")


class Entry:
    """One table.

    Args:
        place: The file, and the way to the table in it.
        table: What it holds.
    """

    def __init__(self, place: str, table: Mapping[str, Any]) -> None:
        self._place, self._table, self._taken = place, table, set[str]()

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def rename(self, own: str) -> None:
        """Name the table by what is in it, instead of by its number."""
        self._place = f"{self._place.rpartition(': ')[0]}: {own}"

    def error(self, key: str, problem: str) -> ManifestError:
        """Return an error that names file, entry and key."""
        return ManifestError(f"{self._place}: {key}: {problem}")

    def check(self, key: str, value: str, pattern: str) -> None:
        """Hold a text against a pattern.

        Raises:
            ManifestError: it does not match.
        """
        if not re.fullmatch(pattern, value):
            raise self.error(key, f"{value!r}, expected a text of the form {pattern}")

    def text(self, key: str, pattern: str = r"\S.*", *, default: str | None = None) -> str:
        """Take a text.

        Raises:
            ManifestError: it is missing and has no default, is no text, or does not match the pattern.
        """
        if key not in self._table and default is not None:
            return default
        value = self._take(key, str, "a text")
        self.check(key, value, pattern)
        return value

    def integer(self, key: str) -> int:
        """Take an integer above 0.

        Raises:
            ManifestError: it is missing, or something else.
        """
        value = self._take(key, int, "an integer")
        if isinstance(value, bool) or value <= 0:
            raise self.error(key, f"{value!r}, expected an integer above 0.")
        return value

    def texts(self, key: str, pattern: str) -> dict[str, str]:
        """Take a table of texts; none when the key is missing.

        Raises:
            ManifestError: something in it is no text, or does not match the pattern.
        """
        inner = Entry(f"{self._place}: {key}", self._take(key, dict, "a table") if key in self else {})
        return {name: inner.text(name, pattern) for name in inner._table}

    def tables(self, key: str) -> dict[str, Entry]:
        """Take a table of tables; none when the key is missing.

        Raises:
            ManifestError: something in it is no table.
        """
        outer = Entry(f"{self._place}: {key}", self._take(key, dict, "a table") if key in self else {})
        return {
            name: Entry(f"{self._place}: {key} {name}", outer._take(name, dict, "a table")) for name in outer._table
        }

    def list_of_tables(self, key: str) -> list[Entry]:
        """Take a list of tables.

        Raises:
            ManifestError: it is missing, or something in it is no table.
        """
        rows = self._take(key, list, "a list of tables")
        if wrong := [row for row in rows if not isinstance(row, dict)]:
            raise self.error(key, f"{wrong[0]!r}, expected a table.")
        return [Entry(f"{self._place}: {key} number {number}", row) for number, row in enumerate(rows, 1)]

    def done(self, result: T = None) -> T:  # type: ignore[assignment]  # without a result there is none to return
        """Return the result, when nothing is left over.

        Raises:
            ManifestError: there are keys that nobody asked for.
        """
        if unknown := sorted(set(self._table).difference(self._taken)):
            raise self.error(", ".join(unknown), "unknown here.")
        return result

    def _take(self, key: str, kind: type[T], name: str) -> T:
        if key not in self._table:
            raise self.error(key, f"missing; expected {name}.")
        self._taken.add(key)
        value = self._table[key]
        if not isinstance(value, kind):
            raise self.error(key, f"{value!r}, expected {name}.")
        return value
