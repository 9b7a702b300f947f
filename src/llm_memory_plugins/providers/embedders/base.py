"""What every embedder does the same way: refuse what has no vector, ask in batches, believe no answer unchecked."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llm_memory_plugins.errors import InvalidInput, MissingExtra, ModelError
from llm_memory_plugins.ports import EmbeddingKind
from llm_memory_plugins.providers.embedders._batches import all_or_none, batches_of
from llm_memory_plugins.types import Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

INSTALL = "pip install llm-memory-plugins"
_ZERO = 1e-12
"""A vector shorter than this has no direction."""


def estimate(text: str) -> int:
    """Tokens of `text` where no tokenizer is at hand: four bytes of UTF-8 each, rounded up."""
    return -(-len(text.encode()) // 4)


class BaseEmbedder(ABC):
    """The base of the embedders: a subclass says how one batch is asked for.

    Args:
        name: Provider and model, as in `openai/text-embedding-3-small`.
        dimensions: Length of the vectors; None to learn it from the first answer.
        max_tokens: Window of the model; None when it has no limit, or none that is known.
        batch_texts: Texts in one batch at most.
        batch_bytes: UTF-8 bytes of the texts in one batch at most, but for a text that alone has more.
        concurrency: Batches under way at a time, over all calls.
        count: Tokens of a text. Asked only for texts of more bytes than `max_tokens`, as no token is shorter than one.

    Raises:
        MissingExtra: When numpy is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        dimensions: int | None,
        max_tokens: int | None = None,
        batch_texts: int = 256,
        batch_bytes: int = 1_000_000,
        concurrency: int = 1,
        count: Callable[[str], int] = estimate,
    ) -> None:
        if find_spec("numpy") is None:
            raise MissingExtra(f"embeddings need numpy: {INSTALL}")
        self.name = name
        self.max_tokens = max_tokens
        self._dimensions = dimensions
        self._batch_texts = batch_texts
        self._batch_bytes = batch_bytes
        self._count = count
        self._turn = asyncio.Semaphore(concurrency)
        self._learning = asyncio.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dimensions={self._dimensions})"

    @property
    def identity(self) -> str:
        """Provider, model and dimensions."""
        return f"{self.name}/{self.dimensions}"

    @property
    def dimensions(self) -> int:
        """Length of each vector."""
        if self._dimensions is None:
            raise self._failure("has not said yet how long its vectors are; open() asks it", retryable=True)
        return self._dimensions

    async def open(self) -> None:
        """Learn the dimensions where nobody stated them, with one short call. Raises `ModelError`."""
        async with self._learning:
            if self._dimensions is None:
                await self.embed(["dimensions"], kind="document")

    async def ping(self) -> None:
        """Embed one word. Raises `ModelError`."""
        await self.embed(["ping"], kind="query")

    async def close(self) -> None:  # noqa: B027
        """Nothing to let go of."""

    def check(self, texts: Sequence[str]) -> None:
        """Raises `InvalidInput` for the first text that cannot be embedded."""
        if isinstance(texts, str):
            raise InvalidInput("texts", "must be a list of texts, not one text")
        for position, text in enumerate(texts):
            if problem := self._problem(text):
                raise InvalidInput(f"texts[{position}]", problem)

    async def embed(self, texts: Sequence[str], *, kind: EmbeddingKind) -> tuple[NDArray[np.float32], Usage]:
        """One unit vector a text, shape (number of texts, `dimensions`); see `Embedder`.

        Raises:
            InvalidInput: When a text is blank, no valid Unicode, or longer than the window.
            ModelError: When any batch failed; the others are given up.
        """
        import numpy as np

        self.check(texts)
        if not texts:
            return np.empty((0, self._dimensions or 0), dtype=np.float32), Usage()
        batches = batches_of(texts, most=self._batch_texts, most_bytes=self._batch_bytes)
        answers = await all_or_none([self._batch(batch, kind) for batch in batches])
        usage = sum((used for _, used in answers), Usage())
        return (answers[0][0] if len(answers) == 1 else np.concatenate([rows for rows, _ in answers])), usage

    @abstractmethod
    async def _ask(self, texts: list[str], kind: EmbeddingKind) -> tuple[ArrayLike, Usage]:
        """Ask the model for one batch. Whatever rows come back are checked by the caller. Raises `ModelError`."""

    async def _batch(self, texts: list[str], kind: EmbeddingKind) -> tuple[NDArray[np.float32], Usage]:
        async with self._turn:
            await asyncio.sleep(0)  # whose turn came by the failure of another batch is cancelled here, before it pays
            rows, usage = await self._ask(texts, kind)
            return self._checked(rows, len(texts)), usage

    def _checked(self, rows: ArrayLike, count: int) -> NDArray[np.float32]:
        """The rows at unit length, shape (count, dimensions). Raises `ModelError` for anything else."""
        import numpy as np

        found = None
        try:
            with np.errstate(over="ignore"):  # too large a number becomes infinite, which is seen below
                found = np.asarray(rows, dtype=np.float32)
        except (ValueError, TypeError):
            pass  # the error quotes the answer; ours is raised below, without it
        if found is None or (found.ndim != 2 and found.size):
            raise self._failure("answered vectors that are no numbers or of several lengths", retryable=True)
        if len(found) != count:
            raise self._failure(f"answered {len(found)} vectors for {count} texts", retryable=True)
        width = found.shape[-1] if found.ndim == 2 else 0
        if not width or width != (self._dimensions or width):
            expected = f", not {self._dimensions}" if self._dimensions else ""
            raise self._failure(f"answered vectors of {width} dimensions{expected}", retryable=False)
        lengths = np.sqrt(np.einsum("ij,ij->i", found, found, dtype=np.float64))
        if not np.isfinite(lengths).all():
            raise self._failure("answered a vector with NaN or infinite numbers", retryable=True)
        if lengths.min() < _ZERO:
            raise self._failure("answered a vector of zeros", retryable=True)
        self._dimensions = width
        return (found / lengths[:, np.newaxis]).astype(np.float32)

    def _problem(self, text: object) -> str | None:
        if not isinstance(text, str):
            return f"must be text, not {type(text).__name__}"
        if not text.strip():
            return "is blank, which has no meaning to embed"
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            return "is no valid Unicode: it holds half of a surrogate pair"
        if self.max_tokens is not None and size > self.max_tokens and self._count(text) > self.max_tokens:
            return f"is longer than the {self.max_tokens} tokens {self.name} reads; split it"
        return None

    def _failure(self, problem: str, *, retryable: bool, retry_after: float | None = None) -> ModelError:
        return ModelError(f"{self.name} {problem}", retryable=retryable, retry_after=retry_after)
