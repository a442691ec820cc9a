"""What every task starts with is little, and what Invoke misses for it is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
import stackhand.cli.program
assert not {"unittest.mock", "asyncio", "ssl"} & sys.modules.keys()
from invoke import MockContext
context = MockContext(run={"whoami": "me"}, repeat=True)
assert context.run("whoami").stdout == "me"
context.run.assert_called_once_with("whoami")
from unittest.mock import patch
import unittest.mock
assert unittest.mock.patch is patch
"""


def test_invoke_comes_without_mock_and_mock_context_works_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_where_mock_is_there_already_invoke_gets_it() -> None:
    program = (
        "import unittest.mock, stackhand.cli.program, invoke.context; assert invoke.context.Mock is unittest.mock.Mock"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
