"""Our searches as an optimizer of MLflow's, by way of ``mlflow.genai.optimize_prompts`` itself."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.genai.optimize.types import EvaluationResultRecord
from mlflow.genai.scorers import scorer

from bbtune.errors import BbtuneError, EvaluationError, OptimizerError, TaskError
from bbtune.mlflow_optimizer import TextSearchOptimizer
from bbtune.text_search.writer import Ask

# MLflow warns of itself: when its modules are imported, and when it logs the train data.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{said}:UserWarning")
    for said in ("Any type hint is inferred", "dataset source can be interpreted in multiple ways")
]

WANTED = ("Read the review,", "weigh its words,", "and judge in one word.")
GIVEN = ["Read the review, be polite.", "be polite, and judge in one word.", "weigh its words, please."]
TEMPLATE = "Be polite.\n\nReview: {{ text }}\nAnswer:"
TEXTS = [("a great film", "good"), ("a dull film", "bad"), ("great sound", "good"), ("dull and long", "bad")]
TRAIN = [{"inputs": {"text": text}, "expectations": {"label": label}} for text, label in TEXTS]
NAMES = (f"prompt-{number}" for number in count(1))


@scorer
def accuracy(outputs: Any, expectations: Any) -> float:
    return float(outputs == expectations["label"])


@scorer
def certainty(outputs: Any) -> float:
    return 0.0 if outputs == "unsure" else 1.0


@pytest.fixture(autouse=True)
def _in_the_database(mlflow_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow does by default goes to the database of the session, and to an experiment of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)


def answering(name: str) -> Callable[[str], str]:
    """A model that reads one more kind of text for every wanted phrase of its prompt."""
    prompt = mlflow.genai.load_prompt(f"prompts:/{name}/1")

    def predict(text: str) -> str:
        asked = prompt.format(text=text)
        known = sum(phrase in asked for phrase in WANTED)
        sure = [example for example, _ in TEXTS][: known + 1]
        return (
            ("good" if "great" in text else "bad") if text in sure and f"Review: {text}\nAnswer:" in asked else "unsure"
        )

    return predict


def optimized(optimizer: TextSearchOptimizer, name: str | None = None, **more: Any) -> Any:
    """The result, and the template that was found."""
    name = name or next(NAMES)
    uri = mlflow.genai.register_prompt(name=name, template=TEMPLATE).uri
    call: dict[str, Any] = {"predict_fn": answering(name), "train_data": TRAIN, "scorers": [accuracy, certainty]}
    result = mlflow.genai.optimize_prompts(prompt_uris=[uri], optimizer=optimizer, **call | more)
    return result, result.optimized_prompts[0].template


def genetic(name: str, **more: Any) -> TextSearchOptimizer:
    settings = {"population": 6, "evaluations": 24, "instructions": {name: GIVEN}}
    return TextSearchOptimizer("genetic", **settings | more)


class Sums:
    """MLflow's function without MLflow: the share of wanted phrases in all prompts; it counts what it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], list[int]]] = []

    def __call__(self, prompts: dict[str, str], records: list[dict[str, Any]]) -> list[EvaluationResultRecord]:
        self.calls.append((prompts, [record["number"] for record in records]))
        score = sum(phrase in text for text in prompts.values() for phrase in WANTED) / (len(WANTED) * len(prompts))
        return [EvaluationResultRecord({}, "an answer", {}, score, None, {}, {"sums": score}) for _ in records]


PAGE = (Path(__file__).parents[1] / "docs" / "mlflow.md").read_text()
LOADING, OPTIMIZING = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
RECORDS = [{"number": number} for number in range(6)]


def test_a_search_betters_a_prompt_and_mlflow_shows_how(tmp_path: Path) -> None:
    name = next(NAMES)
    result, template = optimized(genetic(name), name)
    assert result.initial_eval_score == pytest.approx(0.25)
    assert result.final_eval_score > 0.7
    assert sum(phrase in template for phrase in WANTED) >= 2
    assert template.endswith("\n\nReview: {{ text }}\nAnswer:")
    assert result.optimizer_name == "TextSearchOptimizer"
    assert result.final_eval_score_per_scorer["accuracy"] == result.final_eval_score
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name(tmp_path.name).experiment_id])
    curve = client.get_metric_history(run.info.run_id, "eval_score")
    values = [point.value for point in curve]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (result.initial_eval_score, result.final_eval_score)
    assert [point.step for point in curve] == [0, 6, 12, 18, 24][: len(curve)]
    assert run.data.metrics["final_eval_score"] == result.final_eval_score
    assert run.data.metrics["eval_score.accuracy"] == result.final_eval_score
    assert run.data.params["bbtune.search"] == "genetic"
    assert run.data.params["optimizer"] == "TextSearchOptimizer"
    assert mlflow.genai.load_prompt(f"prompts:/{name}/2").template == template


