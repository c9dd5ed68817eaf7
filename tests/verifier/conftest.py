"""The verifier's program, run in this process as its users run it."""

from collections.abc import Callable

import pytest

from tests.verifier.region import TOKEN
from verifier import cli, source


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("COUNTROOM_TOKEN", TOKEN)
    monkeypatch.setattr(source, "PAUSE_S", 0)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Exit status, and what was said: never a traceback, never the token."""

    def run(*arguments: object) -> tuple[int, str]:
        status = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert TOKEN not in out + err
        return status, out + err

    return run
