"""The files of `ray up` against Ray's own validation, and node_config against botocore's model of EC2 RunInstances and
against the fields of Google's instances; all offline. The policies against the grammar of IAM, which moto checks."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from jsonschema.exceptions import ValidationError

from cluster.policies import write_head_policy, write_node_policy, write_trust

ROOT = Path(__file__).parents[1]


FILES = {"aws": ROOT / "ray_cluster.yaml", "gcp": ROOT / "cluster" / "ray_cluster.gcp.yaml"}
# of https://cloud.google.com/compute/docs/reference/rest/v1/instances, what this project uses
GOOGLE = {
    "machineType": None,
    "labels": None,
    "disks": {
        "boot": None,
        "autoDelete": None,
        "type": None,
        "initializeParams": {"diskSizeGb": None, "diskType": None, "sourceImage": None},
    },
    "networkInterfaces": {"network": None, "accessConfigs": {"type": None}},
    "serviceAccounts": {"email": None, "scopes": None},
    "shieldedInstanceConfig": {"enableVtpm": None, "enableIntegrityMonitoring": None},
    "scheduling": {"onHostMaintenance": None, "provisioningModel": None, "instanceTerminationAction": None},
}


def load(cloud):
    return yaml.safe_load(FILES[cloud].read_text("utf-8"))


@pytest.fixture
def config():
    return load("aws")


@pytest.fixture(params=FILES)
def either(request):
    return load(request.param)


def prepared(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    ready = prepare_config(copy.deepcopy(config))
    validate_config(ready)
    return ready


def ec2_errors(node_config):
    ec2 = botocore.session.get_session().get_service_model("ec2")
    shape = ec2.operation_model("RunInstances").input_shape
    # the counts are Ray's to fill in
    report = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape)
    return report.generate_report()


def unknown_fields(config, known):
    """The paths of fields that Google's instances do not have."""
    found = []
    for key, value in config.items():
        inside = known.get(key)
        if key not in known:
            found.append(key)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and inside:
                found += [f"{key}.{path}" for path in unknown_fields(item, inside)]
    return found


def node_configs(config):
    return {name: node["node_config"] for name, node in config["available_node_types"].items()}


def test_ray_accepts_the_files(either):
    assert prepared(either)["cluster_name"] == "babelray"


def test_ray_fills_in_no_command_of_its_own(either):
    """Omitted setup commands become the installation of a nightly wheel."""
    ready = prepared(either)
    keys = ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands")
    ours = {command for key in keys for command in either[key]}
    assert {command for key in keys for command in ready[key]} == ours


def test_ray_refuses_a_file_with_a_misspelt_key(either):
    either["available_node_types"]["gpu"]["max_worker"] = 3
    with pytest.raises(ValidationError, match="max_worker"):
        prepared(either)


def test_ec2_knows_every_key_of_node_config(config):
    assert {name: ec2_errors(node) for name, node in node_configs(config).items() if ec2_errors(node)} == {}


def test_the_ec2_check_finds_a_misspelt_key(config):
    node = node_configs(config)["gpu"]
    node["BlockDeviceMappings"][0]["Ebs"]["VolumeSise"] = 1
    assert "VolumeSise" in ec2_errors(node)


def test_googles_instances_have_every_field_of_node_config():
    assert {name: unknown_fields(node, GOOGLE) for name, node in node_configs(load("gcp")).items()} == {
        name: [] for name in node_configs(load("gcp"))
    }
    assert unknown_fields({"disks": [{"boots": True}], "zone": 1}, GOOGLE) == ["disks.boots", "zone"]


def is_spot(node):
    market = node.get("InstanceMarketOptions", {}).get("MarketType")
    return market == "spot" or node.get("scheduling", {}).get("provisioningModel") == "SPOT"


def account_of(node):
    return node["IamInstanceProfile"] if "IamInstanceProfile" in node else node["serviceAccounts"]


