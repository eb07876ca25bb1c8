"""A small server with the answers of real ones: what it says follows from the prompt, and it counts what it sells.

The shapes are those of llama.cpp (chat, and completions with logprobs in the shape of chat) and of vLLM (completions
with ``tokens``, ``token_logprobs`` and ``top_logprobs``, echo among them), recorded from them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Event, Lock, Semaphore, Thread
from typing import Any, Literal, Self

Body = dict[str, Any]
WORDS = [" yes", " no", " good", " bad", " late", " fine", " delivery", " billing"]
PASSING = count(1)


def body_hash(body: Body) -> str:
    """SHA-256 of a body in canonical form."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def words(prompt: str, number: int) -> list[str]:
    """The answer to a prompt, word for word."""
    digest = hashlib.sha256(prompt.encode()).digest()
    return [WORDS[digest[place % 32] % len(WORDS)] for place in range(number)]


def prompt_of(body: Body) -> str:
    return str(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])


def usage(body: Body) -> dict[str, int]:
    """What is charged: a token for every four characters, a chat template, and the answer."""
    given = len(prompt_of(body)) // 4 + (31 if "messages" in body else 1)
    return {"prompt_tokens": given, "completion_tokens": body["max_tokens"], "total_tokens": given + body["max_tokens"]}


def charged(body: Body) -> tuple[int, int]:
    """Input and output tokens."""
    used = usage(body)
    return used["prompt_tokens"], used["completion_tokens"]


def _entries(said: list[str], top: int) -> list[Body]:
    def entry(word: str, logprob: float) -> Body:
        return {"id": WORDS.index(word), "token": word, "bytes": list(word.encode()), "logprob": logprob}

    def ranked(word: str) -> list[str]:
        return [word, *(other for other in WORDS if other != word)][:top]

    def tops(word: str) -> list[Body]:
        return [entry(other, -0.5 - place) for place, other in enumerate(ranked(word))]

    return [{**entry(word, -0.5), "top_logprobs": tops(word)} for word in said]


def llama(body: Body) -> Body:
    """As llama.cpp answers."""
    said = words(prompt_of(body), body["max_tokens"])
    chat = "messages" in body
    wanted = body.get("top_logprobs", 0) if chat else body.get("logprobs", 0)
    logprobs = {"content": _entries(said, wanted)} if wanted else None
    text = "".join(said)
    part: Body = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    number = next(PASSING)
    return {
        "choices": [{"index": 0, **part, "logprobs": logprobs, "finish_reason": "length"}],
        "created": 1_790_000_000 + number,
        "model": "SmolLM2-135M-Instruct.Q4_1.gguf",
        "system_fingerprint": "b9549-cafe",
        "object": "chat.completion" if chat else "text_completion",
        "usage": {**usage(body), "prompt_tokens_details": {"cached_tokens": number % 7}},
        "id": f"chatcmpl-{number}",
        "timings": {"prompt_n": 1, "prompt_ms": number / 7, "predicted_n": 1, "predicted_ms": 0.5},
    }


def vllm(body: Body) -> Body:
    """As vLLM answers; its chat is that of llama.cpp."""
    if "messages" in body:
        return llama(body)
    given, said = prompt_of(body), words(prompt_of(body), body["max_tokens"])
    before = [given[at : at + 4] for at in range(0, len(given), 4)] if body.get("echo") else []
    logprobs = None
    if "logprobs" in body:
        every = [*before, *said]
        tops: list[dict[str, float] | None] = [{text: -0.5, " other": -1.5} for text in every]
        own: list[float | None] = [-0.5] * len(every)
        if before:
            own[0] = tops[0] = None
        starts = [sum(map(len, every[:place])) for place in range(len(every))]
        logprobs = {"text_offset": starts, "tokens": every, "token_logprobs": own, "top_logprobs": tops}
    choice = {"index": 0, "text": "".join([*before, *said]), "logprobs": logprobs, "finish_reason": "length"}
    ends = {"stop_reason": None, "prompt_logprobs": None}
    number = next(PASSING)
    return {
        "id": f"cmpl-{number}",
        "object": "text_completion",
        "created": 1_790_000_000 + number,
        "model": body["model"],
        "choices": [{**choice, **ends}],
        "usage": {**usage(body), "prompt_tokens_details": None},
        "kv_transfer_params": None,
    }


class Service:
    """A threaded HTTP server in this process; ``with Service(...) as service: service.url``.

    Args:
        handler: of its requests; it finds the service at ``self.server.service``.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients that go away are part of what is tested."""

        self._server = Server(("127.0.0.1", 0), handler)
        self._server.service = self  # type: ignore[attr-defined]
        self.lock = Lock()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Reads a body, sends a response in one piece."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, status: int, payload: bytes, headers: dict[str, str] | None = None, length: int | None = None):
        """Send a response; a ``length`` beyond the payload makes one that is cut, and ends the connection."""
        lines = {"Content-Type": "application/json", "Content-Length": str(length or len(payload)), **(headers or {})}
        head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.wfile.write(head.encode() + b"\r\n" + payload)
        self.close_connection = length is not None


class _Upstream(Handler):
    def do_POST(self) -> None:
        upstream: ScriptedUpstream = self.server.service  # type: ignore[attr-defined]
        body = json.loads(self.body())
        sent = self.headers.get("Authorization", "")
        if upstream.key is not None and sent != f"Bearer {upstream.key}":
            said = {"error": {"code": 401, "message": f"Invalid API Key: {sent}", "type": "authentication_error"}}
            self.reply(401, json.dumps(said).encode())
            return
        if not upstream.may_answer():
            upstream.released.wait()  # for ever: the client is killed, or the test ends
            return
        answer = json.dumps(upstream.script(body)).encode()
        upstream.note(body)
        self.reply(200, answer, {"x-ratelimit-limit-requests": "1000000"})


class ScriptedUpstream(Service):
    """The server of the model.

    Args:
        shape: of the answers.
        key: that it wants, None for any.
        hold_after: answers after which it accepts requests and is silent; None for never.
        script: makes another answer to a body.

    Attributes:
        answered: number of answers by the hash of their body.
        input, output: tokens charged.
        held: is released once for every request that is held.
    """

    def __init__(
        self,
        shape: Literal["llama", "vllm"] = "llama",
        key: str | None = None,
        hold_after: int | None = None,
        script: Callable[[Body], Any] | None = None,
    ) -> None:
        super().__init__(_Upstream)
        self.script = script or {"llama": llama, "vllm": vllm}[shape]
        self.key = key
        self.answered: Counter[str] = Counter()
        self.input = self.output = 0
        self.held, self.released = Semaphore(0), Event()
        self._left = hold_after

    @property
    def requests(self) -> int:
        """Answered in all."""
        return self.answered.total()

    def may_answer(self) -> bool:
        with self.lock:
            if self._left is None:
                return True
            self._left -= 1
            if self._left < 0:
                self.held.release()
            return self._left >= 0

    def begin_to_count(self) -> Counter[str]:
        """Count anew; returns what was answered so far."""
        with self.lock:
            before, self.answered = self.answered, Counter()
        return before

    def hold_after(self, answers: int) -> None:
        """Be silent after so many more."""
        with self.lock:
            self._left = answers

    def answer_again(self) -> None:
        """Hold nothing from now on."""
        with self.lock:
            self._left = None

    def note(self, body: Body) -> None:
        given, said = charged(body)
        with self.lock:
            self.answered[body_hash(body)] += 1
            self.input += given
            self.output += said

    def __exit__(self, *_: object) -> None:
        self.released.set()
        super().__exit__()
