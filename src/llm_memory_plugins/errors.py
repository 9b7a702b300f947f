"""Every error this package raises on purpose.

::

    LLMMemoryError
    ├── ConfigError (ValueError)        a setting is unknown, malformed or contradicts another
    │   └── MissingExtra (ImportError)  a setting needs a package that is not installed
    ├── InvalidInput (ValueError)       a call's argument breaks a rule; `.field` names it
    │   └── AmbiguousSession            several users have a session of that name; name the user
    ├── AccessDenied                    outside the scope of this engine, whether it exists or not
    ├── BudgetError (ValueError)        not even the newest user message fits into the token budget
    ├── Conflict                        a compare-and-set lost against another writer
    ├── StoreUnavailable                a store cannot be reached or written; nothing was acknowledged
    ├── ModelError                      a model failed or answered nonsense; `.retryable` tells
    └── WrongLoop (RuntimeError)        an engine was used from another event loop than its own

Messages name the field and the fix. They never hold message text, keys or URLs with passwords.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


class LLMMemoryError(Exception):
    """The root of the tree: catch it to catch everything this package raises on purpose."""


class ConfigError(LLMMemoryError, ValueError):
    """A setting is unknown, malformed or contradicts another one."""


class MissingExtra(ConfigError, ImportError):
    """A setting needs a package that is not installed; the message holds the `pip install` line."""


@contextmanager
def needs(what: str, extra: str) -> Generator[None]:
    """Turn the ImportError of a driver or an SDK into the line that installs it.

    Args:
        what: What cannot go on without it: a setting or an undertaking.
        extra: The extra of this package that brings it.
    """
    try:
        yield
    except ImportError as error:
        line = f"pip install 'llm-memory-plugins[{extra}]'"
        raise MissingExtra(f"{what} needs a package that is not installed: {line}") from error


class InvalidInput(LLMMemoryError, ValueError):
    """An argument of a call breaks a rule.

    Attributes:
        field: The argument at fault, for example `content` or `metadata.price`.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class AmbiguousSession(InvalidInput):
    """Several users have a session of this name, and the call named none of them."""

    def __init__(self) -> None:
        super().__init__("user_id", "several users have a session of this name; say which user is meant")


class AccessDenied(LLMMemoryError):
    """The call names something outside the scope of this engine. Says nothing about whether it exists."""


class BudgetError(LLMMemoryError, ValueError):
    """The token budget cannot hold the newest user message, not even shortened."""


class Conflict(LLMMemoryError):
    """A compare-and-set lost: another writer was faster, and nothing was written."""


class StoreUnavailable(LLMMemoryError):
    """A store cannot be reached, read or written. Nothing was acknowledged."""


class ModelError(LLMMemoryError):
    """A model call failed, or its answer was refused, truncated or malformed.

    Attributes:
        retryable: True when the same call may succeed later (rate limit, time-out, server error).
        retry_after: Seconds the provider asked to wait, when it said so.
    """

    def __init__(self, message: str, *, retryable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after


class WrongLoop(LLMMemoryError, RuntimeError):
    """An engine was used from another event loop than the one it was initialised on."""
