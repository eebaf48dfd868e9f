"""The manifests of Kubernetes are valid, follow the code, and confine what they run."""

from __future__ import annotations

import copy
import re
import runpy
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from kubernetes_validate.utils import ValidationError, validate

from api.server import schemas
from jobs import secret_files
from jobs.settings import Settings, variables
from tests.deploy import kustomization
from tests.deploy.kustomization import Manifest
from tests.deploy.test_deploy import ENTRIES, READ_ELSEWHERE, ROOT
from workers import draining

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = {path.name: kustomization.build(path) for path in (KUBERNETES / "overlays").iterdir()}
VERSION = "1.34"
"""Of the API that the manifests are held against; they ask for nothing newer."""

WORKLOADS = {"Deployment", "StatefulSet", "Job"}
SERVERS = {"postgres", "valkey", "objects"}
ALL = [(overlay, each) for overlay, manifests in OVERLAYS.items() for each in manifests]
MANIFESTS = [
    pytest.param(each, id=f"{overlay}: {each['kind']} {each['metadata']['name']}")
    for overlay, each in ALL
]
PODS = [given for given, (_, each) in zip(MANIFESTS, ALL, strict=True) if each["kind"] in WORKLOADS]
OURS = [
    given
    for given, (_, each) in zip(MANIFESTS, ALL, strict=True)
    if each["kind"] in WORKLOADS and each["metadata"]["name"] not in SERVERS
]


