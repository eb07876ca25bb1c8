"""Without the token nothing of a service can be started, stopped or read: every route, every call, every port."""

from __future__ import annotations

import http.client
import importlib
import json
import pkgutil
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from running import bbtune, environment, head_of, job_names, job_state, request, started, submitted

from bbtune.service.state import Service

pytestmark = [pytest.mark.slow, pytest.mark.ray]

# What a browser needs to ask for the token, and whether a part is well. None starts, stops or shows anything of a job.
PUBLIC = {
    ("GET", "/"),
    ("GET", "/favicon.ico"),
    ("GET", "/api/authentication_mode"),
    ("GET", "/api/healthz"),
    ("GET", "/api/gcs_healthz"),
    ("GET", "/api/local_raylet_healthz"),
    ("GET", "/-/healthz"),
    ("GET", "/static"),
}
_NO_ANSWER = (OSError, http.client.HTTPException)
WRONG = "0" * 64
# Of the job server and of the agent of a node: they must be among the routes that were found, or the search is broken.
JOB_SERVER = {
    ("POST", "/api/jobs/"),
    ("POST", "/api/jobs/{job_or_submission_id}/stop"),
    ("DELETE", "/api/jobs/{job_or_submission_id}"),
    ("GET", "/api/jobs/"),
    ("GET", "/api/jobs/{job_or_submission_id}/logs"),
    ("PUT", "/api/packages/{protocol}/{package_name}"),
    ("PUT", "/api/serve/applications/"),
    ("DELETE", "/api/serve/applications/"),
    ("GET", "/api/version"),
}
AGENT = {
    ("POST", "/api/job_agent/jobs/"),
    ("POST", "/api/job_agent/jobs/{job_or_submission_id}/stop"),
    ("DELETE", "/api/job_agent/jobs/{job_or_submission_id}"),
    ("GET", "/api/job_agent/jobs/{job_or_submission_id}/logs"),
}
JOB = "doors"
ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}
_ACTOR = """
import time, ray
ray.init()
@ray.remote(num_cpus=0)
class Waiting:
    def ready(self): return True
actor = Waiting.remote()
ray.get(actor.ready.remote())
open({flag!r}, "w").close()
time.sleep(600)
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on which a job runs that has an actor, so that every kind of process is there."""
    folder = tmp_path_factory.mktemp("doors")
    state, flag, script = folder / "state", folder / "flag", folder / "job.py"
    script.write_text(_ACTOR.format(flag=str(flag)))
    try:
        found = started(state, "--cpus", 2)
        submitted(found, JOB, f"{sys.executable} {script}")
        deadline = time.monotonic() + 60
        while not flag.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield found
    finally:
        assert bbtune(state, "down").returncode == 0


@pytest.fixture
def untouched(service: Service) -> Iterator[None]:
    """The job runs on, and no other was made."""
    yield
    assert job_names(service) == {JOB}
    assert job_state(service, JOB) == "RUNNING"


def routes(service: Service, log: str) -> set[tuple[str, str]]:
    """Method and path of every route that a web server of Ray has, by its own log of them."""
    text = (service.temp / "ray" / "session_latest" / "logs" / log).read_text()
    return set(re.findall(r"<ResourceRoute \[([A-Z*]+)\] <(?:Plain|Dynamic|Static)Resource +([^\s>]+)", text))


def listening(service: Service) -> dict[int, tuple[str, str]]:
    """Ports on which a process of Ray's listens: its address, and the name of the process."""
    head = psutil.Process(head_of(service, "ray").pid)
    names = {process.pid: process.name() for process in head.children(recursive=True)}
    found = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN and one.pid in names]
    return {one.laddr.port: (one.laddr.ip, names[one.pid]) for one in found}


def agent_address(service: Service) -> str:
    """Of the web server that the node's agent has; Ray notes its port."""
    (noted,) = (service.temp / "ray" / "session_latest").glob("dashboard_agent_listen_port_*")
    return f"http://127.0.0.1:{noted.read_text()}"


def refuses(address: str, method: str, path: str, token: str | None) -> str | None:
    """None if a request is refused for want of the token, else what came."""
    status, body = request(address + path, method, token, None if method == "GET" else b'{"entrypoint": "true"}')
    expected = 401 if token is None else 403
    return None if status == expected else f"{method} {path}: {status} {body[:200]!r}"


