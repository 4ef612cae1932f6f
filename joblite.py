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

import copyreg
import io
import marshal
import os
import sys
import threading
import time
import types
from collections import OrderedDict, deque
from functools import lru_cache, partial, reduce

TYPE_CHECKING = False  # what type checkers take for true; importing `typing` for it would cost as much as this whole file
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, ModuleType
    from typing import Any

__version__ = "0.1.0"

__all__ = [
    "UntrustedObjectError",
    "cpu_count",
    "dump",
    "hash",
    "load",
    "register_compressor",
    "register_hasher",
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


@lru_cache
def _module(name: str) -> Any:
    """A module of the standard library, imported at first use; in a hot path quicker than an import statement."""
    import importlib

    return importlib.import_module(name)


def _start_threads(work: Callable[[], Any], count: int) -> list[threading.Thread]:
    """`count` threads that run `work`; fewer, or none, where the system or a closing interpreter gives no more."""
    started = []
    for _ in range(count):
        worker = threading.Thread(target=work, daemon=True)
        try:
            worker.start()
        except RuntimeError:
            break
        started.append(worker)
    return started


def _answer(pair: tuple[Any, BaseException | None]) -> Any:
    """The value of a (value, error) pair, or its error raised."""
    if pair[1] is not None:
        raise pair[1]
    return pair[0]


def _spread(function: Callable[[Any], Any], items: Iterable[Any], threads: int | None = None) -> Iterator[Any]:
    """The results of `function` over `items`, in order, computed on all cores by threads; few items are held at once.

    For functions that let other threads run (compression, checksums, hashing of big pieces).

    >>> list(_spread(len, ["a", "bc"]))
    [1, 2]
    """
    from itertools import chain, islice
    from queue import SimpleQueue

    items = iter(items)
    head = list(islice(items, 2))
    items = chain(head, items)
    threads = 1 if len(head) < 2 else threads or cpu_count()
    jobs: SimpleQueue[Any] = SimpleQueue()

    def work() -> None:
        for item, answer in iter(jobs.get, None):
            try:
                answer.put((function(item), None))
            except BaseException as error:
                answer.put((None, error))

    waiting: deque[Any] = deque()
    workers = _start_threads(work, threads if threads > 1 else 0)
    if not workers:
        yield from map(function, items)
        return
    try:
        for item in items:
            waiting.append(SimpleQueue())
            jobs.put((item, waiting[-1]))
            if len(waiting) > 2 * threads:
                yield _answer(waiting.popleft().get())
        while waiting:
            yield _answer(waiting.popleft().get())
    finally:
        for _ in workers:
            jobs.put(None)
        for worker in workers:
            worker.join()


# ======================================================================================================================
# 2. Naming values
# ======================================================================================================================
# Promise: `hash` gives every value a name that depends on what it holds, and on nothing else.
#
# Picture: a value is turned into a form made of plain values only, and the bytes of the form are digested.
#
#     value                     form                                               name
#     (1, "a", [2.5])           the same                         -- marshal -->    sha256
#     {"b": 1, "a": 2}          MARK "dict" [a b] [2 1]
#     array                     MARK "array" dtype, shape, order, digest of the bytes
#     any other object          MARK "object" class, arguments, state   (what pickle would take)
#     a part of 64+ values      MARK and the digest of its own form: reached again, it is not walked again
#
# Laws
#   1. Only content counts: no identity, sharing, interning, order of dicts and sets.   test_equal_values_have_one_name
#   2. Different types, values, layouts have different names: a form can be read in one way only, since no plain value
#      holds MARK.                                                                   test_other_values_have_other_names
#   3. Whether a part is replaced by its digest depends on its value alone, never on how often it was met, so that the
#      time stays linear and law 1 holds.                                             test_shared_parts_cost_once
#   4. A value that holds itself is named by the classes of its parts that cannot be told apart.   test_recursive_values
#   5. The name is the same on every Python version for plain values and arrays.      test_names_never_change

_MARK = StopIteration  # written by marshal as one byte; as a value of the user it is a class, so never plain
_ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None), type(...)})
_SEQUENCES = frozenset({list, tuple})
_SORTABLE = frozenset({str, int, bytes})  # of these alone `sorted` gives one order whatever the order before
_SMALL = 64  # values in a part from which it gets a digest of its own: smaller is slower, larger repeats more work
_HASH_BLOCK = 1 << 20  # bytes of an array digested at once: big enough to hide the cost of threads
_HASHES: dict[str, Any] = {}  # constructors met so far: hashlib.new is slower than they are
_HASHERS: dict[type, Callable[[Any], Any]] = {}  # what register_hasher was given


def _dumps(form: Any) -> bytes:
    """The bytes of a form. Version 2 of marshal is the last without references to objects met before: no identity."""
    return marshal.dumps(form, 2)


class _Recursive(Exception):
    """The value holds itself: its form would never end."""


def _hash_maker(hash_name: str) -> Any:
    """The constructor of hashlib with that name."""
    import hashlib

    names = sorted(name for name in hashlib.algorithms_available if not name.startswith("shake"))
    if hash_name not in names:
        raise ValueError(f"hash_name: expected one of {', '.join(names)}; got {hash_name!r}")
    return _HASHES.setdefault(hash_name, getattr(hashlib, hash_name, partial(hashlib.new, hash_name)))


def _cannot_name(obj: Any, reason: object) -> Exception:
    """The error for a value that has no name."""
    from pickle import PicklingError

    return PicklingError(f"cannot name an object of type {type(obj).__module__}.{type(obj).__qualname__}: {reason}. "
                         "Only what can be pickled has content to name; register_hasher(type, function) adds to it")


def _import_name(obj: Any) -> tuple[str, str] | None:
    """(module, qualified name) of a function or class that an import finds under it; None if there is no such name."""
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return (module, name) if found is obj else None


def _code_parts(namer: Any, code: CodeType) -> tuple[Any, ...]:
    """What a code object does: neither its name nor where it stands."""
    return ("code", code.co_code, code.co_consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
            code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount,
            getattr(code, "co_exceptiontable", b""))


def _function_parts(namer: Any, function: Any) -> tuple[Any, ...]:
    """A function that cannot be imported: its code and all that the code refers to."""
    cells: list[tuple[Any, ...]] = []
    for cell in function.__closure__ or ():
        try:
            cells.append((cell.cell_contents,))
        except ValueError:  # not yet filled
            cells.append(())
    names = {chain[0] for chain in _names_used(function.__code__)} & function.__globals__.keys()
    return ("function", function.__code__, function.__defaults__, function.__kwdefaults__, cells,
            {name: function.__globals__[name] for name in names})


_CLASS_NOISE = frozenset({"__dict__", "__weakref__", "__module__", "__doc__", "__qualname__", "__firstlineno__",
                          "__static_attributes__", "__annotations__", "__annotate_func__", "__annotations_cache__",
                          "__dataclass_fields__", "__dataclass_params__", "_abc_impl"})


def _class_parts(namer: Any, cls: type) -> tuple[Any, ...]:
    """A class that cannot be imported: its bases and what its body defined."""
    body = {name: value for name, value in vars(cls).items() if name not in _CLASS_NOISE}
    return ("class", cls.__qualname__, cls.__bases__, body)


def _set_parts(namer: Any, obj: Any) -> tuple[Any, ...]:
    """A set of a class of its own: pickle would list the members in any order."""
    return ("set", type(obj), frozenset(obj), getattr(obj, "__dict__", None))


def _ordered_dict_parts(namer: Any, obj: Any) -> tuple[Any, ...]:
    """A dict whose order counts."""
    return ("ordered dict", type(obj), list(obj.items()), obj.__dict__)


def _object_parts(namer: Any, obj: Any) -> tuple[Any, ...]:
    """Any other object: what pickle would take to make it again."""
    reducer = copyreg.dispatch_table.get(type(obj))
    try:
        reduced = reducer(obj) if reducer else obj.__reduce_ex__(4)
    except RecursionError:
        raise
    except Exception as error:
        raise _cannot_name(obj, error) from error
    if isinstance(reduced, str):
        from pickle import whichmodule  # type: ignore[attr-defined]

        return ("name", whichmodule(obj, reduced), reduced, None)
    maker, args, state, items, pairs = (*reduced, None, None, None)[:5]
    if maker is copyreg.__newobj__ and items is None and pairs is None:  # type: ignore[attr-defined]
        return ("new", *args, state)
    return ("object", maker, args, state, items and list(items), pairs and dict(pairs))


