"""deploy/helm: our chart through the real helm and kubeconform, and the values of Airflow's chart, which is not here.

Each key of those values is looked up in a list with its sources. What the two files call by name is compared.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.paths import REPOSITORY
from local.tools import derived, programs
from ownership.domain.settings import Settings
from ownership.edge import connections, hooks
from tests.needs import needed
from tests.unit.repository.test_compose import in_image, pinned

HELM = REPOSITORY / "deploy" / "helm"
CHART = HELM / "ownership-transfer"
RELEASE = CHART.name

PLATFORM: dict[str, Any] = {
    "global": {
        "env": "prod",
        "domain": "platform.example.org",  # and much else that is not ours
        "kafka": {"host": "kafka.sunbird", "port": 9092},
        "cassandra": {"host": "cassandra.sunbird", "port": "9042"},
        "elasticsearch": {"host": "search.sunbird", "port": 9200, "consistency": 1},
    },
    "keycloak": {"keycloak_user": "admin"},
}
"""As the platform's global-values.yaml has it."""


def helm(*arguments: str, **values: Any) -> subprocess.CompletedProcess[str]:
    """Run helm on our chart, with values as an operator's file has them."""
    return subprocess.run(
        (needed("helm"), *arguments, "--values", "-"),
        input=yaml.safe_dump({**PLATFORM, **values}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def template(**values: Any) -> subprocess.CompletedProcess[str]:
    return helm("template", RELEASE, str(CHART), "--kube-version", programs.KUBERNETES, **values)


def rendered(**values: Any) -> dict[str, Any]:
    """The chart's objects by kind."""
    done = template(**values)
    assert done.returncode == 0, done.stderr
    return {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}


def airflow_values() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((HELM / "airflow.yaml").read_text())
    return found


def keys(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from keys(value, f"{above}{name}.")
        else:
            yield above + name


def containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    pod = job["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


# --- our chart --------------------------------------------------------------------------------------------------------


def test_helm_finds_nothing_to_say_against_our_chart() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_rendered_is_what_kubernetes_takes() -> None:
    done = template(settings={"approval.batches": 200}, imagePullSecrets=[{"name": "registry"}])
    assert done.returncode == 0, done.stderr
    where = needed("kubernetes_schemas")
    checked = subprocess.run(
        (
            needed("kubeconform"), "-strict", "-summary", "-output", "json",
            "-schema-location", where + "/{{ .ResourceKind }}{{ .KindSuffix }}.json",
        ),
        input=done.stdout, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout
    assert json.loads(checked.stdout)["summary"]["valid"] == 2


@pytest.mark.parametrize(
    ("values", "named"),
    [
        pytest.param({"global": {**PLATFORM["global"], "env": ""}}, "/global/env", id="no env"),
        pytest.param({"settings": {"env": "dev"}}, "/settings", id="env twice"),
        pytest.param(
            {"services": {"lms": "lms-service:9000"}}, "/services/lms", id="an address that is no URL"
        ),
        pytest.param({"topics": {"partition": 2}}, "/topics", id="a word that it does not know"),
        pytest.param({"connectionsSecret": ""}, "/connectionsSecret", id="no secret"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], named: str) -> None:
    done = template(**values)
    assert done.returncode == 1
    assert f"at '{named}'" in done.stderr


def test_the_platforms_words_become_the_jobs_connections_and_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = rendered(settings={"approval.batches": 200, "max_events": 20000})["ConfigMap"]["data"]
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = Settings.parse(data["AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER"])
    assert (settings.env, settings.approval_batches, settings.max_events) == ("prod", 200, 20000)
    assert settings.input_topic == "prod.user.ownership.transfer"
    kafka = connections.connection(connections.KAFKA).extra_dejson
    assert kafka == {"bootstrap.servers": "kafka.sunbird:9092", "enable.auto.commit": "false"}
    cassandra = connections.connection(connections.CASSANDRA)
    assert (cassandra.conn_type, cassandra.host, cassandra.port) == ("cassandra", "cassandra.sunbird", 9042)
    (node,) = hooks.elasticsearch_client().transport.node_pool.all()
    assert (node.config.scheme, node.host, node.port) == ("http", "search.sunbird", 9200)
    assert hooks.lms_endpoint(settings).url == "http://lms-service:9000"
    assert hooks.userorg_endpoint(settings).url == "http://userorg-service:9000"
    assert connections.endpoint(connections.CONTENT).url == "http://search-service:9000"


def test_the_content_search_can_be_left_out() -> None:
    name = "AIRFLOW_CONN_CONTENT_SEARCH_DEFAULT"
    every = rendered()["ConfigMap"]["data"]
    assert rendered(services={"contentSearch": ""})["ConfigMap"]["data"] == {
        k: v for k, v in every.items() if k != name
    }
    assert name in every


def test_the_job_runs_commands_that_the_image_has_with_arguments_that_they_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ownership.edge import topics

    pod = containers(rendered()["Job"])
    assert [c["command"][:3] for c in pod] == [
        ["python", "-m", "ownership.edge.topics"],
        ["python", "-m", "ownership.ledger"],
    ]
    assert all(find_spec(c["command"][2]) for c in pod)
    assert in_image("/opt/airflow/plugins/ownership")
    with pytest.raises(SystemExit) as ended:
        topics.main([*pod[0]["command"][3:], "--help"])
    assert ended.value.code == 0
    assert "--retention-days" in capsys.readouterr().out


def test_each_upgrade_runs_the_job_anew_also_when_only_a_secret_was_corrected() -> None:
    # Else a Job that has failed stays: none of what our chart is given has changed, and a Job cannot be changed.
    made = rendered()["Job"]
    job = made["metadata"]
    assert job["name"] == rendered(settings={"max_events": 1000})["Job"]["metadata"]["name"]
    # After the ConfigMap that it reads; in place of the Job of before, whose pods, and logs, stay until then.
    assert job["annotations"] == {
        "helm.sh/hook": "post-install,post-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "Never"


# --- Airflow's chart --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["airflow.yaml", "statsd.yaml"])
def test_each_key_is_one_of_the_chart_s_with_its_source(file: str) -> None:
    lines = (HELM / "airflow-keys.txt").read_text().splitlines()
    known = [line for line in lines if line and not line.startswith("#")]
    assert len(known) == len(set(known)) > 30
    patterns = [re.compile(re.escape(key).replace(r"\*", r"[^.]+")) for key in known]
    used = list(keys(yaml.safe_load((HELM / file).read_text())))
    assert [key for key in used if not any(p.fullmatch(key) for p in patterns)] == []


def test_both_charts_run_the_image_of_the_pinned_airflow() -> None:
    values, own = airflow_values(), yaml.safe_load((CHART / "values.yaml").read_text())
    version = pinned("apache-airflow")
    image = {name: own["image"][name] for name in ("repository", "tag")}
    assert image == values["images"]["airflow"]
    assert values["airflowVersion"] == version
    tag = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert tag == image["tag"] == f"airflow-{version}"
    (waits,) = values["triggerer"]["extraInitContainers"]
    assert waits["image"] == f"{image['repository']}:{image['tag']}"
    assert values["workers"]["celery"]["extraInitContainers"] == [waits]


def test_airflow_s_pods_read_what_our_chart_makes() -> None:
    values, objects = airflow_values(), rendered()
    read = yaml.safe_load(values["extraEnvFrom"])
    own = containers(objects["Job"])
    assert [c["envFrom"] for c in own] == [read, read]
    assert read[0]["configMapRef"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    assert values["triggerer"]["extraInitContainers"][0]["envFrom"] == read


def test_the_probe_asks_health_for_a_kind_that_it_knows() -> None:
    from ownership.health.problems import Kind

    command = airflow_values()["triggerer"]["livenessProbe"]["command"][-1]
    asked = re.search(r"python -m ownership\.health --kind (\w+)", command)
    assert asked
    assert asked[1] in [*Kind]


@pytest.mark.parametrize(
    ("triggerer", "health", "fails"),
    [
        pytest.param("exit 0", "exit 0", False, id="all is well"),
        pytest.param("exit 1", "exit 0", True, id="no heartbeat"),
        pytest.param("exit 0", "exit 1", True, id="a backlog"),
        pytest.param("exit 0", "exec sleep 60", False, id="Kafka or PostgreSQL hangs"),
    ],
)
def test_the_probe_fails_where_a_restart_may_help(
    tmp_path: Path, triggerer: str, health: str, fails: bool
) -> None:
    probe = airflow_values()["triggerer"]["livenessProbe"]
    seconds = re.search(r"timeout (\d+) python", probe["command"][-1])
    assert seconds
    assert int(seconds[1]) + 30 < probe["timeoutSeconds"]  # Airflow's own check takes the rest
    for name, script in {"entrypoint": triggerer, "python": health}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    command = probe["command"][-1].replace("/entrypoint", str(tmp_path / "entrypoint"))
    done = subprocess.run(
        [*probe["command"][:-1], command.replace(f"timeout {seconds[1]}", "timeout 1")],
        env={"PATH": f"{tmp_path}:{os.defpath}"},
        timeout=30,
        check=False,
    )
    assert (done.returncode != 0) is fails


def test_the_dags_come_from_the_folder_that_has_them() -> None:
    (bundle,) = airflow_values()["dagProcessor"]["dagBundleConfigList"]
    assert list((REPOSITORY / bundle["kwargs"]["subdir"]).glob("*.py"))
    module, _, name = bundle["classpath"].rpartition(".")
    assert (module, name) == ("airflow.providers.git.bundles.git", "GitDagBundle")


def test_secrets_are_named_and_none_is_given() -> None:
    used = [*keys(airflow_values()), *keys(yaml.safe_load((CHART / "values.yaml").read_text()))]
    about = [k for k in used if re.search(r"(?i)secret|password|fernet|token", k)]
    assert len(about) == 8
    assert [
        k
        for k in about
        if not re.search(r"(SecretName|SecretKeySecretName|connectionsSecret|PullSecrets)$", k)
    ] == []


# --- files that are made of others ------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", list(derived.MADE), ids=lambda path: path.name)
def test_a_file_that_is_made_of_another_says_the_same(made: Path) -> None:
    assert made.read_text() == derived.text(made), "run `python -m local.tools.derived`"


def test_grafana_has_every_alert_of_prometheus_as_it_is_there() -> None:
    source, _ = derived.MADE[HELM.parent / "observability/grafana/alerts.yml"]
    rules = [r for group in yaml.safe_load(source.read_text())["groups"] for r in group["rules"]]
    made = yaml.safe_load((HELM.parent / "observability/grafana/alerts.yml").read_text())
    alerts = [r for group in made["groups"] for r in group["rules"]]
    assert [a["title"] for a in alerts] == [r["alert"] for r in rules]
    assert [a["data"][0]["model"]["expr"] for a in alerts] == [r["expr"] for r in rules]
    assert [(a["for"], a["labels"]) for a in alerts] == [(r.get("for", "0s"), r["labels"]) for r in rules]
    for alert in alerts:  # whatever number the expression yields: a share of those proven in time may be zero
        (condition,) = [d["model"] for d in alert["data"] if d["refId"] == alert["condition"]]
        assert condition["expression"] == alert["data"][0]["refId"]
        ((kind, (bound,)),) = [
            (c["evaluator"]["type"], c["evaluator"]["params"]) for c in condition["conditions"]
        ]
        assert kind == "gt"
        assert bound < 0
    assert len({a["uid"] for a in alerts}) == len(alerts)
    assert all(re.fullmatch(r"[a-z0-9-]{1,40}", a["uid"]) for a in alerts)  # Grafana's own bound
    assert not any("$value " in text for a in alerts for text in a["annotations"].values())


def test_the_exporter_takes_the_mappings_of_the_values(tmp_path: Path) -> None:
    mappings = yaml.safe_load((HELM / "statsd.yaml").read_text())["statsd"]["overrideMappings"]
    file = tmp_path / "mappings.yml"
    file.write_text(yaml.safe_dump({"mappings": mappings}))
    done = subprocess.run(
        (needed("statsd_exporter"), "--check-config", f"--statsd.mapping-config={file}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Configuration check successful" in done.stderr
