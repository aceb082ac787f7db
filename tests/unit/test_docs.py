"""What the documents promise is what the code has."""

import re
from pathlib import Path

from launcher.api.problems import KINDS

ROOT = Path(__file__).parents[2]


def test_every_kind_of_problem_is_documented_as_it_is() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (\d+) \| (.+) \| (.+) \|$", (ROOT / "docs" / "problems.md").read_text(), re.M
    )

    assert [(slug, int(status), title, remedy) for slug, status, title, remedy in rows] == [
        (slug, *kind) for slug, kind in KINDS.items()
    ]


def test_every_variable_of_the_service_is_in_the_readme() -> None:
    settings = (ROOT / "launcher" / "settings.py").read_text()
    named = set(re.findall(r'"((?:BATCH|PENSTOCK)_[A-Z_]+)"', settings))
    readme = (ROOT / "README.md").read_text()

    assert len(named) > 8
    assert sorted(name for name in named if name not in readme) == []


def test_users_are_shown_no_other_package_than_penstock() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.*")]
    found = [
        f"{page.name}: {line}"
        for page in pages
        if page.suffix in (".md", ".yaml", ".py")
        for line in page.read_text().splitlines()
        if re.search(r"(?:from|import) (?:launcher|pipelines|predictors|transforms)\b", line)
    ]

    assert found == []
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License\n")
