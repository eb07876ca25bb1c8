"""Texts of different lengths in one row of positions, without padding; attention runs text by text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import torch
from torch import Tensor
from torch.nn import functional


class Run:
    """Neighbouring texts of one length: ``count`` from text ``first`` on, ``length`` rows each, from row ``start``."""

    def __init__(self, first: int, start: int, count: int, length: int) -> None:
        self.first = first
        self.start = start
        self.count = count
        self.length = length

    def split(self, packed: Tensor) -> Tensor:
        """(P, R, ...) as (P * count, length, ...); a view where P is 1."""
        rows = packed[:, self.start : self.start + self.count * self.length]
        return rows.reshape(len(packed) * self.count, self.length, *packed.shape[2:])

    def inside(self, packed: Tensor) -> Tensor:
        """(P, R, ...) as a view (P, count, length, ...)."""
        rows = packed[:, self.start : self.start + self.count * self.length]
        return rows.view(len(packed), self.count, self.length, *packed.shape[2:])

    def put(self, packed: Tensor, found: Tensor) -> None:
        """Write (P * count, length, ...) into (P, R, ...)."""
        inside = self.inside(packed)
        inside[:] = found.reshape(inside.shape)

    def put_texts(self, per_text: Tensor, found: Tensor) -> None:
        """Write (P * count, ...) into (P, N, ...)."""
        inside = per_text[:, self.first : self.first + self.count]
        inside[:] = found.reshape(inside.shape)

    def of_texts(self, per_text: Tensor) -> Tensor:
        """(P, N, ...) as (P * count, ...)."""
        return per_text[:, self.first : self.first + self.count].reshape(-1, *per_text.shape[2:])


class Packing:
    """Where each text stands.

    Args:
        lengths: rows of each text, in order.
        behind: rows that stand before each text elsewhere; texts of one run are alike in both.
    """

    def __init__(self, lengths: Sequence[int], behind: Sequence[int] | None = None) -> None:
        self.lengths = list(lengths)
        self.rows = sum(self.lengths)
        self.starts = [0, *accumulate(self.lengths)][:-1]
        self.behind = list(behind) if behind is not None else [0] * len(self.lengths)
        self.runs: list[Run] = []
        for (length, _), group in groupby(range(len(self.lengths)), key=lambda i: (self.lengths[i], self.behind[i])):
            texts = list(group)
            self.runs.append(Run(texts[0], self.starts[texts[0]], len(texts), length))

    def positions(self, within: Sequence[int]) -> Tensor:
        """Rows (N,) of one place in every text."""
        return torch.tensor([start + place for start, place in zip(self.starts, within, strict=True)])

    def gather(self, padded: Tensor, mask: Tensor, into: Tensor, first: int) -> None:
        """Put the unmasked rows of right-padded texts (B, S, H), the ``first``-th on, into packed rows (R, H)."""
        rows = padded[mask]
        start = self.starts[first]
        into[start : start + len(rows)] = rows

    def means(self, packed: Tensor) -> Tensor:
        """Means (P, N, H) over the rows of each text of (P, R, H), as float32."""
        found = [run.inside(packed).float().mean(dim=2) for run in self.runs]
        return torch.cat(found, dim=1)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Softmax attention: q (B, S, h, d) on k, v (B, K, h, d) -> (B, S, h * d)."""
    out = functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=scale
    )
    return out.transpose(1, 2).reshape(*q.shape[:2], -1)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of ``size`` that cover ``count``."""
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))
