"""What the relay and the applier of a region must be told. The seeds' files are those that devstack/nats.py describes."""

from dataclasses import dataclass, field
from pathlib import Path

STREAM_BYTES_MAX = 1024**3


@dataclass(frozen=True, slots=True)
class Config:
    """One region's servers; always its own: the way to another region is a leaf link between the servers."""

    region: str
    deployment: str
    postgres: str = field(repr=False)  # a DSN that may act as countroom_applier
    nats: str = field(repr=False)
    seeds: Path  # own.seed, in-<other region>.seed, and the same with commands- before
    stream_bytes_max: int = STREAM_BYTES_MAX

    def origin(self, region: str) -> str:
        """The full name of a region's log."""
        return f"countroom.{self.deployment}/{region}"

    def seed(self, realm: str, user: str = "") -> Path:
        """The key of our service user in a region's realm, on our own server. `user`: of a lesser one, which may do only that."""
        name = "own.seed" if realm == self.region else f"in-{realm}.seed"
        return self.seeds / (f"{user}-{name}" if user else name)
