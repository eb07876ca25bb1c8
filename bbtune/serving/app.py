"""The HTTP interface of a replica."""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Callable
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline

import bbtune
from bbtune.serving import schemas
from bbtune.serving.desk import Desk
from bbtune.serving.door import BodyLimit, Counted, while_there
from bbtune.serving.engine import Served, Shares
from bbtune.serving.meters import Meters
from bbtune.serving.refusal import Refusal, speak_plainly
from bbtune.serving.runs import shortened
from bbtune.serving.settings import Limits
from bbtune.serving.texts import read_texts

_ABOUT = """Texts are labelled by a frozen language model under tuned prompts. Many prompts share one copy of the
model, and texts of different prompts share its forwards; a request names its prompt.

Whatever is refused is refused in words: `{"error": {"message": ...}}`."""
_KEY = "the server's key: Authorization: Bearer KEY"

_bearer = HTTPBearer(auto_error=False, description="The key, in the file that bbtune serve names.")


def make_app(desk: Desk, meters: Meters, key: str | None, limits: Limits) -> FastAPI:
    """The app of a replica.

    Args:
        key: that requests must show; None for a server that only listens on the loopback.
    """
    app: FastAPI = FastAPIOffline(
        title="bbtune serve",
        version=bbtune.__version__,
        description=_ABOUT,
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": None},  # else the page would ask a server elsewhere
    )
    speak_plainly(app)
    app.include_router(_open(desk))
    app.include_router(_classifying(desk, meters, limits), dependencies=[Depends(_guard(key))])
    app.include_router(_prompts(desk, key is not None), dependencies=[Depends(_guard(key))])
    app.include_router(_metrics(desk, meters), dependencies=[Depends(_guard(key))])
    app.add_middleware(BodyLimit, most=limits.body_bytes)
    app.add_middleware(Counted, meters=meters)
    return app


def _guard(key: str | None) -> Callable[..., Any]:
    """What lets a request in: the key; without one, an address that no page of another site can have."""

    async def with_key(shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
        told = "none" if shown is None else "another one"
        if shown is None or not secrets.compare_digest(shown.credentials.encode(), str(key).encode()):
            raise Refusal(401, _KEY, told)

    async def without(request: Request) -> None:
        host = request.headers.get("host", "")
        if not _is_here(host if host.endswith("]") else host.rpartition(":")[0] or host):
            raise Refusal(403, "an address of this machine (127.0.0.1, localhost, [::1])", repr(shortened(host)))

    return without if key is None else with_key


def _is_here(name: str) -> bool:
    """Whether a host's name is the loopback's; no other name is, whatever it resolves to."""
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.Refused} for status in (401, *statuses)}


def _open(desk: Desk) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz", summary="Whether it can classify", tags=["server"])
    async def healthz() -> schemas.Health:
        await desk.prompts()
        return schemas.Health()

    return routes


def _classifying(desk: Desk, meters: Meters, limits: Limits) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/v1/classify",
        summary="Label texts under a prompt",
        response_model=schemas.Classified,
        responses=_responses(404, 413, 422, 503),
        tags=["classify"],
    )
    async def classify(body: schemas.Classify, request: Request) -> Response:
        """Texts are put to the model together with those of other requests; answers come in the order of the texts."""
        name, served = await desk.prompt(body.prompt)
        request.state.prompt = name
        examples = read_texts(body.texts, served.kind, limits)
        shares = await while_there(request.receive, desk.shares(served, examples))
        request.state.texts = len(shares)
        said = {"prompt": name, "predictions": [_prediction(served, of) for of in shares]}
        return Response(json.dumps(said, ensure_ascii=False), media_type="application/json")

    return routes


def _prediction(served: Served, shares: Shares) -> dict[str, Any]:
    by_label = dict(zip(served.labels, shares.tolist(), strict=True))
    label = served.labels[int(shares.argmax())]
    return {"label": label, "probability": by_label[label], "probabilities": by_label}


def _prompts(desk: Desk, fetches: bool) -> APIRouter:
    """Routes of prompts.

    Args:
        fetches: whether runs may lie at addresses, which the server asks with the credentials of its environment.
    """
    routes = APIRouter(tags=["prompts"])

    @routes.get("/v1/prompts", summary="All prompts", responses=_responses())
    async def listed() -> schemas.Prompts:
        served = await desk.prompts()
        return schemas.Prompts(prompts=[_described(name, of, desk) for name, of in served.items()])

    @routes.put("/v1/prompts/{name}", summary="Add a prompt, or replace it", responses=_responses(422))
    async def put(name: str, body: schemas.Run, response: Response) -> schemas.Prompt:
        """Takes effect with the next request, on all replicas at once; the server keeps a copy of the run's result."""
        _check_place(body.run, fetches)
        served, new = await desk.put(name, body.run)
        response.status_code = 201 if new else 200
        return _described(name, served, desk)

    @routes.delete("/v1/prompts/{name}", summary="Take a prompt out", responses=_responses(404))
    async def remove(name: str) -> schemas.Removed:
        """Takes effect with the next request, on all replicas at once."""
        await desk.remove(name)
        return schemas.Removed(removed=name)

    return routes


def _check_place(run: str, fetches: bool) -> None:
    """Refuse what means one thing to the client and another to the server."""
    if "://" in run:
        if not fetches:
            why = "a server without a key fetches nothing for whoever asks it"
            raise Refusal(422, "a folder of the server's machine", "an address", why)
    elif not PurePath(run).is_absolute():
        raise Refusal(422, "the whole path of a folder on the server's machine", repr(shortened(run)))


def _described(name: str, served: Served, desk: Desk) -> schemas.Prompt:
    return schemas.Prompt(
        name=name,
        labels=list(served.labels),
        kind="pair" if served.kind == "pair" else "single",
        model=desk.engine.identity.source,
        task=served.task,
        metric=served.metric,
        test_score=served.score,
    )


def _metrics(desk: Desk, meters: Meters) -> APIRouter:
    routes = APIRouter(tags=["server"])

    @routes.get("/metrics", summary="Counters, as Prometheus reads them", responses=_responses())
    async def metrics() -> Response:
        told = meters.text(len(await desk.prompts()))
        return Response(told, media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
