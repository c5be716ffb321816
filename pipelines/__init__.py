"""The science and its steps: from text to a measured student."""

import cluster  # noqa: F401  # before numpy: sets how its threads wait
