"""Real servers that a test session starts by itself: no containers, no root, nothing to install by hand."""

from tests.servers.postgres import GivenPostgres, Postgres
from tests.servers.proxy import Proxy
from tests.servers.redis import GivenRedis, Redis, RedisCluster, RedisSentinel, redis_binary, valkey_binary
from tests.servers.supabase import SupabaseApi, advisors, bootstrap

__all__ = [
    "GivenPostgres",
    "GivenRedis",
    "Postgres",
    "Proxy",
    "Redis",
    "RedisCluster",
    "RedisSentinel",
    "SupabaseApi",
    "advisors",
    "bootstrap",
    "redis_binary",
    "valkey_binary",
]
