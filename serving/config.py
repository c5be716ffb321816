"""The config file for ``serve deploy``: the gateways as one application, and the parts of each system as one."""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.access import OPEN_TO_ALL, Access
from serving.app import NAME, GatewayArgs, ServeArgs, load
from serving.catalog import Serving, name_parts, plan_change


def build_config(
    args: Sequence[ServeArgs],
    where: tuple[str, int],
    access: Access = OPEN_TO_ALL,
    kept: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The config file for ``serve deploy`` that serves all of this, the first by default.

    ``kept`` are applications of parts that run and go on, as they stand in an earlier file: the gateways use those that
    the new ones replace until these answer.
    """
    new = {
        name_parts(NAME, load(one).fingerprint(one.limits)): {
            "route_prefix": None,
            "import_path": "serving.app:build",
            "args": one.model_dump(exclude_defaults=True),
        }
        for one in args
    }
    parts = [{"name": name, **app} for name, app in new.items()]
    parts += [dict(app) for app in kept if app["name"] not in new]
    before, after = list(map(_name_serving, kept)), [_name_serving(app) for app in parts[: len(new)]]
    gateway = {
        "name": NAME,
        "route_prefix": "/",
        "import_path": "serving.app:build_gateway",
        "args": GatewayArgs(access=access, cpus=args[0].scale.cpus).model_dump(mode="json", exclude_defaults=True),
        "deployments": [
            {
                "name": "gateway",
                "num_replicas": args[0].scale.gateways,
                "user_config": {"serves": plan_change(before, after).during},
            }
        ],
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": where[0], "port": where[1]},
        "applications": [gateway, *parts],
    }


def _name_serving(app: Mapping[str, Any]) -> Serving:
    """The parts of an application of a config file; its recipe stands there as it was asked for."""
    return Serving(app["name"], app["args"]["recipe"], app["args"].get("system", "student"))


def add_words(args: Sequence[ServeArgs]) -> list[ServeArgs]:
    """What is served for these recipes: beside a student whose recipe has ``[serve] hybrid``, its index of words."""
    from pipelines.recipe import STUDENT
    from pipelines.recipe import load as load_recipe

    found: list[ServeArgs] = []
    for one in args:
        hybrid = load_recipe(one.recipe, one.overrides).serve.hybrid
        found.append(one)
        if hybrid and one.system == STUDENT:
            found.append(one.model_copy(update={"system": hybrid.system}))
    return list({(one.recipe, one.system): one for one in reversed(found)}.values())[::-1]
