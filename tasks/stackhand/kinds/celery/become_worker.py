"""Runs a program as the worker's own process would: with its Python, environment and working folder.

The first word is the worker's process id, the second the program (ask_workers.py). For Python 3.6 and later.
"""

import os
import shutil
import sys


def read(pid, name):
    """Return the words of a file of a process, which zero bytes divide."""
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return [word.decode("utf-8", "surrogateescape") for word in file.read().split(b"\0")]


def python_of(pid, path):
    """Return the Python that has the worker's packages; None where it cannot be told."""
    # In a virtual environment argv[0], not the binary, leads to them. A changed process title has neither.
    python = shutil.which(read(pid, "cmdline")[0], path=path)
    if not python:
        try:
            with open(shutil.which("celery", path=path), "rb") as script:
                python = script.readline().decode()[2:].split()[0]
        except (OSError, TypeError, IndexError, ValueError):
            pass
    return python


def main(pid, program):
    environment = dict(os.environ)
    try:
        environment.update(pair.partition("=")[::2] for pair in read(pid, "environ") if "=" in pair)
        os.chdir(f"/proc/{pid}/cwd")
        os.chdir(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        pass
    python = python_of(pid, environment.get("PATH"))
    os.execve(python or sys.executable, [python or "python", "-c", program], environment)


if __name__ == "__main__":
    main(*sys.argv[1:3])
