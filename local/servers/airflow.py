"""Airflow: its settings as environment variables, its four processes, and when it is ready to be used."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx

from local.paths import REPOSITORY
from local.servers import postgres
from local.servers.layout import Layout
from local.servers.ports import HOST
from local.servers.processes import NotReadyError, Server, await_condition, child_environment

USER, OPERATOR, VIEWER = "admin", "operator", "viewer"
"""The users; all have the stack's one password."""
ROLES = {USER: "admin", OPERATOR: "user", VIEWER: "viewer"}
"""Roles of Airflow's simple auth manager: a user may start runs, a viewer only looks."""
DAG_ID = "user_ownership_transfer"
UNDO_DAG_ID = "ownership_undo"
DAG_IDS = (DAG_ID, UNDO_DAG_ID, "ownership_approval", "ownership_reconcile", "ownership_health")
"""Every DAG of the job."""
DATABASE = "airflow"
"""The metadata database."""
METADATA = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
_MIGRATED = "migrated"
_CONNECTION = "AIRFLOW_CONN_"
_VARIABLE = "AIRFLOW_VAR_"


@dataclass(frozen=True)
class Part:
    """One process of Airflow."""

    name: str
    command: tuple[str, ...]
    """The arguments of `airflow`."""
    port: str | None = None
    """The name of the port in the stack's layout on which it listens."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its own."""

    @property
    def kind(self) -> str:
        """Its subcommand."""
        return next(word for word in self.command if word != "celery")


FIRST_PARTS = (
    Part("api-server", ("api-server",), "airflow"),
    Part("scheduler", ("scheduler",), "airflow-worker-logs"),
)
LAST_PARTS = (
    Part("dag-processor", ("dag-processor",)),
    Part("triggerer", ("triggerer",), "airflow-trigger-logs"),
)
"""Started when the platform exists: a parsed DAG is watched at once."""
COMPONENTS = tuple(part.name for part in (*FIRST_PARTS, *LAST_PARTS))
"""Airflow's processes in a stack on one machine."""


@dataclass(frozen=True)
class Secrets:
    """Keys and password of one stack's Airflow, generated once for a directory."""

    password: str
    secret_key: str
    jwt_secret: str
    fernet_key: str

    @classmethod
    def of(cls, home: Path) -> Secrets:
        """The secrets of the Airflow in `home`."""
        file = home / "secrets.json"
        if not file.exists():
            home.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            made = {
                "password": secrets.token_urlsafe(12),
                "secret_key": secrets.token_urlsafe(32),
                "jwt_secret": secrets.token_urlsafe(64),
                "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            }
            file.write_text(json.dumps(made))
        return cls(**json.loads(file.read_text()))


def connections(
    *, kafka: str, cassandra: str, elasticsearch: str, ledger: str, lms: str, userorg: str
) -> dict[str, str]:
    """The job's Airflow Connections, as environment variables. The LMS's stand-in is also the content search."""
    cassandra_host, _, cassandra_port = cassandra.rpartition(":")
    extra = {"bootstrap.servers": kafka, "enable.auto.commit": "false"}
    made: dict[str, dict[str, Any]] = {
        "kafka_default": {"conn_type": "kafka", "extra": extra},
        "cassandra_default": {"conn_type": "cassandra", "host": cassandra_host, "port": int(cassandra_port)},
        "elasticsearch_default": _http("elasticsearch", elasticsearch),
        "ownership_ledger": _postgres(ledger),
        "lms_default": _http("http", lms),
        "userorg_default": _http("http", userorg),
        "content_search_default": _http("http", lms),
    }
    return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in made.items()}


def _http(conn_type: str, url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or parts.hostname is None:
        raise ValueError(f"{url!r} is no HTTP address; give it as http://host:port.")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"conn_type": conn_type, "host": parts.hostname, "port": port, "schema": parts.scheme}


