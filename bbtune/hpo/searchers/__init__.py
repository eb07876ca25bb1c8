"""Searchers over a space, by name."""

from __future__ import annotations

from bbtune.hpo.searchers.base import Searcher
from bbtune.hpo.searchers.bayes import BayesianSearcher
from bbtune.hpo.searchers.nevergrad import NevergradSearcher
from bbtune.hpo.searchers.optuna import OptunaSearcher
from bbtune.hpo.searchers.random import RandomSearcher

SEARCHERS: dict[str, type[Searcher]] = {
    "random": RandomSearcher,
    "optuna": OptunaSearcher,
    "nevergrad": NevergradSearcher,
    "bayes": BayesianSearcher,
}
