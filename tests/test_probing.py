"""``bbtune probe``: what a server does, what is used of it, and why, in sentences."""

from __future__ import annotations

import pytest
from fault_proxy import FaultProxy
from scripted_upstream import Body, ScriptedUpstream
from text_runs import answers_of, job_of, judge

from bbtune import cli
from bbtune.backbone_spec import BackboneSpec
from bbtune.errors import BbtuneError, EndpointError
from bbtune.evaluation.local_text import LocalText
from bbtune.probing import probe_job


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def local(tiny_models) -> LocalText:
    return LocalText(BackboneSpec(model=f"path:{tiny_models['llama']}"), threads=1)


def without_logprobs(body: Body) -> Body:
    answer = judge(body)
    answer["choices"][0]["logprobs"] = None
    return answer


def test_the_command_line_says_what_it_does_and_what_is_used(tiny_task, upstream, tmp_path, monkeypatch, capsys):
    (tmp_path / "job.yaml").write_text(job_of(tiny_task, upstream.url).to_yaml())
    monkeypatch.setattr("sys.argv", ["bbtune", "probe", str(tmp_path / "job.yaml"), "--set", "backbone.api.style=chat"])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert not ending.value.code
    assert "completions: no (not tried, as the job says)" in lines
    assert lines[-1] == (
        "used: label-logprobs: the first token of chat, of which the 8 most probable are seen; as the job says"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"job.yaml"}  # no run, no cache


def test_answers_are_bought_anew_each_time(tiny_task, upstream):
    job = job_of(tiny_task, upstream.url)
    said = [probe_job(job) for _ in range(2)]
    assert said[0] == said[1]
    first = upstream.begin_to_count()
    assert first.total() % 2 == 0
    assert all(count % 2 == 0 for count in first.values())


def test_what_is_missing_is_why_something_else_is_used(tiny_task):
    with ScriptedUpstream(script=without_logprobs) as upstream:
        *_, used = probe_job(job_of(tiny_task, upstream.url))
    assert used.startswith("used: generated: the words of the answer, matched to labels; ")
    assert "label-logprobs: completions come without log-probabilities" in used
    assert "prompt-logprobs: the server gives none that are right" in used


@pytest.mark.parametrize(
    ("words", "others", "used"),
    [
        (["bad", "great"], [], "label-logprobs"),
        (["very bad", "very great"], [], "prompt-logprobs"),
        (["bad", "great"], [["very bad", "very great"]], "prompt-logprobs"),
        (["bad", "great"], [["great", "bad"]], "label-logprobs"),
    ],
)
def test_all_words_that_a_search_may_choose_have_to_be_told_apart(words, others, used, tiny_task, local):
    with ScriptedUpstream(script=answers_of(local)) as upstream:
        parts = {"task": {"label_words": words}, "prompt": {"label_words": others}}
        job = job_of(tiny_task, upstream.url, **parts, backbone={"api": {"style": "completion"}})
        assert probe_job(job)[-1].startswith(f"used: {used}: ")


def test_an_endpoint_that_is_not_there_is_said(tiny_task):
    with pytest.raises(EndpointError, match=r"http://127\.0\.0\.1:9/v1 tiny: cannot be connected to; is it running"):
        probe_job(job_of(tiny_task, "http://127.0.0.1:9/v1", backbone={"api": {"attempts": 2, "patience_s": 0.2}}))


def test_a_wrong_key_is_said_once_it_is_refused(tiny_task, upstream):
    with FaultProxy(upstream.url, {"wrong-key": 1.0}) as proxy:
        with pytest.raises(EndpointError, match=r"HTTP 401.*check .*\(api_key_env\)"):
            probe_job(job_of(tiny_task, proxy.url))
        assert proxy.requests == 1


def test_a_model_that_is_here_needs_no_probe(tiny_task, tiny_models):
    job = job_of(tiny_task, "http://unused/v1", backbone={"model": f"path:{tiny_models['llama']}", "api": None})
    with pytest.raises(BbtuneError, match=r"expected a job with backbone\.api to probe"):
        probe_job(job)
