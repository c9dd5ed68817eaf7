"""Where the regions of a run are, as the runner writes it for the load and the judge (SITE.json)."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Region(msgspec.Struct, frozen=True):
    """`url`: of the API. `postgres`: a DSN. `log`: the name of the log that is written there."""

    url: str
    postgres: str
    log: str


class Place(msgspec.Struct, frozen=True):
    """`tokens`: by role; the actor of each is `<role>:dev`. `policy`: the file of whom to trust, for `countroom verify`.
    `clocks`, `behind`: the logs of regions whose clock was ahead, or behind, for a while.
    """

    regions: dict[str, Region]
    tokens: dict[str, str]
    deployment: str
    policy: str | None = None
    clocks: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()

    def origin(self, log: str) -> str:
        return f"countroom.{self.deployment}/{log}"

    def headers(self, role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[role]}"}


def caller(role: str) -> str:
    """The actor of the token of a role, of which a command's id is made."""
    return f"{role}:dev"


def read(file: Path) -> Place:
    """Raises OSError, msgspec.MsgspecError."""
    return msgspec.json.decode(file.read_bytes(), type=Place)
