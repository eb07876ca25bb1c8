"""Named defaults of a job. A preset fills what the job leaves open; the job always wins."""

from __future__ import annotations

from typing import Any, Literal

PresetName = Literal["default", "paper-bbt", "paper-bbtv2"]

# Sun et al. 2022, arXiv 2205.11200, section 4: n 50, d 500, P 20, sigma 0.2, alpha 0.2, 8,000 evaluations.
_PAPER: dict[str, Any] = {
    "prompt": {"kind": "offset", "tokens": 50, "intrinsic_dim": 500},
    "method": {
        "optimizer": "cma",
        "population": 20,
        "sigma": 0.2,
        "alpha": 0.2,
        "loss": "cross-entropy",
        "blocks": "layerwise",
        "accept": "best-ever",
        "schedule": "whole-sweeps",
    },
    "budget": {"evaluations": 8000},
}

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper-bbt": {**_PAPER, "prompt": {**_PAPER["prompt"], "layers": "input"}},
    "paper-bbtv2": {**_PAPER, "prompt": {**_PAPER["prompt"], "layers": "all"}},
}

# What goes with an optimizer where neither job nor preset says otherwise; "joint" is over all tuned layers together.
OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "auto": {"blocks": "joint", "population": 40},
    "gauss-newton": {"blocks": "joint", "population": 40},
    "spsa": {"blocks": "joint", "population": 11},
}
