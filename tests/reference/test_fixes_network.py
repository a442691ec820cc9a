"""The network phase of the fixes: certificates, networks, reach, old addresses; broken for real, and whole again."""

from __future__ import annotations

import contextlib
import signal
import ssl
from typing import Any

from reference_stack import Reference, eventually

# As examples/ai-workflow/caddy/certs makes them, with the dates and names that a test wants.
_MAKE = """
set -e; cd /tmp
openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key
openssl req -new -key key -subj /CN=test -out request
echo "subjectAltName=$NAMES" > extensions; mkdir made; : > index; echo 01 > serial
printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index\\nserial=serial\\nnew_certs_dir=made\\ndefault_md=sha256\\n' > ca
printf 'policy=p\\n[p]\\ncommonName=supplied\\n' >> ca
openssl ca -batch -notext -config ca -cert /ca/ca.crt -keyfile /ca/ca.key -in request -out certificate \\
    -startdate "$BEGINS" -enddate "$ENDS" -extfile extensions
install -m 600 key /tls/server.key; install -m 644 certificate /tls/server.crt
"""
_NAMES = "DNS:localhost,DNS:caddy,IP:127.0.0.1"
_NEW_KEY = "openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out /tls/server.key"


def in_certs(stack: Reference, script: str, **environment: str) -> None:
    """Run a script where the certificates are made."""
    variables = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
    stack.compose("run", "--rm", "--no-deps", "-T", *variables, "certs", "sh", "-c", script)


def certify(
    stack: Reference, names: str = _NAMES, begins: str = "20250101000000Z", ends: str = "20490101000000Z"
) -> None:
    """Put a certificate in place as somebody might by mistake."""
    in_certs(stack, _MAKE, NAMES=names, BEGINS=begins, ENDS=ends)


def served(stack: Reference) -> str:
    """Return the certificate that clients of this machine get to see; Caddy may have been restarted just now."""
    eventually(lambda: _served(stack))
    return _served(stack)


def _served(stack: Reference) -> str:
    with contextlib.suppress(OSError):
        return ssl.get_server_certificate(("127.0.0.1", int(stack.env["AI_WORKFLOW_PORT"])))
    return ""


def moved(before: dict[str, tuple[str, str]], after: dict[str, tuple[str, str]]) -> set[str]:
    """Return the services that another container runs for, or that were started again."""
    return {name for name in before if before[name] != after[name]}


def of(document: dict[str, Any], id_: str, service: str) -> list[dict[str, Any]]:
    """Return the findings of one check of one service."""
    return [each for each in document["findings"] if (each["id"], each["service"]) == (id_, service)]


def test_an_expired_certificate_is_made_anew_and_taken_up(reference: Reference) -> None:
    certify(reference, ends="20250201000000Z")
    reference.compose("restart", "caddy")
    before, bad = reference.identities(), served(reference)
    plan = reference.inv("--dry", "services.fixes")
    assert "renew the certificates of caddy: its certificate is expired" in plan.stdout
    assert reference.fixed(reference.fixes()) == ["tls.dates"]
    assert served(reference) != bad
    assert moved(before, reference.identities()) == {"caddy", "certs"}
    reference.is_whole()


def test_a_certificate_for_another_name_is_made_anew(reference: Reference) -> None:
    certify(reference, names="DNS:elsewhere.example")
    reference.compose("restart", "caddy")
    assert "tls.names" in reference.fixed(reference.fixes())
    reference.is_whole()


def test_a_key_that_does_not_fit_is_made_anew_with_its_certificate(reference: Reference) -> None:
    before = reference.identities()
    in_certs(reference, _NEW_KEY)
    assert "tls.key" in reference.fixed(reference.fixes())
    assert moved(before, reference.identities()) == {"caddy", "certs"}
    reference.is_whole()


def test_a_new_certificate_is_taken_up_by_a_restart_alone(reference: Reference) -> None:
    certify(reference)
    before, old = reference.identities(), served(reference)
    assert reference.fixed(reference.fixes()) == ["tls.served"]
    assert served(reference) != old
    assert moved(before, reference.identities()) == {"caddy"}
    reference.is_whole()


def test_a_key_that_everybody_can_read_is_told_and_left(reference: Reference) -> None:
    in_certs(reference, "chmod 644 /tls/server.key")
    document = reference.fixes()
    assert [(each["status"], each["subject"]) for each in of(document, "tls.permissions", "caddy")] == [
        ("warn", "/tls/server.key")
    ]
    assert document["fixes"] == []
    in_certs(reference, "chmod 600 /tls/server.key")
    reference.is_whole()


def test_a_run_killed_after_the_certificate_was_made_is_completed_by_the_next(reference: Reference) -> None:
    certify(reference, ends="20250201000000Z")
    reference.compose("restart", "caddy")
    made = reference.identities()["certs"]
    run = reference.start_inv("services.fixes")
    eventually(lambda: reference.identities()["certs"] != made)
    run.signal(signal.SIGKILL)
    run.wait()
    document = reference.fixes()
    assert document["ok"], document
    reference.is_whole()


def test_a_worker_off_its_network_is_connected_again(reference: Reference) -> None:
    container = reference.container("worker")
    network = f"{reference.name}_back"
    reference.docker("network", "disconnect", network, container["Id"])
    assert "network.attached" in reference.fixed(reference.fixes())
    names = reference.container("worker")["NetworkSettings"]["Networks"][network]["Aliases"]
    assert {"worker", f"{reference.name}-worker-1"} <= set(names)
    reference.is_whole()


def test_a_missing_name_is_given_back_and_the_published_port_still_works(reference: Reference) -> None:
    container = reference.container("caddy")
    network = f"{reference.name}_front"
    reference.docker("network", "disconnect", network, container["Id"])
    reference.docker("network", "connect", network, container["Id"])
    document = reference.fixes()
    assert reference.fixed(document) == ["network.attached"]
    assert "without the name caddy" in document["fixes"][0]["action"]
    assert served(reference)
    reference.is_whole()
