"""
A player with canaries in every personal field, through a whole life in two regions: erased, and a backup of before restored.

Everything that the regions keep is searched: each file of the data folder (PostgreSQL's tables and write-ahead log, NATS, Redis,
the logs of processes), and each table as a dump would tell it.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from domain.kernel import Sealed
from eventstore.keyring import Keyring
from eventstore.vault import CannotOpen, DataKey
from tests.asking import Answer
from tests.system.conftest import Client, Deployment, running
from tests.system.on_disk import files, written_out
from tests.system.test_heads import command

CANARIES = {
    "name": "Quillon Zwetschkenbaum",
    "email": "quillon.zwetschkenbaum@example.org",
    "phone": "+4366055501917",
    "birth_date": "1957-08-23",
    "external_id": "canary-ext-58291",
    "street": "Kanariengasse 1957",
    "city": "Canaryville",
    "postcode": "77331-CN",
}
SAID = ("canary in a note", "canary in a ticket", "canary in an intervention", "canary in a rejection")
ADDRESS = "203.0.113.219"
DEVICE = "Pixel of Q. 58292"
"""A label, which stands in the log in the clear."""
PLANTED = (*CANARIES.values(), *SAID, ADDRESS)


def needles() -> list[bytes]:
    """Every canary as it may be written: as it is, in small letters, in hex, and in base64 wherever it may begin."""
    plain = [form.encode() for text in PLANTED if len(text) > 8 for form in dict.fromkeys((text, text.lower()))]
    found = [*plain, *(each.hex().encode() for each in plain)]
    for each in plain:
        for shift in range(3):
            encoded = base64.b64encode(bytes(shift) + each).rstrip(b"=")
            found.append(encoded[4 if shift else 0 : -1].replace(b"+", b"-").replace(b"/", b"_"))
    return found


def texts(deployment: Deployment) -> Iterator[tuple[str, bytes]]:
    """Every table of every region, as a dump tells it."""
    for region, settings in deployment.local.settings.items():
        with psycopg.connect(settings.postgres) as connection:
            rows = connection.execute(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
            for schema, table in rows:
                statement = sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(sql.Identifier(schema, table))
                with connection.cursor().copy(statement) as copied:
                    yield f"{region} {schema}.{table}", b"".join(bytes(part) for part in copied)


def in_the_clear(found: Iterator[tuple[str, bytes]]) -> list[str]:
    """Where a canary stands."""
    wanted = needles()
    return [name for name, content in found if any(needle in content for needle in wanted)]


def labelled(deployment: Deployment) -> set[str]:
    """In which tables beside the log's own the device stands."""
    told = {name for name, content in texts(deployment) if DEVICE.encode() in content}
    return {name.partition(" ")[2] for name in told if " ledger." not in name}


def recoverable(deployment: Deployment, player: str) -> int:
    """How many sealed fields in the region's logs open with any key that any region holds now, by any region key."""
    keys: list[DataKey] = []
    fields: list[tuple[str, str, Sealed]] = []
    for settings in deployment.local.settings.values():
        with psycopg.connect(settings.postgres) as connection:
            wrapped = connection.execute("SELECT id::text, wrapped FROM vault.data_key").fetchall()
            bodies = connection.execute("SELECT convert_from(body, 'UTF8') FROM ledger.entry").fetchall()
        for region_key in Keyring(settings.region_key).held():
            for id_, data in wrapped:
                try:
                    keys.append(region_key.unwrap(id_, data))
                except CannotOpen:
                    continue
        for (body,) in bodies:
            if player.removeprefix("player_") in body:
                told = json.loads(body)
                fields += [(told["id"], path, sealed) for path, sealed in sealed_in(told["data"], "data")]
    assert fields
    return sum(opens(key, *field) for field in fields for key in keys)


def sealed_in(part: Any, path: str) -> Iterator[tuple[str, Sealed]]:
    if isinstance(part, dict):
        if part.keys() == {"sealed", "key"}:
            yield path, Sealed(**part)
        for name, inner in part.items():
            yield from sealed_in(inner, f"{path}.{name}")


def opens(key: DataKey, event: str, path: str, sealed: Sealed) -> bool:
    try:
        key.open(sealed, event_id=event, path=path)
    except CannotOpen:
        return False
    return True


