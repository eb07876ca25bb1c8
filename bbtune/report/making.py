"""How to use a result, and how it was made."""

from __future__ import annotations

from shlex import quote

from markupsafe import Markup

from bbtune import html
from bbtune.errors import BbtuneError, hide_credentials
from bbtune.html import Text, element
from bbtune.report.subject import Subject
from bbtune.result import TuneResult
from bbtune.tuned import check_continuous


def use(subject: Subject) -> list[Markup]:
    """Commands with the folder of the run."""
    place, pair = quote(str(subject.place)), subject.result.reading.kind == "pair"
    asked = r"$'one text\tanother text'" if pair else "'a new text'"
    lines = {f"{'Answer' if subject.words else 'Label'} new texts on this machine:": f"bbtune predict {place} {asked}"}
    if _is_served(subject.result):
        lines["Hand the prompt on, as tensors with a card:"] = f"bbtune export {place} --format safetensors --to DIR"
        lines["Let programs ask it over HTTP, beside other runs on the same model:"] = f"bbtune serve {place}"
    lines["See the result in short again:"] = f"bbtune show {place}"
    return [part for said, line in lines.items() for part in (html.text(said), element("pre", line))]


def _is_served(result: TuneResult) -> bool:
    """Whether a server takes the run: a continuous prompt, of a model that is here."""
    try:
        check_continuous(result)
    except BbtuneError:
        return False
    return result.spec.backbone.api is None


def making(subject: Subject) -> list[Markup]:
    """Hashes, seeds, versions and the whole job."""
    result = subject.result
    facts = {
        "spec hash": result.spec.spec_hash,
        **{f"seed of the {name}": str(seed) for name, seed in result.seeds.items()},
        **{f"fingerprint of the {name}": value for name, value in result.fingerprints.items()},
        "chosen by auto": str(subject.start.get("chosen") or ""),
        "git commit": str(subject.start.get("git_commit") or ""),
    }
    rows: list[list[Text]] = [[name, element("code", value)] for name, value in facts.items() if value]
    versions: list[list[Text]] = [[name, element("code", value)] for name, value in result.versions.items()]
    job = element("pre", hide_credentials(result.spec.to_yaml()))
    return [
        html.text("The same job on the same data and versions gives the same result."),
        element("div", html.table(["what", "value"], rows, "What decides the run", names=2), class_="hashes"),
        html.folded("Versions", html.table(["package", "version"], versions, "Versions of the run", names=2)),
        html.folded("The job in full", job),
    ]
