"""A chat model on Google's Gemini API."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic.alias_generators import to_camel

from llm_memory_plugins.errors import ModelError, needs
from llm_memory_plugins.ports import AnswerT
from llm_memory_plugins.providers._wire import PLACEHOLDER, WireModel, retry_after, seconds
from llm_memory_plugins.types import Usage

DEFAULT_MODEL = "gemini-3.5-flash-lite"
"""The newest Flash-Lite among the SDK's model literals (google-genai 3.4). It hardly thinks unless asked to."""

# Reasons to stop that may not come again. All others but STOP and MAX_TOKENS are a filter's verdict on the content.
_MISHAPS = {
    "OTHER",
    "MALFORMED_RESPONSE",
    "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "CONTINUATION",
}


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class _Part(_Wire):
    text: str | None = None
    thought: bool | None = None


class _Content(_Wire):
    parts: list[_Part] | None = None


class _Candidate(_Wire):
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(_Wire):
    block_reason: str | None = None


class _Usage(_Wire):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class _Generated(_Wire):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None


class _Detail(_Wire):
    reason: str = ""  # of a google.rpc.ErrorInfo
    retry_delay: str = ""  # of a google.rpc.RetryInfo, as in `17s`


class _Error(_Wire):
    details: list[_Detail] = []


class _Failed(_Wire):
    error: _Error = _Error()


class GeminiChatModel(WireModel):
    """A `ChatModel` on google-genai's async client, with an API key: never Vertex AI, whatever the environment says.

    The SDK makes no retries: the callers in this package try again later, and nobody waits for them.

    Args:
        api_key: The key. It is in no attribute, log or error of this object.
        model: The model's name; `gemini-3.5-flash-lite` when None.
        base_url: Another address of the API, without the version. When None, what the SDK takes:
            `GOOGLE_GEMINI_BASE_URL`, else Google.
        timeout: Seconds for a whole call, however slowly its answer drips in.

    Raises:
        MissingExtra: When the SDK is not installed.
        ConfigError: When the key cannot be one.
    """

    def __init__(
        self, *, api_key: SecretStr, model: str | None = None, base_url: str | None = None, timeout: float = 30.0
    ) -> None:
        with needs("a model of gemini", "gemini"):
            from google import genai
            from google.genai import types
        super().__init__(
            "gemini",
            model or DEFAULT_MODEL,
            api_key=api_key,
            key_name="google_api_key",
            header="x-goog-api-key",
            scheme="",
            timeout=timeout,
        )
        self._client = genai.Client(
            vertexai=False,
            api_key=PLACEHOLDER,
            # No `timeout` here: the SDK would tell the server too, which refuses deadlines below ten seconds.
            http_options=types.HttpOptions(base_url=base_url, httpx_async_client=self._http),
        )

    async def close(self) -> None:
        """Let go of all connections. Calls after this raise `ModelError`."""
        await super().close()
        self._client.close()

    async def ping(self) -> None:
        """Look the model up.

        Raises:
            ModelError: When that fails.
        """
        await self._attempt(self._client.aio.models.get(model=self.model))

    async def generate(
        self, *, instructions: str, content: str, answer: type[AnswerT], max_output_tokens: int
    ) -> tuple[AnswerT, Usage]:
        """Ask once and return the parsed answer and what it cost.

        Raises:
            ModelError: On any failure; `retryable` and `retry_after` say whether and when to try again.
        """
        from google.genai import types

        # What comes back is taken raw and read here: the SDK's `parsed` is None for every kind of misfit, an unknown
        # finish reason is a warning, and a tool loop or a continuation would be further calls.
        response = await self._attempt(
            self._client.aio.models.generate_content(  # pyright: ignore[reportUnknownMemberType] # names optional types
                model=self.model,
                contents=content,
                config=types.GenerateContentConfig(
                    system_instruction=instructions,
                    response_mime_type="application/json",
                    response_json_schema=answer.model_json_schema(),
                    max_output_tokens=max_output_tokens,
                    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
                    should_return_http_response=True,
                ),
            )
        )
        raw = response.sdk_http_response
        generated = self._read((raw and raw.body) or "", _Generated)
        if generated.prompt_feedback and generated.prompt_feedback.block_reason:
            raise self._refused(generated.prompt_feedback.block_reason)
        if not generated.candidates:
            raise self._empty()
        candidate = generated.candidates[0]
        match candidate.finish_reason:
            case "STOP" | "FINISH_REASON_UNSPECIFIED" | None:
                pass
            case "MAX_TOKENS":
                raise self._truncated(max_output_tokens)
            case mishap if mishap in _MISHAPS:
                raise self._failure(f"stopped early ({mishap})", retryable=True)
            case verdict:
                raise self._refused(verdict)
        parts = (candidate.content and candidate.content.parts) or []
        text = "".join(part.text or "" for part in parts if not part.thought)
        if not text:
            raise self._empty()
        used = generated.usage_metadata or _Usage()
        usage = Usage(
            input_tokens=used.prompt_token_count or 0,
            output_tokens=(used.candidates_token_count or 0) + (used.thoughts_token_count or 0),
            calls=1,
        )
        return self._read(text, answer), usage

    def _sdk_errors(self) -> tuple[type[Exception], ...]:
        import anyio
        import httpx2
        from google.genai.errors import APIError

        # Beside its own errors the SDK passes on: the HTTP client's, of which EndOfStream and OSError (ssl.SSLError)
        # are failures of TLS that it lets through, and ValueError for a body that is no text or no JSON.
        return (APIError, httpx2.HTTPError, anyio.EndOfStream, OSError, ValueError)

    def _translate(self, error: Exception) -> ModelError:
        from google.genai.errors import APIError

        if isinstance(error, ValueError):
            return self._failure("answered malformed JSON", retryable=True)
        if not isinstance(error, APIError):
            return self._unreachable()
        try:
            details = _Failed.model_validate(getattr(error, "details", None)).error.details
        except ValidationError:
            details = []
        reason = next((detail.reason for detail in details if detail.reason), error.status)
        delay = next((seconds(detail.retry_delay.removesuffix("s")) for detail in details if detail.retry_delay), None)
        headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
        return self._bad_status(error.code, code=reason, retry_after=retry_after(headers) if delay is None else delay)
