"""The local stack keeps its promises: nothing left behind, data survives, given addresses are used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from local import stack as stack_module
from local.paths import REPOSITORY
from local.servers import postgres, search
from local.servers.java import Jar
from local.servers.layout import Layout
from local.servers.ports import PortBook, is_free
from local.servers.processes import NotReadyError, ProcessRecord, Server, end
from local.servers.releases import Releases
from local.stack import Addresses, Stack


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Server]:
    """A process with a child in another session: the worst that a server does."""
    code = (
        "import subprocess, sys, time;"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
        "print('up', flush=True); time.sleep(600)"
    )
    server = Server(
        name="sleeper",
        command=(sys.executable, "-c", code),
        directory=tmp_path,
        log_file=tmp_path / "sleeper.log",
        pid_file=tmp_path / "pids" / "sleeper.json",
        address="nowhere",
        answers=lambda: "up" in (tmp_path / "sleeper.log").read_text(),
    )
    yield server
    server.stop()


@pytest.fixture(scope="module")
def index(stack_directory: Path) -> Iterator[Server]:
    """A search server of this module's own, to be frozen and killed."""
    with search.server(Layout.of(stack_directory / "index"), Releases().search) as server:
        yield server


def test_stop_ends_a_child_that_left_the_session(sleeper: Server):
    sleeper.start()
    sleeper.wait_ready()
    record = sleeper.record
    assert record is not None
    family = record.family()
    assert len(family) == 2
    sleeper.stop()
    assert not [process for process in family if process.is_running()]
    assert not sleeper.running


def test_another_process_can_end_what_a_dead_one_started(sleeper: Server, tmp_path: Path):
    sleeper.start()
    sleeper.wait_ready()
    record = ProcessRecord.load(tmp_path / "pids" / "sleeper.json")
    assert record is not None
    os.kill(record.pid, signal.SIGSTOP)  # not even a frozen one stays
    end(record, grace_s=2)
    assert not record.alive


def test_a_process_whose_number_was_given_away_is_left_alone():
    mine = ProcessRecord.of(os.getpid())
    stranger = ProcessRecord(pid=mine.pid, started=mine.started - 1, boot=mine.boot)
    assert not stranger.alive
    end(stranger, grace_s=0)  # would end this test run


def test_a_server_that_ends_while_starting_says_so_with_its_log(tmp_path: Path):
    server = Server(
        name="broken",
        command=(sys.executable, "-c", "raise SystemExit('no such option')"),
        directory=tmp_path,
        log_file=tmp_path / "broken.log",
        pid_file=tmp_path / "broken.json",
        address="nowhere",
        answers=lambda: False,
    )
    server.start()
    with pytest.raises(NotReadyError, match=r"(?s)broken ended while starting.*no such option"):
        server.wait_ready(timeout_s=20)
    server.stop()


def test_a_name_keeps_its_port_and_stacks_get_ports_of_their_own(tmp_path: Path):
    first = PortBook(tmp_path / "one.json").port("kafka")
    assert PortBook(tmp_path / "one.json").port("kafka") == first
    assert len({PortBook(tmp_path / f"{number}.json").port("kafka") for number in range(200)}) == 200
    draws_the_same_first = (
        f"import itertools, pathlib, random; random.randint = lambda *_, of=itertools.count({first}): next(of);"
        "from local.servers.ports import PortBook; print(PortBook(pathlib.Path('two.json')).port('kafka'))"
    )
    done = subprocess.run(
        (sys.executable, "-c", draws_the_same_first),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert int(done.stdout) > first


@pytest.mark.parametrize(
    ("classifier", "wanted"),
    [("", True), ("shaded", True), ("osx-aarch_64", False), ("windows-x86_64", False)],
)
def test_only_native_code_of_this_machine_is_downloaded(classifier: str, wanted: bool):
    jar = Jar("org.example", "native", "1", classifier, "0" * 64)
    assert jar.for_this_machine is wanted


def test_addresses_survive_their_file(tmp_path: Path):
    file = tmp_path / "addresses.env"
    known = Addresses(
        "127.0.0.1:1",
        "127.0.0.1:2",
        "http://h:3",
        "postgresql://o:p@h:4/o",
        "http://h:5",
        "http://h:6",
        "http://h:7",
        "admin",
        "x",
    )
    known.write(file)
    assert Addresses.read(file) == known
    assert file.stat().st_mode & 0o077 == 0
    assert [line.partition("=")[0] for line in file.read_text().splitlines()] == [
        "KAFKA", "CASSANDRA", "ELASTICSEARCH", "LEDGER", "LMS", "USERORG",
        "AIRFLOW", "AIRFLOW_USER", "AIRFLOW_PASSWORD",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param({"KAFKA": "127.0.0.1:1"}, "Nothing answers at KAFKA=", id="nobody listens"),
        pytest.param({"KAFKA": "localhost"}, "give it as host:port", id="no port"),
        pytest.param({"LEDGER": "127.0.0.1:1"}, "give it as postgresql://", id="no URL"),
        pytest.param({"REDIS": "localhost:6379"}, "REDIS is no part of the stack", id="unknown part"),
    ],
)
def test_a_wrong_given_address_is_refused_before_anything_starts(
    tmp_path: Path, given: dict[str, str], message: str
):
    with pytest.raises((RuntimeError, ValueError), match=message):
        Stack(tmp_path, airflow=False, given=given).start()
    assert not stack_module.running_parts(tmp_path)


