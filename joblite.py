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
import marshal
import os
import sys
import threading
import time
import types
from collections import OrderedDict, deque
from functools import lru_cache, partial

TYPE_CHECKING = False  # what type checkers take for true; importing `typing` for it would cost as much as this whole file
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, ModuleType
    from typing import Any

__version__ = "0.1.0"

__all__ = [
    "cpu_count",
    "hash",
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


def _spread(function: Callable[[Any], Any], items: Iterable[Any], threads: int | None = None) -> Iterator[Any]:
    """The results of `function` over `items`, in order, computed on all cores by threads; few items are held at once.

    For functions that let other threads run (compression, checksums, hashing of big pieces).

    >>> list(_spread(len, ["a", "bc"]))
    [1, 2]
    """
    from queue import SimpleQueue

    threads = threads or cpu_count()
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


def _code_parts(namer: _Namer, code: CodeType) -> tuple[Any, ...]:
    """What a code object does: neither its name nor where it stands."""
    return ("code", code.co_code, code.co_consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
            code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount,
            getattr(code, "co_exceptiontable", b""))


def _function_parts(namer: _Namer, function: Any) -> tuple[Any, ...]:
    """A function that cannot be imported: its code and all that the code refers to."""
    cells = []
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


def _class_parts(namer: _Namer, cls: type) -> tuple[Any, ...]:
    """A class that cannot be imported: its bases and what its body defined."""
    body = {name: value for name, value in vars(cls).items() if name not in _CLASS_NOISE}
    return ("class", cls.__qualname__, cls.__bases__, body)


def _set_parts(namer: _Namer, obj: Any) -> tuple[Any, ...]:
    """A set of a class of its own: pickle would list the members in any order."""
    return ("set", type(obj), frozenset(obj), getattr(obj, "__dict__", None))


def _ordered_dict_parts(namer: _Namer, obj: Any) -> tuple[Any, ...]:
    """A dict whose order counts."""
    return ("ordered dict", type(obj), list(obj.items()), obj.__dict__)


def _object_parts(namer: _Namer, obj: Any) -> tuple[Any, ...]:
    """Any other object: what pickle would take to make it again."""
    reducer = copyreg.dispatch_table.get(type(obj))
    try:
        reduced = reducer(obj) if reducer else obj.__reduce_ex__(4)
    except RecursionError:
        raise
    except Exception as error:
        raise _cannot_name(obj, error) from error
    if isinstance(reduced, str):
        from pickle import whichmodule

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


def _dtype_parts(namer: _Namer, dtype: Any) -> tuple[Any, ...]:
    """A numpy dtype: what `==` compares."""
    if dtype.subdtype is not None:
        return ("dtype of arrays", *dtype.subdtype)
    if dtype.names is not None:
        fields = [(name, *dtype.fields[name]) for name in dtype.names]
        return ("dtype of fields", dtype.itemsize, fields)
    return ("dtype", repr(dtype) if dtype.kind == "T" else dtype.str)


def _array_parts(namer: _Namer, array: Any) -> tuple[Any, ...]:
    """An array: its class if not the plain one, dtype, shape, layout, content."""
    np, kind = sys.modules["numpy"], type(array)
    plain = kind is np.ndarray or (kind is np.memmap and namer.coerce_mmap)
    extra = None if plain or kind is np.memmap else getattr(array, "__dict__", None)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    content = _array_content(namer, array if plain else array.view(np.ndarray), order)
    return ("array", None if plain else kind, _dtype_parts(namer, array.dtype), array.shape, order, content, extra)


def _array_content(namer: _Namer, array: Any, order: str) -> Any:
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


def _masked_parts(namer: _Namer, array: Any) -> tuple[Any, ...]:
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


def _frame_parts(namer: _Namer, frame: Any) -> tuple[Any, ...]:
    """A pandas frame by columns: the blocks inside do not count."""
    columns = [_column_parts(frame.iloc[:, number]) for number in range(frame.shape[1])]
    return ("frame", type(frame), frame.columns, frame.index, columns, dict(frame.attrs))


def _series_parts(namer: _Namer, series: Any) -> tuple[Any, ...]:
    """A pandas series."""
    return ("series", type(series), series.name, series.index, _column_parts(series), dict(series.attrs))


def _index_parts(namer: _Namer, index: Any) -> tuple[Any, ...]:
    """A pandas index; a range is named like its numbers, which it equals."""
    if hasattr(index, "levels"):
        return ("indexes", list(index.names), [index.get_level_values(level) for level in range(index.nlevels)])
    kind = sys.modules["pandas"].Index if hasattr(index, "start") else type(index)
    return ("index", kind, index.name, getattr(index, "freqstr", None), _column_parts(index))


def _tensor_parts(namer: _Namer, tensor: Any) -> tuple[Any, ...]:
    """A torch tensor."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(sys.modules["torch"].uint8).numpy()
    return ("tensor", type(tensor), str(tensor.dtype), tuple(tensor.shape), tensor.requires_grad, raw)


# How an object of a class, or of a class that derives from it, is taken apart: a text that says how, then other values.
_PARTS: dict[type, Callable[[_Namer, Any], tuple[Any, ...]]] = {
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
_PACKAGE_PARTS: list[tuple[str, str, Callable[[_Namer, Any], tuple[Any, ...]]]] = [
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
        self.ways: dict[type, Callable[[_Namer, Any], tuple[Any, ...]]] = {}

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

    def way(self, kind: type) -> Callable[[_Namer, Any], tuple[Any, ...]]:
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
