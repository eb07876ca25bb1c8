"""Files that run one job on clusters: KubeRay, Slurm with stand-ins for its commands, machines that SSH reaches."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
import yaml
from records import lines
from typer.testing import CliRunner

from bbtune import api, coordinator
from bbtune.jobfile import load_job
from bbtune.result import TuneResult
from bbtune.spec import BaseJob
from bbtune.storage.place import STORAGE, run_place

FOLDER = Path(__file__).parents[1] / "jobs" / "cluster"
SCRIPT = FOLDER / "slurm.sh"
README = (FOLDER / "README.md").read_text()
_FOREIGN = ("RAY_", "MLFLOW_", "BBTUNE_", "SLURM_")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


# The job


def test_the_job_asks_for_eight_evaluators_and_leaves_the_storage_to_the_cluster(monkeypatch):
    job = load_job(FOLDER / "job.yaml")
    assert job.evaluators.count == 8
    assert job.storage is None
    monkeypatch.setenv(STORAGE, "s3://bucket/runs")
    assert run_place(job) == f"s3://bucket/runs/cluster-{job.spec_hash[:8]}"


def test_what_the_job_has_commented_out_for_gpus_is_sound():
    text = (FOLDER / "job.yaml").read_text()
    on, changed = re.subn(r"# (device|gpus): ", r"\1: ", text)
    assert changed == 2
    said = yaml.safe_load(on)
    overrides = [f"backbone.device={said['backbone']['device']}", f"evaluators.gpus={said['evaluators']['gpus']}"]
    job = load_job(FOLDER / "job.yaml", overrides)
    assert (job.backbone.device, job.evaluators.gpus) == ("cuda", 0.25)


def test_there_is_one_job_file_and_all_ways_lead_to_it():
    assert [path.name for path in FOLDER.iterdir() if path.name.startswith("job")] == ["job.yaml"]
    assert "kubectl create configmap bbtune-job --from-file=job.yaml=jobs/cluster/job.yaml" in README
    assert "sbatch jobs/cluster/slurm.sh jobs/cluster/job.yaml" in README
    assert "bbtune submit jobs/cluster/job.yaml" in README


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_no_file_holds_a_secret_or_names_a_registry(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"(?i)(password|token|secret)\s*[:=]\s*[\"']?[A-Za-z0-9+/_-]{16,}", text)
    assert not re.search(r"-----BEGIN|\bsk-|AKIA|hf_[A-Za-z]", text)
    assert not re.search(r"[\w-]+\.(io|com|org|net)/[\w-]+/", text)


# KubeRay: names and types of ray.io/v1 (KubeRay 1.6), as far as the manifest goes

REQUIRED: dict[str, dict[str, type]] = {
    "job": {"entrypoint": str, "rayClusterSpec": dict},
    "cluster": {"rayVersion": str, "headGroupSpec": dict},
    "head": {"rayStartParams": dict, "template": dict},
    "workers": {"groupName": str, "minReplicas": int, "maxReplicas": int, "rayStartParams": dict, "template": dict},
    "container": {"name": str, "image": str},
}
OPTIONAL: dict[str, dict[str, type]] = {
    "job": {
        "activeDeadlineSeconds": int,
        "backoffLimit": int,
        "clusterSelector": dict,
        "entrypointNumCpus": float,
        "entrypointNumGpus": float,
        "entrypointResources": str,
        "jobId": str,
        "metadata": dict,
        "runtimeEnvYAML": str,
        "shutdownAfterJobFinishes": bool,
        "submissionMode": str,
        "submitterConfig": dict,
        "submitterPodTemplate": dict,
        "suspend": bool,
        "ttlSecondsAfterFinished": int,
    },
    "cluster": {
        "authOptions": dict,
        "autoscalerOptions": dict,
        "enableInTreeAutoscaling": bool,
        "gcsFaultToleranceOptions": dict,
        "headServiceAnnotations": dict,
        "workerGroupSpecs": list,
    },
    "head": {"serviceType": str, "labels": dict, "resources": dict},
    "workers": {"replicas": int, "numOfHosts": int, "idleTimeoutSeconds": int, "labels": dict, "resources": dict},
    "container": {"env": list, "ports": list, "resources": dict, "volumeMounts": list, "command": list, "args": list},
}


def check(kind: str, found: dict[str, Any]) -> None:
    """Nothing missing, nothing that is unknown, each of its type."""
    known = REQUIRED[kind] | OPTIONAL[kind]
    assert set(REQUIRED[kind]) <= set(found)
    assert set(found) <= set(known)
    assert {name: type(value) for name, value in found.items()} == {name: known[name] for name in found}


@pytest.fixture(scope="module")
def ray_job() -> dict[str, Any]:
    return next(one for one in documents("kuberay.yaml") if one["kind"] == "RayJob")


@pytest.fixture(scope="module")
def cluster(ray_job: dict[str, Any]) -> dict[str, Any]:
    return ray_job["spec"]["rayClusterSpec"]


@pytest.fixture(scope="module")
def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_manifest_has_the_structure_of_a_ray_job(ray_job, cluster, pods):
    assert (ray_job["apiVersion"], ray_job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,40}", ray_job["metadata"]["name"])
    check("job", ray_job["spec"])
    check("cluster", cluster)
    check("head", cluster["headGroupSpec"])
    assert cluster["autoscalerOptions"]["version"] in {"v1", "v2"}
    for group in cluster["workerGroupSpecs"]:
        check("workers", group)
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for pod in pods:
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            check("container", container)
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_manifest_says_the_version_of_ray_and_an_image_to_be_filled_in(cluster, pods):
    import ray

    assert cluster["rayVersion"] == ray.__version__
    assert {container["image"] for pod in pods for container in pod["containers"]} == {"YOUR_IMAGE"}


def test_the_cluster_wants_a_token_and_the_head_runs_no_evaluators(cluster):
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_options_of_the_manifest_are_options_of_ray_start(cluster):
    from ray.scripts.scripts import start

    known = {name.lstrip("-") for option in start.params for name in option.opts}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert set(group["rayStartParams"]) <= known


def test_workers_come_and_go_and_together_hold_all_evaluators(cluster):
    (workers,) = cluster["workerGroupSpecs"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert workers["minReplicas"] < workers["maxReplicas"]
    room = workers["maxReplicas"] * int(workers["rayStartParams"]["num-cpus"])
    assert room >= load_job(FOLDER / "job.yaml").evaluators.count


def test_a_lost_head_is_followed_by_another_that_finds_the_run(ray_job, pods):
    assert ray_job["spec"]["backoffLimit"] >= 1
    assert ray_job["spec"]["shutdownAfterJobFinishes"] is True
    (claim,) = (one for one in documents("kuberay.yaml") if one["kind"] == "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods:
        (container,) = pod["containers"]
        place = next(one["value"] for one in container["env"] if one["name"] == STORAGE)
        mount = next(one for one in container["volumeMounts"] if one["mountPath"] == place)
        volume = next(one for one in pod["volumes"] if one["name"] == mount["name"])
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_credentials_come_from_a_secret_and_the_runtime_environment_is_empty(ray_job, pods):
    assert "runtimeEnvYAML" not in ray_job["spec"]
    head, worker = (pod["containers"][0]["env"] for pod in pods)
    told = {one["name"]: one for one in head if one["name"].startswith("MLFLOW_")}
    assert set(told) == {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    for name, one in told.items():
        assert set(one) == {"name", "valueFrom"}
        assert one["valueFrom"]["secretKeyRef"]["name"] == "bbtune-mlflow"
        assert one["valueFrom"]["secretKeyRef"]["key"] == name
    assert not [one for one in worker if one["name"].startswith("MLFLOW_")]
    assert "kubectl create secret generic bbtune-mlflow --from-env-file=" in README


def test_the_entrypoint_is_a_module_that_takes_these_arguments(ray_job, pods, monkeypatch):
    python, flag, module, path = shlex.split(ray_job["spec"]["entrypoint"])
    assert (python, flag, module) == ("python", "-m", coordinator.__name__)
    (container,) = pods[0]["containers"]
    mount = next(one for one in container["volumeMounts"] if path.startswith(one["mountPath"] + "/"))
    volume = next(one for one in pods[0]["volumes"] if one["name"] == mount["name"])
    assert volume["configMap"] == {"name": "bbtune-job"}
    assert path.removeprefix(mount["mountPath"]) == "/job.yaml"
    app = typer.Typer()
    app.command()(coordinator.coordinate)
    monkeypatch.setattr("bbtune.coordinator._run", lambda spec: typer.echo(f"would run {spec.name}"))
    monkeypatch.setenv(STORAGE, "/runs")
    assert "would run cluster" in CliRunner().invoke(app, [str(FOLDER / "job.yaml")]).output


# Slurm

TOO_BUSY = "timed out during startup"  # Ray gives a node 30 seconds to start; a machine with other work may need more
ATTEMPTS = 3


def environment(**more: str) -> dict[str, str]:
    """This process's, without what points at other clusters, with this Python first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return kept | {"RAY_USAGE_STATS_ENABLED": "0"} | more


