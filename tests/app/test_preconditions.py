"""What an If-Match says (RFC 9110, 8.8.3 and 13.1.1)."""

from __future__ import annotations

import pytest

from app.planning import entity_tags
from app.problems import IfMatchMalformed


@pytest.mark.parametrize(
    ("given", "tags"),
    [
        ("*", None),
        ('"1.0.0"', {"1.0.0"}),
        ('"1.0.0","2.0.0"', {"1.0.0", "2.0.0"}),
        ('"a" ,\t "b"', {"a", "b"}),
        (', "a",, "b",', {"a", "b"}),
        ('""', {""}),
        ('W/"1.0.0"', set()),
        ('W/"a", "b"', {"b"}),
        ('"a,b", "c"', {"a,b", "c"}),
    ],
)
def test_an_if_match_is_any_or_a_list_of_tags_of_which_weak_ones_never_match(given: str, tags: object) -> None:
    assert entity_tags(given) == tags


@pytest.mark.parametrize(
    "given",
    ["", " ", "1.0.0", '"', '"a', 'a"', '"a" "b"', '*, "a"', "**", 'w/"a"', '"a"b"', '"a b"', '"\u20ac"', '"\n"'],
)
def test_anything_else_is_refused(given: str) -> None:
    with pytest.raises(IfMatchMalformed):
        entity_tags(given)
