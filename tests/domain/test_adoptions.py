"""Policies come into force by two people, whichever accounts they use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import adoptions
from domain.adoptions import Adopted, Adoptions, OwnProposal, Proposed
from domain.errors import NotFound
from domain.kernel import EPOCH

ONE, TWO = "1" * 64, "2" * 64
PEOPLE, HASHES = st.sampled_from(["ada", "bo", "cy"]), st.sampled_from([ONE, TWO])


def test_what_was_proposed_another_person_adopts() -> None:
    waiting = Adoptions(proposed=ONE, proposer="ada")
    assert adoptions.adopt(waiting, hash=ONE, person="bo") == [Adopted(ONE, "bo", "ada")]
    with pytest.raises(OwnProposal):
        adoptions.adopt(waiting, hash=ONE, person="ada")
    with pytest.raises(NotFound):
        adoptions.adopt(waiting, hash=TWO, person="bo")


@given(st.lists(st.tuples(st.booleans(), HASHES, PEOPLE), max_size=12))
def test_whatever_is_adopted_was_wanted_by_two(steps: list[tuple[bool, str, str]]) -> None:
    state, wanted = Adoptions(), dict[str, set[str]]()
    for is_proposal, hash_, person in steps:
        decide = adoptions.propose if is_proposal else adoptions.adopt
        try:
            events = decide(state, hash=hash_, person=person)
        except (NotFound, OwnProposal):
            continue
        for event in events:
            wanted.setdefault(event.hash, set()).add(event.person)
            if isinstance(event, Adopted):
                assert {event.person, event.proposer} <= wanted[event.hash]
                assert event.person != event.proposer
            else:
                assert isinstance(event, Proposed)
            state = adoptions.evolve(state, event, EPOCH)
        assert not decide(state, hash=hash_, person=person) or not is_proposal, "asking again records nothing"
