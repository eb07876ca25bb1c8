"""`bbtune serve` with many prompts against plain servers of one prompt each: latency, requests a second, memory.

python benchmarks/serving.py RUN... [--rounds 3] [--seconds 5] [--plain-servers 20]

The runs are of one sentence encoder with a prefix at every layer, such as those of

for K in $(seq 20); do bbtune run jobs/quickstart.yaml --set name=support-$K --set seed=$K --set budget.evaluations=31 \
    --set evaluators.count=0 --set tracking.enabled=false --out runs/many/support-$K; done

Load comes from wrk on the same machine, which takes its share of it. Servers take turns within a round, so that what
else the machine does hits all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

TEXT = "The bill has the same item twice and I want my money back"
CLIENTS = (1, 8, 32)
_PATIENCE_S = 180
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Server:
    """One that answers.

    Attributes:
        name: in the table.
        process: above all that it has started.
    """

    name: str
    url: str
    process: psutil.Process

    def memory_mib(self) -> float:
        """Proportional set size of all of its processes: a page that n processes share counts 1/n for each."""
        pages = [one.memory_full_info().pss for one in (self.process, *self.process.children(recursive=True))]
        return sum(pages) / 2**20


@dataclass(frozen=True)
class Load:
    """What wrk has seen."""

    p50_ms: float
    p99_ms: float
    per_s: float


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--plain-servers", type=int, default=20)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, prompt = export(told.runs[0], folder / "prompt.safetensors")
        with ExitStack() as stack:
            servers = [stack.enter_context(ours("bbtune serve, 1 prompt", told.runs[:1], folder / "one"))]
            many = stack.enter_context(ours(f"bbtune serve, {len(told.runs)} prompts", told.runs, folder / "many"))
            servers += [many]
            servers += [
                stack.enter_context(plain("plain, all threads", model, prompt, [])),
                stack.enter_context(plain("plain, 1 thread", model, prompt, ["--threads", "1"])),
            ]
            scripts = {of.name: script(folder, of, told.runs if of is many else told.runs[:1]) for of in servers}
            measured(servers, scripts, told.rounds, told.seconds)
            print(f"memory of bbtune serve with {len(told.runs)} prompts: {many.memory_mib():.0f} MiB")
            print(f"memory of a plain server: {servers[2].memory_mib():.0f} MiB")
        with ExitStack() as stack:
            crowd = [stack.enter_context(plain(f"plain {i}", model, prompt, [])) for i in range(told.plain_servers)]
            total = sum(one.memory_mib() for one in crowd)
            print(f"memory of {len(crowd)} plain servers at once: {total:.0f} MiB")


def measured(servers: Sequence[Server], scripts: dict[str, Path], rounds: int, seconds: int) -> None:
    """Print medians over rounds."""
    found: dict[tuple[str, int], list[Load]] = {}
    for _ in range(rounds):
        for clients in CLIENTS:
            for server in servers:
                load = wrk(server, scripts[server.name], clients, seconds)
                found.setdefault((server.name, clients), []).append(load)
    print("| server | clients | p50 ms | p99 ms | requests/s |\n|---|---|---|---|---|")
    for (name, clients), loads in sorted(found.items(), key=lambda item: item[0][1]):
        p50, p99, rate = (statistics.median(getattr(of, key) for of in loads) for key in ("p50_ms", "p99_ms", "per_s"))
        print(f"| {name} | {clients} | {p50:.1f} | {p99:.1f} | {rate:.0f} |")


def wrk(server: Server, script: Path, clients: int, seconds: int) -> Load:
    """Load on a server, from so many connections."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout=30s", "--latency", "-s", str(script)]
    out = subprocess.run([*command, f"{server.url}/v1/classify"], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"{server.name} has refused requests:\n{out}")

    def milliseconds(percent: int) -> float:
        amount, unit = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", out).groups()  # type: ignore[union-attr]
        return float(amount) * _MS[unit]

    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])  # type: ignore[index]
    return Load(milliseconds(50), milliseconds(99), rate)


def script(folder: Path, server: Server, runs: Sequence[str]) -> Path:
    """A script of wrk that asks under each prompt in turn."""
    bodies = [json.dumps({"prompt": Path(run).name, "texts": [TEXT]}) for run in runs]
    path = folder / f"{server.url.rpartition(':')[2]}.lua"
    path.write_text(
        "local bodies = {" + ", ".join(f"[==[{body}]==]" for body in bodies) + "}\n"
        "local headers = {['Content-Type'] = 'application/json'}\n"
        "local i = 0\n"
        "request = function()\n"
        "  i = i % #bodies + 1\n"
        "  return wrk.format('POST', nil, headers, bodies[i])\n"
        "end\n"
    )
    return path


def export(run: str, path: Path) -> tuple[str, Path]:
    """Write a run's prompt as the plain server reads it; returns the model's folder and the file."""
    from safetensors.torch import save_file

    from bbtune.result import TuneResult
    from bbtune.tuned import tuned

    result = TuneResult.load(run)
    found = tuned(result)
    labels = [found.head.__dict__["_labels"][i][0] for i in range(len(found.labels))]
    import torch

    tensors = {f"layer.{i}": found.prompts.layers[i].contiguous() for i in range(len(found.prompts.layers))}
    tensors["labels"] = torch.stack(labels)
    temperature = str(result.spec.backbone.temperature)
    about = {"layers": str(len(found.prompts.layers)), "labels": "\n".join(found.labels), "temperature": temperature}
    save_file(tensors, path, about)
    return found.model.card.files.name, path


@contextmanager
def ours(name: str, runs: Sequence[str], state: Path) -> Iterator[Server]:
    """`bbtune serve` without a key, so that all are asked alike."""
    port = free_port()
    command = [sys.executable, "-m", "bbtune", "serve", *(f"{Path(run).name}={run}" for run in runs)]
    with running(name, [*command, "--no-key", f"--port={port}", f"--state={state}"], port) as server:
        yield server


@contextmanager
def plain(name: str, model: str, prompt: Path, options: Sequence[str]) -> Iterator[Server]:
    """One prompt on a model of its own."""
    port = free_port()
    file = str(Path(__file__).with_name("plain_server.py"))
    with running(name, [sys.executable, file, model, str(prompt), str(port), *options], port) as server:
        yield server


@contextmanager
def running(name: str, command: Sequence[str], port: int) -> Iterator[Server]:
    """A process that answers, and is ended."""
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ) as process:
        try:
            deadline = time.monotonic() + _PATIENCE_S
            while not answers(f"{url}/healthz"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{name} did not start: {' '.join(command)}")
                time.sleep(0.2)
            yield Server(name, url, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(timeout=90)


def answers(url: str) -> bool:
    """Whether an address answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """One that nothing listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


if __name__ == "__main__":
    main()
