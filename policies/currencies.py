"""Which currencies there are: ISO 4217, list one, as the package iso4217 carries it."""

from __future__ import annotations

from iso4217 import Currency

EXPONENTS: dict[str, int] = {currency.code: currency.exponent for currency in Currency if currency.exponent is not None}
"""Currency code → digits after the decimal point. Codes without minor units (metals, funds, tests) are not currencies here."""
