"""Time zones by their IANA names, as they are on this machine or in the package tzdata."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

# A name for "nobody has set the zone yet", which the database of zones has too.
NOT_SET = "Factory"


@dataclass(frozen=True, slots=True)
class UnknownZone:
    """A zone of which this machine has no data."""

    key: str


type Zone = ZoneInfo | UnknownZone


def find_zone(name: str) -> Zone:
    """An UnknownZone for a name that has no data here, and for one that is no name of a zone at all."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UnknownZone(name)


def is_same_everywhere(name: str) -> bool:
    """Whether the name means one zone, whatever the machine: not so localtime, posixrules, or right/UTC."""
    return name in _names()


@cache
def _names() -> frozenset[str]:
    return frozenset(files("tzdata").joinpath("zones").read_text().split()) - {NOT_SET}