def let_through(address: str, found: set[tuple[str, str]], token: str | None) -> list[str]:
    """Routes that do not refuse."""
    guarded = found - PUBLIC - {("OPTIONS", path) for _, path in PUBLIC}
    asked = [(method, re.sub(r"\{[^}]*\}", JOB, path)) for method, path in sorted(guarded)]
    methods = [(one, path) for method, path in asked for one in (["GET", "POST"] if method == "*" else [method])]
    return [said for method, path in methods if (said := refuses(address, method, path, token))]


@pytest.mark.parametrize("token", [None, WRONG])
@pytest.mark.usefixtures("untouched")
def test_every_route_of_the_job_server_refuses(service, token):
    found = routes(service, "dashboard.log")
    assert found >= JOB_SERVER
    assert let_through(service.dashboard, found, token) == []


@pytest.mark.parametrize("token", [None, WRONG])
@pytest.mark.usefixtures("untouched")
def test_every_route_of_the_agent_of_the_node_refuses(service, token):
    found = routes(service, "dashboard_agent.log")
    assert found >= AGENT
    assert let_through(agent_address(service), found, token) == []


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("head", ["Authorization: Bearer", "Authorization: Basic Og==", "Cookie: ray-auth-token=", ""])
@pytest.mark.parametrize(
    "path",
    ["//api/jobs/", "/static/../api/jobs/", "/static/%2e%2e/api/jobs/", "/API/jobs/", "/api/jobs/?/static/", "/"],
)
def test_no_spelling_of_the_path_and_no_empty_credential_starts_a_job(service, path, head):
    """Sent as written, which an HTTP library would not do."""
    body = b'{"entrypoint": "true"}'
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}", head]
    text = "\r\n".join(filter(None, [*lines, "Connection: close"])) + "\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(service.dashboard.rpartition(":")[2])), timeout=20) as line:
        line.sendall(text.encode() + body)
        status = int(line.makefile("rb").readline().split()[1])
    assert status in {400, 401, 403, 404, 405}


def test_ray_listens_on_the_loopback_alone_and_has_no_client_server(service):
    found = listening(service)
    assert len(found) >= 13
    assert {address.removeprefix("::ffff:") for address, _ in found.values()} == {"127.0.0.1"}
    assert all("client" not in name for _, name in found.values())
    assert 10001 not in found


def calls() -> list[tuple[str, bool, bool]]:
    """Every remote call that Ray's own descriptions name: path, whether requests and answers are streams."""
    import ray.core.generated as generated

    found = [(f"/ray.rpc.ObjectManagerService/{name}", False, False) for name in ("Push", "Pull", "FreeObjects")]
    for module in pkgutil.iter_modules(generated.__path__):
        if module.name.endswith("_pb2"):
            described = importlib.import_module(f"ray.core.generated.{module.name}").DESCRIPTOR
            for service in described.services_by_name.values():
                found += [
                    (f"/{service.full_name}/{method.name}", method.client_streaming, method.server_streaming)
                    for method in service.methods
                ]
    return found


def called(channel, call: tuple[str, bool, bool], credential: list[tuple[str, str]]) -> str:
    """The status of a call with an empty message, ``OK`` or ``UNAUTHENTICATED``."""
    import grpc

    path, many, streamed = call
    how = {(True, True): "stream_stream", (True, False): "stream_unary", (False, True): "unary_stream"}
    send = getattr(channel, how.get((many, streamed), "unary_unary"))(path, lambda m: m, lambda m: m)
    try:
        answer = send(iter([b""]) if many else b"", timeout=10, metadata=credential)
        if streamed:
            next(iter(answer), None)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


