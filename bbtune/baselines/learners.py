"""Names of gradient-trained baselines, and what each trains."""

from __future__ import annotations

from collections.abc import Callable

from bbtune.baselines.heads import BiLstm, Mlp
from bbtune.baselines.learner import Learner
from bbtune.baselines.prompts import DeepPrompts, DePT, LowRankPrompt, PrefixTuning, PromptTuning
from bbtune.baselines.weights import IA3, Adapters, BitFit, FineTuning, LoRA
from bbtune.plan import Plan
from bbtune.spec import BaselineJob

LEARNERS: dict[str, Callable[[Plan], Learner]] = {
    "prompt-tuning": PromptTuning,
    "deep-prompts": DeepPrompts,
    "low-rank-prompt": LowRankPrompt,
    "dept": DePT,
    "prefix-tuning": PrefixTuning,
    "bitfit": BitFit,
    "lora": LoRA,
    "ia3": IA3,
    "adapter": Adapters,
    "fine-tuning": FineTuning,
    "mlp": Mlp,
    "bilstm": BiLstm,
}


def make_learner(plan: Plan) -> Learner:
    """The learner of a job's method."""
    assert isinstance(plan.spec, BaselineJob)  # for mypy: searches have none
    return LEARNERS[plan.spec.method.name](plan)
