"""Read models replayed: as of a moment, at live positions, and compared with what a region shows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from app.replaying import comparing, figures
from app.replaying.command import Asked, compare, figure, replay, run
from app.replaying.following import Following
from app.replaying.verified import verified
from eventstore.record import Entry
from projections import catalog
from projections.memory import MemoryStore
from queries import wallets
from queries.context import Made
from replay.moment import END, Moment, NoMoment
from replay.ownership import Ownership
from tests.projections.books import CODEC, Book
from tests.projections.histories import VERBS, handed_over, played
from tests.replay.logs import head, policy, raw, region, replaying, sound
from tests.verifier.region import TOKEN, Region, serving
from verifier.faults import CouldNotCheck

CODE = comparing.CODE


def history(name: str, seed: int) -> list[Entry]:
    chance = random.Random(seed)
    acts = [(chance.choice(VERBS), chance.randrange(8), chance.randrange(1, 900)) for _ in range(140)]
    return sound(played(name, [("register", 0, 0), *acts]))


LOGS = {"eu": history("eu", 1), "us": history("us", 2)}
HEADS = {name: len(entries) for name, entries in LOGS.items()}


def end_of_command(log: str, near: int) -> int:
    """The first position from `near` on at which a command ends."""
    parts = [CODEC.decode(entry).body.command for entry in LOGS[log]]
    return next(p for p in range(near, len(parts) + 1) if parts[p - 1].i == parts[p - 1].n)


def live(positions: dict[str, int]) -> dict[str, MemoryStore]:
    """What live read models hold at these positions."""
    with replaying({log: LOGS[log][:position] for log, position in positions.items()}) as logs:
        return figures.as_of(logs, END)


def showing(stores: dict[str, MemoryStore]) -> Region:
    """A region that shows both logs, and these read models and answers."""
    shown = region(LOGS)
    for name, store in stores.items():
        shown.files[f"/v1/projections/{name}/state"] = b"".join(store.state().ndjson())
    made = Made(stores["dashboard"].positions, CODE)
    shown.files["/v1/dashboard"] = msgspec.json.encode(comparing.dashboard_of(stores["dashboard"], made))
    shown.files["/v1/trial-balance"] = msgspec.json.encode(wallets.answer(stores["wallets"].rows("account"), made))
    asked = comparing._segment(stores["segments"], made, {"currency": "EUR", "minimum": "1", "limit": "2"})
    shown.files["/v1/segments/deposited"] = msgspec.json.encode(asked)
    return shown


def test_live_read_models_at_their_positions_are_made_again() -> None:
    positions = {"eu": end_of_command("eu", 40), "us": end_of_command("us", 25)}
    with serving(showing(live(positions))) as shown:
        found = comparing.compare(comparing.Live(shown.url, TOKEN), verified(shown.url, TOKEN, None, workers=1))
    assert [(each.projection, each.equal) for each in found] == [(name, True) for name in catalog.NAMES]
    assert all(dict(each.positions) == positions for each in found)


def test_read_models_may_stand_at_different_positions() -> None:
    stores = live({"eu": end_of_command("eu", 40), "us": 1})
    stores["wallets"] = live({"eu": end_of_command("eu", 70), "us": end_of_command("us", 9)})["wallets"]
    with serving(showing(stores)) as shown:
        found = comparing.compare(comparing.Live(shown.url, TOKEN), verified(shown.url, TOKEN, None, workers=1))
    assert all(each.equal for each in found)


def test_a_difference_names_the_first_player_and_field(capsys: pytest.CaptureFixture[str]) -> None:
    stores = live(HEADS)
    rows = stores["players"].tables["balance"]
    first = min(rows)
    stores["players"].tables["balance"][first] = tuple(
        value + 1 if place == 3 and isinstance(value, int) else value for place, value in enumerate(rows[first])
    )
    with serving(showing(stores)) as shown:
        assert run(lambda: compare(shown.url, shown.url, TOKEN, None, json=False)) == 1
    said = capsys.readouterr().out
    assert f"players  DIFFERENT  {stores['players'].state_hash().digest}" in said
    assert "balance player_" in said
    assert said.count("equal") == len(catalog.NAMES) - 1


def test_a_read_model_beyond_the_logs_could_not_be_checked() -> None:
    with serving(showing(live(HEADS))) as shown:
        read = comparing.Live(shown.url, TOKEN)
        shown.logs["eu"] = shown.logs["eu"][: end_of_command("eu", 30)]
        with pytest.raises(CouldNotCheck, match="beyond what was verified"):
            comparing.compare(read, verified(shown.url, TOKEN, None, workers=1))


@pytest.mark.parametrize(
    "path", ["/v1/dashboard", "/v1/trial-balance", "/v1/segments/deposited?currency=EUR&minimum=1&limit=2"]
)
def test_a_figure_is_made_again_at_its_own_positions(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    positions = {"eu": end_of_command("eu", 60), "us": end_of_command("us", 30)}
    with serving(showing(live(positions))) as shown:
        assert run(lambda: figure(shown.url + path, TOKEN, None, json=False)) == 0
        assert capsys.readouterr().out.startswith(
            f"equal  {shown.url}{path}  at eu/{positions['eu']}, us/{positions['us']}"
        )
        bare = path.partition("?")[0]
        shown.files[bare] = re_planted(shown.files[bare])
        assert run(lambda: figure(shown.url + path, TOKEN, None, json=False)) == 1
    assert "other code" in capsys.readouterr().out


def re_planted(answer: bytes) -> bytes:
    """The answer with a figure changed, made by other code."""
    value = msgspec.json.decode(answer)
    items = value.get("totals") or value.get("accounts") or value["items"]
    items[0][next(name for name in ("amount", "balance", "deposited") if name in items[0])] += 1
    return msgspec.json.encode({**value, "code": "0.0.0+0"})


def test_the_dashboard_as_of_a_moment_holds_what_had_ended_by_then() -> None:
    at = end_of_command("eu", 50)
    with replaying(LOGS) as logs:
        moment = logs.moment(f"eu/{at}")
        found = figures.as_of(logs, moment, ["dashboard"])["dashboard"]
        inside = figures.as_of(logs, Moment("inside", {"eu": at + 1, "us": 1}), ["dashboard"])["dashboard"]
    recorded = LOGS["eu"][at - 1].recorded
    expected = live({"eu": at, "us": sum(entry.recorded <= recorded for entry in LOGS["us"])})["dashboard"]
    assert found.state_hash().digest == expected.state_hash().digest
    assert inside.positions["eu"] >= at


def test_what_a_region_knew_is_what_its_witness_had_signed_by_then(tmp_path: Path) -> None:
    trust = tmp_path / "trust.policy"
    trust.write_text(policy())
    times = {size: LOGS["eu"][size - 1].recorded // 1_000_000 + 1 for size in (10, 40, 70)}
    heads = [head("eu", LOGS["eu"], size, {} if size == 40 else {"us": at}) for size, at in times.items()]
    with serving(region(LOGS, {"eu": heads, "us": [head("us", LOGS["us"], 5, {})]})) as shown:
        logs = verified(shown.url, TOKEN, trust, workers=1)
        known = [logs.known_to("us", rfc3339(at)) for at in (times[10] - 1, times[10], times[70] - 1, times[70])]
        untrusted = verified(shown.url, TOKEN, None, workers=1)
    assert [each.positions for each in known] == [{"eu": 0}, {"eu": 10}, {"eu": 10}, {"eu": 70}]
    assert "at least that much" in known[1].said
    own = [entry for entry in LOGS["us"] if known[1].covers("us", entry.position, entry.recorded)]
    assert own == [entry for entry in LOGS["us"] if entry.recorded <= times[10] * 1_000_000]
    with pytest.raises(CouldNotCheck, match="--trust"):
        untrusted.known_to("us", rfc3339(times[10]))
    with pytest.raises(NoMoment, match="region mars"):
        logs.known_to("mars", rfc3339(times[10]))


def rfc3339(seconds: int) -> str:
    from replay.moment import rfc3339

    return rfc3339(seconds * 1_000_000)


@pytest.mark.parametrize("text", ["yesterday", "eu/0", "2026-03-01T12:00:00", "eu/100000", "mars/1"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with replaying(LOGS) as logs, pytest.raises(NoMoment):
        logs.moment(text)


def test_new_entries_are_followed_as_long_as_they_continue_the_chain() -> None:
    seen = {log: end_of_command(log, 20) for log in LOGS}
    first, then = seen["eu"], end_of_command("eu", seen["eu"] + 10)
    with serving(region({log: entries[: seen[log]] for log, entries in LOGS.items()})) as shown:
        following = Following(verified(shown.url, TOKEN, None, workers=1))
        assert list(following.new()) == []
        shown.logs["eu"] = raw("eu", LOGS["eu"][:then])
        assert list(following.new()) == LOGS["eu"][first:then]
        forged = [entry._replace(body=entry.body.replace(b"operator:test", b"operator:evil")) for entry in LOGS["eu"]]
        shown.logs["eu"] = [*raw("eu", LOGS["eu"][:then]), *raw("eu", forged)[then:]]
        with pytest.raises(CouldNotCheck, match=r"eu|log eu"):
            list(following.new())


def test_a_fault_is_no_replay(capsys: pytest.CaptureFixture[str]) -> None:
    forged = [entry._replace(body=entry.body.replace(b"operator:test", b"operator:evil")) for entry in LOGS["eu"]]
    with serving(region({"eu": forged})) as shown:
        assert run(lambda: replay(Asked(shown.url, TOKEN))) == 1
    said = capsys.readouterr()
    assert "NOT INTACT at position" in said.err
    assert said.out == ""


def test_what_is_asked_of_the_command_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = played("eu", [("register", 0, 0), ("import", 0, 500)])
    player = book.players
    page = tmp_path / "player.html"
    with serving(region({"eu": sound(book)})) as shown:
        assert run(lambda: replay(Asked(shown.url, TOKEN))) == 0
        assert "EUR" in capsys.readouterr().out
        assert run(lambda: replay(Asked(shown.url, TOKEN, player=player[0], html=page, json=True))) == 0
        answer = msgspec.json.decode(capsys.readouterr().out)
        assert run(lambda: replay(Asked(shown.url, TOKEN, player=player[0], known_to="eu"))) == 2
        assert run(lambda: replay(Asked(shown.url, TOKEN, player="nobody"))) == 2
    assert answer["account"]["balances"] == {"EUR": {"cash": 500, "bonus": 0, "reserved": 0, "receivable": 0}}
    assert [event["position"] for event in answer["events"]] == [2, 3, 4, 5]
    assert player[0] in page.read_text()


class InMemory:
    """Two books as verified logs show them, the adopter's first."""

    target = shown = "memory"
    codec = CODEC

    def __init__(self, *books: Book) -> None:
        self._books = {book.name: book for book in books}
        self.logs = {name: SimpleNamespace(kind="whole") for name in self._books}
        self.ownership = Ownership(CODEC.decode(entry) for book in books for entry in book.entries)

    def entries(self, log: str) -> Iterator[Entry]:
        return iter(self._books[log].entries)


async def test_what_another_log_goes_on_with_is_applied_after_its_beginning() -> None:
    begun = [("register", 0, 1), ("import", 0, 500), ("ticket", 0, 3), ("limit", 0, 300)]
    further = [("block", 0, 1), ("import", 0, 70), ("work", 0, 1), ("limit", 0, 90)]
    eu, us = handed_over(begun, [], [([], further, False, 1)])
    logs: Any = InMemory(us, eu)
    found = figures.as_of(logs, END)
    assert found["dashboard"].positions == {"eu": len(eu.entries), "us": len(us.entries)}
    ends = {name: store.positions for name, store in found.items()}
    assert {name: store.state_hash() for name, store in figures.at(logs, ends).items()} == {
        name: store.state_hash() for name, store in found.items()
    }
