"""Personal fields: what a sealed value withstands, and that none is ever stored in the clear."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.sealing import KeyNotHeld, opened, seal
from domain.catalog import AGGREGATES
from domain.kernel import Event, Intervention, Personal, Remark, Sealed, personal_fields, uuid7
from domain.kyc import Rejected as KycRejected
from domain.logs import Adopted, Cut
from domain.players import DataKey as KeyCommitment
from domain.players import Registered
from domain.transactions import DepositFailed, Intervened
from eventstore import postgres
from eventstore.blind import Among
from eventstore.vault import CannotOpen, DataKey, Owed, RegionKey, Vault
from policies.gates import Level
from tests.eventstore.test_ownership import TO_EU, TO_US, said
from tests.ledger import US, Ledger, chained, command, opening, stream

KEY = DataKey("019a8f00-0000-7000-8000-000000000003", bytes(range(32)))
OTHER = DataKey("019a8f00-0000-7000-8000-000000000004", bytes(32))
EVENT = "019a8f00-0000-7000-8000-000000000005"
REGION = RegionKey(b"r" * 32)


def sealed(text: str = "anna@example.com", *, event_id: str = EVENT, path: str = "data.email") -> Sealed:
    return KEY.seal(text, event_id=event_id, path=path, nonce=b"n" * 12)


# One field


@given(st.text(max_size=100), st.binary(min_size=12, max_size=12))
def test_what_was_sealed_opens(text: str, nonce: bytes) -> None:
    assert (
        KEY.open(KEY.seal(text, event_id=EVENT, path="data.name", nonce=nonce), event_id=EVENT, path="data.name")
        == text
    )


def test_a_sealed_field_is_nonce_ciphertext_and_tag_under_the_key_that_it_names() -> None:
    """docs/reference/record-format.md; the value was computed with pycryptodome."""
    from Crypto.Cipher import AES

    cipher = AES.new(KEY.key, AES.MODE_GCM, nonce=b"n" * 12)
    cipher.update(EVENT.encode() + b"\ndata.email")
    ciphertext, tag = cipher.encrypt_and_digest(b"anna@example.com")
    expected = base64.urlsafe_b64encode(b"n" * 12 + ciphertext + tag).decode().rstrip("=")
    assert sealed() == Sealed(expected, KEY.id)


def test_a_sealed_field_opens_in_no_other_place_and_with_no_other_key() -> None:
    for key, event_id, path in (
        (KEY, EVENT, "data.name"),
        (KEY, EVENT[:-1] + "6", "data.email"),
        (OTHER, EVENT, "data.email"),
    ):
        with pytest.raises(CannotOpen):
            key.open(sealed(), event_id=event_id, path=path)


@given(st.data())
def test_a_changed_sealed_field_does_not_open(data: st.DataObject) -> None:
    text = sealed("Anna").sealed
    place = data.draw(st.integers(0, len(text) - 1))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ \nä"
    character = data.draw(st.sampled_from(alphabet).filter(lambda each: each != text[place]))
    changed = data.draw(
        st.sampled_from(
            [
                text[:place] + character + text[place + 1 :],
                text[:place] + character + text[place:],
                text[:place],
                text + "=",
            ]
        )
    )
    with pytest.raises(CannotOpen):
        KEY.open(Sealed(changed, KEY.id), event_id=EVENT, path="data.email")


def test_the_commitment_to_a_key_is_a_hash_that_anybody_can_compute() -> None:
    assert KEY.commitment == "611caad85f0fe081c2bae9db73ddc510f1bb15169752bdaeba94ab19a8392e3f"
    assert KEY.commitment == hashlib.sha256(b"countroom/data-key/v1\n" + KEY.id.encode() + b"\n" + KEY.key).hexdigest()


# The region's key


def test_a_data_key_is_unwrapped_only_by_the_region_that_wrapped_it_and_under_its_own_name() -> None:
    wrapped = REGION.wrap(KEY, b"n" * 12)
    assert KEY.key not in wrapped
    assert REGION.unwrap(KEY.id, wrapped) == KEY
    for region, key_id, stored in (
        (RegionKey(b"s" * 32), KEY.id, wrapped),
        (REGION, OTHER.id, wrapped),
        (REGION, KEY.id, wrapped[:-1] + bytes([wrapped[-1] ^ 1])),
    ):
        with pytest.raises(CannotOpen):
            region.unwrap(key_id, stored)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "region.key"
    file.write_text("11" * 32 + "\n")
    file.chmod(mode)
    with pytest.raises(ValueError, match="chmod 600"):
        RegionKey.from_file(file)
    file.chmod(0o600)
    RegionKey.from_file(file)


@pytest.mark.parametrize("text", ["11" * 31, "11" * 33, "", "x" * 64])
def test_a_key_file_holds_32_bytes_in_hex(tmp_path: Path, text: str) -> None:
    file = tmp_path / "region.key"
    file.touch(0o600)
    file.write_text(text)
    with pytest.raises(ValueError):
        RegionKey.from_file(file)


# Blind indexes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Anna@Example.com", "anna@example.com"),
        ("  anna@example.com\n", "anna@example.com"),
        ("\uff21\uff2e\uff2e\uff21", "anna"),  # full width
        ("Straße", "STRASSE"),
        ("Andre\u0301", "ANDR\u00c9"),
        ("\u0390", "\u0399\u0308\u0301"),  # the second is the first in capitals, and folds to another sequence
    ],
)
def test_a_value_is_found_however_it_is_written(one: str, other: str) -> None:
    assert REGION.digest("name", one) == REGION.digest("name", other)


@given(st.text(max_size=30))
def test_composed_and_decomposed_text_are_the_same_value(text: str) -> None:
    assert REGION.digest("name", unicodedata.normalize("NFD", text)) == REGION.digest("name", text)


def test_a_digest_depends_on_field_value_and_region() -> None:
    digests = {
        REGION.digest("email", "anna"),
        REGION.digest("name", "anna"),
        REGION.digest("name", "anne"),
        RegionKey(b"s" * 32).digest("name", "anna"),
    }
    assert len(digests) == 4


# At rest


@pytest.fixture
async def vault(ledger: Ledger) -> AsyncIterator[Vault]:
    async with postgres.pool(ledger.dsn, "countroom_writer", size=1) as pool:
        yield Vault(pool, REGION)


async def test_keys_are_kept_wrapped_and_found_by_what_identifies_their_subject(vault: Vault, ledger: Ledger) -> None:
    anna, ben = (vault.new_key(uuid.uuid4().bytes) for _ in range(2))
    await vault.keep([Owed("a", anna, [("email", "Anna@example.com")]), Owed("b", ben, [("email", "ben@example.com")])])
    assert await vault.find("email", " anna@EXAMPLE.com") == ["a"]
    assert await vault.find("name", "anna@example.com") == []
    commitments = {key.id: key.commitment for key in (anna, ben, OTHER)}
    assert await vault.keys(commitments) == {anna.id: anna, ben.id: ben}
    everything = str(ledger.sql("SELECT * FROM vault.data_key")) + str(ledger.sql("SELECT * FROM vault.blind_index"))
    assert "anna" not in everything.lower()
    for key in (anna, ben):
        assert repr(key.key)[2:-1] not in everything


async def test_of_many_words_only_those_of_registered_players_find_somebody(vault: Vault, ledger: Ledger) -> None:
    """The words of a registration that never came stay."""
    anna, ben, nobody = (stream(f"player {name}").removeprefix("player-") for name in ("5", "6", "7"))
    words = [("email", "anna@example.com"), ("phone", "1"), ("phone", "2")]
    await vault.keep([Owed(who, None, words[:2]) for who in (anna, ben, nobody)])
    assert await vault.find_registered(words) == {}
    assert ledger.append(command(("player 5", 1)), command(("wallet 6", 1)), command(("player 6", 1))) == [0, 0, 0]
    assert await vault.find_registered(words) == {word: sorted([anna, ben]) for word in words[:2]}
    assert await vault.find_registered([("email", " ANNA@example.com")]) == {
        ("email", " ANNA@example.com"): sorted([anna, ben])
    }
    assert await vault.find("phone", "1") == sorted([anna, ben, nobody])


async def test_who_is_found_follows_who_owns_the_partition_now(vault: Vault, ledger: Ledger) -> None:
    """One was registered here and stayed, one has gone to us, one has come from there, and one is theirs."""
    stayed, gone, come, theirs = (stream(f"player {n}").removeprefix("player-") for n in ("5", "1", "200", "222"))
    words = [("email", "anna@example.com")]
    await vault.keep([Owed(who, None, words) for who in (stayed, gone, come, theirs)])
    assert ledger.append(command(("player 5", 1)), command(("player 1", 1))) == [0, 0]
    release = said("us", 2, TO_EU)
    registered = [raw for n in ("200", "222") for raw in command((f"player {n}", 1)).bodies]
    entries = chained(US, [*opening(US, (128, 255)).bodies, *registered, *release.bodies])
    ledger.append_copy(entries)

    async def found() -> dict[Among, list[str]]:
        return {each: (await vault.find_registered(words, each)).get(words[0], []) for each in Among}

    everybody = sorted([stayed, gone, come, theirs])
    ours = sorted([stayed, gone])
    assert await found() == {Among.OWNED: ours, Among.OURS: ours, Among.ALL: everybody}
    assert ledger.append(said("eu", 2, TO_US)) == [0]
    assert ledger.append(said("eu", 3, Adopted(((200, 201, 2),), "us", Cut(4, entries[3].leaf.hex())))) == [0]
    assert await found() == {
        Among.OWNED: sorted([stayed, come]),
        Among.OURS: sorted([stayed, gone, come]),
        Among.ALL: everybody,
    }


async def test_keys_and_index_are_kept_together_or_not_at_all(vault: Vault, ledger: Ledger) -> None:
    key = vault.new_key(uuid.uuid4().bytes)
    await vault.keep([Owed("a", key, [])])
    with pytest.raises(psycopg.errors.UniqueViolation):
        await vault.keep([Owed("b", vault.new_key(uuid.uuid4().bytes), [("email", "b")]), Owed("a", key, [])])
    assert ledger.sql("SELECT subject FROM vault.data_key") == [("a",)]
    assert await vault.find("email", "b") == []


async def test_a_vault_of_another_region_key_opens_nothing(vault: Vault, ledger: Ledger) -> None:
    key = vault.new_key(uuid.uuid4().bytes)
    await vault.keep([Owed("a", key, [])])
    async with postgres.pool(ledger.dsn, "countroom_writer", size=1) as pool:
        with pytest.raises(CannotOpen):
            await Vault(pool, RegionKey(b"s" * 32)).keys({key.id: key.commitment})


async def test_a_key_that_is_not_the_committed_one_opens_nothing_until_the_right_one_is_back(
    vault: Vault, ledger: Ledger
) -> None:
    """Wrapped by the region's own key, under its own name: only the commitment tells."""
    key = vault.new_key(uuid.uuid4().bytes)
    await vault.keep([Owed("a", key, [])])
    [(kept,)] = ledger.sql("SELECT wrapped FROM vault.data_key")
    planted = REGION.wrap(DataKey(key.id, bytes(32)), b"n" * 12)
    ledger.sql("UPDATE vault.data_key SET wrapped = %s", planted)
    for _ in range(2):
        with pytest.raises(CannotOpen, match=f"{key.id} .* not the one that the registration commits to"):
            await vault.keys({key.id: key.commitment})
    ledger.sql("UPDATE vault.data_key SET wrapped = %s", kept)
    assert await vault.keys({key.id: key.commitment}) == {key.id: key}
    with pytest.raises(CannotOpen):
        await vault.keys({key.id: OTHER.commitment})


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("writer", {"SELECT", "INSERT"}), ("reader", {"SELECT"}), ("applier", {"SELECT"}), ("projector", {"SELECT"})],
)
def test_only_the_writer_adds_keys_and_nobody_changes_one(ledger: Ledger, role: str, allowed: set[str]) -> None:
    for table in ("vault.data_key", "vault.blind_index"):
        rights = {
            right
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
            if ledger.sql("SELECT has_table_privilege(%s, %s, %s)", f"countroom_{role}", table, right) == [(True,)]
        }
        assert rights == allowed