def test_without_tracking_mlflow_has_no_run(tmp_path: Path) -> None:
    name = next(NAMES)
    optimized(genetic(name, evaluations=6), name, enable_tracking=False)
    assert mlflow.search_runs(experiment_names=[tmp_path.name]).empty


def test_nothing_is_asked_over_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(_: Any, address: Any) -> None:
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    name = next(NAMES)
    optimized(genetic(name, evaluations=6), name)
    assert asked == []


def test_the_same_seed_finds_the_same_prompt_by_the_same_way() -> None:
    ways = []
    for seed in (1, 1, 2):
        sums = Sums()
        settings: dict[str, Any] = {"population": 4, "evaluations": 24, "instructions": {"p": GIVEN}, "seed": seed}
        found = TextSearchOptimizer("edits", **settings).optimize(sums, RECORDS, {"p": TEMPLATE}, False)
        ways.append((sums.calls, found))
    assert ways[0] == ways[1]
    assert ways[0][0] != ways[2][0]


def test_every_candidate_keeps_its_variables_and_is_asked_once_on_every_example() -> None:
    sums = Sums()
    optimizer = TextSearchOptimizer(population=4, evaluations=40, minibatch=2, instructions={"p": GIVEN})
    optimizer.optimize(sums, RECORDS, {"p": TEMPLATE}, False)
    assert all(prompts["p"].endswith("Review: {{ text }}\nAnswer:") for prompts, _ in sums.calls)
    pairs = [(prompts["p"], number) for prompts, numbers in sums.calls for number in numbers]
    assert len(set(pairs)) == len(pairs)
    assert sums.calls[0] == ({"p": TEMPLATE}, list(range(6)))  # the prompt as it was
    assert sum(len(numbers) == 2 for _, numbers in sums.calls) > 5


def test_several_prompts_are_tuned_in_turn_within_one_budget() -> None:
    sums, prompts = Sums(), {"one": "Be polite. {{ a }}", "two": "Be kind. {{ b }}"}
    optimizer = TextSearchOptimizer(population=5, evaluations=60, instructions=dict.fromkeys(prompts, GIVEN))
    found = optimizer.optimize(sums, RECORDS, prompts, False)
    assert found.initial_eval_score == 0.0
    assert found.final_eval_score > 0.6
    changed = [{name for name in prompts if asked[name] != prompts[name]} for asked, _ in sums.calls]
    turn = next(i for i, names in enumerate(changed) if "two" in names)
    assert all(names <= {"one"} for names in changed[:turn])
    assert {asked["one"] for asked, _ in sums.calls[turn:]} == {found.optimized_prompts["one"]}
    assert len(sums.calls) <= 60


@pytest.mark.parametrize("search", ["genetic", "edits", "policy-gradient", "random"])
def test_every_search_serves(search: str) -> None:
    optimizer = TextSearchOptimizer(search, population=3, evaluations=12, instructions={"p": [*GIVEN, *WANTED]})
    found = optimizer.optimize(Sums(), RECORDS, {"p": TEMPLATE}, False)
    assert found.final_eval_score > found.initial_eval_score


def test_a_writer_is_asked_and_brings_no_variables() -> None:
    class Inserting:
        asks = 0

        def write(self, asks: list[Ask]) -> list[str]:
            self.asks += len(asks)
            return [" ".join(WANTED) if ask.seed % 2 else "{{ answer }}" for ask in asks]

    sums, writer = Sums(), Inserting()
    found = TextSearchOptimizer(population=4, evaluations=24, writer=writer).optimize(
        sums, RECORDS, {"p": TEMPLATE}, False
    )
    assert writer.asks > 0
    assert found.final_eval_score == 1.0
    assert not any("answer" in prompts["p"] for prompts, _ in sums.calls)


