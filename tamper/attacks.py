"""
The attacks, each on one log of which an intact form is known: what is changed, and which position must be named.

Every attack takes care of what it can: positions are restated, index columns fit the changed bodies, the cached tree is made
anew. What it cannot forge are hashes, signatures of others, and what others remember.

Three kinds of evidence are enough to find them all:
    ALONE   the tampered source by itself, with a policy that says whose signatures count;
    KNOWN   and a head that the regulator knows from elsewhere, here from the record of their own witness;
    COPY    and another region's copy of the log.

Invariant: nothing here reads or writes a database or a file; the same log and the same chance make the same attack.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from random import Random
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.kernel import suffix
from eventstore.note import SigningKey, checkpoint_text, signed, text_of
from tamper.logs import WIDTH
from tamper.shown import Row, Shown, columns_of, read, rewritten
from verifier import merkle


class By(StrEnum):
    """The evidence that reveals an attack."""

    ALONE = "alone"
    KNOWN = "known"
    COPY = "copy"


class Planned(NamedTuple):
    """What is shown instead, and the position that must be named: from `first` to `last`, nearly always one."""

    shown: Shown
    first: int
    last: int
    by: By = By.ALONE
    witnessed_below: int | None = None  # no head from here on may be taken for a witnessed one


Attack = Callable[[Shown, Random], Planned]
"""Changes a copy of what is shown, which it is given."""


def reorder(shown: Shown, random: Random) -> Planned:
    """Two entries exchange their places, or their bodies. Named is the first of the two places."""
    first, second = sorted(random.sample(range(1, shown.size + 1), 2))
    one, other = shown.rows[first - 1], shown.rows[second - 1]
    if _perhaps(random):
        shown.rows[first - 1], shown.rows[second - 1] = one.saying(other.body), other.saying(one.body)
    else:
        shown.rows[first - 1], shown.rows[second - 1] = other, one
        if not shown.tiled or _perhaps(random):
            shown.number()
    return Planned(shown, first, first)


def delete(shown: Shown, random: Random) -> Planned:
    """
    An entry is gone, and those behind it move up, or (in a database) leave the gap. Named is its place.

    In tiles the last entry is shown twice, to make up the number that the checkpoint states. The last entry of all is left
    to `truncate`.
    """
    place = random.randrange(1, shown.size)
    del shown.rows[place - 1]
    if shown.tiled:
        shown.rows.append(shown.rows[-1])
    if shown.tiled or _perhaps(random):
        shown.number()
    return Planned(shown, place, place)


def truncate(shown: Shown, random: Random) -> Planned:
    """
    The end is cut off, down to some place below a head. Named is the entry that is the last now.

    If heads are left that lie beyond, the source contradicts itself. If they are cut off, too, a source that ends below the
    newest witnessed head is found by whoever knows that head.
    """
    leaves_heads = _perhaps(random)
    below = max(shown.heads) if leaves_heads else shown.log.witnessed
    places = [size for size in shown.heads if size < below] if shown.tiled else range(1, below)
    return _cut(shown, random.choice(places), leaves_heads=leaves_heads)


def _perhaps(random: Random) -> bool:
    return random.choice((True, False))


def _cut(shown: Shown, place: int, *, leaves_heads: bool) -> Planned:
    del shown.rows[place:]
    shown.subtrees = {index: hash_ for index, hash_ in shown.subtrees.items() if (index[1] + 1) * WIDTH <= place}
    if not leaves_heads:
        shown.heads = {size: note for size, note in shown.heads.items() if size <= place}
    return Planned(shown, place, place, By.ALONE if leaves_heads else By.KNOWN)


def insert(shown: Shown, random: Random) -> Planned:
    """
    A made-up entry stands between two others, and those behind it move down; in tiles the last one drops out.

    Chained to the one before it, it is in order by itself, and the entry behind it is named, which does not follow from it;
    unless it stands inside a command, which it breaks. Not chained, it is named itself.
    """
    place = random.randrange(2, shown.size)
    before, behind = shown.rows[place - 2 : place]
    forged = Row(place, before.recorded + 1, before.leaf, random.randbytes(32), made_up(shown, random), columns_of(b""))
    forged = forged.saying(forged.body)
    chained = _perhaps(random)
    if chained:
        forged = forged.chained(before.leaf, place)
    shown.rows.insert(place - 1, forged)
    if shown.tiled:
        shown.rows.pop()
    shown.number()
    named = place + 1 if chained and read(behind.body).command.i == 1 else place
    return Planned(shown, named, named)


def made_up(shown: Shown, random: Random) -> bytes:
    """A registration like another one, of a player whom nobody knows."""
    pattern = random.choice([row.body for row in shown.rows if b'"type":"player.registered"' in row.body])
    body = read(pattern)
    uuid = random.randbytes(15) + bytes([body.partition or 0])
    command = type(body.command)(1, 1, random.randbytes(16).hex(), random.randbytes(16).hex())
    return rewritten(pattern, stream=f"player-{suffix(uuid)}", version=1, command=command)


def duplicate(shown: Shown, random: Random) -> Planned:
    """
    An entry stands at a second place, too, which is named; those from there on move down. In a database it may also stand
    twice at one position: then the place behind it is named, where another entry is due.
    """
    place = random.randrange(2, shown.size + 1)
    if not shown.tiled and _perhaps(random):
        shown.rows.insert(place, shown.rows[place - 1])
        return Planned(shown, place + 1, place + 1)
    shown.rows.insert(place - 1, shown.rows[random.randrange(1, place) - 1])
    if shown.tiled:
        shown.rows.pop()
    if not shown.tiled or _perhaps(random):
        shown.number()
    return Planned(shown, place, place)


def swap_between_streams(shown: Shown, random: Random) -> Planned:
    """
    Two entries are told of each other's streams. Named is the first of them; where its leaf was made anew, perhaps the one
    behind it, which does not follow from it any more.
    """
    while True:
        first, second = sorted(random.sample(range(2, shown.size + 1), 2))
        one, other = (read(shown.rows[place - 1].body) for place in (first, second))
        if one.stream != other.stream:
            break
    anew = _perhaps(random)
    for place, to in ((first, other), (second, one)):
        row = shown.rows[place - 1]
        body = rewritten(row.body, stream=to.stream, version=to.version, partition=to.partition, epoch=to.epoch)
        row = row.saying(body)
        shown.rows[place - 1] = row.chained(row.prev, row.position) if anew else row
    return Planned(shown, first, first + anew)


def index_column(shown: Shown, random: Random) -> Planned:
    """A column of a database says something else than the body, which is untouched. Named is the entry."""
    place = random.randrange(1, shown.size + 1)
    row = shown.rows[place - 1]
    others = (
        f"wallet-{suffix(random.randbytes(16))}",
        random.randrange(1_000, 10**6),
        "wallet.debited",
        300,
        random.randbytes(16).hex(),
    )
    columns, which = [*row.columns], random.randrange(5)
    columns[which] = others[which] if columns[which] is None or _perhaps(random) else None
    shown.rows[place - 1] = row._replace(columns=tuple(columns))  # type: ignore[arg-type]
    return Planned(shown, place, place)


def snapshot(shown: Shown, random: Random) -> Planned:
    """A folded state in a database says something else than its events. Named is the last entry that was folded."""
    chosen = random.choice(shown.log.snapshots)
    state = bytearray(chosen.state)
    at = random.randrange(len(state))
    state[at] ^= 1 << random.randrange(7)
    shown.snapshots[chosen.stream] = bytes(state)
    (place,) = (entry.position for entry in shown.log.entries if entry.leaf == chosen.leaf)
    return Planned(shown, place, place)


def rechain(shown: Shown, random: Random) -> Planned:
    """
    An entry says something else, and all behind it are chained anew, with the tree. Only heads tell: named is the size of
    the first head from that entry on. What was changed lies between the head before it and that size.
    """
    place = random.randrange(2, max(shown.heads) + 1)
    _rewrite(shown, place)
    named = min(size for size in shown.heads if size >= place)
    return Planned(shown, named, named)


def _rewrite(shown: Shown, place: int) -> None:
    row = shown.rows[place - 1]
    shown.rows[place - 1] = row.saying(rewritten(row.body, actor="service:rigged"))
    shown.chain(place)


def checkpoint(shown: Shown, random: Random) -> Planned:
    """
    A head is replaced by one that the log never signed like that. Named is the head's size.

    That of tiles that is their checkpoint is only replaced by one that can be read and is of their log: otherwise they show
    another log, or none.
    """
    newest = max(shown.heads)
    size = random.choice([*shown.heads])
    note = shown.heads[size]
    text, stranger = (
        text_of(note),
        SigningKey(shown.log.origin, Ed25519PrivateKey.from_private_bytes(random.randbytes(32))),
    )
    other_root = checkpoint_text(shown.log.origin, size, random.randbytes(32))
    lines = note.decode().partition("\n\n")[2].splitlines(keepends=True)
    ways = [
        signed(text, [stranger]),
        signed(other_root, [stranger]),
        f"{other_root}\n{''.join(lines)}".encode(),
        f"{text}\n{_altered(lines[-1], random)}".encode(),
    ]
    if len(lines) > 1:
        ways.append(f"{text}\n{''.join(lines[1:])}".encode())  # without the log's own signature
        ways.append(f"{text}\n{''.join(lines[:-1])}{_altered(lines[-1], random)}".encode())
    if not shown.tiled or size != newest:
        others = [other for other in shown.heads if other != size]
        ways += [shown.heads[random.choice(others)]] if others else []
        foreign = SigningKey("countroom.tamper/mars", stranger.key)
        ways.append(signed(checkpoint_text(foreign.name, size, merkle.EMPTY_ROOT), [foreign]))
        ways.append(random.randbytes(random.randrange(300)))
    shown.heads[size] = random.choice(ways)
    return Planned(shown, size, size)


def _altered(line: str, random: Random) -> str:
    """The line of a signature, with another signature behind the same name and key id."""
    dash, name, encoded = line.split(" ")
    at = random.randrange(30, 80)  # behind the key id, and the time of a witness
    other = random.choice([character for character in "ABCDEFabcdef012345" if character != encoded[at]])
    return f"{dash} {name} {encoded[:at]}{other}{encoded[at + 1 :]}"


def roll_back(shown: Shown, random: Random) -> Planned:
    """
    A database is put back from a backup, consistent in itself, from before the newest witnessed head; tiles are put back
    as they were at an earlier head.

    Whoever knows that head names the last entry that is left. If the database went on in another way since then, another
    region's copy differs from the first entry that is new.
    """
    places = (
        [size for size in shown.heads if size < shown.log.witnessed] if shown.tiled else range(1, shown.log.witnessed)
    )
    place = random.choice(places)
    behind = shown.rows[place:]
    planned = _cut(shown, place, leaves_heads=False)
    if shown.tiled or _perhaps(random):
        return planned
    shown.rows += behind
    _rewrite(shown, place + 1)
    return Planned(shown, place + 1, place + 1, By.COPY)


def fork(shown: Shown, random: Random) -> Planned:
    """
    A region changes its own log from an entry on, and signs all heads from there on again, with its valid key. Its witnesses
    do not sign a second history, so nothing from that entry on is witnessed; and another region's copy names the entry.
    """
    place = random.randrange(2, max(shown.heads) + 1)
    _rewrite(shown, place)
    key = SigningKey.parse(shown.log.key)
    leaves = [row.leaf for row in shown.rows]
    for size in shown.heads:
        if size >= place:
            shown.heads[size] = signed(checkpoint_text(shown.log.origin, size, merkle.root(leaves[:size])), [key])
    return Planned(shown, place, place, By.COPY, witnessed_below=place)


def tree_hash(shown: Shown, random: Random) -> Planned:
    """A stored hash of the tree is another one: proofs made from it would fail. Named is the first entry below it."""
    level, index = random.choice([*shown.subtrees])
    shown.subtrees[level, index] = random.randbytes(32)
    named = index * WIDTH**level + 1
    return Planned(shown, named, named)


ATTACKS: dict[str, Attack] = {
    "reorder": reorder,
    "delete": delete,
    "truncate": truncate,
    "insert": insert,
    "duplicate": duplicate,
    "swap_between_streams": swap_between_streams,
    "index_column": index_column,
    "snapshot": snapshot,
    "rechain": rechain,
    "checkpoint": checkpoint,
    "roll_back": roll_back,
    "fork": fork,
    "tree_hash": tree_hash,
}
DATABASE_ONLY = {"index_column", "snapshot"}
