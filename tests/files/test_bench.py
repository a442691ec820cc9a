"""The comparisons of bench/ can be started: what they import is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
# trace_start is no comparison, and has a test of its own.
_OTHERS = {"__main__", "common", "graphs", "reference", "trace_start"}


@pytest.mark.parametrize("script", sorted(path.stem for path in BENCH.glob("*.py") if path.stem not in _OTHERS))
def test_a_comparison_can_be_started(script: str) -> None:
    argv = [sys.executable, str(BENCH / f"{script}.py"), "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage" in done.stdout
