"""Checks of any service, independent of its kind: readiness, networks, TCP, stale addresses, warm-ups."""
