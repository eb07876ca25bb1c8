"""What `bbtune status` and `bbtune doctor` say, without a service."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from bbtune.doctor import machine, packages, servers
from bbtune.doctor.examination import findings
from bbtune.doctor.finding import Finding
from bbtune.errors import BbtuneError
from bbtune.service.ask import Answer, ask
from bbtune.service.cluster import look_at, read_cluster, refusal
from bbtune.service.state import Recorded, Service, write_service
from bbtune.service.status import look
from bbtune.service.token import make_token

TOKEN = "right"
NODES = {"data": {"result": {"result": [{"state": "ALIVE", "resources_total": {"CPU": 4.0, "GPU": 1.0}}]}}}
STATUS = {"data": {"clusterStatus": {"loadMetricsReport": {"usage": {"CPU": [1.5, 4.0], "memory": [0, 9]}}}}}
JOBS = [{"type": "SUBMISSION", "status": status} for status in ("RUNNING", "PENDING", "PENDING", "FAILED")]
METADATA = {"data": {"rayVersion": "1.0.0", "pythonVersion": "3.9.1"}}
BODIES = {
    "/api/version": {"ray_version": "1.0.0"},
    "/api/v0/nodes": NODES,
    "/api/cluster_status": STATUS,
    "/api/jobs/": [*JOBS, {"type": "DRIVER", "status": "RUNNING"}],
    "/api/v0/cluster_metadata": METADATA,
    "/health": "OK",
}


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        shown = self.headers.get("Authorization")
        path = self.path.partition("?")[0]
        status = 401 if shown is None else 403 if shown != f"Bearer {TOKEN}" else 200
        status = 200 if path == "/health" else status
        body = json.dumps(BODIES.get(path, {})).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server with the answers of a job server and of MLflow."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def service(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service whose parts are this process, and which is on record."""
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    make_token(tmp_path / "token")
    (tmp_path / "token").write_text(TOKEN)
    born = psutil.Process().create_time()
    made = Service(
        folder=tmp_path,
        dashboard=address,
        ray_address="127.0.0.1:6379",
        mlflow=address,
        token_file=tmp_path / "token",
        storage=tmp_path / "runs",
        temp=tmp_path / "temp",
        processes=(Recorded("ray", os.getpid(), born), Recorded("mlflow", os.getpid(), born)),
    )
    write_service(made)
    return made


def died(service: Service, name: str) -> Service:
    """The service, with a part whose process is there no more."""
    processes = tuple(Recorded(p.name, p.pid, 1.0) if p.name == name else p for p in service.processes)
    changed = Service(**{**vars(service), "processes": processes})
    write_service(changed)
    return changed


def test_status_tells_nodes_resources_and_jobs(service):
    seen = look(service)
    assert seen.healthy
    text = "\n".join(seen.lines)
    for words in ("1 node, CPUs 1.5 of 4 in use, GPUs 0 of 1 in use", "1 running, 2 waiting, 1 over", " free"):
        assert words in text


@pytest.mark.parametrize(("name", "words"), [("ray", "submit them again"), ("mlflow", "bbtune sync FOLDER")])
def test_status_tells_what_died_and_what_to_do(service, name, words):
    (service.folder / "logs").mkdir()
    (service.folder / "logs" / f"{name}.log").write_text("first\nlast words\n")
    seen = look(died(service, name))
    text = "\n".join(seen.lines)
    assert not seen.healthy
    for part in ("has died; `bbtune up` starts it again", words, "last words"):
        assert part in text


def test_status_tells_a_token_that_is_refused_or_missing(service):
    service.token_file.write_text("wrong")
    seen = look(service)
    assert (seen.healthy, "refuses the token" in "\n".join(seen.lines)) == (False, True)
    service.token_file.unlink()
    seen = look(service)
    assert (seen.healthy, "the token cannot be read" in "\n".join(seen.lines)) == (False, True)


def test_a_head_that_has_no_report_yet_has_nothing_in_use():
    assert read_cluster(NODES, {"data": {"clusterStatus": None}}, []).resources == {
        "CPU": (0.0, 4.0),
        "GPU": (0.0, 1.0),
    }


def test_an_answer_of_another_shape_is_no_cluster(address, monkeypatch):
    monkeypatch.setitem(BODIES, "/api/jobs/", {"jobs": []})
    assert look_at(address, TOKEN) is None
    assert look_at(address, "wrong") is None


def test_nothing_that_answers_is_told_and_not_waited_for():
    answer = ask("http://127.0.0.1:1/api/version", TOKEN)
    assert (answer.status, "refused" in answer.reason) == (0, True)
    assert ask("no address").status == 0


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "nothing answers"),
        (401, "wants a token"),
        (403, "refuses the token"),
        (404, "no job server of Ray"),
        (200, ""),
    ],
)
def test_every_refusal_of_a_job_server_has_its_sentence(status, words):
    assert words in refusal("http://head:8265", Answer(status))
    assert bool(refusal("http://head:8265", Answer(status))) == (status != 200)


