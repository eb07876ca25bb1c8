"""The HTTP interface of a replica, without Ray: its answers, its refusals, and prompts that come and go."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load_file, save_file
from served_runs import finished_run, pair_task, untuned_job

from bbtune import export
from bbtune.errors import BbtuneError
from bbtune.result import LEARNED, TuneResult
from bbtune.serving.book import Book
from bbtune.serving.door import while_there
from bbtune.serving.place import server_folder
from bbtune.serving.refusal import Refusal
from bbtune.serving.replica import make
from bbtune.serving.runs import fill
from bbtune.serving.server import up
from bbtune.serving.settings import BOOK, KEY, LOG, Front, Limits, Settings, Wish
from bbtune.task.task import Example
from bbtune.tuned import tuned

SECRET = "a-key-of-this-test"
LOCAL = "http://127.0.0.1:8000"
SMALL = Limits(body_bytes=2_000, texts=5, characters=60, batch_texts=4, waiting_texts=8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, make_job, tiny_task, tiny_models) -> dict[str, Path]:
    """Finished runs by name: three of one model, one of another."""
    root = tmp_path_factory.mktemp("runs")
    budget = {"budget": {"evaluations": 8}, "evaluators": {"count": 0}}
    pairs = {"source": f"folder:{pair_task(root / 'pairs')}"}
    return {
        "prefix": finished_run(root / "prefix", make_job("bert", **budget, prompt={"kind": "prefix"})),
        "offset": finished_run(root / "offset", make_job("bert", **budget, prompt={"kind": "offset"}, seed=5)),
        "pair": finished_run(root / "pair", make_job("bert", **budget, task=pairs)),
        "other": finished_run(root / "other", make_job("roberta", **budget)),
        "untuned": finished_run(root / "untuned", untuned_job(tiny_task, tiny_models["bert"])),
    }


def app_of(folder: Path, runs: dict[str, Path], *names: str, key: bool = True, limits: Limits = SMALL) -> Any:
    """The app of a fresh server with some of the runs."""
    (folder / KEY).write_text(SECRET)
    fill(Book(folder / BOOK), [f"{name}={runs[name]}" for name in names])
    return make(Settings(folder, key, limits, Front()))


@pytest.fixture
def client(tmp_path, runs) -> Iterator[TestClient]:
    """Asks a replica with two prompts for texts and one for pairs, and shows the key."""
    app = app_of(tmp_path, runs, "prefix", "offset", "pair")
    with TestClient(app, headers={"Authorization": f"Bearer {SECRET}"}, raise_server_exceptions=False) as found:
        yield found


def classify(client: TestClient, prompt: str | None, *texts: Any) -> Any:
    body = {"texts": list(texts)} | ({} if prompt is None else {"prompt": prompt})
    return client.post("/v1/classify", json=body)


def message(answer: Any, status: int) -> str:
    """Of a refusal."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    return str(answer.json()["error"]["message"])


@pytest.mark.parametrize("name", ["prefix", "offset", "pair"])
def test_texts_get_the_labels_and_probabilities_of_their_prompt(client, runs, name):
    texts = [["a great film", "it was bad"], ["dull", "late"]] if name == "pair" else ["a great  film", "bad end"]
    answer = classify(client, name, *texts)
    assert answer.status_code == 200
    assert answer.json()["prompt"] == name
    pairs = [text if name == "pair" else [" ".join(text.split()), None] for text in texts]
    logits = tuned(TuneResult.load(runs[name])).label_logits([Example(a, b, 0) for a, b in pairs]).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for said, share in zip(answer.json()["predictions"], shares, strict=True):
        np.testing.assert_allclose(list(said["probabilities"].values()), share, atol=1e-4)
        assert said["probability"] == max(said["probabilities"].values()) == said["probabilities"][said["label"]]


def test_an_exported_prompt_is_served_beside_runs_without_its_run(tmp_path, runs):
    export(runs["offset"], "safetensors", tmp_path / "handed")
    app = app_of(tmp_path, {**runs, "handed": tmp_path / "handed"}, "prefix", "handed", "offset")
    with TestClient(app, headers={"Authorization": f"Bearer {SECRET}"}) as client:
        handed, run = (classify(client, name, "a great film", "bad").json() for name in ("handed", "offset"))
        assert handed["predictions"] == run["predictions"]
        listed = {one.pop("name"): one for one in client.get("/v1/prompts").json()["prompts"]}
        assert listed["handed"] == listed["offset"]
        assert client.put("/v1/prompts/again", json={"run": str(tmp_path / "handed")}).status_code == 201
        assert classify(client, "again", "a great film").json()["predictions"] == run["predictions"][:1]


