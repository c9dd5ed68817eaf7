"""Personal data is nowhere in the clear: not in files, logs, messages or caches of either region."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.conftest import Deployment, running

NAME, EMAIL, PHONE = "Zebulon Quackenbush", "zebulon.quackenbush@example.org", "+4915155500042"
BORN = "1971-03-29"


@pytest.mark.timeout(120)
def test_a_planted_name_email_and_phone_are_found_nowhere_in_the_clear(tmp_path: Path) -> None:
    with running(tmp_path) as deployment:
        eu, us = deployment.clients["eu"], deployment.clients["us"]
        player = eu.register(name=NAME, email=EMAIL, phone=PHONE, birth_date=BORN)
        eu.deposit(player, 100)
        deployment.caught_up()
        shown = eu.get(f"/v1/players/{player}").json["personal"]
        assert (shown["name"], shown["email"], shown["phone"], shown["birth_date"]) == (NAME, EMAIL, PHONE, BORN)
        assert us.get(f"/v1/players/{player}").json["personal"]["name"] is None
        assert eu.get(f"/v1/players/{player}", role="auditor").json["personal"]["name"] is None
        assert [found["id"] for found in eu.get(f"/v1/players?email={EMAIL.upper()}").json["items"]] == [player]
        _flush(deployment)
        assert planted_in(tmp_path) == []
    assert planted_in(tmp_path) == []
    (tmp_path / "a file").write_text(f"… {EMAIL} …")  # the search itself is able to find
    assert [path.name for path in planted_in(tmp_path)] == ["a file"]


def _flush(deployment: Deployment) -> None:
    import psycopg
    import redis

    for settings in deployment.local.settings.values():
        with psycopg.connect(settings.postgres, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
        client = redis.Redis.from_url(settings.redis)
        client.execute_command("BGREWRITEAOF")
        client.close()


def planted_in(folder: Path) -> list[Path]:
    needles = [needle.encode() for text in (NAME, EMAIL, PHONE) for needle in (text, text.lower())]
    needles += [needle.hex().encode() for needle in needles]
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if any(needle in content for needle in needles):
                found.append(path)
    return found