def live(eu: Client) -> str:
    """A player's whole life."""
    at_first = {name: CANARIES[name] for name in ("name", "email", "phone", "birth_date", "external_id")}
    player = eu.register(**at_first)
    one = f"/v1/players/{player}"
    later = {name: CANARIES[name] for name in ("street", "city", "postcode")}
    done(eu.post(f"{one}/profile", {**later, "device": DEVICE}))
    done(eu.post(f"{one}/notes", {"text": SAID[0]}))
    done(eu.post(f"{one}/logins", {"session": "1", "address": ADDRESS, "device": DEVICE}))
    done(eu.post(f"{one}/tickets", {"channel": "email", "subject": CANARIES["name"], "text": SAID[1]}))
    why = {"kind": "complaint", "reason": SAID[2]}
    euros = {"amount": 100, "currency": "EUR"}
    payment = done(eu.post(f"{one}/deposits", {"amount": euros, "provider": "acme"}))["transaction"]
    told = {"reason": SAID[3], "intervention": why}
    done(eu.post(f"/v1/transactions/{payment}/fail", told, role="cashier"))
    done(eu.post(f"{one}/close", {"reason": "asked"}))
    return player


def done(answer: Answer) -> Any:
    assert answer.status < 300, answer
    return answer.json


def let_years_pass(deployment: Deployment) -> None:
    """PostgreSQL's clock, as the log records by it, goes eleven years ahead: retention has no switch that a test could use."""
    with psycopg.connect(deployment.local.settings["eu"].postgres, autocommit=True) as connection:
        [text] = connection.execute("SELECT pg_get_functiondef('ledger.append'::regproc)").fetchone() or ("",)
        assert text.count("clock_timestamp()") == 1
        connection.execute(text.replace("clock_timestamp()", "(clock_timestamp() + interval '11 years')").encode())


def erase(deployment: Deployment, player: str) -> None:
    eu = deployment.clients["eu"]
    refused = eu.post(f"/v1/players/{player}/erase", {"basis": "asked"}, role="compliance")
    assert (refused.status, refused.json["code"]) == (422, "retention_not_over"), refused
    assert refused.json["allowed_from"] > "2031"
    let_years_pass(deployment)
    done(eu.post(f"/v1/players/{player}/tags", {"tag": "gone"}))
    waits = eu.post(f"/v1/players/{player}/erase", {"basis": "asked"}, role="compliance")
    assert waits.status == 202, waits
    approved = {"hash": waits.json["hash"]}
    done(eu.post(f"/v1/approvals/{waits.json['approval']}/approve", approved, role="supervisor"))


def is_erased(deployment: Deployment, player: str) -> None:
    """Nobody is shown anything, anywhere, and nothing fails."""
    nobody = {**dict.fromkeys(CANARIES), "sealed": True}
    for client in deployment.clients.values():
        card = client.eventually(f"/v1/players/{player}", lambda card: card["personal"]["erased_at"] is not None)
        shown = {name: value for name, value in card["personal"].items() if name != "erased_at"}
        assert shown == nobody
        before = done(client.get(f"/v1/audit/players/{player}?at=eu/{_registered(deployment, player)}", role="auditor"))
        assert (before["status"], before["personal"]["name"]) == ("active", None)
        assert before["personal"]["erased_at"] == card["personal"]["erased_at"]
        client.finds(email=CANARIES["email"])
    keys = {
        region: psycopg.connect(settings.postgres).execute(
            "SELECT (SELECT count(*) FROM vault.data_key WHERE subject = %(who)s) + (SELECT count(*) FROM vault.blind_index WHERE subject = %(who)s)",
            {"who": player.removeprefix("player_")},
        ).fetchone()
        for region, settings in deployment.local.settings.items()
    }  # fmt: skip
    assert set(keys.values()) == {(0,)}


