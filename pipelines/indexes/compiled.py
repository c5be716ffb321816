"""Compiling kernels: numba, one signature each, the machine code kept between processes.

numba keeps it beside the source, or, where that cannot be written, in the user's cache directory, or in the directory
that ``NUMBA_CACHE_DIR`` names. Compiling a kernel takes up to a few seconds and happens when its module is imported,
so that opening an index compiles and the first query does not. Kernels release the interpreter's lock: threads run
them side by side. They take plain arrays; the arrays of several shards they take as addresses (see ``addresses``).
"""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from pipelines.vectors import IntArray

log = logging.getLogger(__name__)
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"nnan", "nsz", "contract", "reassoc"}, "error_model": "numpy"}
subroutine = njit(**OPTIONS)  # a function that kernels call


def kernel(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for one signature. Sums of floats may be taken in any order."""

    def compile_it(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return njit(signature, cache=True, **OPTIONS)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            log.warning(
                "%s is compiled anew in every process: neither the directory of its source nor a cache directory of "
                "this user can be written. Set NUMBA_CACHE_DIR to one that can",
                function.__name__,
            )
            return njit(signature, **OPTIONS)(function)

    return compile_it


def addresses(arrays: Sequence[np.ndarray]) -> IntArray:
    """Where the data of each array lie, int64. The caller keeps the arrays; a kernel reads them by ``at``.

    Raises ValueError for an array that is not contiguous.
    """
    if not all(array.flags.c_contiguous for array in arrays):
        raise ValueError("expected contiguous arrays: a kernel reads them by their address")
    return np.array([array.ctypes.data for array in arrays], np.int64)


@intrinsic
def at(typing_context: Any, address: Any) -> Any:
    """In a kernel: the pointer that numba's ``carray`` takes, from an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


def count_threads() -> int:
    """The processors that this process may use: ``OMP_NUM_THREADS`` where it is set, as BLAS and faiss count them."""
    setting = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(setting) if setting.isdigit() and int(setting) else len(os.sched_getaffinity(0))