def test_prompts_are_listed_with_what_one_needs_to_ask_them(client):
    found = {one["name"]: one for one in client.get("/v1/prompts").json()["prompts"]}
    assert list(found) == ["prefix", "offset", "pair"]
    assert found["pair"]["kind"] == "pair"
    assert found["prefix"]["labels"] == ["negative", "positive"]
    assert 0 <= found["prefix"]["test_score"] <= 1


def test_without_the_key_only_health_and_the_page_are_to_be_had(client):
    bare = {"Authorization": ""}
    for method, path in [
        ("POST", "/v1/classify"),
        ("GET", "/v1/prompts"),
        ("GET", "/metrics"),
        ("PUT", "/v1/prompts/a"),
    ]:
        answer = client.request(method, path, headers=bare, json={"texts": ["a"]})
        assert "expected the server's key" in message(answer, 401)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert SECRET not in answer.text
    assert message(client.get("/v1/prompts", headers={"Authorization": "Bearer wrong"}), 401)
    assert client.get("/healthz", headers=bare).json() == {"status": "ok"}
    assert client.get("/openapi.json", headers=bare).status_code == 200


def test_a_server_without_a_key_answers_no_page_of_another_site(tmp_path, runs):
    with TestClient(app_of(tmp_path, runs, "prefix", key=False)) as client:
        for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "127.0.0.2:8000"):
            assert client.get("/v1/prompts", headers={"Host": host}).status_code == 200
        for host in ("evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1:8000", ""):
            assert "of this machine" in message(client.get("/v1/prompts", headers={"Host": host}), 403)


def test_a_run_is_named_by_its_whole_path_and_fetched_from_an_address_for_those_with_the_key_alone(
    client, tmp_path, runs
):
    told = message(client.put("/v1/prompts/new", json={"run": "runs/a"}), 422)
    assert told == "expected the whole path of a folder on the server's machine, got 'runs/a'"
    assert "got an address" not in message(client.put("/v1/prompts/new", json={"run": "nothing://a"}), 422)
    (tmp_path / "open").mkdir()
    with TestClient(app_of(tmp_path / "open", runs, "prefix", key=False), base_url=LOCAL) as opened:
        assert "got an address" in message(opened.put("/v1/prompts/new", json={"run": "nothing://a"}), 422)


def test_the_prompt_may_be_left_out_where_only_one_is_served(client):
    assert "expected a name" in message(classify(client, None, "a"), 422)
    for name in ("offset", "pair"):
        assert client.delete(f"/v1/prompts/{name}").json() == {"removed": name}
    assert classify(client, None, "a great film").json()["prompt"] == "prefix"


def test_a_prompt_that_is_not_served_is_answered_with_the_one_that_was_meant(client):
    assert 'did you mean "prefix"?' in message(classify(client, "prefx", "a"), 404)
    assert "prefix, offset, pair" in message(client.delete("/v1/prompts/nothing"), 404)


def test_what_is_too_large_is_refused(client):
    assert "at most 5 texts" in message(classify(client, "prefix", *["a"] * 6), 413)
    assert "texts[1]" in message(classify(client, "prefix", "a", "b" * 61), 413)
    assert "at most 2000 bytes" in message(classify(client, "prefix", "b" * 3000), 413)
    streamed = client.post("/v1/classify", content=(b"x" * 500 for _ in range(10)))
    assert "at most 2000 bytes" in message(streamed, 413)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": "prefix", "texts": []}, "texts"),
        ({"prompt": "prefix"}, "texts"),
        ({"prompt": "prefix", "texts": ["a"], "text": "b"}, "text: "),
        ({"prompt": "prefix", "texts": ["a", 5]}, "texts.1"),
        ({"prompt": "prefix", "texts": ["a", " "]}, "texts[1]"),
        ({"prompt": "prefix", "texts": [["a", "b"]]}, "one text"),
        ({"prompt": "pair", "texts": ["a"]}, "a pair of texts"),
        ({"prompt": "pair", "texts": [["a", "b", "c"]]}, "texts.0"),
        ({"prompt": "prefix", "texts": ["a"], **dict.fromkeys(map(str, range(90)), 1)}, "and 85 more"),
    ],
)
def test_a_body_at_fault_is_refused_in_words(client, body, said):
    assert said in message(client.post("/v1/classify", json=body), 422)


