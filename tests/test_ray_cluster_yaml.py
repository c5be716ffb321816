"""ray_cluster.yaml against Ray's own validation and against botocore's model of EC2 RunInstances, both offline."""

import copy
from pathlib import Path

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from jsonschema.exceptions import ValidationError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config():
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


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


def test_ray_accepts_the_file(config):
    assert prepared(config)["cluster_name"] == "babelray"


def test_ray_fills_in_no_command_of_its_own(config):
    """Omitted setup commands become the installation of a nightly wheel."""
    ready = prepared(config)
    keys = ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands")
    ours = {command for key in keys for command in config[key]}
    assert {command for key in keys for command in ready[key]} == ours


def test_ray_refuses_the_file_with_a_misspelt_key(config):
    config["available_node_types"]["gpu"]["max_worker"] = 3
    with pytest.raises(ValidationError, match="max_worker"):
        prepared(config)


@pytest.mark.parametrize("node_type", ["head", "cpu", "gpu"])
def test_ec2_knows_every_key_of_node_config(config, node_type):
    assert ec2_errors(config["available_node_types"][node_type]["node_config"]) == ""


def test_the_ec2_check_finds_a_misspelt_key(config):
    node = config["available_node_types"]["gpu"]["node_config"]
    node["BlockDeviceMappings"][0]["Ebs"]["VolumeSise"] = 1
    assert "VolumeSise" in ec2_errors(node)


def test_head_takes_no_work_and_is_not_spot(config):
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_workers_scale_from_zero_with_a_profile_of_their_own(config):
    types = config["available_node_types"]
    workers = {name: t for name, t in types.items() if name != config["head_node_type"]}
    head_profile = types["head"]["node_config"]["IamInstanceProfile"]
    assert workers
    for worker in workers.values():
        assert (worker["min_workers"], worker["max_workers"] > 0) == (0, True)
        assert worker["node_config"]["IamInstanceProfile"] not in (None, head_profile)
    assert config["max_workers"] == sum(w["max_workers"] for w in workers.values())
    assert types["gpu"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def test_images_are_pinned_to_the_installed_ray(config):
    import ray

    images = [config["docker"]["image"], config["available_node_types"]["gpu"]["docker"]["worker_image"]]
    assert images == [f"rayproject/ray:{ray.__version__}-py311-{flavour}" for flavour in ("cpu", "gpu")]
