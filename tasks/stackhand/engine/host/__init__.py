"""This machine: other programs, ports, mounts, git, sudo."""
