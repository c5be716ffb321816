"""How PLAID's centroids are divided into groups, and how many of them a vector is compared with.

See ``pipelines.indexes.plaid.cells``. Importing this module compiles nothing.
"""

FLAT = 1024  # fewer centroids are not grouped
VISITED = 12  # groups of centroids that a vector is compared with
VISITED_LEARNING = 4  # the same, in the last round of k-means
POINTS = 48  # vectors per centroid that k-means sees at most


def count_compared(count: int, visited: int = VISITED) -> int:
    """With how many centres and centroids a vector is compared, of ``count`` centroids."""
    if count < FLAT:
        return count
    groups = count_groups(count)
    return groups + visited * count // groups


def count_learning(count: int, iterations: int) -> int:
    """With how many centres and centroids k-means compares a vector before the last time, which finds its cell."""
    if count < FLAT:
        return iterations * count
    groups = count_groups(count)
    return iterations * (groups + count // groups)


def count_groups(count: int) -> int:
    """How many groups ``count`` centroids are divided among."""
    return 1 << (count.bit_length() // 2)
