"""The shape that every aggregate shares: Events → State and evolve → Decisions, and nothing that a pure function has not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from domain.catalog import AGGREGATES
from domain.errors import Rejected
from queries.seeing import NotSeen

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "domain").rglob("*.py"))
SHARED = {
    "__init__",
    "administrators",
    "anywhere",
    "catalog",
    "eligibility",
    "erasures",
    "errors",
    "findings",
    "ijson",
    "kernel",
    "ownership",
    "tallies",
    "windows",
}
AGGREGATE_MODULES = [
    path
    for path in sorted((ROOT / "domain").iterdir())
    if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem not in SHARED
]
"""Files, and folders of what has become too long for one."""


def text_of(path: Path) -> str:
    return "\n".join(file.read_text() for file in (sorted(path.glob("*.py")) if path.is_dir() else [path]))


def test_every_aggregate_is_in_the_catalog() -> None:
    declared = {
        found[1]
        for path in AGGREGATE_MODULES
        for found in [re.search(r'Aggregate\(\s*"(\w+)"', text_of(path))]
        if found
    }
    assert declared == {aggregate.name for aggregate in AGGREGATES}
    assert len(AGGREGATE_MODULES) == len(AGGREGATES)


@pytest.mark.parametrize("path", AGGREGATE_MODULES, ids=lambda path: path.stem)
def test_events_come_before_state_and_state_before_decisions(path: Path) -> None:
    text = text_of(path)
    headings = [match[1] for match in re.finditer(r"^# (Events|State|Decisions)", text, re.MULTILINE)]
    assert headings in (["Events", "State", "Decisions"], ["Events", "State"])
    assert "# Events: the tags and fields are the storage format." in text
    assert "Invariant" in (ast.get_docstring(ast.parse(text)) or "")


@pytest.mark.parametrize("path", AGGREGATE_MODULES, ids=lambda path: path.stem)
def test_nobody_imports_anothers_decisions(path: Path) -> None:
    """A decision that truly spans aggregates takes the others' states and events: those are classes, decisions are not."""
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("domain."):
            of = (node.module or "").removeprefix("domain.").partition(".")[0]
            if of in SHARED | {path.stem}:
                continue
            assert all(alias.name[0].isupper() for alias in node.names), f"{path.stem} imports {ast.unparse(node)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_nothing_asks_a_clock(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"now", "utcnow", "today"}, f"{path.stem}:{node.lineno}"


def rejections(of: type[Rejected]) -> set[type[Rejected]]:
    return {of}.union(*(rejections(each) for each in of.__subclasses__()))


def test_a_refusals_code_is_its_own_and_stable() -> None:
    ours = [
        each
        for each in rejections(Rejected)
        if each.__module__.partition(".")[0] in {"domain", "commands", "queries"} and each is not NotSeen
    ]  # to the caller that one is NotFound, and nothing else
    codes = [each.code for each in ours]
    assert len(set(codes)) == len(codes), sorted(codes)
    assert all(re.fullmatch("[a-z][a-z_]*", code) for code in codes)
    assert all("code" in vars(each) and "title" in vars(each) for each in ours)


def test_the_tree_of_refusals_names_them_all() -> None:
    import domain.errors

    drawn = domain.errors.__doc__ or ""
    ours = [
        each for each in rejections(Rejected) if each.__module__ == "domain.errors" and each.__name__ != "RuleRefused"
    ]
    assert [each.__name__ for each in ours if each.__name__ not in drawn] == []
