"""Between a value and what stores keep of it: serialised, then compressed, then encrypted.

How is told by the encoding that is kept beside it: `json` or `bytes`, then `+zstd`, then `+aes.<id of the key>`. What
is plain JSON stays readable text; all else is text by base64, so that every store and API carries it alike.
"""

from __future__ import annotations

import json
import os
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from llm_memory_plugins.errors import ConfigError, LLMMemoryError, StoreUnavailable, needs
from llm_memory_plugins.key_values import SealedValue, Space
from llm_memory_plugins.values import BYTES, as_text, from_text, serialise

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_BASE64 = 3 / 4  # what base64 makes of anything is a third longer; plain JSON is kept without it
_KEY_BYTES, _NONCE_BYTES = 32, 12
_WINDOW_LOG = 24  # what decompression may take at once, 2^24 bytes: more than the frames made here ask for


class Sealer:
    """Makes values into what stores keep, and back.

    Args:
        as_json: Whether values are JSON; otherwise they are bytes.
        max_bytes: Size limit of a value, serialised; of what is decompressed, too.
        compress_above: Bytes from which on a value is compressed, if that makes it smaller. None: never.
        encryption_keys: 32 bytes each, as base64. The first one encrypts, all of them decrypt.

    Raises:
        ConfigError: When a key is malformed, or there twice.
        MissingExtra: When a package is not installed.
    """

    def __init__(
        self,
        *,
        as_json: bool = True,
        max_bytes: int = 1_048_576,
        compress_above: int | None = None,
        encryption_keys: Sequence[SecretStr] = (),
    ) -> None:
        self._as_json = as_json
        self._max_bytes = max_bytes
        self._compress_above = compress_above
        if compress_above is not None:
            with needs("compression_threshold", "compression"):
                _zstd()
        self._ciphers = _ciphers(encryption_keys)
        self._encrypts_with = next(iter(self._ciphers), None)

    @property
    def encrypts(self) -> bool:
        """Whether what is written is encrypted."""
        return self._encrypts_with is not None

    def seal(self, space: Space, key: str, value: Any) -> tuple[str, str]:
        """What a store keeps of a value: its encoding and its body.

        Raises:
            InvalidInput: Names the key, or the place in its value.
        """
        encoding, data = serialise(key, value, as_json=self._as_json, max_bytes=self._max_bytes)
        kind, plain = encoding, data
        if self._compress_above is not None and len(data) >= self._compress_above:
            compressed = _zstd().compress(data)
            if len(compressed) < len(data) * (1 if self.encrypts or kind == BYTES else _BASE64):
                encoding, data = f"{encoding}+zstd", compressed
        if self._encrypts_with is not None:
            encoding = f"{encoding}+aes.{self._encrypts_with}"
            nonce = os.urandom(_NONCE_BYTES)
            data = nonce + self._ciphers[self._encrypts_with].encrypt(nonce, data, _bound(space, key, encoding))
        if data is plain:
            return kind, as_text(kind, data)
        return encoding, b64encode(data).decode()

    def open(self, space: Space, held: SealedValue) -> Any:
        """The value of an entry.

        Raises:
            ConfigError: When it was encrypted with a key that is not among the encryption keys.
            StoreUnavailable: When what is kept is not what was written for this key.
            MissingExtra: When it was compressed, and the package for that is not installed.
        """
        kind, *steps = held.encoding.split("+")
        try:
            if not steps:
                return from_text(kind, held.body)
            data = b64decode(held.body, validate=True)
            for step in reversed(steps):
                if step == "zstd":
                    data = self._decompressed(held.key, data)
                else:
                    data = self._decrypted(space, held, step.removeprefix("aes."), data)
            return data if kind == BYTES else from_text(kind, data.decode())
        except LLMMemoryError:  # some of which are ValueErrors
            raise
        except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError):
            raise StoreUnavailable(
                f"key {held.key!r}: what is stored there cannot be read; write or delete it"
            ) from None

    def _decrypted(self, space: Space, held: SealedValue, which: str, data: bytes) -> bytes:
        cipher = self._ciphers.get(which)
        if cipher is None:
            raise ConfigError(f"encryption_keys: the one that key {held.key!r} was encrypted with is not among them")
        from cryptography.exceptions import InvalidTag

        try:
            return cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound(space, held.key, held.encoding))
        except InvalidTag:
            raise StoreUnavailable(
                f"key {held.key!r}: what is stored there was not encrypted for it; write or delete it"
            ) from None

    def _decompressed(self, key: str, data: bytes) -> bytes:
        with needs(f"the compressed value of key {key!r}", "compression"):
            zstd = _zstd()
        unpacking = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
        try:
            opened = unpacking.decompress(data, max_length=self._max_bytes + 1)
        except zstd.ZstdError:
            raise ValueError("no zstd") from None
        if len(opened) > self._max_bytes:
            raise StoreUnavailable(f"key {key!r}: what is stored there unpacks to more than max_value_bytes")
        if not unpacking.eof:
            raise ValueError("truncated")
        return opened


def _bound(space: Space, key: str, encoding: str) -> bytes:
    """What a ciphertext belongs to: at another place it does not decrypt."""
    return json.dumps((*space, key, encoding)).encode()


def _ciphers(keys: Sequence[SecretStr]) -> Mapping[str, AESGCM]:
    """The ciphers by the ids of their keys, in their order."""
    if not keys:
        return {}
    with needs("encryption_keys", "encryption"):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    ciphers: dict[str, AESGCM] = {}
    for key in keys:
        try:
            text = key.get_secret_value().strip().replace("-", "+").replace("_", "/")
            secret = b64decode(text, validate=True)
        except ValueError:
            secret = b""
        if len(secret) != _KEY_BYTES:
            raise ConfigError("encryption_keys: each is 32 random bytes as base64: openssl rand -base64 32")
        ciphers[blake2b(secret, digest_size=4, person=b"llm-memory-key").hexdigest()] = AESGCM(secret)
    if len(ciphers) != len(keys):
        raise ConfigError("encryption_keys: one of them is there twice")
    return ciphers


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
