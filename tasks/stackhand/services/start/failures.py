"""Explains why a service did not start or did not become ready: reason, evidence, hint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.labels import FOLDER_LABEL, PROJECT_LABEL, SERVICE_LABEL
from stackhand.engine.compose.project import Project
from stackhand.engine.host import ports as host
from stackhand.engine.messages import classify, name_in, port_in
from stackhand.errors import CommandFailed, StackError
from stackhand.kinds.first_start import STILL_INITIALISES
from stackhand.output.redact import Redactor, mask_part
from stackhand.services.start.readiness import exit_hint
from stackhand.services.start.record import Failure
from stackhand.settings import Start


def create_failure(
    engine: Engine, project: Project, service: str, error: CommandFailed, mask: Callable[[str], str]
) -> Failure:
    """Return the failure for an error of Compose when it makes a service's container, with the secrets in it masked."""
    message, provider = classify(error.stderr), project.services[service].provider
    if provider:
        # Its own words: they are not about the engine.
        hint = f"see to {provider}, its provider; `docker compose up {service}` asks it again"
        reason = f"its provider failed: {mask(message.detail)}"
        return Failure("create", "provider_failed", reason, retry=False, hint=hint)
    reason, hint = mask(message.detail), message.hint or f"`docker compose up --no-start {service}` shows all of it"
    if message.kind == "name_in_use":
        reason, hint = _name_holder(engine, project, service, message.detail) or (reason, hint)
    return Failure(
        "create",
        message.kind if message.kind != "unknown" else "create_failed",
        f"its container could not be made: {reason}",
        retry=False,
        exit_code=error.returncode,
        hint=hint,
    )


def _name_holder(engine: Engine, project: Project, service: str, message: str) -> tuple[str, str] | None:
    """Return in words whose container has the name that a message is about, and what to do; None if it is gone."""
    name = name_in(message)
    labels = engine.labels(name) if name else None
    if labels is None:
        return None
    owner, other = labels.get(PROJECT_LABEL), labels.get(SERVICE_LABEL)
    if owner == project.name:
        whose = f"a container of this project, of the service {other}"
    elif owner:
        whose = f"a container of the project {owner} (service {other}, folder {labels.get(FOLDER_LABEL, 'unknown')})"
    else:
        whose = "a container that was not made by Compose"
    named = "container_name" in project.services[service].raw
    instead = (
        "give the service another container_name" if named else "give the project another name (COMPOSE_PROJECT_NAME)"
    )
    return (
        f"the name {name} is taken by {whose}",
        f"{instead}, or remove that container if nobody needs it: `docker rm -f {name}`",
    )


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
    found = port_in(message)
    if not found:
        return message
    port, protocol = found
    container = engine.holder_of_port(port, protocol)
    if container:
        return f"port {port} is held by container {container}"
    process = host.holder_of_port(port, protocol or "tcp")
    return f"port {port} is held by {process}" if process else None


def timeout(
    container: Container, limit: float, *, one_shot: bool, probe_code: int | None, initialising: bool = False
) -> Failure:
    """Return the failure of a service that used up its time, `limit` in seconds.

    `initialising` says that its data is still being made, `probe_code` what its healthcheck last ended with.
    """
    check = container.healthcheck
    if one_shot:
        what = "it has not completed"
    elif initialising:
        what = STILL_INITIALISES
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


def fell(container: Container | None) -> Failure:
    """Return the failure of a service that was ready and ended again; `container` is the one that has, if it is there.

    One that its restart policy has started again is not.
    """
    code = container.exit_code if container else None
    hint = exit_hint(code or 0, container is not None and container.oom_killed)
    return Failure("ready", "fell", "it was ready, and ended again", retry=False, exit_code=code, hint=hint)


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
