"""A typed JSON document of the state folder: its name, how it is read and written, its value while there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stackhand.state.folder import StateFolder

T = TypeVar("T")


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Document(Generic[T]):
    """One JSON document in `.stackhand/`. The module that owns it declares it as a constant.

    `decode` turns parsed JSON into a value. The JSON may have any shape, since containers and older versions of
    stackhand can write to the folder; for a wrong one, `decode` raises TypeError, ValueError, KeyError or
    AttributeError. Then the value is `empty()`, as it is before anything was written. `encode` turns a value into JSON.
    """

    name: str
    decode: Callable[[Any], T]
    empty: Callable[[], T]
    encode: Callable[[T], Any] = _as_it_is

    def read(self, state: StateFolder) -> T:
        """Return the value that was written last, or `empty()`."""
        return self._decoded(state.recall(self.name))

    def write(self, state: StateFolder, value: T, *, durable: bool = False) -> None:
        """Write a value, as a whole or not at all. Raises StateFolderUnwritable.

        With `durable` it is on the disk on return, and survives a power failure.
        """
        state.remember(self.name, self.encode(value), durable=durable)

    def update(self, state: StateFolder, change: Callable[[T], T], *, durable: bool = False) -> T:
        """Replace the value with what `change` makes of it; return the new value. Raises StateFolderUnwritable.

        Until it is written, no other thread or process can update a document of this folder.
        """
        changed: list[T] = []

        def on_json(before: Any) -> Any:
            changed.append(change(self._decoded(before)))
            return self.encode(changed[0])

        state.update(self.name, on_json, durable=durable)
        return changed[0]

    def _decoded(self, value: Any) -> T:
        if value is None:
            return self.empty()
        try:
            return self.decode(value)
        except (TypeError, ValueError, KeyError, AttributeError):
            return self.empty()
