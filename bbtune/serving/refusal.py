"""Refusals as HTTP: a status, and JSON that says what was expected; never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from bbtune.errors import BbtuneError
from bbtune.serving.batcher import QueueFull
from bbtune.serving.desk import Closed, UnknownPrompt
from bbtune.serving.runs import shortened

_STATUS: dict[type[BbtuneError], int] = {QueueFull: 503, Closed: 503, UnknownPrompt: 404}
_HEADERS: dict[int, Mapping[str, str]] = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}
_NO_OBJECT = "expected a JSON object in UTF-8, sent with Content-Type: application/json, got something else; see /docs"
_FAULTS = 5  # told at once
_log = logging.getLogger("bbtune.serving")


class Refusal(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        expected: what would have been right.
        got: what came.
        todo: what to do, where that is not plain.
    """

    def __init__(self, status: int, expected: str, got: str, todo: str = "") -> None:
        super().__init__(f"expected {expected}, got {got}" + (f"; {todo}" if todo else ""))
        self.status = status
        self.expected = expected

    def answer(self) -> JSONResponse:
        """As HTTP."""
        return refused(self.status, str(self), self.expected)


def refused(status: int, message: str, expected: str | None = None) -> JSONResponse:
    """A refusal as HTTP."""
    error = {"message": message} | ({} if expected is None else {"expected": expected})
    return JSONResponse({"error": error}, status, dict(_HEADERS.get(status, {})))


def speak_plainly(app: FastAPI) -> None:
    """Let every error of an app become a refusal in words."""

    @app.exception_handler(Refusal)
    def _(_: Request, error: Refusal) -> JSONResponse:
        return error.answer()

    @app.exception_handler(BbtuneError)
    def _(_: Request, error: BbtuneError) -> JSONResponse:
        answer = refused(_STATUS.get(type(error), 422), str(error))
        if isinstance(error, Closed):
            answer.headers["Connection"] = "close"
        return answer

    @app.exception_handler(RequestValidationError)
    def _(_: Request, error: RequestValidationError) -> JSONResponse:
        return refused(422, _in_words(error))

    @app.exception_handler(HTTPException)
    def _(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == HTTPStatus.BAD_REQUEST:  # what no JSON reader takes
            return refused(error.status_code, _NO_OBJECT)
        phrase = HTTPStatus(error.status_code).phrase.lower()
        asked = f"{request.method} {shortened(request.url.path)}"
        answer = refused(error.status_code, f"{asked}: {phrase}; see /docs")
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    def _(_: Request, error: Exception) -> JSONResponse:
        _log.error("a request failed", exc_info=error)
        return refused(500, "the server failed; its log says why")


def _in_words(error: RequestValidationError) -> str:
    """The first faults of a body, by where they are; what came is not repeated, it may be long."""
    said: dict[str, str] = {}
    for fault in error.errors():
        where = [shortened(str(part)) for part in fault["loc"][1:]]
        if not where or fault["type"] in ("json_invalid", "model_attributes_type"):
            return _NO_OBJECT
        kept = where[: next((i for i, part in enumerate(where) if part.isdigit()), len(where)) + 1]
        said.setdefault(".".join(kept), fault["msg"][:1].lower() + fault["msg"][1:])
    more = f"; and {len(said) - _FAULTS} more" if len(said) > _FAULTS else ""
    return "; ".join(f"{place}: {message}" for place, message in list(said.items())[:_FAULTS]) + more + "; see /docs"
