"""What the embedders behind HTTP share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_memory_plugins.errors import ModelError
from llm_memory_plugins.ports import EmbeddingKind
from llm_memory_plugins.providers._wire import WireModel
from llm_memory_plugins.providers.embedders.base import BaseEmbedder, estimate
from llm_memory_plugins.types import Usage

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class EmbeddingEndpoint(WireModel):
    """A connection that is asked for embeddings, one request a call. The errors name the settings of embedders."""

    async def ping(self) -> None:
        """One cheap round trip. Raises `ModelError`."""
        raise NotImplementedError

    async def request(self, texts: list[str], kind: EmbeddingKind, dimensions: int | None) -> tuple[ArrayLike, Usage]:
        """Ask for one vector a text. What comes back may have any shape. Raises `ModelError`."""
        raise NotImplementedError

    def _bad_status(self, status: int, *, code: str | None, retry_after: float | None) -> ModelError:
        if status == 404:
            fix = "set embedding_model to a model that the server has, or check the base URL"
            return self._failure(f"was not found (HTTP 404): {fix}", retryable=False)
        return super()._bad_status(status, code=code, retry_after=retry_after)


class WireEmbedder(BaseEmbedder):
    """An embedder over such a connection.

    Args:
        endpoint: The connection, which is closed with this.
        asked: Dimensions to ask the server for; None for the model's own.
        dimensions: What will come back then; None when that is not known.
        max_tokens, batch_texts, batch_bytes, concurrency, count: As in `BaseEmbedder`.
    """

    def __init__(
        self,
        endpoint: EmbeddingEndpoint,
        *,
        asked: int | None,
        dimensions: int | None,
        max_tokens: int | None,
        batch_texts: int,
        batch_bytes: int,
        concurrency: int,
        count: Callable[[str], int] = estimate,
    ) -> None:
        super().__init__(
            endpoint.identity,
            dimensions=dimensions,
            max_tokens=max_tokens,
            batch_texts=batch_texts,
            batch_bytes=batch_bytes,
            concurrency=concurrency,
            count=count,
        )
        self._endpoint = endpoint
        self._asked = asked

    async def ping(self) -> None:
        """Look the model up, which costs nothing. Raises `ModelError`."""
        await self._endpoint.ping()

    async def close(self) -> None:
        """Let go of all connections. Calls after this raise `ModelError`."""
        await self._endpoint.close()

    async def _ask(self, texts: list[str], kind: EmbeddingKind) -> tuple[ArrayLike, Usage]:
        return await self._endpoint.request(texts, kind, self._asked)
