"""Recorded figures: those of one benchmark replace its own alone."""

from pathlib import Path

from benchmarks.report import Comparison, Section, Target, record


def section(title: str, ratio: float) -> Section:
    return Section(title, f"how {title} is measured", [Comparison("ours / theirs", ratio, Target(1))])


def test_a_section_that_is_measured_again_takes_its_own_place(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    record([section("Rows", 1.11), section("Memory", 2.22), section("Service", 3.33)], "the first run", file)
    before = file.read_text()

    record([section("Memory", 4.44)], "the second run", file)

    after = file.read_text()
    assert [line for line in after.splitlines() if line.startswith("#")] == [
        "# Recorded results",
        "## Rows",
        "## Memory",
        "## Service",
    ]
    assert "4.44" in after
    assert "2.22" not in after
    assert after.count("the second run") == 1
    for title in ("Rows", "Service"):
        kept = before.split(f"## {title}")[1].split("\n## ")[0]
        assert f"## {title}{kept}" in after


def test_a_new_section_comes_last(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    record([section("Rows", 1.11)], "the first run", file)

    record([section("Service", 3.33)], "the second run", file)

    assert file.read_text().index("## Rows") < file.read_text().index("## Service")