def test_what_is_no_json_and_what_is_no_address_is_refused_in_words(client):
    assert "JSON" in message(client.post("/v1/classify", content=b"{bad"), 422)
    json_type = {"Content-Type": "application/json"}
    assert "JSON" in message(client.post("/v1/classify", content=b'{"prompt": "\xff"}', headers=json_type), 400)
    assert "JSON" in message(client.post("/v1/classify"), 422)
    half = json.dumps({"prompt": "prefix", "texts": ["good", "half \ud83d"]})  # escaped
    assert "texts[1]" in message(client.post("/v1/classify", content=half, headers=json_type), 422)
    assert "not found" in message(client.get("/v1/nothing"), 404)
    assert "method not allowed" in message(client.get("/v1/classify"), 405)


def test_a_refusal_is_short_whatever_it_refuses(client):
    long = "n" * 1800
    for answer in (
        classify(client, long, "a"),
        client.post("/v1/classify", json={"texts": ["a"], long: 1}),
        client.post("/v1/classify", json={"prompt": "prefix", "texts": [1] * 600}),
        client.delete(f"/v1/prompts/{long}"),
        client.put(f"/v1/prompts/{long}", json={"run": "a"}),
        client.put("/v1/prompts/a", json={"run": long}),
        client.get(f"/{long}"),
    ):
        assert len(message(answer, answer.status_code)) < 400
        assert answer.status_code in (404, 422)


def test_a_fault_of_the_server_tells_nothing_but_that_and_its_log_why(client, caplog, monkeypatch):
    monkeypatch.setattr("bbtune.serving.app.read_texts", lambda *_: 1 / 0)
    said = message(classify(client, "prefix", "a"), 500)
    assert "log" in said
    assert "Zero" not in said
    assert "ZeroDivisionError" in caplog.text


def test_a_prompt_is_added_replaced_and_removed_live(client, runs):
    assert client.delete("/v1/prompts/offset").status_code == 200
    assert message(classify(client, "offset", "a"), 404)
    before = classify(client, "prefix", "a great film").json()
    assert client.put("/v1/prompts/fresh", json={"run": str(runs["offset"])}).status_code == 201
    assert client.put("/v1/prompts/prefix", json={"run": str(runs["offset"])}).status_code == 200
    after = classify(client, "prefix", "a great film").json()
    assert after != before
    assert after["predictions"] == classify(client, "fresh", "a great film").json()["predictions"]


@pytest.mark.parametrize(
    ("name", "run", "said"),
    [
        ("fresh", "other", "another model"),
        ("fresh", "untuned", "bbtune predict"),
        ("fresh", "missing", "expected a finished run"),
        ("-bad name", "offset", "expected a name"),
    ],
)
def test_a_run_that_cannot_be_served_is_refused_in_words_and_changes_nothing(client, runs, name, run, said):
    answer = client.put(f"/v1/prompts/{name}", json={"run": str(runs.get(run, "/nowhere"))})
    assert said in message(answer, 422)
    assert len(client.get("/v1/prompts").json()["prompts"]) == 3


@pytest.mark.parametrize("fault", ["missing", "shape", "nan"])
def test_a_run_whose_numbers_make_no_prompt_is_refused_and_the_others_are_served_on(client, runs, tmp_path, fault):
    damaged = Path(shutil.copytree(runs["prefix"], tmp_path / "damaged"))
    learned = load_file(damaged / LEARNED)
    changed = {"missing": {}, "shape": {"z": learned["z"][..., :2].copy()}, "nan": {"z": learned["z"] * np.nan}}[fault]
    kept = {} if fault == "missing" else learned
    save_file({**kept, **changed}, damaged / LEARNED)
    entries = len(list((tmp_path / BOOK).iterdir()))
    said = message(client.put("/v1/prompts/prefix", json={"run": str(damaged)}), 422)
    assert "expected numbers that make a prompt" in said
    assert classify(client, "prefix", "a great film").status_code == 200
    assert client.get("/healthz").status_code == 200
    assert len(list((tmp_path / BOOK).iterdir())) == entries


