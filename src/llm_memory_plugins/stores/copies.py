"""Hot copies of a durable store: whose they are, and who may erase."""

from __future__ import annotations

from typing import Protocol

from llm_memory_plugins.errors import ConfigError


class Store(Protocol):
    """What an opened durable store knows of itself.

    Attributes:
        identity: Another one for every store; part of the keys of its copies.
        copies_elsewhere: True when it has copies in a hot tier that this engine was not given.
    """

    identity: str
    copies_elsewhere: bool


def check_reach(store: Store) -> None:
    """Erasing is everywhere or an error.

    Raises:
        ConfigError: When there may be copies that would stay.
    """
    if store.copies_elsewhere:
        raise ConfigError(
            "redis_url: this store has copies in Redis, which would outlive what is erased here; give its redis_url "
            "too (or, when Redis is not used any more, set the column hot of the table store to false)"
        )
