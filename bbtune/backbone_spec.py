"""What a job says of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from bbtune.endpoint_spec import ApiSpec
from bbtune.methods import Part, filled_in
from bbtune.source_names import ModelSource


class BackboneSpec(Part):
    """The frozen model, here or behind an API; given both, the one here has the other's tokenizer and embeddings."""

    model_config = ConfigDict(json_schema_extra=filled_in("model", given={"required": ["api"]}))

    model: ModelSource | None
    """`hf:NAME`, `path:DIR` or `path:FILE.gguf`, `package:NAME`, `cache:NAME`; required without `api`."""
    api: ApiSpec | None = None
    """A model that is only asked, in place of `model`."""
    kind: Literal["auto", "masked-lm", "causal-lm", "seq2seq-lm", "sentence-encoder"] = "auto"
    """What the model is; `auto` goes by its configuration."""
    revision: str | None = None
    """Of an `hf:` model."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights."""
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    """`cpu`, `cuda`, `cuda:1`; with actors, set `evaluators.gpus` too."""
    max_tokens: Annotated[int, Field(ge=8)] = 256
    """Of a row; example texts are cut at their end, templates never."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Divides the cosines of a sentence encoder."""
    trust_remote_code: bool = False
    """Runs code that comes with a model; say yes only to sources that you trust."""
    allow_pickle: bool = False
    """Reads weights that are pickles; say yes only to sources that you trust."""

    @model_validator(mode="before")
    @classmethod
    def _model_may_be_remote(cls, raw: Any) -> Any:
        return {"model": None, **raw} if isinstance(raw, Mapping) and raw.get("api") is not None else raw

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.model is None and self.api is None:
            raise ValueError("expected model (one that is loaded here) or api (one that is asked), got neither")
        return self

    @property
    def named(self) -> str:
        """The model in a few words."""
        return self.api.place if self.api else str(self.model)
