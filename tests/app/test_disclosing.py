"""Keys on their way to a regulator: encrypted to the recipient that the log names, and nowhere in the clear."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyrage import DecryptError, decrypt, x25519

from app import commanding, disclosing
from eventstore.vault import DataKey, RegionKey
from tests.app.reading import Client, events, region, serving
from tests.asking import Answer
from tests.ledger import Ledger
from tests.stack import Servers

EMAIL = "anna@example.com"
REGION_KEY = RegionKey(b"k" * 32)


class House(NamedTuple):
    client: Client
    ledger: Ledger

    async def player(self, key: str, **personal: str) -> str:
        answer = await self.client.post(
            "/v1/players", {"country": "DE", "currency": "EUR", **personal}, "operator", Idempotency_Key=key
        )
        player: str = answer.json["player"]
        return player

    async def disclose(self, recipient: str, *players: str, key: str = "k", role: str = "compliance") -> Answer:
        body = {"recipient": recipient, "reason": "order-17-26", "players": players}
        return await self.client.post("/v1/disclosures", body, role, Idempotency_Key=key)


@pytest.fixture
async def house(ledger: Ledger, servers: Servers) -> AsyncIterator[House]:
    async with region(ledger, servers, REGION_KEY, gap=False) as made:
        start = made.read.start
        routers = [
            commanding.router(made.services, start, made.schemas, lambda _: None),
            disclosing.router(made.read, made.schemas),
        ]
        async with serving(made.schemas, routers) as client:
            yield House(client, ledger)


async def test_the_recipient_opens_the_file_and_with_it_what_is_sealed_in_the_log(house: House) -> None:
    """By the age file, record-format.md and `cryptography` alone."""
    identity = x25519.Identity.generate()
    player = await house.player("a", email=EMAIL)
    made = await house.disclose(str(identity.to_public()), player)
    assert made.status == 201
    answer = await house.client.get(f"/v1/disclosures/{made.json['disclosure']}", "compliance")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/age")

    file = json.loads(decrypt(answer.raw, [identity]))
    assert (file["format"], file["missing"]) == ("countroom/data-keys/1", [])
    [key] = file["keys"]
    secret = base64.urlsafe_b64decode(key["secret"] + "=")
    [body] = [json.loads(e.body) for e in house.ledger.entries() if b'"player.registered"' in e.body]
    assert (key["player"], key["key"], key["commitment"]) == (player, *body["data"]["key"].values())
    digest = hashlib.sha256(b"countroom/data-key/v1\n" + key["key"].encode() + b"\n" + secret).hexdigest()
    assert digest == key["commitment"]
    sealed = base64.urlsafe_b64decode(body["data"]["email"]["sealed"] + "==")
    opened = AESGCM(secret).decrypt(sealed[:12], sealed[12:], f"{body['id']}\ndata.email".encode())
    assert opened.decode() == EMAIL
    with pytest.raises(DecryptError):
        decrypt(answer.raw, [x25519.Identity.generate()])


async def test_who_ordered_it_who_fetched_it_and_for_whom_stands_in_the_log(house: House) -> None:
    recipient = str(x25519.Identity.generate().to_public())
    player = await house.player("a", email=EMAIL)
    disclosure = (await house.disclose(recipient, player)).json["disclosure"]
    await house.client.get(f"/v1/disclosures/{disclosure}", "compliance")
    [ordered], [fetched] = events(house.ledger, "disclosures"), events(house.ledger, "reads")
    assert (ordered.body.actor, ordered.body.id) == ("compliance:test", disclosure)
    assert json.loads(bytes(ordered.body.data))["recipient"] == recipient
    assert (fetched.body.actor, json.loads(bytes(fetched.body.data))["reads"]) == (
        "compliance:test",
        [{"what": "disclosure", "query": f"disclosure_id={disclosure}"}],
    )


async def test_only_compliance_may_and_of_a_refusal_nothing_is_recorded(house: House) -> None:
    recipient = str(x25519.Identity.generate().to_public())
    player = await house.player("a", email=EMAIL)
    disclosure = (await house.disclose(recipient, player)).json["disclosure"]
    before = len(house.ledger.entries())
    for role in ("auditor", "operator", "viewer"):
        assert (await house.client.get(f"/v1/disclosures/{disclosure}", role)).problem() == (403, "forbidden")
        assert (await house.disclose(recipient, player, key=role, role=role)).problem() == (403, "forbidden")
    unknown = disclosure[:-1] + ("0" if disclosure[-1] != "0" else "1")
    for path, status in ((unknown, 404), ("x", 422), ("%00", 422)):
        assert (await house.client.get(f"/v1/disclosures/{path}", "compliance")).status == status
    assert len(house.ledger.entries()) == before


async def test_a_key_that_was_destroyed_since_is_missing_and_the_others_are_there(house: House) -> None:
    identity = x25519.Identity.generate()
    players = [await house.player(key, email=EMAIL) for key in ("a", "b")]
    path = f"/v1/disclosures/{(await house.disclose(str(identity.to_public()), *players)).json['disclosure']}"
    both = json.loads(decrypt((await house.client.get(path, "compliance")).raw, [identity]))
    assert [key["player"] for key in both["keys"]] == players
    house.ledger.sql("DELETE FROM vault.data_key WHERE subject = %s", players[0].removeprefix("player_"))
    one = json.loads(decrypt((await house.client.get(path, "compliance")).raw, [identity]))
    assert ([key["player"] for key in one["keys"]], one["missing"]) == ([players[1]], [players[0]])


async def test_a_planted_key_is_not_disclosed_and_nothing_secret_is_said(
    house: House, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    player = await house.player("a", email=EMAIL)
    recipient = str(x25519.Identity.generate().to_public())
    disclosure = (await house.disclose(recipient, player)).json["disclosure"]
    [(key_id, wrapped)] = house.ledger.sql("SELECT id, wrapped FROM vault.data_key")
    real = REGION_KEY.unwrap(str(key_id), bytes(wrapped))
    house.ledger.sql(
        "UPDATE vault.data_key SET wrapped = %s", REGION_KEY.wrap(DataKey(str(key_id), bytes(32)), b"n" * 12)
    )
    with structlog.testing.capture_logs() as said:
        refused = await house.client.get(f"/v1/disclosures/{disclosure}", "compliance")
    assert refused.problem() == (500, "cannot_open")
    told = f"{said}{caplog.text}{capsys.readouterr()}{refused.raw.decode()}"
    for secret in (real.key, bytes(32)):
        assert secret.hex() not in told
        assert base64.urlsafe_b64encode(secret).decode().rstrip("=") not in told
    assert EMAIL not in told
