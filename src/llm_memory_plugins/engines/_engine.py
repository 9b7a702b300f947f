"""What all engines share: settings, life cycle, one event loop, scope, health, background work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

import anyio

from llm_memory_plugins.boundary import session_ref
from llm_memory_plugins.config import Config, load
from llm_memory_plugins.errors import AccessDenied, InvalidInput, LLMMemoryError, WrongLoop
from llm_memory_plugins.ports import Backend, Clock, TokenCounter
from llm_memory_plugins.telemetry import logger
from llm_memory_plugins.types import BackendHealth, Health, SessionRef
from llm_memory_plugins.wiring import Ports, now

ConfigT = TypeVar("ConfigT", bound=Config)
PortsT = TypeVar("PortsT", bound=Ports)

_PING_SECONDS = 2.0
_DRAIN_SECONDS = 5.0


class Engine(Generic[ConfigT, PortsT]):
    """A memory over ports.

    Args:
        config: A dict that may hold the keys of every engine, a typed config, or nothing.
        ports: Stores to work on instead of those the config names; the caller opens and closes them.
        clock: Tells the time.

    Raises:
        ConfigError: When a setting is unknown or malformed.
    """

    config_type: ClassVar[type[Any]]

    def __init__(
        self, config: ConfigT | Mapping[str, Any] | None = None, *, ports: PortsT | None = None, clock: Clock = now
    ) -> None:
        self.config: ConfigT = load(self.config_type, config)
        self._ports: PortsT = ports or self._connect()
        self._backends: dict[str, Backend] = {} if ports else dict(self._ports.backends)
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()

    def _connect(self) -> PortsT:
        """The ports the config names."""
        raise NotImplementedError

    async def initialize(self) -> None:
        """Open what the engine works on. Idempotent; every other call does it when it has not been done.

        Raises:
            StoreUnavailable: When the durable store cannot be opened.
            WrongLoop: When the engine is already in use on another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None:
            raise WrongLoop(
                f"this {type(self).__name__} belongs to another event loop; make one engine per loop, "
                "or call it from sync code through llm_memory_plugins.runner.run"
            )
        async with self._opening:
            for backend in self._backends.values():
                await backend.open()
            self._loop = loop

    async def close(self) -> None:
        """Let running background work finish for a moment, then let go of everything. Idempotent."""
        if self._loop is None:
            return
        if self._loop is not asyncio.get_running_loop():
            await self.initialize()  # raises, as every call from the wrong loop does
        with anyio.move_on_after(_DRAIN_SECONDS):
            await self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for backend in self._backends.values():
            await backend.close()
        self._loop = None

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def drain(self) -> None:
        """Wait until no background work is running."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def health_check(self) -> Health:
        """How every backend is. Never raises; a backend that does not answer within two seconds is unhealthy."""
        problem = ""
        try:
            with anyio.fail_after(_PING_SECONDS):
                await self.initialize()
        except Exception as error:  # noqa: BLE001 - a health check reports, it does not raise
            problem = _in_words(error)
        names = list(self._backends)
        checked = await asyncio.gather(*(self._check(self._backends[name], problem) for name in names))
        backends = dict(zip(names, checked, strict=True))
        durable = backends.get(self._ports.durable)
        if problem or (durable and durable.status != "healthy"):
            status = "unhealthy"
        else:
            status = "healthy" if all(b.status == "healthy" for b in checked) else "degraded"
        return Health(status=status, timestamp=now().isoformat(), backends=backends, detail=self._details())

    async def _check(self, backend: Backend, problem: str) -> BackendHealth:
        begun = time.perf_counter()
        if not problem:
            try:
                with anyio.fail_after(_PING_SECONDS):
                    await backend.ping()
            except Exception as error:  # noqa: BLE001 - a health check reports, it does not raise
                problem = _in_words(error)
        return BackendHealth(
            status="unhealthy" if problem else "healthy",
            latency_ms=round(1000 * (time.perf_counter() - begun), 3),
            detail=problem,
        )

    def _details(self) -> Mapping[str, Any]:
        """What an engine adds to its health."""
        return {"tokenizer": self._ports.counter.name}

    @property
    def _counter(self) -> TokenCounter:
        return self._ports.counter

    def _session(self, session_id: object, user_id: object = None) -> SessionRef:
        """The reference to a session, within the scope of this engine.

        Raises:
            InvalidInput: When an id breaks a rule.
            AccessDenied: When another user is named than the engine is for.
        """
        ref = session_ref(session_id, user_id)
        return SessionRef(ref.session_id, self._user(ref.user_id))

    def _user(self, user_id: str | None) -> str | None:
        owner = self.config.user_id
        if owner is None and user_id is None and self.config.require_user:
            raise InvalidInput("user_id", "is missing; this engine has many users (require_user)")
        if owner is None or user_id == owner:
            return user_id
        if user_id is None:
            return owner
        raise AccessDenied("this engine is for one user, and the call names another")

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something in the background; `drain` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("background work failed: %s", _in_words(error))


def _in_words(error: BaseException) -> str:
    """Our own errors are written to be shown; of others only the kind is told, since a text may hold secrets."""
    if isinstance(error, TimeoutError):
        return f"no answer within {_PING_SECONDS:g} seconds"
    return str(error) if isinstance(error, LLMMemoryError) else type(error).__name__
