"""Replicas count apart, and each tells the sum of all, those that have ended among them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_COUNTS = """
import sys
from pathlib import Path
from bbtune.serving.meters import Meters
meters = Meters(Path(sys.argv[1]))
meters.request("a", 200, 0.01, 3)
meters.request("", 404, 0.001, 0)
meters.batch(3)
print(meters.text(prompts=2).decode())
"""


def told(folder: Path) -> str:
    """What a fresh process tells that has counted two requests."""
    done = subprocess.run([sys.executable, "-c", _COUNTS, folder], capture_output=True, text=True, check=True)
    return done.stdout


def test_each_process_tells_what_all_have_counted(tmp_path):
    told(tmp_path / "meters")
    said = told(tmp_path / "meters")
    assert 'bbtune_requests_total{prompt="a",status="200"} 2.0' in said
    assert 'bbtune_requests_total{prompt="",status="404"} 2.0' in said
    assert 'bbtune_texts_total{prompt="a"} 6.0' in said
    assert "bbtune_request_seconds_count 4.0" in said
    assert 'bbtune_request_seconds_bucket{le="0.005"} 2.0' in said
    assert 'bbtune_batch_texts_bucket{le="4.0"} 2.0' in said
    assert "bbtune_prompts 2" in said