def _raw_pieces(array: Any, nbytes: int) -> Iterator[memoryview]:
    """The bytes of an array in C order (Fortran order if it is laid out so), in pieces, never copied as a whole."""
    if array.flags.c_contiguous or array.flags.f_contiguous:
        flat = memoryview((array if array.flags.c_contiguous else array.T).reshape(-1).view("u1"))
        for start in range(0, len(flat), nbytes):
            yield flat[start:start + nbytes]
        return
    size, flat = array.itemsize, array if array.ndim == 1 else array.flat
    for start in range(0, array.nbytes, nbytes):
        stop, first = min(start + nbytes, array.nbytes), start // size
        chunk = flat[first:-(-stop // size)].copy().view("u1")
        yield memoryview(chunk)[start - first * size:stop - first * size]


def _dtype_parts(namer: Any, dtype: Any) -> tuple[Any, ...]:
    """A numpy dtype: what `==` compares."""
    if dtype.subdtype is not None:
        return ("dtype of arrays", *dtype.subdtype)
    if dtype.names is not None:
        fields = [(name, *dtype.fields[name]) for name in dtype.names]
        return ("dtype of fields", dtype.itemsize, fields)
    return ("dtype", repr(dtype) if dtype.kind == "T" else dtype.str)


def _array_content(namer: Any, array: Any, order: str) -> Any:
    """What an array holds: its objects; its fields one by one (gaps do not count); or a digest of its bytes."""
    if array.dtype.names is not None:
        return [array[name] for name in array.dtype.names]
    if array.dtype.hasobject:
        return array.ravel(order).tolist()
    if array.dtype.char in "gG" and array.itemsize % 16 == 0:  # ten of the sixteen bytes of an x86 long double count
        array = array.ravel(order).view("u1").reshape(-1, 16)[:, :10].copy()
    if array.nbytes <= _HASH_BLOCK:
        return namer.new(array.tobytes(order)).digest()
    blocks = _spread(lambda block: namer.new(block).digest(), _raw_pieces(array, _HASH_BLOCK))
    return namer.new(b"".join(blocks)).digest()


def _array_parts(namer: Any, array: Any) -> tuple[Any, ...]:
    """An array: its class if not the plain one, dtype, shape, layout, content."""
    np, kind = sys.modules["numpy"], type(array)
    plain = kind is np.ndarray or (kind is np.memmap and namer.coerce_mmap)
    extra = None if plain or kind is np.memmap else getattr(array, "__dict__", None)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    content = _array_content(namer, array if plain else array.view(np.ndarray), order)
    return ("array", None if plain else kind, _dtype_parts(namer, array.dtype), array.shape, order, content, extra)


def _masked_parts(namer: Any, array: Any) -> tuple[Any, ...]:
    """A masked array: what it holds, hidden values included, and its mask."""
    np = sys.modules["numpy"]
    return ("masked", type(array), array.view(np.ndarray), np.ma.getmaskarray(array), np.asarray(array.fill_value))


def _column_parts(column: Any) -> Any:
    """The values of a pandas column or index as an array or a list, whatever holds them."""
    np, values = sys.modules["numpy"], column.array
    if isinstance(column.dtype, np.dtype):
        return np.asarray(column)
    if hasattr(values, "codes"):
        return [str(values.dtype), values.ordered, values.categories, np.asarray(values.codes)]
    if hasattr(values, "asi8"):
        return [str(values.dtype), values.asi8]
    return [str(values.dtype), np.asarray(values, dtype=object).tolist()]


def _frame_parts(namer: Any, frame: Any) -> tuple[Any, ...]:
    """A pandas frame by columns: the blocks inside do not count."""
    columns = [_column_parts(frame.iloc[:, number]) for number in range(frame.shape[1])]
    return ("frame", type(frame), frame.columns, frame.index, columns, dict(frame.attrs))


def _series_parts(namer: Any, series: Any) -> tuple[Any, ...]:
    """A pandas series."""
    return ("series", type(series), series.name, series.index, _column_parts(series), dict(series.attrs))


def _index_parts(namer: Any, index: Any) -> tuple[Any, ...]:
    """A pandas index; a range is named like its numbers, which it equals."""
    if hasattr(index, "levels"):
        return ("indexes", list(index.names), [index.get_level_values(level) for level in range(index.nlevels)])
    kind = sys.modules["pandas"].Index if hasattr(index, "start") else type(index)
    return ("index", kind, index.name, getattr(index, "freqstr", None), _column_parts(index))


def _tensor_parts(namer: Any, tensor: Any) -> tuple[Any, ...]:
    """A torch tensor."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(sys.modules["torch"].uint8).numpy()
    return ("tensor", type(tensor), str(tensor.dtype), tuple(tensor.shape), tensor.requires_grad, raw)


# How an object of a class, or of a class that derives from it, is taken apart: a text that says how, then other values.
_PARTS: dict[type, Callable[[Any, Any], tuple[Any, ...]]] = {
    object: _object_parts,
    type: _class_parts,
    types.FunctionType: _function_parts,
    types.CodeType: _code_parts,
    types.MethodType: lambda namer, method: ("method", method.__func__, method.__self__),
    types.BuiltinFunctionType: lambda namer, method: ("builtin method", method.__name__, method.__self__),
    types.ModuleType: lambda namer, module: ("module", module.__name__),
    types.MappingProxyType: lambda namer, proxy: ("mapping proxy", dict(proxy)),
    staticmethod: lambda namer, wrapper: ("static method", wrapper.__func__),
    classmethod: lambda namer, wrapper: ("class method", wrapper.__func__),
    property: lambda namer, wrapper: ("property", wrapper.fget, wrapper.fset, wrapper.fdel),
    OrderedDict: _ordered_dict_parts,
    set: _set_parts,
    frozenset: _set_parts,
}
_PACKAGE_PARTS: list[tuple[str, str, Callable[[Any, Any], tuple[Any, ...]]]] = [
    ("enum", "Enum", lambda namer, member: ("enum", type(member), member.value)),
    ("numpy", "ndarray", _array_parts),
    ("numpy.ma", "MaskedArray", _masked_parts),
    ("numpy", "dtype", _dtype_parts),
    ("numpy", "generic", lambda namer, scalar: ("scalar", sys.modules["numpy"].asarray(scalar))),
    ("pandas", "DataFrame", _frame_parts),
    ("pandas", "Series", _series_parts),
    ("pandas", "Index", _index_parts),
    ("torch", "Tensor", _tensor_parts),
]
_IMPORTABLE = (type, types.FunctionType, types.BuiltinFunctionType)


def _in_order(colours: list[bytes], ordered: bool) -> list[bytes]:
    """The colours of the parts as they are, or sorted where order does not count."""
    return colours if ordered else sorted(colours)


class _Namer:
    """One call of `hash`: the settings, and the digests of the parts met so far.

    data       who writes it      what for
    known      form, keep         id of a part that has a name or a digest of its own -> that, marked
    kept       keep               those parts, kept alive so that no id is used twice
    path       form               ids of the parts being walked: met again, the value holds itself
    ways       parts              class -> how its objects are taken apart
    """

    def __init__(self, new: Any, coerce_mmap: bool, name_of: Callable[[Any], str | None] | None) -> None:
        self.new, self.coerce_mmap, self.name_of = new, coerce_mmap, name_of
        self.known: dict[int, Any] = {}
        self.kept: list[Any] = []
        self.path: set[int] = set()
        self.ways: dict[type, Callable[[Any, Any], tuple[Any, ...]]] = {}

    def name(self, value: Any) -> str:
        """The digest of a value, in hex."""
        try:
            return self.new(_dumps(self.expand(value)[0])).hexdigest()
        except _Recursive:
            return self.recursive_name(value)
        except RecursionError as error:
            raise _cannot_name(value, "it is nested too deeply for this interpreter's recursion limit") from error

    def form(self, obj: Any) -> tuple[Any, int]:
        """The form of a value, and the number of values in it."""
        kind = type(obj)
        if kind in _ATOMS:
            return obj, 1
        if kind in _SEQUENCES and len(obj) < _SMALL - 1 and _ATOMS.issuperset(map(type, obj)):
            return obj, len(obj) + 1
        key = id(obj)
        if key in self.known:
            return self.known[key], 1
        if key in self.path:
            raise _Recursive
        self.path.add(key)
        form, size = self.expand(obj)
        self.path.remove(key)
        return (form, size) if size < _SMALL else self.keep(obj, (_MARK, self.new(_dumps(form)).digest()))

    def keep(self, obj: Any, form: tuple[Any, ...]) -> tuple[Any, int]:
        """Remember the short form of a part."""
        self.kept.append(obj)
        self.known[id(obj)] = form
        return form, 1

    def expand(self, obj: Any) -> tuple[Any, int]:
        """The form of a value from the forms of its parts, and the number of values in it."""
        kind = type(obj)
        if kind in _ATOMS:
            return obj, 1
        if kind in _SEQUENCES:
            return self.sequence(obj)
        if kind is dict:
            return self.mapping(obj)
        if kind is set or kind is frozenset:
            _, forms, size = self.keys(obj)
            return (_MARK, kind.__name__, forms), size
        name = self.named(obj) if isinstance(obj, _IMPORTABLE) else None
        if name:
            return self.keep(obj, name)
        forms, size = self.sequence(self.parts(obj))
        return (_MARK, *forms), size

    def sequence(self, items: Any) -> tuple[Any, int]:
        """The form of a list or tuple. Plain items need no work, nor do small lists of plain items."""
        if _ATOMS.issuperset(map(type, items)):
            return items, len(items) + 1
        if _SEQUENCES.issuperset(map(type, items)) and max(map(len, items)) < _SMALL - 1:
            from itertools import chain

            if _ATOMS.issuperset(map(type, chain.from_iterable(items))):
                return items, 1 + len(items) + sum(map(len, items))
        forms, size = [], 1
        for item in items:
            form, count = (item, 1) if type(item) in _ATOMS else self.form(item)
            forms.append(form)
            size += count
        return type(items)(forms), size

    def mapping(self, obj: dict[Any, Any]) -> tuple[Any, int]:
        """The form of a dict: its keys in an order that depends on them alone, then the values."""
        keys, key_forms, size = self.keys(obj)
        values, count = self.sequence(list(map(obj.__getitem__, keys)))
        return (_MARK, "dict", key_forms, values), size + count

    def keys(self, obj: Any) -> tuple[list[Any], list[Any], int]:
        """The members of a set or keys of a dict in an order that depends on them alone; their forms; the size."""
        kinds = set(map(type, obj))
        if len(kinds) < 2 and kinds <= _SORTABLE:
            keys = sorted(obj)
            return keys, keys, len(keys) + 1
        members = []
        size = 1
        for key in obj:
            form, count = self.form(key)
            members.append((_dumps(form), key, form))
            size += count
        members.sort(key=lambda member: member[0])
        return [member[1] for member in members], [member[2] for member in members], size

    def parts(self, obj: Any) -> tuple[Any, ...]:
        """What stands for an object that is neither plain nor a container: a text that says how, then other values."""
        kind = type(obj)
        how = self.ways.get(kind)
        if how is None:
            how = self.ways[kind] = self.way(kind)
        return how(self, obj)

    def way(self, kind: type) -> Callable[[Any, Any], tuple[Any, ...]]:
        """How objects of a class are taken apart: as registered for it or the nearest class above it."""
        table = dict(_PARTS)
        for module, name, parts in _PACKAGE_PARTS:
            cls = getattr(_loaded(module), name, None)
            if cls is not None:
                table[cls] = parts
        for cls in kind.__mro__:
            if cls in _HASHERS:
                return lambda namer, obj: ("hasher", type(obj), _HASHERS[cls](obj))
        return next(table[cls] for cls in kind.__mro__ if cls in table)

    def named(self, obj: Any) -> tuple[Any, ...] | None:
        """The form of a function or class that has a name; None for others."""
        name = _import_name(obj)
        return name and (_MARK, "name", *name, self.name_of and self.name_of(obj))

    def recursive_name(self, root: Any) -> str:
        """The digest of a value that holds itself.

        Every part starts with a colour made of what it is without its parts. In each round it gets a new one made of
        its own and those of its parts, until a round tells no more parts apart: two parts with one colour then cannot
        be told apart by any path through them. (Partition refinement; Hopcroft 1971, in its simple quadratic form.)
        """
        todo, number = [root], {id(root): 0}
        shapes = []
        for obj in todo:  # grows while it is walked; it also keeps every part alive, so that ids stay unique
            own, ordered, parts = self.shape(obj)
            for part in parts:
                if number.setdefault(id(part), len(todo)) == len(todo):
                    todo.append(part)
            shapes.append((self.new(own).digest(), ordered, [number[id(part)] for part in parts]))
        colours, count = [own for own, _, _ in shapes], 0
        while count < (count := len(set(colours))):
            below = [_in_order([colours[part] for part in parts], ordered) for _, ordered, parts in shapes]
            colours = [self.new(colour + b"".join(part)).digest() for colour, part in zip(colours, below)]
        return self.new(b"recursive" + colours[0] + b"".join(sorted(set(colours)))).hexdigest()

    def shape(self, obj: Any) -> tuple[bytes, bool, list[Any]]:
        """One part of a recursive value: what it is by itself, whether the order of its parts counts, its parts."""
        kind = type(obj)
        if kind in _ATOMS:
            return _dumps(obj), True, []
        if kind in _SEQUENCES:
            return kind.__name__.encode(), True, list(obj)
        name = self.named(obj) if isinstance(obj, _IMPORTABLE) else None
        if name:
            return _dumps(name), True, []
        if kind is dict or kind is set or kind is frozenset:
            return kind.__name__.encode(), False, list(obj.items() if kind is dict else obj)
        return b"object", True, list(self.parts(obj))


def _digest(obj: Any, hash_name: str = "sha256", coerce_mmap: bool = False,
            name_of: Callable[[Any], str | None] | None = None) -> str:
    """`hash`, which also mixes in the text that `name_of` gives for a function or class known by its name."""
    new = _HASHES.get(hash_name) or _hash_maker(hash_name)
    if type(obj) in _SEQUENCES and _ATOMS.issuperset(map(type, obj)):
        return new(_dumps(obj)).hexdigest()
    return _Namer(new, coerce_mmap, name_of).name(obj)


def hash(obj: Any, hash_name: str = "sha256", coerce_mmap: bool = False) -> str:
    """The name of a value by its content: equal values have equal names, on any machine, in any process.

    >>> hash({"a": 1, "b": [2, 3]}) == hash({"b": [2, 3], "a": 1})
    True
    >>> hash(1) == hash(1.0), hash([1]) == hash((1,))
    (False, False)
    >>> hash((1, "a", 2.5))[:12]
    'd3cc95e831b0'

    The order of dicts and sets, shared or repeated references, interning and PYTHONHASHSEED do not count; types do, and
    so does the layout of an array (C or Fortran; another view is named like its C copy). Functions and classes that can
    be imported are named by their module and name, others by their code and what it refers to. Any other object is
    named by what pickle would take to make it again.

    Parameters
    ----------
    obj : any value
        Values that hold themselves are allowed. pandas objects are named by columns, whatever blocks hold them.
    hash_name : str, default "sha256"
        An algorithm of `hashlib` with a fixed length.
    coerce_mmap : bool, default False
        Give a `numpy.memmap` the name of the array it maps.

    Raises
    ------
    pickle.PicklingError
        Something in `obj` can neither be pickled nor named.
    ValueError
        `hash_name` is unknown.

    The digest of a tree of digests is Merkle's (1979); arrays over 1 MiB are digested in blocks by several threads.
    """
    return _digest(obj, hash_name, coerce_mmap)


def register_hasher(cls: type, function: Callable[[Any], Any]) -> None:
    """Name objects of `cls` and its subclasses by `function(obj)`: for types whose pickle is not stable.

    >>> class Celsius:
    ...     def __init__(self, degrees): self.degrees, self.cache = degrees, object()
    >>> register_hasher(Celsius, lambda value: value.degrees)
    >>> hash(Celsius(20)) == hash(Celsius(20))
    True

    Parameters
    ----------
    cls : type
    function : callable
        Takes the object and returns any value that `hash` can name.

    Raises
    ------
    TypeError
        `cls` is not a class or `function` is not callable.
    """
    if not isinstance(cls, type) or not callable(function):
        raise TypeError(f"register_hasher: expected a class and a function, got {cls!r} and {function!r}")
    _HASHERS[cls] = function


# ======================================================================================================================
# 3. Values in files
# ======================================================================================================================
# Promise: `dump` writes any value that pickle can take, its arrays as raw bytes, so that `load` reads them straight
# into place or maps them; a damaged file is an error, never a wrong value.
#
# Picture: one value in a file (numbers little-endian, sizes and offsets in bytes)
#
#     | head | sizes of the buffers | pickle | zeros | buffer 0 | zeros | buffer 1 | ... | checks |
#                                              ^ each buffer starts at a multiple of 64, so it can be mapped in place
#
#     head    0   8  magic: 89 'P' 'Y' 'O' 0D 0A 1A 0A (a transfer that changes line ends breaks it)
#             8   1  version of the format: 1; a reader refuses a higher one
#             9   1  flags: 1 = buffers may have been changed through a map, so their checks no longer hold;
#                    any other bit is for later: a reader refuses one that it does not know
#            10   1  where the value starts, modulo 64, in the file it was written to
#            11   1  zero
#            12   4  number of buffers, n
#            16   8  size of the pickle
#            24   4  CRC-32 of the pickle
#            28   4  CRC-32 of the 28 bytes before and the n sizes after
#     sizes   8 each
#     pickle  protocol 5 (or as asked); buffers out of band, in order; names nothing of this library
#     checks  4 each: CRC-32 of every 4 MiB of each buffer, the last piece of a buffer being shorter
#
# Compressed, the same bytes are the content of an ordinary .z, .gz, .bz2, .xz, .lzma, .lz4 or .zst file.
#
#     write: value -> _take_apart -> _stream of chunks -> (blocks, compressed on threads) -> file
#     read:  file -> first bytes tell -> (decompressed) -> ours: _read_value; else a pickle, joblib's or plain
#
# Laws
#   1. A path holds the old value or the whole new one, whatever happens meanwhile.  test_failed_dump_keeps_the_old_file
#   2. Nothing is unpickled and no array given out before its check is passed; only mapped buffers are not checked.
#      Any fault of the file is a ValueError with its path.                          test_every_cut_is_found
#   3. Memory beyond the value and its pickle without buffers is a few pieces.       test_a_big_array_is_never_doubled
#   4. With `trusted` other than True no name outside the list is imported, called or changed.  test_attacks_are_refused

_MAGIC = b"\x89PYO\r\n\x1a\n"
_HEAD_FORMAT = "<8sBBBxIQI"  # then its CRC
_HEAD_NBYTES = 32
_CHANGED = 1  # flag
_ALIGNMENT = 64  # of buffers in a file: a cache line, and enough for any vector instruction
_PIECE = 4 << 20  # bytes checked, and handed to the system, at once: fits a cache, hides the cost of a call
_PARALLEL = 16 << 20  # bytes from which a thread beside is worth starting
_BUFFER = 1 << 17  # bytes gathered before a small write or read ahead: arrays pass it by
_WINDOW = 1 << 15  # how far back deflate looks


class UntrustedObjectError(ValueError):
    """A file holds an object that `load(trusted=...)` does not allow."""


# ---- Compressing -----------------------------------------------------------------------------------------------------


class _Damaged(ValueError):
    """What is wrong with a file; the path is added where it is known."""


def _crc32(data: Any, crc: int = 0) -> int:
    """The CRC-32 of bytes, carried on from that of the bytes before."""
    return _module("zlib").crc32(data, crc)


def _write_all(file: Any, chunk: Any) -> None:
    """Write a chunk to a file that may take less than it is given."""
    done = file.write(chunk)
    while isinstance(done, int) and done < len(chunk):
        chunk = memoryview(chunk)[done:]
        done = file.write(chunk)


def _blocks(chunks: Iterator[Any], nbytes: int) -> Iterator[Any]:
    """The bytes of `chunks` in blocks of `nbytes`, the last one shorter."""
    rest: list[Any] = []
    have = 0
    for chunk in chunks:
        chunk = memoryview(chunk)
        while have + len(chunk) >= nbytes:
            cut = nbytes - have
            yield b"".join([*rest, chunk[:cut]]) if rest else chunk[:cut]
            chunk, rest, have = chunk[cut:], [], 0
        if len(chunk):
            rest.append(bytes(chunk))
            have += len(chunk)
    if rest:
        yield b"".join(rest)


class _Codec:
    """One compressed file format.

    pieces(blocks, level) gives the bytes of the file; open(file) gives a file to read the content from.
    """

    def __init__(self, prefix: bytes, extensions: str, block: int, pieces: Callable[..., Iterator[bytes]],
                 open: Callable[[Any], Any]) -> None:
        self.prefix, self.extensions, self.block = prefix, tuple(extensions.split()), block
        self.pieces, self.open = pieces, open

    def write(self, chunks: Iterator[Any], file: Any, level: int) -> None:
        """Write chunks, compressed."""
        for piece in self.pieces(_blocks(chunks, self.block), level):
            _write_all(file, piece)


class _RegisteredCodec(_Codec):
    """A format given to `register_compressor`: an object that wraps files."""

    def __init__(self, wrapper: Any) -> None:
        super().__init__(wrapper.prefix, wrapper.extension, _PIECE, lambda blocks, level: blocks,
                         lambda file: wrapper.decompressor_file(file))
        self.wrapper = wrapper

    def write(self, chunks: Iterator[Any], file: Any, level: int) -> None:
        with self.wrapper.compressor_file(file, compresslevel=level) as out:
            for chunk in chunks:
                _write_all(out, chunk)


def _deflated(blocks: Iterator[Any], level: int, check: Callable[[Any, int], int], start: int,
              tail: Callable[[int, int], bytes]) -> Iterator[bytes]:
    """Blocks as one deflate stream, compressed on threads; then `tail(check value, number of bytes)`.

    Each block knows the 32 KiB before it, as in pigz (Adler), so that nothing is lost by cutting.
    """
    import zlib

    sums = [start, 0]

    def with_window() -> Iterator[tuple[Any, bytes]]:
        window = b""
        for block in blocks:
            sums[:] = check(block, sums[0]), sums[1] + len(block)
            yield block, window
            window = bytes(block[-_WINDOW:])

    def compress(pair: tuple[Any, bytes]) -> bytes:
        block, window = pair
        packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, 0, *([window] if window else []))
        return packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)

    yield from _spread(compress, with_window())
    yield b"\x03\x00"  # an empty last block
    yield tail(*sums)


def _zlib_pieces(blocks: Iterator[Any], level: int) -> Iterator[bytes]:
    """RFC 1950: two bytes, deflate, Adler-32."""
    import zlib

    yield b"\x78\x9c"
    yield from _deflated(blocks, level, zlib.adler32, 1, lambda check, size: check.to_bytes(4, "big"))


def _gzip_pieces(blocks: Iterator[Any], level: int) -> Iterator[bytes]:
    """RFC 1952: head without name and time, deflate, CRC-32 and size."""
    import zlib

    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    yield from _deflated(blocks, level, zlib.crc32, 0,
                         lambda check, size: (size % 2**32 << 32 | check).to_bytes(8, "little"))


def _bz2_pieces(blocks: Iterator[Any], level: int) -> Iterator[bytes]:
    """Streams of one block each, one after the other."""
    import bz2

    return _spread(lambda block: bz2.compress(block, level), blocks)


def _xz_pieces(blocks: Iterator[Any], level: int) -> Iterator[bytes]:
    """Streams one after the other."""
    import lzma

    return _spread(lambda block: lzma.compress(block, preset=level), blocks)


def _lzma_pieces(blocks: Iterator[Any], level: int) -> Iterator[bytes]:
    """The older format: one stream, so one thread."""
    import lzma

    packer = lzma.LZMACompressor(lzma.FORMAT_ALONE, preset=level)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()


def _optional(name: str, package: str) -> Any:
    """An optional module, or an ImportError that says what to install."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this compression needs a package that is not installed: pip install {package}") from error


def _lz4_pieces(blocks: Iterator[Any], level: int) -> Iterator[bytes]:
    """Frames one after the other."""
    frame = _optional("lz4.frame", "lz4")
    return _spread(lambda block: frame.compress(block, compression_level=level), blocks)


def _zstd_pieces(blocks: Iterator[Any], level: int) -> Iterator[bytes]:
    """Frames one after the other."""
    if sys.version_info >= (3, 14):
        zstd = _optional("compression.zstd", "a Python with zstd")
        return _spread(lambda block: zstd.compress(block, level), blocks)
    zstandard = _optional("zstandard", "zstandard")
    return _spread(lambda block: zstandard.ZstdCompressor(level=level).compress(block), blocks)


class _Inflated(io.RawIOBase):
    """The content of a compressed file of one stream or several, from the standard library's decompressors."""

    def __init__(self, file: Any, make: Callable[[], Any], what: str) -> None:
        self.file, self.make, self.what, self.unpacker = file, make, what, make()

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        try:
            data = self.inflate(len(target))
        except _Damaged:
            raise
        except Exception as error:  # each format has an error of its own: zlib.error, OSError, LZMAError, EOFError
            raise _Damaged(f"its {self.what} data is damaged ({error})") from error
        target[:len(data)] = data
        return len(data)

    def inflate(self, nbytes: int) -> bytes:
        """At least one and at most `nbytes` bytes of the content; none at its end."""
        while True:
            unpacker = self.unpacker
            data = getattr(unpacker, "unconsumed_tail", b"")
            if unpacker.eof:
                data = unpacker.unused_data or self.file.read(_PIECE >> 6)
                if not data.strip(b"\0"):
                    return b""
                unpacker = self.unpacker = self.make()
            elif not data and getattr(unpacker, "needs_input", True):
                data = self.file.read(_PIECE >> 6)
            content = unpacker.decompress(data, nbytes)
            if content:
                return content
            if not data and not unpacker.eof:
                raise _Damaged(f"it is cut short: its {self.what} data does not end")


def _inflater(module: str, maker: str, *args: Any) -> Callable[[Any], Any]:
    """The `open` of a codec that the standard library has."""
    def open_inflated(file: Any) -> Any:
        make = partial(getattr(_optional(module, f"a Python with {module}"), maker), *args)
        return io.BufferedReader(_Inflated(file, make, module), _PIECE >> 4)

    return open_inflated


def _open_zstd(file: Any) -> Any:
    """The content of a zstd file."""
    if sys.version_info >= (3, 14):
        return _inflater("compression.zstd", "ZstdDecompressor")(file)
    reader = _optional("zstandard", "zstandard").ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return io.BufferedReader(reader)


class _Ahead:
    """A file that cannot go back, with the bytes that were read from it too early put in front again."""

    def __init__(self, file: Any, ahead: bytes) -> None:
        self.file, self.ahead = file, ahead

    def read(self, nbytes: int) -> bytes:
        data, self.ahead = self.ahead[:nbytes], self.ahead[nbytes:]
        return data + (self.file.read(nbytes - len(data)) or b"") if len(data) < nbytes else data

    def readline(self) -> bytes:
        line = b""
        while not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return line


def _open_zfile(file: Any) -> Any:
    """The content of a file of joblib before 0.10: "ZF", the size in 19 hex characters, sometimes a blank, zlib."""
    first = file.read(21)[21:] + file.read(1)
    return _inflater("zlib", "decompressobj")(file if first == b" " else _Ahead(file, first))


_CODECS: dict[str, _Codec] = {
    "zlib": _Codec(b"\x78", ".z", 1 << 20, _zlib_pieces, _inflater("zlib", "decompressobj", 15)),
    "gzip": _Codec(b"\x1f\x8b", ".gz", 1 << 20, _gzip_pieces, _inflater("zlib", "decompressobj", 31)),
    "bz2": _Codec(b"BZ", ".bz2", 900_000, _bz2_pieces, _inflater("bz2", "BZ2Decompressor")),
    "lzma": _Codec(b"\x5d\0", ".lzma", _PIECE, _lzma_pieces, _inflater("lzma", "LZMADecompressor")),
    "xz": _Codec(b"\xfd7zXZ", ".xz", 2 * _PIECE, _xz_pieces, _inflater("lzma", "LZMADecompressor")),
    "lz4": _Codec(b"\x04\x22\x4d\x18", ".lz4", _PIECE, _lz4_pieces, _inflater("lz4.frame", "LZ4FrameDecompressor")),
    "zstd": _Codec(b"\x28\xb5\x2f\xfd", ".zst", _PIECE, _zstd_pieces, _open_zstd),
}


def register_compressor(compressor_name: str, compressor: Any, force: bool = False) -> None:
    """Add a file format to those that `dump(compress=...)` and `load` know.

    Parameters
    ----------
    compressor_name : str
        The name for `compress=`.
    compressor : object
        Has `prefix` (the first bytes of each such file), `extension` (".xyz" or ""), `compressor_file(file,
        compresslevel=None)` and `decompressor_file(file)`, which wrap a binary file in one to write to or read from.
    force : bool, default False
        Replace a format of the same name.

    Raises
    ------
    ValueError
        The name is not a text or taken, or the object has not all of these.
    """
    if not isinstance(compressor_name, str):
        raise ValueError(f"compressor_name: expected a text, got {compressor_name!r}")
    needed = ("prefix", "extension", "compressor_file", "decompressor_file")
    missing = [name for name in needed if not hasattr(compressor, name)]
    if missing:
        raise ValueError(f"compressor: expected an object with {', '.join(needed)}; "
                         f"{compressor!r} has no {', '.join(missing)}")
    if compressor_name in _CODECS and not force:
        raise ValueError(f"compressor_name: {compressor_name!r} is taken; force=True replaces it")
    _CODECS[compressor_name] = _RegisteredCodec(compressor)


def _parse_compress(compress: Any, filename: str = "") -> tuple[str, int] | None:
    """(method, level) from what the user said and the extension of the file; None for no compression.

    >>> _parse_compress(True), _parse_compress(0, "a.bz2"), _parse_compress(("xz", 6)), _parse_compress(False)
    (('zlib', 3), ('bz2', 3), ('xz', 6), None)
    """
    if not compress and not filename and not isinstance(compress, (str, tuple, list)):
        return None
    by_name = next((name for name, codec in _CODECS.items() for extension in codec.extensions
                    if filename.endswith(extension)), None)
    if isinstance(compress, str):
        method, level = compress, 3
    elif isinstance(compress, (tuple, list)):
        if len(compress) != 2:
            raise ValueError(f"compress: expected a pair (method, level), got {compress!r}")
        method, level = compress
    else:
        method = by_name or "zlib"
        level = 3 if compress is True or (not compress and by_name) else 0 if compress is None else compress
    if not isinstance(level, int) or level not in range(10):
        raise ValueError("compress: expected True, False, a level from 0 to 9, a method, or (method, level); "
                         f"got {compress!r}")
    if method not in _CODECS:
        raise ValueError(f"compress: expected a method among {', '.join(_CODECS)}; got {method!r}")
    return (method, level) if level else None


# ---- Writing ---------------------------------------------------------------------------------------------------------


class _Checks:
    """The CRC-32 of many pieces; of big ones, computed by threads beside the reading or writing of them."""

    def __init__(self, nbytes: int) -> None:
        self.crcs: dict[int, int] = {}
        self.count = 0
        self.workers: list[threading.Thread] = []
        if nbytes >= _PARALLEL:
            self.jobs = _module("queue").SimpleQueue()
            self.workers = _start_threads(self.work, min(3, cpu_count() - 1))

    def work(self) -> None:
        """What a thread does: one piece after the other until told to stop."""
        for number, piece in iter(self.jobs.get, None):
            self.crcs[number] = _crc32(piece)

    def add(self, piece: Any) -> None:
        """Take one more piece; with many waiting, work on one here, so that few are held."""
        if not self.workers:
            self.crcs[self.count] = _crc32(piece)
        else:
            self.jobs.put((self.count, piece))
            if self.jobs.qsize() > 16:
                self.help()
        self.count += 1

    def help(self) -> bool:
        """Compute one waiting piece here; False if there is none."""
        try:
            number, piece = self.jobs.get_nowait()
        except _module("queue").Empty:
            return False
        self.crcs[number] = _crc32(piece)
        return True

    def results(self) -> list[int]:
        """All checksums, in order of the pieces."""
        while self.workers and self.help():
            pass
        self.stop()
        return [self.crcs[number] for number in range(self.count)]

    def stop(self) -> None:
        """End the threads."""
        for _ in self.workers:
            self.jobs.put(None)
        for worker in self.workers:
            worker.join()
        self.workers = []


class _Sink(list):  # type: ignore[type-arg]
    """A file for picklers that keeps what is written, large bytes without a copy."""

    write = list.append


@lru_cache
def _frombuffer_of(np: ModuleType) -> Any:
    """The function by which numpy makes an array from a buffer, its dtype, shape and order."""
    return np.empty(1).__reduce_ex__(5)[0]


def _pickler(kind: Any, table: dict[type, Any], sink: _Sink, protocol: int, take: Callable[[Any], Any]) -> Any:
    """A pickler, of a given class if `kind` is one, that asks `table` first."""
    take_or_none = take if protocol >= 5 else None
    if kind is None:
        pickler = _module("pickle").Pickler(sink, protocol, buffer_callback=take_or_none)
        pickler.dispatch_table = {**copyreg.dispatch_table, **table}
        return pickler
    own = getattr(kind, "dispatch_table", None)
    own = own if hasattr(own, "items") else copyreg.dispatch_table
    return type(kind.__name__, (kind,), {"dispatch_table": {**own, **table}})(sink, protocol, buffer_callback=take_or_none)


def _take_apart(value: Any, protocol: int | None = None, kind: Any = None) -> tuple[list[Any], list[Any]]:
    """The pickle of a value, in pieces, and the buffers left out of it: arrays, and memory offered by other objects."""
    pickle = _module("pickle")
    protocol = 5 if protocol is None else pickle.HIGHEST_PROTOCOL if protocol < 0 else protocol
    if type(value) in _ATOMS:
        return [pickle.dumps(value, protocol)], []
    np: Any = _loaded("numpy")
    sink, buffers = _Sink(), []
    waiting: list[Any] = []  # at most the one array that the pickler is working on
    mark = pickle.PickleBuffer(bytearray())  # stands for it, so that arrays of any layout can be left out

    def take(buffer: Any) -> None:
        buffers.append(waiting.pop() if buffer is mark else buffer.raw())

    def reduce_array(array: Any) -> Any:
        array = array.view(np.ndarray)
        if not array.nbytes or array.dtype.hasobject:
            return array.__reduce_ex__(protocol)
        waiting.append(array)
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        return _frombuffer_of(np), (mark, array.dtype, array.shape, order)

    table = {np.ndarray: reduce_array, np.memmap: reduce_array} if np and protocol >= 5 else {}
    _pickler(kind, table, sink, protocol, take).dump(value)
    return sink, buffers


def _buffer_pieces(buffer: Any) -> Iterator[Any]:
    """The bytes of an array or a memoryview, in pieces."""
    if not isinstance(buffer, memoryview):
        return _raw_pieces(buffer, _PIECE)
    return (buffer[start:start + _PIECE] for start in range(0, buffer.nbytes, _PIECE))


def _stream(pickled: list[Any], buffers: list[Any], start: int) -> Iterator[Any]:
    """The bytes of a value in a file, in chunks; `start` is where it begins."""
    struct = _module("struct")
    crc, nbytes = reduce(lambda crc, chunk: _crc32(chunk, crc), pickled, 0), sum(map(len, pickled))
    head = struct.pack(_HEAD_FORMAT, _MAGIC, 1, 0, start % _ALIGNMENT, len(buffers), nbytes, crc)
    sizes = struct.pack(f"<{len(buffers)}Q", *[buffer.nbytes for buffer in buffers]) if buffers else b""
    head += _crc32(sizes, _crc32(head)).to_bytes(4, "little") + sizes
    yield from [b"".join([head, *pickled])] if nbytes <= _BUFFER else [head, *pickled]
    if not buffers:
        return
    place = start + len(head) + nbytes
    checks = _Checks(sum(buffer.nbytes for buffer in buffers))
    try:
        for buffer in buffers:
            yield bytes(-place % _ALIGNMENT)
            for piece in _buffer_pieces(buffer):
                checks.add(piece)
                yield piece
            place += -place % _ALIGNMENT + buffer.nbytes
        yield struct.pack(f"<{checks.count}I", *checks.results())
    finally:
        checks.stop()


def _position(file: Any) -> int:
    """Where a file stands; 0 if it cannot tell."""
    try:
        return file.tell()
    except (OSError, AttributeError):  # a pipe, a socket, an object with nothing but write
        return 0


def _write_value(value: Any, file: Any, compress: Any = 0, protocol: int | None = None, pickler: Any = None) -> None:
    """Write a value at the current position of an open binary file; `pickler` is a class of picklers to use."""
    compress = _parse_compress(compress)
    pickled, buffers = _take_apart(value, protocol, pickler)
    if compress:
        codec = _CODECS[compress[0]]
        codec.write(_stream(pickled, buffers, 0), file, compress[1])
        return
    for chunk in _stream(pickled, buffers, _position(file)):
        _write_all(file, chunk)


def _in_place(path: str) -> bool:
    """Whether a path must be written in place: a device or pipe, or a file in a folder where no other can be made."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if mode & 0o170000 != 0o100000:  # not a regular file
        return True
    return os.access(path, os.W_OK) and not os.access(os.path.dirname(path) or ".", os.W_OK | os.X_OK)


class _atomic_file:
    """A file to write to that takes the place of `path` when the block ends well, and is gone when it does not.

    The file is made beside, under a name nobody can guess, with the mode of the one it replaces; a new one has `mode`,
    or what the umask allows. Links are followed. What cannot be replaced (`_in_place`) is written directly.
    """

    def __init__(self, path: str, mode: int | None = None) -> None:
        self.path = os.path.realpath(path) if os.path.islink(path) else path
        self.mode = mode
        self.temporary = ""  # while there is one to put into place or remove

    def __enter__(self) -> Any:
        if _in_place(self.path):
            self.file = open(self.path, "wb", _BUFFER)
            return self.file
        self.temporary = os.path.join(os.path.dirname(self.path), f".{os.urandom(8).hex()}.part")
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        self.file = open(os.open(self.temporary, flags, 0o666 if self.mode is None else self.mode), "wb", _BUFFER)
        return self.file

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.file.close()
            if self.temporary and kind is None:
                self.keep_mode()
                os.replace(self.temporary, self.path)
                self.temporary = ""
        finally:
            if self.temporary:
                os.unlink(self.temporary)

    def keep_mode(self) -> None:
        """Give the new file the mode of the one that it replaces."""
        try:
            os.chmod(self.temporary, os.stat(self.path).st_mode & 0o7777)
        except FileNotFoundError:
            pass  # there is none


def _is_path(filename: Any) -> bool:
    """Whether it is a path, not a file object."""
    return isinstance(filename, (str, bytes, os.PathLike))


def dump(value: Any, filename: Any, compress: Any = 0, protocol: int | None = None) -> list[str] | None:
    """Write any value that pickle can take to a file, its arrays as raw bytes: [path], or None for a file object.

    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path] = dump({"a": [1, 2]}, os.path.join(folder, "value.joblite"), compress=True)
    ...     load(path)
    {'a': [1, 2]}

    A path is replaced only when the whole value is written: who reads it sees the old value or the new one, and a
    failed or interrupted dump leaves the old file as it was. Mode and symbolic links are kept. (The system may still
    hold the bytes in memory when this returns: call `os.sync` if they must outlast a loss of power.)

    Parameters
    ----------
    value : any value
        Contiguous arrays are written straight from memory, others piece by piece.
    filename : path or binary file object
        Anything with `write`. Any name will do; an extension .z .gz .bz2 .xz .lzma .lz4 .zst asks for that compression.
    compress : bool, int, str or (str, int), default 0
        True means zlib at level 3; a number from 1 to 9 the level; a text the method, one of zlib, gzip, bz2, lzma, xz,
        lz4, zstd (the last two need a package, zstd not from Python 3.14) or a registered one. Big values are
        compressed on all cores, `lzma` excepted.
    protocol : int, optional
        The pickle protocol, 5 unless given. Below 5, arrays are inside the pickle and cannot be mapped.

    Raises
    ------
    ValueError
        `compress` or `filename` is not what they should be.
    pickle.PicklingError, TypeError, AttributeError
        From pickle: something in `value` cannot be pickled.
    OSError
        The file cannot be written; `ImportError` if the compression needs a package.

    Out-of-band buffers are those of PEP 574.
    """
    if not _is_path(filename):
        if not hasattr(filename, "write") or isinstance(filename, io.TextIOBase):
            raise ValueError("filename: expected a path or a binary file object open for writing (mode 'wb'), "
                             f"got {filename!r}")
        _write_value(value, filename, compress, protocol)
        return None
    path = os.fsdecode(filename)
    method = _parse_compress(compress, path)
    with _atomic_file(path) as file:
        _write_value(value, file, method or 0, protocol)
    return [path]


# ---- Reading ---------------------------------------------------------------------------------------------------------


def _read_exactly(file: Any, nbytes: int, what: str) -> bytes:
    """The next bytes of a file that may give fewer than asked for."""
    data = file.read(nbytes)
    while data is not None and len(data) < nbytes:
        more = file.read(nbytes - len(data))
        if not more:
            raise _Damaged(f"it is cut short: {len(data)} of {nbytes} bytes of its {what} are there")
        data += more
    return data


def _read_into(file: Any, target: memoryview) -> None:
    """Fill memory from a file, without a copy where the file can."""
    readinto = getattr(file, "readinto", None)
    while len(target):
        if readinto:
            count = readinto(target)
        else:
            data = file.read(min(len(target), _PIECE))
            count = len(data)
            target[:count] = data
        if not count:
            raise _Damaged(f"it is cut short: the last {len(target)} bytes or more of an array are missing")
        target = target[count:]


def _new_buffers(sizes: tuple[int, ...], pickled: bytes) -> Iterator[Any]:
    """Fresh memory for each size: from numpy where there will be arrays, since it asks for large pages."""
    if b"numpy" in pickled:
        import numpy as np

        return (np.empty(size, "u1") for size in sizes)
    return map(bytearray, sizes)


def _read_buffers(file: Any, sizes: tuple[int, ...], place: int, pickled: bytes, checked: bool) -> list[Any]:
    """The buffers of a value, read from `place` on, and checked."""
    checks = _Checks(sum(sizes))
    buffers = []
    try:
        for buffer in _new_buffers(sizes, pickled):
            _read_exactly(file, -place % _ALIGNMENT, "padding")
            for piece in _buffer_pieces(memoryview(buffer)):
                _read_into(file, piece)
                checks.add(piece)
            place += -place % _ALIGNMENT + memoryview(buffer).nbytes
            buffers.append(buffer)
        crcs = _module("struct").unpack(f"<{checks.count}I", _read_exactly(file, 4 * checks.count, "checksums"))
        if checked and list(crcs) != checks.results():
            raise _Damaged("the bytes of an array are damaged: their checksum is wrong")
    finally:
        checks.stop()
    return buffers


def _memmap(whole: Any, shape: Any, dtype: Any, offset: int, order: str, like: Any) -> Any:
    """A part of a mapped file as the numpy.memmap that numpy itself would make; `like` is (mode, path)."""
    import numpy as np

    array: Any = np.ndarray.__new__(np.memmap, shape, dtype, whole, offset, order=order)  # type: ignore
    array._mmap, array.offset, (array.mode, array.filename) = whole, offset, like
    return array


class _Loading:
    """One `load`: what was asked for, and how names in the file become objects.

    data      who writes it             what for
    fresh     new_dtype, settled        id -> dtype that the pickle may still complete, once: one in use must not change
    """

    def __init__(self, path: str, mode: str | None, native: bool, trusted: Any) -> None:
        self.path, self.mode, self.native = path, mode, native
        self.allowed = None if trusted is True else _allowed_names(trusted)
        self.fresh: dict[int, Any] = {}

    def find(self, module: str, name: str, find_class: Callable[[str, str], Any], careful: bool) -> Any:
        """The object that a pickle names."""
        if module.startswith("numpy") and name == "_frombuffer":
            return self.frombuffer
        if name in _JOBLIB_CLASSES and ".numpy_pickle" in module:
            if not careful:
                raise _IsJoblib
            return _JOBLIB_CLASSES[name]
        if self.allowed is None or f"{module}.{name}" in self.allowed:
            return find_class(module, name)
        stand_in = {"dtype": self.new_dtype, "ndarray": _PlainArray, "memmap": _PlainArray,
                    "_reconstruct": self.new_array, "scalar": self.new_scalar}.get(name)
        if stand_in and module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            return stand_in
        raise UntrustedObjectError(f"{self.path}: it holds {module}.{name}, which is not plain data; if you trust what "
                                   f"it does when it is loaded, add it: trusted=[\"{module}.{name}\"]")

    def frombuffer(self, buffer: Any, dtype: Any, shape: Any, order: str, *_: Any) -> Any:
        """The array in a buffer."""
        import numpy as np

        if isinstance(buffer, np.memmap):
            like = buffer.mode, buffer.filename
            return _memmap(buffer._mmap, shape, self.settled(dtype), buffer.offset, order, like)  # type: ignore[attr-defined]
        return self.in_order(np.frombuffer(buffer, self.settled(dtype)).reshape(shape, order=order))  # type: ignore[call-overload]

    def in_order(self, array: Any) -> Any:
        """An array in this machine's byte order, if that is wanted."""
        if not self.native or array.dtype.isnative:
            return array
        return array.byteswap(inplace=array.flags.writeable).view(array.dtype.newbyteorder("="))

    def settled(self, dtype: Any) -> Any:
        """A dtype that is in use from now on."""
        self.fresh.pop(id(dtype), None)
        return dtype

    def new_dtype(self, text: Any, *_: Any) -> Any:
        """numpy.dtype for untrusted pickles: from a text, and always a new one."""
        import numpy as np

        if not isinstance(text, str):
            raise UntrustedObjectError(f"{self.path}: it makes a dtype from a {type(text).__name__}: no dump does")
        dtype = np.dtype(text, False, True)  # type: ignore[call-overload]
        return self.fresh.setdefault(id(dtype), dtype)

    def complete_dtype(self, dtype: Any, state: Any) -> None:
        """Set the state of a dtype, worked out by numpy: a false one would make numpy take numbers for addresses."""
        import numpy as np

        if self.fresh.pop(id(dtype), None) is None:
            raise UntrustedObjectError(f"{self.path}: it changes a dtype that is in use, which no dump does")
        _, order, sub, names, fields, itemsize = state[:6]
        spec: Any = dtype.str
        if names is not None:
            formats, offsets = [self.settled(fields[name][0]) for name in names], [fields[name][1] for name in names]
            spec = {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": itemsize}
        elif sub is not None:
            spec = (self.settled(sub[0]), sub[1])
        elif dtype.kind in "mM":
            unit, count = state[8][1][:2]
            spec = f"{dtype.kind}8[{count}{unit.decode() if isinstance(unit, bytes) else unit}]"
        safe = np.dtype(spec)
        dtype.__setstate__((safe.newbyteorder(order) if order in ("<", ">") else safe).__reduce__()[2])

    def new_array(self, *_: Any) -> Any:
        """An empty array to be filled by its state."""
        import numpy as np

        return np.empty((0,), "b")

    def new_scalar(self, dtype: Any, *data: Any) -> Any:
        """A numpy scalar without objects inside."""
        import numpy as np

        if self.settled(dtype).hasobject:
            raise UntrustedObjectError(f"{self.path}: it holds a numpy scalar made of objects")
        return np.float64(0).__reduce__()[0](dtype, *data)

    def check_state(self, target: Any, state: Any) -> None:
        """Refuse a state for what is not an object made by this pickle."""
        if isinstance(target, (*_IMPORTABLE, types.MethodType, types.ModuleType)):
            raise UntrustedObjectError(f"{self.path}: it changes {target!r}, which no dump does")
        np = _loaded("numpy")
        if np and isinstance(target, np.ndarray):
            self.settled(state[2])


def _map_buffers(file: Any, sizes: tuple[int, ...], place: int, loading: _Loading) -> list[Any]:
    """The buffers of a value, mapped where they lie in the file; then the file stands after the value."""
    from mmap import ACCESS_COPY, ACCESS_READ, ACCESS_WRITE, mmap

    offsets = []
    for size in sizes:
        offsets.append(place + -place % _ALIGNMENT)
        place = offsets[-1] + size
    end = place + 4 * sum(-(-size // _PIECE) for size in sizes)
    if os.fstat(file.fileno()).st_size < end:
        raise _Damaged(f"it is cut short: it has {os.fstat(file.fileno()).st_size} of {end} bytes")
    access = {"r": ACCESS_READ, "r+": ACCESS_WRITE}.get(loading.mode or "", ACCESS_COPY)
    whole = mmap(file.fileno(), place, access=access)
    file.seek(end)
    like = loading.mode, os.path.abspath(loading.path)
    return [_memmap(whole, (size,), "u1", offset, "C", like) for size, offset in zip(sizes, offsets)]


def _is_on_disk(file: Any) -> bool:
    """Whether a file object is a plain file of the system, so that it can be mapped."""
    return isinstance(getattr(file, "raw", file), io.FileIO) and file.seekable()


class _IsJoblib(Exception):
    """The pickle has arrays of joblib between its opcodes: the C unpickler cannot stop there."""


class _JoblibArray:
    """Stands in a pickle of joblib for an array whose bytes follow; takes the attributes that joblib gave it."""


_JOBLIB_CLASSES = {name: type(name, (_JoblibArray,), {}) for name in
                   ("NumpyArrayWrapper", "NDArrayWrapper", "ZNDArrayWrapper")}
_PLAIN_NAMES = frozenset(f"{module}.{name}" for module, names in {
    "builtins": "bool bytearray bytes complex dict float frozenset int list range set slice str tuple",
    "collections": "Counter OrderedDict defaultdict deque",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
}.items() for name in names.split())


class _PlainArray:
    """Stands for numpy.ndarray where only plain data is allowed: nothing can be made with it."""


def _allowed_names(trusted: Any) -> frozenset[str]:
    """The dotted names that `trusted` allows: plain data, and what the user adds."""
    if trusted is False:
        return _PLAIN_NAMES
    if isinstance(trusted, (str, bytes)) or not hasattr(trusted, "__iter__"):
        raise ValueError(f"trusted: expected True, False, or a list of classes and dotted names, got {trusted!r}")
    return _PLAIN_NAMES.union(each if isinstance(each, str) else f"{each.__module__}.{each.__qualname__}"
                              for each in trusted)


def _unpickle(file: Any, loading: _Loading, buffers: Any = None, careful: bool = False) -> Any:
    """The value of the pickle at the current position of a file."""
    unpickler = _unpicklers()[careful or loading.allowed is not None](file, buffers=buffers)
    unpickler.loading, unpickler.file = loading, file
    return unpickler.load()


def _read_following_array(unpickler: Any, loading: _Loading, file: Any, wrapper: Any) -> Any:
    """The array whose bytes come next in a file of joblib: since 1.2 after a length byte and as much padding."""
    import numpy as np

    dtype, shape, order = loading.settled(wrapper.dtype), wrapper.shape, wrapper.order
    if dtype.hasobject:
        return _unpickle(file, loading, careful=True)
    if getattr(wrapper, "numpy_array_alignment_bytes", None) is not None:
        _read_exactly(file, _read_exactly(file, 1, "padding")[0], "padding")
    if loading.mode and wrapper.allow_mmap and 0 not in shape:
        place = file.tell()
        array: Any = np.memmap(file, dtype, loading.mode, place, shape, order)  # type: ignore[call-overload]
        file.seek(place + array.nbytes)
        return array
    array = np.empty(shape, dtype, order)
    if array.nbytes:
        _read_into(file, memoryview((array.T if order == "F" else array).reshape(-1).view("u1")))
    return array


def _read_joblib_array(unpickler: Any, wrapper: Any) -> Any:
    """The array that a wrapper of joblib stands for: in the bytes that follow, or in a file beside."""
    import numpy as np

    loading, file = unpickler.loading, unpickler.file
    kind = type(wrapper).__name__
    if kind == "NumpyArrayWrapper":
        array = _read_following_array(unpickler, loading, file, wrapper)
    else:
        path = os.path.join(os.path.dirname(loading.path), os.path.basename(wrapper.filename))
        if kind == "ZNDArrayWrapper":
            with open(path, "rb") as beside:
                data = _open_zfile(beside).read()
            array = np.empty((0,), "b")
            loading.settled(wrapper.state[2])
            array.__setstate__((*wrapper.state, data))
        else:
            mode = loading.mode if getattr(wrapper, "allow_mmap", True) else None
            array = np.load(path, mmap_mode=mode, allow_pickle=loading.allowed is None)
    subclass = getattr(wrapper, "subclass", None) or wrapper.init_args[0]
    array = loading.in_order(array)
    return array if subclass in (_PlainArray, np.ndarray, np.memmap) else array.view(subclass)


def _find_class(self: Any, module: str, name: str) -> Any:
    """The find_class of our unpicklers."""
    return self.loading.find(module, name, super(type(self), self).find_class, hasattr(self, "dispatch"))


def _no_extension(self: Any, code: int) -> Any:
    """The copyreg extension registry holds objects of the process, whatever the file names: it is not used."""
    raise UntrustedObjectError(f"{self.loading.path}: it uses extension code {code} of copyreg, which no dump does")


def _build(self: Any) -> None:
    """The opcode that gives an object its state."""
    import pickle

    state, target = self.stack[-1], self.stack[-2]
    if self.loading.allowed is not None:
        self.loading.check_state(target, state)
        if (np := _loaded("numpy")) and isinstance(target, np.dtype):
            self.loading.complete_dtype(target, self.stack.pop())
            return
    pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]
    if isinstance(target, _JoblibArray):
        self.stack[-1] = _read_joblib_array(self, target)


@lru_cache
def _unpicklers() -> tuple[Any, Any]:
    """The quick unpickler, in C, and the careful one, which can stop at objects: for joblib's files and `trusted`."""
    import pickle

    slow: Any = pickle._Unpickler  # type: ignore[attr-defined]
    quick = type("Unpickler", (pickle.Unpickler,), {"find_class": _find_class})
    careful = type("Unpickler", (slow,), {"find_class": _find_class, "get_extension": _no_extension,
                                          "dispatch": {**slow.dispatch, pickle.BUILD[0]: _build}})
    return quick, careful


def _mark_changed(file: Any, start: int, head: bytes, table: bytes) -> None:
    """Note in a file that its buffers can be changed through a map, so that nobody relies on their checks."""
    place = file.tell()
    head = head[:9] + bytes([head[9] | _CHANGED]) + head[10:-4]
    file.seek(start)
    _write_all(file, head + _crc32(table, _crc32(head)).to_bytes(4, "little"))
    file.seek(place)


def _read(file: Any, loading: _Loading) -> Any:
    """The value at the current position of a file, in our format."""
    struct = _module("struct")
    start = _position(file)
    head = _read_exactly(file, _HEAD_NBYTES, "head")
    magic, version, flags, phase, count, size, crc = struct.unpack(_HEAD_FORMAT, head[:-4])
    if magic != _MAGIC:
        raise _Damaged("there is no dumped value at this place")
    if version > 1 or flags & ~_CHANGED:
        raise _Damaged(f"its format is version {version}, flags {flags}; this program reads version 1: use a newer one")
    table = _read_exactly(file, 8 * count, "head") if count else b""
    if _crc32(table, _crc32(head[:-4])) != int.from_bytes(head[-4:], "little"):
        raise _Damaged("its head is damaged: the checksum is wrong")
    pickled = _read_exactly(file, size, "pickle")
    if _crc32(pickled) != crc:
        raise _Damaged("its pickle is damaged: the checksum is wrong")
    if not count and loading.allowed is None:
        return _module("pickle").loads(pickled)
    buffers: list[Any] = []
    if count:
        sizes, after = struct.unpack(f"<{count}Q", table), len(head) + len(table) + size
        if loading.mode:
            buffers = _map_buffers(file, sizes, start + after, loading)
            if loading.mode == "r+" and not flags & _CHANGED:
                _mark_changed(file, start, head, table)
        else:
            buffers = _read_buffers(file, sizes, phase + after, pickled, not flags & _CHANGED)
    return _unpickle(io.BytesIO(pickled), loading, iter(buffers))


def _read_value(file: Any, mmap_mode: str | None = None, path: str = "", native: bool = True,
                trusted: Any = True) -> Any:
    """The value that `_write_value` wrote at the current position of a file; ValueError if it is damaged."""
    try:
        return _read(file, _Loading(path, mmap_mode, native, trusted))
    except _Damaged as error:
        raise ValueError(f"{path or file}: {error}") from error.__cause__


def _read_pickle(file: Any, loading: _Loading) -> Any:
    """The value in a file that is not ours: a pickle of joblib or of pickle."""
    place = _position(file)
    try:
        try:
            return _unpickle(file, loading, careful=isinstance(file, _Ahead))
        except _IsJoblib:
            file.seek(place)
            return _unpickle(file, loading, careful=True)
    except (UntrustedObjectError, _Damaged):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise _Damaged("it is neither a file of this dump nor a pickle that can be read here "
                       f"({type(error).__name__}: {error})") from error


def _peek(file: Any) -> tuple[Any, bytes]:
    """A file and its first bytes, still to be read; a file that stands at its end is rewound."""
    head = file.peek(8)[:8] if hasattr(file, "peek") else b""
    if len(head) == 8:
        return file, head
    try:
        place = file.tell()
        if not (head := file.read(8)) and place:
            place = 0
            file.seek(0)
            head = file.read(8)
        file.seek(place)
        return file, head
    except (OSError, AttributeError):  # it cannot go back
        head = file.read(8)
        return _Ahead(file, head), head


def _read_any(file: Any, loading: _Loading) -> Any:
    """The value in a file of any kind that we read."""
    file, head = _peek(file)
    if not head:
        raise _Damaged("it is empty")
    openers = [codec.open for codec in _CODECS.values() if codec.prefix and head.startswith(codec.prefix)]
    if head.startswith(b"ZF"):
        openers = [_open_zfile]
    if loading.mode and (openers or not _is_on_disk(file)):
        import warnings

        warnings.warn(f"mmap_mode={loading.mode!r} is ignored for {loading.path}: only an uncompressed file on disk "
                      "can be mapped; its arrays are read into memory", UserWarning, stacklevel=3)
        loading.mode, loading.native = None, True
    if openers:
        file, head = _peek(openers[0](file))
    return (_read if head.startswith(_MAGIC) else _read_pickle)(file, loading)


def load(filename: Any, mmap_mode: str | None = None, ensure_native_byte_order: Any = "auto", *,
         trusted: Any = True) -> Any:
    """The value in a file that `dump`, joblib or pickle wrote.

    >>> import io
    >>> file = io.BytesIO()
    >>> dump([1, 2, {"three": 3}], file)
    >>> load(file)
    [1, 2, {'three': 3}]

    Loading a file can run any code that its writer chose, as with `pickle.load`: give `trusted=False` for a file from
    a source you do not trust. Compression is found from the first bytes, whatever the name.

    Parameters
    ----------
    filename : path or binary file object
        A file object is read from where it stands; one that stands at its end is rewound.
    mmap_mode : None, "r", "r+", "w+" or "c", default None
        Give arrays as `numpy.memmap` on the file: read-only, shared writing ("w+" is taken as "r+"), copy on write.
        Mapped arrays are not checked for damage. Where a file cannot be mapped a warning says so and it is read.
    ensure_native_byte_order : bool or "auto", default "auto"
        Turn arrays of the other byte order into this machine's; "auto" does so unless `mmap_mode` is given.
    trusted : True, False or a list, default True
        False allows only plain data: builtin containers and scalars, numpy arrays, dtypes and scalars, and the types of
        `datetime`, `decimal`, `fractions`, `uuid` and `collections`. A list adds classes, or their dotted names.

    Raises
    ------
    ValueError
        The file is foreign, empty, cut short or damaged: the text names it and says what is wrong. Or a parameter is.
    UntrustedObjectError
        It holds what `trusted` does not allow; a ValueError, too.
    ImportError
        Its compression needs a package that is not installed.
    """
    if mmap_mode not in (None, "r", "r+", "w+", "c"):
        raise ValueError(f"mmap_mode: expected None, 'r', 'r+', 'w+' or 'c', got {mmap_mode!r}")
    if ensure_native_byte_order is True and mmap_mode:
        raise ValueError("ensure_native_byte_order: a mapped array has the byte order of its file: expected 'auto' or "
                         f"False with mmap_mode={mmap_mode!r}, got True")
    if not _is_path(filename) and (not hasattr(filename, "read") or isinstance(filename, io.TextIOBase)):
        raise ValueError("filename: expected a path or a binary file object open for reading (mode 'rb'), "
                         f"got {filename!r}")
    mode = "r+" if mmap_mode == "w+" else mmap_mode
    path = os.fsdecode(filename) if _is_path(filename) else str(getattr(filename, "name", None) or filename)
    native = not mode if ensure_native_byte_order == "auto" else bool(ensure_native_byte_order)
    loading = _Loading(path, mode, native, trusted)
    try:
        if not _is_path(filename):
            return _read_any(filename, loading)
        with open(path, "r+b" if mode == "r+" else "rb", _BUFFER) as file:
            return _read_any(file, loading)
    except _Damaged as error:
        raise ValueError(f"{path}: {error}") from error.__cause__


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
