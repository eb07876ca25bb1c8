"""Execute notebooks with full settings and save them, pictures made small: python notebooks/execute.py [NAME ...]"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
_COLOURS = 96  # of a figure


def small(png: bytes) -> bytes:
    """The picture with few colours."""
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(
        file, "PNG", optimize=True
    )
    return file.getvalue()


def execute(path: Path) -> None:
    """Execute a notebook in place; figures of cells with the tag ``picture`` are kept for the documentation, too."""
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    NotebookClient(notebook, timeout=1800, record_timing=False).execute(cwd=HERE)
    shown = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            shown += _shrunk(output, cell, IMAGES / f"notebook-{path.stem[:2]}-{shown + 1}.png")
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    nbformat.write(notebook, path)


def _shrunk(output: Any, cell: Any, picture: Path) -> bool:
    """Make the picture of an output small; whether it was kept."""
    data = output.get("data", {})
    if "image/png" not in data:
        return False
    png = small(base64.b64decode(data["image/png"]))
    data["image/png"] = base64.b64encode(png).decode()
    data.pop("text/plain", None)  # an address in memory
    if "picture" not in cell.metadata.get("tags", []):
        return False
    picture.write_bytes(png)
    return True


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.ipynb")):
        execute(HERE / f"{name}.ipynb")
