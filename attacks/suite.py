"""
An attack, and how it is judged.

Invariants:
    - whoever attacks is answered as the attack says, and with a problem document that has a stable code, unless it says otherwise;
    - nothing changed: nobody was signed in, and the log holds no more than that somebody was refused, or what the attack names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from attacks.routes import Route
from attacks.site import Answer, Request, Site

REFUSED = frozenset({"access.denied", "signin.refused"})
"""What is recorded of somebody who was refused; once in a while, so it may stand there a moment later."""
ANY = ""
"""Any stable code."""
FAULT = 500

Expected = tuple[tuple[int, str | None], ...]
"""(status, code of the problem document): ANY, or None where no problem document is expected."""

UNKNOWN: Expected = ((401, "unauthenticated"),)
FORBIDDEN: Expected = ((403, "forbidden"),)
INVALID: Expected = ((422, ANY), (400, ANY), (413, ANY))


class Attack(NamedTuple):
    """`hides`: what must not stand in the answer, `shows`: what must, its header included. `records`: types of entries that may be
    recorded.
    """

    group: str
    route: str
    what: str
    request: Request
    expects: Expected
    hides: tuple[str, ...] = ()
    records: frozenset[str] = frozenset()
    shows: str = ""

    def __str__(self) -> str:
        return f"{self.group}: {self.what}, {self.route}"


class Outcome(NamedTuple):
    """`wrong`: what the attack has got; "" if nothing."""

    attack: Attack
    answer: Answer
    wrong: str

    @property
    def is_fault(self) -> bool:
        return self.answer.status >= FAULT

    def __str__(self) -> str:
        return f"{self.attack}: {self.wrong}"


class World(NamedTuple):
    """`ids`: what stands in paths. `player`: whom attacks are about; `quick`: a sample in which each route and each kind is."""

    site: Site
    routes: list[Route]
    ids: dict[str, str]
    player: str
    quick: bool


Group = Callable[[World], Iterable[Attack]]


def run(attacks: Iterable[Attack], site: Site) -> Iterator[Outcome]:
    """One after the other: what a later one needs is made when the one before was judged."""
    for attack in attacks:
        position, sessions = site.position(), site.sessions()
        answer = site.send(attack.request)
        yield Outcome(attack, answer, _wrong(attack, answer, site, position, sessions))


def _wrong(attack: Attack, answer: Answer, site: Site, position: int, sessions: frozenset[bytes]) -> str:
    if not _is_expected(answer, attack.expects):
        wanted = " or ".join(f"{status} {code or ''}".strip() for status, code in attack.expects)
        return f"answered {answer.status} {answer.code} in place of {wanted}: {answer.raw[:160]!r}"
    shown = [text for text in attack.hides if text.encode() in answer.raw]
    if shown:
        return f"was shown {shown[0]}"
    if attack.shows and attack.shows.encode() not in answer.raw + str(answer.headers).encode():
        return f"was not told {attack.shows}: {answer.raw[:160]!r} {answer.headers}"
    recorded = set(site.since(position)) - REFUSED - attack.records
    if recorded:
        return f"recorded {', '.join(sorted(recorded))}"
    if site.sessions() - sessions:
        return "began a session"
    return ""


def _is_expected(answer: Answer, expected: Expected) -> bool:
    for status, code in expected:
        if answer.status == status and (code is None or (answer.code if code == ANY else answer.code == code)):
            return True
    return False
