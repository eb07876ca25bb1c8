"""How one attempt fails: what it means for the money, and whether another attempt makes sense."""

from __future__ import annotations

from typing import Literal

from bbtune.errors import EndpointError

Kind = Literal["refused", "busy", "broken"]


class Failure(Exception):
    """An attempt without an answer; it does not leave the package as such.

    Args:
        message: what happened and what to do, without the key.
        kind: refused (asking again is of no use), busy (the server asks to wait), or broken (worth another attempt).
        charged: whether it may have been charged for.
        retry_after_s: seconds that the server asks to wait.
        status: of HTTP, where there was one.
    """

    def __init__(
        self,
        message: str,
        kind: Kind = "broken",
        charged: bool = True,
        retry_after_s: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.charged = charged
        self.retry_after_s = retry_after_s
        self.status = status


class Refused(EndpointError):
    """The endpoint refuses a request, and would again; ``status`` is that of HTTP."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])
