"""How busy this machine is, by what the kernel writes."""

from __future__ import annotations

from pathlib import Path

from stackhand.engine.host.load import read


def test_a_kernel_with_pressure(tmp_path: Path) -> None:
    (tmp_path / "pressure").mkdir()
    (tmp_path / "loadavg").write_text("25.31 12.20 8.00 9/812 4242\n")
    (tmp_path / "pressure" / "cpu").write_text(
        "some avg10=97.55 avg60=60.10 avg300=22.61 total=12489738441\nfull avg10=0.00\n"
    )
    found = read(tmp_path)
    assert (found.load, found.pressure) == (25.31, 97.55)
    assert found.cores >= 1


def test_one_without_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text("0.10 0.20 0.30 1/100 5\n")
    assert (read(tmp_path).load, read(tmp_path).pressure) == (0.1, None)
    assert (read(tmp_path / "missing").load, read(tmp_path / "missing").pressure) == (None, None)