def _postgres(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme != "postgresql" or parts.hostname is None:
        raise ValueError(
            "The ledger's address is no URL; give it as postgresql://login:password@host:port/database."
        )
    made = {
        "conn_type": "postgres",
        "host": parts.hostname,
        "port": parts.port or 5432,
        "schema": unquote(parts.path.removeprefix("/")),
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
    }
    extra = dict(parse_qsl(parts.query))
    return {**made, "extra": extra} if extra else made


def base_environment(layout: Layout, settings: Mapping[str, Any]) -> dict[str, str]:
    """Airflow settings that the job needs, also without Airflow's processes."""
    plugins = REPOSITORY / "plugins"
    # Ours last: settings that the shell exports for another Airflow must not apply here.
    inherited = {name: value for name, value in child_environment().items() if not name.startswith("AIRFLOW")}
    return {
        **inherited,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)]),
        "PYTHONPATH": str(plugins),
        "AIRFLOW_HOME": str(layout.data("airflow")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
        "AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER": json.dumps(dict(settings)),
    }


def process_environment(layout: Layout, socket_folder: str) -> dict[str, str]:
    """Further settings of Airflow's processes, beside `base_environment`."""
    secret = Secrets.of(layout.data("airflow"))
    url = layout.url("airflow")
    return {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__FERNET_KEY": secret.fernet_key,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u}:{r}" for u, r in ROLES.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_passwords_file(layout)),
        METADATA: postgres.sqlalchemy_url(socket_folder, DATABASE),
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(layout.port("airflow")),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secret.secret_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": secret.jwt_secret,
        # Two stacks may run side by side, so each has its own ports for log servers.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(layout.port("airflow-worker-logs")),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(layout.port("airflow-trigger-logs")),
        # Tasks start within tenths of a second instead of seconds, and new files are noticed soon.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def _passwords_file(layout: Layout) -> Path:
    return layout.data("airflow") / "passwords.json"


def migrate(layout: Layout, environment: Mapping[str, str], socket_folder: str) -> None:
    """Migrate the metadata database; skipped when the last migration was with the same packages.

    Raises RuntimeError that names Airflow's log when it fails.
    """
    home = layout.data("airflow")
    secret = Secrets.of(home)
    _passwords_file(layout).write_text(json.dumps(dict.fromkeys(ROLES, secret.password)) + "\n")
    _passwords_file(layout).chmod(0o600)
    fresh = postgres.create_database(socket_folder, DATABASE)
    stamp = home / _MIGRATED
    packages = (REPOSITORY / "requirements.txt").read_text()
    if not fresh and stamp.exists() and stamp.read_text() == packages:
        return
    # Past any pooler: a migration holds a lock of its session.
    direct = {**environment, METADATA: postgres.sqlalchemy_url(socket_folder, DATABASE)}
    done = run(direct, "db", "migrate", timeout_s=180)
    layout.log("migrate").parent.mkdir(parents=True, exist_ok=True)
    layout.log("migrate").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        raise RuntimeError(f"Airflow's database could not be migrated; see {layout.log('migrate')}.")
    stamp.write_text(packages)


