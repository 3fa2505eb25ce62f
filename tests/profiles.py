"""How much the tests do: enough for each change to the code, or as much as a night has time for.

Made-up examples are the same ones each time by default, many others with a profile:

`pytest --hypothesis-profile=nightly` takes twenty times as many, `long` fifty times, and new ones each time; a failure
prints how to repeat it. Numbers of payments, orders and seconds are larger with TEST_NIGHTLY=1 (scripts/nightly.sh).
"""

import os
from typing import Any

from hypothesis import HealthCheck, settings

EXAMPLES = 100

# A busy machine makes an example slow; that is no failure.
_EVERYWHERE: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}

_IS_NIGHTLY = os.environ.get("TEST_NIGHTLY") == "1"


def scaled[Number: (int, float)](usually: Number, *, nightly: Number) -> Number:
    """The number for this run; the smaller one still fails when what it tests is taken out."""
    return nightly if _IS_NIGHTLY else usually


def register_profiles() -> None:
    settings.register_profile("same", max_examples=EXAMPLES, derandomize=True, database=None, **_EVERYWHERE)
    settings.register_profile("nightly", max_examples=EXAMPLES * 20, **_EVERYWHERE)
    settings.register_profile("long", max_examples=EXAMPLES * 50, **_EVERYWHERE)
    settings.load_profile("same")


def examples(count: int, **options: Any) -> settings:
    """As many examples as `count` by default, and in proportion under another profile."""
    return settings(max_examples=max(1, count * settings().max_examples // EXAMPLES), **options)
