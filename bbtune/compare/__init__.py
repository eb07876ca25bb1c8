"""Methods side by side: scores, what they cost, and whether they differ."""

from bbtune.compare.comparison import Comparison, compare
from bbtune.compare.runs import Run, load_runs

__all__ = ["Comparison", "Run", "compare", "load_runs"]
