"""The arithmetic limit of one candidate: FLOPs that an exact evaluator cannot leave out, at the speed of this machine.

Counted are matrix products only, two FLOPs per multiply-add, as an average over the tuned layers l = 0 .. L-1 (exact
sums over every pair of a tuned layer and a layer above it). What only raises a real evaluator's time is left out:
norms, softmax, activations, biases, embeddings, drawing a prompt from z. Free, because they are the same for all
candidates of a visit:

* the states entering layer l, their queries, keys and values, and what text attends to text there (partial softmaxes
  can be merged exactly);
* the projections of ``h + prompt`` at layer l, up to those of the T prompt rows alone, which all examples share:
  ``W (h + p) = W h + W p``, and a norm before them scales and shifts a row by single numbers, which keeps that split;
* prefixes of the other layers, and whatever stands before the prompt of a causal model, at all layers;
* at the last layer everything but the read position, if one is read; its keys and values by associativity where
  that is cheaper: ``q (W_k h) = (W_k' q) h``, ``sum p (W_v h) = W_v (sum p h)``.

It is the limit of ordinary products with these savings, each of which an exact evaluator can have; not a proof about
every thinkable algorithm.

N examples, T prompt tokens, H hidden size, F width of the feed-forward layer, C label words.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch

Shape = tuple[int, int, int]  # (m, k, n): (m, k) times (k, n)
Weight = tuple[int, int]  # its (k, n)
Kind = Literal["offset", "prefix"]

KINDS: tuple[Kind, ...] = ("offset", "prefix")

_ROWS = 1024  # rows of a timed product


@dataclass(frozen=True)
class Sizes:
    """Widths of a model.

    Attributes:
        kv_heads: fewer than ``heads`` with grouped queries.
        gated: the feed-forward layer has three products instead of two.
        rotary: keys are rotated by their position, so that they must be projected.
        dense_head: the head has an H x H product before the words.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    gated: bool = False
    rotary: bool = False
    dense_head: bool = False

    @property
    def q_width(self) -> int:
        """Width of all queries."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of the keys, and of the values."""
        return self.kv_heads * self.head_dim


