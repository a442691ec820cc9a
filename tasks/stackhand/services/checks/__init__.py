"""Checks of any service, whatever its kind: readiness, networks, TCP, stale addresses, warm-ups."""
