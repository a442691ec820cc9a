"""What Invoke's own program says of a misspelt task: as much as it lets us."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import Runner

INV = Path(sys.executable).parent / "inv"


@pytest.mark.parametrize(
    ("words", "code", "first"),
    [
        (["services.strat"], 2, "error: unknown task 'services.strat'"),
        (["--dry", "demoo"], 2, "error: unknown task 'demoo'"),
        # Past the first word Invoke speaks for itself.
        (["services.graph", "--formt", "svg"], 1, "No idea what '--formt' is!"),
    ],
)
def test_the_first_word_is_ours_to_judge(run: Runner, words: list[str], code: int, first: str) -> None:
    (run.directory / "tasks.py").write_text("from stackhand import ns\n")
    done = subprocess.run(
        [str(INV), *words], cwd=run.directory, env=run.env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[0] == first
