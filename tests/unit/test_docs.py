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