# Every event there is

IDENTIFYING = re.compile(
    r"name|mail|phone|address|birth|external_id|passport|iban|card|street|city|postal|zip|document"
)

SAID = re.compile(r"reason$|text|note|comment|subject|message|description|body|why|detail")

HARMLESS = {
    "ProfileRecorded.address_country",  # no more than the registration says in the clear
    "Approved.document_expires",  # a day, which timers must see
    "Registered.birth_year",  # and no finer: limits are lower for the young (docs/adr/0023)
    "ProfileRecorded.birth_year",
    # one word, as the edge demands it
    *(
        f"{event}.reason"
        for event in (
            "Blocked", "Unblocked", "Closed", "Rejected", "Failed", "Escalated", "Reopened", "KeysDisclosed", "LimitSet",
            "LimitLifted", "ActionBlocked", "ActionUnblocked", "SessionEnded", "Opened", "Begun", "Ended", "PayoutHeld",
            "Suspended",
        )
    ),
    "Refused.why",
    "Read.subjects",  # the ids of those whom a reader was told of
    "Founded.name",  # of a compartment
    "IdentityLinked.subject",  # a hash
}  # fmt: skip


def fields(struct: Any) -> Iterator[tuple[str, str, Any]]:
    """Every field of a struct and of the structs in it: (struct, name, hint)."""
    for name, hint in get_type_hints(struct, include_extras=True).items():
        if name in struct.__struct_fields__:
            yield struct.__name__, name, hint
            for inner in structs(hint):
                yield from fields(inner)


