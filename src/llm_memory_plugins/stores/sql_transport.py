"""How a function of `sql/` is called, whatever carries the call: the port of the transports, retries, and errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import stamina

from llm_memory_plugins.errors import (
    AccessDenied,
    AmbiguousSession,
    Conflict,
    LLMMemoryError,
    StoreUnavailable,
)
from llm_memory_plugins.stores.copies import Store
from llm_memory_plugins.telemetry import logger

T = TypeVar("T")

SCHEMA_VERSION = 4
"""The newest migration this code relies on."""

MIGRATE = "the database lacks this version's schema; run `llm-memory migrate`, or apply sql/ as the README says"

_ATTEMPTS = 3
_UNDONE = {"40001", "40P01", "55P03"}  # the transaction was rolled back: it never happened
_LOST = {"57P01", "57P02", "57P03"}  # the server went away, before or after the commit
_MISSING = {"22023", "3F000", "42883", "42P01", "PGRST202", "PGRST205"}  # 22023: not even the roles are there


class Transport(Store, Protocol):
    """One way to call a function of `sql/`."""

    async def call(
        self, function: str, arguments: Mapping[str, Any], *, user_id: str | None, repeatable: bool = True
    ) -> Any:
        """The value the function answers with.

        Args:
            function: Its name, without a schema.
            arguments: By name, without their prefix `p_`: None, bool, int and str.
            user_id: The one user whose rows this is about, where that is known; the transport may narrow its
                rights to them.
            repeatable: Whether the call may be made again when it is not known whether it was carried out.

        Raises:
            StoreUnavailable: When the database cannot be reached.
            AccessDenied: When row-level security or a grant forbids it.
            AmbiguousSession, Conflict: As the function says.
        """
        ...


async def with_retries(
    attempt: Callable[[], Awaitable[T]],
    *,
    errors: tuple[type[Exception], ...],
    repeat: Callable[[Exception], bool],
    seconds: float,
) -> T:
    """Run `attempt`, up to three times in all within `seconds`, while `repeat` says that its error allows it."""
    try:
        return await attempt()  # setting up retries that are seldom needed costs more than the rest of a call here
    except errors as error:
        if not repeat(error):
            raise
    async for trial in stamina.retry_context(
        on=repeat, attempts=_ATTEMPTS - 1, timeout=seconds, wait_initial=0.05, wait_max=0.5, wait_jitter=0.05
    ):
        with trial:
            return await attempt()
    raise AssertionError  # the last attempt has returned or raised


def opened(answer: Mapping[str, Any], *, hot: bool) -> tuple[str, bool]:
    """Identity of the store, and whether it has copies elsewhere, from what `open_memory` answers.

    Raises:
        StoreUnavailable: When its schema is too old.
    """
    if answer["version"] < SCHEMA_VERSION:
        raise StoreUnavailable(MIGRATE)
    if answer["version"] > SCHEMA_VERSION:
        logger.info("the database has schema %d; this version was made for %d", answer["version"], SCHEMA_VERSION)
    elsewhere = bool(answer["hot"]) and not hot
    if elsewhere:
        logger.warning("this store has copies in Redis, which will not follow what is written here: give its redis_url")
    return answer["store"], elsewhere


def may_repeat(code: str | None, *, repeatable: bool) -> bool:
    """Whether a call that ended with this SQLSTATE (None: the connection was lost) may be made again."""
    return code in _UNDONE or (repeatable and (code is None or code in _LOST or code.startswith("08")))


def translated(code: str | None, message: str | None = None, hint: str | None = None) -> LLMMemoryError:
    """The error of ours for a SQLSTATE or a code of PostgREST's. Texts of the server's are only passed on for our own.

    Args:
        code: None when the connection was lost.
        message: What the server said; it may quote data, so of foreign errors only the code is told.
        hint: Which error of our own functions it is, when it is one.
    """
    if hint == "ambiguous_session":
        return AmbiguousSession()
    if hint == "conflict":
        return Conflict(message)
    if code in {"42501", "PGRST301", "PGRST302", "PGRST303", "401", "403"}:
        return AccessDenied(
            "the database does not allow this: a login must be a member of authenticated and service_role; a key must "
            "be a secret one, or come with a user's token"
        )
    if code in _MISSING:
        return StoreUnavailable(MIGRATE)
    return StoreUnavailable(f"the database refused the operation (code {code})" if code else "the connection was lost")
