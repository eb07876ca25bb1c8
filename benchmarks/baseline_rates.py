"""Learning rates of the gradient-trained baselines: best dev scores at thirds and threes of the defaults.

    python benchmarks/baseline_rates.py JOB [--set key.path=value ..] [--methods ..] [--factors 0.3 1 3]

Prints a Markdown table. Only train and dev are read, of draws that no reported table uses. It trains in this process.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bbtune.baselines.learners import LEARNERS
from bbtune.baselines.trained import Trained
from bbtune.examine import make_plan
from bbtune.jobfile import load_job
from bbtune.loop import Generation
from bbtune.methods import TRAINING_DEFAULTS


def best_of(job: Path, changes: list[str], method: str, rate: float) -> Generation:
    """The step that dev selects."""
    spec = load_job(job, [*changes, "evaluators.count=0", f"method.learning_rate={rate:g}"], method)
    plan, task, _ = make_plan(spec)
    with tempfile.TemporaryDirectory() as folder:
        steps = [step for step in Trained(plan, task.metric, Path(folder)).fit() if isinstance(step, Generation)]
    return [step for step in steps if step.dev is not None and step.dev.selected][-1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--methods", nargs="+", default=list(LEARNERS))
    parser.add_argument("--factors", nargs="+", type=float, default=[0.3, 1.0, 3.0])
    asked = parser.parse_args()
    print(f"| method | {' | '.join(f'rate x {factor:g}' for factor in asked.factors)} |")
    print("|" + "---|" * (1 + len(asked.factors)))
    for method in asked.methods:
        cells = []
        for factor in asked.factors:
            rate = factor * TRAINING_DEFAULTS[method]["learning_rate"]
            step = best_of(asked.job, asked.changes, method, rate)
            assert step.dev is not None
            cells.append(f"{step.dev.metric:.3f} (loss {step.dev.loss:.3f}, epoch {step.number}, {rate:g})")
        print(f"| {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
