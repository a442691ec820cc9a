"""Finds the process that holds a port of this machine."""

from __future__ import annotations


def holder_of_port(port: int, protocol: str = "tcp") -> str | None:
    """Return the process that listens on a port of this machine as `name (pid N)`, or None if it is not visible.

    Only root sees the ports of other users' processes.
    """
    import psutil

    try:
        connections = psutil.net_connections(kind=protocol)
    except (psutil.AccessDenied, OSError):
        return None
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN or protocol == "udp"
        if listens and connection.laddr and connection.laddr.port == port:
            if connection.pid is None:
                return "a process of another user"
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.Error:
                return f"pid {connection.pid}"
    return None
