"""The eventsourcing library's view of our log: the how-to's program, run as it stands there."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from app import checking
from eventstore.record import decode_body
from eventstore.recorder import TAG
from tests.ledger import Ledger

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "use-the-eventsourcing-library.md"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The how-to's code as a module, which the library wants its classes to be in."""
    folder = tmp_path_factory.mktemp("program")
    code = re.findall(r"^```python\n(.*?)^```", HOW_TO.read_text(), re.MULTILINE | re.DOTALL)
    (folder / "machines.py").write_text("\n".join(code))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("machines")
        patch.delitem(sys.modules, "machines")


def test_an_application_and_its_projection_run_on_our_log(migrated: str, machines: ModuleType) -> None:
    assert machines.run(migrated) == (3, 2)
    entries = Ledger(migrated).entries("machinesevents")
    assert [decode_body(entry.body).type for entry in entries] == ["log.opened", *[TAG] * 4]
    found = checking.verify([migrated], "", None, lambda *_: None)
    assert found.status == checking.INTACT, found.to_text()
    assert [(finding.log, finding.position) for finding in found.findings] == [("machinesevents", 5)]


def test_another_run_goes_on_where_the_first_ended(migrated: str, machines: ModuleType) -> None:
    assert (machines.run(migrated), machines.run(migrated)) == ((3, 2), (3, 4))
