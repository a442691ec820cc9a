"""Explains why a service did not start or did not become ready: reason, evidence, hint."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.host import ports as host
from stackhand.engine.messages import classify
from stackhand.errors import CommandFailed, StackError
from stackhand.output.redact import Redactor, mask_part
from stackhand.services.start.record import Failure
from stackhand.settings import Start

_PORT = re.compile(r":(?P<port>\d+)(?:/(?P<protocol>tcp|udp))?(?: failed|: bind)")


def start_failure(engine: Engine, service: str, error: Exception, mask: Callable[[str], str]) -> Failure:
    """Return the failure for an error of Compose or of the engine at a start, with the secrets in it masked."""
    message = classify(error.stderr if isinstance(error, CommandFailed) else str(error))
    retry, reason = message.retry, mask(message.detail)
    if message.kind == "port_in_use":
        holder = port_holder(engine, message.detail)
        # If it is free by now, two starts have raced for it.
        retry = holder is None
        reason = holder or reason
    return Failure(
        "start",
        message.kind,
        reason,
        retry=retry,
        exit_code=error.returncode if isinstance(error, CommandFailed) else None,
        hint=message.hint or f"`docker compose up {service}` shows all of it",
    )


def port_holder(engine: Engine, message: str) -> str | None:
    """Return in words what holds the port that a message is about; None if it is free by now."""
    found = _PORT.search(message)
    if not found:
        return message
    port = int(found["port"])
    container = engine.holder_of_port(port)
    if container:
        return f"port {port} is held by container {container}"
    process = host.holder_of_port(port, found["protocol"] or "tcp")
    return f"port {port} is held by {process}" if process else None


def timeout(container: Container, limit: float, *, one_shot: bool, probe_code: int | None) -> Failure:
    """Return the failure of a service that used up its time, `limit` in seconds."""
    check = container.healthcheck
    if one_shot:
        what = "it has not completed"
    elif check and probe_code is None:
        what = f"its healthcheck gave no answer within {check.timeout:g} s"
    elif check:
        what = f"its healthcheck still fails (exit code {probe_code})"
    else:
        what = f"it is {container.status}"
    return Failure(
        "ready",
        "timeout",
        f"not ready after {limit:g} s: {what}",
        # It may be in the middle of a long recovery: a slow service is never restarted.
        retry=False,
        exit_code=probe_code,
        hint=f"see `inv services.logs -s {container.service}`; if it only needs longer: --timeout, or start.timeout",
    )


def with_evidence(
    failure: Failure,
    engine: Engine,
    container: Container,
    lines: int,
    since: datetime | None,
    probe_output: str,
    redactor: Redactor,
) -> Failure:
    """Return the failure with the container's last log lines since a moment and its probe's output, secrets masked."""
    tail: list[str] = []
    try:
        if lines:
            tail = engine.logs(container.id, lines, since)
    except StackError:
        pass  # the reason matters more than the lines
    output = probe_output or container.probe_output
    return replace(
        failure,
        reason=mask_part(failure.reason, container.error, redactor.text),
        probe_output=redactor.text(output) if output else None,
        log_tail=tuple(redactor.lines(tail)),
    )


def tried(settings: Start, attempts: int, failure: Failure) -> tuple[str, ...]:
    """Return in words what stackhand did about a failure."""
    if failure.kind == "timeout":
        return ("not restarted: it is alive, and may only need longer",)
    if attempts <= 1:
        why = "" if failure.retry else ", not repeated: that would not help"
        return (f"1 attempt{why}",) if attempts else ()
    delays = ", ".join(f"{settings.retry_delay * settings.backoff**n:g} s" for n in range(attempts - 1))
    return (f"{attempts} attempts, with pauses of {delays}",)
