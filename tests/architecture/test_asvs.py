"""The map of ASVS 5.0 is whole, and names only tests and pages that there are."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAP = ROOT / "docs" / "reference" / "asvs.md"
LEVELS = {
    1: """
        1.2: 1 2 3 4 5 | 1.3: 1 2 | 1.5: 1 | 2.1: 1 | 2.2: 1 2 | 2.3: 1 | 3.2: 1 2 | 3.3: 1 | 3.4: 1 2 | 3.5: 1 2 3 | 4.1: 1
        4.4: 1 | 5.2: 1 2 | 5.3: 1 2 | 6.1: 1 | 6.2: 1 2 3 4 5 6 7 8 | 6.3: 1 2 | 6.4: 1 2 | 7.2: 1 2 3 4 | 7.4: 1 2 | 8.1: 1
        8.2: 1 2 | 8.3: 1 | 9.1: 1 2 3 | 9.2: 1 | 10.4: 1 2 3 4 5 | 11.3: 1 2 | 11.4: 1 | 12.1: 1 | 12.2: 1 2 | 13.4: 1
        14.2: 1 | 14.3: 1 | 15.1: 1 | 15.2: 1 | 15.3: 1""",
    2: """
        1.1: 1 2 | 1.2: 6 7 8 9 | 1.3: 3 4 5 6 7 8 9 10 11 | 1.4: 1 2 3 | 1.5: 2 | 2.1: 2 3 | 2.2: 3 | 2.3: 2 3 4 | 2.4: 1
        3.3: 2 3 4 | 3.4: 3 4 5 6 | 3.5: 4 5 | 3.7: 1 2 | 4.1: 2 3 | 4.2: 1 | 4.3: 1 2 | 4.4: 2 3 4 | 5.1: 1 | 5.2: 3
        5.4: 1 2 3 | 6.1: 2 3 | 6.2: 9 10 11 12 | 6.3: 3 4 | 6.4: 3 4 | 6.5: 1 2 3 4 5 | 6.6: 1 2 3 | 6.8: 1 2 3 4 | 7.1: 1 2 3
        7.3: 1 2 | 7.4: 3 4 5 | 7.5: 1 2 | 7.6: 1 2 | 8.1: 2 | 8.2: 3 | 8.4: 1 | 9.2: 2 3 4 | 10.1: 1 2 | 10.2: 1 2
        10.3: 1 2 3 4 | 10.4: 6 7 8 9 10 11 | 10.5: 1 2 3 4 5 | 10.6: 1 2 | 10.7: 1 2 3 | 11.1: 1 2 | 11.2: 1 2 3 | 11.3: 3
        11.4: 2 3 4 | 11.5: 1 | 11.6: 1 | 12.1: 2 3 | 12.3: 1 2 3 4 | 13.1: 1 | 13.2: 1 2 3 4 5 | 13.3: 1 2 | 13.4: 2 3 4 5
        14.1: 1 2 | 14.2: 2 3 4 | 14.3: 2 3 | 15.1: 2 3 | 15.2: 2 3 | 15.3: 2 3 4 5 6 7 | 16.1: 1 | 16.2: 1 2 3 4 5
        16.3: 1 2 3 4 | 16.4: 1 2 3 | 16.5: 1 2 3 | 17.1: 1 | 17.2: 1 2 3 4 | 17.3: 1 2""",
}
"""The numbers of each level, as the standard's own table has them (OWASP/ASVS, 5.0.0, commit 5cf9b032440b)."""
STATES = {"met", "partly", "not met", "deployment", "not applicable"}


def requirements() -> dict[str, int]:
    return {
        f"V{section}.{number}": level
        for level, text in LEVELS.items()
        for section, numbers in re.findall(r"([\d.]+): ([\d ]+)", text)
        for number in numbers.split()
    }


def rows(text: str) -> list[tuple[str, int, str, str, str]]:
    """Number, level, state, where, tests."""
    return [
        (number, int(level), state, where, tests)
        for number, level, state, where, tests in re.findall(
            r"^\| (V[\d.]+) \| (\d) \| ([^|]*) \| ([^|]*) \| ?([^|]*) ?\|$", text, re.MULTILINE
        )
    ]


@cache
def written_in(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def missing(text: str) -> list[str]:
    """Tests that the text names and nobody wrote."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    return [
        f"{file}::{test}" for file, test in named if not written_in(file) or (test and test not in written_in(file))
    ]


def test_there_are_70_requirements_of_level_1_and_183_of_level_2() -> None:
    assert Counter(requirements().values()) == {1: 70, 2: 183}


def test_every_requirement_stands_in_the_map_once_with_its_level() -> None:
    found = rows(MAP.read_text())
    assert {number: level for number, level, *_ in found} == requirements()
    assert len(found) == len(requirements())


def test_every_requirement_is_said_to_be_met_or_why_not() -> None:
    for number, _, state, where, tests in rows(MAP.read_text()):
        assert state in STATES, number
        assert where.strip(), number
        assert state != "met" or "tests/" in tests, f"{number} is said to be met, and no test is named"


def test_the_sums_at_the_top_are_those_of_the_rows() -> None:
    text = MAP.read_text()
    told = {
        state: int(count) for state, count in re.findall(r"^\| \*\*([a-z ]+)\*\*[^|]* \| (\d+) \|$", text, re.MULTILINE)
    }
    assert Counter(told) == Counter(state for _, _, state, *_ in rows(text))


def test_every_test_that_the_map_names_exists() -> None:
    assert missing(MAP.read_text()) == []


def test_a_test_that_nobody_wrote_is_noticed() -> None:
    assert missing("`tests/app/test_guard.py::test_of_nothing` `tests/nowhere.py` `tests/app/test_guard.py`") == [
        "tests/app/test_guard.py::test_of_nothing",
        "tests/nowhere.py::",
    ]


def test_every_page_that_the_map_links_exists() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", MAP.read_text()):
        path, _, heading = link.partition("#")
        page = (MAP.parent / path).resolve()
        assert page.is_file(), link
        headings = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in page.read_text().splitlines() if line.startswith("#")}  # fmt: skip
        assert not heading or heading in headings, link


def test_every_package_of_the_lock_is_of_one_index_and_has_its_hash() -> None:
    import tomllib

    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        if "registry" not in (source := package["source"]):
            assert source.keys() <= {"editable", "virtual"}, package["name"]
            continue
        assert source == {"registry": "https://pypi.org/simple"}, package["name"]
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files, package["name"]
        assert all(file["hash"].startswith("sha256:") for file in files), package["name"]
