"""What is refused where APP_ENV says that it counts: what is public, easy to guess, or handy on a laptop only."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from pydantic import SecretStr

if TYPE_CHECKING:
    from payments_ledger.process.settings import Settings

# RFC 7518, section 3.2: a key for HS256 has at least the 256 bits of its hash.
SECRET_BYTES_MIN = 32
# Far beyond what can be tried, and far below what any random secret of that length is counted as.
SECRET_BITS_MIN = 64
# Parts of secrets that stand in documents, examples and tutorials, ours among them; letters and digits alone count.
PUBLISHED_SECRETS = (
    "changeme",
    "changethis",
    "demonstration",
    "notforproduction",
    "your256bitsecret",
    "secretatleast256bits",
    "ofmorethanthirtytwobytes",
    "supersecret",
)
# The defaults of PostgreSQL's, Redis's and RabbitMQ's images and manuals, and what is tried first.
KNOWN_PASSWORDS = frozenset(
    {
        "123456",
        "admin",
        "app",
        "change-me",
        "changeme",
        "default",
        "guest",
        "letmein",
        "pass",
        "password",
        "postgres",
        "rabbit",
        "rabbitmq",
        "redis",
        "root",
        "secret",
        "test",
        "user",
    }
)
# A stolen token counts until it ends.
TOKEN_SECONDS_MAX = 24 * 60 * 60
# Of the public addresses of a family. The largest content delivery networks have a tenth of this.
TRUSTED_SHARE_MAX = 1 / 256

_MAPPED = IPv6Network("::ffff:0:0/96")


def unfit(settings: "Settings") -> Iterator[str]:
    """What speaks against serving with these settings: a clause a fault, which names its setting and no value."""
    yield from _unfit_secrets(settings)
    yield from _unfit_services(
        {
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "RABBITMQ_URL": settings.rabbitmq_url,
        }
    )
    if settings.token_expires_seconds > TOKEN_SECONDS_MAX:
        yield f"TOKEN_EXPIRES_SECONDS is longer than {TOKEN_SECONDS_MAX // 3600} hours"
    if "*" in settings.cors_origins:
        yield "CORS_ORIGINS admits every origin"
    # What browsers send for sandboxed frames and local files, which anybody can make.
    if "null" in settings.cors_origins:
        yield "CORS_ORIGINS admits null, which any page can be"
    yield from _unfit_proxies(settings.trusted_proxies)
    if settings.chaos_enabled:
        yield "CHAOS_ENABLED permits injected faults"
    if settings.failpoints:
        yield "FAILPOINTS is for tests"


def _unfit_secrets(settings: "Settings") -> Iterator[str]:
    if fault := _fault_of_secret(settings.jwt_secret):
        yield f"JWT_SECRET is {fault}"
    faults = filter(None, map(_fault_of_secret, settings.jwt_secrets_previous))
    for fault in dict.fromkeys(faults):
        yield f"JWT_SECRETS_PREVIOUS has a secret that is {fault}"


def _fault_of_secret(secret: SecretStr) -> str | None:
    text = secret.get_secret_value()
    letters_and_digits = "".join(filter(str.isalnum, text.casefold()))
    if any(published in letters_and_digits for published in PUBLISHED_SECRETS):
        return "the default or another published one, which everybody knows"
    if len(text.encode()) < SECRET_BYTES_MIN:
        return f"shorter than {SECRET_BYTES_MIN} bytes"
    if _bits(text) < SECRET_BITS_MIN:
        return "easy to guess: it repeats itself"
    return None


def _bits(text: str) -> float:
    """A generous estimate of what is unforeseeable in a text: repetitions and rows of characters count as nothing."""
    seen: set[tuple[str, str]] = set()
    unforeseen = 0
    step = None
    for previous, character in itertools.pairwise(text):
        goes_on = ord(character) - ord(previous) == step
        step = ord(character) - ord(previous)
        unforeseen += not goes_on and (previous, character) not in seen
        seen.add((previous, character))
    return unforeseen * math.log2(max(len(set(text)), 1))


def _unfit_services(urls: Mapping[str, str]) -> Iterator[str]:
    for name, url in urls.items():
        parts = urlsplit(url)
        if parts.scheme == "memory":
            yield f"{name} is memory://, which no other process shares"
        elif _has_known_password(parts):
            yield f"{name} has a password that everybody knows"


def _has_known_password(parts: SplitResult) -> bool:
    query = parse_qs(parts.query)
    user = parts.username or query.get("user", [""])[0]
    password = parts.password or query.get("password", [""])[0]
    if not password:
        # Another client may have a certificate or a file; one of RabbitMQ then logs in as guest.
        return parts.scheme.startswith("amqp")
    password = unquote(password).casefold()
    return password in KNOWN_PASSWORDS or password == unquote(user).casefold()


def _unfit_proxies(trusted: Iterable[str]) -> Iterator[str]:
    networks: list[IPv4Network | IPv6Network] = []
    readable = True
    for entry in trusted:
        try:
            networks.append(ip_network("::/0" if entry == "*" else entry))
        except ValueError:
            readable = False
    if not readable:
        yield "TRUSTED_PROXIES has an entry that is neither an address nor a network"
    if _share(map(_as_ipv4, networks), IPv4Network("0.0.0.0/0")) > TRUSTED_SHARE_MAX or (
        _share(networks, IPv6Network("::/0")) > TRUSTED_SHARE_MAX
    ):
        yield "TRUSTED_PROXIES trusts a large part of the internet"


def _as_ipv4(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """The IPv4 addresses of a network that holds any, as they look on a socket that serves both (RFC 4291, 2.5.5.2)."""
    if isinstance(network, IPv6Network) and network.overlaps(_MAPPED):
        prefix = max(network.prefixlen - _MAPPED.prefixlen, 0)
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF if prefix else 0, prefix))
    return network


def _share[Network: (IPv4Network, IPv6Network)](networks: Iterable[IPv4Network | IPv6Network], whole: Network) -> float:
    """How much of all addresses the public ones of these networks are, 0 to 1."""
    of_family = [network for network in networks if isinstance(network, type(whole))]
    public = [network for network in collapse_addresses(of_family) if not network.is_private]
    return sum(network.num_addresses for network in public) / whole.num_addresses
