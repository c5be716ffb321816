"""The manifests against a closed schema of KubeRay's resources, and what they hand to Serve against Serve's own."""

import copy
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from kuberay_schema import resource_schema

FOLDER = Path(__file__).parents[1] / "cluster" / "kubernetes"
FILES = {"RayCluster": "raycluster.yaml", "RayJob": "rayjob.yaml", "RayService": "rayservice.yaml"}
RECIPES = Path(__file__).parents[1] / "pipelines" / "recipes"
WHERE = {"RayCluster": (), "RayJob": ("rayClusterSpec",), "RayService": ("rayClusterConfig",)}


def load(kind: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / FILES[kind]).read_text("utf-8"))


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    for key in WHERE[manifest["kind"]]:
        spec = spec[key]
    return spec


def pods_of(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pod of the head and of each group of workers, by name."""
    cluster = cluster_of(manifest)
    workers = {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"], **workers}


def check(manifest: dict[str, Any]) -> None:
    Draft202012Validator(resource_schema(manifest["kind"])).validate(manifest)


@pytest.fixture(params=FILES)
def manifest(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


def test_manifests_have_the_fields_of_kuberay(manifest: dict[str, Any]) -> None:
    check(manifest)


def misspell(manifest: dict[str, Any], path: str) -> dict[str, Any]:
    """The manifest with the key at the end of ``path`` misspelt."""
    tree = copy.deepcopy(manifest)
    *way, last = path.split(".")
    at: Any = tree
    for step in way:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last + "s"] = at.pop(last)
    return tree


@pytest.mark.parametrize(
    "path",
    [
        "spec.upgradeStrategy",
        "spec.authOptions.mode",
        "spec.workerGroupSpecs.1.priority",
        "spec.headGroupSpec.template.spec.containers.0.livenessProbe.httpGet.path",
        "spec.workerGroupSpecs.1.template.spec.affinity.nodeAffinity",
        "spec.workerGroupSpecs.2.template.spec.containers.0.resources.limits",
    ],
)
def test_a_misspelt_field_is_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        check(misspell(load("RayCluster"), path))


@pytest.mark.skipif(
    not os.environ.get("BABELRAY_KUBERAY_CRDS"), reason="no directory with KubeRay's CRD files is named"
)
def test_manifests_pass_kuberays_own_definitions(manifest: dict[str, Any]) -> None:
    file = Path(os.environ["BABELRAY_KUBERAY_CRDS"]) / f"ray.io_{manifest['kind'].lower()}s.yaml"
    versions = yaml.safe_load(file.read_text("utf-8"))["spec"]["versions"]
    schema = next(version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1")
    Draft202012Validator(close(schema)).validate(manifest)


def close(schema: Any) -> Any:
    """A schema whose objects take no fields but their own, where they name any."""
    if isinstance(schema, list):
        return [close(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close(value) for key, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not is_open:
        names = schema["properties"]
        if {"apiVersion", "kind", "metadata"} <= set(names):
            closed["properties"]["metadata"] = {"type": "object"}
        closed["additionalProperties"] = False
    return closed


def test_what_serve_gets_is_what_serve_and_the_application_take() -> None:
    from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    from serving.app import GatewayArgs, ServeArgs

    config = yaml.safe_load(load("RayService")["spec"]["serveConfigV2"])
    parsed = ServeDeploySchema.model_validate(config)
    assert parsed.http_options.port == 8000
    # Serve takes unknown keys in silence
    assert set(config) <= set(ServeDeploySchema.model_fields)
    assert set(config["http_options"]) <= set(HTTPOptionsSchema.model_fields)
    for application, model in zip(config["applications"], (GatewayArgs, ServeArgs), strict=True):
        assert set(application) <= set(ServeApplicationSchema.model_fields)
        model.model_validate(application["args"])  # refuses unknown keys itself
        module, _, function = application["import_path"].partition(":")
        assert callable(getattr(__import__(module, fromlist=[function]), function))
    gateways, parts = config["applications"]
    assert gateways["deployments"][0]["user_config"]["serves"] == [[parts["name"]]]
    assert ServeArgs.model_validate(parts["args"]).scale.shard_replicas == 2


def test_the_run_and_the_service_name_the_same_recipe_and_root() -> None:
    from serving.app import ServeArgs

    service = yaml.safe_load(load("RayService")["spec"]["serveConfigV2"])["applications"][1]["args"]
    args = ServeArgs.model_validate(service)
    entrypoint = load("RayJob")["spec"]["entrypoint"]
    assert entrypoint == f"python -m pipelines run {args.recipe} --set {args.overrides[0]}"


def test_clusters_ask_for_the_token_and_keep_work_off_the_head(manifest: dict[str, Any]) -> None:
    cluster = cluster_of(manifest)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_images_and_versions_are_those_of_this_repository(manifest: dict[str, Any]) -> None:
    from importlib.metadata import version

    import ray

    assert cluster_of(manifest)["rayVersion"] == ray.__version__
    for name, pod in pods_of(manifest).items():
        gpu = "-gpu" if name.startswith("gpu") else ""
        assert pod["containers"][0]["image"] == f"REGISTRY/babelray:{version('babelray')}{gpu}"


def test_every_pod_has_probes_that_ray_answers_without_the_token(manifest: dict[str, Any]) -> None:
    import ray.dashboard.http_server_head as head
    from ray.dashboard import http_server_agent as agent

    free = Path(head.__file__).read_text("utf-8") + Path(agent.__file__).read_text("utf-8")
    for pod in pods_of(manifest).values():
        (container,) = pod["containers"]
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            get = container[probe]["httpGet"]
            assert get["port"] in ports
            assert f'"{get["path"]}"' in free
        alive = container["livenessProbe"]
        assert alive["periodSeconds"] * alive["failureThreshold"] >= 60, "a busy node would be restarted"


def test_pods_run_as_the_user_of_the_image_with_no_rights_to_spare(manifest: dict[str, Any]) -> None:
    accounts = list(yaml.safe_load_all((FOLDER / "serviceaccounts.yaml").read_text("utf-8")))
    names = {account["metadata"]["name"] for account in accounts}
    for pod in pods_of(manifest).values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert pod["serviceAccountName"] in names


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_spot_workers_come_first_and_others_stand_in(kind: str) -> None:
    manifest = load(kind)
    groups = {group["groupName"]: group for group in cluster_of(manifest)["workerGroupSpecs"]}
    assert groups["gpu-spot"]["priority"] > groups["gpu"]["priority"]
    assert "affinity" in groups["gpu-spot"]["template"]["spec"]
    assert "affinity" not in groups["gpu"]["template"]["spec"]
    assert all(group["minReplicas"] == 0 for group in groups.values())


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_steps_of_the_recipes_that_take_a_gpu_fit_its_pods(kind: str) -> None:
    pod = pods_of(load(kind))["gpu"]["containers"][0]["resources"]["requests"]
    asked = [
        (file.name, table["cpus"])
        for file in RECIPES.glob("*.toml")
        for table in list_tables(tomllib.loads(file.read_text("utf-8")))
        if table.get("gpus") and "cpus" in table
    ]
    assert asked
    assert [one for one in asked if one[1] > int(pod["cpu"])] == []


def list_tables(value: Any) -> Iterator[dict[str, Any]]:
    """All tables of a TOML file, those in others and in lists among them."""
    if isinstance(value, dict):
        yield value
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from list_tables(below)


def test_prometheus_finds_the_port_of_the_metrics(manifest: dict[str, Any]) -> None:
    monitor = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text("utf-8"))
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    cluster = cluster_of(manifest)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        port = next(port["containerPort"] for port in container["ports"] if port["name"] == endpoint["port"])
        assert group["rayStartParams"]["metrics-export-port"] == str(port)


def test_an_upgrade_brings_up_a_whole_cluster_beside_the_old() -> None:
    spec = load("RayService")["spec"]
    assert spec["upgradeStrategy"] == {"type": "NewCluster"}
    assert spec["excludeHeadPodFromServeSvc"]
    assert all(group["groupName"] != "gpu-spot" for group in spec["rayClusterConfig"]["workerGroupSpecs"])
