"""What ends a service before it has begun is one sentence, and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from app import cli

ENVIRONMENT = {
    "COUNTROOM_DEPLOYMENT": "test",
    "COUNTROOM_REGION": "eu",
    "COUNTROOM_REGIONS": "eu",
    "COUNTROOM_POSTGRES": "postgresql://127.0.0.1:1/nowhere",
    "COUNTROOM_REDIS": "redis://127.0.0.1:1",
    "COUNTROOM_NATS": "nats://127.0.0.1:1",
    "COUNTROOM_API": "127.0.0.1:1",
    "COUNTROOM_NATS_SEEDS": "/nowhere",
    "COUNTROOM_REGION_KEY": "/nowhere",
    "COUNTROOM_FINGERPRINT_KEY": "/nowhere",
    "COUNTROOM_TOKENS": "/nowhere",
}
UNKNOWN = '[{"name": "acme", "secret": "s", "colour": "red"}]'
SECRET = "0123456789abcdef" * 2
ONE_KEY = '[{"name": "acme", "secret": "s"}, {"name": "reel", "games": {"signature": "hmac", "secrets": ["s"]}}]'


pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked")  # by main(), as it is outside of tests


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A service logs to its own output, which is closed by the time that other tests log."""
    yield
    structlog.reset_defaults()


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    monkeypatch.setattr(sys, "argv", ["countroom", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return exit_.value.code, capsys.readouterr().err


@pytest.mark.parametrize("roles", [("api",), ("reactor",), ("relay", "reactor"), ()])
def test_a_service_that_cannot_read_its_providers_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, roles: tuple[str, ...]
) -> None:
    file = tmp_path / "psp.json"
    for name, value in {**ENVIRONMENT, "COUNTROOM_PROVIDERS": str(file)}.items():
        monkeypatch.setenv(name, value)
    code, said = run(monkeypatch, capsys, "serve", *roles)
    assert (code, said) == (2, f"countroom: {file} cannot be read: No such file or directory\n")
    file.write_text(UNKNOWN)
    code, said = run(monkeypatch, capsys, "serve", *roles)
    assert (code, said) == (2, f"countroom: {file}: Object contains unknown field `colour` - at `$[0]`\n")
    (tmp_path / "s").write_text(SECRET)
    file.write_text(ONE_KEY)
    code, said = run(monkeypatch, capsys, "serve", *roles)
    assert (code, said) == (2, f"countroom: {file}: reel has a key of acme - at `$[1]`\n")
    assert SECRET not in said


def test_a_data_folder_with_unreadable_providers_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "providers.json").write_text(UNKNOWN)
    code, said = run(monkeypatch, capsys, "up", "--data", str(tmp_path))
    assert code == 2
    assert said == f"countroom: {tmp_path}/providers.json: Object contains unknown field `colour` - at `$[0]`\n"
    assert [file.name for file in tmp_path.iterdir()] == ["providers.json"]