def free_port(first: int = 0) -> int:
    with socket.socket() as bound:
        bound.bind(("", first))
        return int(bound.getsockname()[1])


def mentioning(word: str) -> list[str]:
    """Processes whose commands name something; this one and zombies left out."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if word in words and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {words[:200]}")
        except psutil.Error:
            continue
    return found


def test_the_slurm_script_is_sound_for_bash():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    checker = shutil.which("shellcheck")
    if checker:
        done = subprocess.run([checker, str(SCRIPT)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_slurm_script_asks_for_what_it_relies_on():
    text = SCRIPT.read_text()
    asked = dict(re.findall(r"^#SBATCH (--[\w-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert {"--requeue", "--signal", "--time", "--nodes", "--cpus-per-task"} <= set(asked)
    assert "--no-kill" not in asked  # with it a job whose first node is lost is not queued again
    warned, before_s = asked["--signal"].removeprefix("B:").split("@")
    assert f"trap 'stop time' {warned}" in text
    assert int(before_s) >= 60
    assert asked["--ntasks-per-node"] == "1"
    assert "ray stop" not in text  # it would end what others run on a node


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {STORAGE: "/shared/runs"}, "expected a job file"),
        (["job.yaml"], {}, "expected the folder of the runs, seen by all nodes"),
    ],
)
def test_the_slurm_script_begins_nothing_without_a_job_and_a_storage(tmp_path, arguments, variables, said):
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments], cwd=tmp_path, env=environment(**variables), capture_output=True, text=True
    )
    assert done.returncode != 0
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


class Slurm:
    """Runs batch scripts on two nodes of one processor, both this machine.

    Its commands are stand-ins that note how they are called.
    """

    def __init__(self, folder: Path, spec: BaseJob) -> None:
        self.folder = folder
        self.storage = folder / "storage"
        self._commands = folder / "bin"
        self._commands.mkdir()
        self._command("srun", 'while [[ $1 == --* ]]; do shift; done\nexec "$@"')
        self._command("scontrol", "")
        self.number = self._free_number()
        self.scratch = Path(f"/tmp/ray-{self.number}")
        self.token = folder / f".bbtune-{self.number}.token"
        (folder / "job.yaml").write_text(spec.to_yaml())

    def start(self) -> subprocess.Popen[str]:
        variables = {
            STORAGE: str(self.storage),
            "BBTUNE_CACHE": str(self.folder / "cache"),
            "SLURM_JOB_ID": str(self.number),
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "1",
            "SLURMD_NODENAME": "node1",
        }
        kept = environment(**variables)
        kept["PATH"] = f"{self._commands}{os.pathsep}{kept['PATH']}"
        log = (self.folder / "log").open("w")
        command = ["bash", str(SCRIPT), "job.yaml"]
        return subprocess.Popen(command, cwd=self.folder, env=kept, stdout=log, stderr=subprocess.STDOUT, text=True)

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """How a script ended and what it said; nothing of its cluster is left."""
        try:
            status = process.wait(timeout=240)
        finally:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                child.kill()
            process.kill()
        assert mentioning(str(self.scratch)) == []
        assert not self.token.exists()
        return status, (self.folder / "log").read_text()

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def _command(self, name: str, body: str) -> None:
        path = self._commands / name
        path.write_text(f'#!/bin/bash\necho "$*" >>{shlex.quote(str(self.folder / name))}.calls\n{body}\n')
        path.chmod(0o755)

    def _free_number(self) -> int:
        for number in range(os.getpid() % 10_000, 10_000):
            try:
                free_port(20_000 + number)
            except OSError:
                continue
            return 4_710_000 + number
        raise AssertionError("no free port")


@pytest.fixture
def slurm(make_job: Any, tmp_path: Path) -> Iterator[Slurm]:
    one = Slurm(tmp_path, make_job("bert", evaluators={"count": 2, "cpus": 0.5}, budget={"evaluations": 2000}))
    yield one
    shutil.rmtree(one.scratch, ignore_errors=True)


def the_run(storage: Path) -> Path | None:
    return next(iter(storage.glob("tiny-bert-*")), None)


def begun(slurm: Slurm, count: int) -> tuple[subprocess.Popen[str], Path]:
    """A script at work, when so many lines of its journal are written, and its run."""
    for _ in range(ATTEMPTS):
        process = slurm.start()
        until = time.monotonic() + 200
        while time.monotonic() < until and process.poll() is None:
            run = the_run(slurm.storage)
            if run is not None and lines(run) >= count:
                return process, run
            time.sleep(0.05)
        process.terminate()
        _, said = slurm.end(process)
        if TOO_BUSY not in said:
            break
    raise AssertionError(said)


def ended(slurm: Slurm) -> tuple[int, str]:
    """How a script that nobody disturbs ends, and what it says."""
    for _ in range(ATTEMPTS):
        status, said = slurm.end(slurm.start())
        if TOO_BUSY not in said:
            break
    return status, said


@pytest.mark.slow
@pytest.mark.ray
def test_a_slurm_job_whose_time_is_up_is_queued_again_goes_on_and_then_only_tells_its_result(slurm, tmp_path):
    first, run = begun(slurm, 20)
    assert slurm.token.stat().st_mode & 0o777 == 0o600
    first.send_signal(signal.SIGUSR1)
    status, said = slurm.end(first)
    assert status == 130, said
    assert f"interrupted; go on with: bbtune resume {run}" in said
    assert slurm.calls("scontrol") == [f"requeue {slurm.number}"]
    head, others = slurm.calls("srun")[-2:]
    assert "--nodelist=node1 ray start --head" in head
    assert "--nodes=1 --ntasks=1 --exclude=node1 ray start --address=" in others
    assert len(list(max(slurm.scratch.glob("session_2*")).glob("logs/raylet*.out"))) == 2
    assert not (run / "result.json").exists()
    kept = (run / "journal.jsonl").read_bytes()

    status, said = ended(slurm)
    assert status == 0, said
    assert (run / "journal.jsonl").read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    assert not slurm.scratch.exists()
    whole = api.run(load_job(tmp_path / "job.yaml", ["evaluators.count=0"]), tmp_path / "whole")
    assert TuneResult.load(run).as_dict()["learned_sha256"] == whole.as_dict()["learned_sha256"]

    written = (run / "result.json").stat().st_mtime_ns
    status, again = ended(slurm)
    assert status == 0
    assert whole.summary().splitlines()[0] in again
    assert (run / "result.json").stat().st_mtime_ns == written
    assert len(slurm.calls("scontrol")) == 1


@pytest.mark.slow
@pytest.mark.ray
def test_a_slurm_job_that_is_cancelled_ends_its_search_and_is_not_queued_again(slurm):
    process, run = begun(slurm, 5)
    process.send_signal(signal.SIGTERM)
    status, said = slurm.end(process)
    assert status == 130, said
    assert f"interrupted; go on with: bbtune resume {run}" in said
    assert slurm.calls("scontrol") == []


# Machines that SSH reaches


def test_ray_takes_the_configuration_of_machines_reached_by_ssh():
    from ray.autoscaler._private.util import prepare_config, validate_config

    (said,) = documents("ray_up.yaml")
    config = prepare_config(said)
    validate_config(config)
    assert config["max_workers"] == len(said["provider"]["worker_ips"])
    for part in ("head", "worker"):
        start = config[f"{part}_start_ray_commands"][-1]
        assert "RAY_AUTH_MODE=token" in start
        assert ". ~/bbtune.env" in start
        assert any("-c ~/bbtune/constraints.txt" in command for command in config[f"{part}_setup_commands"])
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token ~/bbtune.env" in config["head_setup_commands"]


def test_what_is_told_to_machines_reached_by_ssh_is_sound_for_bash():
    (said,) = documents("ray_up.yaml")
    for key, commands in said.items():
        if key.endswith("_commands"):
            for command in commands:
                subprocess.run(["bash", "-n", "-c", command], check=True)


class Machine:
    """This machine as one that ``ray up`` has set up: a home of its own with environment, token and settings.

    Commands are those of the file, with ports of our own, in the foreground.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.temp = Path(f"/tmp/bbu{os.getpid()}")
        self.port, self.dashboard = free_port(), free_port()
        self._children: list[subprocess.Popen[bytes]] = []
        (home / "bbtune-env" / "bin").mkdir(parents=True)
        bin_folder = shlex.quote(str(Path(sys.executable).parent))
        (home / "bbtune-env" / "bin" / "activate").write_text(f"export PATH={bin_folder}:$PATH\n")
        (home / ".ray").mkdir()
        self.token = home / ".ray" / "auth_token"
        self.token.write_text("0123456789abcdef" * 4)
        self.token.chmod(0o600)
        (home / "bbtune.env").write_text(f"{STORAGE}={shlex.quote(str(home / 'storage'))}\n")
        self._config = self._written()

    def start(self, part: str, **options: Any) -> None:
        command = self._config[f"{part}_start_ray_commands"][-1].replace("6379", str(self.port))
        given = {"temp-dir": self.temp / part, "num-cpus": 1, "dashboard-agent-listen-port": free_port(), **options}
        command += "".join(f" --{name}={value}" for name, value in given.items()) + " --block"
        log = (self.home / f"{part}.log").open("wb")
        variables = environment(HOME=str(self.home), RAY_HEAD_IP=address_of_this_machine())
        child = subprocess.Popen(["bash", "-c", command], env=variables, stdout=log, stderr=log, cwd=self.home)
        self._children.append(child)

    def close(self) -> None:
        everything = [
            process
            for child in self._children
            if child.poll() is None
            for process in [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
        ]
        for process in everything:
            if process.is_running():
                process.terminate()
        for process in psutil.wait_procs(everything, timeout=20)[1]:
            process.kill()
        for child in self._children:
            child.wait(timeout=20)
        shutil.rmtree(self.temp, ignore_errors=True)

    def bbtune(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bbtune", *map(str, arguments), "--address", self.url]
        kept = environment(**{"HOME": str(self.home), "BBTUNE_SERVICE": str(self.home / "none"), **variables})
        return subprocess.run(command, env=kept, capture_output=True, text=True, timeout=300, cwd=self.home)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def nodes(self) -> int:
        """Machines of the cluster; 0 before it answers."""
        asked = urllib.request.Request(f"{self.url}/api/v0/nodes", headers=self._shown())
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=5) as answer:
                found = json.load(answer)["data"]["result"]["result"]
        except (OSError, urllib.error.URLError, ValueError):
            return 0
        return len([node for node in found if node["state"] == "ALIVE"])

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in self.home.glob("*.log"))

    def _shown(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token.read_text()}"}

    def _written(self) -> dict[str, Any]:
        from ray.autoscaler._private.util import prepare_config

        (said,) = documents("ray_up.yaml")
        said["provider"] = {"type": "local", "head_ip": address_of_this_machine(), "worker_ips": []}
        config = prepare_config(said)
        (self.home / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(config))
        return dict(config)


