"""Values that are made when they are first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class locked_cached_property(cached_property[T]):  # noqa: N801  a decorator
    """A cached property of an object with a `lock`: two threads that ask at once get the same value.

    Python's own locks nothing from 3.12 on, and before that it locks all objects of the class at once:
    https://docs.python.org/3/library/functools.html#functools.cached_property
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...
    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        if instance is None:
            return self
        with instance.lock:
            # The other thread may have been first while this one waited.
            if self.attrname in instance.__dict__:
                return instance.__dict__[self.attrname]
            return super().__get__(instance, owner)
