"""stackhand: Invoke tasks that keep a Docker Compose stack alive.

All that another project imports is here: `ns`, the collection of all tasks, and `service(name)`, the task that
starts one Compose service and what it depends on.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackhand.cli.namespace import ns as ns
    from stackhand.cli.service_tasks import service as service

__all__ = ["ns", "service"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that a module of the package can be imported without building the tasks."""
    if name == "ns":
        from stackhand.cli.namespace import ns

        return ns
    if name == "service":
        from stackhand.cli.service_tasks import service

        return service
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
