"""Embedders made elsewhere: LangChain's `Embeddings` and LlamaIndex's `BaseEmbedding`, known by their verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from anyio import to_thread

from llm_memory_plugins.errors import ConfigError, ModelError
from llm_memory_plugins.ports import Embedder, EmbeddingKind
from llm_memory_plugins.providers._wire import retry_after
from llm_memory_plugins.providers.embedders.base import BaseEmbedder
from llm_memory_plugins.types import Usage

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_NAMES = ("model_name", "model", "model_id", "deployment")
_TEMPORARY = {408, 409, 425, 429}


def adopt(
    given: object, *, name: str | None = None, dimensions: int | None = None, max_tokens: int | None = None
) -> Embedder:
    """An `Embedder` on an object of LangChain's or LlamaIndex's; one that is an `Embedder` already comes back as it is.

    Args:
        given: Anything with `embed_documents` and `embed_query`, or with `get_text_embedding_batch` and
            `get_query_embedding`.
        name: Stands in the identity for provider and model. When None, the framework, the class and the model's name,
            as in `langchain/OpenAIEmbeddings/text-embedding-3-small`. Give one where equal names mean different models.
        dimensions: Length of its vectors; when None, the first answer tells.
        max_tokens: Its window, when it is known.

    Raises:
        ConfigError: When the object is none of these.
    """
    if callable(getattr(given, "embed", None)) and hasattr(given, "max_tokens"):
        return cast("Embedder", given)
    if _has(given, "embed_documents", "embed_query"):
        kind, framework = LangChainEmbedder, "langchain"
    elif _has(given, "get_text_embedding_batch", "get_query_embedding"):
        kind, framework = LlamaIndexEmbedder, "llamaindex"
    else:
        raise ConfigError(
            f"embedder: {type(given).__name__} is no Embeddings of LangChain's (embed_documents, embed_query), "
            "no BaseEmbedding of LlamaIndex's (get_text_embedding_batch, get_query_embedding) and no Embedder"
        )
    return kind(given, name or _name(given, framework), dimensions=dimensions, max_tokens=max_tokens)


class _Handed(BaseEmbedder):
    """An `Embedder` on a foreign object, whose errors may be anything. Its deadline and its retries are its own."""

    def __init__(self, given: object, name: str, *, dimensions: int | None, max_tokens: int | None) -> None:
        super().__init__(name, dimensions=dimensions, max_tokens=max_tokens)
        self._given: Any = given

    async def _ask(self, texts: list[str], kind: EmbeddingKind) -> tuple[ArrayLike, Usage]:
        try:
            # Queries go one by one, as both frameworks have no more for them.
            rows = await self._documents(texts) if kind == "document" else [await self._query(text) for text in texts]
        except Exception as error:  # noqa: BLE001 - a foreign object may raise anything, and its text may quote a key
            failure = self._translated(error)
        else:
            return rows, Usage(calls=1 if kind == "document" else len(texts))
        raise failure

    def _translated(self, error: Exception) -> ModelError:
        """By the HTTP status that SDKs' errors carry; without one, all but plain mistakes are worth another try."""
        status = getattr(error, "status_code", None) or getattr(error, "code", None)
        said, retryable = type(error).__name__, not isinstance(error, TypeError | ValueError | AttributeError)
        if isinstance(status, int):
            said, retryable = f"{said}, HTTP {status}", status in _TEMPORARY or status >= 500
        headers: object = getattr(getattr(error, "response", None), "headers", None)
        wait = retry_after(cast("Mapping[str, str]", headers)) if isinstance(headers, Mapping) else None
        return self._failure(f"failed ({said})", retryable=retryable, retry_after=wait)

    async def _documents(self, texts: list[str]) -> Sequence[Sequence[float]]:
        raise NotImplementedError

    async def _query(self, text: str) -> Sequence[float]:
        raise NotImplementedError


class LangChainEmbedder(_Handed):
    """On LangChain's `Embeddings`: its async verbs, which by themselves run the sync ones in a thread."""

    async def _documents(self, texts: list[str]) -> Sequence[Sequence[float]]:
        if _has(self._given, "aembed_documents"):
            return await self._given.aembed_documents(texts)
        return await _in_thread(self._given.embed_documents, texts)

    async def _query(self, text: str) -> Sequence[float]:
        if _has(self._given, "aembed_query"):
            return await self._given.aembed_query(text)
        return await _in_thread(self._given.embed_query, text)


class LlamaIndexEmbedder(_Handed):
    """On LlamaIndex's `BaseEmbedding`: its sync verbs, in a thread, as its async ones run local models on the loop."""

    async def _documents(self, texts: list[str]) -> Sequence[Sequence[float]]:
        return await _in_thread(self._given.get_text_embedding_batch, texts)

    async def _query(self, text: str) -> Sequence[float]:
        return await _in_thread(self._given.get_query_embedding, text)


async def _in_thread(verb: Callable[[Any], Any], given: object) -> Any:
    # Whoever gives up waiting is not held; the thread ends by itself.
    return await to_thread.run_sync(verb, given, abandon_on_cancel=True)


def _has(given: object, *verbs: str) -> bool:
    return all(callable(getattr(given, verb, None)) for verb in verbs)


def _name(given: object, framework: str) -> str:
    names = (getattr(given, name, None) for name in _NAMES)
    model = next((name for name in names if isinstance(name, str) and name), None)
    return "/".join(part for part in (framework, type(given).__name__, model) if part)
