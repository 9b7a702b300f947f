"""From `redis_url` to a client of redis-py's that has not connected yet."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from llm_memory_plugins.errors import ConfigError

CONNECTIONS = 20
"""At most so many commands under way: from one event loop more are no faster, and each costs a handshake."""

_SCHEMES = {
    **dict.fromkeys(("redis", "rediss", "unix"), "server"),
    **dict.fromkeys(("redis+sentinel", "rediss+sentinel"), "sentinel"),
    **dict.fromkeys(("redis+cluster", "rediss+cluster"), "cluster"),
}
_FORMS = (
    "redis://host:6379/0, rediss://host:6379/0, unix:///path/to/socket, "
    "redis+sentinel://host1:26379,host2:26379/service or redis+cluster://host1:6379,host2:6379"
)


class Driver(Protocol):
    """What is used of redis-py's clients."""

    async def execute_command(self, *args: Any) -> Any:
        """Send a command."""
        ...

    def pipeline(self, transaction: bool) -> Any:
        """Collect commands."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a URL names.

    Attributes:
        kind: `server`, `sentinel` or `cluster`.
        others: Clients to close too: the sentinels'.
        deadline: Seconds a command may take in all.
    """

    kind: str
    driver: Driver
    others: tuple[Driver, ...]
    deadline: float


class _Credentials:
    """Hands redis-py user and password when it connects, instead of leaving them in attributes of its objects."""

    def __init__(self, user: str | None, password: SecretStr) -> None:
        self._user, self._password = user, password

    def get_credentials(self) -> tuple[str, ...]:
        return (*([self._user] if self._user else ()), self._password.get_secret_value())

    async def get_credentials_async(self) -> tuple[str, ...]:
        return self.get_credentials()


def connect(url: SecretStr, timeout: float) -> Found:
    """The client a URL asks for.

    Raises:
        ConfigError: When the URL is of no known form. It does not quote it.
    """
    found = None
    with suppress(ValueError, TypeError, AttributeError):  # their texts may quote the URL
        found = _connect(url.get_secret_value(), timeout)
    if found is None:
        raise ConfigError(f"redis_url cannot be read; write {_FORMS}")
    return found


def _connect(url: str, timeout: float) -> Found | None:
    from redis.asyncio.client import Redis
    from redis.asyncio.cluster import ClusterNode, RedisCluster
    from redis.asyncio.connection import ConnectionPool, parse_url
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff

    scheme, _, rest = url.partition("://")
    kind = _SCHEMES.get(scheme)
    ours: dict[str, Any] = {
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": CONNECTIONS,
        "protocol": 2,  # no slower, and redis-py sends less when it connects
        "decode_responses": False,
    }
    if kind == "server":
        options = _options(parse_url(url))
        if scheme == "unix" and not options.get("path"):
            return None
        # No time-out per read: the one deadline around the command does that, for less.
        settings: dict[str, Any] = {**options, **ours, "socket_timeout": None}
        pool = ConnectionPool(**settings)
        return Found(kind, cast("Driver", Redis.from_pool(pool)), (), timeout)
    where, question, query = rest.partition("?")
    hosts, _, path = where.partition("/")
    login, at, hosts = hosts.rpartition("@")
    addresses = [_address(host, 26379 if kind == "sentinel" else 6379) for host in hosts.split(",")]
    service, _, db = path.partition("/")
    if kind == "cluster" and (service or db):
        return None
    options = _options(parse_url(f"redis://{login}{at}h/{db}{question}{query}"))
    options.pop("host")
    tls = {"ssl": True} if scheme.startswith("rediss") else {}
    # Here reads do time out on their own, so that an address that hangs leaves time to try the next one.
    ours |= {"socket_timeout": timeout, **tls}
    deadline = timeout * (1 + len(addresses))
    if kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in addresses]
        cluster = RedisCluster(startup_nodes=nodes, require_full_coverage=False, **{**options, **ours})
        return Found(kind, cast("Driver", cluster), (), deadline)
    if kind != "sentinel" or not service:
        return None
    theirs = {key: options.pop(f"sentinel_{key}", None) for key in ("username", "password")}
    sentinel: Any = Sentinel(addresses, sentinel_kwargs={**ours, **_options(theirs)})
    server = sentinel.master_for(unquote(service), **{**options, **ours})
    return Found(kind, cast("Driver", server), tuple(cast("list[Driver]", sentinel.sentinels)), deadline)


def _options(parsed: Any) -> dict[str, Any]:
    """Options without the password in the clear."""
    options = dict(cast("dict[str, Any]", parsed))
    user, password = options.pop("username", None), options.pop("password", None)
    if password:
        options["credential_provider"] = _Credentials(user, SecretStr(password))
    return options


def _address(host: str, port: int) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[::1]:port`."""
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or port
