"""The top of a report: what was tuned, what came of it, and how to read the rest."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from markupsafe import Markup

from bbtune import html
from bbtune.compare.runs import model_name
from bbtune.errors import hide_credentials
from bbtune.html import element
from bbtune.report.manner import manner, untouched
from bbtune.report.numbers import METRICS, count, points, score
from bbtune.report.subject import Subject
from bbtune.spec import BaseJob, BaselineJob, TextJob

_MOST_LABELS = 12  # that are named


def opening(subject: Subject) -> list[Markup]:
    """Date, verdict, the numbers that count, and what was done, in plain words."""
    result = subject.result
    day = datetime.fromtimestamp(result.stopped_ms / 1000, UTC).strftime("%d %B %Y").lstrip("0")
    lead = f"Report on a model that was adapted to a task with bbtune, {day}"
    better, worse = result.gain.low > 0, result.gain.high < 0
    kind = "verdict better" if better else "verdict worse" if worse else "verdict"
    parts = [html.text(lead, "lead"), element("div", *_verdict(subject), class_=kind), _tiles(subject)]
    return [*parts, *(html.text(said) for said in (_task(subject), manner(result), untouched(result.spec)))]


def _verdict(subject: Subject) -> list[Markup]:
    result, metric = subject.result, subject.run.metric
    said = result.verdict()
    before, after = (score(result.scores[name].test.value, metric) for name in ("zero_shot", "tuned"))
    tested = count(len(subject.run.truth), "test text")
    plain = f"The {METRICS[metric.name]} was {before} before tuning and is {after} after it, over {tested}."
    return [html.text(f"{said[0].upper()}{said[1:]}."), html.text(plain, "note")]


def _tiles(subject: Subject) -> Markup:
    result, metric = subject.result, subject.run.metric
    before, after = (result.scores[name].test for name in ("zero_shot", "tuned"))
    shown = [
        ("Before (zero-shot), test", score(before.value, metric), f"95 %: {_between(before.low, before.high)}"),
        ("After (tuned), test", score(after.value, metric), f"95 %: {_between(after.low, after.high)}"),
        ("Gain, points", points(result.gain.value, signed=True), _gain_interval(subject)),
        (_learned(result.spec), f"{result.parameters:,}", f"in {result.cost.seconds:,.0f} seconds"),
    ]
    tiles = (
        element("div", element("dt", name), element("dd", value), element("dd", more, class_="small"))
        for name, value, more in shown
    )
    return element("dl", html.lines(tiles), class_="tiles")


def _learned(spec: BaseJob) -> str:
    if isinstance(spec, BaselineJob):
        return "Numbers trained"
    return "Choices searched" if isinstance(spec, TextJob) else "Numbers searched"


def _between(low: float, high: float) -> str:
    return f"{points(low)} to {points(high)}"


def _gain_interval(subject: Subject) -> str:
    low, high = (points(number, signed=True) for number in (subject.result.gain.low, subject.result.gain.high))
    return f"95 %: {low} to {high}"


def _task(subject: Subject) -> str:
    result, spec = subject.result, subject.result.spec
    model = hide_credentials(model_name(spec.backbone.named))
    reads = "pairs of texts" if result.reading.kind == "pair" else "texts"
    what = f"to answer {reads} in words"
    if not subject.words:
        named = ", ".join(result.labels[:_MOST_LABELS]) + (", …" if len(result.labels) > _MOST_LABELS else "")
        what = f"to sort {reads} into {len(result.labels)} labels: {named}"
    said = f"The model {model} was given the task “{result.task}”: {what}. "
    return said + _examples(subject) + f" {count(len(subject.run.truth), 'other text')} served as the test."


def _examples(subject: Subject) -> str:
    """How many examples there were to learn from, as far as it is known."""
    labels = subject.start.get("train_labels")
    shots = subject.result.spec.task.shots
    if labels is None:
        return (
            "" if shots is None else f"It learned from {shots} examples per label, or in all where answers are words."
        )
    also = f" and {count(subject.start.get('dev_size', 0), 'more', 'more')} to choose by"
    if subject.words:
        return f"It learned from {count(len(labels), 'solved example')}{also}."
    sizes = set(Counter(labels).values())
    each = f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
    return f"It learned from {each} solved examples per label ({len(labels)} in all){also}."


def reading_guide(subject: Subject) -> Markup:
    """What the words of the page mean."""
    metric = subject.result.metric
    terms = {
        f"Score: {metric}": f"The {METRICS[metric]}. All scores are on a scale of 100, higher is better.",
        "Test and dev": "Test texts were opened once, after everything was decided: theirs is the score to believe. "
        "Dev texts were used meanwhile to choose between candidates, so that a dev score flatters a little.",
        "95 % interval": f"Only {count(len(subject.run.truth), 'text')} could be tested, so a score is partly luck. An "
        "interval made like this holds the score on endlessly many such texts in 95 of 100 cases. Where the interval "
        "of a difference leaves out 0, the difference is more than luck of the test texts.",
        "Zero-shot and majority": "Zero-shot is the same model as it was, with the instruction in words: the score "
        f"before. Majority means {_constant(subject)}, for which no model is needed.",
    }
    inside = html.lines(element("dt", term) + element("dd", said) for term, said in terms.items())
    return html.folded("How to read this page", element("dl", inside), open="")


def _constant(subject: Subject) -> str:
    if subject.words:
        return "always giving the most frequent answer of the examples"
    return "always giving one and the same label, the best one in hindsight"
