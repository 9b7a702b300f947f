"""One Redis, Sentinel set or Cluster behind a URL: short deadlines, no retries, errors without secrets.

redis-py by itself repeats commands, ten times and with five seconds each: a server that hangs would be noticed after
a minute, and a push that was only slow would be sent twice. Here a command is sent once, within one deadline.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from pydantic import SecretStr

from llm_memory_plugins.errors import StoreUnavailable, needs
from llm_memory_plugins.stores.redis.breaker import Breaker
from llm_memory_plugins.stores.redis.connect import CONNECTIONS, connect
from llm_memory_plugins.stores.redis.script import Script

_CODE = re.compile(r"\b[A-Z]{3,}\b")  # `WRONGTYPE Operation against ...`, `... @user_script: 9: -OOM command ...`

Command = tuple[str | bytes | int, ...]


class Refused(StoreUnavailable):
    """The server answered with an error. `reason` is its code, or redis-py's class for it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Redis refused a command: {reason}")
        self.reason = reason


class RedisClient:
    """Sends commands. A `Backend` that connects when the first one is sent, so that Redis being down stops nothing.

    Args:
        url: `redis://`, `rediss://` or `unix://` as redis-py reads them;
            `redis+sentinel://[user:password@]host:port,host:port/service[/db]`, where user and password are the
            server's, those of the sentinels go behind `?sentinel_username=...&sentinel_password=...`;
            `redis+cluster://[user:password@]host:port,host:port`; `rediss+` for either over TLS.
        timeout: Seconds a command may take on one server, connecting included. Finding one through several
            addresses may take as much for each of them.
        breaker: Refuses commands while the server does not answer.

    Raises:
        ConfigError: When the URL is none of these.
        MissingExtra: When redis-py is not installed.
    """

    def __init__(self, url: SecretStr, *, timeout: float = 0.25, breaker: Breaker | None = None) -> None:
        with needs("redis_url", "redis"):
            from redis import exceptions
        self._unreachable = (
            *(
                exceptions.ConnectionError,
                exceptions.TimeoutError,
                OSError,
            ),  # the deadline's TimeoutError is an OSError
            *(exceptions.ClusterError, exceptions.RedisClusterException),
        )
        self._refused = exceptions.RedisError
        self._plain = exceptions.ResponseError
        self._no_script = exceptions.NoScriptError
        self._breaker = breaker or Breaker()
        self._slots = asyncio.Semaphore(CONNECTIONS)  # redis-py's fast pools raise when they are empty; here one waits
        self._found = connect(url, timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._found.kind!r})"

    async def open(self) -> None:
        """Nothing to do: the first command connects."""

    async def ping(self) -> None:
        """Ask the server, even while the breaker keeps commands from it.

        Raises:
            StoreUnavailable: When it does not answer, or with an error.
        """
        await self._send(lambda: self._found.driver.execute_command("PING"), always=True)

    async def close(self) -> None:
        """Close all connections."""
        for each in (self._found.driver, *self._found.others):
            with suppress(*self._unreachable, self._refused):
                await each.aclose()

    async def call(self, *command: str | bytes | int) -> Any:
        """Send one command and return its reply.

        Raises:
            Refused: When the reply is an error.
            StoreUnavailable: When there is none in time.
        """
        return await self._send(lambda: self._found.driver.execute_command(*command))

    async def run(self, script: Script, keys: str | Sequence[str], *arguments: str | int) -> Any:
        """Run a script on a key, or on several of one slot.

        A server that has forgotten the script is sent it again; it had then done nothing.

        Raises:
            Refused: When the reply is an error.
            StoreUnavailable: When there is none in time.
        """
        named = (keys,) if isinstance(keys, str) else keys
        try:
            return await self.call("EVALSHA", script.sha, len(named), *named, *arguments)
        except Refused as error:
            if error.reason != self._no_script.__name__:
                raise
        return await self.call("EVAL", script.text, len(named), *named, *arguments)

    async def run_many(self, script: Script, calls: Sequence[tuple[str, *tuple[str | int, ...]]]) -> list[Any]:
        """Run a script on many keys in one go.

        Raises:
            Refused: When a reply is an error; the others were run.
            StoreUnavailable: When there is none in time.
        """
        replies = await self._pipeline([("EVALSHA", script.sha, 1, *call) for call in calls])
        forgotten = [i for i, reply in enumerate(replies) if isinstance(reply, self._no_script)]
        again = await self._pipeline([("EVAL", script.text, 1, *calls[i]) for i in forgotten]) if forgotten else []
        for i, reply in zip(forgotten, again, strict=True):
            replies[i] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._error(reply)
        return replies

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        async def send() -> list[Any]:
            pipe = self._found.driver.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute(raise_on_error=False)

        return await self._send(send)

    async def _send(self, command: Callable[[], Awaitable[Any]], *, always: bool = False) -> Any:
        async with self._slots:  # not counted as the server's time; when it hangs, who waits here is refused below
            probe = always or self._breaker.admit()
            return await self._answer(command, probe)

    async def _answer(self, command: Callable[[], Awaitable[Any]], probe: bool) -> Any:
        try:
            async with asyncio.timeout(self._found.deadline):
                reply = await command()
        except self._unreachable as error:
            self._breaker.failed(probe=probe)
            raise self._error(error) from None
        except self._refused as error:
            self._breaker.succeeded()
            raise self._error(error) from None
        self._breaker.succeeded()
        return reply

    def _error(self, error: Exception) -> StoreUnavailable:
        """What to raise. The texts of redis-py's errors hold hosts and keys, so only a word of them is passed on."""
        if isinstance(error, self._unreachable) or not isinstance(error, self._refused):
            return StoreUnavailable(f"Redis cannot be reached at redis_url: {type(error).__name__}")
        code = _CODE.search(str(error)) if type(error) is self._plain else None  # others are classes of their own
        return Refused(code.group() if code else type(error).__name__)
