"""Serving: a finished recipe behind HTTP, on Ray Serve."""

import cluster  # noqa: F401  # before numpy: sets how its threads wait
