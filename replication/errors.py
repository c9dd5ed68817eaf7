"""
What can go wrong between two regions.

    ReplicationError
    ├── Interrupted       may pass by itself: the session is begun again from PostgreSQL
    └── Broken            what came cannot be part of the log: that log stops, the evidence is kept, an operator clears it
        ├── FrameError        the bytes are no frame
        ├── Mismatch          a frame neither continues nor repeats the log that is held here
        ├── RelayMismatch     our own stream holds what our own log does not
        └── Forked            our own log is not the one that we signed, or that others have copied; or heads disagree
"""


class ReplicationError(Exception):
    pass


class Interrupted(ReplicationError):
    pass


class Broken(ReplicationError):
    """`position` is the first that cannot be right, as far as it is known."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.position = position


class FrameError(Broken):
    pass


class Mismatch(Broken):
    pass


class RelayMismatch(Broken):
    pass


class Forked(Broken):
    pass
