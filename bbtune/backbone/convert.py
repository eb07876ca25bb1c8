"""Write a GGUF model once more as a safetensors folder, so that it loads in a second."""

from __future__ import annotations

from pathlib import Path

from bbtune.backbone.quiet import quiet_transformers
from bbtune.errors import BackboneError
from bbtune.files import replaced


def gguf_to_safetensors(gguf: Path, folder: Path) -> None:
    """Dequantise ``gguf`` to float32 and save model and tokenizer in ``folder``.

    Raises:
        BackboneError: if the packages for GGUF are not installed.
    """
    quiet_transformers()
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (ImportError, ValueError) as error:
        raise BackboneError(f"reading {gguf.name} failed ({error}); pip install gguf accelerate") from error
    config = model.config
    config.architectures = [type(model).__name__]
    config.__dict__.pop("quantization_config", None)  # the weights are plain numbers now
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tied = getattr(config, "tie_word_embeddings", False)
    weights = {
        name: t.contiguous() for name, t in model.state_dict().items() if not (tied and name == "lm_head.weight")
    }
    with replaced(folder / "model.safetensors") as part:  # last, so that a folder with weights is a whole one
        save_file(weights, part, metadata={"format": "pt"})
