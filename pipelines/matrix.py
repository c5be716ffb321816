"""The step *matrix*: a set that was asked in several languages, language of the question by language of the documents.

    matrix.json   {"measures": {measure: {question: {document or all: value}}}, "fairness": {question: fairness.json}}
    matrix.png    a heat map of the first measure

The diagonal is retrieval in one's own language, the rest across languages; "all" is the pool of all documents.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.artifact import Artifact
from cluster.component import Component
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.evaluate import POOL, read_fairness, read_measures

Matrix = Mapping[str, Mapping[str, float]]  # language of the question → of the documents, or "all" → value


class MatrixConfig(Component):
    """Which set it is."""

    name: str


def build_matrix(config: MatrixConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """DirectoryWork: ``evaluations`` by the language of the question → the files above.

    Returns:
        ``{"set": name, "measure": the first, "own": mean of the diagonal, "across": mean of the rest, "pool": mean of
        the pools}``; a mean of nothing is None.
    """
    evaluations: Mapping[str, Artifact] = inputs["evaluations"]
    measured = {asked: read_measures(evaluation) for asked, evaluation in evaluations.items()}
    first, *_ = names = list(next(iter(measured.values()))[POOL])
    measures = {
        name: {asked: {lang: values[name] for lang, values in rows.items()} for asked, rows in measured.items()}
        for name in names
    }
    fairness = {asked: read_fairness(evaluation) for asked, evaluation in evaluations.items()}
    content = {"measures": measures, "fairness": fairness}
    (out / "matrix.json").write(json.dumps(content, indent=1, ensure_ascii=False).encode())
    (out / "matrix.png").write(plot(f"{config.name}: {first}", measures[first], ("documents", "questions")))
    means = split_means(measures[first])
    said = ", ".join(f"{name} {value:.3f}" for name, value in means.items() if value is not None)
    return {"set": config.name, "measure": first, **means, "summary": f"{first}: {said}"}


def read_matrix(artifact: Artifact) -> dict[str, Any]:
    """The content of matrix.json."""
    content: dict[str, Any] = json.loads((artifact.place / "matrix.json").read())
    return content


def split_means(matrix: Matrix) -> dict[str, float | None]:
    """The means over documents in the question's own language, in the others, and over the pools."""
    cells = [(asked, lang, value) for asked, row in matrix.items() for lang, value in row.items()]
    return {
        "own": _mean([value for asked, lang, value in cells if lang == asked]),
        "across": _mean([value for asked, lang, value in cells if lang not in (asked, POOL)]),
        "pool": _mean([value for _, lang, value in cells if lang == POOL]),
    }


def column_means(matrix: Matrix) -> dict[str, float | None]:
    """The mean over the languages of the questions, by language of the documents."""
    columns = dict.fromkeys(lang for row in matrix.values() for lang in row)
    return {lang: _mean([row[lang] for row in matrix.values() if lang in row]) for lang in columns}


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def plot(title: str, matrix: Matrix, axes: tuple[str, str]) -> bytes:
    """A heat map as PNG; ``axes`` name what the columns and the rows are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = list(column_means(matrix))
    values = np.array([[row.get(lang, np.nan) for lang in columns] for row in matrix.values()])
    height, width = values.shape
    figure = Figure(figsize=(2.5 + 0.6 * width, 1.8 + 0.45 * height), layout="constrained")
    FigureCanvasAgg(figure)
    axis: Any = figure.add_subplot()
    image = axis.imshow(
        values, vmin=min(0.0, np.nanmin(values)), vmax=max(1.0, np.nanmax(values)), cmap="viridis", aspect="auto"
    )
    axis.set_xticks(range(width), labels=columns)
    axis.set_yticks(range(height), labels=list(matrix))
    axis.set(title=title, xlabel=axes[0], ylabel=axes[1])
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
    figure.colorbar(image)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
