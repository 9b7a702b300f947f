"""The embedder that needs no key, no network and no download: wordllama's bundled word vectors.

WordLlama (github.com/dleemiller/WordLlama, MIT) averages static token vectors that were distilled from Llama 2 and
trained on sentence pairs. Its package carries 256 dimensions of them. Its files are read here directly rather than
through its own code: importing that configures the application's root logger and takes a second, and it pads a batch
to its longest text, which is gigabytes for a long one. The vectors are the same.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from anyio import to_thread

from llm_memory_plugins.errors import ConfigError, MissingExtra
from llm_memory_plugins.ports import EmbeddingKind
from llm_memory_plugins.providers.embedders.base import INSTALL, BaseEmbedder
from llm_memory_plugins.types import Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

DIMENSIONS = 256
_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
_LONG = 4096
"""Tokens from which on equal ones are added up first, so that the work area is never larger than the table."""

_loading = Lock()


class OfflineEmbedder(BaseEmbedder):
    """An `Embedder` on word vectors inside a package; the same text always gives the same vector, in any batch.

    Works in a worker thread. The table is read once a process, by `open` or the first call, and takes 65 MB with its
    tokenizer. There is no window: a long text is the average of its words, in which single ones drown.

    Raises:
        MissingExtra: When wordllama or numpy is not installed.
        ConfigError: When the wordllama that is installed does not carry these vectors.
    """

    def __init__(self) -> None:
        super().__init__("wordllama/l2_supercat", dimensions=DIMENSIONS)
        folder = _folder()
        for name in (_WEIGHTS, _TOKENIZER):
            if not (folder / name).is_file():
                raise ConfigError(f"the wordllama that is installed has no file {name}; {INSTALL}")

    async def open(self) -> None:
        """Read the table, unless this process has it."""
        await to_thread.run_sync(_load)

    async def _ask(self, texts: list[str], kind: EmbeddingKind) -> tuple[NDArray[np.float32], Usage]:
        return await to_thread.run_sync(_embed, texts), Usage()


def _folder() -> Path:
    found = find_spec("wordllama")  # which does not import it
    if found is None or found.origin is None:
        raise MissingExtra(f"the offline embedder needs wordllama: {INSTALL}")
    return Path(found.origin).parent


def _load() -> tuple[Tokenizer, NDArray[np.float32]]:
    with _loading:  # so that threads that come together read it once
        return _read()


@cache
def _read() -> tuple[Tokenizer, NDArray[np.float32]]:
    """The tokenizer and the table, shape (32,000 tokens, 256)."""
    import numpy as np
    from safetensors.numpy import load_file  # pyright: ignore[reportUnknownVariableType] # names a bare PathLike
    from tokenizers import Tokenizer

    table = load_file(_folder() / _WEIGHTS)["embedding.weight"].astype(np.float32)
    tokenizer = Tokenizer.from_file(str(_folder() / _TOKENIZER))
    # It would remember the last 10,000 texts, 100 MB, and be no faster for it.
    if forget := getattr(tokenizer.model, "_resize_cache", None):
        forget(0)
    return tokenizer, table


def _embed(texts: list[str]) -> NDArray[np.float32]:
    """The mean of the vectors of each text's tokens, shape (number of texts, 256)."""
    import numpy as np

    tokenizer, table = _load()
    rows = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    for row, encoded in zip(rows, tokenizer.encode_batch_fast(texts, add_special_tokens=False), strict=True):
        ids = np.minimum(np.asarray(encoded.ids, dtype=np.int64), len(table) - 1)
        if len(ids) < _LONG:
            row[:] = table[ids].mean(axis=0)
        else:
            distinct, counts = np.unique(ids, return_counts=True)
            row[:] = counts.astype(np.float32) @ table[distinct] / len(ids)
    return rows