def structs(hint: Any) -> Iterator[Any]:
    if hint in (Personal, Remark):
        return
    if isinstance(hint, type) and get_origin(hint) is None and issubclass(hint, msgspec.Struct):
        yield hint
    for option in get_args(hint):
        yield from structs(option)


def unmarked(event: type[Event]) -> list[str]:
    """The fields that look as if they identified a person, or held their words, and are not marked."""
    return [
        f"{struct}.{name}"
        for struct, name, hint in fields(event)
        if (IDENTIFYING.search(name) or SAID.search(name))
        and not is_marked(hint)
        and f"{struct}.{name}" not in HARMLESS
    ]


def is_marked(hint: Any) -> bool:
    return hint in (Personal, Remark) or any(option in (Personal, Remark) for option in get_args(hint))


EVENTS = [event for aggregate in AGGREGATES for event in aggregate.events.values()]


@pytest.mark.parametrize("event", EVENTS)
def test_no_event_has_an_identifying_field_or_free_text_that_is_not_marked_personal(event: type[Event]) -> None:
    assert unmarked(event) == []


@pytest.mark.parametrize("event", EVENTS)
def test_whatever_is_marked_can_be_sealed_where_it_stands(event: type[Event]) -> None:
    marked = [name for _, name, hint in fields(event) if is_marked(hint)]
    assert [path.rpartition(".")[2] for path in personal_fields(event)] == marked


