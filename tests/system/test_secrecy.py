"""Personal data is nowhere in the clear: not in files, logs, messages or caches of either region."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from eventstore.vault import DataKey, RegionKey
from tests.system.conftest import Client, Deployment, running

NAME, EMAIL, PHONE = "Zebulon Quackenbush", "zebulon.quackenbush@example.org", "+4915155500042"
BORN = "1971-03-29"
STREET, ADDRESS, NOTE = "Quarzgasse 1771", "203.0.113.177", "prefers to be called Zebulonius"


@pytest.mark.timeout(120)
def test_a_planted_name_email_and_phone_are_found_nowhere_in_the_clear(tmp_path: Path) -> None:
    with running(tmp_path) as deployment:
        eu, us = deployment.clients["eu"], deployment.clients["us"]
        player = eu.register(name=NAME, email=EMAIL, phone=PHONE, birth_date=BORN)
        eu.deposit(player, 100)
        assert eu.post(f"/v1/players/{player}/profile", {"street": STREET}).status == 200
        assert eu.post(f"/v1/players/{player}/notes", {"text": NOTE}).status == 201
        assert eu.post(f"/v1/players/{player}/logins", {"session": "1", "address": ADDRESS}).status == 201
        said = {"channel": "email", "subject": NAME, "text": f"Call {PHONE} or write to {EMAIL}"}
        ticket = eu.post(f"/v1/players/{player}/tickets", said).json["ticket"]
        deployment.caught_up()
        shown = eu.get(f"/v1/players/{player}").json["personal"]
        assert (shown["name"], shown["email"], shown["phone"], shown["birth_date"]) == (NAME, EMAIL, PHONE, BORN)
        assert us.get(f"/v1/players/{player}").json["personal"]["name"] is None
        assert eu.get(f"/v1/players/{player}", role="auditor").json["personal"]["name"] is None
        texts = [r.get(f"/v1/tickets/{ticket}").json["messages"]["items"][0]["text"] for r in (eu, us)]
        assert texts == [said["text"], None]
        assert [found["id"] for found in eu.get(f"/v1/players?email={EMAIL.upper()}").json["items"]] == [player]
        _flush(deployment)
        assert planted_in(tmp_path) == []
    assert planted_in(tmp_path) == []
    (tmp_path / "a file").write_text(f"… {EMAIL} …")  # the search itself is able to find
    assert [path.name for path in planted_in(tmp_path)] == ["a file"]


def test_a_planted_key_opens_no_field_and_is_named(eu: Client, deployment: Deployment) -> None:
    player = eu.register(name=NAME)
    eu.eventually(f"/v1/players/{player}", lambda card: card["personal"]["sealed"], role="auditor")
    settings = deployment.local.settings["eu"]
    subject = player.removeprefix("player_")
    with psycopg.connect(settings.postgres) as connection:
        row = connection.execute("SELECT id FROM vault.data_key WHERE subject = %s", [subject]).fetchone()
        assert row is not None
        planted = RegionKey.from_file(settings.region_key).wrap(DataKey(str(row[0]), bytes(32)), bytes(12))
        connection.execute("UPDATE vault.data_key SET wrapped = %s WHERE subject = %s", [planted, subject])

    answer = eu.get(f"/v1/players/{player}")

    assert (answer.status, answer.json["code"]) == (500, "cannot_open")
    assert f"{row[0]} of the vault is not the one that the registration commits to" in answer.json["detail"]
    assert eu.get(f"/v1/players/{player}", role="auditor").status == 200


def _flush(deployment: Deployment) -> None:
    import redis

    for settings in deployment.local.settings.values():
        with psycopg.connect(settings.postgres, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
        client = redis.Redis.from_url(settings.redis)
        client.execute_command("BGREWRITEAOF")
        client.close()


def planted_in(folder: Path) -> list[Path]:
    needles = [
        needle.encode() for text in (NAME, EMAIL, PHONE, STREET, ADDRESS, NOTE) for needle in (text, text.lower())
    ]
    needles += [needle.hex().encode() for needle in needles]
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if any(needle in content for needle in needles):
                found.append(path)
    return found
