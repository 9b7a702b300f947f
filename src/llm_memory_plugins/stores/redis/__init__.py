"""The hot tier on Redis or Valkey: one server, a Sentinel set or a Cluster. Importing this imports no driver."""

from llm_memory_plugins.stores.redis.breaker import Breaker
from llm_memory_plugins.stores.redis.client import RedisClient
from llm_memory_plugins.stores.redis.keyvalue import RedisValues
from llm_memory_plugins.stores.redis.tier import RedisHotTier

__all__ = ["Breaker", "RedisClient", "RedisHotTier", "RedisValues"]
