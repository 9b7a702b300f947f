"""Counting tokens: tiktoken where its files are already on this machine, else four characters a token.

Nothing is downloaded. tiktoken fetches an encoding it has no file for, so a file is looked for first: in tiktoken's
own cache, then in the one llama-index-core ships (found without importing it).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

from llm_memory_plugins.errors import ConfigError, MissingExtra
from llm_memory_plugins.ports import TokenCounter

if TYPE_CHECKING:
    from tiktoken import Encoding

TokenizerName = Literal["auto", "estimate", "cl100k_base", "o200k_base"]

# tiktoken names a cached file by the SHA-1 of the address it came from.
_CACHED_AS = {
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
}
# tiktoken's own check sums. It would remove a damaged file and fetch it again, so that is looked for first.
_SHA256 = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
_environment = Lock()


class EstimatingCounter:
    """Four characters a token, rounded up: OpenAI's rule of thumb for English text."""

    name = "estimate"

    def count(self, text: str) -> int:
        """Tokens of `text`, estimated."""
        return -(-len(text) // 4)


class TiktokenCounter:
    """Counts with one of tiktoken's encodings; special tokens in the text are ordinary text."""

    def __init__(self, encoding: Encoding) -> None:
        self.name = encoding.name
        self._encode = encoding.encode_ordinary

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        return len(self._encode(text))


def _cache_folders() -> Iterator[Path]:
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if folder := os.environ.get(variable):
            yield Path(folder)
    yield Path(tempfile.gettempdir()) / "data-gym-cache"
    package = find_spec("llama_index")
    for place in (package.submodule_search_locations or ()) if package else ():
        yield Path(place) / "core" / "_static" / "tiktoken_cache"


def _is_whole(file: Path, name: str) -> bool:
    return file.is_file() and sha256(file.read_bytes()).hexdigest() == _SHA256[name]


@cache
def _tiktoken(name: str) -> TiktokenCounter | None:
    """The counter, or None when tiktoken or its file for this encoding is not on this machine."""
    folder = next((folder for folder in _cache_folders() if _is_whole(folder / _CACHED_AS[name], name)), None)
    if folder is None or find_spec("tiktoken") is None:
        return None
    import tiktoken

    with _environment:  # tiktoken takes its folder from the environment alone
        before = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
        try:
            return TiktokenCounter(tiktoken.get_encoding(name))
        finally:
            if before is None:
                del os.environ["TIKTOKEN_CACHE_DIR"]
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before


def counter(name: TokenizerName = "auto") -> TokenCounter:
    """The counter of that name; `auto` is o200k_base when it is at hand, else the estimate.

    Raises:
        MissingExtra: When an encoding is named and tiktoken is not installed.
        ConfigError: When an encoding is named and its file is not on this machine.
    """
    if name == "estimate":
        return EstimatingCounter()
    found = _tiktoken("o200k_base" if name == "auto" else name)
    if found is not None:
        return found
    if name == "auto":
        return EstimatingCounter()
    if find_spec("tiktoken") is None:
        raise MissingExtra(f"tokenizer={name!r} needs tiktoken: pip install tiktoken")
    raise ConfigError(
        f"tokenizer={name!r}: its file is not on this machine (or damaged) and nothing is downloaded at run time; "
        "set TIKTOKEN_CACHE_DIR to a folder that has it, or install llama-index-core, which carries it"
    )
