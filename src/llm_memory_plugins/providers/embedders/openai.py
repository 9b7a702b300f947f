"""An embedder on OpenAI, or on any server that speaks its `/embeddings`, such as vLLM, llama.cpp or Ollama."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from llm_memory_plugins.errors import ConfigError
from llm_memory_plugins.ports import EmbeddingKind
from llm_memory_plugins.providers.embedders._wire import EmbeddingEndpoint, WireEmbedder
from llm_memory_plugins.providers.embedders.base import estimate
from llm_memory_plugins.providers.openai import OpenAIChatModel
from llm_memory_plugins.tokens import counter
from llm_memory_plugins.types import Usage

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

DEFAULT_MODEL = "text-embedding-3-small"
_DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
_WINDOW = 8191
_BATCH_TEXTS = 2048
_BATCH_BYTES = 300_000
"""The server's limit of tokens in a request. No token is shorter than a byte, so nobody has to count tokens."""


class _Row(BaseModel):
    embedding: str | list[float]  # base64 of little-endian float32, which the SDK asks for, or plain numbers
    index: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None


class _Embeddings(BaseModel):
    data: list[_Row]
    usage: _Usage | None = None


class _Endpoint(EmbeddingEndpoint, OpenAIChatModel):
    """The connection of the chat model, asked another question."""

    async def ping(self) -> None:
        await OpenAIChatModel.ping(self)

    async def request(self, texts: list[str], kind: EmbeddingKind, dimensions: int | None) -> tuple[ArrayLike, Usage]:
        from openai import omit

        # Taken raw and read here, as in the chat model: the SDK does not check what it parses.
        raw = await self._attempt(
            self._client.embeddings.with_raw_response.create(
                model=self.model, input=texts, dimensions=omit if dimensions is None else dimensions
            )
        )
        answer = self._read(raw.content, _Embeddings)
        rows = answer.data
        if any(row.index is not None for row in rows):
            rows = sorted(rows, key=lambda row: row.index or 0)
            if [row.index for row in rows] != list(range(len(rows))):
                raise self._failure("answered vectors that are not numbered one by one", retryable=True)
        used = (answer.usage and answer.usage.prompt_tokens) or 0
        return self._decoded([row.embedding for row in rows]), Usage(input_tokens=used, calls=1)

    def _decoded(self, rows: list[str | list[float]]) -> ArrayLike:
        import numpy as np

        decoded: list[Any] | None = None
        with suppress(ValueError):  # the failure is raised outside, without this error, which may quote the answer
            decoded = [
                np.frombuffer(base64.b64decode(row, validate=True), dtype="<f4") if isinstance(row, str) else row
                for row in rows
            ]
        if decoded is None:
            raise self._failure("answered vectors that are neither numbers nor base64 of them", retryable=True)
        return decoded


class OpenAIEmbedder(WireEmbedder):
    """An `Embedder` on the official SDK's async client, without retries: the callers in this package try again later.

    Texts go in requests of at most 2,048 and 300,000 bytes, several at a time.

    Args:
        api_key: The key. It is in no attribute, log or error of this object. Anything for a server without keys.
        model: The model's name; `text-embedding-3-small` when None.
        dimensions: Shorter vectors than the model's own, which the `text-embedding-3-*` models can make.
        base_url: Another server that speaks OpenAI's protocol, up to and with `/v1`. When None, what the SDK
            takes: `OPENAI_BASE_URL`, else OpenAI.
        timeout: Seconds for each request, however slowly its answer drips in.
        concurrency: Requests under way at a time.
        max_tokens: Window of a model that is not OpenAI's, when it is known. OpenAI's have 8,191 tokens.

    Raises:
        MissingExtra: When the SDK or numpy is not installed.
        ConfigError: When the key cannot be one, or `dimensions` is not positive.
    """

    def __init__(
        self,
        *,
        api_key: SecretStr,
        model: str | None = None,
        dimensions: int | None = None,
        base_url: str | None = None,
        timeout: float = 30.0,
        concurrency: int = 4,
        max_tokens: int | None = None,
    ) -> None:
        if dimensions is not None and dimensions < 1:
            raise ConfigError("dimensions: must be positive")
        model = model or DEFAULT_MODEL
        known = model in _DIMENSIONS
        super().__init__(
            _Endpoint(api_key=api_key, model=model, base_url=base_url, timeout=timeout),
            asked=dimensions,
            dimensions=dimensions or _DIMENSIONS.get(model),
            max_tokens=max_tokens or (_WINDOW if known else None),
            batch_texts=_BATCH_TEXTS,
            batch_bytes=_BATCH_BYTES,
            concurrency=concurrency,
            count=_counter() if known else estimate,
        )


def _counter() -> Callable[[str], int]:
    """What counts as these models do, else the estimate."""
    try:
        return counter("cl100k_base").count
    except ConfigError:  # tiktoken or its file is not on this machine
        return estimate
