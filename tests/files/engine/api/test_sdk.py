"""What is imported with the Docker SDK."""

from __future__ import annotations

import subprocess
import sys

from support import clean_environment

_LOADED = """
import sys
from stackhand.engine.api import sdk
sdk.load()
import docker.api.client
assert "paramiko" not in sys.modules, "it doubles the time that the import takes"
import paramiko
assert paramiko.SSHClient, "whoever needs it can have it"
"""
_FOR_SSH = """
from stackhand.engine.api import sdk
sdk.load()
sdk.load_ssh()
import docker
try:
    docker.APIClient("ssh://nobody@127.0.0.1:1", use_ssh_client=True)
except docker.errors.DockerException as error:
    assert "Install paramiko" not in str(error), error
"""


def test_paramiko_is_imported_for_ssh_alone() -> None:
    subprocess.run([sys.executable, "-c", _LOADED], env=clean_environment(), check=True)


def test_an_address_with_ssh_works_also_after_others() -> None:
    subprocess.run([sys.executable, "-c", _FOR_SSH], env=clean_environment(), check=True)