def run(
    environment: Mapping[str, str], *arguments: str, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run one `airflow …` command to its end. Raises subprocess.TimeoutExpired after `timeout_s` seconds."""
    return subprocess.run(
        (_program(), *arguments),
        env=dict(environment),
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _program() -> str:
    found = shutil.which("airflow", path=str(Path(sys.executable).parent))
    if found is None:
        raise RuntimeError(
            "There is no airflow beside this Python; run `make venv` and use .venv/bin/python."
        )
    return found


def store(url: str, password: str, environment: Mapping[str, str]) -> None:
    """Store the job's Connections and settings in Airflow, so that its UI can show and change them.

    Connections replace those of an earlier start; an existing Variable is kept.
    Raises httpx.HTTPError.
    """
    with api(url, password) as client:
        for name, value in environment.items():
            if name.startswith(_CONNECTION):
                wanted = json.loads(value)
                body = {**wanted, "connection_id": name.removeprefix(_CONNECTION).lower()}
                if "extra" in body:
                    body["extra"] = json.dumps(body["extra"])
                answer = client.post("/connections", json=body)
                if answer.status_code == httpx.codes.CONFLICT:
                    answer = client.patch(f"/connections/{body['connection_id']}", json=body)
                answer.raise_for_status()
            elif name.startswith(_VARIABLE):
                key = name.removeprefix(_VARIABLE).lower()
                answer = client.post("/variables", json={"key": key, "value": value})
                if answer.status_code != httpx.codes.CONFLICT:
                    answer.raise_for_status()


def own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of Airflow's processes, without Connections and Variables: these come from its database.

    In the environment they would override the database, and the UI could not change them.
    """
    return {n: v for n, v in environment.items() if not n.startswith((_CONNECTION, _VARIABLE))}


def component(
    layout: Layout, environment: Mapping[str, str], part: Part, answers: Callable[[], bool] | None = None
) -> Server:
    """One of Airflow's processes. `answers` says whether it is ready, by default what Airflow's API says of its kind."""
    url = layout.url("airflow")
    ready = api_answers if part.kind == "api-server" else _healthy
    return Server(
        name=part.name,
        command=(_program(), *part.command),
        directory=layout.data("airflow"),
        log_file=layout.log(f"airflow-{part.name}"),
        pid_file=layout.pid(f"airflow-{part.name}"),
        address=url,
        answers=answers or (lambda: ready(url, part.kind)),
        environment={**environment, **part.settings},
        ports=(layout.port(part.port),) if part.port else (),
        ready_within_s=180,
        stop_grace_s=10,
    )


def api_answers(url: str, _kind: str = "") -> bool:
    """Whether the API server at `url` answers on both its REST API and the API for tasks.

    The first request to the latter takes seconds (it builds the versioned API); without it the first task would wait.
    """
    try:
        return (
            httpx.get(f"{url}/api/v2/version", timeout=2).status_code == 200
            and httpx.get(f"{url}/execution/health", timeout=30).status_code == 200
        )
    except httpx.HTTPError:
        return False


def _healthy(url: str, component: str) -> bool:
    part = component.replace("-", "_")
    try:
        health = httpx.get(f"{url}/api/v2/monitor/health", timeout=5).json()
    except (httpx.HTTPError, ValueError):
        return False
    return bool((health.get(part) or {}).get("status") == "healthy")


def token(url: str, user: str, password: str) -> str:
    """A bearer token of Airflow's REST API. Raises httpx.HTTPError."""
    answer = httpx.post(f"{url}/auth/token", json={"username": user, "password": password}, timeout=30)
    answer.raise_for_status()
    return str(answer.json()["access_token"])


def api(url: str, password: str) -> httpx.Client:
    """Airflow's REST API for the administrator, to be closed by the caller. Raises httpx.HTTPError."""
    headers = {"Authorization": f"Bearer {token(url, USER, password)}"}
    return httpx.Client(base_url=f"{url}/api/v2", headers=headers, timeout=30)


def await_dags(url: str, password: str, dag_ids: Sequence[str] = DAG_IDS, *, timeout_s: float = 90) -> None:
    """Return as soon as these DAGs are parsed and active.

    Raises NotReadyError with the import error, when there is one, or after `timeout_s` seconds.
    """
    missing = list(dag_ids)
    with api(url, password) as client:

        def active(dag_id: str) -> bool:
            answer = client.get(f"/dags/{dag_id}")
            return answer.status_code == 200 and not answer.json()["is_paused"]

        def listed() -> bool:
            missing[:] = [dag_id for dag_id in missing if not active(dag_id)]
            if not missing:
                return True
            errors = client.get("/importErrors").json().get("import_errors", [])
            if errors:
                raise NotReadyError(
                    f"{errors[0]['filename']} cannot be imported:\n{errors[0]['stack_trace']}"
                )
            return False

        await_condition(
            listed,
            timeout_s=timeout_s,
            what=f"the DAGs {', '.join(dag_ids)} to be parsed and unpaused",
            poll_s=0.25,
        )
