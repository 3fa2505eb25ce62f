"""Which types of events somebody wants: `payment.settled`, `payment.*`, or `*` for all."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Patterns:
    """What is wanted: types by their whole `names`, and those that begin with one of the `prefixes` ("payment.").

    The empty prefix is every type.
    """

    names: tuple[str, ...]
    prefixes: tuple[str, ...]

    @classmethod
    def read(cls, patterns: Iterable[str], known: Collection[str]) -> Self:
        """Raises ValueError for a star that stands elsewhere than at the end of `x.*`, and for what matches nothing."""
        names: list[str] = []
        prefixes: list[str] = []
        for pattern in patterns:
            stem, star, rest = pattern.partition("*")
            if star and (rest or (stem and not stem.endswith("."))):
                raise ValueError("must be a type such as payment.settled, payment.*, or *")
            if not any(event_type.startswith(stem) if star else event_type == stem for event_type in known):
                raise ValueError("matches no type of event")
            (prefixes if star else names).append(stem)
        return cls(tuple(names), tuple(prefixes))


EVERYTHING = Patterns((), ("",))
