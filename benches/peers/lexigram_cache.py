"""Times the reference system, lexigram-cache, for `cargo bench --bench backends`.

One request a line on standard input, one reply a line on standard output, both JSON:

    {"operation": "memory get", "calls": 20000}   ->   {"nanoseconds": 8083.9, "right": 20000}
                                                  or   {"unavailable": "why"}

Operations: memory set, memory get, redis set, redis get, tiered get. Redis is found by the
first argument, a URL. Values are what the other subjects store: a map with a text of 200 characters.

    pip install lexigram-cache redis
"""

import asyncio
import json
import logging
import sys
import time

VALUE = {"answer": "x" * 200, "tokens": 50}
KEYS = 10_000


class Provider:
    """Hands out backends by name, as the reference's own container does."""

    def __init__(self, backends: dict[str, object]) -> None:
        self.backends = backends

    def get_backend(self, name: str | None) -> object:
        return self.backends[name or "memory"]


class Subjects:
    """The stores under test, each made when it is first asked for."""

    def __init__(self, url: str | None) -> None:
        self.url = url
        self.made: dict[str, object] = {}

    async def of(self, kind: str) -> object:
        if kind not in self.made:
            self.made[kind] = await self.make(kind)
        return self.made[kind]

    async def make(self, kind: str) -> object:
        from lexigram.cache.backends.memory.backend import MemoryCacheBackend

        if kind == "memory":
            store = MemoryCacheBackend(max_size=2 * KEYS)
        elif self.url is None:
            raise RuntimeError("no Redis was given")
        else:
            from lexigram.cache.backends.redis.backend import RedisCacheBackend
            from lexigram.cache.stores.redis_state import RedisStateStore

            redis = RedisCacheBackend(RedisStateStore(self.url, prefix="peer:"))
            if kind == "redis":
                store = redis
            else:
                from lexigram.cache.service.core import CacheService
                from lexigram.cache.strategies.tiered import TieredCache

                tiers = {"memory": MemoryCacheBackend(max_size=2 * KEYS), "redis": redis}
                store = TieredCache(CacheService(provider=Provider(tiers)))
        for number in range(KEYS if kind == "memory" else 500):
            await store.set(f"key:{number}", VALUE, ttl=3600)
        return store


def unwrapped(reply: object) -> object:
    """What a reply holds: backends answer with a result, strategies with the value."""
    return reply.unwrap() if hasattr(reply, "unwrap") else reply


async def measure(subjects: Subjects, operation: str, calls: int) -> dict[str, float]:
    kind, action = operation.split(" ", 1)
    store = await subjects.of(kind)
    keys = KEYS if kind == "memory" else 500
    right = 0
    started = time.perf_counter_ns()
    for number in range(calls):
        if action == "set":
            await store.set(f"key:{number % keys}", VALUE, ttl=3600)
            right += 1
        else:
            right += unwrapped(await store.get(f"key:{number % keys}")) == VALUE
    return {"nanoseconds": (time.perf_counter_ns() - started) / calls, "right": right}


def quiet() -> None:
    """Turns its debug lines off, which would cost it more than the work."""
    try:
        import structlog
    except ImportError:
        return
    warnings = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=warnings)


async def main() -> None:
    quiet()
    subjects = Subjects(sys.argv[1] if len(sys.argv) > 1 else None)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = await measure(subjects, request["operation"], request["calls"])
        except Exception as error:  # What it cannot do is a finding, not a failure of the bench.
            reply = {"unavailable": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
