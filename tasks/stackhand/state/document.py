"""A document of the state folder with a type: its name, how it is read, and what counts where there is none."""

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

    `decode` makes a value of the parsed JSON. It raises TypeError, ValueError, KeyError or AttributeError where that is
    something else: a container can write to the folder, and an older version may have. Then `empty()` counts, as it
    does where nothing was written yet. `encode` makes JSON of a value.
    """

    name: str
    decode: Callable[[Any], T]
    empty: Callable[[], T]
    encode: Callable[[T], Any] = _as_it_is

    def read(self, state: StateFolder) -> T:
        """Return what was written last."""
        return self._decoded(state.recall(self.name))

    def write(self, state: StateFolder, value: T, *, durable: bool = False) -> None:
        """Write a value, whole or not at all. Raises StateFolderUnwritable.

        With `durable` it has reached the disk on return, so that it survives a power failure.
        """
        state.remember(self.name, self.encode(value), durable=durable)

    def update(self, state: StateFolder, change: Callable[[T], T], *, durable: bool = False) -> T:
        """Replace the value with what `change` returns for it; return that. Raises StateFolderUnwritable.

        Nobody else updates a document of this folder in between: no other thread, and no other process.
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
