"""
The rules of the house that a machine can check, beside those of the linters (pyproject.toml).

Each check is a function from sources to offences, so that it can be shown to notice one.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

NOT_IN_THE_WHEEL = {"verifier", "devstack", "tests", "attacks", "bench", "chaos", "tamper", "loadtests"}
NOT_LINTED_FOR_LAYERS = {"tests", "attacks", "bench", "chaos", "tamper", "loadtests"}

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

MAY_READ_THE_ENVIRONMENT = {
    "app/settings.py": "that is what it is for",
    "verifier/cli.py": "a program of its own, installed without app: its access token must not stand on a command line",
}


def packages() -> set[str]:
    """The top-level folders that hold Python."""
    return {
        folder.name
        for folder in ROOT.iterdir()
        if folder.is_dir() and not folder.name.startswith(".") and any(folder.glob("**/*.py"))
    }


def sources(*, tests: bool = False) -> Iterator[Path]:
    for package in sorted(packages() - ({"tests"} if not tests else set())):
        yield from sorted((ROOT / package).rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Packages


def test_every_package_is_in_the_wheel_or_has_a_reason_not_to_be() -> None:
    in_wheel = set(PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert in_wheel == packages() - NOT_IN_THE_WHEEL


def test_the_linter_knows_every_package() -> None:
    assert set(PYPROJECT["tool"]["importlinter"]["root_packages"]) == packages() - NOT_LINTED_FOR_LAYERS


def test_the_type_checker_knows_every_package() -> None:
    checked = set(PYPROJECT["tool"]["mypy"]["packages"])
    assert checked >= packages() - {"tests", "loadtests"}
    assert checked <= packages()


def test_every_package_that_is_installed_tells_type_checkers_so() -> None:
    missing = [p for p in packages() - NOT_IN_THE_WHEEL | {"verifier"} if not (ROOT / p / "py.typed").exists()]
    assert missing == []


def test_imports_flow_one_way() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr


# Modules


def reads_the_environment(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name("os"), attr="environ" | "environb" | "getenv" | "putenv"):
                return True
            case ast.ImportFrom(module="os", names=names) if {n.name for n in names} & {
                "environ",
                "environb",
                "getenv",
            }:
                return True
    return False


def is_too_long(text: str) -> bool:
    """A module whose idea is one may be longer, if its first lines say that this is meant."""
    is_meant = re.search("deliberately long", "\n".join(text.splitlines()[:12]), re.IGNORECASE)
    return len(text.splitlines()) > MODULE_LINES_MAX and not is_meant


def long_functions(tree: ast.AST) -> list[str]:
    return [
        f"{node.name} ({length} lines)"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]


def singletons(tree: ast.Module) -> list[str]:
    """Objects that a module makes at import and that hold a connection, a pool, a client or a task."""
    stateful = {
        "AsyncConnectionPool",
        "ConnectionPool",
        "Redis",
        "FastAPI",
        "AsyncClient",
        "Client",
        "Writer",
        "Decider",
    }
    return [
        ast.unparse(node.value.func)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).rpartition(".")[2] in stateful
    ]


def test_only_the_settings_read_the_environment() -> None:
    readers = {name(path) for path in sources() if reads_the_environment(ast.parse(path.read_text()))}
    assert readers == set(MAY_READ_THE_ENVIRONMENT)


def test_no_module_is_too_long() -> None:
    assert [name(path) for path in sources(tests=True) if is_too_long(path.read_text())] == []


def test_no_function_is_too_long() -> None:
    found = {name(path): long_functions(ast.parse(path.read_text())) for path in sources()}
    assert {path: functions for path, functions in found.items() if functions} == {}


def test_no_module_holds_a_singleton() -> None:
    found = {name(path): singletons(ast.parse(path.read_text())) for path in sources()}
    assert {path: made for path, made in found.items() if made} == {}


def test_every_module_says_what_it_is() -> None:
    """A package whose module is empty says it in those that it holds."""
    silent = [
        name(path)
        for path in sources()
        if (text := path.read_text()).strip() and not ast.get_docstring(ast.parse(text))
    ]
    assert silent == []


LONG = "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX


@pytest.mark.parametrize(
    ("check", "offence", "fine"),
    [
        (reads_the_environment, "import os\nprint(os.environ['X'])", "import os\nprint(os.sep)"),
        (reads_the_environment, "from os import environ", "from os import path"),
        (reads_the_environment, "import os\nos.getenv('X')", "environ = {}"),
        (long_functions, LONG, "def f():\n    return 1"),
        (singletons, "import redis\nclient = redis.Redis()", "def f():\n    client = redis.Redis()"),
    ],
)
def test_a_planted_offence_is_noticed(check: Callable[[ast.AST], object], offence: str, fine: str) -> None:
    assert check(ast.parse(offence))
    assert not check(ast.parse(fine))


def test_a_long_module_is_noticed_unless_it_means_to_be() -> None:
    assert is_too_long("x = 1\n" * (MODULE_LINES_MAX + 1))
    assert not is_too_long('"""Deliberately long: one idea."""\n' + "x = 1\n" * MODULE_LINES_MAX)
