"""Servers that speak TLS: their certificates, keys and what they present."""
