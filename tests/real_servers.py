"""Real OpenAI-compatible servers in processes of their own, and endpoints that ask them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bbtune.endpoint.endpoint import Endpoint
from bbtune.endpoint.purse import Caps, Purse
from bbtune.endpoint.secrets import Secret
from bbtune.endpoint_spec import ApiSpec

CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %} :"


@contextmanager
def asked(folder: Path, base_url: str, key: str = "", **settings: Any) -> Iterator[Endpoint]:
    """An endpoint without a cache, its purse in a folder."""
    spec = ApiSpec(base_url=base_url, **{"model": "model", "patience_s": 2.0, "attempts": 2, **settings})
    purse = Purse(folder / "paid.sqlite", Caps(None, None, None))
    endpoint = Endpoint(spec, Secret(key), purse, None)
    try:
        yield endpoint
    finally:
        endpoint.close()
        purse.close()


class TransformersServer:
    """``transformers serve`` on a model folder.

    Attributes:
        base_url: of the API.
        model: the name under which it knows the model.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.model = str(folder)
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        code = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
        arguments = ["serve", self.model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
        self._child = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, "--dtype", "float32"], stdout=self._log, stderr=self._log
        )
        self._wait()

    def close(self) -> None:
        """End it."""
        self._child.terminate()
        try:
            self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._log.close()

    def _wait(self) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and self._child.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.base_url.removesuffix('/v1')}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)  # it does not say when it is ready
        self._log.seek(0)
        said = self._log.read().decode(errors="replace")[-2000:]
        self.close()
        raise RuntimeError(f"transformers serve did not start: {said}")


def chatting_copy(folder: Path, target: Path) -> Path:
    """A model folder that has a chat template."""
    shutil.copytree(folder, target)
    (target / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return target


def tasks_texts(count: int) -> list[str]:
    """Texts of the built-in task, with an instruction and the question for the label."""
    import bbtune

    rows = (Path(bbtune.__file__).parent / "task/builtin/support/dev.jsonl").read_text().splitlines()[:count]
    ask = "Sort the message of a customer into billing, delivery, returns, account, fault or advice.\n\n"
    return [f"{ask}Message: {json.loads(row)['text']}\nTopic:" for row in rows]


TOPICS = tuple((word,) for word in ("billing", "delivery", "returns", "account", "fault", "advice"))
