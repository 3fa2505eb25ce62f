"""Text from outside for a terminal: messages, tenants and database rows may hold control sequences."""

import re

# Control characters (ECMA-48: C0 and C1), and those that break lines or turn the direction of what follows (Unicode,
# section 23.2).
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """One line without control sequences; in JSON the escapes stand for the same characters."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
