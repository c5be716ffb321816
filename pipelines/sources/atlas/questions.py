"""English questions for each kind of fact: the phrasings of the three splits are disjoint.

Slots are those of the passage (see `facts`). A question never holds the slot that answers it.
"""

from pipelines.sources.atlas.questions_places import PLACES
from pipelines.sources.atlas.questions_things import THINGS

# An asker does not know whether the answer is one language or several: both kinds are asked alike.
QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = PLACES | THINGS | {"officials": PLACES["official"]}
