"""A model on loopback that says what a test tells it to: OpenAI's and Gemini's protocol over real HTTP.

The official SDKs run against it as they are, down to the socket, without a network and without a paid key::

    with ModelServer(Reply('{"mood": "fine"}')) as server:
        model = OpenAIChatModel(api_key=SecretStr("any"), base_url=server.openai_url)
        ...
        assert server.requests[0].content == "How are you?"

A `Reply` is neutral; the server puts it into the protocol in which it was asked. It serves OpenAI's
`POST .../chat/completions` and `GET .../models[/<model>]`, and Gemini's `POST .../models/<model>:generateContent` and
`GET .../models/<model>`, under any prefix. Nothing streams. It also embeds, at OpenAI's `POST .../embeddings` and at
Gemini's `:embedContent` and `:batchEmbedContents`: a vector counts the words of its text, each at a place of its own,
so that texts with common words are near each other.
"""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

Vectors = Sequence[Sequence[float]]

INPUT_TOKENS = 11
OUTPUT_TOKENS = 7
"""What each answer reports to have cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it came in. Header names are in lower case; `body` is the parsed JSON, None without one."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def gemini(self) -> bool:
        """True for Gemini's protocol, which has a header of its own for the key."""
        return "x-goog-api-key" in self.headers

    @property
    def instructions(self) -> str:
        """What the model was told to do."""
        if self.gemini:
            return str(self.body["systemInstruction"]["parts"][0]["text"])
        return str(self.body["messages"][0]["content"])

    @property
    def content(self) -> str:
        """What the model was given to work on."""
        if self.gemini:
            return str(self.body["contents"][-1]["parts"][0]["text"])
        return str(self.body["messages"][-1]["content"])

    @property
    def embeds(self) -> bool:
        """True when vectors are asked for."""
        return self.path.partition("?")[0].endswith(("/embeddings", ":embedContent", ":batchEmbedContents"))

    @property
    def texts(self) -> list[str]:
        """What is to be embedded."""
        if not self.gemini:
            return [self.body["input"]] if isinstance(self.body["input"], str) else list(self.body["input"])
        return ["".join(part["text"] for part in each["content"]["parts"]) for each in self._each]

    @property
    def dimensions(self) -> int:
        """How long the vectors are to be; without a word about it, as long as the providers' models make them."""
        if self.gemini:
            return int(self._each[0].get("outputDimensionality", 3072))
        return int(self.body.get("dimensions", 3072 if "large" in self.body["model"] else 1536))

    @property
    def _each(self) -> list[Any]:
        return list(self.body.get("requests", [self.body]))


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server does with one request.

    Attributes:
        content: What the model says, or a function that makes it from the request.
        vectors: What it answers a request for embeddings, or a function that makes it from the request, in place of
            vectors that count words.
        finish: `stop`; `length`, cut off at the limit of tokens; `filter`, cut off by a content filter; `refusal`, the
            model says no; `nothing`, an answer without a choice or candidate.
        status: The HTTP status. Any but 200 sends an error of the protocol instead of an answer.
        headers: Further headers, for example `retry-after`.
        raw: This body instead of one made from the above.
        delay: Seconds of silence before the answer, cut short when the server closes.
        cut: True to break the connection in the middle of the body.
    """

    content: str | Callable[[Request], str] = ""
    finish: Literal["stop", "length", "filter", "refusal", "nothing"] = "stop"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    raw: str | bytes | None = None
    delay: float = 0.0
    cut: bool = False
    vectors: Vectors | Callable[[Request], Vectors] | None = None


class ModelServer:
    """The server: a context manager that listens on a free port of 127.0.0.1, with one thread a connection.

    Attributes:
        answers: The replies to come, each used for one request of whatever kind.
        default: The reply when there are none. When that is None too, questions about models are answered and
            texts embedded, and a question to a chat model fails with status 500.
        requests: All requests so far, in the order in which they arrived.
        arrived: Released once for each request before it is answered: `arrived.acquire()` waits for the next.
    """

    def __init__(self, default: Reply | None = None) -> None:
        self.default = default
        self.answers: deque[Reply] = deque()
        self.requests: list[Request] = []
        self.arrived = threading.Semaphore(0)
        self._listener: _Listener | None = None

    def __enter__(self) -> Self:
        self._listener = _Listener(self)
        threading.Thread(target=self._listener.serve_forever, args=(0.01,), name="model-server", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    @property
    def url(self) -> str:
        """Its address, which is the `base_url` of a Gemini client."""
        if self._listener is None:
            raise RuntimeError("the server runs only inside its with block")
        return f"http://127.0.0.1:{self._listener.server_port}"

    @property
    def openai_url(self) -> str:
        """The `base_url` of an OpenAI client."""
        return f"{self.url}/v1"

    def reply(self, request: Request) -> Reply:
        """Note a request and choose its reply."""
        self.requests.append(request)
        self.arrived.release()
        try:
            return self.answers.popleft()
        except IndexError:
            return self.default or Reply(status=200 if request.method == "GET" or request.embeds else 500)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a burst of connections is part of the tests

    def __init__(self, owner: ModelServer) -> None:
        self.owner = owner
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests, and no news for stderr."""

    def close(self) -> None:
        """Stop, and break what is still connected, so that no thread waits for a client's next request."""
        self.closing.set()
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # which keeps connections, as the real servers do
    server: _Listener  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        request = Request(
            method=self.command,
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=json.loads(sent) if sent else None,
        )
        reply = self.server.owner.reply(request)
        if self.server.closing.wait(reply.delay):
            self.close_connection = True
            return
        body = json.dumps(_made(request, reply)) if reply.raw is None else reply.raw
        body = body.encode() if isinstance(body, str) else body
        self.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if reply.cut else body)
        self.close_connection = self.close_connection or reply.cut

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


