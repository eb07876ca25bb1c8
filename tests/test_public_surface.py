"""What users can rely on, as lists: a change here is a change for them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
import typer.main

import bbtune
from bbtune.cli import app

NAMES = ["AskTell", "BbtuneError", "JobError", "JobSpec", "TaskData", "TuneResult", "__version__"]
NAMES += ["export", "load_job", "minimize", "resume", "run", "validate"]

SIGNATURES = {
    "export": ["folder", "form", "to", "register_as", "tracking_uri"],
    "load_job": ["path", "overrides", "method"],
    "minimize": ["function", "dim", "evaluations", "layers", "optimizer", "seed", "settings"],
    "resume": ["folder", "changes", "show", "task", "optimizer"],
    "run": ["job", "out", "show", "task", "optimizer"],
    "validate": ["job", "overrides", "method", "task", "optimizer"],
}

COMMANDS = {
    "": ["--version"],
    "run": ["JOB", "--out", "--method", "--seeds", "--set", "--tracking-uri", "--dry-run"],
    "resume": ["FOLDER", "--evaluators", "--set"],
    "probe": ["JOB", "--set"],
    "show": ["FOLDER"],
    "validate": ["JOB", "--method", "--set"],
    "predict": ["FOLDER", "TEXTS"],
    "sync": ["FOLDER", "--tracking-uri"],
    "export": ["FOLDER", "--format", "--to", "--register", "--tracking-uri"],
    "report": ["FOLDER", "--out", "--beside"],
    "compare": ["RUNS", "--reference", "--out", "--tracking-uri", "--experiment"],
    "schema": [],
    "hpo": [
        "JOB",
        "--space",
        "--out",
        "--trials",
        "--searcher",
        "--seed",
        "--asha/--no-asha",
        "--concurrent",
        "--retrain-seeds",
        "--set",
    ],
    "up": ["--state", "--port-ray", "--port-dashboard", "--port-mlflow", "--cpus"],
    "down": ["--state"],
    "status": ["--state"],
    "serve": [
        "RUNS",
        "--port",
        "--host",
        "--replicas",
        "--threads",
        "--no-key",
        "--max-texts",
        "--max-characters",
        "--max-bytes",
        "--batch",
        "--queue",
        "--grace",
        "--state",
    ],
    "doctor": ["JOB", "--address", "--state"],
    "submit": ["JOB", "--address", "--follow", "--method", "--seeds", "--set", "--runtime-env", "--id"],
    "jobs": ["--address"],
    "logs": ["JOB", "--follow", "--address"],
    "stop": ["JOB", "--address"],
    "models": [],
    "models get": ["NAME"],
    "models list": [],
}


def commands(command: Any, name: str = "") -> dict[str, list[str]]:
    """Arguments and options by command, groups followed."""
    found = {name: [_shown(parameter) for parameter in command.params]}
    for below, one in getattr(command, "commands", {}).items():
        found |= commands(one, f"{name} {below}".strip())
    return found


def _shown(parameter: Any) -> str:
    options = [option for option in parameter.opts if option.startswith("-")]
    return "/".join(options + parameter.secondary_opts) or str(parameter.name).upper()


def test_the_public_names_are_these() -> None:
    assert bbtune.__all__ == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_resolves_to_what_its_module_defines(name: str) -> None:
    value = getattr(bbtune, name)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__module__.startswith("bbtune.")
        assert value.__doc__


def test_a_public_function_stays_one_whatever_was_used_before() -> None:
    """A module of the same name would take its place once it is loaded."""
    use = f"import bbtune; bbtune.TuneResult; assert all(callable(getattr(bbtune, n)) for n in 2 * {list(SIGNATURES)})"
    done = subprocess.run([sys.executable, "-c", use], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_star_import_gives_the_public_names_and_no_others() -> None:
    scope: dict[str, Any] = {}
    exec("from bbtune import *", scope)
    assert sorted(set(scope) - {"__builtins__"}) == NAMES


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'bbtune' has no attribute 'tune'"):
        _ = bbtune.tune


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_arguments_of_public_functions_are_these(name: str) -> None:
    assert list(inspect.signature(getattr(bbtune, name)).parameters) == SIGNATURES[name]


def test_the_errors_of_the_package_have_one_base() -> None:
    from bbtune import errors

    raised = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    assert len(raised) > 5
    assert all(issubclass(error, bbtune.BbtuneError) for error in raised)


def test_the_commands_and_their_options_are_these() -> None:
    assert commands(typer.main.get_command(app)) == COMMANDS


def test_every_command_and_option_says_what_it_is() -> None:
    def silent(command: Any, name: str) -> list[str]:
        found = [] if command.help else [name]
        found += [f"{name} {_shown(parameter)}" for parameter in command.params if not getattr(parameter, "help", "")]
        return found + [text for below, one in getattr(command, "commands", {}).items() for text in silent(one, below)]

    assert silent(typer.main.get_command(app), "bbtune") == []
