"""``mlflow models serve`` in an environment of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START_S = 180.0


def fresh_environment(folder: Path, requirements: Path) -> str:
    """A virtual environment with what a file asks for and nothing else; gives its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", str(requirements)], check=True)
    return python


def knows_us(python: str) -> bool:
    """Whether bbtune is installed in an environment."""
    return subprocess.run([python, "-I", "-c", "import bbtune"], capture_output=True).returncode == 0


def answers_of(python: str, model: Path, texts: Sequence[str]) -> list[dict[str, Any]]:
    """What a served model says of texts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    environment.pop("PYTHONPATH", None)
    log = model.parent / "server.log"
    with log.open("w") as said:
        server = subprocess.Popen(
            command, env=environment, cwd=model.parent, stdout=said, stderr=said, start_new_session=True
        )
        try:
            _wait(f"http://127.0.0.1:{port}/ping", server, log)
            body = json.dumps({"inputs": {"text": list(texts)}}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body)
            request.add_header("Content-Type", "application/json")
            with urllib.request.urlopen(request, timeout=60) as answer:
                return list(json.loads(answer.read())["predictions"])
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # its workers, too: it leads a group of its own
            server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"the server did not start; it said:\n{log.read_text()[-3000:]}")