@pytest.mark.timeout(400)
def test_canaries_are_nowhere_in_the_clear_and_after_an_erasure_nowhere_at_all(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    data.mkdir()
    with running(data) as deployment:
        eu = deployment.clients["eu"]
        player = live(eu)
        deployment.caught_up()
        card = eu.eventually(f"/v1/players/{player}", lambda card: card["personal"]["city"] is not None)
        assert {name: card["personal"][name] for name in CANARIES} == CANARIES
        written_out(deployment)
        assert in_the_clear(texts(deployment)) == []
        assert in_the_clear(files(data)) == []
        assert labelled(deployment) >= {"read.player", "read.login"}
        assert recoverable(deployment, player) > 10
    shutil.copytree(data / "eu" / "postgres", backup, symlinks=True)

    with running(data) as deployment:
        erase(deployment, player)
        is_erased(deployment, player)
        deployment.caught_up()
        _certified(deployment, player)
        assert labelled(deployment) == set()
        command("verify", *(settings.postgres for settings in deployment.local.settings.values()))
        written_out(deployment)
        assert in_the_clear(texts(deployment)) == in_the_clear(files(data)) == []
        assert recoverable(deployment, player) == 0

    shutil.rmtree(data / "eu" / "postgres")
    shutil.copytree(backup, data / "eu" / "postgres", symlinks=True)
    with running(data) as deployment:
        never_shown(deployment.clients["eu"], player)
        is_erased(deployment, player)
        assert recoverable(deployment, player) == 0
        rotated = json.loads(command("vault", "rotate", "--region", "eu", "--data", str(data), "--json"))
        assert rotated["keys"] == 0
        written_out(deployment)
        assert in_the_clear(texts(deployment)) == in_the_clear(files(data)) == []
        assert deployment.clients["eu"].register(name="Ben") != player
    (data / "a file").write_bytes(b"... " + base64.urlsafe_b64encode(b"x" + CANARIES["email"].encode()))
    assert in_the_clear(files(data)) == ["a file"]  # the search itself is able to find


def never_shown(client: Client, player: str) -> None:
    """From the first answer on: the read models and the vault of the backup know the player, and nothing opens."""
    found = card = None
    while found is None or card is None:
        looked_up, read = client.look_up(email=CANARIES["email"]), client.get(f"/v1/players/{player}")
        assert {looked_up.status, read.status} <= {200, 503}, (looked_up, read)
        if looked_up.status == 200:
            found = looked_up.json["items"]
            assert found == []
        if read.status == 200:
            card = read.json["personal"]
            assert card["name"] is None


def _registered(deployment: Deployment, player: str) -> int:
    """The position of the registration in eu's log."""
    with psycopg.connect(deployment.local.settings["us"].postgres) as connection:
        stream = f"player-{player.removeprefix('player_')}"
        row = connection.execute(
            "SELECT position FROM ledger.entry WHERE stream = %s AND version = 1", [stream]
        ).fetchone()
    assert row is not None
    return int(row[0])


def _certified(deployment: Deployment, player: str) -> None:
    """The certificate stands alone: its entry hashes to a leaf that the log's signed head covers."""
    import hashlib

    from verifier.merkle import verify_inclusion
    from verifier.note import parse_checkpoint

    for client in deployment.clients.values():
        found = client.eventually(
            f"/v1/players/{player}/erasure",
            lambda found: (
                all(each["proof"] for each in (found, *found["carried_out"])) and len(found["carried_out"]) == 2
            ),
        )
        for tag, each in (("player.erased", found), *(("vault.keys_destroyed", each) for each in found["carried_out"])):
            proof, entry = each["proof"], base64.b64decode(each["entry"])
            leaf = hashlib.sha256(b"\0" + entry).digest()
            head = parse_checkpoint(proof["checkpoint"].partition("\n\n")[0] + "\n")
            hashes = [bytes.fromhex(each) for each in proof["hashes"]]
            verify_inclusion(proof["index"], proof["size"], leaf, hashes, head.root)
            assert f'"{tag}"'.encode() in entry
            assert player.removeprefix("player_").encode() in entry
        assert [each["log"] for each in found["carried_out"]] == ["eu", "us"]
        assert (found["keys_here"], found["kept"][0]["of_law"]) == (0, False)
        assert found["approval"].startswith("approval_")
        assert found["requested_by"] != found["approved_by"]


def test_a_canary_in_a_table_is_found(deployment: Deployment) -> None:
    settings = deployment.local.settings["us"]
    with psycopg.connect(settings.postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.planted AS SELECT %s::bytea AS b", [CANARIES["phone"].encode()])
        try:
            assert in_the_clear(texts(deployment)) == ["us public.planted"]
        finally:
            connection.execute("DROP TABLE public.planted")
