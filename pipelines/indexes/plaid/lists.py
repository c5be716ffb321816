"""The inverted lists of a shard, packed: for each cell the gaps between its passages, 7 bits in a byte.

A list holds the passages of a cell, ascending. A number of it is how far a passage lies behind the one before, less 1,
lowest 7 bits first; the highest bit of a byte says that more follow. Most gaps take 1 or 2 bytes, where a number of a
passage took 4. Importing this module compiles its loops. Legend: C cells, B bytes.
"""

from collections.abc import Iterator

import numpy as np
from numba import types

from pipelines.indexes.compiled import kernel
from pipelines.indexes.files import blocks
from pipelines.vectors import IntArray

ENTRIES = 1 << 20  # packed or unpacked at a time
LONGEST = 5  # bytes of a number
_I4_1, _I8_1, _U1_1 = (types.Array(kind, 1, "C") for kind in (types.int32, types.int64, types.uint8))
_READ_I4, _READ_I8, _READ_U1 = (
    types.Array(kind, 1, "C", readonly=True) for kind in (types.int32, types.int64, types.uint8)
)


@kernel(types.int64(_READ_I4, _READ_I8, _U1_1, _I4_1))
def _pack(passages, starts_C1, packed_B, bytes_C):  # type: ignore[no-untyped-def]
    """Write the lists one behind another; how many bytes each takes, and all."""
    place = 0
    for cell in range(len(bytes_C)):
        first, last = place, -1
        for i in range(starts_C1[cell], starts_C1[cell + 1]):
            gap = passages[i] - last - 1
            last = passages[i]
            while gap >= 128:
                packed_B[place] = 128 | (gap & 127)
                gap >>= 7
                place += 1
            packed_B[place] = gap
            place += 1
        bytes_C[cell] = place - first
    return place


@kernel(types.boolean(_READ_U1, _READ_I8, types.int64, _I4_1, _I8_1))
def _unpack(packed_B, starts_C1, limit, passages, counts_C):  # type: ignore[no-untyped-def]
    """Write the passages of the lists one behind another, and how many each has; False where one is not below
    ``limit`` or a number does not end."""
    count = 0
    for cell in range(len(counts_C)):
        first, last, gap, shift = count, -1, 0, 0
        for place in range(starts_C1[cell], starts_C1[cell + 1]):
            gap |= (packed_B[place] & 127) << shift
            shift += 7
            if packed_B[place] < 128:
                last += gap + 1
                if last >= limit:
                    return False
                passages[count] = last
                count += 1
                gap, shift = 0, 0
            elif shift > 28:
                return False
        if shift:
            return False
        counts_C[cell] = count - first
    return True


@kernel(types.void(_READ_I4, _READ_I8, types.int64, _I4_1, _I8_1))
def count_members(codes_T, starts_P1, first, last_C, counts_C):  # type: ignore[no-untyped-def]
    """Count for each cell the passages, numbered from ``first``, that have a token of it.

    ``last_C`` is the last passage that was counted for each cell.
    """
    for p in range(len(starts_P1) - 1):
        for t in range(starts_P1[p], starts_P1[p + 1]):
            cell = codes_T[t]
            if last_C[cell] != first + p:
                last_C[cell] = first + p
                counts_C[cell] += 1


@kernel(types.void(_READ_I4, _READ_I8, types.int64, _I4_1, _I8_1, _I4_1))
def place_members(codes_T, starts_P1, first, last_C, places_C, lists):  # type: ignore[no-untyped-def]
    """Write the passages that ``count_members`` counted, each at the place of its cell, which moves on by one."""
    for p in range(len(starts_P1) - 1):
        for t in range(starts_P1[p], starts_P1[p + 1]):
            cell = codes_T[t]
            if last_C[cell] != first + p:
                last_C[cell] = first + p
                lists[places_C[cell]] = first + p
                places_C[cell] += 1


def pack_lists(passages: IntArray, starts_C1: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Pack the lists of int32 that start at ``starts_C1`` of ``passages``: yields the bytes of some cells, and how many
    each takes."""
    for first, last in blocks(starts_C1, ENTRIES):
        begin, end = starts_C1[first], starts_C1[last]
        packed_B, bytes_C = np.empty(LONGEST * (end - begin), np.uint8), np.empty(last - first, np.int32)
        some = np.ascontiguousarray(passages[begin:end])
        yield packed_B[: _pack(some, starts_C1[first : last + 1] - begin, packed_B, bytes_C)], bytes_C


def unpack_lists(packed_B: IntArray, starts_C1: IntArray, passages: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Undo ``pack_lists``: yields the passages of some cells, and how many each has.

    Raises ValueError where a list does not hold ascending passages below ``passages``.
    """
    for first, last in blocks(starts_C1, ENTRIES):
        begin, end = starts_C1[first], starts_C1[last]
        found, counts_C = np.empty(end - begin, np.int32), np.empty(last - first, np.int64)
        if not _unpack(packed_B[begin:end], starts_C1[first : last + 1] - begin, passages, found, counts_C):
            raise ValueError(f"expected lists of passages below {passages}")
        yield found[: counts_C.sum()], counts_C
