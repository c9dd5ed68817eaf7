"""Nothing personal can be tried out by the fingerprints of commands."""

import msgspec
import pytest

from commands.catalog import ENDPOINTS
from commands.identity import fingerprint, prints
from commands.sealing import personal
from domain.catalog import AGGREGATES
from domain.errors import KeyReused
from domain.kernel import personal_fields
from tests.commands.house import CODEC, SECRET, House

NAMED_OTHERWISE = {"reference", "text", "subject"}
"""Names that mean something personal in one event, and nothing of the kind in another's command."""


def test_a_member_that_an_event_seals_is_marked_in_every_body() -> None:
    sealed = {
        path.rpartition(".")[2]
        for aggregate in AGGREGATES
        for kind in aggregate.events.values()
        for path, *_ in personal(kind)
    }
    assert {"name", "email", "phone", "birth_date", "reason", "address"} <= sealed
    for endpoint in ENDPOINTS:
        marked = {path.rpartition(".")[2] for path in personal_fields(endpoint.body)}
        fields = {field.encode_name: str(field.type) for field in msgspec.structs.fields(endpoint.body)}
        free = {name for name in fields if name in sealed - NAMED_OTHERWISE and "pattern=" not in fields[name]}
        assert free <= marked, endpoint.path


def test_what_is_personal_is_in_the_whole_only() -> None:
    class Body(msgspec.Struct):
        name: str

    kind = next(endpoint.body for endpoint in ENDPOINTS if endpoint.path == "/v1/players")
    one, two = (prints(SECRET, "POST", "/v1/players", body, kind) for body in (b'{"name":"Anna"}', b'{"name":"Berta"}'))
    assert one.fingerprint == two.fingerprint == fingerprint(SECRET, "POST", "/v1/players", b"{}")
    assert None is not one.whole != two.whole
    assert prints(SECRET, "POST", "/x", b"{}", kind) == (fingerprint(SECRET, "POST", "/x", b"{}"), None)
    assert prints(SECRET, "POST", "/x", b'{"name":"Anna"}', Body).whole is None


def printed(house: House) -> list[str | None]:
    return [CODEC.decode(entry).body.command.fingerprint for entry in house.log.entries]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/players/{}/profile", b'{"birth_date":"1990-02-03"}'),
        ("/v1/players/{}/logins/fail", b'{"reason":"wrong","address":"192.0.2.7"}'),
        ("/v1/players/{}/notes", b'{"text":"mother of two"}'),
        ("/v1/players/{}/tickets", b'{"channel":"email","subject":"a","text":"b","priority":"low"}'),
        ("/v1/players/{}/deposits", b'{"amount":{"amount":100,"currency":"EUR"},"provider":"x","instrument":"4111"}'),
    ],
)
async def test_whoever_has_the_shared_key_cannot_try_what_was_said(house: House, path: str, body: bytes) -> None:
    player = await house.player()
    await house.process.post(path.format(player), body, key="k")
    assert fingerprint(SECRET, "POST", path.format(player), body) not in printed(house)
    again = await house.process.post(path.format(player), body, key="k")
    assert again.repeated


async def test_a_repeat_with_something_else_that_is_personal_is_a_conflict_as_long_as_anybody_can_tell(
    house: House,
) -> None:
    player = await house.player()
    path = f"/v1/players/{player}/profile"
    await house.process.post(path, {"phone": "+43 1 234"}, key="k")
    with pytest.raises(KeyReused):
        await house.process.post(path, {"phone": "+43 1 235"}, key="k")
    with pytest.raises(KeyReused):  # what is not personal is told without the key
        await house.process.post(path, {"language": "de"}, key="k")
    house.vault.kept.clear()
    assert (await house.process.post(path, {"phone": "+43 1 235"}, key="k")).repeated


async def test_a_registration_that_comes_again_with_another_name_is_a_conflict(house: House) -> None:
    body = {"country": "AT", "currency": "EUR", "name": "Anna"}
    first = await house.process.post("/v1/players", body, key="k")
    assert (await house.process.post("/v1/players", body, key="k")).answer == first.answer
    with pytest.raises(KeyReused):
        await house.process.post("/v1/players", {**body, "name": "Berta"}, key="k")
