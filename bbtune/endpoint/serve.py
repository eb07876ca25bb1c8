"""A small model served on this machine for the length of a run: llama.cpp in a process of its own."""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any

from bbtune.backbone.fetch import cached_model
from bbtune.errors import EndpointError

_START_S = 60.0
_TOKENS = 2048  # of one request with its answer
# Its threads wait for each other many times a token. Where they spin while they wait, a third process on two cores
# made answers thirty times slower.
_PATIENT = {"OMP_WAIT_POLICY": "passive"}


class LocalServer:
    """An OpenAI-compatible server on 127.0.0.1, behind a key that nobody else knows.

    It ends with :meth:`close`, and by itself when this process does.

    Args:
        source: ``cache:NAME`` of a fetched model, or ``path:FILE.gguf``.
        threads: of the CPU that it may use.
        parallel: requests that it answers at the same time.

    Attributes:
        base_url: of the API, with ``/v1``.
        key: of the API.
        pid: of its process.

    Raises:
        BackboneError: if the model has not been fetched.
        EndpointError: if it does not start.
    """

    def __init__(self, source: str, threads: int = 2, parallel: int = 4) -> None:
        self.key = secrets.token_urlsafe(32)
        settings = {"file": str(_gguf(source)), "threads": threads, "parallel": parallel, "key": self.key}
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it is the child's as long as that lives
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bbtune.endpoint.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_PATIENT | os.environ,
            start_new_session=True,  # Ctrl-C is for this process, which may still want answers
        )
        assert self._child.stdin is not None  # for mypy: both are pipes
        assert self._child.stdout is not None
        self._given, self._told = self._child.stdin, self._child.stdout
        self.pid = self._child.pid
        try:
            self.base_url = f"{self._address(settings, source)}/v1"
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process; what it was answering is lost."""
        self._child.terminate()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for stream in (self._given, self._told, self._log):
            with suppress(BrokenPipeError):  # of a process that ended before it read its settings
                stream.close()

    def _address(self, settings: dict[str, Any], source: str) -> str:
        """Where it listens: it says so when the model is loaded."""
        self._given.write(json.dumps(settings).encode() + b"\n")
        self._given.flush()
        ready, _, _ = select.select([self._told], [], [], _START_S)
        address = self._told.readline().decode().strip() if ready else ""
        if address.startswith("http://"):
            return address
        said = self._said()
        if "No module named 'xllamacpp'" in said:
            raise EndpointError("serving a model here needs xllamacpp; run: pip install 'bbtune[api-demo]'")
        what = "ended" if ready else f"did not answer within {_START_S:.0f} s"
        raise EndpointError(f"expected a server for {source}, but it {what}: {said or 'it said nothing'}")

    def _said(self) -> str:
        """The last lines of its log."""
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").replace(self.key, "***")
        return " | ".join(line.strip() for line in text.splitlines()[-5:])[-600:]


def _gguf(source: str) -> Path:
    scheme, _, name = source.partition(":")
    if scheme == "cache":
        found = sorted(cached_model(name).glob("*.gguf"))
        if not found:
            raise EndpointError(f"serve: expected a .gguf file in {cached_model(name)}, got none; fetch {name} anew")
        return found[0]
    path = Path(name)
    if scheme != "path" or path.suffix != ".gguf" or not path.is_file():
        raise EndpointError(f"serve: expected cache:NAME or path:FILE.gguf with a file that is there, got {source}")
    return path


def _serve() -> None:
    """The child: settings come as one line, then it lives as long as that pipe."""
    settings = json.loads(open(0, "rb", buffering=0, closefd=False).readline())  # noqa: SIM115 - the pipe stays open
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints is for the log
    watch = Thread(target=_end_with, args=(os.getppid(),), daemon=True)
    watch.start()
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = settings["file"]
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel, params.n_ctx = settings["parallel"], _TOKENS * settings["parallel"]
    params.api_keys = [settings["key"]]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.cache_ram_mib = 0  # of prompts long done; it would grow to gigabytes
    params.verbosity = 1  # errors and warnings
    server = Server(params)
    told.write(f"{server.listening_address}\n")
    told.flush()
    watch.join()


def _end_with(parent: int) -> None:
    """Wait until the parent closes the pipe, or is gone while another process holds it open; then end at once."""
    while os.getppid() == parent:
        ready, _, _ = select.select([0], [], [], 1.0)
        if ready and not os.read(0, 4096):
            break
    os._exit(0)


if __name__ == "__main__":
    _serve()
