"""Whole searches for a prompt in words: a model that heeds good instructions, jobs that ask it, and what they leave."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from scripted_upstream import Body, llama, prompt_of

from bbtune.endpoint.request import Answer, Request, Style, TextModel
from bbtune.jobfile import parse_job
from bbtune.journal import read_journal
from bbtune.result import TuneResult
from bbtune.spec import TextJob

WANTED = ("Read the review,", "weigh its words,", "and judge in one word.")
GIVEN = ["Be polite.", "Read the review, be polite.", "be polite, and judge in one word.", "weigh its words,"]
_GOOD, _BAD = {"great", "good", "warm", "wonderful"}, {"bad", "dull", "terrible", "wrong"}

MakeTextJob = Callable[..., TextJob]


def job_of(folder: Path, url: str, **parts: Any) -> TextJob:
    """A genetic search of three generations that asks an endpoint."""
    raw: dict[str, Any] = {
        "name": "words",
        "task": {"source": f"folder:{folder}"},
        "backbone": {"api": {"base_url": url, "model": "tiny", "patience_s": 5.0, "timeout_s": 20.0}},
        "prompt": {"kind": "text", "text": "Be polite.", "instructions": GIVEN},
        "method": {"search": "genetic", "population": 4},
        "budget": {"evaluations": 12},
        "tracking": {"enabled": False},
        "seed": 3,
    }
    for part, values in parts.items():
        raw[part] = _over(raw.get(part), values)
    spec, faults, _ = parse_job(raw)
    assert not faults, faults
    assert isinstance(spec, TextJob)
    return spec


def _over(under: Any, values: Any) -> Any:
    if not isinstance(values, dict) or not isinstance(under, dict):
        return values
    return {**under, **{key: _over(under.get(key), value) for key, value in values.items()}}


def judge(body: Body) -> Body:
    """The better the instruction, the surer the model is of what the words of the text say."""
    prompt = prompt_of(body)
    if prompt.startswith("Here "):
        return _said(body, _instruction(prompt, body.get("seed", 0)))
    *before, asked = prompt.split("\n\n")
    if not asked.endswith("it was"):
        return llama(body)
    heeded = sum(phrase in part for part in before for phrase in WANTED)
    words = set(asked.split())
    noise = hashlib.sha256(prompt.encode()).digest()[0] / 255 - 0.5
    margin = (len(words & _GOOD) - len(words & _BAD)) * (0.3 + heeded) + noise
    return _said(body, " great" if margin > 0 else " bad", margin)


def _said(body: Body, text: str, margin: float = 0.0) -> Body:
    """An answer, and where asked for the probabilities of its first token."""
    answer = llama(body)
    choice = answer["choices"][0]
    choice |= {"message": {"role": "assistant", "content": text}} if "message" in choice else {"text": text}
    if choice["logprobs"]:
        great = 0.9 / (1 + math.exp(-margin))
        tops = [{"token": word, "logprob": math.log(p)} for word, p in ((" great", great), (" bad", 0.9 - great))]
        tops.sort(key=lambda top: -top["logprob"])
        choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
    return answer


def _instruction(prompt: str, seed: int) -> str:
    """What a writer makes of what it is shown: some good phrases, by chance."""
    digest = hashlib.sha256(f"{prompt} {seed}".encode()).digest()
    return " ".join([phrase for i, phrase in enumerate(WANTED) if digest[i] % 2] or [f"Say {digest[0]}."])


def trace(folder: Path) -> list[Any]:
    """What the search asked, and what it was told, in order."""
    records = read_journal(folder / "journal.jsonl")
    keys = ("event", "split", "subset", "z_sha256", "loss", "metric", "asked_sha256", "texts", "reason")
    return [[record.get(key) for key in keys] for record in records if record["event"] in ("scores", "written", "stop")]


def outcome_of(folder: Path) -> dict[str, Any]:
    """All of a result but for times and money."""
    raw = json.loads((folder / "result.json").read_text())
    for part in (raw["cost"], *raw["curve"]):
        for key in ("seconds", "requests", "cached", "input_tokens", "output_tokens", "dollars"):
            del part[key]
    del raw["reading"]["abilities"]  # a cached answer has no headers of rate limits
    return {key: value for key, value in raw.items() if key not in ("paid", "stopped_ms", "peak_memory_mib")}


def check_same(folder: Path, other: Path) -> None:
    """Two runs found the same by the same way."""
    assert trace(folder) == trace(other)
    assert outcome_of(folder) == outcome_of(other)
    one, two = TuneResult.load(folder), TuneResult.load(other)
    assert one.learned["z"].tobytes() == two.learned["z"].tobytes()
    assert all((one.predicted[name] == two.predicted[name]).all() for name in one.predicted)


def answers_of(local: TextModel) -> Callable[[Body], Body]:
    """The script of a server whose model is in this process."""
    lock = Lock()

    def answer(body: Body) -> Body:
        known = {"model", "messages", "prompt", "max_tokens", "logprobs", "top_logprobs", "temperature", "seed", "stop"}
        style: Style = "chat" if "messages" in body else "completion"
        top = body.get("top_logprobs" if style == "chat" else "logprobs", 0)
        more = tuple((name, value) for name, value in body.items() if name not in known)
        sampling = {"temperature": body["temperature"], "seed": body.get("seed"), "stop": tuple(body.get("stop", ()))}
        request = Request(prompt_of(body), style, body["max_tokens"], int(top), **sampling, extra=more)
        with lock:
            (said,) = local.ask([request])
        choice = {**said.raw.get("choices", [{}])[0], "text": said.text, "logprobs": _shape(said) if top else None}
        used = {"prompt_tokens": said.input_tokens, "completion_tokens": said.output_tokens}
        return {"choices": [choice], "usage": {**used, "total_tokens": sum(used.values())}}

    return answer


def _shape(said: Answer) -> Body:
    """As llama.cpp writes it; where a token has no value, as the first of an echo, as vLLM does."""
    if said.tokens[0].logprob is None:
        row = {"tokens": [token.text for token in said.tokens], "token_logprobs": [t.logprob for t in said.tokens]}
        return {**row, "top_logprobs": [dict(token.top) for token in said.tokens]}
    tops = [[{"token": text, "logprob": value} for text, value in token.top] for token in said.tokens]
    pairs = zip(said.tokens, tops, strict=True)
    return {"content": [{"token": t.text, "logprob": t.logprob, "top_logprobs": top} for t, top in pairs]}


def scores_in(folder: Path) -> list[tuple[str, list[float]]]:
    """What was asked, and its losses."""
    records = read_journal(folder / "journal.jsonl")
    return [(record["z_sha256"], record["loss"]) for record in records if record["event"] == "scores"]
