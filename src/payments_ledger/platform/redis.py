"""Redis, where it is used: a cache and a counter of requests, never a record of anything."""

import redis.asyncio as redis
from redis.exceptions import RedisError

ANSWER_SECONDS_MAX = 1.0


def connect(url: str) -> redis.Redis:
    """A client that connects when it is first used and again after every loss."""
    return redis.Redis.from_url(
        url, socket_connect_timeout=ANSWER_SECONDS_MAX, socket_timeout=ANSWER_SECONDS_MAX, protocol=3
    )


async def is_up(client: redis.Redis) -> bool:
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
