"""An embedder on Google's Gemini API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr

from llm_memory_plugins.errors import ConfigError, ModelError
from llm_memory_plugins.ports import EmbeddingKind
from llm_memory_plugins.providers.embedders._wire import EmbeddingEndpoint, WireEmbedder
from llm_memory_plugins.providers.gemini import GeminiChatModel
from llm_memory_plugins.types import Usage

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

DEFAULT_MODEL = "gemini-embedding-001"
_OWN_DIMENSIONS = 3072
_WINDOWS = {"gemini-embedding-001": 2048, "gemini-embedding-2": 8192}
_BATCH_TEXTS = 100
_BATCH_BYTES = 1_000_000

_TASKS = {"document": "RETRIEVAL_DOCUMENT", "query": "RETRIEVAL_QUERY"}
# The models after the first ignore task types; they are told within the text (ai.google.dev, "Embeddings").
_PREFIXES = {"document": "title: none | text: ", "query": "task: search result | query: "}


class _Endpoint(EmbeddingEndpoint, GeminiChatModel):
    """The connection of the chat model, asked another question."""

    async def ping(self) -> None:
        await GeminiChatModel.ping(self)

    async def request(self, texts: list[str], kind: EmbeddingKind, dimensions: int | None) -> tuple[ArrayLike, Usage]:
        from google.genai import types

        by_task = self.model == DEFAULT_MODEL
        prefix = "" if by_task else _PREFIXES[kind]
        config = types.EmbedContentConfig(task_type=_TASKS[kind] if by_task else None, output_dimensionality=dimensions)
        # A content of its own for each text: the newer models make one vector of all strings in a list.
        contents: types.ContentListUnion = [types.Content(parts=[types.Part(text=prefix + text)]) for text in texts]
        answer = await self._attempt(
            self._client.aio.models.embed_content(  # pyright: ignore[reportUnknownMemberType] # names optional types
                model=self.model, contents=contents, config=config
            )
        )
        used = (answer.usage_metadata and answer.usage_metadata.prompt_token_count) or 0
        return [row.values or [] for row in answer.embeddings or []], Usage(input_tokens=used, calls=1)

    def _sdk_errors(self) -> tuple[type[Exception], ...]:
        # There is no raw answer for embeddings: the SDK reads whatever JSON came, and stumbles over what is no object.
        return (*super()._sdk_errors(), AttributeError, LookupError, TypeError)

    def _translate(self, error: Exception) -> ModelError:
        if isinstance(error, AttributeError | LookupError | TypeError):
            return self._failure("answered malformed JSON", retryable=True)
        return super()._translate(error)


class GeminiEmbedder(WireEmbedder):
    """An `Embedder` on google-genai's async client, with an API key, without retries: the callers try again later.

    Texts go in requests of at most 100, several at a time. The API cuts off what is longer than its window and does
    not say so, so that is refused here, by an estimate of four bytes a token.

    Args:
        api_key: The key. It is in no attribute, log or error of this object.
        model: The model's name, with or without `models/`; `gemini-embedding-001` when None.
        dimensions: Shorter vectors than the model's own 3,072: Google recommends 768 or 1,536.
        base_url: Another address of the API, without the version. When None, what the SDK takes:
            `GOOGLE_GEMINI_BASE_URL`, else Google.
        timeout: Seconds for each request, however slowly its answer drips in.
        concurrency: Requests under way at a time.

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
    ) -> None:
        if dimensions is not None and dimensions < 1:
            raise ConfigError("dimensions: must be positive")
        model = (model or DEFAULT_MODEL).removeprefix("models/")
        super().__init__(
            _Endpoint(api_key=api_key, model=model, base_url=base_url, timeout=timeout),
            asked=dimensions,
            dimensions=dimensions or (_OWN_DIMENSIONS if model in _WINDOWS else None),
            max_tokens=_WINDOWS.get(model),
            batch_texts=_BATCH_TEXTS,
            batch_bytes=_BATCH_BYTES,
            concurrency=concurrency,
        )
