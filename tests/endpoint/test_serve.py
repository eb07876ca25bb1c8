"""The server that is started here: it is behind a key, and it ends with the process that started it."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from processes import is_running

from bbtune.endpoint.serve import LocalServer
from bbtune.errors import EndpointError


def status(url: str, key: str) -> int:
    """Of HTTP."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.slow  # the model is fetched before these
def test_it_listens_on_this_machine_alone_and_wants_its_key(llama_server: LocalServer) -> None:
    assert llama_server.base_url.startswith("http://127.0.0.1:")
    assert llama_server.base_url.endswith("/v1")
    assert len(llama_server.key) >= 32
    url = f"{llama_server.base_url.removesuffix('/v1')}/props"
    assert (status(url, llama_server.key), status(url, "another")) == (200, 401)


@pytest.mark.slow  # the model is fetched before these
def test_its_key_is_not_to_be_seen_from_outside_the_process(llama_server: LocalServer) -> None:
    child = psutil.Process(llama_server.pid)
    assert llama_server.key not in " ".join(child.cmdline())
    assert llama_server.key not in str(child.environ())


@pytest.mark.slow  # the model is fetched before these
def test_closing_it_ends_its_process(smollm: Path) -> None:
    server = LocalServer("cache:smollm2-135m", threads=1, parallel=1)
    assert is_running(server.pid)
    server.close()
    assert not is_running(server.pid)


@pytest.mark.slow  # the model is fetched before these
def test_it_says_nothing_on_the_terminal_and_ends_with_a_parent_that_is_killed(smollm: Path) -> None:
    code = (
        "import os, sys; from bbtune.endpoint.serve import LocalServer; "
        "server = LocalServer('cache:smollm2-135m', 1, 1); "
        "sys.stdout.write(str(server.pid)); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (-9, "")
    _, alive = psutil.wait_procs([psutil.Process(int(done.stdout))] if is_running(int(done.stdout)) else [], timeout=30)
    assert not alive


@pytest.mark.parametrize("source", ["path:/nowhere/model.gguf", "path:/etc/hostname", "hub:model"])
def test_a_file_that_is_not_there_is_said_before_anything_is_started(source: str) -> None:
    with pytest.raises(EndpointError, match=r"expected cache:NAME or path:FILE\.gguf"):
        LocalServer(source)


def test_a_file_that_is_no_model_is_an_error_with_the_servers_own_words(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(EndpointError, match=r"expected a server for path:.*, but it ended: .+"):
        LocalServer(f"path:{broken}")


def test_without_its_package_the_error_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ModuleNotFoundError(\"No module named 'xllamacpp'\")\n")
    (tmp_path / "model.gguf").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EndpointError, match=r"pip install 'bbtune\[api-demo\]'"):
        LocalServer(f"path:{tmp_path / 'model.gguf'}")
