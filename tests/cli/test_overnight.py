"""The overnight rehearsal at a size for every day; `benchmarks/overnight.py` is the whole night."""

from __future__ import annotations

from pathlib import Path

from benchmarks.overnight import Night, live_through, morning, night_long, picture


def test_a_short_night_with_every_trouble(tmp_path: Path) -> None:
    night = Night(jobs=40, time_factor=2400)
    with night_long(night, tmp_path) as (server, owner):
        live_through(server, owner)
        report = morning(server, owner)
        logs = [path.read_text() for path in sorted(tmp_path.glob("*.log"))]
        assert [name for name, holds in report["checks"].items() if not holds] == [], (report, logs)
        story = "\n".join(owner.story)
        for trouble in ("halved", "kill -9", "overloaded", "budget has run out", "spending limit"):
            assert trouble in story
        status = owner.types("status")
        assert len(status.splitlines()) <= 24
        drawn = picture(owner, "status")
        assert "night" in drawn
        assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "").replace(
            "https://www.textualize.io", ""
        )
