"""Servers: real ones for the length of the session, a scripted one for a test."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_servers import TransformersServer, chatting_copy
from scripted_upstream import ScriptedUpstream
from text_runs import judge

from bbtune.backbone.fetch import cached_model
from bbtune.endpoint.serve import LocalServer
from bbtune.errors import BackboneError

SMOLLM = "smollm2-135m"


@pytest.fixture(scope="session")
def smollm() -> Path:
    """Folder of SmolLM2."""
    try:
        return cached_model(SMOLLM)
    except BackboneError:
        pytest.skip(f"{SMOLLM} has not been fetched: bbtune models get {SMOLLM}")


@pytest.fixture(scope="session")
def llama_server(smollm: Path) -> Iterator[LocalServer]:
    """SmolLM2 behind llama.cpp."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed: pip install 'bbtune[api-demo]'")
    server = LocalServer(f"cache:{SMOLLM}", threads=2, parallel=4)
    yield server
    server.close()


@pytest.fixture(scope="session")
def transformers_server(
    tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TransformersServer]:
    """A tiny random model behind ``transformers serve``, which ignores what is asked of log-probabilities."""
    if importlib.util.find_spec("fastapi") is None:
        pytest.skip("transformers serve needs fastapi and uvicorn: pip install 'transformers[serving]'")
    server = TransformersServer(chatting_copy(tiny_models["llama"], tmp_path_factory.mktemp("chat") / "model"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def vllm_url() -> str:
    """Where a vLLM server is."""
    url = os.environ.get("BBTUNE_VLLM_URL")
    if not url:
        pytest.skip("no vLLM server: set BBTUNE_VLLM_URL to its address, with /v1")
    return url


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A server whose model heeds good instructions."""
    with ScriptedUpstream(script=judge) as server:
        yield server
