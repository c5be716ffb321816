"""Weights of several systems or teachers, whose scores become one."""

from typing import Annotated

from pydantic import AfterValidator


def _check_weights(weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Refuse weights below 0, and weights that are all 0."""
    if weights is not None and (min(weights, default=0.0) < 0 or not sum(weights) > 0):
        raise ValueError(f"weights = {list(weights)}: expected numbers of at least 0, not all of them 0")
    return weights


# one for each; None: equal ones
Weights = Annotated[tuple[float, ...] | None, AfterValidator(_check_weights)]
