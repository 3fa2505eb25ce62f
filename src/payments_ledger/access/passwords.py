"""Passwords: argon2id hashes (RFC 9106), checked with the same work whether the user exists or not."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from argon2.profiles import RFC_9106_LOW_MEMORY

_hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)

# Each check takes 64 MiB and a core for some 50 ms: more at once would only starve the payments.
_checks = ThreadPoolExecutor(max_workers=2, thread_name_prefix="password")


def hash_password(password: str) -> str:
    """A PHC string with a salt of its own. Takes some 50 ms of processor time and 64 MiB."""
    return _hasher.hash(password)


async def password_matches(password: str, password_hash: str | None) -> bool:
    """Whether the password belongs to the hash; None stands for an unknown user and takes as long to deny."""
    loop = asyncio.get_running_loop()
    matches = await loop.run_in_executor(_checks, _verify, password, password_hash or hash_of_nobody())
    return matches and password_hash is not None


@cache
def hash_of_nobody() -> str:
    """The hash that is checked when there is no user. Called once at the start: making it takes its time."""
    return _hasher.hash("nobody has this password")


def _verify(password: str, password_hash: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerifyMismatchError, InvalidHashError):
        return False
