"""What a run will be charged, told before anything is sent: never less than it is, and not much more."""

from __future__ import annotations

from typing import Any

import pytest
from text_runs import job_of

from bbtune import api, cli
from bbtune.errors import BbtuneError
from bbtune.journal import read_journal

PRICE = {"input": 150.0, "output": 600.0}


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("bbtune.session.plot_run", lambda *_: None)


def row(text: str, name: str) -> tuple[int, int, int, int, float]:
    """Texts, requests, tokens in, tokens out and dollars of a line."""
    (line,) = (line for line in text.splitlines() if line.startswith(name))
    *numbers, dollars = line.removeprefix(name).split()
    texts, requests, read, written = map(int, numbers)
    return texts, requests, read, written, float(dollars)


JOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "chat": {"backbone": {"api": {"style": "chat"}}},
    "completion": {"backbone": {"api": {"style": "completion"}}},
    "generated": {"backbone": {"api": {"read": "generated"}}},
    "no cache": {"backbone": {"api": {"cache": False}}, "method": {"minibatch": 8}},
    "minibatch": {"method": {"minibatch": 4}, "budget": {"evaluations": 24}},
    "race": {"method": {"race": 4}},
    "demonstrations": {"prompt": {"demonstrations": 2, "keywords": 1}},
    "examples": {"budget": {"evaluations": None, "examples": 200}},
    "requests": {"budget": {"evaluations": 400, "requests": 150}},
    "tokens": {"budget": {"evaluations": 400, "tokens": 9000}},
    "dollars": {"budget": {"evaluations": 400, "dollars": 1.2}},
}


@pytest.mark.parametrize("name", JOBS)
def test_the_total_is_no_less_than_what_is_paid_and_not_much_more(name, tiny_task, upstream, tmp_path):
    parts = JOBS[name]
    parts = parts | {"backbone": {"api": {**parts.get("backbone", {}).get("api", {}), "price": PRICE}}}
    job = job_of(tiny_task, upstream.url, **parts)
    text = api.dry_run(job)
    assert upstream.requests == 0
    assert not (tmp_path / "cache").exists()
    paid = api.run(job, tmp_path / "run").paid
    assert (paid.requests, paid.input_tokens, paid.output_tokens) == (
        upstream.requests,
        upstream.input,
        upstream.output,
    )
    texts, requests, read, written, dollars = row(text, "total")
    if name in ("tokens", "dollars"):  # which bound themselves what is paid
        assert f"words: about {(texts - 32) // 40} generations" in text
        assert read + written <= 9000 or name == "dollars"
        assert dollars <= 1.2 or name == "tokens"
        return
    assert paid.requests <= requests <= 2 * paid.requests
    assert paid.input_tokens <= read <= 4 * paid.input_tokens
    assert paid.output_tokens <= written <= 4 * paid.output_tokens
    assert paid.dollars <= dollars + 1e-4


def test_a_generation_that_a_cap_cuts_off_is_part_of_the_total(tiny_task):
    job = job_of(tiny_task, "http://unused/v1", budget={"evaluations": 400, "requests": 150})
    assert row(api.dry_run(job), "total")[1] in (149, 150)


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_what_a_writer_is_asked_is_foreseen_too(style, tiny_task, upstream, tmp_path):
    api_ = {"base_url": upstream.url, "model": "other", "style": style, "price": {"input": 300.0, "output": 900.0}}
    job = job_of(tiny_task, upstream.url, backbone={"api": {"price": PRICE}}, method={"writer": {"api": api_}})
    text = api.dry_run(job)
    assert row(text, "writer")[:2] == (0, 3 * 3)
    paid = api.run(job, tmp_path / "run").paid
    assert any(record["event"] == "written" for record in read_journal(tmp_path / "run" / "journal.jsonl"))
    _, requests, read, written, dollars = row(text, "total")
    assert paid.requests <= requests
    assert paid.input_tokens <= read
    assert paid.output_tokens <= written
    assert paid.dollars <= dollars


def test_seconds_alone_foresee_no_number_of_generations(tiny_task):
    text = api.dry_run(job_of(tiny_task, "http://unused/v1", budget={"evaluations": None, "seconds": 60}))
    assert text.startswith("words: one generation of as many as the seconds allow")


def test_without_a_price_it_says_that_dollars_are_0(tiny_task):
    text = api.dry_run(job_of(tiny_task, "http://unused/v1"))
    assert row(text, "total")[-1] == 0
    assert "no backbone.api.price is given, so dollars are 0" in text


def test_scoring_whole_words_takes_a_request_for_each(tiny_task):
    words = [["bad", "awful"], ["great"]]
    parts = {"task": {"label_words": words}, "backbone": {"api": {"read": "prompt-logprobs"}}}
    texts, requests, *_ = row(api.dry_run(job_of(tiny_task, "http://unused/v1", **parts)), "train")
    assert requests == 3 * texts


def test_the_command_line_prints_it_and_a_tokenizer_that_is_here_counts(
    tiny_task, tiny_models, upstream, tmp_path, monkeypatch, capsys
):
    backbone = {"model": f"path:{tiny_models['llama']}"}
    (tmp_path / "job.yaml").write_text(job_of(tiny_task, upstream.url, backbone=backbone).to_yaml())
    monkeypatch.setattr("sys.argv", ["bbtune", "run", str(tmp_path / "job.yaml"), "--dry-run"])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    text = capsys.readouterr().out
    assert not ending.value.code
    assert text.startswith(
        "words: at most 3 generations, nothing is sent; tokens are counted by the tokenizer of path:"
    )
    assert upstream.requests == 0
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


def test_a_job_that_pays_nothing_is_refused(tiny_task, tiny_models):
    job = job_of(tiny_task, "http://unused/v1", backbone={"model": f"path:{tiny_models['llama']}", "api": None})
    with pytest.raises(BbtuneError, match=r"expected a job with backbone\.api whose cost can be foreseen"):
        api.dry_run(job)
