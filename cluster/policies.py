"""The rights of the nodes of ``ray_cluster.yaml``, shown by ``python -m cluster.policies head BUCKET ACCOUNT``.

``babelray-node`` may use one bucket. ``babelray-head`` may, besides, start and end instances of that cluster, hand them
the node's role, and be reached by Session Manager. What names no resource cannot: EC2's Describe calls take none.
"""

import json
from typing import Annotated, Any, Literal

import typer

NODE, HEAD = "babelray-node", "babelray-head"
IMAGES = "/aws/service/deeplearning/ami/*"  # the parameters that name AWS's newest images


def write_trust() -> dict[str, Any]:
    """Who may take either role: EC2, for its instances."""
    return _policy(
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}},
    )


def write_node_policy(bucket: str) -> dict[str, Any]:
    """What every node may: read, write, list and delete in the bucket."""
    return _policy(*_use_bucket(bucket))


def write_head_policy(bucket: str, account: str, region: str, cluster: str = "babelray") -> dict[str, Any]:
    """What the head may: use the bucket, run the cluster's workers, and answer Session Manager."""
    tag = {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": cluster}}
    return _policy(
        *_use_bucket(bucket),
        _allow("DescribeInstances", ["ec2:Describe*"], ["*"]),
        _allow("StartWorkers", ["ec2:RunInstances"], ["*"]),
        _allow(
            "TagWorkers",
            ["ec2:CreateTags"],
            [f"arn:aws:ec2:{region}:{account}:{kind}/*" for kind in ("instance", "volume")],
        ),
        _allow("EndWorkers", ["ec2:TerminateInstances", "ec2:StopInstances"], ["*"], tag),
        _allow("PassNodeRole", ["iam:PassRole"], [f"arn:aws:iam::{account}:role/{NODE}"]),
        _allow(
            "ReadImageNames", ["ssm:GetParameter", "ssm:GetParameters"], [f"arn:aws:ssm:{region}::parameter{IMAGES}"]
        ),
        _allow(
            "SessionManager",
            [
                "ssm:UpdateInstanceInformation",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            ["*"],
        ),
    )


def _use_bucket(bucket: str) -> list[dict[str, Any]]:
    objects = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    return [
        _allow("UseObjects", objects, [f"arn:aws:s3:::{bucket}/*"]),
        _allow("ListBucket", ["s3:ListBucket", "s3:GetBucketLocation"], [f"arn:aws:s3:::{bucket}"]),
    ]


def _allow(
    name: str, actions: list[str], resources: list[str], condition: dict[str, Any] | None = None
) -> dict[str, Any]:
    statement = {"Sid": name, "Effect": "Allow", "Action": actions, "Resource": resources}
    return statement | ({"Condition": condition} if condition else {})


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def show(
    whose: Annotated[
        Literal["head", "node", "trust"],
        typer.Argument(help="Whose rights: the head's, every other node's, or who may take either role."),
    ],
    bucket: Annotated[str, typer.Argument(help="The bucket of the root, without s3://.")] = "BUCKET",
    account: Annotated[str, typer.Argument(help="The number of the AWS account.")] = "ACCOUNT",
    region: Annotated[str, typer.Option(help="The region of ray_cluster.yaml.")] = "us-east-1",
) -> None:
    """Print an IAM policy for a role of ray_cluster.yaml.

    Example: `python -m cluster.policies head my-bucket 123456789012 > head.json`
    """
    policies = {
        "trust": write_trust(),
        "node": write_node_policy(bucket),
        "head": write_head_policy(bucket, account, region),
    }
    typer.echo(json.dumps(policies[whose], indent=2))


if __name__ == "__main__":
    typer.run(show)