@pytest.mark.servers
def test_a_given_part_is_not_started(stack: Stack, spare_directory: Path):
    known = stack.addresses
    given = {
        "KAFKA": known.kafka,
        "CASSANDRA": known.cassandra,
        "ELASTICSEARCH": known.elasticsearch,
        "LEDGER": known.ledger,
        "LMS": known.lms,
    }
    with Stack(spare_directory, airflow=False, given=given) as second:
        assert set(second.servers) == {"userorg"}
        assert second.addresses.lms == known.lms
        assert f'"port": {known.lms.rpartition(":")[2]}' in second.airflow_env["AIRFLOW_CONN_LMS_DEFAULT"]
        ports = second.servers["userorg"].ports
    assert all(is_free(port) for port in ports)


@pytest.mark.servers
def test_data_outlives_a_crash_and_a_restart_on_the_same_port(index: Server):
    httpx.put(f"{index.address}/kept/_doc/1?refresh=true", json={"a": 1}, timeout=30).raise_for_status()
    index.kill()
    assert not index.running
    index.restart()
    assert httpx.get(f"{index.address}/kept/_doc/1", timeout=30).json()["_source"] == {"a": 1}


@pytest.mark.servers
def test_a_frozen_server_does_not_answer_until_it_is_thawed(index: Server):
    index.freeze()
    with pytest.raises(httpx.TimeoutException):
        httpx.get(f"{index.address}/_cluster/health", timeout=1)
    index.thaw()
    assert httpx.get(f"{index.address}/_cluster/health", timeout=30).status_code == 200


@pytest.mark.servers
def test_no_acknowledged_commit_is_lost_when_a_synchronous_standby_takes_over(spare_directory: Path):
    layout = Layout.of(spare_directory)
    primary = postgres.server(layout)
    standby = postgres.standby(layout, layout.port("postgres"), "postgres-standby")
    try:
        primary.start()
        primary.wait_ready()
        postgres.create_ledger_database(primary.address, postgres.ledger_password(layout))
        standby.start()
        standby.wait_ready()
        postgres.replicate_synchronously(primary)
        with psycopg.connect(postgres.url_of_ledger(layout), autocommit=True) as ledger:
            ledger.execute("CREATE TABLE kept (n int)")
            for n in range(100):
                ledger.execute("INSERT INTO kept VALUES (%s)", (n,))
        primary.kill()
        postgres.promote(standby)
        promoted = postgres.url_of_ledger(layout, f"127.0.0.1:{layout.port('postgres-standby')}")
        with psycopg.connect(promoted) as ledger:
            assert ledger.execute("SELECT count(*) FROM kept").fetchone() == (100,)
            ledger.execute("INSERT INTO kept VALUES (100)")  # waits for no standby
    finally:
        primary.stop()
        standby.stop()


@pytest.mark.servers
def test_the_ledger_s_role_needs_its_password_and_its_commits_are_durable(stack: Stack):
    with psycopg.connect(stack.addresses.ledger) as ledger:
        assert ledger.execute("SHOW synchronous_commit").fetchone() == ("on",)
    password = urlsplit(stack.addresses.ledger).password
    assert password
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(stack.addresses.ledger.replace(password, "wrong"))


@pytest.mark.servers
def test_each_server_of_the_stack_answers(stack: Stack):
    assert all(server.answers() for server in stack.servers.values())
    assert httpx.get(f"{stack.addresses.lms}/health", timeout=5).status_code == 200