def test_a_prompt_that_is_the_best_already_stays_as_it_was() -> None:
    best = f"{' '.join(WANTED)}\n\n{{{{ text }}}}"
    found = TextSearchOptimizer(population=4, evaluations=16).optimize(Sums(), RECORDS, {"p": best}, False)
    assert found.optimized_prompts == {"p": best}
    assert found.final_eval_score == found.initial_eval_score == 1.0


def test_a_predict_fn_that_fails_is_no_bad_prompt() -> None:
    name = next(NAMES)

    def fails(text: str) -> str:
        if "dull" in text:
            raise ConnectionError("http://someone:hunter2@of-the-tests is gone")
        return mlflow.genai.load_prompt(f"prompts:/{name}/1").format(text=text)

    with pytest.raises(EvaluationError, match=r"expected an answer of predict_fn, it failed with .* is gone") as caught:
        optimized(genetic(name, evaluations=6), name, predict_fn=fails)
    assert "hunter2" not in str(caught.value)


def test_what_mlflow_cannot_log_ends_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise ConnectionError("the server is gone")

    for name in ("log_metrics", "log_params"):
        monkeypatch.setattr(mlflow, name, gone)
    optimizer = TextSearchOptimizer(population=4, evaluations=8, instructions={"p": GIVEN})
    assert optimizer.optimize(Sums(), RECORDS, {"p": TEMPLATE}, True).final_eval_score > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"search": "genetics"}, 'did you mean "genetic"'),
        ({"population": 1}, "population: expected"),
        ({"population": 8, "evaluations": 7}, "evaluations: expected at least 8, got 7"),
        ({"minibatch": 0}, "minibatch: expected"),
    ],
)
def test_settings_out_of_range_are_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(OptimizerError, match=said):
        TextSearchOptimizer(**settings)


@pytest.mark.parametrize(
    ("settings", "prompts", "said"),
    [
        ({"instructions": {"q": ["Be kind."]}}, {"p": TEMPLATE}, "expected names of the prompts .* p, got 'q'"),
        ({"instructions": {"p": ["Be {{ kind }}."]}}, {"p": TEMPLATE}, "expected plain text, variables stay"),
        ({"search": "random"}, {"p": TEMPLATE}, "random expected instructions .* got 'Be polite.' alone; give"),
        ({}, {"p": "{{ text }}"}, "genetic expected instructions to make others from, got none; give"),
        ({"search": "instruct-zero"}, {"p": TEMPLATE}, "expected a writer"),
        ({"evaluations": 15}, {"p": TEMPLATE, "q": TEMPLATE}, "at least 16, one generation for each of 2, got 15"),
    ],
)
def test_prompts_that_leave_nothing_to_search_are_told(
    settings: dict[str, Any], prompts: dict[str, str], said: str
) -> None:
    sums = Sums()
    with pytest.raises(OptimizerError, match=said):
        TextSearchOptimizer(**settings).optimize(sums, RECORDS, prompts, False)
    assert sums.calls == []


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ({"train_data": [], "scorers": []}, TaskError, "expected train_data and scorers"),
        ({"scorers": None}, EvaluationError, "expected a number of the scorers, got None"),
    ],
)
def test_a_call_without_train_data_or_scorers_is_told(
    call: dict[str, Any], error: type[BbtuneError], said: str
) -> None:
    name = next(NAMES)
    with pytest.raises(error, match=said):
        optimized(genetic(name, evaluations=6), name, **call)


def test_the_example_of_the_docs_finds_a_better_prompt() -> None:
    scope: dict[str, Any] = {"__name__": "example"}
    exec(OPTIMIZING, scope)
    assert scope["result"].initial_eval_score == 0.0
    assert scope["result"].final_eval_score == 1.0
    assert scope["best"].template.endswith("\n\nReview: {{ text }}\nAnswer:")


def test_what_the_docs_load_is_the_version_with_the_alias() -> None:
    client = mlflow.MlflowClient()
    version = client.register_prompt("reviews", "Be brief. {{ text }}").version
    client.set_prompt_alias("reviews", "tuned", version)
    scope: dict[str, Any] = {}
    exec(LOADING, scope)
    assert scope["asked"] == "Be brief. A film to remember."