def containers(manifest: Manifest) -> list[dict[str, Any]]:
    spec = manifest["spec"]["template"]["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(container: dict[str, Any]) -> dict[str, Any]:
    """Variables of a container; those that Kubernetes fills in are None."""
    (settings,) = [
        each for each in kustomization.build(KUBERNETES / "base") if each["kind"] == "ConfigMap"
    ]
    assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    own = {each["name"]: each.get("value") for each in container["env"]}
    return {**settings["data"], **own}


def secrets_of(manifest: Manifest) -> set[str]:
    """Files that a pod sees under /run/secrets."""
    (volume,) = [
        each
        for each in manifest["spec"]["template"]["spec"]["volumes"]
        if each["name"] == "secrets"
    ]
    assert volume["secret"]["secretName"] == "nightshift"
    return {item["path"] for item in volume["secret"]["items"]}


def named(kind: str, manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    return ((each["metadata"]["name"], each) for each in manifests if each["kind"] == kind)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_is_what_kubernetes_takes(manifest: Manifest) -> None:
    if manifest["apiVersion"].startswith("keda.sh/"):
        pytest.skip("a resource of KEDA, whose schema is not among those of Kubernetes")
    validate(manifest, VERSION, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    manifest = copy.deepcopy(next(each for _, each in named("Deployment", OVERLAYS["gpu"])))
    manifest["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(ValidationError):
        validate(manifest, VERSION, strict=True)


@pytest.mark.parametrize("manifests", OVERLAYS.values(), ids=OVERLAYS)
def test_no_object_is_there_twice(manifests: list[Manifest]) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
    assert len(names) == len(set(names))


def test_every_file_is_used() -> None:
    used = {file.resolve() for name in OVERLAYS for file in _files(name)}
    assert used == {path for path in KUBERNETES.rglob("*") if path.is_file()}


def _files(overlay: str) -> set[Path]:
    return kustomization.files(KUBERNETES / "overlays" / overlay)


@pytest.mark.parametrize("manifest", PODS)
def test_a_pod_may_do_no_more_than_it_must(manifest: Manifest) -> None:
    spec = manifest["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(manifest):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])


@pytest.mark.parametrize("manifest", PODS)
def test_a_pod_has_the_secrets_that_it_reads_and_no_others(manifest: Manifest) -> None:
    made = runpy.run_path(str(ROOT / "deploy" / "make_secrets.py"))
    known = {*made["NAMES"], made["LOGIN"]}
    read = set(re.findall(r"/run/secrets/(\w+)", str(containers(manifest))))
    assert read == secrets_of(manifest) <= known


@pytest.mark.parametrize("manifest", OURS)
def test_what_a_container_runs_is_a_real_entry_of_an_image_that_is_built(
    manifest: Manifest,
) -> None:
    images = set(re.findall(r"--tag (\S+)", "".join(_dockerfiles())))
    for container in containers(manifest):
        python, flag, *words = container["command"]
        assert (python, flag) == ("python", "-m")
        assert any(tuple(words[: len(entry)]) == entry for entry in ENTRIES)
        assert import_module(words[0])
        assert container["image"] in images


def _dockerfiles() -> list[str]:
    return [path.read_text() for path in (ROOT / "deploy").glob("*.Dockerfile")]


@pytest.mark.parametrize("manifest", OURS)
def test_the_settings_of_a_container_can_be_read(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    for container in containers(manifest):
        for name, value in environment(container).items():
            base = name.removesuffix(secret_files.SUFFIX)
            if name.startswith("NIGHTSHIFT_"):
                assert base in variables() | READ_ELSEWHERE, name
            if name != base:
                value = tmp_path / Path(value).name  # noqa: PLW2901
                value.write_text("secret")
            monkeypatch.setenv(name, str(value))
        chosen = Settings()
        assert ":secret@" in chosen.database_url
        assert chosen.metrics_token == "secret"


@pytest.mark.parametrize("manifest", OURS)
def test_a_pod_has_the_time_to_end_what_it_works_on(manifest: Manifest) -> None:
    role = containers(manifest)[-1]["command"][3:4]
    seconds = {
        "host": Settings().host_drain.total_seconds(),
        "pool": 2 * draining.FINISH_SECONDS,
        "planner": 2 * draining.FINISH_SECONDS,
    }.get(role[0] if role else "", 0)
    spec = manifest["spec"]["template"]["spec"]
    assert spec.get("terminationGracePeriodSeconds", 30) >= seconds


@pytest.mark.parametrize("manifest", OURS)
def test_postgres_that_is_away_makes_a_pod_unready_and_kills_none(manifest: Manifest) -> None:
    if manifest["kind"] == "Job":
        pytest.skip("it ends by itself")
    (container,) = containers(manifest)
    assert "readinessProbe" in container
    assert "exec" not in container.get("startupProbe", {})
    alive = container.get("livenessProbe", {}).get("httpGet", {}).get("path", "")
    assert alive in {"", "/healthz", "/healthcheck"}
    assert "exec" not in container.get("livenessProbe", {})


@pytest.mark.parametrize("manifests", OVERLAYS.values(), ids=OVERLAYS)
def test_all_that_works_is_protected_from_disruption(manifests: list[Manifest]) -> None:
    protected = {name for name, _ in named("PodDisruptionBudget", manifests)}
    workloads = {
        each["metadata"]["name"]
        for each in manifests
        if each["kind"] in {"Deployment", "StatefulSet"}
    }
    assert workloads - SERVERS - {"flower"} == protected


@pytest.mark.parametrize("manifests", OVERLAYS.values(), ids=OVERLAYS)
def test_every_pod_reaches_postgres_and_is_closed_otherwise(manifests: list[Manifest]) -> None:
    policies = dict(named("NetworkPolicy", manifests))
    assert policies["nothing"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = policies["postgres"]["spec"]["podSelector"]["matchExpressions"]
    pods = {each["metadata"]["name"] for each in manifests if each["kind"] in WORKLOADS}
    assert pods - SERVERS <= set(rule["values"])
    for each in manifests:
        if each["kind"] in WORKLOADS:
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert labels["app.kubernetes.io/part-of"] == "nightshift"
            assert labels["app.kubernetes.io/name"] == each["metadata"]["name"]


@pytest.mark.parametrize("manifests", OVERLAYS.values(), ids=OVERLAYS)
def test_a_training_host_keeps_its_name_when_its_pod_is_replaced(
    manifests: list[Manifest],
) -> None:
    hosts = [
        each
        for each in manifests
        if each["kind"] in WORKLOADS and containers(each)[-1].get("command", [])[3:] == ["host"]
    ]
    assert hosts
    for host in hosts:
        assert host["kind"] == "StatefulSet"
        assert host["spec"]["serviceName"] in dict(named("Service", manifests))
        given = {each["name"]: each for each in containers(host)[0]["env"]}
        name = given["NIGHTSHIFT_HOST_NAME"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert name == "metadata.name"


def test_a_pool_is_scaled_by_its_own_demand() -> None:
    manifests = OVERLAYS["gpu"]
    deployments = dict(named("Deployment", manifests))
    for name, scaled in named("ScaledObject", manifests):
        target = deployments[scaled["spec"]["scaleTargetRef"]["name"]]
        assert "replicas" not in target["spec"], f"{name}: an apply would undo what KEDA does"
        (trigger,) = scaled["spec"]["triggers"]
        (container,) = containers(target)
        pool = environment(container)["NIGHTSHIFT_POOL"]
        url = trigger["metadata"]["url"]
        assert url == f"http://api.nightshift.svc:8750/v1/pools/{pool}/demand"
        assert trigger["metadata"]["valueLocation"] in schemas.PoolDemand.model_fields
