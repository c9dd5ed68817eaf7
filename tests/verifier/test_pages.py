"""Reading page by page, in one process or in several, finds exactly what reading one by one finds."""

import random
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verifier.logs import ORIGIN, Entry, chain, command_id, compact, event, opening, region_event, small_log
from tests.verifier.shown import Shown, directory, note, policy, root_at
from tests.verifier.test_log import PLANTED, Plant
from verifier.body import read
from verifier.faults import CouldNotCheck, Reason
from verifier.log import Report, verify
from verifier.parallel import in_order
from verifier.quick import BodyReader
from verifier.sheet import PAGE
from verifier.source import FolderSource

LENGTH = 2 * PAGE + 300


@cache
def long_log() -> list[Entry]:
    """Two pages and a bit, of commands of one to four events on few streams, some of them the region's own."""
    chance = random.Random(11)
    versions: dict[object, int] = {}
    bodies = [opening()]
    while len(bodies) < LENGTH:
        n = min(chance.randint(1, 4), LENGTH - len(bodies))
        for i in range(1, n + 1):
            number, of = len(bodies) + 1, chance.randint(1, 50)
            own = chance.random() < 0.02
            key: object = "settings" if own else of
            versions[key] = versions.get(key, 0) + 1
            if own:
                command = {"id": command_id(number - i + 1), "i": i, "n": n}
                bodies.append(region_event(number, versions[key], command=command))
            else:
                bodies.append(event(number, versions[key], of=of, i=i, n=n))
    return chain(bodies)


def one_by_one(log: list[Entry]) -> Report:
    return verify(log, origin=ORIGIN, head=(len(log), log[-1][2]) if log else None)


def by_pages(log: list[Entry], workers: int = 1, part: int = 256) -> Report:
    return verify(Shown(log, part=part), origin=ORIGIN, head=(len(log), log[-1][2]) if log else None, workers=workers)


def essence(report: Report) -> tuple[object, ...]:
    return report.fault, report.position, report.leaf, report.entries, report.not_counted, report.recorded_first_us


def test_a_long_log_is_intact() -> None:
    report = by_pages(long_log())
    assert report.intact, report.fault
    assert essence(report) == essence(one_by_one(long_log()))


def test_of_bodies_that_are_spelled_alike_only_the_first_are_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    slow: list[bytes] = []
    read = BodyReader.read
    monkeypatch.setattr(BodyReader, "read", lambda self, body: slow.append(body) or read(self, body))
    log = chain([opening(), *(compact(event(number, number - 1)) for number in range(2, 2002))])
    assert by_pages(log).intact
    assert len(slow) == 256  # the opening, and the rest of the first bundle


@pytest.mark.parametrize(("reason", "position", "plant"), PLANTED, ids=[f"{p[0]}-{k}" for k, p in enumerate(PLANTED)])
@pytest.mark.parametrize("part", [1, 256])
def test_a_planted_fault_is_found_alike(
    reason: Reason, position: int, plant: Callable[[], list[Entry]], part: int
) -> None:
    log = plant()
    alone = verify(log, origin=ORIGIN)
    found = verify(Shown(log, part=part), origin=ORIGIN)
    assert essence(found) == essence(alone)
    assert found.fault is not None
    assert (found.fault.reason, found.fault.position) == (reason, position)


def planted_late(plant: Plant) -> list[Entry]:
    """What is wrong with the last bodies of a short log, at the end of a long one."""
    bodies = [entry[48:] for _, entry, _ in long_log()[: PAGE + 3]]
    short = [entry[48:] for _, entry, _ in plant[2]()]
    return chain([*bodies, *short[3:]])


@pytest.mark.parametrize("plant", [p for p in PLANTED if p[1] in {4, 5} and "body" in p[0]], ids=lambda p: p[0])
def test_a_fault_in_a_later_page_is_found_alike(plant: Plant) -> None:
    log = planted_late(plant)
    found = by_pages(log)
    assert found.fault is not None
    assert essence(found) == essence(one_by_one(log))
    assert found.fault.reason is plant[0]


