"""stackhand: Invoke tasks that keep a Docker Compose stack alive.

All that another project imports is here: `ns`, the collection of all tasks, and `service(name)`, the task that
starts one Compose service and what it depends on.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackhand.cli.up import service as service
    from stackhand.namespace import ns as ns

__all__ = ["ns", "service"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that a module of the package can be imported without building the tasks."""
    if name == "ns":
        from stackhand.namespace import ns

        return ns
    if name == "service":
        from stackhand.cli.up import service

        return service
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