def bert_sizes(layers: int, hidden: int, heads: int, ffn: int, vocabulary: int = 30522) -> Sizes:
    """Sizes of a BERT or RoBERTa with its masked-LM head."""
    return Sizes(layers, hidden, ffn, heads, heads, hidden // heads, vocabulary, dense_head=True)


MINILM = bert_sizes(layers=6, hidden=384, heads=12, ffn=1536)
BERT_BASE = bert_sizes(layers=12, hidden=768, heads=12, ffn=3072)
SMOLLM2_135M = Sizes(30, 576, 1536, 9, 3, 64, 49152, gated=True, rotary=True)


@dataclass
class Flops:
    """Work, by shape of the matrix products.

    Attributes:
        dense: how often each product with a weight matrix is done; fractions come from averages.
        batched: FLOPs of products between activations (attention), which have no shape in common.
    """

    dense: dict[Shape, float] = field(default_factory=dict)
    batched: float = 0.0

    def add(self, m: int, k: int, n: int, count: float = 1) -> None:
        """Count (m, k) times (k, n)."""
        if m:
            self.dense[m, k, n] = self.dense.get((m, k, n), 0) + count

    def grouped(self) -> list[tuple[int, int, int, float]]:
        """Dense products as (m, k, n, count)."""
        return [(*shape, count) for shape, count in self.dense.items()]

    @property
    def total(self) -> float:
        """FLOPs of everything."""
        return sum(2.0 * m * k * n * count for m, k, n, count in self.grouped()) + self.batched


@dataclass(frozen=True)
class Geometry:
    """Which rows a candidate changes, and what they attend to. A pair is one query with one key, all heads.

    Attributes:
        reads: N, one read position per example; None if every position is pooled.
        tokens: T.
        query_prompt: whether prompt rows ask (offset), or are only keys and values (prefix).
        rows: rows whose states change above the tuned layer.
        pairs: of the changed rows with all that they see.
        tuned_pairs: those of them that the prompt takes part in, the only new ones at the tuned layer.
        own_rows: changed rows that belong to one example; the read positions see each once.
        shared_rows: changed rows that all examples share; each read position sees all of them.
        kept_keys: keys that the read positions see and that no candidate changes.
    """

    reads: int | None
    tokens: int
    query_prompt: bool
    rows: int
    pairs: int
    tuned_pairs: int
    own_rows: int
    shared_rows: int
    kept_keys: int


def encoder_geometry(lengths: Sequence[int], tokens: int, kind: Kind, pooled: bool = False) -> Geometry:
    """Rows and pairs of an encoder, where everything sees everything.

    Args:
        lengths: tokens of each example, without prompt and padding.
        tokens: T.
        kind: of the prompt.
        pooled: a sentence encoder, which needs all positions of the last layer.
    """
    offset = kind == "offset"
    rows = [s + tokens if offset else s for s in lengths]  # a prefix has keys and values, but no rows
    total = sum(rows)
    return Geometry(
        reads=None if pooled else len(rows),
        tokens=tokens,
        query_prompt=offset,
        rows=total,
        pairs=sum(s * s if offset else s * (s + tokens) for s in rows),
        # Offset: all s^2 but text with text, s^2 - (s - T)^2. Prefix: each row with T keys.
        tuned_pairs=sum(tokens * (2 * s - tokens) if offset else s * tokens for s in rows),
        own_rows=total,
        shared_rows=0,
        kept_keys=0 if offset else len(rows) * tokens,
    )


def decoder_geometry(before: Sequence[int], behind: Sequence[int], tokens: int, kind: Kind, shared: bool) -> Geometry:
    """Rows and pairs of a causal model, read at the last row. Rows before the prompt never change.

    Args:
        before: tokens before the prompt in each example: leading special tokens, or the whole text.
        behind: tokens behind the prompt in each example: the text, or the end of the template.
        tokens: T.
        kind: of the prompt.
        shared: what stands before the prompt is the same in all examples, and so are the prompt's states then.
    """
    offset = kind == "offset"
    prompts = (before[:1] if shared else before) if offset else []  # examples with prompt rows of their own
    # Prompt rows see what stands before them, and half of the T^2 pairs among them.
    prompt_pairs = sum(tokens * b + tokens * (tokens + 1) // 2 for b in prompts)
    text_pairs = sum(r * (b + tokens) + r * (r + 1) // 2 for b, r in zip(before, behind, strict=True))
    text_rows, own_prompts = sum(behind), 0 if shared else len(prompts)
    return Geometry(
        reads=len(behind),
        tokens=tokens,
        query_prompt=offset,
        rows=len(prompts) * tokens + text_rows,
        pairs=prompt_pairs + text_pairs,
        tuned_pairs=prompt_pairs + text_rows * tokens,
        own_rows=text_rows + own_prompts * tokens,
        shared_rows=tokens if offset and shared else 0,
        kept_keys=sum(before) + (0 if offset else len(behind) * tokens),
    )


def limit_flops(sizes: Sizes, geometry: Geometry, words: int) -> Flops:
    """Least work of one candidate, averaged over the tuned layers.

    Args:
        sizes: of the model.
        geometry: of the train split.
        words: C, label words, or labels of a sentence encoder.
    """
    flops = Flops()
    last = sizes.layers - 1
    for tuned in range(sizes.layers):
        for layer in range(tuned, sizes.layers):
            count_layer = _layer if layer < last or geometry.reads is None else _last_layer
            count_layer(flops, sizes, geometry, layer == tuned)
        _head(flops, sizes, geometry, words)
    averaged = {shape: count / sizes.layers for shape, count in flops.dense.items()}
    return Flops(averaged, flops.batched / sizes.layers)


def _layer(flops: Flops, sizes: Sizes, geometry: Geometry, tuned: bool) -> None:
    """A layer that is needed at all positions."""
    # Queries, keys and values in one product: of the T prompt rows, without queries for a prefix; above, of all rows.
    queries = sizes.q_width if geometry.query_prompt or not tuned else 0
    flops.add(geometry.tokens if tuned else geometry.rows, sizes.hidden, queries + 2 * sizes.kv_width)
    # A score and a share of the mix are q_width multiply-adds each.
    flops.batched += 4.0 * sizes.q_width * (geometry.tuned_pairs if tuned else geometry.pairs)
    _output_and_ffn(flops, sizes, geometry.rows)


def _last_layer(flops: Flops, sizes: Sizes, geometry: Geometry, tuned: bool) -> None:
    """The last layer at the N read positions alone."""
    reads = geometry.reads or 0
    if tuned:
        # The read positions' queries are kept; new are keys and values of the T prompt rows, and the pairs with them.
        flops.add(geometry.tokens, sizes.hidden, 2 * sizes.kv_width)
        flops.batched += 4.0 * sizes.q_width * reads * geometry.tokens
    else:
        flops.add(reads, sizes.hidden, sizes.q_width)
        flops.batched += 4.0 * sizes.q_width * geometry.kept_keys
        for rows, pairs in (
            (geometry.own_rows, geometry.own_rows),
            (geometry.shared_rows, reads * geometry.shared_rows),
        ):
            _scores_or_mix(flops, sizes, rows, pairs, reads, must_project=sizes.rotary)  # keys
            _scores_or_mix(flops, sizes, rows, pairs, reads, must_project=False)  # values are never rotated
    _output_and_ffn(flops, sizes, reads)


def _scores_or_mix(flops: Flops, sizes: Sizes, rows: int, pairs: int, reads: int, must_project: bool) -> None:
    """Keys and scores of the read positions, or values and mix: the cheaper of two orders of the same products."""
    if not rows:
        return
    # rows x H x kv_width, then q_width multiply-adds a pair
    projected = 2.0 * rows * sizes.hidden * sizes.kv_width + 2.0 * pairs * sizes.q_width
    # W_k' q (or W_v of the mixed states) for each head of each read position, then H multiply-adds a pair and head
    by_states = 2.0 * reads * sizes.hidden * sizes.q_width + 2.0 * pairs * sizes.heads * sizes.hidden
    if must_project or projected < by_states:
        flops.add(rows, sizes.hidden, sizes.kv_width)
        flops.batched += 2.0 * pairs * sizes.q_width
    else:
        flops.batched += by_states


def _output_and_ffn(flops: Flops, sizes: Sizes, rows: int) -> None:
    """Attention output and feed-forward layer, 2 or (gated) 3 products of H x F."""
    flops.add(rows, sizes.q_width, sizes.hidden)
    flops.add(rows, sizes.hidden, (2 if sizes.gated else 1) * sizes.ffn)
    flops.add(rows, sizes.ffn, sizes.hidden)


def _head(flops: Flops, sizes: Sizes, geometry: Geometry, words: int) -> None:
    """The N read positions against C label words; pooled states meet C label embeddings and no dense head."""
    if geometry.reads is None:
        return  # N x H x C: nothing beside the layers
    if sizes.dense_head:
        flops.add(geometry.reads, sizes.hidden, sizes.hidden)
    flops.add(geometry.reads, sizes.hidden, words)


def official_flops(sizes: Sizes, lengths: Sequence[int], tokens: int = 50, dim: int = 500) -> Flops:
    """Work of one candidate of the official loop (``official.py``): all layers, all positions, padding included.

    Args:
        sizes: of a BERT, RoBERTa, GPT-2 or Llama.
        lengths: tokens of each example, without prompt and padding.
        tokens: T.
        dim: D of the projection from z to the tuned layer's prompt.
    """
    width = max(lengths) + tokens
    rows = len(lengths) * width
    flops = Flops()
    for _ in range(sizes.layers):
        flops.add(rows, sizes.hidden, sizes.q_width + 2 * sizes.kv_width)
        flops.batched += 4.0 * sizes.q_width * len(lengths) * width**2  # causal models mask half of them only later
        _output_and_ffn(flops, sizes, rows)
    if sizes.dense_head:
        flops.add(rows, sizes.hidden, sizes.hidden)
    flops.add(rows, sizes.hidden, sizes.vocabulary)
    flops.add(1, dim, tokens * sizes.hidden)
    return flops


def measured_peaks(shapes: Iterable[Shape], rounds: int = 3) -> dict[Weight, float]:
    """FLOP/s of this machine for each weight (k, n), on one thread in fp32, by the faster of two ways to do it.

    Rows are always 1,024: an evaluator may join the products of several candidates, and cut long ones, which are no
    faster and spill the caches. CPU time is taken, and of the rounds the best median, because other processes can
    only slow a round.
    """
    weights = sorted({(k, n) for _, k, n in shapes})
    with _one_thread(), torch.inference_mode():
        measured = [{(k, n): _peak(k, n) for k, n in weights} for _ in range(rounds)]
    return {weight: max(each[weight] for each in measured) for weight in weights}


def measured_seconds(flops: Flops, peaks: Mapping[Weight, float]) -> float:
    """CPU seconds of the work if every product ran at its peak, one after another on one thread.

    Products between activations are counted at the median peak of the dense ones, which their small shapes never
    reach: the limit stays a lower bound and excuses no evaluator.

    Args:
        flops: the work.
        peaks: FLOP/s by weight, of :func:`measured_peaks`.
    """
    dense = sum(2.0 * m * k * n * count / peaks[k, n] for m, k, n, count in flops.grouped())
    return dense + flops.batched / statistics.median(peaks[k, n] for k, n in {(k, n) for _, k, n in flops.dense})


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _peak(k: int, n: int) -> float:
    """FLOP/s of (1024, k) times (k, n) by the faster of two implementations."""
    x, weight = torch.randn(_ROWS, k), torch.randn(n, k)
    ways: list[Callable[[], torch.Tensor]] = [lambda: torch.nn.functional.linear(x, weight)]
    packed_linear = _packed_linear(x, weight)
    if packed_linear is not None:
        ways.append(packed_linear)
    return 2.0 * _ROWS * k * n / min(_median_seconds(way) for way in ways)


def _packed_linear(x: torch.Tensor, weight: torch.Tensor) -> Callable[[], torch.Tensor] | None:
    """oneDNN with the weight packed for it beforehand; a private interface of torch, so it may be missing."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, len(x))
        bias = torch.zeros(len(weight))
        torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return None
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def _median_seconds(run: Callable[[], torch.Tensor], at_least_s: float = 0.05) -> float:
    """Median CPU seconds over five or more calls, and ``at_least_s`` of them, after one to warm up."""
    run()
    seconds: list[float] = []
    while len(seconds) < 5 or sum(seconds) < at_least_s:
        start = time.thread_time()
        run()
        seconds.append(time.thread_time() - start)
    return statistics.median(seconds)


# Tokens of 16 examples per class with their template (BERT's vocabulary), without prompt.
# fmt: off
EXAMPLES = {
    "SST-2, 32 rows": [
        12, 13, 14, 15, 17, 18, 19, 19, 22, 24, 25, 25, 26, 27, 29, 29, 29, 30, 31, 34, 34, 34, 36, 37, 39, 39, 44, 48,
        55, 56, 59, 62,
    ],
    "AG News, 64 rows": [
        27, 36, 37, 38, 39, 40, 41, 41, 42, 43, 44, 44, 44, 44, 45, 45, 46, 46, 46, 47, 47, 48, 49, 50, 51, 51, 52, 53,
        54, 54, 54, 55, 55, 55, 56, 56, 56, 56, 58, 58, 59, 60, 60, 61, 61, 62, 62, 63, 63, 63, 64, 66, 66, 67, 68, 72,
        72, 74, 74, 76, 81, 82, 91, 100,
    ],
}
# fmt: on


def main() -> None:
    """Print the limit of one candidate with T = 50, beside the FLOPs of the official loop."""
    for model, sizes in (("MiniLM size", MINILM), ("BERT-base", BERT_BASE)):
        works = {
            (name, kind, pooled): limit_flops(sizes, encoder_geometry(lengths, 50, kind, pooled), len(lengths) // 16)
            for name, lengths in EXAMPLES.items()
            for kind in KINDS
            for pooled in (False, True)
        }
        peaks = measured_peaks(shape for flops in works.values() for shape in flops.dense)
        print(f"{model}, GFLOP/s: " + ", ".join(f"{k}x{n} {peak / 1e9:.0f}" for (k, n), peak in peaks.items()))
        for (name, kind, pooled), flops in works.items():
            official = official_flops(sizes, EXAMPLES[name]).total
            print(
                f"  {name}, {kind}, {'all positions' if pooled else 'one position'}: {flops.total / 1e9:.2f} GFLOP "
                f"(official {official / 1e9:.1f}, {official / flops.total:.1f} times as many), "
                f"limit {measured_seconds(flops, peaks):.4f} s"
            )


if __name__ == "__main__":
    main()
