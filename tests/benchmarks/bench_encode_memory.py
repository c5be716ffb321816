"""Memory of encoding as a collection grows tenfold: peak resident bytes for n and 10 n parts, in two processes.

    python tests/benchmarks/bench_encode_memory.py [--parts 4] [--rows 128]

Encodes parts of a table with all-MiniLM-L6-v2 as the step does, one after another, and drops each result. Prints one
line per size and, last, JSON with the ratio.
"""

import argparse
import json
import time

from growth import compare, in_own_process, peak_mb


def encode(parts: int, rows: int) -> dict[str, float]:
    """Encode ``parts`` parts of ``rows`` passages of 5 to 60 words."""
    from pipelines.encode import Encode, EncodeConfig
    from pipelines.tables import DOCS

    work = Encode(EncodeConfig(role="docs", model="minilm"), {})
    started = time.perf_counter()
    for part in range(parts):
        texts = [" ".join(str((part * rows + row) * 31 + word) for word in range(5 + row % 55)) for row in range(rows)]
        docs = [{"doc_id": str(i), "lang": "en", "title": "", "text": text} for i, text in enumerate(texts)]
        work(DOCS.of(docs))
    return {
        "rows": parts * rows,
        "rows_per_second": round(parts * rows / (time.perf_counter() - started)),
        "peak_mb": round(peak_mb(), 1),
    }


def main() -> None:
    """Measure both sizes and print the ratio of their peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(encode(arguments.parts, arguments.rows)))
    else:
        sizes = (arguments.parts, 10 * arguments.parts)
        compare(in_own_process(__file__, ["--one", "--parts", n, "--rows", arguments.rows]) for n in sizes)


if __name__ == "__main__":
    main()
