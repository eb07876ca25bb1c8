"""One prompt on one model as one would write it: transformers, hooks, FastAPI. What `bbtune serve` is measured against.

python benchmarks/plain_server.py MODEL_FOLDER PROMPT.safetensors PORT [--threads N]

The prompt file is made by benchmarks/serving.py: hidden states by layer, and embeddings of the labels.
"""

from __future__ import annotations

import argparse
import os
import threading
from typing import Any

import torch
import transformers
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from safetensors import safe_open


class Body(BaseModel):
    """As of `bbtune serve`."""

    prompt: str
    texts: list[str]


class Classifier:
    """A sentence encoder with a prefix in its hidden states, read by cosines with the labels."""

    def __init__(self, model: str, prompt: str) -> None:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        self.model = transformers.AutoModel.from_pretrained(model).eval()
        with safe_open(prompt, "pt") as file:
            told = file.metadata()
            layers = [file.get_tensor(f"layer.{i}") for i in range(int(told["layers"]))]
            self.embeddings = torch.nn.functional.normalize(file.get_tensor("labels"), dim=-1)
        self.labels, self.temperature = told["labels"].split("\n"), float(told["temperature"])
        self.tokens = len(layers[0])
        for layer, values in zip(self.model.encoder.layer, layers, strict=True):
            layer.register_forward_pre_hook(self._setting(values))

    def _setting(self, values: torch.Tensor) -> Any:
        def hook(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            hidden = args[0].clone()
            hidden[:, 1 : 1 + self.tokens] = values  # behind [CLS]
            return (hidden, *args[1:])

        return hook

    @torch.inference_mode()
    def classify(self, text: str) -> dict[str, Any]:
        """One text, one forward."""
        ids = self.tokenizer(text, truncation=True, max_length=256 - self.tokens)["input_ids"]
        states = self.model(torch.tensor([[ids[0], *[0] * self.tokens, *ids[1:]]])).last_hidden_state[0]
        mean = torch.cat([states[:1], states[1 + self.tokens :]]).mean(dim=0)
        logits = self.embeddings @ torch.nn.functional.normalize(mean, dim=0) / self.temperature
        by_label = dict(zip(self.labels, logits.softmax(dim=0).tolist(), strict=True))
        label = max(by_label, key=by_label.__getitem__)
        return {"label": label, "probability": by_label[label], "probabilities": by_label}


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("prompt")
    parser.add_argument("port", type=int)
    parser.add_argument("--threads", type=int)
    told = parser.parse_args()
    if told.threads:
        torch.set_num_threads(told.threads)
    classifier, app = Classifier(told.model, told.prompt), FastAPI()
    free = threading.Semaphore(max(1, (os.cpu_count() or 1) // torch.get_num_threads()))  # more would only disturb

    @app.get("/healthz")
    def healthz() -> str:
        return "ok"

    @app.post("/v1/classify")
    def classify(body: Body) -> dict[str, Any]:
        with free:
            return {"prompt": body.prompt, "predictions": [classifier.classify(text) for text in body.texts]}

    uvicorn.run(app, port=told.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
