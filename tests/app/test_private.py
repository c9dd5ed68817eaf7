"""A service does not start with secrets that others than its owner can read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.private import exposed
from app.settings import SettingsError, from_environment
from policies.rates import Rate
from tests.app.test_serving import ENVIRONMENT


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that everybody reaches."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o640, 0o660, 0o644])
def test_what_others_can_open_is_exposed(anybodys: Path, mode: int) -> None:
    file = anybodys / "key"
    file.write_text("secret")
    file.chmod(mode)
    assert exposed([file, anybodys / "none"]) == [file]
    file.chmod(0o600)
    assert exposed([file]) == []


def test_a_folder_that_lets_nobody_through_makes_private_what_is_in_it(anybodys: Path) -> None:
    folder = anybodys / "signer"
    folder.mkdir()
    (folder / "key").write_text("secret")
    (folder / "key").chmod(0o644)
    assert exposed([folder]) == [folder / "key"]
    folder.chmod(0o700)
    assert exposed([folder]) == []


def test_a_link_is_as_private_as_what_it_leads_to(anybodys: Path) -> None:
    (anybodys / "key").write_text("secret")
    (anybodys / "key").chmod(0o644)
    hidden = anybodys / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "link").symlink_to(anybodys / "key")
    assert exposed([hidden / "link"]) == [hidden / "link"]


@pytest.mark.parametrize(
    "name", ["REGION_KEY", "FINGERPRINT_KEY", "NATS_SEEDS", "SIGNER", "WITNESS", "PROVIDERS", "REGISTERS", "OIDC"]
)
def test_settings_that_name_an_exposed_secret_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, anybodys: Path, name: str
) -> None:
    file = anybodys / "a-secret"
    file.write_text("secret")
    file.chmod(0o644)
    for variable, value in {**ENVIRONMENT, f"COUNTROOM_{name}": str(file)}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=r"a-secret holds a secret.*chmod 600"):
        from_environment()
    file.chmod(0o600)
    assert file in from_environment().secrets


@pytest.mark.parametrize(
    "told",
    ['[{"name": "acme", "secret": "a.secret"}]', '[{"games": {"secrets": ["a.secret"]}}]', '[{"client_secret_file": "a.secret"}]'],
)  # fmt: skip
def test_a_secret_that_a_file_of_providers_names_is_looked_at_too(
    monkeypatch: pytest.MonkeyPatch, anybodys: Path, told: str
) -> None:
    (anybodys / "providers.json").write_text(told)
    (anybodys / "a.secret").write_text("00" * 16)
    (anybodys / "providers.json").chmod(0o600)
    (anybodys / "a.secret").chmod(0o644)
    for variable, value in {**ENVIRONMENT, "COUNTROOM_PROVIDERS": str(anybodys / "providers.json")}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=r"a\.secret holds a secret"):
        from_environment()


def test_half_of_tls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {**ENVIRONMENT, "COUNTROOM_TLS_CERT": "/nowhere"}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match="together or not at all"):
        from_environment()


@pytest.mark.parametrize(
    ("said", "meant"),
    [("", {}), ("person=20/200, machine=-", {"person": Rate(20, 200), "machine": None}), ("address=0.5/1", {"address": Rate(0.5, 1)})],
)  # fmt: skip
def test_rates_are_read_and_handed_on(
    monkeypatch: pytest.MonkeyPatch, said: str, meant: dict[str, Rate | None]
) -> None:
    for variable, value in {**ENVIRONMENT, "COUNTROOM_RATES": said, "COUNTROOM_PROXIES": "10.0.0.1, 10.0.0.2"}.items():
        monkeypatch.setenv(variable, value)
    found = from_environment()
    assert found.rates == meant
    assert found.proxies == ("10.0.0.1", "10.0.0.2")
    for variable, value in found.environment().items():
        monkeypatch.setenv(variable, value)
    assert from_environment() == found


@pytest.mark.parametrize("said", ["persons=1/1", "person", "person=1", "person=0/5", "person=-1/5", "person=1/0", "person=nan/5", "person=1e9/5"])  # fmt: skip
def test_a_rate_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    for variable, value in {**ENVIRONMENT, "COUNTROOM_RATES": said}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match="COUNTROOM_RATES"):
        from_environment()
