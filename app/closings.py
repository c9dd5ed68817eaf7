"""
What a region that goes on with a closed log is told of it: a folder that `countroom region close` has made.

    continues.json   the log, the entry at which it was closed, and what was stranded; written last, so the folder is whole with it
    stranded.ndjson  what only the closed database held, one entry a line, for people and for whoever settles it
    *.copy           the vault (eventstore.carrying)

Invariants:
    - a log with a number (eu.2) is opened with what is told here, or not at all;
    - the signer of a closed log signs no more.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from app.settings import Settings, SettingsError
from domain.logs import Continued, Stranded, is_next

TOLD = "continues.json"
STRANDED = "stranded.ndjson"
MARK = "closed.json"
"""In the folder of the signer of a log that was closed."""


class Closing(NamedTuple):
    continues: Continued
    stranded: Stranded | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    continues: Continued
    stranded: Stranded | None = None


def told(settings: Settings) -> Closing | None:
    """With which closed log the region goes on; None if with none. Raises SettingsError."""
    if settings.continues is None:
        if "." in settings.region:
            raise SettingsError(
                f"{settings.region} goes on with a closed log: COUNTROOM_CONTINUES names the folder that "
                "`countroom region close` has made"
            )
        return None
    found = read(settings.continues)
    if found is None:
        raise SettingsError(f"{settings.continues} holds no {TOLD}: `countroom region close` has not finished there")
    if not is_next(settings.region, found.continues.log):
        raise SettingsError(
            f"{settings.continues} is about {found.continues.log}, with which {settings.region} does not go on"
        )
    return found


def read(folder: Path) -> Closing | None:
    """What a folder tells; None if it is not finished. Raises SettingsError."""
    try:
        found = msgspec.json.decode((folder / TOLD).read_bytes(), type=_File)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{folder / TOLD}: {error}") from error
    return Closing(found.continues, found.stranded)


def refuse_closed(signer: Path) -> None:
    """Raises SettingsError where the log of this signer was closed."""
    if (signer / MARK).exists():
        raise SettingsError(
            f"the log was closed, and another goes on with it: {signer / MARK} says which entry was its last"
        )


def encode(closing: Closing) -> bytes:
    return msgspec.json.encode(_File(*closing)) + b"\n"
