"""The currencies of ISO 4217 with minor units, as the library has them: what tests without a database go by."""

import iso4217

from payments_ledger.money import Currency

EXPONENTS = {listed.code: listed.exponent for listed in iso4217.Currency if listed.exponent is not None}
CURRENCIES = [Currency(code, exponent) for code, exponent in EXPONENTS.items()]
