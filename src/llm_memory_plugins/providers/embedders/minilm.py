"""MiniLM through sentence-transformers, where both the package and the weights are already on this machine."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, cast

from anyio import to_thread

from llm_memory_plugins.errors import ConfigError, MissingExtra
from llm_memory_plugins.ports import EmbeddingKind
from llm_memory_plugins.providers.embedders.base import BaseEmbedder
from llm_memory_plugins.types import Usage

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MODEL = "all-MiniLM-L6-v2"
_REPOSITORY = f"sentence-transformers/{MODEL}"
_DIMENSIONS = 384
_WINDOW = 256


class _Model(Protocol):
    """The part of `SentenceTransformer` that is used here."""

    def encode(self, sentences: list[str], *, batch_size: int, show_progress_bar: bool) -> ArrayLike: ...


class MiniLMEmbedder(BaseEmbedder):
    """An `Embedder` on `all-MiniLM-L6-v2`, 384 dimensions, in a worker thread. Nothing is ever downloaded.

    The model reads 256 of its own tokens and would cut off the rest; a text that is estimated to have more, at four
    bytes each, is refused.

    Args:
        folder: Where the weights are; when None, Hugging Face's cache.

    Raises:
        MissingExtra: When sentence-transformers or numpy is not installed.
    """

    def __init__(self, *, folder: str | None = None) -> None:
        super().__init__(_REPOSITORY, dimensions=_DIMENSIONS, max_tokens=_WINDOW)
        if find_spec("sentence_transformers") is None:
            raise MissingExtra(f"embedding_model={MODEL!r} needs a package: pip install sentence-transformers")
        self._source = folder or _REPOSITORY
        self._model: _Model | None = None
        self._loading = Lock()

    async def open(self) -> None:
        """Load the weights.

        Raises:
            ConfigError: When they are not on this machine.
        """
        await to_thread.run_sync(self._load)

    async def _ask(self, texts: list[str], kind: EmbeddingKind) -> tuple[ArrayLike, Usage]:
        try:
            return await to_thread.run_sync(self._encode, texts, abandon_on_cancel=True), Usage()
        except RuntimeError as error:  # torch's, such as out of memory
            failure = self._failure(f"failed ({type(error).__name__})", retryable=True)
        raise failure

    def _encode(self, texts: list[str]) -> ArrayLike:
        return self._load().encode(texts, batch_size=32, show_progress_bar=False)

    def _load(self) -> _Model:
        with self._loading:
            if self._model is None:
                package: Any = import_module("sentence_transformers")
                try:
                    self._model = cast("_Model", package.SentenceTransformer(self._source, local_files_only=True))
                except (OSError, ValueError) as error:  # what Hugging Face's loaders raise for files that are missing
                    raise ConfigError(
                        f"the weights of {MODEL} are not on this machine and nothing is downloaded at run time; "
                        f"fetch them once with: hf download {_REPOSITORY}"
                    ) from error
            return self._model