def test_an_unmarked_field_is_noticed() -> None:
    class Contact(msgspec.Struct):
        phone_number: str

    class Moved(Event, frozen=True, tag="test.moved"):
        home_address: str
        reason: str
        contact: Contact | None = None
        email: Personal | None = None

    Moved.__annotations__["contact"] = Contact | None
    assert unmarked(Moved) == ["Moved.home_address", "Moved.reason", "Contact.phone_number"]


def test_what_is_personal_within_a_member_is_sealed_there() -> None:
    made = KycRejected(Level.IDENTITY, "document", "blurred", Intervention("complaint", "Anna has phoned"))
    stored = seal(made, KEY, EVENT)
    assert personal_fields(KycRejected) == ("intervention.reason",)
    assert isinstance(stored, KycRejected)
    assert stored.intervention is not None
    assert isinstance(stored.intervention.reason, Sealed)
    assert KEY.open(stored.intervention.reason, event_id=EVENT, path="data.intervention.reason") == "Anna has phoned"
    assert opened(stored, KEY, EVENT) == made
    with pytest.raises(CannotOpen):
        opened(stored, KEY, EVENT[:-1] + "0")
    with pytest.raises(KeyNotHeld):
        seal(made, None, EVENT)
    without = msgspec.structs.replace(made, intervention=None)
    assert seal(without, None, EVENT) == without


def test_without_a_key_a_remark_is_left_out_and_nothing_else() -> None:
    assert seal(DepositFailed("Anna has phoned"), None, EVENT) == DepositFailed()
    assert opened(seal(DepositFailed("Anna"), KEY, EVENT), KEY, EVENT) == DepositFailed("Anna")
    with pytest.raises(KeyNotHeld):
        seal(Intervened("complaint", "Anna has phoned"), None, EVENT)


def test_a_personal_field_in_a_list_is_refused_rather_than_overlooked() -> None:
    class Listed(Event, frozen=True, tag="test.listed"):
        said: tuple[Intervention, ...]

    with pytest.raises(TypeError, match="said"):
        personal_fields(Listed)


def test_personal_fields_are_sealed_or_nothing_is_stored() -> None:
    registered = Registered(
        brand="main",
        country="DE",
        currency="EUR",
        key=KeyCommitment(KEY.id, KEY.commitment),
        **dict.fromkeys(personal_fields(Registered), "Anna"),
    )
    assert set(personal_fields(Registered)) == {"name", "email", "phone", "birth_date", "external_id"}
    with pytest.raises(KeyNotHeld):
        seal(registered, None, EVENT)
    stored = seal(registered, KEY, EVENT)
    for name in personal_fields(Registered):
        assert KEY.open(getattr(stored, name), event_id=EVENT, path=f"data.{name}") == "Anna"
    assert b"Anna" not in msgspec.json.encode(stored)
    assert seal(stored, None, EVENT) == stored, "what is sealed already needs no key"
    assert len({getattr(stored, name).sealed[:16] for name in personal_fields(Registered)}) == 5, "a nonce each"


def test_a_key_is_named_by_a_uuid_and_is_random() -> None:
    from datetime import UTC, datetime

    vault = Vault(None, REGION)  # type: ignore[arg-type]
    key_id = uuid7(datetime(2026, 1, 1, tzinfo=UTC), b"0123456789")
    one, other = vault.new_key(key_id), vault.new_key(key_id)
    assert one.id == str(uuid.UUID(bytes=key_id))
    assert len(one.key) == 32
    assert one.key != other.key
