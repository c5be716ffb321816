"""The config file for ``serve deploy``: the gateways and the parts of a recipe as two applications."""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.access import OPEN_TO_ALL, Access
from serving.app import NAME, GatewayArgs, ServeArgs, load
from serving.catalog import name_parts


def build_config(
    args: ServeArgs, where: tuple[str, int], access: Access = OPEN_TO_ALL, kept: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The config file for ``serve deploy`` that serves this.

    ``kept`` are applications of parts that run and go on, as they stand in an earlier file: the gateways use the first
    of them until the new one answers.
    """
    parts = {
        "name": name_parts(NAME, load(args).fingerprint(args.limits)),
        "route_prefix": None,
        "import_path": "serving.app:build",
        "args": args.model_dump(exclude_defaults=True),
    }
    applications = [parts, *(app for app in kept if app["name"] != parts["name"])]
    gateway = {
        "name": NAME,
        "route_prefix": "/",
        "import_path": "serving.app:build_gateway",
        "args": GatewayArgs(access=access, cpus=args.scale.cpus).model_dump(mode="json", exclude_defaults=True),
        "deployments": [
            {
                "name": "gateway",
                "num_replicas": args.scale.gateways,
                "user_config": {"serves": [app["name"] for app in applications]},
            }
        ],
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": where[0], "port": where[1]},
        "applications": [gateway, *applications],
    }
