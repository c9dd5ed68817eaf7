"""What goes out by itself, and what does not."""

from __future__ import annotations

import pytest

from policies import approvals, payments
from policies.currencies import EXPONENTS


@pytest.mark.parametrize("currency", sorted(EXPONENTS))
def test_nothing_goes_out_by_itself_for_which_two_people_are_wanted(currency: str) -> None:
    rule = approvals.RULES[approvals.PAY_OUT]
    for provider in {"", *(provider for provider, _ in payments.METHODS)}:
        terms = payments.of(provider, currency)
        assert terms.automatic <= terms.automatic_fast
        assert approvals.reasons(rule, currency, {"amount": terms.automatic_fast}) == ()
