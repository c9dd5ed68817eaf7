"""Personal data is nowhere in the clear: not in files, logs, messages or caches of either region."""

from __future__ import annotations

from pathlib import Path

import psycopg

from eventstore.vault import DataKey, RegionKey
from tests.system.conftest import Client, Deployment, running
from tests.system.on_disk import files, written_out

NAME, EMAIL, PHONE = "Zebulon Quackenbush", "zebulon.quackenbush@example.org", "+4915155500042"
BORN = "1971-03-29"
STREET, ADDRESS, NOTE = "Quarzgasse 1771", "203.0.113.177", "prefers to be called Zebulonius"
WHY, ASKED, REJECTED = "his aunt Philomena has phoned", "for his wife Ottilia", "not for his sister Kunigunde"


def test_a_planted_name_email_and_phone_are_found_nowhere_in_the_clear(tmp_path: Path) -> None:
    (tmp_path / "residency.json").write_text('{"AT": ["eu"], "*": ["eu", "us"]}')  # so the key does not travel
    with running(tmp_path) as deployment:
        eu, us = deployment.clients["eu"], deployment.clients["us"]
        player = eu.register(name=NAME, email=EMAIL, phone=PHONE, birth_date=BORN)
        eu.deposit(player, 100)
        assert eu.post(f"/v1/players/{player}/profile", {"street": STREET}).status == 200
        assert eu.post(f"/v1/players/{player}/notes", {"text": NOTE}).status == 201
        assert eu.post(f"/v1/players/{player}/logins", {"session": "1", "address": ADDRESS}).status == 201
        said = {"channel": "email", "subject": NAME, "text": f"Call {PHONE} or write to {EMAIL}"}
        ticket = eu.post(f"/v1/players/{player}/tickets", said).json["ticket"]
        payment, approval = _money_by_hand(eu, player)
        deployment.caught_up()
        asked = f"/v1/approvals/{approval}"
        assert ASKED in eu.get(asked, role="supervisor").json["body"]
        assert eu.get(asked, role="supervisor").json["reject_reason"] == REJECTED
        assert eu.get(f"/v1/transactions/{payment}").json["failure_reason"] == REJECTED
        for region, role in ((eu, "auditor"), (us, "supervisor")):
            found = region.get(asked, role=role).json
            assert (found["body"], found["salt"], found["reject_reason"]) == (None, None, None)
            assert region.get(f"/v1/transactions/{payment}", role=role).json["failure_reason"] is None
        shown = eu.get(f"/v1/players/{player}").json["personal"]
        assert (shown["name"], shown["email"], shown["phone"], shown["birth_date"]) == (NAME, EMAIL, PHONE, BORN)
        assert us.get(f"/v1/players/{player}").json["personal"]["name"] is None
        assert eu.get(f"/v1/players/{player}", role="auditor").json["personal"]["name"] is None
        texts = [r.get(f"/v1/tickets/{ticket}").json["messages"]["items"][0]["text"] for r in (eu, us)]
        assert texts == [said["text"], None]
        assert eu.found(email=EMAIL.upper()) == [player]
        written_out(deployment)
        assert planted_in(tmp_path) == []
    assert planted_in(tmp_path) == []
    (tmp_path / "a file").write_text(f"… {EMAIL} …")  # the search itself is able to find
    assert planted_in(tmp_path) == ["a file"]


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


def _money_by_hand(eu: Client, player: str) -> tuple[str, str]:
    """A deposit that a person has failed, and a rejected approval of an adjustment: with texts that name people."""
    why = {"kind": "complaint", "reason": WHY}
    payment: str = eu.post(f"/v1/players/{player}/deposits", {"amount": euros(100), "provider": "acme"}).json[
        "transaction"
    ]
    failed = {"reason": REJECTED, "intervention": why}
    assert eu.post(f"/v1/transactions/{payment}/fail", failed, role="cashier").status == 200
    given = {"direction": "credit", "reason_code": "goodwill"}
    little = {**given, "amount": euros(1), "intervention": why}
    assert eu.post(f"/v1/players/{player}/adjustments", little, role="cashier").status == 201
    much = {**given, "amount": euros(90_000), "intervention": {**why, "reason": ASKED}}
    waits = eu.post(f"/v1/players/{player}/adjustments", much, role="cashier")
    assert waits.status == 202
    approval: str = waits.json["approval"]
    assert eu.post(f"/v1/approvals/{approval}/reject", {"reason": REJECTED}, role="supervisor").status == 200
    return payment, approval


def euros(amount: int) -> dict[str, object]:
    return {"amount": amount, "currency": "EUR"}


def planted_in(folder: Path) -> list[str]:
    """The files in which something planted stands."""
    planted = (NAME, EMAIL, PHONE, STREET, ADDRESS, NOTE, WHY, ASKED, REJECTED)
    needles = [needle.encode() for text in planted for needle in (text, text.lower())]
    needles += [needle.hex().encode() for needle in needles]
    return [name for name, content in files(folder) if any(needle in content for needle in needles)]