def test_replicas_agree_and_one_that_begins_anew_has_the_same_prompts(client, tmp_path, runs):
    headers = {"Authorization": f"Bearer {SECRET}"}
    with TestClient(make(Settings(tmp_path, True, SMALL, Front())), headers=headers) as other:
        client.put("/v1/prompts/fresh", json={"run": str(runs["offset"])})
        client.delete("/v1/prompts/prefix")
        assert client.get("/v1/prompts").json() == other.get("/v1/prompts").json()
        assert classify(other, "fresh", "a").status_code == 200
        assert message(classify(other, "prefix", "a"), 404)
    with TestClient(make(Settings(tmp_path, True, SMALL, Front())), headers=headers) as anew:
        assert client.get("/v1/prompts").json() == anew.get("/v1/prompts").json()


def test_a_server_that_is_about_to_stop_takes_no_more_requests(client, tmp_path):
    Book(tmp_path / BOOK).close()
    answer = classify(client, "prefix", "a")
    assert "stopping" in message(answer, 503)
    assert answer.headers["Retry-After"]
    assert message(client.get("/healthz"), 503)


def test_a_request_for_which_the_queue_has_no_room_is_to_come_again(tmp_path, runs):
    narrow = replace(SMALL, waiting_texts=3)
    with TestClient(app_of(tmp_path, runs, "prefix", key=False, limits=narrow), base_url=LOCAL) as client:
        assert classify(client, "prefix", *"abc").status_code == 200
        answer = classify(client, "prefix", *"abcd")
        assert "the server is busy" in message(answer, 503)
        assert answer.headers["Retry-After"] == "1"
        assert classify(client, "prefix", *"abc").status_code == 200


def test_the_page_of_the_interface_loads_nothing_from_elsewhere(client):
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    for path in [part.split('"')[0] for part in page.split('="/')[1:]]:
        assert client.get(f"/{path}").status_code == 200, path


def test_every_operation_is_described_and_refusals_are_part_of_it(client):
    said = client.get("/openapi.json").json()
    assert set(said["paths"]) == {"/healthz", "/v1/classify", "/v1/prompts", "/v1/prompts/{name}", "/metrics"}
    for operations in said["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
    asked = said["paths"]["/v1/classify"]["post"]
    assert {"200", "401", "404", "413", "422", "503"} <= set(asked["responses"])
    assert "examples" in json.dumps(said["components"]["schemas"]["Classify"])


def test_runs_are_judged_together_before_anything_is_started(tmp_path, runs):
    book = Book(tmp_path / BOOK)
    for told, said in [
        ([f"a={runs['prefix']}", f"b={runs['other']}"], "another model"),
        ([f"a={runs['prefix']}", f"a={runs['offset']}"], "NAME=RUN"),
        ([str(runs["untuned"])], "bbtune predict"),
        ([str(tmp_path / "missing")], "expected a finished run"),
    ]:
        with pytest.raises(BbtuneError, match=said):
            fill(book, told)
    assert not (tmp_path / BOOK / "prompts.json").exists()
    assert fill(book, [str(runs["prefix"]), f"b={runs['offset']}"]) == ("tiny-bert", "b")


def test_a_server_clears_what_an_earlier_one_left_and_nothing_else(tmp_path):
    with server_folder(tmp_path, 8000) as folder:
        (folder / KEY).write_text("old")
        (folder / BOOK / "entry").mkdir(parents=True)
        (folder / "somebody's").mkdir()
        (folder / LOG).write_text("line")
    with server_folder(tmp_path, 8000) as folder:
        assert {one.name for one in folder.iterdir()} == {"lock", LOG, "somebody's"}
        with pytest.raises(BbtuneError, match="another bbtune serve"), server_folder(tmp_path, 8000):
            pass


def test_texts_of_a_client_that_has_gone_are_not_put_to_the_model():
    given_up = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            given_up.append(True)

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def asked() -> None:
        with pytest.raises(Refusal, match="one that has gone"):
            await while_there(receive, work())
        await asyncio.sleep(0)

    asyncio.run(asked())
    assert given_up


@pytest.mark.parametrize(("host", "key", "said"), [("0.0.0.0", False, "--no-key"), ("here", True, "an IP address")])
def test_a_host_that_cannot_be_is_refused_before_anything_is_started(tmp_path, host, key, said):
    wish = Wish(["a"], replace(Front(), host=host), Limits(), tmp_path / "state", with_key=key)
    with pytest.raises(BbtuneError, match=said), up(wish, print):
        pass
    assert not (tmp_path / "state").exists()