def address_of_this_machine() -> str:
    import ray.util

    return str(ray.util.get_node_ip_address())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    one = Machine(tmp_path)
    try:
        yield one
    finally:
        one.close()
    assert mentioning(str(one.temp)) == []


def wait_for_nodes(machine: Machine, count: int) -> None:
    until = time.monotonic() + 120
    while machine.nodes() < count:
        assert time.monotonic() < until, machine.logs()
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.ray
def test_a_job_is_submitted_to_machines_started_as_ray_up_would(machine, make_job):
    machine.start("head", **{"dashboard-port": machine.dashboard})
    wait_for_nodes(machine, 1)
    machine.start("worker")
    wait_for_nodes(machine, 2)
    spec = make_job("bert", evaluators={"count": 2, "cpus": 1})
    (machine.home / "job.yaml").write_text(spec.to_yaml())

    refused = machine.bbtune("submit", "job.yaml", HOME=str(machine.home / "nobody"))
    assert refused.returncode == 1
    assert "wants a token" in refused.stderr

    done = machine.bbtune("submit", "job.yaml", "--follow")
    assert done.returncode == 0, done.stdout + done.stderr + machine.logs()
    run = the_run(machine.home / "storage")
    assert run is not None
    assert f"run folder: {run}" in done.stdout
    whole = api.run(load_job(machine.home / "job.yaml", ["evaluators.count=0"]), machine.home / "whole")
    assert TuneResult.load(run).as_dict()["learned_sha256"] == whole.as_dict()["learned_sha256"]
    again = machine.bbtune("submit", "job.yaml", "--follow")
    assert again.returncode == 0
    assert whole.summary().splitlines()[0] in again.stdout
    table = machine.bbtune("jobs")
    assert table.stdout.count("succeeded") == 2
