"""Weights that are trained inside a model: its biases, thin matrices or factors beside its own, or all of them."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbtune.backbone.families import PostNorm
from bbtune.backbone.frozen import FrozenModel
from bbtune.baselines.learner import TextLearner, import_peft, rank_of, torch_seeded, width_of
from bbtune.errors import BackboneError
from bbtune.plan import Plan
from bbtune.task.task import Example


class BitFit(TextLearner):
    """Every bias of the layers, norms among them (Zaken et al. 2022, arXiv 2106.10199)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, with_prompt=False)
        weights = [pair for layer in self.frozen.layers for pair in layer.named_parameters()]
        biases = [weight for name, weight in weights if name.rsplit(".", 1)[-1] == "bias"]
        if not biases:
            got = self.frozen.card.config.model_type
            raise BackboneError(f"method: bitfit expected a model whose layers have biases, got {got}; use lora or ia3")
        for weight in biases:
            weight.requires_grad_(True)


class LoRA(TextLearner):
    """Products of rank r beside the linear maps that peft chooses for the model (Hu et al. 2022, arXiv 2106.09685).

    Where peft knows no default, every linear map of the layers has one. They are added as they are (alpha = r).
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, with_prompt=False)
        peft, rank = import_peft(), rank_of(plan)
        known = peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
        targets = known.get(self.frozen.card.config.model_type) or _names(self.frozen, _linear_maps(self.frozen))
        transposed = _transposed(self.frozen)
        config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, fan_in_fan_out=transposed)
        _inject(plan, config, self.frozen)


class IA3(TextLearner):
    """Factors of keys, values and hidden units of the feed-forward part (Liu et al. 2022, arXiv 2205.05638).

    They start at one. Which maps have them is peft's choice, or goes by the layout of the layers.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, with_prompt=False)
        peft = import_peft()
        targets, feedforward = _ia3_targets(peft, self.frozen)
        config = peft.IA3Config(
            target_modules=targets, feedforward_modules=feedforward, fan_in_fan_out=_transposed(self.frozen)
        )
        _inject(plan, config, self.frozen)


class Adapters(TextLearner):
    """A bottleneck ``h + up(gelu(down(h)))`` (Houlsby et al. 2019, arXiv 1902.00751) behind every layer.

    One per layer, behind its feed-forward part, as in Pfeiffer et al. 2021 (arXiv 2005.00247). ``up`` starts at zero.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, with_prompt=False)
        size, width = self.frozen.hidden_size, width_of(plan)
        with torch_seeded(plan.spec.seed, "adapter"):
            adapters = [_Bottleneck(size, width) for _ in self.frozen.layers]
        self.adapters = nn.ModuleList(adapters).to(self.frozen.device)
        for layer, adapter in zip(self.frozen.layers, adapters, strict=True):
            layer.register_forward_hook(_behind(adapter))


class FineTuning(TextLearner):
    """Every weight of the model that its states depend on: embeddings, layers, norms, a decoder.

    The head stays as it is, with the label words cut out of its vocabulary (or the labels' embeddings) at the start,
    also where the vocabulary shares its weights with the embeddings.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, with_prompt=False)
        weights = list(self.frozen.body.parameters())
        for weight in weights:
            weight.requires_grad_(True)
        logits = self(self.prepare([Example("a", "a" if plan.kind == "pair" else None, 0)]))
        # Poolers and the like are part of the body, and nothing that is read depends on them.
        gradients = torch.autograd.grad(logits.sum(), weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.requires_grad_(gradient is not None)


class _Bottleneck(nn.Module):
    """Hidden states (..., H) changed by way of a few hidden units."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(size, width), nn.Linear(width, size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        change: Tensor = self.up(functional.gelu(self.down(hidden.float())))
        return hidden + change.to(hidden.dtype)


def _behind(adapter: nn.Module) -> Callable[..., Any]:
    """A forward hook that changes what a layer returns."""

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)

    return hook


def _inject(plan: Plan, config: Any, frozen: FrozenModel) -> None:
    """Put peft's weights into the model; they are float32 whatever the model's are, and they alone are trained."""
    with torch_seeded(plan.spec.seed, config.peft_type.value):
        import_peft().inject_adapter_in_model(config, frozen.model)
    for weight in frozen.model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    frozen.model.eval()


def _ia3_targets(peft: Any, frozen: FrozenModel) -> tuple[list[str], list[str]]:
    """Names of the maps that have factors, and those of them that belong to a feed-forward part."""
    kind, layout = frozen.card.config.model_type, frozen.card.family.layout
    targets = peft.utils.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(kind)
    feedforward = peft.utils.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind)
    if targets and feedforward:
        return targets, feedforward
    if not isinstance(layout, PostNorm):
        expected = "expected a model whose key, value and feed-forward maps are known"
        raise BackboneError(f"method: ia3 {expected}, got {kind}; use lora, which fits every model")
    down = [attrgetter(layout.down)(layer) for layer in frozen.layers]
    others = [attrgetter(name)(layer) for layer in frozen.layers for name in (layout.key, layout.value)]
    return _names(frozen, [*others, *down]), _names(frozen, down)


def _linear_maps(frozen: FrozenModel) -> list[nn.Module]:
    return [part for layer in frozen.layers for part in layer.modules() if isinstance(part, nn.Linear)]


def _names(frozen: FrozenModel, parts: list[nn.Module]) -> list[str]:
    """Full names of some parts of the model."""
    wanted = {id(part) for part in parts}
    return [name for name, part in frozen.model.named_modules() if id(part) in wanted]


def _transposed(frozen: FrozenModel) -> bool:
    """Whether linear maps keep their weights as (in, out), as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(part, Conv1D) for layer in frozen.layers for part in layer.modules())