def test_doctor_tells_a_cluster_of_other_versions(service):
    found = {finding.what: finding for finding in servers.job_server_findings(None, service.folder)}
    assert found["job server"].todo == found["token"].todo == ""
    assert "1.0.0, here" in found["its ray"].seen
    assert "pip install 'ray[default]==1.0.0'" in found["its ray"].todo
    assert "Python 3.9.1" in found["its python"].todo


def test_doctor_tells_a_token_that_others_can_read(service):
    service.token_file.chmod(0o640)
    found = {finding.what: finding for finding in servers.job_server_findings(None, service.folder)}
    assert found["token"].seen.endswith("has mode 0640: others can use it")
    assert found["token"].todo == f"chmod 600 {service.token_file}"


def test_doctor_tells_a_job_server_that_is_not_there(service):
    (only,) = servers.job_server_findings("http://127.0.0.1:1", service.folder)
    assert "nothing answers" in only.seen
    assert only.todo


def test_doctor_has_no_problem_with_a_machine_without_a_service(service, tmp_path):
    (only,) = servers.job_server_findings(None, tmp_path / "other")
    assert (only.todo, "none" in only.seen) == ("", True)
    assert servers.service_finding(None, tmp_path).todo == ""


def test_doctor_tells_what_died_of_a_service(service):
    assert servers.service_finding(service, service.folder).todo == ""
    finding = servers.service_finding(died(service, "mlflow"), service.folder)
    assert (finding.seen, finding.todo.startswith("bbtune up")) == ("mlflow died", True)


def test_doctor_asks_the_mlflow_that_runs_would_be_recorded_in(service, monkeypatch):
    assert "answers" in servers.mlflow_finding(service).seen
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:1/")
    finding = servers.mlflow_finding(service)
    assert finding.todo
    assert "secret" not in str(finding)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert servers.mlflow_finding(service).todo == ""


def test_doctor_tells_a_version_that_does_not_fit(monkeypatch):
    assert all(finding.todo == "" for finding in packages.version_findings())
    real = packages.metadata.version
    monkeypatch.setattr(packages.metadata, "version", lambda name: "0.1" if name == "mlflow" else real(name))
    found = {finding.what: finding for finding in packages.version_findings()}
    assert "0.1, expected " in found["mlflow"].seen
    assert found["mlflow"].todo.startswith("pip install 'mlflow")


def test_doctor_tells_a_missing_job_server(monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _: None)
    assert packages.job_server_finding().todo == "pip install 'bbtune[cluster]'"


def test_doctor_tells_little_memory_and_a_full_disk(monkeypatch, tmp_path):
    assert machine.disk_finding("/tmp", tmp_path / "not" / "there").seen.endswith(f"({tmp_path / 'not' / 'there'})")
    monkeypatch.setattr(machine, "_LEAST_MEMORY", 2**60)
    monkeypatch.setattr(machine, "_LEAST_DISK", 2**60)
    assert machine.memory_finding().todo
    assert machine.disk_finding("cache", tmp_path).todo


def test_doctor_tells_gpus_that_torch_cannot_use(monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert "CUDA build of torch" in machine.gpu_finding().todo
    fake.write_text("#!/bin/sh\nexit 9\n")
    assert machine.gpu_finding().todo == ""


def test_doctor_judges_a_job(make_job, tmp_path, monkeypatch):
    from bbtune.doctor.job import job_findings

    path = tmp_path / "job.yaml"
    path.write_text(make_job("bert").to_yaml())
    assert [finding.todo for finding in job_findings(path)] == ["", ""]
    import bbtune.backbone.sources as sources

    monkeypatch.setattr(sources.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10})())
    small = job_findings(path)[-1]
    assert "GiB are free" in small.seen
    assert "smaller model" in small.todo
    path.write_text("name: x\nbudgets: {evaluations: 3}\n")
    faulty = job_findings(path)
    assert len(faulty) > 1
    assert all(finding.todo for finding in faulty)
    suite = next(iter((Path(__file__).parents[2] / "jobs" / "suites").glob("*.yaml")))
    with pytest.raises(BbtuneError, match="got a suite"):
        job_findings(suite)


def test_a_damaged_record_is_a_finding(tmp_path):
    (tmp_path / "service.json").write_text("{")
    last = list(findings(tmp_path, None, None))[-1]
    assert "expected the record of a service" in last.seen
    assert "remove the file" in last.todo


def test_a_finding_is_one_line_and_a_problem_two():
    assert str(Finding("ray", "2.60.0")) == "ok      ray          2.60.0"
    assert str(Finding("ray", "1.0", "upgrade")) == "problem ray          1.0\n        -> upgrade"
