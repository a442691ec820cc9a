"""Postgres: the script that finds the server, run for real."""

from __future__ import annotations

import subprocess
from pathlib import Path

from stackhand.checks import scripts


def test_what_the_server_wrote_down_comes_first(tmp_path: Path) -> None:
    (tmp_path / "postmaster.pid").write_text("8\n/data\n1795562623\n5433\n/sockets\n*\n")
    script = scripts.read("stackhand.kinds.postgres", "server_address.sh") + 'echo "$PGPORT $PGHOST"'

    def said(**environment: str) -> str:
        done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.strip()

    assert said(PGDATA=str(tmp_path), PGPORT="5432", PGHOST="elsewhere") == "5433 /sockets"
    assert said(PGDATA="/nonexistent", PGPORT="6000", PGHOST="/a") == "6000 /a"
    assert said(PGPORT="6000") == "6000"
    (tmp_path / "postmaster.pid").write_text("8\n/data\n1795562623\n5433\n\n*\n")
    assert said(PGDATA=str(tmp_path)) == "5433 localhost"
