"""joblite: run a loop on all cores, remember results on disk, keep big objects in files, name any value.

    from joblite import Parallel, delayed, Memory, dump, load, hash

    Parallel(n_jobs=-1)(delayed(pow)(i, 2) for i in range(10))    # [0, 1, 4, 9, ...] from all cores

    memory = Memory("cache")
    @memory.cache
    def slow(x): ...                                              # computed once, then read from disk

    dump({"weights": array}, "model.joblite"); load("model.joblite", mmap_mode="r")
    hash(anything)                                                # equal values, equal name

One file, standard library only: copy it into a project, rename it if you like. numpy is served when the caller has
imported it and is never imported by this file on its own.

The map (a section uses only those above it; Memory and Parallel do not know each other):

    you call              it stands on
    hash(value)           2 naming values          -> 1 ground
    dump / load           3 values in files        -> 1
    Memory                4 calls in folders       -> 3, 2, 1
    Parallel(delayed)     8 parallel -> 7 choosing -> 6 pools -> 5 parcels -> 3, 1

Words used in one sense only:

    task      one call to make: (function, args, kwargs), what `delayed(f)(x)` gives
    batch     tasks that travel together
    run       one call of a `Parallel`
    worker    a process (or thread) that runs batches
    pool      the workers that share one setting
    nursery   the clean child process that forks the workers
    parcel    an object packed for another process: a pickle and the raw buffers it leaves out
"""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import lru_cache

TYPE_CHECKING = False  # what type checkers take for true; importing `typing` for it would cost as much as this whole file
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, ModuleType
    from typing import Any

__version__ = "0.1.0"

__all__ = [
    "cpu_count",
]

# ======================================================================================================================
# 1. Ground
# ======================================================================================================================
# Promise: every question about the machine, the system, the Python version or an optional package is asked here.
#
# Laws
#   1. Importing this file starts nothing, changes nothing and loads no numpy.     test_import_is_light
#   2. An optional package is looked up in sys.modules, or imported by the one function that needs it.

IS_WINDOWS = os.name == "nt"
HAS_FORK = hasattr(os, "fork") and sys.platform not in ("emscripten", "wasi")


class _Unset:
    """Stands for "not given"; shows the default that the documentation names."""

    def __init__(self, shown: object) -> None:
        self.shown = shown

    def __repr__(self) -> str:
        return repr(self.shown)


def _loaded(name: str) -> ModuleType | None:
    """The module `name` if the caller has imported it: only then can a value be of one of its types."""
    return sys.modules.get(name)


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _parse_bytes(size: int | str, what: str) -> int:
    """A number of bytes from an int, or a text such as "500K", "1M", "0.5G"; `what` names the parameter in the error.

    >>> _parse_bytes("1.5K", "max_nbytes")
    1536
    """
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    try:
        text = size.strip().upper()  # type: ignore[union-attr]
        unit = _UNITS.get(text[-1:])
        number = float(text[:-1]) if unit else float(text)
        if number >= 0:
            return int(number * (unit or 1))
    except (AttributeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{what}: expected bytes as a whole number or a text such as '500K', '1M', '2G'; got {size!r}")


def _cgroup_cpus() -> float:
    """The CPU quota of this process's control group in cores (infinite when there is none)."""
    quotas = [("/sys/fs/cgroup/cpu.max", None),
              ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us")]
    for first, second in quotas:
        try:
            with open(first) as file:
                words = file.read().split()
            if second:
                with open(second) as file:
                    words += file.read().split()
            quota, period = words[:2]
            if quota not in ("max", "-1"):
                return int(quota) / int(period)
        except (OSError, ValueError):
            continue  # no such control group version here: the other one may be, or there is no limit
    return float("inf")


def _physical_cores() -> int:
    """The number of physical cores this process may use; 0 when the system does not tell."""
    cores = set()
    try:
        for cpu in os.sched_getaffinity(0):
            folder = f"/sys/devices/system/cpu/cpu{cpu}/topology/"
            with open(folder + "physical_package_id") as package, open(folder + "core_id") as core:
                cores.add((package.read(), core.read()))
    except (OSError, AttributeError):
        return 0
    return len(cores)


def cpu_count(only_physical_cores: bool = False) -> int:
    """The number of cores that this process may use: at least 1.

    >>> cpu_count() >= 1
    True

    Counted are the process's affinity, its control group's CPU quota (rounded up) and the environment variable
    LOKY_MAX_CPU_COUNT, whichever is least.

    Parameters
    ----------
    only_physical_cores : bool, default False
        Count two hardware threads of one core once, where the system tells (Linux).

    Raises
    ------
    ValueError
        LOKY_MAX_CPU_COUNT is not a whole number.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    if only_physical_cores:
        cores = _physical_cores() or cores
    limits = [cores, _cgroup_cpus()]
    limit = os.environ.get("LOKY_MAX_CPU_COUNT")
    if limit:
        try:
            limits.append(int(limit))
        except ValueError:
            raise ValueError(f"LOKY_MAX_CPU_COUNT: expected a whole number, got {limit!r}") from None
    least = min(limits)
    return max(1, int(least) + (least > int(least)))


@lru_cache(maxsize=4096)
def _names_used(code: CodeType) -> frozenset[tuple[str, ...]]:
    """The global names that a code object and the code inside it read or set, each with the attributes it follows.

    >>> def f(x): return helper(x) + np.linalg.norm(x)
    >>> sorted(_names_used(f.__code__))
    [('helper',), ('np', 'linalg', 'norm')]
    """
    from opcode import opmap

    plain = {opmap.get(op) for op in ("LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")}
    load_global, load_attr, load_method = opmap["LOAD_GLOBAL"], opmap["LOAD_ATTR"], opmap.get("LOAD_METHOD")
    global_shift, attr_shift = sys.version_info >= (3, 11), sys.version_info >= (3, 12)  # the low bit is a flag there
    found: set[tuple[str, ...]] = set()
    chain: tuple[str, ...] = ()
    extended = 0
    raw = code.co_code
    for op, arg in zip(raw[::2], raw[1::2]):
        arg |= extended
        extended = arg << 8 if op == opmap["EXTENDED_ARG"] else 0
        if extended or op == opmap.get("CACHE", -1):
            continue
        if chain and op in (load_attr, load_method):
            chain += (code.co_names[arg >> (attr_shift and op == load_attr)],)
            continue
        if chain:
            found.add(chain)
            chain = ()
        if op == load_global:
            chain = (code.co_names[arg >> global_shift],)
        elif op in plain:
            chain = (code.co_names[arg],)
    for const in code.co_consts:
        if isinstance(const, type(code)):
            found |= _names_used(const)
    return frozenset(found | ({chain} if chain else set()))


# ======================================================================================================================
# 2. Naming values
# ======================================================================================================================


# ======================================================================================================================
# 3. Values in files
# ======================================================================================================================


# ======================================================================================================================
# 4. Calls in folders
# ======================================================================================================================


# ======================================================================================================================
# 5. Parcels
# ======================================================================================================================


# ======================================================================================================================
# 6. Pools
# ======================================================================================================================


# ======================================================================================================================
# 7. Choosing
# ======================================================================================================================


# ======================================================================================================================
# 8. Parallel
# ======================================================================================================================
