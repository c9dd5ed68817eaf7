"""The judge stands outside: what records and judges imports nothing of the product, not even by way of something else."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent
FROM = ("chaos.load", "chaos.checker")
LIBRARIES = {"httpx2", "msgspec", "psycopg"}


def imported(module: str) -> set[str]:
    file = CHECKOUT.joinpath(*module.split(".")).with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"chaos.{alias.name}" for alias in node.names}
            found |= names if node.module == "chaos" else {node.module}
    return found


def test_load_and_judge_import_nothing_of_the_product() -> None:
    waiting, seen = list(FROM), set[str]()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += [each for each in imported(module) if each.startswith("chaos.")]
    assert {"chaos.linear", "chaos.history", "chaos.fold", "chaos.views", "chaos.models"} <= seen
    others = {name.partition(".")[0] for module in seen for name in imported(module)} - {"chaos"}
    assert others <= LIBRARIES | sys.stdlib_module_names
