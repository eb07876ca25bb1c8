"""The record of a service, its token and its ports."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from bbtune.errors import BbtuneError, ResourcesError
from bbtune.service.ports import HABIT, Wanted, choose_ports, is_free
from bbtune.service.state import Recorded, Service, forget_service, held, read_service, service_folder, write_service
from bbtune.service.token import loose_mode, make_token, service_token


@pytest.fixture
def service(tmp_path: Path) -> Service:
    make_token(tmp_path / "token")
    return Service(
        folder=tmp_path,
        dashboard="http://127.0.0.1:8265",
        ray_address="127.0.0.1:6379",
        mlflow="http://127.0.0.1:5000",
        token_file=tmp_path / "token",
        storage=tmp_path / "runs",
        temp=Path("/tmp/bbt-x"),
        processes=(Recorded("ray", 7, 1.5), Recorded("mlflow", 8, 2.5)),
    )


def test_a_service_is_read_as_it_was_written(service):
    write_service(service)
    assert read_service(service.folder) == service


def test_a_folder_without_a_record_has_no_service(tmp_path):
    assert read_service(tmp_path) is None
    assert read_service(tmp_path / "missing") is None


def test_a_record_that_is_taken_off_is_gone(service):
    write_service(service)
    forget_service(service.folder)
    forget_service(service.folder)
    assert read_service(service.folder) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"folder": 3}', '"a"', "\x00"])
def test_a_damaged_record_is_told_with_what_to_do(tmp_path, text):
    (tmp_path / "service.json").write_text(text)
    with pytest.raises(BbtuneError, match=r"expected the record of a service.*remove the file"):
        read_service(tmp_path)


def test_the_state_folder_is_that_of_the_environment_else_one_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("BBTUNE_SERVICE", str(tmp_path / "s"))
    assert service_folder() == tmp_path / "s"
    monkeypatch.setenv("BBTUNE_SERVICE", "~/s")
    assert service_folder() == Path.home() / "s"
    monkeypatch.delenv("BBTUNE_SERVICE")
    assert service_folder() == Path.home() / ".bbtune" / "service"


def test_a_token_is_its_owners_alone_whatever_the_umask(tmp_path):
    import os

    kept = os.umask(0)
    try:
        make_token(tmp_path / "token")
    finally:
        os.umask(kept)
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert len(service_token(tmp_path / "token")) == 64


def test_the_file_of_a_token_is_opened_with_its_final_mode(tmp_path, monkeypatch):
    """At no moment can others read it: the mode is an argument of the call that makes the file."""
    import os

    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda *arguments, **more: opened.append(arguments) or real(*arguments, **more))
    make_token(tmp_path / "token")
    assert [(flags & os.O_EXCL != 0, mode) for _, flags, mode in opened] == [(True, 0o600)]


def test_a_token_that_is_there_stays_and_loses_its_loose_mode(tmp_path):
    path = tmp_path / "token"
    path.write_text("kept")
    path.chmod(0o644)
    assert loose_mode(path) == "0644"
    make_token(path)
    assert (service_token(path), loose_mode(path)) == ("kept", None)


def test_an_empty_or_missing_token_is_told(tmp_path):
    with pytest.raises(BbtuneError, match="cannot be read"):
        service_token(tmp_path / "token")
    (tmp_path / "token").write_text("\n")
    with pytest.raises(BbtuneError, match="visible ASCII characters; bbtune down, then"):
        service_token(tmp_path / "token")


def test_no_port_is_given_out_twice_and_all_are_free():
    ports = choose_ports(Wanted())
    assert len(set(ports.values())) == len(ports) == 11
    assert all(is_free(port) for port in ports.values())


def test_a_port_of_habit_that_is_taken_is_replaced():
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 8265))
        except OSError:
            pytest.skip("8265 is in use on this machine")
        taken.listen()
        assert not is_free(8265)
        assert choose_ports(Wanted())["dashboard"] != 8265


def test_a_port_that_was_asked_for_and_is_taken_is_told_with_its_owner():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ResourcesError, match=rf"--port-mlflow: {port} is taken by process \d+ \(.*another port"):
            choose_ports(Wanted(mlflow=port))


def test_a_port_that_is_asked_for_is_no_other_parts():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ResourcesError, match=f"--port-mlflow: {port} is to be that of another part; take another port"):
        choose_ports(Wanted(ray=port, mlflow=port))


def test_a_port_of_habit_that_another_part_was_given_is_replaced(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setitem(HABIT, "ray", port)
    monkeypatch.setitem(HABIT, "mlflow", port)
    ports = choose_ports(Wanted(dashboard=port))
    assert ports["dashboard"] == port
    assert list(ports.values()).count(port) == 1


def test_one_command_at_a_time_works_at_a_service(tmp_path):
    with held(tmp_path), pytest.raises(BbtuneError, match="is at work here"), held(tmp_path):
        pass
    with held(tmp_path):
        pass
