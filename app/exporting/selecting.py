"""
Writing chosen entries with their proofs, a line each.

Invariant: what is saved of the way is behind what is written, so that nothing is written twice and nothing is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from app.exporting.plan import Pinned, Reached
from app.exporting.selection import HEADER_BYTES, Choice, Event, read_event
from app.exporting.stopped import NotIntact
from verifier.export import ENTRIES, Line, write_line
from verifier.tiles import TileReader

LOOK_EVERY = 4096  # entries, between two looks at the clock
SAVE_S = 2.0


def select(
    log: Pinned,
    reader: TileReader,
    choice: Choice,
    reached: Reached,
    folder: Path,
    note: Callable[[Event], None],
    save: Callable[[Reached], None],
    progress: Callable[[str, int, int], None],
) -> Reached:
    """Go on from where an earlier run came to. Raises NotIntact, TileError, OSError."""
    saved_at = time.monotonic()
    held: tuple[int, bytes] | None = None  # the newest chosen one: whether it needs a proof, the next one tells
    position = reached.position
    with (folder / ENTRIES).open("r+b" if reached.position else "wb") as file:
        file.truncate(reached.written)
        file.seek(reached.written)

        def write(chosen: tuple[int, bytes], follower: int | None) -> None:
            proof = None if follower == chosen[0] + 1 else tuple(reader.inclusion_proof(chosen[0] - 1))
            file.write(write_line(Line(*chosen, proof)))
            reached.entries += 1

        for position, entry in enumerate(reader.entries(reached.position, log.last), reached.position + 1):
            try:
                event = read_event(entry[HEADER_BYTES:])
                wanted = choice.wants(event) and position >= log.first
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise NotIntact(f"the entry {log.name}/{position} is no event: {error}") from None
            if wanted:
                if held is not None:
                    write(held, position)
                held = position, entry
                note(event)
                if choice.is_whole(event.stream):
                    reached.streams[event.stream] = event.version
            if not position % LOOK_EVERY:
                progress(log.name, position, log.last)
                if time.monotonic() - saved_at > SAVE_S:
                    file.flush()
                    reached.position = held[0] - 1 if held else position
                    reached.written, reached.transactions = file.tell(), sorted(choice.transactions)
                    save(reached)
                    saved_at = time.monotonic()
        if held is not None:
            write(held, None)
    progress(log.name, log.last, log.last)
    reached.position = log.last
    return reached
