"""Pictures of an experiment as MLflow's own pages show it: the runs table, the curves, the compare page.

    pip install playwright  # not among bbtune's dependencies; its own browser is not needed
    python benchmarks/screenshots.py --uri sqlite:///mlflow.db --experiment NAME --out docs/images

Serves a copy of the database with a real MLflow server on loopback, and looks at it with a headless Chromium
(``--browser``, Debian's ``chromium`` unless told otherwise). Shown are the groups of the experiment, each the mean of
its seeds; where there are none, its runs. Written for the pages of MLflow 3.17.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

COLUMNS = ["params.`method`", "params.`task`"]
COLUMNS += [f"metrics.`{name}`" for name in ("test_tuned", "gain", "parameters", "n_seeds", "seconds")]
COORDINATES = ["parameters", "seconds", "peak_memory_mib", "test_tuned"]  # the last one gives the colour
CURVES = ["dev_score", "best_loss"]
GROUPS = "tags.`bbtune.kind` = 'group'"
RUNS = "attributes.status = 'FINISHED' and tags.`bbtune.uid` != ''"
START_S, PAGE_MS, REST_MS = 120, 60_000, 5_000
SIZE = {"width": 1440, "height": 810}
LARGEST = 300_000  # bytes of a picture
LONGEST_LIST = 60  # turns of the wheel
# Paul Tol's muted and bright colours: MLflow gives two runs the same one by chance.
COLOURS = ["332288", "cc6677", "117733", "ddcc77", "88ccee", "882255", "44aa99", "999933", "aa4499", "777777"]
COLOURS += ["4477aa", "ee6677", "228833", "ccbb44", "66ccee", "aa3377", "bbbbbb", "ee7733", "000000", "0077bb"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uri", required=True, help="sqlite:///FILE")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--where", help="MLflow's filter beside ours, such as: params.task = 'sst2'")
    parser.add_argument("--most", type=int, default=12, help="runs on the compare page, the best by test_tuned")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, serving(copied(asked.uri, Path(folder)), Path(folder)) as address:
        experiment, where, runs = chosen(address, asked.experiment, asked.where)
        with page(asked.browser, experiment, runs) as shown:
            site = f"{address}/#"
            take_table(shown, site, experiment, where, asked.out / "mlflow-runs.png")
            take_chart(shown, site, experiment, where, asked.out / "mlflow-curves.png")
            take_comparison(shown, site, experiment, runs[: asked.most], asked.out / "mlflow-compare.png")


def copied(uri: str, folder: Path) -> str:
    """A copy of a database, because the server and its pages leave marks in theirs."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not path.is_file():
        raise SystemExit(f"--uri: expected sqlite:///FILE of a database that is there, got {uri}")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(folder / "mlflow.db")) as target:
        source.backup(target)
    return f"sqlite:///{folder / 'mlflow.db'}"


@contextmanager
def serving(uri: str, folder: Path) -> Iterator[str]:
    """An MLflow server on loopback; gives its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", uri, "--default-artifact-root", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", server, folder / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # its workers, too: it leads a group of its own
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def wait_until_healthy(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.3)
    raise SystemExit(f"the MLflow server did not start; the end of what it said:\n{log.read_text()[-2000:]}")


def chosen(address: str, name: str, where: str | None) -> tuple[str, str, list[str]]:
    """The experiment's id, the filter of what is shown, and the ids of those runs, the best first."""
    import mlflow

    client = mlflow.MlflowClient(address)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        there = ", ".join(found.name for found in client.search_experiments())
        raise SystemExit(f"--experiment: expected one of {there}, got {name}")
    for kind in (GROUPS, RUNS):
        query = f"{kind} and {where}" if where else kind
        runs = client.search_runs([experiment.experiment_id], query, order_by=["metrics.test_tuned DESC"])
        if runs:
            return str(experiment.experiment_id), query, [run.info.run_id for run in runs]
    raise SystemExit(f"--experiment: expected one with finished runs, got {name}, where nothing fits {query}")


