"""Several searches that run side by side and are handed out as one, their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bbtune.optimizers.base import Array, Upcoming
from bbtune.search import Proposal, Scored, Search


class FusedSearch:
    """Members take turns, a round of probes and steps or a generation each; the incumbent is the mean of theirs.

    Few examples let every search overfit in its own direction; what members share is what the examples say.

    Args:
        members: searches of the same z with different seeds.
    """

    def __init__(self, members: Sequence[Search]) -> None:
        self._members = list(members)
        self._turn = 0

    @property
    def incumbent(self) -> Array:
        """The present z (L, D): the mean of those of the members that have moved from the start."""
        found = [member.incumbent for member in self._members]
        return np.asarray(np.mean([z for z in found if z.any()] or found, axis=0))

    @property
    def uses_logits(self) -> bool:
        """Whether tell reads the label logits."""
        return any(member.uses_logits for member in self._members)

    @property
    def upcoming(self) -> Upcoming:
        """What the next ask will be."""
        return self._members[self._turn].upcoming

    def ask(self) -> Proposal:
        """The next candidates, of the member whose turn it is."""
        return self._members[self._turn].ask()

    def tell(self, proposal: Proposal, scores: Scored) -> None:
        """Take the scores of a proposal; after probes the same member goes on."""
        self._members[self._turn].tell(proposal, scores)
        if proposal.probing:
            return
        order = [(self._turn + i) % len(self._members) for i in range(1, len(self._members) + 1)]
        self._turn = next((i for i in order if not self._members[i].stop_reasons()), self._turn)

    def stop_reasons(self) -> dict[str, object]:
        """The members' reasons, once all of them would stop."""
        ends = [member.stop_reasons() for member in self._members]
        return {next(iter(ends[0])): ends} if all(ends) else {}