@pytest.mark.usefixtures("untouched")
def test_every_remote_call_of_every_process_refuses(service):
    import grpc

    refused: dict[str, set[str]] = {}
    taken = []
    for port, (_, name) in listening(service).items():
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=2)
            except grpc.FutureTimeoutError:  # a web server
                continue
            for credential in ([], [("authorization", f"Bearer {WRONG}")]):
                for call in calls():
                    status = called(channel, call, credential)
                    if status == "UNAUTHENTICATED":
                        refused.setdefault(name, set()).add(call[0])
                    elif status != "UNIMPLEMENTED":  # of another process
                        taken.append((name, status, call[0]))
    assert taken == []
    for name, path in (
        ("gcs_server", "/ray.rpc.InternalKVGcsService/InternalKVPut"),
        ("gcs_server", "/ray.rpc.ActorInfoGcsService/CreateActor"),
        ("raylet", "/ray.rpc.NodeManagerService/RequestWorkerLease"),
        ("raylet", "/ray.rpc.ObjectManagerService/Push"),
        ("ray::Waiting", "/ray.rpc.CoreWorkerService/PushTask"),
    ):
        assert path in refused.get(name, set()), f"{name} was not asked, or does not know {path}"


@pytest.mark.usefixtures("untouched")
def test_ports_of_metrics_can_only_be_read(service):
    """They have no guard in Ray: figures alone, no name of a job's settings, no way to write."""
    open_ports = []
    for port in listening(service):
        try:
            if request(f"http://127.0.0.1:{port}/metrics", timeout_s=3)[0] != 200:
                continue
        except _NO_ANSWER:  # not a web server
            continue
        open_ports.append(port)
        for method in ("POST", "PUT", "DELETE"):
            assert request(f"http://127.0.0.1:{port}/", method, body=b"{}", timeout_s=5)[0] in {400, 404, 405, 501}
    assert len(open_ports) == 3


_JOIN = "import ray; ray.init(address={address!r}, log_to_driver=False); print('in', ray.cluster_resources())"


def join(service: Service, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process that tries to become a driver of the cluster."""
    there = environment(HOME=str(home), RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_USAGE_STATS_ENABLED="0", **variables)
    command = [sys.executable, "-c", _JOIN.format(address=service.ray_address)]
    return subprocess.run(command, env=there, capture_output=True, text=True, timeout=280)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "variables", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": WRONG}]
)
def test_a_driver_without_the_token_cannot_join(service, tmp_path, variables):
    done = join(service, tmp_path, **variables)
    assert done.returncode != 0
    assert "in {" not in done.stdout


def test_a_driver_with_the_token_can_join(service, tmp_path):
    done = join(service, tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(service.token_file))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "in {" in done.stdout


def test_others_cannot_reach_rays_sockets_and_files(service):
    """Ray makes its own folders for all; they lie in one that only its owner can enter."""
    for folder in (service.temp, service.folder):
        assert folder.stat().st_mode & 0o077 == 0


def test_mlflow_answers_only_to_names_of_this_machine(service):
    port = int(service.mlflow.rpartition(":")[2])
    statuses = []
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"evil.example:{port}", "10.1.2.3"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
            path = "/api/2.0/mlflow/experiments/search?max_results=1"
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            statuses.append(int(line.makefile("rb").readline().split()[1]))
    assert statuses == [200, 200, 403, 403]


def test_doctor_finds_no_fault_with_a_service_that_is_well_and_tells_a_loose_token(service):
    done = bbtune(service.folder, "doctor")
    assert done.returncode == 0, done.stdout
    for words in ("service      up, ", "job server   http", f"that of {service.token_file} is accepted", "answers"):
        assert words in done.stdout
    service.token_file.chmod(0o644)
    try:
        loose = bbtune(service.folder, "doctor")
    finally:
        service.token_file.chmod(0o600)
    assert loose.returncode == 1
    assert f"has mode 0644: others can use it\n        -> chmod 600 {service.token_file}" in loose.stdout


def test_with_the_token_the_same_requests_are_taken(service):
    """Else the refusals would prove nothing. Two names, as Ray's supervisor of a deleted job may still be ending."""
    token = service.token_file.read_text()
    doors = {"by-head": (service.dashboard, "/api/jobs/"), "by-agent": (agent_address(service), "/api/job_agent/jobs/")}
    for name, (address, path) in doors.items():
        body = json.dumps({"entrypoint": "true", "submission_id": name}).encode()
        assert request(address + path, "POST", token, body)[0] == 200
        deadline = time.monotonic() + 120
        while (state := job_state(service, name)) not in ENDED and time.monotonic() < deadline:
            time.sleep(0.1)
        assert state == "SUCCEEDED"
        assert request(f"{service.dashboard}/api/jobs/{name}", "DELETE", token)[0] == 200
