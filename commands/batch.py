"""
Many commands in one request, each with its own key and its own result.

Invariants:
    - items that share a stream run in the order given, the others together: a wave is one append;
    - an item counts as if it had been sent alone: same command id, same fingerprint, same answer;
    - an item may name the player or transaction of an earlier item n as `$n`; if that one was refused, it is not run, and if
      anybody outside is asked before it is, then it is as soon as that one has run;
    - in a dry run nothing is recorded, so nothing is there that `$n` could name.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from commands.plan import Plan
from domain.errors import Rejected
from eventstore.writer import Unavailable

ITEMS_MAX = 1000

R = TypeVar("R")


class BatchItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One command: its Idempotency-Key, its path (with `$n` for the identifier that item n made), its body, its If-Match."""

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    path: Annotated[str, msgspec.Meta(max_length=300)]
    body: msgspec.Raw
    if_match: Annotated[str, msgspec.Meta(max_length=300)] | None = None


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`dry_run`: tell what each item would come to by itself, and record nothing."""

    items: Annotated[list[BatchItem], msgspec.Meta(min_length=1, max_length=ITEMS_MAX)]
    dry_run: bool = False


class DependencyFailed(Rejected):
    """Facts: item."""

    code = "dependency_failed"
    title = "The item that this one names was refused"


class _Waiting(NamedTuple):
    place: int
    item: BatchItem


class _Footprint(NamedTuple):
    """What a plan touches. One that still follows a state may touch anything of its partition; so may an item that names
    its result (`named`), unless everything is new there.
    """

    writes: frozenset[str | int]
    reads: frozenset[str | int]
    named: frozenset[str | int]

    @classmethod
    def of(cls, plan: Plan) -> _Footprint:
        writes: set[str | int] = {stream.name for stream in plan.writes.values()}
        reads: set[str | int] = {stream.name for stream in plan.reads.values()}
        streams = (*plan.writes.values(), *plan.reads.values())
        partitions = frozenset(stream.partition for stream in streams if stream.partition is not None)
        if plan.follow:
            writes |= partitions
        is_new = plan.fresh.issuperset((*plan.writes, *plan.reads))
        return cls(frozenset(writes), partitions.union(reads, plan.seen.streams), frozenset() if is_new else partitions)


async def run(
    batch: Batch,
    *,
    plan: Callable[[int, str], Plan],
    decide: Callable[[Mapping[int, Plan]], Awaitable[Sequence[R]]],
    made: Callable[[Any], object],
    ask: Callable[[Mapping[int, str]], Awaitable[None]] | None = None,
) -> list[R | Exception]:
    """Run a batch. `plan(n, path)` describes item n (and raises Rejected, or Unavailable), `decide` gives the results of a wave of
    them in its order, `made` the identifier that one made.

    `ask` hears of the paths of items that name earlier ones, once these are known, and before they are described. It raises nothing: earlier
    items are recorded by then; who could not be asked about, `plan` says.
    """
    results: dict[int, R | Exception] = {}
    plans: dict[int, tuple[Plan, _Footprint]] = {}
    named: dict[int, frozenset[str | int]] = {}
    waiting = [_Waiting(place, item) for place, item in enumerate(batch.items)]
    while waiting:
        if ask is not None and (
            paths := _newly_known([each for each in waiting if each.place not in plans], results, made)
        ):
            await ask(paths)
        wave, later = [], []
        written: set[str | int] = set()
        read: set[str | int] = set()
        for place, item in waiting:
            if place not in plans:
                try:
                    if batch.dry_run and _named(item.path):
                        raise DependencyFailed(
                            "in a dry run no earlier item has made anything", item=_named(item.path)[0]
                        )
                    path = resolve(item.path, place, results, made)
                    if path is None:
                        named[place] = frozenset().union(*(named.get(n, ()) for n in _named(item.path)))
                        written |= named[place]
                        later.append(_Waiting(place, item))
                        continue
                    planned = plan(place, path)
                    plans[place] = (planned, _Footprint.of(planned))
                    named[place] = plans[place][1].named
                except (Rejected, Unavailable) as refused:
                    results[place] = refused
                    continue
            footprint = plans[place][1]
            if (
                written.isdisjoint(footprint.writes)
                and written.isdisjoint(footprint.reads)
                and read.isdisjoint(footprint.writes)
            ):
                wave.append(place)
            else:
                later.append(_Waiting(place, item))
            written |= footprint.writes
            read |= footprint.reads
        decided = await decide({place: plans[place][0] for place in wave}) if wave else ()
        results.update(zip(wave, decided, strict=True))
        waiting = later
    return [results[place] for place in range(len(batch.items))]


def _newly_known(
    waiting: Sequence[_Waiting], results: Mapping[int, R | Exception], made: Callable[[Any], object]
) -> dict[int, str]:
    """The paths of items that name earlier ones, all of which have run."""
    paths: dict[int, str] = {}
    for place, item in waiting:
        with suppress(DependencyFailed):  # as its own result will be
            if "$" in item.path and (path := resolve(item.path, place, results, made)) is not None:
                paths[place] = path
    return paths


def _named(path: str) -> list[int]:
    """The earlier items that a path names."""
    return [int(number) for number in re.findall(r"/\$([0-9]+)(?=/|$)", path)]


def resolve(path: str, place: int, results: Mapping[int, R | Exception], made: Callable[[Any], object]) -> str | None:
    """The path with `$n` replaced; None while item n has not run. Raises DependencyFailed."""
    if "$" not in path:
        return path
    parts = path.split("/")
    for i, part in enumerate(parts):
        if not part.startswith("$"):
            continue
        if not part[1:].isascii() or not part[1:].isdigit() or int(part[1:]) >= place:
            raise DependencyFailed(f"{part} does not name an earlier item", item=part[1:])
        result = results.get(int(part[1:]))
        if result is None:
            return None
        if isinstance(result, Exception):
            raise DependencyFailed(f"item {part[1:]} was refused, or is not known to be done", item=int(part[1:]))
        identifier = made(result)
        if not isinstance(identifier, str):
            raise DependencyFailed(f"item {part[1:]} has made nothing that has an identifier", item=int(part[1:]))
        parts[i] = identifier
    return "/".join(parts)
