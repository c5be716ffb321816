"""English questions for each kind of fact. The phrasings of the three splits are disjoint.

Slots are those of the passage (see `facts`). A question never has the slot that answers it.
"""

from pipelines.sources.atlas.questions_places import PLACES
from pipelines.sources.atlas.questions_things import THINGS

# Both kinds have the same questions, since the wording must not give away whether there is one language or several.
QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = PLACES | THINGS | {"officials": PLACES["official"]}