def _made(request: Request, reply: Reply) -> dict[str, Any]:
    if reply.status != 200:
        return {"error": {"code": reply.status, "message": "as the test asked for"}}
    if request.method == "GET":
        return _models(request)
    if request.embeds:
        return _embeddings(request, reply)
    text = reply.content if isinstance(reply.content, str) else reply.content(request)
    return _gemini(reply, text) if request.gemini else _openai(reply, text)


def _models(request: Request) -> dict[str, Any]:
    name = request.path.partition("/models")[2].strip("/")
    if request.gemini:
        return {"name": f"models/{name}", "displayName": name}
    card = {"id": name or "any", "object": "model", "created": 0, "owned_by": "test"}
    return card if name else {"object": "list", "data": [card]}


def _openai(reply: Reply, text: str) -> dict[str, Any]:
    refused = reply.finish == "refusal"
    message = {"role": "assistant", "content": None if refused else text, "refusal": "I cannot." if refused else None}
    reason = {"length": "length", "filter": "content_filter"}.get(reply.finish, "stop")
    choices = [] if reply.finish == "nothing" else [{"index": 0, "finish_reason": reason, "message": message}]
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "any", "choices": choices, "usage": usage}


def _gemini(reply: Reply, text: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "usageMetadata": {"promptTokenCount": INPUT_TOKENS, "candidatesTokenCount": OUTPUT_TOKENS},
    }
    reason = {"length": "MAX_TOKENS", "filter": "SAFETY"}.get(reply.finish, "STOP")
    if reply.finish == "refusal":
        made["promptFeedback"] = {"blockReason": "PROHIBITED_CONTENT"}
    elif reply.finish != "nothing":
        made["candidates"] = [{"index": 0, "finishReason": reason, "content": {"parts": [{"text": text}]}}]
    return made


def _embeddings(request: Request, reply: Reply) -> dict[str, Any]:
    given = reply.vectors(request) if callable(reply.vectors) else reply.vectors
    vectors = [counted(text, request.dimensions) for text in request.texts] if given is None else given
    if request.gemini:
        rows = [{"values": list(vector)} for vector in vectors]
        single = request.path.endswith(":embedContent")
        return {
            **({"embedding": rows[0]} if single else {"embeddings": rows}),
            "usageMetadata": {"promptTokenCount": INPUT_TOKENS},
        }
    packed = request.body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else list(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": INPUT_TOKENS, "total_tokens": INPUT_TOKENS}
    return {"object": "list", "data": data, "model": request.body["model"], "usage": usage}


def counted(text: str, dimensions: int) -> list[float]:
    """How often each word is in a text, each word at the place that its check sum says."""
    vector = [0.0] * dimensions
    for word in text.lower().split() or [text]:
        vector[zlib.crc32(word.strip(".,:;!?").encode()) % dimensions] += 1.0
    return vector


def _packed(vector: Sequence[float]) -> str:
    """Little-endian float32 in base64, as OpenAI sends it."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
