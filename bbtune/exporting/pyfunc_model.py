"""The code that MLflow runs where an exported run answers: models from code, no pickle."""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModelContext


class TunedPrompt(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A frozen model with what a run has learned."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model, once."""
        from bbtune.exporting.pyfunc import restored

        self.predictor = restored(context.artifacts)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A label, and its probability among the labels, or an answer in words, for each row of texts."""
        rows = [tuple(row) for row in model_input.itertuples(index=False)]
        found = self.predictor.predict(rows)
        answers = pd.DataFrame({"label": [one.label for one in found]})
        if found and found[0].probability is None:
            return answers
        return answers.assign(probability=[one.probability for one in found])


mlflow.models.set_model(TunedPrompt())