@settings(max_examples=25)
@given(st.sampled_from([0, 1, 7, 255, 256, PAGE - 1, PAGE, PAGE + 1]), st.integers(0, 3), st.data())
def test_whatever_is_changed_is_found_alike(index: int, kind: int, data: st.DataObject) -> None:
    log = long_log()[: index + 100]
    position, entry, leaf = log[index]
    at = data.draw(st.integers(0, len(entry) - 1))
    flipped = entry[:at] + bytes([entry[at] ^ 1 << at % 8]) + entry[at + 1 :]
    if kind == 0:
        log[index] = (position, flipped, leaf)
    elif kind == 1:
        log[index] = (position, entry, bytes(32))
    elif kind == 2:
        del log[index]
    else:
        log = chain([e[48:] for _, e, _ in log[:index]] + [flipped[48:]] + [e[48:] for _, e, _ in log[index + 1 :]])
    found = verify(Shown(log, part=data.draw(st.sampled_from([256, 1000]))), origin=ORIGIN)
    assert essence(found) == essence(verify(log, origin=ORIGIN))


def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    log = [*long_log(), *_more(long_log(), 3 * PAGE)]
    sizes = (1, 255, 256, 300, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE - 7)
    folder = directory(tmp_path, log, sizes)
    source = FolderSource(str(folder))
    (head,) = source.heads()
    ends = (1, PAGE, PAGE + 1, len(log))

    def checked(workers: int) -> Report:
        return verify(source.pages(head), policy(), origin=ORIGIN, ends=ends, workers=workers)

    alone = checked(1)
    assert alone.intact, alone.fault
    assert alone.signed is not None
    assert alone.signed.heads == len(sizes) + 1
    assert alone.leaves == {end: log[end - 1][2] for end in ends}
    assert checked(2) == alone
    (folder / "tile" / "entries" / "030").write_bytes((folder / "tile" / "entries" / "031").read_bytes())
    assert checked(2) == checked(1)
    assert checked(1).fault is not None


def _more(log: list[Entry], count: int) -> list[Entry]:
    bodies = [entry[48:] for _, entry, _ in log]
    more = [event(number, number - len(log), of=99) for number in range(len(log) + 1, len(log) + count + 1)]
    return chain([*bodies, *map(compact, more)])[len(log) :]


@pytest.mark.parametrize("size", [1, 255, 256, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, LENGTH])
def test_the_root_at_the_size_of_any_head_is_that_of_the_definition(size: int) -> None:
    pages = Shown(long_log(), [(size, note(size, root_at(long_log(), size)))])
    assert verify(pages, policy(), origin=ORIGIN).intact
    pages.signed = [(size, note(size, root_at(long_log(), size - 1)))]
    fault = verify(pages, policy(), origin=ORIGIN).fault
    assert fault is not None
    assert (fault.reason, fault.position) == (Reason.ROOT_MISMATCH, size)


@pytest.mark.parametrize(("level", "index", "position"), [(1, 0, 1), (1, 17, 17 * 256 + 1), (1, 32, 32 * 256 + 1)])
def test_a_kept_hash_that_is_not_the_trees_is_found_at_its_first_entry(level: int, index: int, position: int) -> None:
    fault = verify(Shown(long_log(), kept={(level, index): bytes(32)}), origin=ORIGIN).fault
    assert fault is not None
    assert (fault.reason, fault.position) == (Reason.TILE_DIFFERS, position)


def test_many_bodies_are_read_as_each_of_them_is() -> None:
    bodies = [entry[48:] for _, entry, _ in long_log()[:2000]]
    reader = BodyReader()
    for start in range(0, 2000, 250):
        some = bodies[start : start + 250]
        assert list(zip(*reader.read_all(some), strict=True)) == [read(body) for body in some]


def test_a_log_that_grows_while_it_is_read_is_read_up_to_where_it_was() -> None:
    log = small_log(40)

    class Growing(Shown):
        def length(self) -> int:
            return 60

    pages = Growing(log, [(50, note(50, bytes(32)))])
    assert verify(pages, policy(), origin=ORIGIN, head=(40, log[-1][2])).intact


def test_a_head_that_disappears_meanwhile_could_not_be_checked() -> None:
    class Forgetful(Shown):
        def heads(self) -> list[tuple[int, bytes]]:
            self.signed, shown = [], self.signed
            return shown

    with pytest.raises(CouldNotCheck, match="gone meanwhile"):
        verify(Forgetful(long_log()[:40], [(10, note(10, root_at(long_log(), 10)))]), origin=ORIGIN)


def test_what_a_worker_raises_is_raised_in_its_turn() -> None:
    results = in_order(partial(divmod, 10), [5, 3, 0, 1], workers=2)
    assert [next(results), next(results)] == [(2, 0), (3, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)
