"""What the chat models behind HTTP share: one client that alone knows the key, one deadline, one way to fail."""

from __future__ import annotations

import asyncio
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from llm_memory_plugins.errors import ConfigError, ModelError, needs

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
ShapeT = TypeVar("ShapeT", bound=BaseModel)

PLACEHOLDER = "set-when-sent"
"""What the SDKs are told the key is; the real one is put into a request as it leaves, and nowhere else."""

# Providers' error codes are words like `invalid_api_key` or `INVALID_ARGUMENT`. Only such a word is passed on: the
# text beside it may quote the prompt or a part of the key.
_CODE = re.compile(r"[A-Za-z][A-Za-z_]{1,49}")


class WireModel(ABC):
    """The base of the chat models that are reached over HTTP.

    The SDKs keep a key in plain attributes and headers of their clients, where `vars()`, a debugger or a crash
    reporter finds it. So they are given an HTTP client that signs each request as it is sent, out of a `SecretStr`.
    It follows no redirects, which would carry the key to another host, and it is the same in every environment
    (google-genai would use aiohttp where that is installed, with retries of its own).

    Errors are raised outside the `except` that caught their reason, so that they have neither `__cause__` nor
    `__context__`: an SDK's error holds the request and quotes the server.
    """

    def __init__(
        self, provider: str, model: str, *, api_key: SecretStr, key_name: str, header: str, scheme: str, timeout: float
    ) -> None:
        with needs(f"a model of {provider}", provider):
            import httpx2
        key = api_key.get_secret_value().strip()
        # A line break within a key would put it, quoted, into the HTTP library's errors and debug log.
        if not (key and key.isascii() and key.isprintable()):
            raise ConfigError(f"{key_name} is empty or holds characters that no key has")
        signature = SecretStr(scheme + key)

        def sign(request: httpx2.Request) -> httpx2.Request:
            request.headers[header] = signature.get_secret_value()
            return request

        self.identity = f"{provider}/{model}"
        self.model = model
        self._key_name = key_name
        self._timeout = timeout
        # The one deadline stands in `_attempt`: an HTTP client's time-outs begin anew with every byte.
        self._http = httpx2.AsyncClient(auth=sign, timeout=None, follow_redirects=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.identity!r})"

    async def open(self) -> None:  # noqa: B027
        """Nothing to do: the first call connects."""

    async def close(self) -> None:
        """Let go of all connections. Calls after this raise `ModelError`."""
        await self._http.aclose()

    @abstractmethod
    def _sdk_errors(self) -> tuple[type[Exception], ...]:
        """The classes of what the SDK lets out of a call that failed."""

    @abstractmethod
    def _translate(self, error: Exception) -> ModelError:
        """The `ModelError` for one of these."""

    async def _attempt(self, call: Awaitable[T]) -> T:
        """Await one call of the SDK under the deadline; `ModelError` for whatever goes wrong."""
        try:
            async with asyncio.timeout(self._timeout):
                return await call
        except TimeoutError:
            failure = self._failure(f"did not answer within {self._timeout:g} s", retryable=True)
        except self._sdk_errors() as error:
            failure = self._translate(error)
        except RuntimeError:  # the HTTP client raises it once it is closed
            if not self._http.is_closed:
                raise
            failure = self._failure("is closed", retryable=False)
        raise failure

    def _read(self, body: str | bytes, shape: type[ShapeT]) -> ShapeT:
        """`body` as a `shape`: the provider's envelope, and then the JSON that the model wrote in it.

        A body that does not fit is worth another try, as models are not deterministic.
        """
        try:
            return shape.model_validate_json(body)
        except ValidationError as error:
            # The kinds of the problems alone, as their texts and places quote the answer.
            kinds = sorted({problem["type"] for problem in error.errors(include_url=False, include_input=False)})
        if kinds == ["json_invalid"]:
            raise self._failure("answered malformed JSON", retryable=True)
        raise self._failure(f"answered JSON that does not fit the schema ({', '.join(kinds)})", retryable=True)

    def _failure(self, problem: str, *, retryable: bool, retry_after: float | None = None) -> ModelError:
        return ModelError(f"{self.identity} {problem}", retryable=retryable, retry_after=retry_after)

    def _refused(self, reason: str) -> ModelError:
        """The model or a filter declined to answer. It will decline the same content again."""
        return self._failure(f"refused to answer ({_word(reason) or 'no reason given'})", retryable=False)

    def _truncated(self, max_output_tokens: int) -> ModelError:
        """The answer was cut at the limit: often a runaway, so another try may fit."""
        return self._failure(f"was cut off at {max_output_tokens} output tokens", retryable=True)

    def _empty(self) -> ModelError:
        return self._failure("gave an empty answer", retryable=True)

    def _unreachable(self) -> ModelError:
        return self._failure("cannot be reached, or the connection broke", retryable=True)

    def _bad_status(self, status: int, *, code: str | None, retry_after: float | None) -> ModelError:
        """The server answered with an HTTP status other than success; `code` is its own word for what is wrong."""
        code = _word(code or "")
        said = f"HTTP {status}, {code}" if code else f"HTTP {status}"
        if status in {401, 403} or code == "API_KEY_INVALID":  # Gemini sends the latter with status 400
            return self._failure(f"refused the key ({said}); check {self._key_name}", retryable=False)
        if status == 404:
            fix = "set summarization_model to a model that the server has, or check the base URL"
            return self._failure(f"was not found ({said}): {fix}", retryable=False)
        if code == "insufficient_quota":  # OpenAI sends it with status 429, and waiting does not help
            return self._failure(f"has no quota left on this account ({said})", retryable=False)
        if status in {408, 409, 429} or status >= 500:
            return self._failure(f"failed ({said})", retryable=True, retry_after=retry_after)
        return self._failure(f"did not accept the request ({said})", retryable=False)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that `retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110 section 10.2.3) ask to wait."""
    milliseconds = seconds(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    said = headers.get("retry-after", "")
    wait = seconds(said)
    if wait is not None:
        return wait
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    # A date without a zone is in UTC, as RFC 5322 has it.
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def seconds(text: str) -> float | None:
    """`text` as a number of seconds that one can wait, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _word(text: str) -> str:
    return text if _CODE.fullmatch(text) else ""
