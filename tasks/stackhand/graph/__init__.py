"""What depends on what, and in which order to do it: a pure graph, one scheduler, and Invoke's executor on top."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackhand.graph.executor import GraphExecutor as GraphExecutor

__all__ = ["GraphExecutor"]


def __getattr__(name: str) -> Any:
    """Import the executor when `tasks.executor_class` asks for it; the scheduler does without Invoke."""
    if name == "GraphExecutor":
        from stackhand.graph.executor import GraphExecutor

        return GraphExecutor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