def test_head_takes_no_work_and_is_not_spot(either):
    head = either["available_node_types"][either["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert not is_spot(head["node_config"])


def test_workers_scale_from_zero_with_an_account_of_their_own(either):
    types = either["available_node_types"]
    workers = {name: t for name, t in types.items() if name != either["head_node_type"]}
    head = account_of(types["head"]["node_config"])
    assert workers
    for worker in workers.values():
        assert (worker["min_workers"], worker["max_workers"] > 0) == (0, True)
        assert account_of(worker["node_config"]) not in (None, head)
    assert either["max_workers"] == sum(w["max_workers"] for w in workers.values())


def test_spot_comes_first_and_machines_on_demand_stand_in(either):
    types = either["available_node_types"]
    assert types["gpu"]["priority"] > types["gpu-on-demand"]["priority"]
    nodes = node_configs(either)
    assert is_spot(nodes["gpu"])
    assert not is_spot(nodes["gpu-on-demand"])
    market = ("InstanceMarketOptions", "scheduling")
    spot, full = ({k: v for k, v in nodes[name].items() if k not in market} for name in ("gpu", "gpu-on-demand"))
    assert spot == full


def test_every_node_shows_the_token(either):
    assert "--env RAY_AUTH_MODE=token" in either["docker"]["run_options"]
    assert either["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_metrics_are_on_one_port_and_the_dashboard_on_the_head_alone(either):
    starts = [line for key in ("head", "worker") for line in either[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("--metrics-export-port=8080" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_no_port_is_open_to_the_world(either):
    """Ray's own security group opens port 22; the nodes name one, and SSH goes through the cloud's tunnel."""
    assert either["auth"]["ssh_proxy_use_node_id"]
    assert either["auth"]["ssh_proxy_command"].startswith(("aws ssm", "gcloud compute start-iap-tunnel"))
    for node in node_configs(either).values():
        assert node.get("SecurityGroupIds") or node["networkInterfaces"][0]["network"] == "global/networks/babelray"


def test_nodes_install_the_lock_without_what_only_tests_need(either):
    (command,) = either["setup_commands"]
    assert "--constraint /home/ray/babelray/requirements.lock" in command
    assert "dev" not in command.partition("[")[2].partition("]")[0].split(",")


def test_every_instance_can_be_found_on_the_bill(either):
    for node in node_configs(either).values():
        tags = node.get("labels") or {t["Key"]: t["Value"] for t in node["TagSpecifications"][0]["Tags"]}
        assert tags == {"project": "babelray"}


def test_images_are_pinned_to_the_installed_ray(either):
    import ray

    types = either["available_node_types"]
    images = [either["docker"]["image"], *(types[name]["docker"]["worker_image"] for name in ("gpu", "gpu-on-demand"))]
    assert images == [f"rayproject/ray:{ray.__version__}-py311-{flavour}" for flavour in ("cpu", "gpu", "gpu")]


@pytest.fixture
def iam(s3_root):
    """A client of the IAM that the server of the object store has too."""
    import boto3

    endpoint = parse_qs(urlsplit(s3_root).query)["endpoint_override"][0]
    return boto3.client(
        "iam", "us-east-1", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test"
    )


def test_iam_takes_the_policies_and_the_check_finds_a_misspelt_key(iam):
    from botocore.exceptions import ClientError

    policies = {"node": write_node_policy("b"), "head": write_head_policy("b", "123456789012", "us-east-1")}
    for name, policy in policies.items():
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(write_trust()))
        iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(policy))
        policy["Statement"][0]["Acton"] = policy["Statement"][0].pop("Action")
        with pytest.raises(ClientError, match="MalformedPolicyDocument"):
            iam.create_policy(PolicyName=f"wrong-{name}", PolicyDocument=json.dumps(policy))


def test_the_head_may_pass_the_nodes_role_and_read_the_images_name_and_nodes_may_not(config):
    done = subprocess.run(
        [sys.executable, "-m", "cluster.policies", "head", "my-bucket", "123456789012"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    head = {s["Sid"]: s for s in json.loads(done.stdout)["Statement"]}
    assert head["PassNodeRole"]["Resource"] == ["arn:aws:iam::123456789012:role/babelray-node"]
    image = config["available_node_types"]["head"]["node_config"]["ImageId"].removeprefix("resolve:ssm:")
    prefix = head["ReadImageNames"]["Resource"][0].partition("parameter")[2]
    assert image.startswith(prefix.rstrip("*"))
    assert {s["Sid"] for s in write_node_policy("b")["Statement"]} == {"UseObjects", "ListBucket"}
