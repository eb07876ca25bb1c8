"""What a call of an evaluator costs; known before the call, so that a budget can refuse it."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Sizes:
    """The numbers that decide what a call costs.

    Attributes:
        train: examples of the train split.
        dev: examples of the dev split.
        layers: tuned layers of the model, in the order of z.
        depth: number of layers of the model.
    """

    train: int
    dev: int
    layers: tuple[int, ...]
    depth: int

    def layer_forwards(self, texts: int, candidates: int, first: int = 0) -> int:
        """Layer-forwards of one call: texts times layers that run.

        The layers below the first tuned one in which candidates may differ run once for all of them, those from it
        upwards once per candidate. The lower part counts in every call, also where its states were kept from an
        earlier one: one evaluator never runs more than this, once texts are prepared (those of a part of the examples
        are when it is first asked for, at up to twice the cost of a candidate). Several evaluators each prepare and run
        the lower part for themselves, which does not count: the figure, like the trace, does not depend on their
        number.

        Args:
            texts: N, that each candidate is run on.
            candidates: P.
            first: index, into the tuned layers, of the lowest layer in which the candidates may differ.
        """
        if not candidates:
            return 0
        below = self.layers[first]
        return texts * (candidates * (self.depth - below) + below)


@dataclass(frozen=True)
class Spent:
    """What was paid to an API.

    Attributes:
        requests: sent, failed and repeated ones included.
        cached: answers that the cache gave instead.
        input_tokens, output_tokens: that were charged; of a request whose answer was lost, the most it can have cost.
        dollars: at the prices of the job.
    """

    requests: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*(mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))