@contextmanager
def page(browser: str, experiment: str, runs: Sequence[str]) -> Iterator[Any]:
    """A page of a browser that has been to MLflow before, with what its storage says then."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise SystemExit("expected the package playwright, which drives the browser; pip install playwright") from error
    stored = json.dumps(browser_storage(experiment, runs))
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        try:
            shown = chromium.new_page(viewport=SIZE)
            shown.set_default_timeout(PAGE_MS)
            shown.add_init_script(f"for (const [k, v] of Object.entries({stored})) localStorage.setItem(k, v);")
            yield shown
        finally:
            chromium.close()


def browser_storage(experiment: str, runs: Sequence[str]) -> dict[str, str]:
    """Columns and colours chosen, the assistant closed."""
    state = {
        "selectedColumns": COLUMNS,
        "columnOrder": COLUMNS,
        "columnWidths": {"params.`method`": 180},
        "runsHiddenMode": "FIRST_10_RUNS" if len(runs) <= 10 else "FIRST_20_RUNS",
        "orderByKey": "metrics.`test_tuned`",
        "orderByAsc": False,
    }
    colours = {run: "#" + COLOURS[index % len(COLOURS)] for index, run in enumerate(runs)}
    return {
        f'MLflowLocalStorage-1.1-ExperimentPage-["{experiment}"]-ReactComponentState': json.dumps(state),
        "experimentRunColors": json.dumps(colours),
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
        "mlflow.assistant.panelOpen_v1": "false",
    }


def open_page(shown: Any, url: str) -> None:
    """Load a page anew: MLflow's addresses differ behind the # only, which alone loads nothing."""
    shown.goto("about:blank")
    shown.goto(url)


def runs_url(site: str, experiment: str, where: str, mode: str) -> str:
    """Of the runs page of an experiment."""
    order = f"orderByKey={quote('metrics.`test_tuned`')}&orderByAsc=false"
    fixed = f"workflowType=machine_learning&{order}"
    return f"{site}/experiments/{experiment}/runs?{fixed}&searchFilter={quote(where)}{mode}"


def take_table(shown: Any, site: str, experiment: str, where: str, out: Path) -> None:
    open_page(shown, runs_url(site, experiment, where, ""))
    shown.get_by_role("columnheader", name="test_tuned").first.wait_for()
    keep(shown, out)


def take_chart(shown: Any, site: str, experiment: str, where: str, out: Path) -> None:
    open_page(shown, runs_url(site, experiment, where, "&compareRunsMode=CHART"))
    shown.get_by_placeholder("Search metric charts").fill(f"^({'|'.join(CURVES)})$")
    shown.locator(".js-plotly-plot").nth(len(CURVES) - 1).wait_for()
    keep(shown, out)


def take_comparison(shown: Any, site: str, experiment: str, runs: Sequence[str], out: Path) -> None:
    ids, of = quote(json.dumps(list(runs))), quote(json.dumps([experiment]))
    open_page(shown, f"{site}/compare-runs?runs={ids}&experiments={of}&workflowType=machine_learning")
    shown.locator(".js-plotly-plot").first.wait_for()
    for box, names in zip(shown.get_by_role("combobox").all(), (["method"], COORDINATES), strict=True):
        before = [name for name in (box.get_attribute("aria-description") or "").split(", ") if name]
        if before != names:
            for name in (*before, *names):  # the first are taken back
                press(shown, box, name)
            shown.get_by_role("heading", name="Comparing").click()  # anywhere else closes the list
    keep(shown, out)


def press(shown: Any, box: Any, name: str) -> None:
    """Choose a value of a list, or take it back; the list holds no more than what is seen of it."""
    if box.get_attribute("aria-expanded") != "true":
        box.click(force=True)  # it lies under the values chosen
    option = shown.locator(f'[class*="select-item-option"][title="{name}"]')
    lists = shown.locator(".rc-virtual-list-holder").last
    lists.wait_for()
    lists.evaluate("list => list.scrollTo(0, 0)")
    for _ in range(LONGEST_LIST):
        shown.wait_for_timeout(100)
        if option.count():
            option.first.click()
            return
        lists.evaluate("list => list.scrollBy(0, 100)")
    raise SystemExit(f"expected {name} among the choices of the compare page, found none; have the runs their results?")


def keep(shown: Any, out: Path) -> None:
    """Write the picture, once what moves has come to rest; the pages refresh themselves, so the network never does."""
    shown.add_style_tag(content='button[data-assistant-ui="true"] { display: none }')
    shown.wait_for_timeout(REST_MS)
    shown.screenshot(path=str(out))
    if out.stat().st_size > LARGEST:
        from PIL import Image

        Image.open(out).convert("RGB").quantize(128).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
