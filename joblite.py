"""joblite: run loops on all cores, keep results on disk, save big objects, hash any value.

    from joblite import Parallel, delayed, Memory, dump, load, hash

    Parallel(n_jobs=-1)(delayed(pow)(i, 2) for i in range(10))    # [0, 1, 4, 9, ...]

    memory = Memory("cache")
    @memory.cache
    def slow(x): ...                               # computed once, then read from disk

    dump({"weights": array}, "model.joblite"); load("model.joblite", mmap_mode="r")
    hash(anything)                                 # equal content, equal digest

One file, standard library only: copy it into a project, rename it if you like. numpy is served when
the caller has imported it; only `load` imports it, for a file that holds arrays.

The map (a section uses only those above it; Memory and Parallel do not know each other):

    you call              it stands on
    hash(value)           2 digests                -> 1 ground
    dump / load           3 values in files        -> 1
    Memory                4 calls in folders       -> 3, 2, 1
    Parallel(delayed)     8 parallel -> 7 choosing -> 6 pools -> 5 payloads -> 3, 1

Words used in one sense only:

    task         one call to make: (function, args, kwargs), what `delayed(f)(x)` gives
    batch        tasks that travel together
    run          one call of a `Parallel`
    worker       a process (or thread) that runs batches
    pool         what one run hands its batches to: worker processes, threads, an executor
    fork server  the clean child process that forks the workers
    payload      an object packed for another process: a pickle and the raw buffers it leaves out
    segment      a file without a name that holds big buffers, for other processes to map
    fingerprint  a digest of a cached function and of all that its code uses in the project
    entry        a result that a Memory keeps, with what it was made from
"""

# mypy: disable-error-code="no-any-return", warn-unused-ignores=False

from __future__ import annotations

import copyreg
import errno
import io
import itertools
import marshal
import math
import operator
import os
import stat
import struct
import sys
import threading
import time
import types
import weakref
from collections import OrderedDict, deque, namedtuple
from functools import cached_property, lru_cache, partial, update_wrapper
from types import BuiltinMethodType, CellType, FunctionType, MappingProxyType
from types import MethodType, ModuleType

from _contextvars import ContextVar
from _queue import Empty, SimpleQueue

try:  # the module `pickle` takes 5 ms more to import
    from _pickle import PickleBuffer, Pickler, PicklingError, Unpickler
    from _pickle import dumps as _pickle_dumps
    from _pickle import loads as _pickle_loads
except ImportError:
    raise ImportError(f"joblite runs on CPython only, got {sys.implementation.name}") from None

# Type checkers take it for true. Importing `typing` would cost as much as this whole file.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Executor
    from pathlib import Path
    from types import CodeType
    from typing import Any, Concatenate, Generic, Literal, Never, ParamSpec, Protocol, TypeVar
    from typing import overload

    P = ParamSpec("P")  # the parameters of a function
    Rest = ParamSpec("Rest")  # those of a method after `self`
    R = TypeVar("R")  # what a function returns
    Object = TypeVar("Object")
    Shape = TypeVar("Shape")  # what a call of a Parallel gives: _List or _Stream
    E = TypeVar("E")  # what it gives for a task that failed, if anything
    Task = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
    TaskOf = tuple[Callable[..., R], tuple[Any, ...], dict[str, Any]]
    Backend = str | Executor | Any
    Mode = Literal["r", "r+", "w+", "c"] | None

    class _Typed(Generic[P, R]): ...

    class _Shaped(Generic[Shape, E]):
        backend: Any
        n_jobs: Any
        return_as: str
        verbose: Any
        timeout: float | None
        batch_size: Any
        pre_dispatch: Any
        temp_folder: Any
        max_nbytes: Any
        require: str | None
        prefer: str | None
        mmap_mode: Any
        progress: Any
        on_error: str

    class _List: ...

    class _Stream: ...

    def _typed_as(model: Object) -> Callable[[Any], Object]:
        """What gives a method the type of the model, that has overloads say."""
else:

    def _as_it_is(method):
        return method

    class _Typed:
        def __class_getitem__(cls, _):
            return cls

    _Shaped = _Typed
    P = R = Shape = E = None

__version__ = "0.1.0"

__all__ = [
    "MemorizedFunc",
    "MemorizedResult",
    "Memory",
    "Parallel",
    "ParallelBackendBase",
    "TerminatedWorkerError",
    "UntrustedObjectError",
    "cpu_count",
    "delayed",
    "dump",
    "effective_n_jobs",
    "expires_after",
    "get_active_backend",
    "hash",
    "load",
    "parallel_backend",
    "parallel_config",
    "register_compressor",
    "register_hasher",
    "register_parallel_backend",
    "register_store_backend",
    "shutdown_workers",
    "wrap_non_picklable_objects",
]

# ==================================================================================================
# 1. Ground
# ==================================================================================================
# Promise: what several sections need: questions about the machine, what functions and classes are
# made of, threads, files, streams.
#
# Laws
#   1. Importing this file starts nothing, changes nothing and loads no numpy.  test_import_is_light
#   2. An optional package is looked up in sys.modules, or imported where it is needed, never on
#      loading this file.                  test_numpy_is_not_needed_and_not_imported

IS_WINDOWS = os.name == "nt"
_HAS_FORK = hasattr(os, "fork")
HAS_PROCESSES = (
    sys.platform not in ("emscripten", "wasi")
    and sys.executable
    and not getattr(sys, "frozen", False)
)
try:
    _START_FOLDER = os.getcwd()  # what relative entries of sys.path meant at import
except OSError:  # it was deleted
    _START_FOLDER = ""
# The types of plain values.
_ATOMS = frozenset({int, float, complex, str, bytes, bool, types.NoneType, types.EllipsisType})


class _Unset:
    """Stands for "not given"; shows the default that the documentation names."""

    def __init__(self, shown: object) -> None:
        self.shown = shown

    def __repr__(self) -> str:
        return repr(self.shown)


_NOTHING: Any = _Unset("nothing")


def _cell_value(name: str, cell: Any) -> Any:
    """The content of a closure's cell, whatever its name, or _NOTHING while it has none."""
    try:
        return cell.cell_contents
    except ValueError:
        return _NOTHING


def _import_name(obj: Any) -> tuple[str, str] | None:
    """(module, qualified name) of a function or class that an import finds under it; None if there
    is no such name."""
    try:
        module, name = obj.__module__, getattr(obj, "__qualname__", None) or obj.__name__
        if operator.attrgetter(name)(sys.modules[module]) is obj:
            return module, name
    except (AttributeError, KeyError, TypeError):
        pass
    return None


def _function_in(cls: type, name: str) -> Any:
    """The function that a class holds under that name, also in a classmethod or staticmethod."""
    found = vars(cls)[name]  # some raise when they are asked for an attribute
    return found.__func__ if isinstance(found, (classmethod, staticmethod)) else found


def _place_in_class(func: Any) -> tuple[type, str] | None:
    """(class, name) of a method that its class holds, also where its qualified name does not lead
    to it: a private one, a classmethod, one of another name."""
    cls: Any = sys.modules.get(func.__module__)
    for part in getattr(func, "__qualname__", "").split(".")[:-1]:  # a partial has none
        cls = getattr(cls, part, None)
    if isinstance(cls, type):
        for name in vars(cls):
            if _function_in(cls, name) is func:
                return cls, name
    return None


@lru_cache
def _module(name: str) -> Any:
    """A module, imported at first use; in a hot path quicker than an import statement."""
    __import__(name)
    return sys.modules[name]


def _expect(is_right: Any, name: str, expected: str, got: Any) -> None:
    """Refuse a setting that is not what it should be."""
    if not is_right:
        raise ValueError(f"{name}: expected {expected}, got {got!r:.200}")


@lru_cache(typed=True)  # every `Parallel` asks for the same
def _parse_bytes(size: Any, what: str) -> int:
    """A number of bytes from a number, or a text such as "500K", "1M", "0.5G"; None is more than
    any. `what` names the parameter."""
    if size is None:
        return sys.maxsize
    text = str(size).strip().upper()
    power = "KMGT".find(text[-1:]) + 1
    try:
        number = float(text[:-1] if power else text)
    except ValueError:
        number = -1.0
    _expect(
        0 <= number < math.inf,
        what,
        "bytes as a number or a text such as '500K', '1M', '2G'",
        size,
    )
    return int(number * 1024**power)


@lru_cache
def _read_text(path: str) -> str:
    """What a file of the system says; nothing when there is none."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def cpu_count(only_physical_cores: bool = False) -> int:
    """The number of cores that this process may use.

    >>> cpu_count() >= 1
    True

    It is the least of three: the process's affinity, its control group's CPU quota (rounded up)
    and the environment variable LOKY_MAX_CPU_COUNT.

    Parameters
    ----------
    only_physical_cores : bool, default False
        Count two hardware threads of one core once, where the system tells (Linux).

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        LOKY_MAX_CPU_COUNT is not a whole number.
    """
    try:
        usable: Any = os.sched_getaffinity(0)
    except AttributeError:  # not on macOS and Windows
        usable = range(os.cpu_count() or 1)
    if only_physical_cores:
        usable = {
            _read_text(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or cpu
            for cpu in usable
        }
    limits: list[float] = [len(usable)]
    quota, _, period = _read_text("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdecimal():  # not "max"
        limits.append(int(quota) / int(period))
    limit = os.environ.get("LOKY_MAX_CPU_COUNT", "").strip()
    if limit:
        _expect(limit.isdecimal(), "LOKY_MAX_CPU_COUNT", "a whole number", limit)
        limits.append(int(limit))
    return max(1, math.ceil(min(limits)))


@lru_cache(maxsize=4096)
def _instructions(code: CodeType) -> list[tuple[str, Any, Any]]:
    """The instructions of code, as `dis` reads them: it alone knows how each version of Python
    packs them: name; argument, or the constant or name that it is the number of; place in the
    source."""
    return [
        (
            step.opname,
            # Python 3.11 does not tell the keywords of a call
            code.co_consts[step.arg] if step.opname == "KW_NAMES" else step.argval,
            step.positions,
        )
        for step in _module("dis").get_instructions(code)
        if step.opname != "EXTENDED_ARG"
    ]


@lru_cache(maxsize=4096)
def _names_in_code(code: CodeType) -> Any:
    """What code uses, functions inside it included:

        names     all names in it
        chains    the globals that it reads, each with the attributes that follow: ("np", "linalg")
        added     variables used for nothing but statements such as `log.append(x)`
        imports   (level, module, names) of each import

    What is added to in one place and used otherwise in another is read: then a key differs too
    often, never too seldom.
    """
    used = types.SimpleNamespace(names=set(), chains=set(), added=set(), imports=set())
    codes, steps = [code], []  # type: ignore[var-annotated]
    for each in codes:  # grows
        codes += [const for const in each.co_consts if isinstance(const, types.CodeType)]
        steps += _instructions(each)
        used.names.update(each.co_names)
    calls = set()  # where calls begin whose results nobody takes
    read, attributes = set(), []  # type: ignore[var-annotated]
    then, end = "", ()  # the instruction that follows, and its place
    for number, (kind, name, place) in reversed(list(enumerate(steps))):
        begin = place[::2]  # line and column
        if then == "POP_TOP" and kind.startswith("CALL") and None not in begin:
            calls.add(begin)
        is_global = kind in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
        if is_global:
            used.chains.add((name, *attributes))
        if is_global or kind.endswith("DEREF"):
            is_adding = {"append", "add", "extend", "update"}.intersection(attributes[:1])
            # in code that a program made, all may stand at one place
            is_added = is_adding and begin in calls and place < end
            (used.added if is_added else read).add(name)
        elif kind == "IMPORT_NAME":
            used.imports.add((steps[number - 2][1], name, steps[number - 1][1] or ()))
        attributes = [name, *attributes] if kind in ("LOAD_ATTR", "LOAD_METHOD") else []
        then, end = kind, place
    used.added -= read
    if used.names & {"locals", "vars", "eval", "exec", "dir"}:  # which may read any
        used.added.clear()
    return used


def _without(space: Any, names: Any) -> dict[str, Any]:
    """What a namespace holds but for some names."""
    return {name: space[name] for name in [*space] if name not in names}


def _contents(thing: Any, noise: Any = (), look: Any = operator.call) -> tuple[dict[str, Any], ...]:
    """What a function or class is made of: its attributes but for `noise`; the variables of its
    closure; and the globals that it, and the code inside it, reads. Each is a dict of names and
    values.

    `look(how, first, second)` gives an attribute or variable: what `how(first, second)` finds, now
    and whenever it is asked again. Without a `look`, lazy imports are carried out.
    """
    if isinstance(thing, type):
        own = vars(thing)
        attributes = {name: look(own.get, name, _NOTHING) for name in _without(own, noise)}
        # their own names may be those of attributes in its body
        bases, name = look(getattr, thing, "__bases__"), look(getattr, thing, "__name__")
        return {"<bases>": bases, "__name__": name, **attributes}, {}, {}
    # since Python 3.14 annotations are made by a function, which is not called
    makes = "__annotate__" if getattr(thing, "__annotate__", None) else "__annotations__"
    names = "__name__", "__kwdefaults__", makes, "__dict__", "__code__", "__defaults__"
    code, space = thing.__code__, thing.__globals__
    used = {
        name: space[name]
        for name, *_ in _names_in_code(code).chains
        if name in space  # else it is a builtin, or missing
    }
    for name, value in list(used.items()) if look is operator.call else ():
        if type(value).__name__ == "lazy_import":  # of Python 3.15
            try:
                used[name] = value.resolve()
            except Exception:  # who uses it finds out
                del used[name]
    return (
        {name: look(getattr, thing, name) for name in names if name not in noise},
        {
            name: look(_cell_value, name, cell)
            for name, cell in zip(code.co_freevars, thing.__closure__ or ())
            if name != "__classdict__"  # the namespace of a class, where annotations look names up
        },
        used,
    )


def _blame(error: Exception, value: Any, what: str, pack: Callable[[Any], Any]) -> str:
    """Which part of a value cannot be pickled, and why; `what` is the value's own name."""
    match value:
        case dict():
            held = {"[{!r}]": value}
        case list() | tuple():
            held = {"[{!r}]": dict(enumerate(value))}
        case FunctionType() | type():
            attributes, variables, used = _contents(value)
            held = {" (its variable {})": used | variables, ".{}": attributes}
        case _:
            attributes = {  # of methods and partials
                name: getattr(value, name, None)
                for name in ("__self__", "func", "args", "keywords")
            }
            held = {".{}": attributes | getattr(value, "__dict__", {})}
    for text, parts in held.items():
        for key, part in parts.items():
            try:
                pack(part)
            except Exception as reason:
                # in a value that holds itself the way has no end
                if str(reason) == str(error) and len(what) < 200:
                    return _blame(reason, part, what + text.format(key), pack)
    return f"{what} cannot be pickled: {error}"


def _blake2b(data: Any) -> bytes:
    """The blake2b of bytes (importing hashlib would load OpenSSL: 5 ms)."""
    return _module("_blake2").blake2b(data).digest()


def _short_digest(text: str, digits: int = 20) -> str:
    """The first hexadecimal digits of the blake2b of a text."""
    return _blake2b(text.encode("utf-8", "surrogatepass")).hex()[:digits]


def _start_thread(work: Callable[[], Any]) -> threading.Thread | None:
    """Start a daemon thread that runs `work`; None where the system or the closing interpreter
    refuses."""
    try:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
    except RuntimeError:
        return None
    return thread


def _map_on_threads(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """The results of `function` over `items`, in order, computed on all cores; few items are held
    at a time.

    The caller reads the items, and computes, too, rather than wait; nobody waits for a thread,
    which ends when nothing is left to begin. (A ThreadPoolExecutor takes twice as long for some
    MiB, and its import some 5 ms.)
    """
    cores = lru_cache(cpu_count)  # asked once, and not for a single item, which needs no thread
    tasks: deque[Any] = deque()  # (item, where its result goes), which nobody has begun
    results: deque[Any] = deque()  # where the results go that were not taken
    threads: list[None] = []  # one for each that runs

    def compute(wanted: Any) -> None:
        """Work until the wanted result is there, or all is begun."""
        while wanted.empty():
            try:
                item, result = tasks.popleft()
            except IndexError:
                return
            try:
                result.put((function(item), None))
            except BaseException as error:
                result.put((None, error))

    def run_thread() -> None:
        compute(SimpleQueue())
        threads.pop()

    def take() -> Any:
        wanted = results.popleft()
        compute(wanted)
        value, error = wanted.get()
        if error:
            raise error
        return value

    try:
        for item in items:
            results.append(SimpleQueue())
            tasks.append((item, results[-1]))
            if len(results) > 1 and len(threads) < cores() - 1:
                threads.append(None)
                try:  # not `Thread.start`: an interruption may leave locks of its own held
                    _module("_thread").start_new_thread(run_thread, ())
                except RuntimeError:
                    pass  # no thread is to be had: the caller computes
            if len(results) > 2 * len(threads) + 2:
                yield take()
        while results:
            yield take()
    finally:
        tasks.clear()


def _unlink(path: str) -> bool:
    """Remove a file; whether there was one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _stat(path: Any) -> os.stat_result | None:
    """What the system knows about a file; None when there is none."""
    try:
        return os.stat(path)
    except OSError:
        return None


def _list(folder: str) -> list[str]:
    """The names in a folder; none when it is missing, is not a folder or cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


_MUTEXES: dict[Any, Any] = {}  # (process, what it guards) -> a lock


def _one_at_a_time(what: Any, work: Callable[..., Any], *args: Any) -> Any:
    """`work(...)`, while no other thread of this process does so for the same thing.

    Each process has its own lock: after a fork, one that another thread held would stay locked.
    """
    lock = _MUTEXES.setdefault((os.getpid(), what), threading.RLock())
    try:  # an interruption may come right after `acquire`: a `with` statement would not release it
        lock.acquire()
        return work(*args)
    finally:
        try:
            lock.release()
        except RuntimeError:
            pass  # interrupted before the lock was ours


class _LockFile:
    """An open file, whose bytes are locks between processes; all free where such locks do not work.

    A process opens it once: closing any descriptor of a file drops all locks that the process has.
    Where there are no locks, as on Windows, it is not opened: nobody could remove it then.
    """

    opened: Any = weakref.WeakValueDictionary()  # path -> the file that is open
    fd = -1

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.fcntl = _module("fcntl")
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            weakref.finalize(self, os.close, self.fd).atexit = False
            self.unlocker(0)()
        except (ImportError, OSError):  # one that may not be opened, or locks do not work there
            self.fcntl = None

    def is_there(self) -> bool:
        """Whether it is the file that has the path now: the folder may have been removed."""
        try:
            return IS_WINDOWS or os.path.samefile(self.path, self.fd)
        except OSError:
            return False

    def lock(self, byte: int, wait: bool = False) -> bool:
        """Take a lock. False: another process has it, or with `wait`: they wait for each other."""
        try:
            if self.fcntl:
                flags = self.fcntl.LOCK_EX | (0 if wait else self.fcntl.LOCK_NB)
                self.fcntl.lockf(self.fd, flags, 1, byte)
        except OSError as err:
            if err.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                return False
            self.fcntl = None
        return True

    def unlocker(self, byte: int) -> Callable[[], Any]:
        """What gives a lock back, and does no harm where we do not have it.

        It is a single call into C: first in a `finally`, no interruption comes before it.
        """
        if not self.fcntl:
            return bool
        return partial(self.fcntl.lockf, self.fd, self.fcntl.LOCK_UN, 1, byte)


def _warn(text: str) -> None:
    """A warning that points at the first line outside this file."""
    import warnings

    depth, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename == __file__:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, stacklevel=depth)


def _write_to(stream: Any, text: str) -> None:
    """Write to a stream of the user, as far as its encoding can."""
    try:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except Exception:
        pass  # closed or missing: no reason to end the work


def _say(text: str) -> None:
    """A line on stderr, if there is one."""
    _write_to(sys.stderr, f"[{__name__}] {text}\n")


# ==================================================================================================
# 2. Digests
# ==================================================================================================
# Promise: `hash` gives every value a digest of its content, which depends on nothing else.
#
# Picture: a value is turned into a form, made of plain values only; its bytes are digested.
#
#     value                     form                                          digest
#     (1, "a", [2.5])           the same                    -- marshal -->    sha256
#     {"b": 1, "a": 2}          MARK "dict" [a b] [2 1]
#     array                     MARK "array" dtype, shape, order, digest of the bytes
#     any other object          MARK "object" class, arguments, state  (what pickle would take)
#     a part of 64+ values      MARK and the digest of its own form: met again, it costs nothing
#     what holds itself         MARK "numbered" [the form of each part, with the numbers of its own]
#
# Laws
#   1. Only content counts: no identity, sharing, interning, order of dicts and sets.
#                                                           test_equal_values_have_one_digest
#   2. Different types, values, layouts have different digests: a form can be read in one way only,
#      since no plain value holds MARK.                     test_other_values_have_other_digests
#   3. Whether a part is replaced by its digest depends on its value alone, never on how often it
#      was met, so that the time stays linear and law 1 holds.
#                                                           test_shared_parts_cost_once
#   4. In a value that holds itself, or is nested deeper than 100 levels, it also counts which parts
#      are one object; a copy made by pickle is equal.      test_recursive_values
#   5. The digest of plain values and arrays is the same on every processor, Python and numpy.
#                                                           test_digests_never_change
#   6. Hashing changes nothing, and no digest changes because somebody looked at the value.
#                                                      test_looking_at_a_value_changes_no_digest

_MARK = StopIteration  # one byte in marshal; as a value of the user it is a class, so never plain
_SEQUENCES = frozenset({list, tuple})
_PIECE = 1 << 20  # bytes digested, checked or compressed at once: worth a thread, fits a cache
_SMALL = 64  # a part of so many values gets a digest of its own: smaller is slower


@lru_cache
def _hash_maker(hash_name: str) -> Any:
    """A function that gives the digest of bytes, by the constructor of hashlib with that name:
    hashlib.new is slower."""
    hashlib = _module("hashlib")
    names = hashlib.algorithms_guaranteed - {"shake_128", "shake_256"}  # of no fixed length
    _expect(hash_name in names, "hash_name", f"one of {sorted(names)}", hash_name)
    make = getattr(hashlib, hash_name)
    return lambda data: make(data).digest()


def _dumps(form: Any) -> bytes:
    """The bytes of a form. Version 2 of marshal is the last that writes no references to objects it
    met before: no identity."""
    try:
        return marshal.dumps(form, 2)
    except ValueError:  # of bytes or a text of 2 GiB and more
        file = io.BytesIO()
        pickler = Pickler(file, 5)
        pickler.fast = True  # no references either
        pickler.dump(form)
        return file.getvalue()


def _attributes(names: str, digester: Any, obj: Any) -> tuple[Any, ...]:
    """An object by some attributes."""
    return (names, *[getattr(obj, name, None) for name in names.split()])


def _code_parts(digester: Any, code: CodeType) -> tuple[Any, ...]:
    """What code does: without file, line and docstring (which no instruction loads); constants and
    names stand where they are used."""
    steps: list[Any] = []
    set_by_python = "__firstlineno__", "__static_attributes__", "__doc__"  # in a class
    for name, argument, _ in _instructions(code):
        if name == "STORE_NAME" and argument in set_by_python:
            del steps[-2:]
        else:
            steps += name, argument
    kept = """
        co_name co_argcount co_posonlyargcount co_kwonlyargcount co_varnames co_cellvars co_freevars
        co_exceptiontable
    """
    return (
        *_attributes(kept, digester, code),
        code.co_flags & 0x3FF,  # others tell of docstrings and future imports
        steps,
    )


# Attributes of a class that are not of its body, or full of addresses.
_CLASS_NOISE = frozenset(
    """
    __dict__ __weakref__ __module__ __doc__ __qualname__ __firstlineno__ __static_attributes__
    __annotations_cache__ __dataclass_params__ __slotnames__ __signature__ _abc_impl
    _value2member_map_ __pydantic_core_schema__ __pydantic_serializer__
    __pydantic_setattr_handlers__ __pydantic_validator__
    """.split()
)


def _object_parts(digester: Any, obj: Any) -> tuple[Any, ...]:
    """Any other object: what pickle would take to make it again."""
    kind = type(obj)
    reducer = copyreg.dispatch_table.get(kind)
    try:
        reduced = reducer(obj) if reducer else obj.__reduce_ex__(4)
    except Exception as error:
        raise PicklingError(
            f"cannot hash an object of type {kind}: {error}. Only what can be pickled has content "
            "to hash; register_hasher(type, function) adds to it"
        ) from error
    if isinstance(reduced, str):  # a ufunc, a cached function, a sentinel: pickle takes its name
        if not reduced.replace(".", "").isidentifier():
            raise PicklingError(f"cannot hash {obj!r}: no import finds {reduced!r}")
        return (
            "name",
            reduced,
            # taken as it is: the search may import modules
            getattr(obj, "__module__", None) or _module("pickle").whichmodule(obj, reduced),
            digester.follow
            and (digester.follow(kind), _without(getattr(obj, "__dict__", {}), _CLASS_NOISE)),
        )
    maker, args, state, items, pairs = (*reduced, None, None, None)[:5]
    if type(state) is dict:
        state = state or None  # an exception has no `__dict__` until somebody reads it
    elif isinstance(obj, (partial, io.BytesIO, io.StringIO)):  # nor have these
        state = (*state[:-1], state[-1] or None)
    if isinstance(obj, (set, frozenset)):
        args = (frozenset(obj),)  # pickled in any order
    if pairs:
        pairs = list(pairs) if isinstance(obj, OrderedDict) else dict(pairs)
    if maker is copyreg.__newobj__ and items is pairs is None:  # type: ignore[attr-defined]
        return ("new", *args, state)  # most objects: a tenth faster
    return ("object", maker, *args, state, items and list(items), pairs)


def _raw_pieces(array: Any) -> Iterator[memoryview]:
    """The bytes of a memoryview or array in pieces, in Fortran order if it is laid out so, else in
    C order; where there are gaps between its items, it is copied."""
    if not isinstance(array, memoryview):
        array = memoryview(array.ravel("A").view("u1"))
    for start in range(0, array.nbytes, _PIECE):
        yield array[start : start + _PIECE]


def _dtype_parts(digester: Any, dtype: Any) -> tuple[Any, ...]:
    """A numpy dtype: its text, or what pickle would take but for alignment and flags, which do not
    count in `==` either."""
    if not 0 <= dtype.num < 256:  # of a package: "<V1" is the text of many
        return _object_parts(digester, dtype)
    try:
        metadata = dict(dtype.metadata or {})
    except TypeError:  # in numpy 1, of some that were unpickled
        metadata = {}
    if dtype.kind != "V" and not metadata:
        return ("dtype", dtype.str)
    _, args, state = dtype.__reduce__()
    return ("dtype of parts", dtype.str, args[0], state[2:6], metadata)


def _array_parts(digester: Any, array: Any) -> tuple[Any, ...]:
    """An array: its dtype, shape, layout; and its objects, or its fields one by one (gaps do not
    count), or digests of its bytes. One of a derived class: its attributes, and what its class
    makes of it for a pickle."""
    np, dtype = _module("numpy"), array.dtype
    kind = type(array)
    if kind not in (np.ndarray, np.memmap):
        own = array.view(np.ndarray)
        if kind.__reduce__ is not np.ndarray.__reduce__:
            own = _object_parts(digester, array)
        return ("derived", kind, object.__getstate__(array), own)
    is_mapped = kind is np.memmap and not digester.coerce_mmap
    order = "F" if array.flags.fnc else "C"
    if dtype.num in (13, 16):  # long doubles: there may be gaps in their bytes
        array = array.astype("S", order)
    if dtype.names is not None:
        content = [array[name] for name in dtype.names]
    elif dtype.hasobject:
        content = array.ravel(order).tolist()
    elif array.nbytes <= _PIECE:
        content = digester.new(array.tobytes(order))
    else:
        content = list(_map_on_threads(digester.new, _raw_pieces(array)))
    return ("array", is_mapped, _dtype_parts(digester, dtype), array.shape, order, content)


def _scalar_parts(digester: Any, scalar: Any) -> tuple[Any, ...]:
    """A numpy scalar; with its class if that is a derived one. Its bytes have one order on every
    processor, but for those of a record, whose dtype tells theirs."""
    kind, dtype = type(scalar), scalar.dtype
    if dtype.kind != "V":
        dtype = dtype.newbyteorder("<")
    return (
        "scalar",
        _module("numpy").asarray(scalar, dtype),
        kind.__module__ != "numpy" and (kind, object.__getstate__(scalar)),
    )


def _masked_parts(digester: Any, array: Any) -> tuple[Any, ...]:
    """A masked array, hidden values included; with its class if that is a derived one (numpy's own
    is in another module in each version), and its attributes."""
    np = _module("numpy")
    not_content = {*vars(np.ma.array(0)), "_mmap", "filename", "offset", "mode"}  # those of a map
    return (
        "masked",
        type(array) is not np.ma.MaskedArray and type(array),
        array.data,
        np.ma.getmaskarray(array),
        # asking for it sets it; in an array of objects it may be a text of numpy or of Python
        np.asarray(np.asarray(array.view().fill_value), array.dtype),
        _without(vars(array), not_content),
    )


def _sparse_parts(digester: Any, matrix: Any) -> tuple[Any, ...]:
    """A sparse array of scipy without what it notes when it is asked."""
    return (
        "sparse",
        type(matrix),
        dict(matrix) if isinstance(matrix, dict) else None,
        _without(vars(matrix), ("_has_sorted_indices", "_has_canonical_format")),
    )


def _pandas_array_parts(digester: Any, values: Any) -> tuple[Any, ...]:
    """The content of an array of pandas, whatever holds it; of an array of another package, what
    pickle would take."""
    kind = type(values)
    if kind.__module__.partition(".")[0] != "pandas":
        return _object_parts(digester, values)
    values = values.view()  # which takes what pandas caches
    content = getattr(values, "_ndarray", None)  # numbers, codes, times
    if content is None:
        content = _module("numpy").asarray(values, object)
    return ("pandas array", kind, values.dtype, getattr(values, "freq", None), content)


def _table_parts(digester: Any, table: Any) -> tuple[Any, ...]:
    """A pandas series, or a frame by columns: the blocks inside do not count."""
    is_frame = table.ndim == 2
    return (
        "table",
        type(table),
        table.axes,
        [column.array for _, column in table.items()] if is_frame else table.array,
        # flags, names, what a subclass wants kept
        {**table.__getstate__(), "_mgr": None},
    )


# How an object of a class, or of a class that derives from it, is taken apart: by a function that
# gives a text, which says how, and other values; or by the attributes that a text names. A class of
# a package stands here by the name of that and its own. register_hasher adds to it.
_PARTS: dict[type | str, str | Callable[[Any, Any], tuple[Any, ...]]] = {
    type: lambda digester, cls: (  # annotations are made when somebody asks for them
        "class",
        type(cls),
        cls.__qualname__,
        {"__annotations__": {}, "__annotate_func__": None} | _contents(cls, _CLASS_NOISE)[0],
    ),
    FunctionType: lambda digester, function: (
        "function",
        *_contents(function, ("__annotate__", "__annotations__")),
    ),
    types.CodeType: _code_parts,
    MethodType: "__func__ __self__",
    ModuleType: "__name__",
    MappingProxyType: lambda digester, proxy: ("mapping proxy", proxy.copy()),
    staticmethod: "__class__ __func__",
    classmethod: "__class__ __func__",
    property: "__class__ fget fset fdel __dict__",  # of a class of its own, what that adds
    cached_property: "__class__ func attrname",  # it may hold a lock
    "enum.Enum": "__class__ _name_ _value_",
    "typing.ForwardRef": "__forward_arg__ __forward_module__",  # the rest is what it evaluated
    "pydantic.Decorator": "cls_var_name info",  # the rest has addresses
    "numpy.ndarray": _array_parts,
    "numpy.MaskedArray": _masked_parts,
    "numpy.dtype": _dtype_parts,
    "numpy.generic": _scalar_parts,
    "scipy.sparray": _sparse_parts,
    "scipy.spmatrix": _sparse_parts,
    "pandas.DataFrame": _table_parts,
    "pandas.Series": _table_parts,
    "pandas.ExtensionDtype": lambda digester, dtype: (
        "pandas dtype",
        type(dtype),
        str(dtype),
        [getattr(dtype, name) for name in dtype._metadata],
    ),
    "pandas.ExtensionArray": _pandas_array_parts,
}


@lru_cache
def _way_of(kind: Any) -> Callable[[Any, Any], tuple[Any, ...]]:
    """How objects of a class are taken apart: as the nearest class above it that has a way."""
    for cls in kind.__mro__:
        package = str(cls.__module__).partition(".")[0]
        way = _PARTS.get(cls, _PARTS.get(f"{package}.{cls.__name__}"))
        if isinstance(way, str):
            return partial(_attributes, way)
        if way:
            return way
    return _object_parts


class _Digester:
    """One call of `hash`: its settings, see `_digest`, and the forms of the parts met so far."""

    importable = type, FunctionType, BuiltinMethodType, ModuleType
    sortable = {str}, {int}, {bytes}  # of these alone `sorted` always gives one order
    deepest = 100  # levels that are walked by recursion: each takes four frames of some 1000
    count = 0  # of the values in the forms made so far, but for those in digests

    def __init__(self, new: Any, coerce_mmap: bool, follow: Any, take_apart: Any) -> None:
        self.new, self.coerce_mmap = new, coerce_mmap
        self.follow, self.take_apart = follow, take_apart
        # id of a part -> its form; and the part, for as long as it lives no other has this id
        self.known: dict[int, tuple[Any, Any]] = {}
        self.path: dict[int, int] = {}  # id of each part that the walk is in -> count before it
        self.met: list[Any] = []  # the parts that have numbers, see _Numbering

    def form(self, obj: Any) -> Any:
        """The form of a value."""
        kind = type(obj)
        if kind in _ATOMS:
            return obj
        if kind in _SEQUENCES and len(obj) < _SMALL and _ATOMS.issuperset(map(type, obj)):
            return obj
        found = self.known.get(id(obj))
        if found:
            return found[0]
        if isinstance(obj, self.importable):
            name = self.follow and self.follow(obj) or _import_name(obj)
            if name:
                return self.keep(obj, (_MARK, "name", name))
        return self.part(obj)

    def keep(self, obj: Any, form: Any) -> Any:
        """Remember the form of a part."""
        self.known[id(obj)] = form, obj
        return form

    def part(self, obj: Any) -> Any:
        """What stands for a part that is neither plain nor named."""
        key = id(obj)
        if key in self.path or len(self.path) == self.deepest:
            raise RecursionError
        self.path[key] = self.count
        form = self.expand(obj)
        before = self.path.pop(key)
        if self.count - before < _SMALL:
            return form
        self.count = before
        return self.keep(obj, (_MARK, "digest", self.new(_dumps(form))))

    def expand(self, obj: Any) -> Any:
        """The form of a part, made of the forms of its own parts."""
        kind: Any = type(obj)
        if kind in _SEQUENCES:
            return self.sequence(obj)
        if kind not in (dict, set, frozenset):
            take_apart = self.take_apart or _way_of(kind)
            return (_MARK, *self.sequence(take_apart(self, obj)))
        kinds = set(map(type, obj))
        keys = list(obj)
        if kind is not dict or not self.follow:  # else the order of dicts counts
            keys.sort(key=None if kinds in self.sortable else self.rank)
        self.count += len(keys)
        forms = keys if kinds <= _ATOMS else self.sequence(keys)
        if kind is not dict:
            return (_MARK, kind.__name__, forms)
        return (_MARK, "dict", forms, self.sequence(list(map(obj.__getitem__, keys))))

    def sequence(self, items: Any) -> Any:
        """The form of a list or tuple. Plain items need no work, nor do short lists of them."""
        self.count += len(items)
        if _ATOMS.issuperset(map(type, items)):
            return items
        if _SEQUENCES.issuperset(map(type, items)) and max(map(len, items)) < _SMALL:
            if _ATOMS.issuperset(map(type, itertools.chain.from_iterable(items))):
                return items
        return type(items)(map(self.form, items))

    def rank(self, member: Any) -> bytes:
        """What puts a member of a set, or a key of a dict, in its place: it depends on it alone."""
        return _dumps(self.form(member))


class _Numbering(_Digester):
    """For a value that holds itself, or is nested too deeply: its parts are numbered in the order
    in which they are met, and the number stands for the part wherever it is met again."""

    # 0, or where a member of a set is to get its place, how many levels of it are looked into: the
    # last only for its class. It is enough, unless members differ further down.
    levels = 0

    def part(self, obj: Any) -> tuple[Any, ...]:
        if not self.levels:
            self.met.append(obj)
            return self.keep(obj, (_MARK, len(self.met)))
        if self.levels == 1:
            return (_MARK, type(obj).__qualname__)
        self.levels -= 1
        form = self.expand(obj)
        self.levels += 1
        return form

    def rank(self, member: Any) -> bytes:
        outer = self.levels
        self.levels = outer or 3
        place = super().rank(member)
        self.levels = outer
        return place


def _digest(
    obj: Any, new: Any, coerce_mmap: bool = False, follow: Any = None, take_apart: Any = None
) -> Any:
    """`hash`, as `new(bytes)` gives it. `follow(thing)` is asked where functions, classes and
    modules are met: the text that stands for one whose code counts, else None. Then the order of
    dicts counts, too. `take_apart(digester, obj)` is asked what stands for an object, instead of
    `_way_of(type(obj))`."""
    form, kind = obj, type(obj)
    is_plain = kind in _ATOMS or kind in _SEQUENCES and _ATOMS.issuperset(map(type, obj))
    if not is_plain:
        try:
            form = _Digester(new, coerce_mmap, follow, take_apart).form(obj)
        except RecursionError:
            numbering = _Numbering(new, coerce_mmap, follow, take_apart)
            numbering.form(obj)
            # the list grows
            form = (_MARK, "numbered", [numbering.expand(part) for part in numbering.met])
    return new(_dumps(form))


def hash(obj: Any, hash_name: str = "sha256", coerce_mmap: bool = False) -> str:
    """The digest of a value's content: equal for equal types and content, in any process, anywhere.

    >>> hash({"a": 1, "b": [2, 3]}) == hash({"b": [2, 3], "a": 1})
    True
    >>> hash(1) == hash(1.0), hash([1]) == hash((1,))
    (False, False)
    >>> hash((1, "a", 2.5))[:12]
    'd3cc95e831b0'

    The order of dicts and sets, shared or repeated references, interning and PYTHONHASHSEED do not
    count; types do, and so does the layout of an array (C or Fortran; another view has the digest
    of its C copy). Functions and classes that can be imported count by their module and name,
    others by their code and what it refers to. Any other object counts by what pickle would take to
    make it again.

    Parameters
    ----------
    obj : any value
        Recursive values are fine. In these, and in values nested deeper than 100 levels, it also
        counts which parts are one object. pandas objects count by columns, whatever blocks hold
        them.
    hash_name : str, default "sha256"
        An algorithm that `hashlib` guarantees, with a fixed length.
    coerce_mmap : bool, default False
        Hash a `numpy.memmap` like the array that it maps.

    Returns
    -------
    str
        The digest in hexadecimal digits.

    Raises
    ------
    pickle.PicklingError
        Something in `obj` cannot be pickled, and has no other content to hash.
    ValueError
        `hash_name` is unknown.
    """
    return _digest(obj, _hash_maker(hash_name), coerce_mmap).hex()


def register_hasher(cls: type, function: Callable[[Any], Any]) -> None:
    """Hash objects of a class and of its subclasses by what a function gives for them.

    >>> class Celsius:
    ...     def __init__(self, degrees): self.degrees, self.cache = degrees, object()
    >>> register_hasher(Celsius, lambda value: value.degrees)
    >>> hash(Celsius(20)) == hash(Celsius(20))
    True

    This is for classes whose pickle is not the same each time.

    Parameters
    ----------
    cls : type
        The class.
    function : callable
        Takes the object and returns any value that `hash` accepts.

    Raises
    ------
    TypeError
        `cls` is not a class or `function` is not callable.
    """
    if not isinstance(cls, type) or not callable(function):
        raise TypeError(
            f"register_hasher: expected a class and a function, got {cls!r} and {function!r}"
        )
    _PARTS[cls] = lambda digester, obj: ("hasher", type(obj), function(obj))
    _way_of.cache_clear()


# ==================================================================================================
# 3. Values in files
# ==================================================================================================
# Promise: `dump` writes any value that pickle can take, its arrays as raw bytes, so that `load`
# reads them straight into place or maps them; a damaged file is an error, never a wrong value.
#
# Picture: one value in a file (numbers little-endian, sizes and offsets in bytes)
#
#     | head | pickle | sizes of buffers | checksum | buffer 0 | buffer 1 | ... | checksums |
#
#     head    0   8  magic: 89 'P' 'Y' 'O' 0D 0A 1A 0A (a transfer that changes line ends breaks it)
#             8   8  number of buffers
#            16   8  size of the pickle
#     pickle      protocol 5; buffers out of band, in order; names nothing of this library. It ends
#                 with zeros, so that the buffers begin at a multiple of 64 in the file.
#     sizes       8 each
#     checksum    4: the CRC-32 of all before it
#     buffers     each followed by zeros up to a multiple of 64, so that it can be mapped in place
#     checksums   4 each: the CRC-32 of every MiB of each buffer; its last piece may be shorter.
#                 All of their bytes are A5 once the buffers may have been changed through a map.
#
# An array is a buffer (of objects: a list), its dtype as text or a list of fields, its shape and
# its order: a call of numpy's `_frombuffer` in the pickle. Compressed, the same bytes are the
# content of an ordinary .z, .gz, .bz2, .xz, .lzma, .lz4 or .zst file.
#
#     write: value -> _take_apart -> _stream of chunks -> (blocks, compressed on threads) -> file
#     read:  file -> _peek: the first bytes tell -> (_Content) -> ours: _read; else _read_foreign
#
# Laws
#   1. A path holds the old value or the whole new one, whatever happens meanwhile, unless its
#      folder takes no other file or it is a device.            test_failed_dump_keeps_the_old_file
#   2. Nothing is unpickled and no array given out before its checksum is right; only mapped buffers
#      are not checked. Any fault of the file is a ValueError with its path.
#                                                         test_every_cut_is_found
#   3. Memory beyond the value and its pickle is a few pieces, or a copy of an array with gaps.
#                                                         test_a_big_array_is_never_doubled
#   4. With `trusted=False` only opcodes, names and calls of short lists are followed.
#      numpy is told of an array only what was checked before.   test_attacks_are_refused,
#                                                         test_tricks_of_hand_made_pickles

_MAGIC = b"\x89PYO\r\n\x1a\n"
_ALIGNMENT = 64  # of buffers in a file or segment: a cache line, and enough for any vector
_BUFFER = 65536  # bytes gathered before a small write or read ahead: arrays pass it by


def _path_of(filename: Any, method: str) -> str | None:
    """A path as text; None for a binary file object that has this method."""
    try:
        return os.fsdecode(filename)
    except TypeError:
        is_file = hasattr(filename, method) and not isinstance(filename, io.TextIOBase)
    _expect(is_file, "filename", f"a path or a binary file object to {method}", filename)
    return None


class UntrustedObjectError(ValueError):
    """A file holds more than plain data, and `load(trusted=False)` reads it. It is a ValueError.

    >>> file = io.BytesIO()
    >>> dump(len, file)
    >>> try: load(file, trusted=False)
    ... except UntrustedObjectError: print("more than plain data")
    more than plain data
    """


class _Damaged(ValueError):
    """The file is damaged or foreign. `_read_value` turns this into a ValueError with the path."""


# ---- Compressing ---------------------------------------------------------------------------------


def _crc32(data: Any, crc: int = 0) -> int:
    """The CRC-32 of bytes, carried on from that of the bytes before."""
    return _module("zlib").crc32(data, crc)


def _write_all(file: Any, chunk: Any) -> None:
    """Write a chunk to a file that may take less than it is given, or not say how much."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) or len(rest) :]


def _gathered(arrays: Iterable[Any]) -> Iterator[list[memoryview]]:
    """The bytes of arrays and memoryviews in pieces, as many together as a thread is given."""
    group: list[memoryview] = []
    nbytes = 0
    for array in arrays:
        for piece in _raw_pieces(array):
            group.append(piece)
            nbytes += len(piece)
            if nbytes >= _PIECE:
                yield group
                group, nbytes = [], 0
    if group:
        yield group


def _checked(pieces: list[memoryview]) -> tuple[list[memoryview], bytes]:
    """The pieces, and their checksums."""
    return pieces, b"".join(_crc32(piece).to_bytes(4, "little") for piece in pieces)


def _compressed(compress: Callable[[bytes], Any], chunks: Iterator[Any]) -> Iterator[Any]:
    """What `compress` makes, on all cores, of blocks of the bytes of `chunks`."""
    return _map_on_threads(
        lambda pieces: compress(b"".join(pieces)), _gathered(map(memoryview, chunks))
    )


def _write_zlib(chunks: Iterator[Any], file: Any, level: int) -> None:
    """Write one zlib stream (RFC 1950) whose blocks are compressed by threads, as pigz does."""
    zlib = _module("zlib")
    check = 1

    def compress(block: bytes) -> tuple[bytes, bytes]:
        packer = zlib.compressobj(level, wbits=-15)
        # ends at a byte: another may follow
        return block, packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)

    _write_all(file, b"\x78\x9c")
    for block, packed in _compressed(compress, chunks):
        check = zlib.adler32(block, check)
        _write_all(file, packed)
    _write_all(file, b"\x03\x00" + check.to_bytes(4))  # an empty last block


def _write_through(
    compressor_file: Callable[..., Any], chunks: Iterator[Any], file: Any, level: int
) -> None:
    """Write a format by a file object that compresses, in one thread."""
    with compressor_file(file, compresslevel=level) as out:
        for chunk in chunks:
            _write_all(out, chunk)


class _AsItIs:
    """Stands for the decompressor of what needs none."""

    eof = True
    unused_data = b""

    def decompress(self, data: Any) -> Any:
        return data


class _Content(io.RawIOBase):
    """What a file that cannot go back holds, or a compressed one, of one stream or several.

    `make` makes a decompressor, anything with `decompress`, `eof` and `unused_data`. It is given
    `step` bytes at once, for what they may become is held in memory; where that is 0, as many as
    are asked for. (The modules' own file objects read further than the value, so that none could
    follow it.)
    """

    content: Any = b""  # to be given out next: what was read too early comes here again
    packed = b""  # read and not yet unpacked
    limit = math.inf  # bytes that it may still give out

    def __init__(self, file: Any, make: Any = _AsItIs, step: int = 0) -> None:
        self.file, self.make, self.step = file, make, step
        self.unpacker = make()

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        """Fill some of the memory."""
        while not self.content and self.fill(len(target)):
            pass
        part = self.content[: len(target)]
        count = len(part)
        target[:count] = part
        self.content = self.content[count:]
        self.limit -= count
        if self.limit < 0:
            raise UntrustedObjectError(
                "it unpacks to more than 100 times its size and 64 MiB, the limit for a "
                "compressed file that is not trusted: unpack it with another tool"
            )
        return count

    def fill(self, nbytes: int = 0) -> bool:
        """Read so many bytes and no more, for the next value may follow, or unpack some; whether
        there were any."""
        if not self.packed:
            nbytes = self.step or nbytes
            try:
                self.packed = self.file.read1(nbytes)  # it does not wait for all
            except (AttributeError, io.UnsupportedOperation):  # it has none; io's base refuses
                self.packed = self.file.read(nbytes)
            if self.step:
                self.limit += 100 * len(self.packed)  # real data seldom packs that well
        if self.unpacker.eof:
            if not self.packed:
                return False
            self.unpacker = self.make()
        elif not self.packed:
            raise _Damaged("it is cut short: its compressed data does not end")
        try:
            content = self.unpacker.decompress(self.packed)
        except Exception as error:  # each format has an error of its own
            raise _Damaged(f"its compressed data is damaged ({error})") from error
        self.content = memoryview(content)
        self.packed = self.unpacker.unused_data or b""
        return True

    def peek(self) -> tuple[Any, bytes]:
        """A file that reads no further than it is asked to, and its first bytes, still to be
        read."""
        reader = io.BufferedReader(self, 1)
        head = reader.read(8)
        self.content = memoryview(head + self.content)
        return reader, head

    def finish(self) -> None:
        """Unpack to the end of the stream, where it has its own checksum; then the file stands
        there, if it can."""
        while not self.unpacker.eof:
            self.fill()
        if self.packed and self.file.seekable():
            self.file.seek(-len(self.packed), os.SEEK_CUR)


# write(chunks, file, level); open(file): what it holds
_Codec = namedtuple("_Codec", "prefix extension write open")


def _codec(
    prefix: bytes,
    extension: str,
    module: str,
    decompressor: str,
    *args: Any,
    level: str = "",
    write: Any = None,
    step: int = 1536,
    **options: Any,
) -> _Codec:
    """A format: the module for it; what makes a decompressor there; the options of its `compress`
    and the name of the one that is the level, unless `write` is given. `step` is small where 4
    bytes may be 128 KiB of zeros."""

    def make() -> Any:
        made = getattr(_module(module), decompressor)(*args)
        return made.decompressobj() if module == "zstandard" else made

    def write_streams(chunks: Iterator[Any], file: Any, number: int) -> None:
        """Each block is one stream, for a file may be several."""
        compress = partial(_module(module).compress, **options, **{level: number})
        for packed in _compressed(compress, chunks):
            _write_all(file, packed)

    return _Codec(
        prefix, extension, write or write_streams, partial(_Content, make=make, step=step)
    )


_CODECS = {
    "zlib": _codec(b"\x78", ".z", "zlib", "decompressobj", write=_write_zlib, step=_BUFFER),
    "gzip": _codec(
        b"\x1f\x8b", ".gz", "zlib", "decompressobj", 31, level="level", wbits=31, step=_BUFFER
    ),
    "bz2": _codec(b"BZ", ".bz2", "bz2", "BZ2Decompressor", level="compresslevel"),
    "lzma": _codec(
        b"\x5d\0",
        ".lzma",
        "lzma",
        "LZMADecompressor",
        0,
        1_000_000_000,
        write=partial(
            _write_through,
            lambda file, compresslevel: _module("lzma").LZMAFile(
                file, "wb", format=2, preset=compresslevel
            ),
        ),
    ),
    "xz": _codec(b"\xfd7zXZ", ".xz", "lzma", "LZMADecompressor", 0, 1_000_000_000, level="preset"),
    "lz4": _codec(
        b"\x04\x22\x4d\x18",
        ".lz4",
        "lz4.frame",
        "LZ4FrameDecompressor",
        level="compression_level",
        step=_BUFFER,
    ),
    "zstd": _codec(
        b"\x28\xb5\x2f\xfd",
        ".zst",
        "compression.zstd" if sys.version_info >= (3, 14) else "zstandard",
        "ZstdDecompressor",
        level="level",
    ),
}


def register_compressor(compressor_name: str, compressor: Any, force: bool = False) -> None:
    """Add a file format to those that `dump(compress=...)` and `load` know.

    >>> import bz2
    >>> class Packed:
    ...     prefix, extension = b"BZh9", ".bz9"
    ...     def compressor_file(self, file, compresslevel=None):
    ...         return bz2.BZ2File(file, "w", compresslevel=9)
    ...     def decompressor_file(self, file): return bz2.BZ2File(file)
    >>> register_compressor("best bz2", Packed(), force=True)
    >>> load(dump([1, 2], "numbers.bz9", compress="best bz2")[0])
    [1, 2]

    Parameters
    ----------
    compressor_name : str
        The name for `compress=`.
    compressor : object
        Has `prefix` (the first bytes of each such file), `extension` (".xyz" or ""),
        `compressor_file(file, compresslevel=None)` and `decompressor_file(file)`. These two take a
        binary file and give one to write to or read from.
    force : bool, default False
        Replace a format of the same name.

    Raises
    ------
    ValueError
        The name is not a text, or is taken, or the object lacks one of these.
    """
    _expect(
        isinstance(compressor_name, str) and (force or compressor_name not in _CODECS),
        "compressor_name",
        "a text that is not taken, unless force=True",
        compressor_name,
    )
    match compressor:
        case object(
            prefix=bytes(prefix),
            extension=str(extension),
            compressor_file=pack,
            decompressor_file=unpack,
        ) if callable(pack) and callable(unpack):
            _CODECS[compressor_name] = _Codec(
                prefix,
                extension,
                partial(_write_through, pack),
                lambda file: _Content(unpack(file)),
            )
        case _:
            _expect(
                False,
                "compressor",
                "an object with prefix (bytes), extension ('.xyz' or ''), compressor_file and "
                "decompressor_file (functions)",
                compressor,
            )


def _parse_compress(compress: Any, filename: str = "") -> tuple[str, int] | None:
    """(method, level) from what the user said and the extension of the file; None for no
    compression."""
    named = [name for name, codec in _CODECS.items() if filename.endswith(codec.extension or "/")]
    match compress:
        case str(method):
            level = 3
        case (method, level):
            pass
        case _:
            method = ["zlib", *named][-1]
            level = 3 if compress is True else compress or (3 if named else 0)
    _expect(
        method in _CODECS and level in range(10),
        "compress",
        "True, False, a level from 0 to 9, a method (zlib, gzip, bz2, lzma, xz, lz4, zstd or a "
        "registered one) or a pair (method, level)",
        compress,
    )
    return (method, level) if level else None


# ---- Writing -------------------------------------------------------------------------------------


def _dtype_text(dtype: Any) -> Any:
    """A dtype as text, or as a list of (name, dtype, shape); the dtype itself where that would not
    tell all of it: gaps between fields, alignment, metadata, records, dtypes of packages."""
    if not 0 <= dtype.num < 256:  # the text may be one that numpy does not know
        return dtype
    text: Any = dtype.str
    if dtype.names and all(dtype[name].itemsize for name in dtype.names):
        text = [(name, _dtype_text(dtype[name].base), dtype[name].shape) for name in dtype.names]
    same = _module("numpy").dtype(text)
    return text if same.__reduce__() == dtype.__reduce__() else dtype


@lru_cache
def _numpy_reducers(np: Any) -> tuple[Any, dict[Any, Any]]:
    """What makes an array of a buffer, and how other values of numpy go into a pickle, so that each
    is made by one call with plain arguments."""

    def reduce_dtype(dtype: Any) -> Any:
        text = _dtype_text(dtype)
        return dtype.__reduce__() if text is dtype else (np.dtype, (text,))

    def reduce_masked(array: Any) -> Any:
        return type(array), (
            array._data,
            array._mask,
            None,
            False,
            True,
            0,
            array._fill_value,
            True,
            array._hardmask,
        )

    return np.empty(1).__reduce_ex__(5)[0], {
        **{type(np.dtype(char)): reduce_dtype for char in np.typecodes["All"]},
        np.ma.MaskedArray: reduce_masked,
    }


def _take_apart(value: Any, kind: Any) -> tuple[bytes, list[Any]]:
    """The pickle of a value, and the buffers left out of it: arrays, and memory offered by other
    objects."""
    np: Any = type(value) not in _ATOMS and sys.modules.get("numpy")
    out = io.BytesIO()
    buffers: list[Any] = []
    mark = PickleBuffer(bytearray())  # stands for an array, so that any layout can be left out

    def keep(buffer: Any) -> None:
        if buffer is not mark:
            buffers.append(buffer.raw())

    def reduce_array(array: Any) -> Any:
        order = "F" if array.flags.fnc else "C"
        content: Any = mark
        if array.dtype.char == "O":
            content = array.ravel(order).tolist()
        elif array.dtype.hasobject or not array.itemsize:
            return array.__reduce_ex__(4)
        else:
            buffers.append(array)
        return make_array, (content, array.dtype, array.shape, order)

    pickler = kind(out, 5, buffer_callback=keep)
    if np:
        make_array, reducers = _numpy_reducers(np)
        # the attribute that the C code reads, also where a class of picklers has one of that name
        Pickler.dispatch_table.__set__(  # type: ignore[attr-defined]
            pickler,
            {
                **getattr(pickler, "dispatch_table", copyreg.dispatch_table),
                **reducers,
                np.ndarray: reduce_array,
                np.memmap: reduce_array,
            },
        )
    pickler.dump(value)
    return out.getvalue(), buffers


def _stream(pickled: bytes, buffers: list[Any], start: int) -> Iterator[Any]:
    """The bytes of a value in a file, in chunks; `start` is where it begins."""
    table = b"".join(buffer.nbytes.to_bytes(8, "little") for buffer in buffers)
    gap = -(start + 28 + len(pickled) + len(table)) % _ALIGNMENT  # 28: the head and a checksum
    head = _MAGIC + struct.pack("<QQ", len(buffers), len(pickled) + gap)
    yield head
    yield pickled
    rest = bytes(gap) + table
    yield rest + _crc32(rest, _crc32(pickled, _crc32(head))).to_bytes(4, "little")
    if not buffers:  # a third of the time of a small value
        return
    checksums = bytearray()
    for pieces, checks in _map_on_threads(_checked, _gathered(buffers)):
        checksums += checks
        for piece in pieces:
            yield piece
            yield bytes(-len(piece) % _ALIGNMENT)
    yield checksums


def _write_value(value: Any, file: Any, packed: Any = None, pickler: Any = Pickler) -> None:
    """Write a value at the current position of an open binary file; `packed` is a method and its
    level, `pickler` a class of picklers."""
    start = file.tell() if hasattr(file, "seekable") and file.seekable() else 0
    try:
        parts = _take_apart(value, pickler)
    except Exception as error:  # a __reduce__ of the user may raise anything
        error.args = (_blame(error, value, "value", partial(_take_apart, kind=pickler)),)
        raise
    chunks = _stream(*parts, start)
    if packed:
        _CODECS[packed[0]].write(chunks, file, packed[1])
    else:
        for chunk in chunks:
            _write_all(file, chunk)


def dump(
    value: Any, filename: Any, compress: Any = 0, protocol: int | None = None
) -> list[str] | None:
    """Write any value that pickle can take to a file, and its arrays as raw bytes.

    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path] = dump({"a": [1, 2]}, os.path.join(folder, "value.joblite"), compress=True)
    ...     load(path)
    {'a': [1, 2]}

    An existing file is replaced only when the whole value is written: a reader sees the old value
    or the new one, and a failed or interrupted dump leaves the old file as it was. Mode and
    symbolic links are kept. (The system may still hold the bytes in memory when this returns: call
    `os.sync` if they must survive a loss of power.)

    Parameters
    ----------
    value : any value
        Contiguous arrays are written straight from memory, each other one is copied first.
    filename : path or binary file object
        A file object needs a `write` method. Any name will do; an extension .z .gz .bz2 .xz .lzma
        .lz4 .zst asks for that compression.
    compress : bool, int, str or (str, int), default 0
        True means zlib at level 3; a number from 1 to 9 the level; a text the method, one of zlib,
        gzip, bz2, lzma, xz, lz4, zstd (the last two need a package, zstd not from Python 3.14) or a
        registered one. Big values are compressed on all cores (except with `lzma`).
    protocol : int or None, default None
        Accepted for joblib's sake and taken as 5: only `load` reads the file.

    Returns
    -------
    list of str, or None
        `[path]`; None for a file object.

    Raises
    ------
    ValueError
        `compress` or `filename` is not what it should be.
    pickle.PicklingError, TypeError, AttributeError
        From pickle: something in `value` cannot be pickled; the text says where it is.
    OSError
        The file cannot be written.
    ImportError
        The compression needs a package that is not installed.
    """
    path = _path_of(filename, "write")
    method = _parse_compress(compress, path or "")
    if path is None:
        _write_value(value, filename, method)
        return None
    target = os.path.realpath(path) if os.path.islink(path) else path
    folder = os.path.dirname(target) or "."
    state, beside = _stat(path), ""
    # written in place if it is a device or a pipe, or the folder takes no other file
    if (not state or stat.S_ISREG(state.st_mode)) and os.access(folder, os.W_OK):
        beside = f"{folder}/.{os.urandom(8).hex()}.part"
    try:
        # nobody else looks in meanwhile
        with open(
            beside or path, "wb", _BUFFER, opener=partial(os.open, mode=0o600 if state else 0o666)
        ) as file:
            if beside and state:
                os.chmod(beside, stat.S_IMODE(state.st_mode))
            _write_value(value, file, method)
        if beside:
            os.replace(beside, target)
    except BaseException as err:
        if IS_WINDOWS and isinstance(err, PermissionError):
            err.add_note(
                "while somebody has the file open it cannot be replaced: close it, `del` the "
                "arrays mapped from it, or write to another path"
            )
        _unlink(beside)
        raise
    return [path]


# ---- Reading -------------------------------------------------------------------------------------


def _peek(file: Any) -> tuple[Any, bytes]:
    """A file with `readinto`, and its first bytes, still to be read; one that stands at its end is
    rewound."""
    if hasattr(file, "readinto") and file.seekable():
        head = file.read(8)
        if not head:
            file.seek(0)
            head = file.read(8)
        file.seek(-len(head), os.SEEK_CUR)
        return file, head
    return _Content(file).peek()


def _read_exactly(file: Any, nbytes: int) -> Any:
    """The next bytes of a file, taken in pieces: a hostile file may ask for any number."""
    data = bytearray()
    while len(data) < nbytes:
        more = file.read(min(nbytes - len(data), _PIECE))
        if not more:
            raise _Damaged("it is cut short")
        data += more
    return data


def _is_on_disk(file: Any) -> bool:
    """Whether a file object is a plain file of the system, so that it can be mapped."""
    return isinstance(getattr(file, "raw", file), io.FileIO)


def _mapped(file: Any, mode: str, sizes: Sequence[int]) -> list[Any]:
    """The next buffers of a file, mapped where they lie."""
    at = file.tell()
    whole = _module("numpy").memmap(file, "u1", mode)
    buffers: list[Any] = []
    for size in sizes:
        buffer: Any = whole[at : at + size] if size else bytearray()
        if len(buffer) < size:
            raise _Damaged("it is cut short")
        if size:
            buffer.offset = at
        buffers.append(buffer)
        file.seek(at + size)
        at += size + -size % _ALIGNMENT
    return buffers


def _read_buffers(file: Any, mode: str | None, sizes: Sequence[int]) -> list[Any]:
    """The buffers of a value, read and checked, or mapped."""
    if mode and any(sizes):
        nbytes = sum(4 * -(-size // _PIECE) for size in sizes)
        *buffers, checksums = _mapped(file, mode, [*sizes, nbytes])
        if mode == "r+":  # they may be changed from now on
            checksums[:] = 0xA5
        return buffers
    # of numpy, which does not touch them before: a hostile file may ask for any
    buffers = [memoryview(_module("numpy").empty(size, "u1")) for size in sizes]

    def pieces() -> Iterator[memoryview]:
        for buffer in buffers:
            for piece in _raw_pieces(buffer):
                rest = piece
                while rest:
                    count = file.readinto(rest)
                    if not count:
                        raise _Damaged("it is cut short: bytes of an array are missing")
                    rest = rest[count:]
                yield piece
            file.read(-len(buffer) % _ALIGNMENT)

    found = b"".join(checks for _, checks in _map_on_threads(_checked, _gathered(pieces())))
    wanted = _read_exactly(file, len(found))
    if wanted != found and wanted.strip(b"\xa5"):
        raise _Damaged("the bytes of an array are damaged: their checksum is wrong")
    return buffers


# ---- Arrays and pickles --------------------------------------------------------------------------


def _plain_dtype(text: Any, *more: Any, room: int = 32768) -> Any:
    """The dtype that `_dtype_text` told of, if it is harmless: its lists have less than `room`
    fields together, and half of it is lost with each list inside another."""
    np = _module("numpy")
    if more:
        raise UntrustedObjectError("it has a dtype with gaps, alignment or metadata")
    pattern = r"[<>|=]?[?biufcSUVmMO]\d{0,9}(\[\d{0,9}[A-Za-z]{1,7}\])?"
    if type(text) is str and _module("re").fullmatch(pattern, text):
        return np.dtype(text)
    if type(text) is list and 0 < len(text) < room:
        room //= len(text) + 1
        # a shape as a tuple: numpy takes other things in its place for a dtype
        fields = [(name, _plain_dtype(part, room=room), (*shape,)) for name, part, shape in text]
        if sum(np.dtype(field[1:]).itemsize for field in fields) < 1 << 31:
            return np.dtype(fields)  # which counts bytes modulo 2**32
    raise _Damaged("it has a strange dtype, or one of too many bytes")


def _make_array(native: bool, content: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """The array in a buffer, or of a list of objects; `native`: in this machine's byte order.
    numpy takes numbers for addresses, so all is checked before it is told."""
    np = _module("numpy")
    is_list = type(content) is list
    if not (
        type(content) in (list, bytes, bytearray, memoryview, np.memmap)
        and isinstance(dtype, np.dtype)
        and is_list == dtype.hasobject
        and all(type(length) is int and length >= 0 for length in shape)
        and math.prod(shape) * (is_list or dtype.itemsize) == len(content)
    ):
        raise _Damaged("it has an array whose dtype, shape and content do not fit")
    if type(content) is np.memmap:
        array = content.view(dtype)
    elif is_list:
        array = np.fromiter(content, dtype, len(content))
    elif not (shape or content):  # an empty text
        array = np.zeros((), dtype)
    else:
        array = np.frombuffer(content, dtype)
        if native and not dtype.isnative:
            array = array.astype(dtype.newbyteorder("="))
    return array.reshape(shape, order=order)


class _Unpickler(Unpickler):
    """Reads the pickle of a file that is trusted."""

    make_array: Any

    def find_class(self, module: str, name: str) -> Any:
        if name == "_frombuffer" and module.startswith("numpy"):
            return self.make_array
        return super().find_class(module, name)


# What protocol 5 writes of plain data, as the names of pickle's methods.
_PLAIN_LOADS = """load_proto load_frame load_stop load_mark load_pop load_pop_mark load_none
    load_true load_false load_binint load_binint1 load_binint2 load_long1 load_long4 load_binfloat
    load_short_binbytes load_binbytes load_binbytes8 load_bytearray8 load_short_binunicode
    load_binunicode load_binunicode8 load_empty_tuple load_tuple load_tuple1 load_tuple2 load_tuple3
    load_empty_list load_append load_appends load_empty_dictionary load_setitem load_setitems
    load_empty_set load_additems load_frozenset load_memoize load_binget load_long_binget
    load_next_buffer load_stack_global load_reduce""".split()
_PLAIN_CALLS = {  # what may be named -> the types of the arguments of a call
    name: types
    for name, *types in map(
        str.split,
        """builtins.bool
        builtins.bytearray
        builtins.bytes
        builtins.complex float
        builtins.dict
        builtins.float
        builtins.frozenset
        builtins.int
        builtins.list
        builtins.range int
        builtins.set
        builtins.slice bool bytes complex float int NoneType str timedelta tuple
        builtins.str
        builtins.tuple
        collections.Counter dict
        collections.OrderedDict
        collections.defaultdict NoneType type
        collections.deque int tuple
        datetime.date bytes
        datetime.datetime bytes timezone
        datetime.time bytes timezone
        datetime.timedelta int
        datetime.timezone str timedelta
        decimal.Decimal str
        fractions.Fraction int
        numpy.dtype
        numpy.ma.MaskedArray bool bool_ int memmap ndarray NoneType
        numpy.ma.core.MaskedArray bool bool_ int memmap ndarray NoneType
        numpy.core.multiarray.scalar
        numpy._core.multiarray.scalar
        numpy.core.numeric._frombuffer
        numpy._core.numeric._frombuffer""".splitlines(),
    )
}


def _call_plain(call: Any, types: list[str], *args: Any) -> Any:
    """What a call in a file makes that is not trusted, if its arguments are harmless. (An iterator
    or a range could take all memory, a fraction of huge numbers or of a text all time.)"""
    for each in args:
        is_huge = type(each) is int and each.bit_length() > 65536
        if is_huge or type(each).__name__ not in types:
            raise UntrustedObjectError(f"it makes a {call.__name__} of strange or huge arguments")
    return call(*args)


def _read_untrusted(pickled: Any, buffers: Any, make_array: Any) -> Any:
    """The value of a pickle that may be hostile: its opcodes, names and calls are those of short
    lists."""
    pickle = _module("pickle")
    calls: dict[int, Any] = {}  # id of what was named -> what is called for it

    class Plain(pickle._Unpickler):  # type: ignore[misc, name-defined]
        def find_class(self, module: str, name: str) -> Any:
            dotted = f"{module}.{name}"
            if dotted not in _PLAIN_CALLS:
                raise UntrustedObjectError(
                    f"it holds {dotted}, which is not plain data: trusted=True reads it if you "
                    "trust who wrote it"
                )
            # each version of numpy has it in another place
            found = make_array if name == "_frombuffer" else super().find_class(module, name)
            checked = {
                "_frombuffer": make_array,
                "dtype": _plain_dtype,
                "scalar": lambda dtype, data: _make_array(False, data, dtype, (), "C").copy()[()],
            }
            calls[id(found)] = checked.get(name, partial(_call_plain, found, _PLAIN_CALLS[dotted]))
            return found

        def load_reduce(self) -> None:
            named = id(self.stack[-2])
            if named not in calls:
                raise UntrustedObjectError("it calls something that may not be called")
            self.stack[-2] = calls[named]
            super().load_reduce()

        def load_bytearray8(self) -> None:  # pickle's takes memory for what is not there
            self.load_binbytes8()
            self.append(bytearray(self.stack.pop()))

    Plain.dispatch = {
        code: getattr(Plain, load.__name__)
        for code, load in Plain.dispatch.items()
        if load.__name__ in _PLAIN_LOADS
    }
    return Plain(io.BytesIO(pickled), buffers=buffers).load()


class _JoblibArray:
    """Stands in a pickle of joblib for an array whose bytes follow."""

    numpy_array_alignment_bytes = None  # before joblib 1.2


def _read_foreign(file: Any, mode: str | None, native: bool) -> Any:
    """The value of a pickle of others; between its opcodes may lie arrays of joblib."""
    pickle = _module("pickle")

    def read_array(about: Any) -> Any:
        if about.dtype.hasobject:
            return Foreign(file).load()
        if about.numpy_array_alignment_bytes:
            _read_exactly(file, _read_exactly(file, 1)[0])
        nbytes = about.dtype.itemsize * math.prod(about.shape)
        if mode:
            [content] = _mapped(file, mode, [nbytes])
        else:
            content = _read_exactly(file, nbytes)
        return _make_array(native, content, about.dtype, about.shape, about.order)

    class Foreign(pickle._Unpickler):  # type: ignore[misc, name-defined]
        def find_class(self, module: str, name: str) -> Any:
            if ".numpy_pickle" not in module:
                return super().find_class(module, name)
            if name != "NumpyArrayWrapper":
                raise _Damaged(
                    "joblib before 0.10 wrote it: load it once with joblib and dump it again"
                )
            return _JoblibArray

        def load_build(self) -> None:
            super().load_build()
            about = self.stack[-1]
            if type(about) is _JoblibArray:
                self.stack[-1] = read_array(about)

        dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}

    return Foreign(file).load()


# ---- Reading values ------------------------------------------------------------------------------


def _read(file: Any, mmap_mode: str | None, native: bool, trusted: bool) -> Any:
    """The value at the current position of a file, in our format."""
    head = _read_exactly(file, 24)
    count, size = struct.unpack_from("<QQ", head, 8)
    body = _read_exactly(file, size + 8 * count + 4)
    # of bytes that end with their own CRC-32 it is this, whatever they are
    if _crc32(body, _crc32(head)) != 0x2144DF1C:
        raise _Damaged("its pickle is damaged: the checksum is wrong")
    if not count and trusted and b"_frombuffer" not in body:
        return _pickle_loads(body)  # what stands behind its end does not matter
    sizes = struct.unpack_from(f"<{count}Q", body, size)
    buffers = _read_buffers(file, mmap_mode, sizes)
    make_array = partial(_make_array, native)
    if not trusted:
        return _read_untrusted(body, buffers, make_array)
    unpickler = _Unpickler(io.BytesIO(body), buffers=buffers)
    unpickler.make_array = make_array
    return unpickler.load()


def _read_value(
    file: Any,
    mmap_mode: str | None = None,
    path: str = "",
    native: bool = True,
    trusted: bool = True,
) -> Any:
    """The value at the current position of a file of any kind; ValueError if it is damaged."""
    file, head = _peek(file)
    unpacked = None
    for codec in () if head == _MAGIC else _CODECS.values():
        if codec.prefix and head.startswith(codec.prefix):
            unpacked = codec.open(file)
            break
    if mmap_mode and (unpacked or not _is_on_disk(file)):
        _warn(
            f"mmap_mode={mmap_mode!r} is ignored for {path}: only an uncompressed file on disk "
            "can be mapped; its arrays are read into memory"
        )
        mmap_mode = None
    try:
        if unpacked:
            if not trusted:
                unpacked.limit = 64 << 20
            file, head = unpacked.peek()
        if head == _MAGIC:
            value = _read(file, mmap_mode, native, trusted)
        elif trusted:
            value = _read_foreign(file, mmap_mode, native)
        else:
            raise UntrustedObjectError(
                "it is not a file of this dump, and only those can be read with trusted=False: "
                "trusted=True reads it if you trust who wrote it"
            )
        if unpacked:
            unpacked.finish()
        return value
    except UntrustedObjectError as error:
        error.args = (f"{path}: {error}",)
        raise
    except _Damaged as error:
        raise ValueError(f"{path}: {error}") from error.__cause__
    except Exception as error:
        if head == _MAGIC and trusted:  # it comes from a class of the user
            raise
        raise ValueError(
            f"{path}: it is neither a file of this dump nor a pickle that can be read here: it "
            f"begins with {head!r} ({type(error).__name__}: {error})"
        ) from error


def _check_mmap_mode(mode: Any) -> None:
    """Refuse what is no way to map a file."""
    _expect(mode in (None, "r", "r+", "w+", "c"), "mmap_mode", "None, 'r', 'r+', 'w+' or 'c'", mode)


def load(
    filename: Any,
    mmap_mode: str | None = None,
    ensure_native_byte_order: Any = "auto",
    *,
    trusted: bool = True,
) -> Any:
    """The value in a file that `dump`, joblib or pickle wrote.

    >>> import io
    >>> file = io.BytesIO()
    >>> dump([1, 2, {"three": 3}], file)
    >>> load(file)
    [1, 2, {'three': 3}]

    Loading a file can run any code that its writer chose, as with `pickle.load`: give
    `trusted=False` for a file from a source you do not trust. Compression is found from the first
    bytes, whatever the name.

    Parameters
    ----------
    filename : path or binary file object
        A file object is read from where it stands; one that stands at its end is rewound.
    mmap_mode : None, "r", "r+", "w+" or "c", default None
        Give arrays as `numpy.memmap` on the file: read-only, shared writing ("w+" is taken as
        "r+"), copy on write. Mapped arrays are not checked for damage. Where a file cannot be
        mapped, a warning says so and the file is read.
    ensure_native_byte_order : bool or "auto", default "auto"
        Turn arrays of the other byte order into this machine's; "auto" does so unless `mmap_mode`
        is given.
    trusted : bool, default True
        False reads only files of this `dump`, and only plain data in them: builtin containers and
        scalars, numpy arrays, masked arrays, dtypes and scalars, and the types of `datetime`,
        `decimal`, `fractions` and `collections`. A compressed file may unpack to 64 MiB and
        100 times its size (of a registered format: 64 MiB). (A hostile file can still use up time
        or, with very deep nesting, the stack.)

    Returns
    -------
    any value
        What was dumped.

    Raises
    ------
    ValueError
        The file is foreign, empty, cut short or damaged: the text names it and says what is wrong.
        Or a parameter is not what it should be.
    UntrustedObjectError
        It is not plain data, and `trusted` is False; a ValueError, too.
    ImportError
        Its compression needs a package that is not installed.
    """
    _check_mmap_mode(mmap_mode)
    _expect(
        ensure_native_byte_order is not True or not mmap_mode,
        "ensure_native_byte_order",
        "'auto' or False with mmap_mode, for a mapped array has the byte order of its file",
        True,
    )
    mode = "r+" if mmap_mode == "w+" else mmap_mode
    native = ensure_native_byte_order is not False  # of arrays that are read, not mapped
    trusted = trusted is True
    path = _path_of(filename, "read")
    if path is None:
        return _read_value(filename, mode, str(filename), native, trusted)
    with open(path, "r+b" if mode == "r+" else "rb", _BUFFER) as file:
        return _read_value(file, mode, path, native, trusted)


# ==================================================================================================
# 4. Calls in folders
# ==================================================================================================
# Promise: a call that was computed once is read back; never a value that the code and arguments
# of now would not give.
#
# Picture
#
#   location/joblite/v1/<module.function>/<fingerprint>-<arguments>     one file a call:
#       | its key, size and crc32 of: | its metadata pickled | the value as `dump` writes it |
#       its time of change is the time of its last use: the least recently used go first
#   location/joblite/v1/tmp-...     a file being written, renamed into place when it is complete;
#       one that nobody wrote to for an hour was left by a killed process, and is removed
#   location/joblite/v1/lock        8 bytes, the sum of all sizes or more; the bytes behind them are
#       the locks of calls; the first byte is also the lock of who puts an entry into its place
#
#   thread or task -> key lock of this process -> byte of `lock`, for other processes -> compute
#       who would wait for ever, because the one who computes waits for him, computes too
#
#   f(x) -> name the call -> open its file: there? read it, done
#                                 not there? one computes, the others wait -> make room -> rename
#
#   fingerprint = what f is made of, and all of the project that it names: a work list over `hash`
#       f -> code, defaults, annotations, closure, attributes; each global that it names:
#            helper -> its code .., class -> its bases and attributes, data -> content,
#            module held as a value -> all that it holds
#            module that is imported inside a function -> its source, and what this imports
#
# Laws
#   1. A hit opens one file and reads it: no listing, no lock, no writing but a mark of use.
#                                                         test_a_hit_opens_one_file
#   2. Present means complete; whatever is damaged is computed again, with a warning.
#                                                         test_a_flipped_bit_never_lies
#   3. The key of a call holds no path, line or cell number.
#                                                         test_edits_that_change_no_value_hit
#   4. Questions (check_call_in_cache, entries, explain) write nothing.
#                                                         test_questions_change_nothing
#   5. The cache may fail, the call may not: the function's value is returned.
#                                                         test_a_full_disk_costs_a_warning
#   6. The sum in `lock` is never less than the truth: raised before a file appears, counted anew
#      when room has to be made.                               test_killed_writers_leave_no_harm
#   7. Locks only save work: without them a call is computed twice, never wrongly.
#                                                         test_a_read_only_folder_costs_a_warning
#   8. Nobody waits for ever, and no interruption leaves a lock held: it is taken inside `try`,
#      and the first call in the `finally` gives it back.
#                                              test_ctrl_c_at_any_moment_leaves_no_lock_held
#   9. What is not understood counts: a key may differ too often, never too seldom.
#                                                test_two_versions_of_a_module_never_share_a_result
#  10. Naming a call imports nothing and evaluates no annotation. test_naming_a_call_imports_nothing

# --- What a call depends on -----------------------------------------------------------------------

_STARTED = time.time_ns() - 10_000_000  # files carry the time of a clock that ticks so seldom
_CHANGED = " may have changed since it was loaded; restart Python"


# -- whose code is followed


@lru_cache
def _is_installed(folder: str) -> Any:
    """Whether packages in this folder are installed ones, or of the standard library."""
    return (
        os.path.basename(folder) in ("site-packages", "dist-packages")
        or folder.startswith(os.path.dirname(os.__file__))
        or ".dist-info" in " ".join(_list(folder))
    )


def _find_spec(name: str) -> Any:
    """The spec of a module, found without importing anything; None when there is none."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__dict__", {}).get("__spec__")
    parent = name.rpartition(".")[0]
    folders = None
    if parent:
        folders = getattr(_find_spec(parent), "submodule_search_locations", None) or ()
    try:
        return _module("_frozen_importlib")._find_spec(name, folders)
    except (KeyError, ModuleNotFoundError):  # a folder without `__init__`, its package not loaded
        return _module("_frozen_importlib_external").PathFinder._get_spec(name, folders or ())
    except Exception:  # a finder may raise anything; an import meets the same failure
        return None


def _places_of(name: str) -> list[str]:
    """The folder of a package, or all folders of one without an `__init__`, or the file of a
    module; none where that is not known."""
    spec = _find_spec(name)
    found = getattr(spec, "submodule_search_locations", None) or [getattr(spec, "origin", None)]
    return [place for place in found if place and os.sep in place]


def _is_project(module: Any) -> bool:
    """Whether code of the module of that name is followed: all that is neither installed nor of the
    standard library; never this very module, under whatever name."""
    name = str(module)
    if getattr(sys.modules.get(name), "__dict__", {}).get("__all__") == __all__:
        return False
    places = _places_of(name)
    if places and name not in ("__main__", "__mp_main__"):
        depth = 1 + name.count(".")
        return not all(_is_installed(place.rsplit(os.sep, depth)[0]) for place in places)
    parent = name.rpartition(".")[0]
    return _is_project(parent) if parent else name not in sys.stdlib_module_names


def _dotted(thing: Any) -> str:
    """The module and qualified name of a function or class."""
    module = getattr(thing, "__module__", None) or type(thing).__module__
    name = getattr(thing, "__qualname__", thing.__name__)
    return f"{module}.{name}".replace("__mp_main__", "__main__")


def _followed_name(thing: Any) -> str | None:
    """The name of a function, class or module whose content counts: it is of the project, or no
    import finds it; else None."""
    if isinstance(thing, ModuleType):
        return thing.__name__ if _is_project(thing.__name__) else None
    if isinstance(thing, (FunctionType, type)):
        if _is_project(getattr(thing, "__module__", None)) or not _import_name(thing):
            return _dotted(thing)
    return None


# -- files and sources


def _files_in(path: Any) -> dict[str, Any]:
    """The files in a folder, but for what Python keeps beside sources, or "" for a file alone. Each
    with (time of change in ns, size, inode): another one when it is written, or replaced."""
    start = os.fspath(path)
    files = (
        [os.path.join(folder, name) for folder, _, names in os.walk(start) for name in names]
        if os.path.isdir(start)
        else [start]
    )
    found = {}
    for file in sorted(files):
        state = _stat(file)
        if state and "__pycache__" not in file:  # no links that lead nowhere
            found[file.removeprefix(start)] = (
                max(state.st_mtime_ns, state.st_ctime_ns),
                state.st_size,
                state.st_ino,
            )
    return found


def _path_digest(path: Any, suffix: str = "") -> str:
    """The digest of the content of a file, or of all files in a folder; of those that do not end
    with `suffix` only the sizes."""
    found = [
        (
            file,
            _file_digest(os.fspath(path) + file, state) if file.endswith(suffix) else state[1],
        )
        for file, state in _files_in(path).items()
    ]
    return _short_digest(repr(found))


@lru_cache(maxsize=4096)
def _file_digest(file: str, state: Any) -> Any:
    """The digest of a file, which is read again when its state is another one."""
    with open(file, "rb") as stream:
        return _module("hashlib").file_digest(stream, "sha256").digest()


def _imports_of(code: CodeType, package: str) -> list[str]:
    """The modules that code may load, besides the packages around them: for `from a import b`
    perhaps a.b."""
    found = []
    for level, name, names in sorted(_names_in_code(code).imports):
        if level:
            above = package.rsplit(".", level - 1)[0]
            name = f"{above}.{name}".strip(".")
        found += [name, *[f"{name}.{each}" for each in names]]
    return found


@lru_cache(maxsize=4096)
def _read_source(name: str, state: Any) -> tuple[str, list[str], bool]:
    """The digest of the source of a module; the names of all modules that it may import, also
    inside functions; and whether the module, if it is loaded, was loaded from this state."""
    spec, content, imports = _find_spec(name), b"", []
    try:
        content = spec.loader.get_data(spec.origin)
        if spec.origin.endswith(".pyc"):
            content = content[16:]  # behind the header
            code = marshal.loads(content)
        else:
            code = compile(content, spec.origin, "exec", dont_inherit=True)
        imports = _imports_of(code, spec.parent)
    except Exception:  # no code, or of another Python: an import meets the same failure
        pass
    is_certain = name not in sys.modules or state and state[0] < _STARTED
    return _blake2b(content).hex(), imports, is_certain


# -- a quick look at content


class _Look(Pickler):
    """Writes values so that the bytes differ when the content does: containers and plain objects at
    the speed of C, all else by its digest. Nobody reads them."""

    reducer_override: Any


# -- the fingerprint


def _may_change(value: Any) -> bool:
    """Whether the content of a value may change while it stays the same object."""
    if type(value) is tuple:
        return any(map(_may_change, value))
    # these cannot but for the functions inside, which are looked at for themselves
    fixed = FunctionType, types.CodeType, property, staticmethod, classmethod, _Unset
    return not (type(value) in (*_ATOMS, *fixed) or isinstance(value, (type, ModuleType)))


class _Fingerprint:
    """What functions, classes, files and values are made of at one time, followed through the
    project.

    A work list over `hash`: where a function, class or module of the project is met its label goes
    into the digest, and the thing onto the list, to be digested in turn. `parts` is the outcome:
    label or name -> digest of what bears it. The lists below it say where to look whether it still
    holds.
    """

    parameters: _Parameters | None = None  # of the function, with the defaults of now
    in_arguments: dict[Any, _Fingerprint] = {}  # (name, untracked) -> of what was met there

    def __init__(self, roots: Sequence[Any], untracked: frozenset[str]) -> None:
        self.roots = roots
        self.parts: dict[str, str] = {}
        # why this may not be all: nothing may be stored under such a fingerprint
        self.unsure: list[str] = []
        # each (function, its two arguments, what it found)
        self.looks: dict[Any, tuple[Any, ...]] = {}
        self.spaces: list[tuple[Any, int]] = []  # (namespace in which a new name counts, its size)
        self.files: list[tuple[Any, Any]] = []  # (path, its files)
        self.data = list(filter(_may_change, roots))  # what may change and stay the same object
        # names of a module that tell where it lies do not count, even where code reads them
        self._skipped = untracked.union(
            """
            __name__ __file__ __path__ __package__ __spec__ __doc__ __loader__ __cached__
            __builtins__ __annotations__
            """.split()
        )
        self._labels: dict[int, str] = {}  # of things by their id; the list keeps them alive
        self._things: list[tuple[str, Any]] = []
        order = list(map(self._root, roots))
        for label, thing in self._things:  # grows
            self.parts[label] = self._digest(self._describe(thing))
        self.digest = _short_digest(repr((order, sorted(self.parts.items()))), 16)
        self._content = self.data and self._look_at_data()

    def __reduce__(self) -> Any:
        return types.NoneType, ()  # they hold for this process

    # - whether it holds

    def holds(self) -> bool:
        """Whether everything met is still as it was: first what is cheap to compare."""
        for how, first, second, found in self.looks.values():
            if how(first, second) is not found:
                return False
        for space, size in self.spaces:
            if len(space) != size:
                return False
        if self.files and not self.files_hold():
            return False
        return not self.data or self._look_at_data() == self._content

    def files_hold(self) -> bool:
        """Whether no file has changed."""
        return all(_files_in(path) == found for path, found in self.files)

    def _look_at_data(self) -> int:
        """A number that changes when the content of a value does: every byte counts in its
        place."""
        file = io.BytesIO()
        look = _Look(file, 5)
        look.reducer_override = self._reduced
        try:
            look.dump(self.data)
        except Exception:  # too deep, or changed by another thread meanwhile: never the same
            return time.time_ns()
        return _crc32(file.getbuffer())

    def _reduced(self, obj: Any) -> Any:
        """What stands for an object in a quick look."""
        kind: Any = type(obj)
        try:
            reduced = obj.__reduce_ex__(5) if _way_of(kind) is _object_parts else None
        except Exception:  # a lock, a connection; its class may raise anything
            reduced = None
        if type(reduced) is tuple or obj is id:
            return reduced
        return id, (_digest(obj, _crc32, follow=self.label, take_apart=self.object_parts),)

    def _value(
        self, how: Callable[[Any, Any], Any], first: Any, second: Any, added: Any = ()
    ) -> Any:
        """What `how(first, second)` finds, where its content counts, too; it is asked again at each
        call. Of a plain container that code only adds to, its type alone: `added` are the names of
        these."""
        entry = how, first, second, how(first, second)
        value = self.looks.setdefault((how, id(first), id(second)), entry)[3]
        kind = type(value)
        if first in added and kind in (list, set, dict, deque):  # these exactly
            return kind
        if how is getattr and kind is dict:  # names of a function
            return self._hold(value)
        if _may_change(value):
            self.data.append(value)
        return value

    def _hold(self, space: Any) -> dict[str, Any]:
        """What a namespace holds, where a new name counts."""
        self.spaces.append((space, len(space)))
        names = _without(space, _CLASS_NOISE)
        return {name: self._value(space.get, name, _NOTHING) for name in names}

    # - what hash asks

    def label(self, thing: Any, is_followed: bool = False) -> str | None:
        """The label of a thing that is followed; when it is new, it is described later."""
        key = id(thing)
        if key not in self._labels:
            name = _dotted(thing) if is_followed else _followed_name(thing)
            if name:
                self._labels[key] = label = self._note(name, str(len(self._things)))
                self._things.append((label, thing))
        return self._labels.get(key)

    def object_parts(self, digester: Any, obj: Any) -> Any:
        """The content of an object; of a package's, all of it or, where some cannot be pickled,
        only what it wraps."""
        kind: Any = type(obj)
        home = kind.__module__
        holds = "builtins collections dataclasses functools operator types typing"
        try:
            if kind in _PARTS or home in holds.split() or _followed_name(kind):
                return _way_of(kind)(digester, obj)
            # not what others keep alive, the environment, and what is ours
            if home not in ("weakref", "_weakrefset", "os", __name__):
                return "content", kind, _digest(obj, digester.new, follow=self.label)
        except PicklingError:  # a lock, a file
            pass
        held = getattr(obj, "__dict__", {})
        return "no content", kind, *map(held.get, ("__wrapped__", "func", "py_func"))

    # - the work list

    def _root(self, root: Any) -> str:
        """Note a root: of a path its content; of an installed function its package, too. Gives what
        stands for it."""
        if isinstance(root, os.PathLike):
            os.stat(root)  # one that does not exist is an error
            self.files.append((root, _files_in(root)))
            return self._note(f"file {os.path.basename(root)}", _path_digest(root))
        if hasattr(root, "__name__"):
            package = _dotted(root).partition(".")[0]
            for place in () if _is_project(package) else _places_of(package):
                self._note(package, _path_digest(place, ".py"))
                if any(state[0] >= _STARTED for state in _files_in(place).values()):
                    self.unsure.append(package + _CHANGED)
        # the code of a function counts wherever it lies
        label = self.label(root, isinstance(root, FunctionType))
        return label or self._note("version, depends or key", self._digest(root))

    def _note(self, name: str, digest: str) -> str:
        """Note the digest of what is known as `name`; gives what stands for it: the name, or where
        that stands for another, both."""
        if self.parts.setdefault(name, digest) != digest:
            name += f" ({digest})"
            self.parts[name] = digest
        return name

    def _digest(self, value: Any) -> str:
        try:
            return _digest(value, _blake2b, False, self.label, self.object_parts).hex()[:20]
        except Exception as err:  # a hasher of the user may raise anything
            self.unsure.append(f"a value of {type(value)} cannot be hashed: {err!r}")
            return ""

    def _describe(self, thing: Any) -> list[Any]:
        """What a thing on the list is made of."""
        if isinstance(thing, FunctionType):
            return self._describe_function(thing)
        space = vars(thing)
        self.spaces.append((space, len(space)))
        if isinstance(thing, type):
            members = map(vars, space.get("_member_map_", {}).values())  # of an enum
            attributes = _contents(thing, _CLASS_NOISE, self._value)[0]
            return [type(thing), attributes, *map(self._hold, members)]
        inside = f"{thing.__name__}."
        # what is imported lazily into a module, since Python 3.15
        lazy = getattr(sys, "lazy_modules", ())
        self._follow_sources([name for name in lazy if name.startswith(inside)])
        # but for the interpreter's own names, and IPython's history
        others = r".*\.__.*__|__main__\.(_+|In|Out|_i*\d*|_[iod]h|get_ipython|exit|quit)"
        return [
            (name, self._global_token(space, (name,)))
            for name in [*space]
            if not _module("re").fullmatch(others, inside + name)
        ]

    def _describe_function(self, function: FunctionType) -> list[Any]:
        """The same of a function: its own parts, and what its code reads."""
        code, space = function.__code__, function.__globals__
        used = _names_in_code(code)
        attributes, variables, _ = _contents(function, (), partial(self._value, added=used.added))
        about: list[Any] = [*attributes.values(), *variables.items()]
        if id(function) in map(id, self.roots) or _is_project(space.get("__name__")):
            for chain in sorted(used.chains):
                about += [chain, self._global_token(space, chain, used.added)]
            self._follow_sources(_imports_of(code, space.get("__package__") or ""))
        return about

    def _global_token(self, space: Any, chain: Sequence[str], added: Any = ()) -> str:
        """The token of a global name; where it is a module of the project, of what that holds under
        the next name. `added`: the names of what code only adds to."""
        name, *rest = chain
        if name in self._skipped:
            return "not tracked"
        value = self._value(space.get, name, _NOTHING, added)
        if type(value).__name__ == "lazy_import":  # of Python 3.15; its text is <lazy_import 'a.b'>
            lazy = repr(value).split("'")[1]
            self._follow_sources([lazy])
            # as it will be when it is loaded, if it is a module: of `import a.b` that is `a`
            value = ModuleType(name if lazy.startswith(f"{name}.") else lazy)
        if rest and isinstance(value, ModuleType) and _is_project(value.__name__):
            space = vars(value)
            if type(value) is not ModuleType:  # its class may have properties
                self.label(type(value))
            if rest[0] not in space:
                # a module inside it that is not loaded, or what its `__getattr__` makes, perhaps
                # from any module inside it
                self._global_token(space, ("__getattr__",))
                modules = [".".join([value.__name__, *rest])]
                for folder in space.get("__path__", ()):
                    modules += [  # of a.b.py it finds a.b, which is around it
                        value.__name__ + file.replace(os.sep, ".") for file in _files_in(folder)
                    ]
                self._follow_sources(modules)
            return self._global_token(space, rest)
        if value is _NOTHING:
            return "nothing"
        known_as = f"{space.get('__name__')}.{name}".replace("__mp_main__", "__main__")
        return self.label(value) or self._note(known_as, self._digest(value))

    def _follow_sources(self, modules: list[str]) -> None:
        """Note the sources of modules of the project, of the packages around them, and of those
        that they import in turn."""
        for name in modules:  # grows
            what = f"the source of {name}"
            if not name or what in self.parts or not _is_project(name):
                continue
            self.parts[what] = ""
            modules.append(name.rpartition(".")[0])
            spec = _find_spec(name)
            file = getattr(spec, "origin", None)
            if file:
                file = getattr(spec.loader, "archive", file)  # of a zip file
                found = _files_in(file)
                self.files.append((file, found))
                self.parts[what], imports, is_certain = _read_source(name, found.get(""))
                modules += imports
                if not is_certain:
                    self.unsure.append(what + _CHANGED)
            elif spec is None:  # it may have been made by `exec`
                self.label(sys.modules.get(name))


def _fingerprint_of(
    kept: dict[Any, _Fingerprint], key: Any, roots: Sequence[Any], untracked: frozenset[str]
) -> _Fingerprint:
    """The fingerprint of roots as they are now: the one kept under the key, unless something
    differs."""
    fingerprint = kept.get(key)
    if not (fingerprint and fingerprint.roots[0] is roots[0] and fingerprint.holds()):
        kept[key] = fingerprint = _Fingerprint(roots, untracked)
    return fingerprint


def _label_in_arguments(untracked: frozenset[str], unsure: list[str], thing: Any) -> str | None:
    """What stands for a function, class or module of the project in an argument: its fingerprint.
    Why this may not be all goes to `unsure`."""
    name = _followed_name(thing)
    if not name:
        return None
    kept = {} if "<" in name else _Fingerprint.in_arguments  # what functions make may hold much
    fingerprint = _fingerprint_of(kept, (name, untracked), (thing,), untracked)
    unsure += fingerprint.unsure
    return fingerprint.digest


# --- What a call is named -------------------------------------------------------------------------


class _Parameters:
    """The parameters of a callable: `bind` turns the spellings of a call into one dict of
    arguments.

    Of what is no Python function, as of a partial or a builtin, nothing is known. A decorator that
    hands on what it gets has the names of the function inside, and may tell f(1), f(1, 2) and
    f(1, b=2) apart: there the spelling counts, as it does where nothing is known.
    """

    def __init__(self, function: Any) -> None:
        # without `inspect`, which takes 15 ms to import
        plain = function if type(function) is FunctionType else lambda *args, **kwargs: None
        code = plain.__code__
        end = code.co_argcount + code.co_kwonlyargcount
        self.names = code.co_varnames[:end]
        self.placed = self.names[: code.co_argcount]
        self.takes_more = code.co_flags & 12  # than it names
        self.inside: tuple[str, ...] = ()  # the names of the arguments that are handed on
        # A function of the same parameters gives what it gets: Python itself binds, or refuses
        self.stars = stars = ("*",)[: code.co_flags & 4] + ("**",)[: code.co_flags & 8]
        giving = (lambda: locals()).__code__.replace(
            co_argcount=code.co_argcount,
            co_posonlyargcount=code.co_posonlyargcount,
            co_kwonlyargcount=code.co_kwonlyargcount,
            co_flags=3 | self.takes_more,  # as each function has, and those of the stars
            co_varnames=(*self.names, *stars),
            co_nlocals=end + len(stars),
            co_qualname=plain.__qualname__,
        )
        self.named: Any = FunctionType(giving, {}, "", plain.__defaults__)
        self.named.__kwdefaults__ = plain.__kwdefaults__
        if self.takes_more and hasattr(function, "__wrapped__"):
            below = _Parameters(function.__wrapped__)
            if below.names[:end] == self.names:
                self.names, self.placed, self.inside = below.names, below.placed, below.placed[end:]
                self.stars = ()  # what they hold has names inside

    def bind(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], ignore: Iterable[str]
    ) -> dict[str, Any]:
        """The arguments of a call with their labels, defaults included; a TypeError, as the
        function raises it, where they do not fit."""
        given: dict[str, Any] = self.named(*args, **kwargs)
        if not (self.takes_more or ignore):
            return given
        more = given.get("*", ())
        named = dict(sorted(given.get("**", {}).items()))
        given |= zip(self.inside, more)
        given |= {"*": more[len(self.inside) :], "**": named}
        for name in ignore:
            (given if name in given else named).pop(name, None)
        return {label: value for label, value in given.items() if label not in ("*", "**") or value}


def _shown_all(given: dict[str, Any]) -> dict[str, str]:
    """Values as short texts for people."""
    shown = {}
    for label, value in given.items():
        try:
            shown[label] = _module("reprlib").repr(value)
        except Exception as err:  # the class of an argument may fail in any way
            shown[label] = f"<no text: {err!r}>"
    return shown


def _joined(shown: dict[str, str]) -> str:
    return ", ".join(map("=".join, shown.items()))


# --- Where entries are kept -----------------------------------------------------------------------


class _KeyLock:
    """The right to compute a key, which one cached call of this process has at a time.

    Who waits looks again now and then. Only `held` says who has the right, so that an interruption
    at any moment leaves no doubt about it. `around` are the rights of the cached calls in which
    this one is made; tasks inherit them from who makes the task.
    """

    held: dict[Any, _KeyLock] = {}  # key -> who computes it; no lock, which a fork could find held
    waits: dict[_KeyLock, _KeyLock] = {}  # who waits inside another call -> for what
    inside: ContextVar[tuple[_KeyLock, ...]] = ContextVar("inside", default=())
    unlock: Callable[[], Any] = bool  # what other processes wait for; nothing yet

    def __init__(self, store: Any, key: str) -> None:
        self.around = self.inside.get()
        self.store = store
        self.key = key
        self.place = os.getpid(), store.location, key

    def is_ours(self, is_awaited: bool) -> bool:
        """Whether the right is ours now, or waiting for it would never end.

        It would never end where a call around this one has the right, or one that waits for such a
        call, directly or through others. Of those who wait in a ring, the last sees the whole ring.
        """
        current = self.held.setdefault(self.place, self)
        to_end = {current}
        while to_end.isdisjoint((self, *self.around)):
            if self.around:
                self.waits[self] = current
            waits = list(self.waits.items())
            more = {other for lock, other in waits if to_end.intersection(lock.around)}
            if more <= to_end:
                return False
            to_end |= more
        self.waits.pop(self, None)
        try:  # now between processes
            self.file = file = self.store.locks or self.store.lock_file(self.key)  # stays open
        except OSError:
            return True  # in memory, or where nothing can be written, there are no locks: law 7
        byte = 8 + _crc32(self.key.encode())
        self.unlock = file.unlocker(byte)
        if file.lock(byte):
            return True
        # Only a call inside another one, or one that such a call waits for, can be in a ring.
        # It waits in the system, which sees rings: one thread at a time, because of each
        # process the system follows one. A task does not wait there at all: it computes.
        is_in_ring = bool(self.around) or self in list(self.waits.values())
        if is_in_ring and not is_awaited:
            _one_at_a_time("a ring", file.lock, byte, True)
        return is_in_ring


if TYPE_CHECKING:

    class _Interface:
        """What `register_store_backend` describes; and what stores know."""

        location: str | None
        write: Any
        delete: Any
        entries: Any
        _guest: Any
        # in memory and on disk
        limit: int
        _kept: dict[str, list[Any]]
        _total: int
        _mode: int
        _secret: bytes | None
        _root: str
        _folders: tuple[str, str, str]
        _is_checked: Any
else:
    _Interface = object


class _Store(_Interface):
    """What every store does. This one hands on to a store of the user."""

    locks: Any = None  # the file whose bytes are locks, once it is open

    def __init__(self, backend: Any, location: Any, limit: int, **options: Any) -> None:
        guest = backend(location, **options)
        vars(self).update(
            location=location,
            _guest=guest,
            write=guest.write,
            delete=guest.delete,
            entries=guest.entries,
        )

    def __str__(self) -> str:
        return self.location or "the memory of this process"

    def open(self, key: str, mmap_mode: str | None) -> Any:
        """A binary file that holds the entry; None when there is none."""
        return self._guest.open(key)

    def mark(self, key: str) -> None:
        """Note that an entry is used now."""

    def lock_file(self, key: str) -> _LockFile:
        """The file whose bytes are locks; an error where all keys are free."""
        raise OSError

    def clear(self, prefix: str, say: Any) -> None:
        """Remove all entries whose key begins with `prefix`."""
        if say:
            _say(f"removing all results from {self}/{prefix}")
        if self.trim(0, 0, prefix=prefix):
            _warn(f"{self}/{prefix}: results that are in use or belong to another user stay")

    def forget(self, key: str) -> bool:
        """Remove an entry as the user asks; one that is in use stays, with a warning."""
        try:
            return self.delete(key)
        except PermissionError as err:
            _warn(f"{self}: the entry {key} is in use or belongs to another user, and stays: {err}")
            return False

    def look(self, key: str) -> dict[str, Any]:
        """What is noted about an entry; empty when there is none that can be read. No use of it."""
        try:
            with self.open(key, None) as file:
                return _pickle_loads(self._about(file, key))
        except Exception:  # there is nothing, or whatever it is that lies there
            return {}

    def _about(self, file: Any, key: str) -> Any:
        """What is noted about an entry (pickled); leaves the file where the value begins."""
        found, size, crc = file.readline().split()  # another number of words raises: damaged, too
        about = file.read(int(size))
        if found != key.encode() or int(crc) != _crc32(about):
            raise _Damaged("its header does not belong to this call")
        return about

    def load(
        self, key: str, mmap_mode: str | None, default: Any = _NOTHING, quiet: bool = False
    ) -> Any:
        """The value of an entry, arrays mapped where it lies on disk as it is.

        The default when there is none or, with a warning, when it is damaged.
        """
        mode = "r+" if mmap_mode == "w+" else mmap_mode
        try:
            file = self.open(key, mode)
            if file is None:
                return default
            with file:
                self._about(file, key)
                mode = mode if mode and _is_on_disk(file) else None
                value = _read_value(file, mode, key)
            self.mark(key)
            return value
        except Exception as err:  # a pickle whose classes are gone may raise anything
            if not quiet:
                _warn(f"{self}: the entry {key} cannot be read and counts as missing: {err}")
            return default

    def trim(
        self,
        most: float,
        items: float = sys.maxsize,
        oldest: float = 0.0,
        prefix: str = "",
    ) -> int:
        """Remove the least recently used entries until at most so many bytes and items are left,
        and none was last used before `oldest`. What cannot be removed is passed over. Gives the
        bytes that are left."""
        entries = sorted(self.entries(prefix), key=operator.itemgetter(2))
        count = len(entries)
        total = sum(size for _, size, _ in entries)
        for key, size, used in entries:
            if total <= most and count <= items and used >= oldest:
                break
            try:
                self.delete(key)
                total -= size
                count -= 1
            except OSError:
                pass  # mapped, on Windows; or another user's; or no entry of ours
        return total

    def total_with(self, size: int, total: Any) -> Any:
        """The bytes of all entries together with one of this size, when there is room for it;
        without it they have `total` or less. If any have to go, a tenth is made free, so that one
        look serves many writes."""
        if total + size > self.limit < sys.maxsize:
            total = self.trim(min(self.limit - size, 0.9 * self.limit))
        return total + size


class _RamStore(_Store):
    """Keeps entries as bytes, for as long as it lives."""

    def __init__(self, limit: int) -> None:
        vars(self).update(
            location=None,
            limit=limit,
            _kept={},  # key -> [time of the last use, content]
            _total=0,  # bytes, or more: what was deleted stays in it until room is made
        )

    def __reduce__(self) -> Any:
        return _RamStore, (self.limit,)  # memory does not travel: a copy begins empty

    def open(self, key: str, mmap_mode: str | None) -> Any:
        found = self._kept.get(key)
        return found and io.BytesIO(found[1])

    def mark(self, key: str) -> None:
        self._kept.get(key, [0.0])[0] = time.time()

    def write(self, key: str, fill: Callable[[Any], None]) -> None:
        file = io.BytesIO()
        fill(file)
        self.delete(key)
        if file.tell() <= self.limit:
            self._total = self.total_with(file.tell(), self._total)
            self._kept[key] = [time.time(), file.getvalue()]

    def delete(self, key: str) -> bool:
        return self._kept.pop(key, None) is not None

    def entries(self, prefix: str) -> Iterable[tuple[str, int, float]]:
        return [
            (key, len(each), used)
            for key, (used, each) in list(self._kept.items())
            if key.startswith(prefix)
        ]


def _small_file(path: str) -> Any:
    """What a small file holds, as a file in memory: read at once, it takes half of the time that a
    file object takes. None for a bigger one."""
    fd = os.open(path, os.O_RDONLY)
    try:
        content = os.read(fd, _BUFFER)
        return None if os.read(fd, 1) else io.BytesIO(content)
    finally:
        os.close(fd)


class _DiskStore(_Store):
    """Keeps each entry in a file of `location/joblite/v1`; other formats would be beside it.

    With a secret, each file begins with a signature of the key and of all that follows. What has no
    right one is never unpickled.
    """

    def __init__(
        self, location: str, limit: int, mode: int = 0o700, secret: bytes | None = None
    ) -> None:
        _expect(
            isinstance(secret or b"", bytes), "backend_options: secret", "some bytes", type(secret)
        )
        root = location + "/joblite/v1/"
        vars(self).update(
            location=location,
            limit=limit,
            _mode=mode,
            _secret=secret,  # b"": it has been left behind
            _root=root,
            _folders=(location, location + "/joblite", root),
            # whether others can write to them has been looked at, or is as the user wants
            _is_checked=IS_WINDOWS or mode & 0o022,
        )

    def __reduce__(self, secret: bytes | None = b"") -> Any:  # workers get the secret, files do not
        return (
            _DiskStore,
            (self.location, self.limit, self._mode, self._secret and secret),
            {"_is_checked": self._is_checked},
        )

    def _signature(self, key: str, content: bytes) -> bytes:
        if not self._secret:
            raise OSError("its secret does not travel in files: make the Memory here, with it")
        return _module("hmac").digest(self._secret, key.encode() + b"\n" + content, "sha256")

    def _check_folders(self) -> None:
        """Warn, at the first use, of a folder into which somebody else can put entries."""
        self._is_checked = True
        for folder in self._folders:
            state = os.stat(folder)
            others = 0o002 if state.st_gid == state.st_uid else 0o022  # a group of one user
            if folder == self.location and state.st_mode & stat.S_ISVTX:
                others = 0  # as in /tmp: nobody can put another folder in the place of ours
            if state.st_mode & others or state.st_uid not in (0, os.geteuid()):
                _warn(
                    f"{folder}: this cache belongs to another user, or others can write to it, "
                    "and what is read from a cache can run code; use a folder of your own, or "
                    f"remove that right with: chmod go-w {folder}"
                )
                return

    def open(self, key: str, mmap_mode: str | None) -> Any:
        try:
            if not self._is_checked:
                self._check_folders()
            path = self._root + key
            # from a descriptor Windows would read text
            file = None if mmap_mode or IS_WINDOWS else _small_file(path)
            # the size saves a look
            file = file or open(path, "r+b" if mmap_mode == "r+" else "rb", 8192)
        except OSError:
            return None  # not there; or not readable, then writing fails too and says so
        if self._secret is None:
            return file
        with file:
            signature = file.read(32)
            content = file.read()
        if not _module("hmac").compare_digest(signature, self._signature(key, content)):
            raise _Damaged("it was not written with the secret of this cache")
        return io.BytesIO(content)

    def mark(self, key: str) -> None:
        now = time.time_ns()  # the system's own clock is too coarse
        try:
            os.utime(self._root + key, ns=(now, now))
        except OSError:
            pass  # there is none; or a read-only folder, another user's file: the older mark stays

    def write(self, key: str, fill: Callable[[Any], None]) -> None:
        name = "tmp-" + os.urandom(8).hex()
        locks = self.lock_file(key)
        unlock = locks.unlocker(0)

        def put_in_place() -> None:
            # The number in the lock file is at least the sum of all sizes: files that were removed
            # or replaced stay in it until somebody has to make room, and counts. An unknown one
            # is larger than any limit. Without locks it is not trusted, and emptied, so that
            # nobody else trusts it
            try:
                while not locks.lock(0):  # no wait in the system, which would hide a ring: it
                    time.sleep(0.0002)  # follows one wait of a process
                number = locks.fcntl and os.pread(locks.fd, 8, 0)
                total = self.total_with(size, int.from_bytes(number) if number else sys.maxsize)
                if locks.fcntl:
                    os.pwrite(locks.fd, total.to_bytes(8), 0)
                else:
                    open(locks.path, "wb").close()
                os.replace(self._root + name, self._root + key)
            finally:
                unlock()

        try:
            with open(self._root + name, "xb", 8192) as file:
                if self._secret is None:
                    fill(file)
                else:
                    plain = io.BytesIO()
                    fill(plain)
                    file.write(self._signature(key, plain.getvalue()) + plain.getvalue())
                size = file.tell()
            self.mark(name)
            if size <= self.limit:
                _one_at_a_time(locks.path, put_in_place)
            else:
                self.delete(key)
                self.delete(name)
        except BaseException:
            self.delete(name)
            raise

    def delete(self, key: str) -> bool:
        return _unlink(self._root + key)

    def entries(self, prefix: str) -> Iterable[tuple[str, int, float]]:
        """Each function has a folder, "module.function/"; "/" is the folder of all these."""
        for folder in [prefix.rpartition("/")[0]] if prefix else _list(self._root):
            for name in _list(self._root + folder):
                key = f"{folder}/{name}"
                state = _stat(self._root + key)
                if state and key.startswith(prefix):
                    yield key, state.st_size, state.st_mtime

    def lock_file(self, key: str) -> _LockFile:
        """The lock file. Where they are missing it makes all folders of this entry, with our mode
        whatever the umask. What a killed process left half-written goes when it is an hour old, as
        a process opens the lock file."""
        path = self._root + "lock"
        folder = os.path.dirname(self._root + key)
        for each in () if os.path.isdir(folder) else (*self._folders, folder):
            if not os.path.isdir(each):
                os.makedirs(each, self._mode, exist_ok=True)
                os.chmod(each, self._mode)
                if each == self._folders[1]:
                    with open(each + "/.gitignore", "w") as file:
                        file.write("*\n")

        def opened_once() -> _LockFile:
            file = _LockFile.opened.get(path)
            if not (file and file.is_there()):
                file = _LockFile.opened[path] = _LockFile(path)
                # the folder's time is of the same clock as the times of its files
                self.trim(sys.maxsize, oldest=os.stat(self._root).st_mtime - 3600, prefix="/tmp-")
            return file

        if not (self.locks and self.locks.is_there()):
            self.locks = _one_at_a_time("opening", opened_once)
        return self.locks


def _local_store(location: str | None, limit: int, **options: Any) -> _Store:
    """What `backend="local"` stands for."""
    return _RamStore(limit) if location is None else _DiskStore(location, limit, **options)


_STORES: dict[str, Callable[..., _Store]] = {
    "local": _local_store,
    "cloudpickle": _local_store,
    "null": lambda location, limit: _RamStore(0),
}


def register_store_backend(backend_name: str, backend: Callable[..., Any]) -> None:
    """Let `Memory(location, backend=backend_name, ...)` keep results in a store of yours.

    >>> class Dictionary:
    ...     def __init__(self, location): self.kept = {}
    ...     def open(self, key): return io.BytesIO(self.kept[key]) if key in self.kept else None
    ...     def write(self, key, fill):
    ...         file = io.BytesIO()
    ...         fill(file)
    ...         self.kept[key] = file.getvalue()
    ...     def delete(self, key): return self.kept.pop(key, None) is not None
    ...     def entries(self, prefix):
    ...         return [(key, len(kept), 0.0) for key, kept in self.kept.items()]
    >>> register_store_backend("dictionary", Dictionary)
    >>> cached = Memory("anywhere", backend="dictionary").cache(pow)
    >>> cached(2, 10), cached.check_call_in_cache(2, 10)
    (1024, True)

    Parameters
    ----------
    backend_name : str
        The name for `backend=`.
    backend : callable
        Called as `backend(location, **backend_options)`; gives an object with these methods. Keys
        are texts of letters, digits and `._-/`.
        `open(key)`: a readable binary file with what was written, or None.
        `write(key, fill)`: call `fill(file)` with a writable binary file, and keep what it writes,
        all or nothing.
        `delete(key)`: whether there was something.
        `entries(prefix)`: (key, size in bytes, time of last use in seconds since 1970) of all keys
        that begin with `prefix`.
    """
    _STORES[backend_name] = partial(_Store, backend)


# --- The cached function --------------------------------------------------------------------------


class CacheEntry(namedtuple("CacheEntry", "arguments time duration nbytes current args_id")):
    """What `entries()` tells of one entry, as a named tuple.

    >>> cached = Memory().cache(pow)
    >>> _ = cached(2, 10)
    >>> cached.entries()[0].current
    True

    `arguments`: their text. `time`: when it was computed (seconds since 1970). `duration`: how long
    that took (seconds). `nbytes`: its size. `current`: whether today's code of the function finds
    it. `args_id`: its name.
    """


class expires_after:
    """A `cache_validation_callback` that lets a result be used for a limited time.

    >>> @Memory().cache(cache_validation_callback=expires_after(hours=1))
    ... def price(item): return 3
    >>> price("tea")
    3

    Parameters
    ----------
    days, seconds, microseconds, milliseconds, minutes, hours, weeks : float, default 0
        How long, in all; as in `datetime.timedelta`.
    """

    def __init__(
        self,
        days: float = 0,
        seconds: float = 0,
        microseconds: float = 0,
        milliseconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        weeks: float = 0,
    ) -> None:
        self.delta = _module("datetime").timedelta(
            days, seconds, microseconds, milliseconds, minutes, hours, weeks
        )

    def __call__(self, metadata: dict[str, Any]) -> bool:
        """Whether a result with this metadata may still be used."""
        return time.time() - metadata["time"] < self.delta.total_seconds()


if TYPE_CHECKING:

    class _Reference:
        """What a `MemorizedResult` is made of."""

        location: str | None
        func: str
        args_id: str
        mmap_mode: str | None
        _store: _Store
        _key: str
        _kept: tuple[Any, ...]  # the value itself, where the store does not have it

    class _Options(_Typed[P, R]):
        """What `Memory.cache` was given, and what it found out about the function."""

        func: Any  # perhaps a classmethod
        ignore: list[str]
        verbose: int
        mmap_mode: str | None
        cache_validation_callback: Callable[[dict[str, Any]], Any] | None
        key: Callable[..., Any] | None
        depends: tuple[Any, ...]
        version: Any
        untracked: frozenset[str]
        _prefix: tuple[Any, ...]  # the object of a bound method
        _run: Callable[..., Any]  # takes the object of a bound method as its first argument
        _unbound: Any  # what was bound to the object of a bound method
        _carried: dict[str, Any]  # what counts like an argument: the content of a callable object
        _awaited: bool
        _fingerprints: dict[Any, Any]
        _roots: tuple[Any, ...]
        _folder: str
        _memory: Memory
        _store: Any

    class _Settings:
        """What `Memory` was given, and its store."""

        location: str | None
        backend: str
        mmap_mode: str | None
        compress: Any
        verbose: int
        store: _Store
        _packed: Any  # a method of compression and its level
        _pickler: Any

    class _Cache(Protocol):
        """What `Memory.cache` is to a type checker."""

        @overload
        def __call__(
            self,
            func: Callable[P, R],
            ignore: Iterable[str] | None = None,
            verbose: int | None = None,
            mmap_mode: Mode | Literal[False] = False,
            cache_validation_callback: Callable[[dict[str, Any]], Any] | None = None,
            *,
            key: Callable[..., Any] | None = None,
            depends: os.PathLike[str] | Iterable[Any] = (),
            version: Any = None,
            untracked: Iterable[str] = (),
        ) -> MemorizedFunc[P, R]: ...

        @overload
        def __call__(
            self,
            func: None = None,
            ignore: Iterable[str] | None = None,
            verbose: int | None = None,
            mmap_mode: Mode | Literal[False] = False,
            cache_validation_callback: Callable[[dict[str, Any]], Any] | None = None,
            *,
            key: Callable[..., Any] | None = None,
            depends: os.PathLike[str] | Iterable[Any] = (),
            version: Any = None,
            untracked: Iterable[str] = (),
        ) -> Callable[[Callable[P, R]], MemorizedFunc[P, R]]: ...

    @overload
    def _get(self: MemorizedFunc[P, R], obj: None, owner: Any = None) -> MemorizedFunc[P, R]: ...

    @overload
    def _get(
        self: MemorizedFunc[Concatenate[Object, Rest], R], obj: Object, owner: Any = None
    ) -> MemorizedFunc[Rest, R]: ...

    def _get(*args: Any, **options: Any) -> Any: ...

    _typed_get = _typed_as(_get)

    def _typed(method: Any) -> _Cache: ...
else:
    _Options = _Typed
    _Reference = _Settings = object
    _typed = _typed_get = _as_it_is


class MemorizedResult(_Reference):
    """A result that stays in the cache until it is asked for; it can be sent to other processes.

    >>> result = Memory().cache(pow).call_and_shelve(2, 10)
    >>> result.get()
    1024

    `call_and_shelve` makes them. So does pasting what their `repr` shows.

    Parameters
    ----------
    location : str or None
        The folder of the cache; None where results are in memory.
    func, args_id : str
        The names of the function's folder, and of the entry in it.
    mmap_mode : None, "r", "r+", "w+" or "c", default None
        How `get` maps arrays, see `Memory`.
    """

    def __init__(
        self,
        location: str | None,
        func: str,
        args_id: str,
        mmap_mode: str | None = None,
        *,
        store: Any = None,
    ) -> None:
        vars(self).update(
            location=location,
            func=func,
            args_id=args_id,
            mmap_mode=mmap_mode,
            _store=store or Memory(location).store,
            _key=func + "/" + args_id,
            _kept=(),
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """What `call` of a cached function gives with the value; empty if the entry is gone."""
        return self._store.look(self._key)

    def get(self) -> Any:
        """Read the value from the cache, at each call anew.

        >>> Memory().cache(pow).call_and_shelve(2, 10).get()
        1024

        Returns
        -------
        any value

        Raises
        ------
        KeyError
            The entry has been removed or is damaged.
        """
        if self._kept:
            return self._kept[0]
        value = self._store.load(self._key, self.mmap_mode)
        if value is _NOTHING:
            raise KeyError(f"{self!r} is not in the cache any more; call the function again")
        return value

    def clear(self) -> None:
        """Remove the value from the cache; a second time does nothing.

        >>> Memory().cache(pow).call_and_shelve(2, 10).clear()
        """
        self._kept = ()
        self._store.forget(self._key)

    def __getstate__(self) -> dict[str, Any]:
        # a cache in memory does not travel, so the value does
        return {**vars(self), "_kept": self._kept if self.location else (self.get(),)}

    def __repr__(self) -> str:
        text = "MemorizedResult(location={location!r}, func={func!r}, args_id={args_id!r})"
        return text.format_map(vars(self))


# One call of a cached function. given: its arguments with their labels; digests: what stands for
# each in the key; refused: the metadata that the callback refused; fingerprint: of the function, as
# it was; unsure: why this may not be all, then nothing is stored.
_Call = namedtuple("_Call", "args kwargs given digests key refused fingerprint unsure")


class MemorizedFunc(_Options[P, R]):
    """A function that remembers: what `Memory.cache` gives. Call it as the function itself.

    >>> cached = Memory().cache(pow)
    >>> cached(2, 10), cached.check_call_in_cache(2, 10), cached.check_call_in_cache(3, 3)
    (1024, True, False)

    Its methods take the arguments of a call; `Memory.cache` lists them. It binds to objects as a
    method does, pickles, and is awaited where the function is a coroutine function (then `call` and
    `call_and_shelve` are awaited, too). `func`, `ignore` and `mmap_mode` tell how it was made.
    """

    def __init__(self, func: Any, memory: Any, options: dict[str, Any]) -> None:
        run = getattr(func, "__func__", func)
        update_wrapper(self, run)
        # Whose code it is; a partial or an object has more than that
        holder: Any = run.func if isinstance(run, partial) else run
        called = holder
        if not hasattr(holder, "__name__"):
            holder = type(holder)
            called = holder.__call__
        flags = getattr(getattr(called, "__code__", None), "co_flags", 0)
        # The folder has the function's name, as far as a folder can; another name, another folder
        name = _dotted(holder)
        folder = ".".join(
            each for each in name.split(".") if each.isidentifier() and each.isascii()
        )[-60:]
        if folder != name:
            folder += "-" + _short_digest(name, 8)
        vars(self).update(
            options,
            func=func,
            _run=run,
            _prefix=(),
            _carried={} if holder is run else {"(object)": run},
            _awaited=bool(flags & 0x80),  # written with `async def`
            _folder=folder,
            _fingerprints={},
            _memory=memory,
            _store=memory.store,
        )
        code = holder if self.version is None else ("version", self.version)
        self._roots = (code, *self.depends, self.key)
        # What cannot work is refused now
        _check_mmap_mode(self.mmap_mode)
        if flags & 0x220:  # it yields
            raise TypeError(
                f"{folder}: expected a function that returns a value, got a generator function: "
                "what it yields can be consumed only once; return a list of it"
            )
        parameters = _Parameters(run)
        known = parameters.names + parameters.stars
        _expect(
            set(known).issuperset(self.ignore),
            "ignore",
            f"names of arguments of {folder} ({', '.join(known)})",
            self.ignore,
        )
        accepts = self.cache_validation_callback or bool
        _expect(callable(accepts), "cache_validation_callback", "a function or None", accepts)

    # -- naming and finding

    def _now(self) -> _Fingerprint:
        return _fingerprint_of(self._fingerprints, "", self._roots, self.untracked)

    def _name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
        """The call with its key."""
        args = self._prefix + args
        fingerprint = self._now()
        if self.key is None:
            # its own ones: defaults may have been replaced
            fingerprint.parameters = fingerprint.parameters or _Parameters(self._run)
            given = fingerprint.parameters.bind(args, kwargs, self.ignore)
        else:
            given = {"key": self.key(*args, **kwargs)}
        given |= self._carried
        unsure = list(fingerprint.unsure)
        digests = {}
        for label, value in given.items():
            try:
                if type(value) in _ATOMS and sys.getsizeof(value) < 500:
                    digests[label] = repr(value)  # ten times as fast
                else:  # mapped results are arrays, too
                    follow = partial(_label_in_arguments, self.untracked, unsure)
                    digests[label] = _digest(value, _hash_maker("sha256"), True, follow).hex()
            except Exception as err:  # naming runs the pickling code of the argument's class
                raise PicklingError(
                    f"{self._folder}: the argument {label!r} of type "
                    f"{type(value).__name__} cannot be hashed: {err}; leave it out with "
                    f"ignore=[{label!r}], or give key="
                ) from err
        text = repr((digests, unsure and time.time_ns()))  # if unsure, one that no entry has
        key = f"{self._folder}/{fingerprint.digest}-{_short_digest(text, 32)}"
        return _Call(args, kwargs, given, digests, key, [], fingerprint, unsure)

    def _load(self, call: _Call, quiet: bool = False) -> Any:
        """The kept value, or _NOTHING. A call asks the callback about an entry that it refused
        once."""
        if self.cache_validation_callback and not self._is_kept(call) and call.refused:
            return _NOTHING
        value = self._store.load(call.key, self.mmap_mode, quiet=quiet)
        if value is not _NOTHING:
            self._tell(3, call, "read")
        return value

    def _tell(self, verbose: int, call: _Call, what: str) -> None:
        if self.verbose >= verbose:
            _say(f"{self._folder}({_joined(_shown_all(call.given))}) {what}")

    def _is_kept(self, call: _Call) -> bool:
        """Whether there is an entry of this call that may be used."""
        about = self._store.look(call.key)
        if about and about not in call.refused:
            if (self.cache_validation_callback or bool)(about):
                return True
            call.refused.append(about)
        return False

    # -- computing: plain functions and coroutine functions go the same way

    def _give(self, steps: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a coroutine function below gives for a call: for a coroutine function, when it is
        awaited; for a plain function now, since it waits for nothing."""
        if self._awaited:

            async def work() -> Any:  # what it depends on may change until then
                return await steps(self._name(args, kwargs))

            return work()
        try:
            steps(self._name(args, kwargs)).send(None)
        except StopIteration as end:
            return end.value
        except RuntimeError as err:
            if str(err) == "coroutine raised StopIteration" and err.__cause__:
                raise err.__cause__ from None  # as the function did
            raise

    async def _obtain(self, call: _Call) -> Any:
        """The kept value of a call; else one thread or task of one process computes it, and the
        others wait and read it."""
        value = self._load(call, quiet=True)  # a damaged entry may be replaced meanwhile
        if value is not _NOTHING:
            return value
        lock = _KeyLock(self._store, call.key)
        try:
            pause = 0.0005
            while not lock.is_ours(self._awaited):
                pause = min(2 * pause, 0.02)  # seconds
                if self._awaited:
                    await _module("asyncio").sleep(pause)
                else:
                    time.sleep(pause)
            lock.inside.set((*lock.around, lock))
            value = self._load(call)
            return (await self._compute(call))[0] if value is _NOTHING else value
        finally:  # an interruption can come only after a call has returned
            try:
                lock.unlock()
            finally:
                if lock.place in lock.held and lock.held[lock.place] is lock:
                    del lock.held[lock.place]
                lock.waits.pop(lock, None)
                lock.inside.set(lock.around)

    async def _compute(self, call: _Call) -> tuple[Any, dict[str, Any]]:
        """Run the function and keep its value: gives that and the metadata. What goes wrong with
        the cache costs a warning, no more."""
        shown = _shown_all(call.given)  # before the function changes them
        start = time.perf_counter()
        value = self._run(*call.args, **call.kwargs)
        if self._awaited:
            value = await value
        about = dict(
            time=time.time(),
            duration=time.perf_counter() - start,
            input_args=shown,
            digests=call.digests,
            code=call.fingerprint.parts,
        )
        self._tell(2, call, "computed")

        def fill(file: Any) -> None:
            noted = _pickle_dumps(about, 4)
            header = b"%b %d %d\n" % (call.key.encode(), len(noted), _crc32(noted))
            _write_all(file, header + noted)
            _write_value(value, file, self._memory._packed, self._memory._pickler)

        try:
            # else it is perhaps of other code than the key says
            if not call.unsure and call.fingerprint.files_hold():
                self._store.write(call.key, fill)
                if self.mmap_mode:  # as later calls will find it
                    value = self._store.load(call.key, self.mmap_mode, value)
        except Exception as err:  # pickling runs the code of the value's class
            _warn(
                f"{self._folder}: its value of type {type(value).__name__} cannot be kept in "
                f"{self._store}: {getattr(err, 'strerror', None) or err}"
            )
        return value, about

    async def _shelve(self, call: _Call) -> MemorizedResult:
        """The result of a call; it holds the value itself where the store did not take it."""
        result = MemorizedResult(
            self._store.location,
            self._folder,
            os.path.basename(call.key),
            self.mmap_mode,
            store=self._store,
        )
        if not self._is_kept(call):
            value = await self._obtain(call)
            if not result.metadata:
                result._kept = (value,)
        return result

    # -- what callers use

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The value of the call: read if it is kept, else computed and kept.

        >>> Memory().cache(pow)(2, 10)
        1024

        Returns
        -------
        any value
            What the function returns; of a coroutine function, what is to be awaited.
        """
        if self._memory.backend == "null":  # it keeps nothing: any argument will do
            return self._run(*self._prefix, *args, **kwargs)
        return self._give(self._obtain, args, kwargs)

    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function whether or not its value is kept, and keep the new value.

        >>> Memory().cache(pow).call(2, 10)[0]
        1024

        Returns
        -------
        (value, dict)
            The value and its metadata: "time" (seconds since 1970), "duration" (seconds),
            "input_args" (label -> text), "digests" (what stands for each argument in the key) and
            "code" (what the function was made of).
        """
        return self._give(self._compute, args, kwargs)

    def call_and_shelve(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Make sure that the value is kept, without reading it.

        >>> Memory().cache(pow).call_and_shelve(2, 10).get()
        1024

        Returns
        -------
        MemorizedResult
            A reference to the value; its `get()` reads it.
        """
        return self._give(self._shelve, args, kwargs)

    def check_call_in_cache(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether this call would be read. The validation callback is asked; nothing changes.

        >>> Memory().cache(pow).check_call_in_cache(2, 10)
        False

        Returns
        -------
        bool
        """
        return self._is_kept(self._name(args, kwargs))

    def forget(self, /, *args: Any, **kwargs: Any) -> bool:
        """Remove the value of this call.

        >>> Memory().cache(pow).forget(2, 10)
        False

        Returns
        -------
        bool
            Whether there was one.
        """
        return self._store.forget(self._name(args, kwargs).key)

    def clear(self, warn: bool = True) -> None:
        """Remove everything kept for this function, also for its older versions.

        >>> Memory().cache(pow).clear(warn=False)

        Parameters
        ----------
        warn : bool, default True
            Say so on stderr.
        """
        self._store.clear(self._folder + "/", warn and self.verbose)

    def entries(self) -> list[CacheEntry]:
        """What is kept for this function, latest first. Nothing changes.

        >>> @Memory().cache
        ... def power(base, exp=2): return base ** exp
        >>> _ = power(10)
        >>> power.entries()[0].arguments
        'base=10, exp=2'

        Returns
        -------
        list of CacheEntry
            Named tuples: `arguments` (text), `time` (when computed, seconds since 1970), `duration`
            (seconds), `nbytes`, `current` (whether today's code finds it), `args_id` (its name).
        """
        current = self._now().digest
        return [
            CacheEntry(
                _joined(about["input_args"]),
                when,
                about["duration"],
                size,
                current in key,
                os.path.basename(key),
            )
            for when, key, size, about in self._kept()
        ]

    def _kept(self) -> list[tuple[float, str, int, dict[str, Any]]]:
        """Of each entry of this function, latest first: when it was computed, its key, its size and
        all that is noted about it."""
        found = [
            (about["time"], key, size, about)
            for key, size, _ in self._store.entries(self._folder + "/")
            if (about := self._store.look(key))
        ]
        return sorted(found, reverse=True)  # no two have the same key

    def explain(self, /, *args: Any, **kwargs: Any) -> str:
        """Say whether this call would be read, and if not, why it would be computed. It changes
        nothing.

        >>> @Memory().cache
        ... def power(base, exp=2): return base ** exp
        >>> _ = power(10)
        >>> power.explain(10, exp=3)
        'computes: changed since: exp (it was 2)'
        >>> Memory().cache(pow).explain(2, 10)
        'computes: nothing is kept for builtins.pow'

        Returns
        -------
        str
            One sentence. The call is compared with the newest entry of the same arguments, else
            with the newest entry.
        """
        call = self._name(args, kwargs)
        if self._is_kept(call):
            return "hits"
        if call.refused:
            return "computes: expired or refused by the callback"
        if call.unsure:
            return f"computes: its value is not stored, since {call.unsure[0]}"
        kept = self._kept()
        if not kept:
            return f"computes: nothing is kept for {self._folder}"
        # What differs from the newest entry of the same arguments, else from the newest
        *_, about = max(kept, key=lambda each: each[3]["digests"] == call.digests)
        then = about["code"] | about["digests"]
        now = call.fingerprint.parts | call.digests
        texts = about["input_args"]
        changed = [
            f"{name} (it was {texts[name]})" if name in texts else name
            for name in sorted(dict(then.items() ^ now.items()))
        ]
        return f"computes: changed since: {', '.join(changed) or 'the order of depends'}"

    # -- being a function

    @_typed_get
    def __get__(self, obj: Any, owner: Any = None) -> Any:
        found = getattr(self.func, "__get__", lambda *_: None)(obj, owner)
        return self._bound(found.__self__) if isinstance(found, MethodType) else self

    def _bound(self, obj: Any) -> Any:
        """As the method of an object."""
        bound: Any = object.__new__(MemorizedFunc)
        method = MethodType(self._run, obj)
        vars(bound).update(
            vars(self),
            _unbound=self,
            __self__=obj,
            _prefix=(obj,),
            func=method,
            __wrapped__=method,
        )
        return bound

    def __reduce__(self) -> Any:
        if self._prefix:
            return self._unbound._bound, self._prefix
        if home := _import_name(self):
            return home[1]
        if place := _place_in_class(self):
            return _function_in, place
        return object.__new__, (MemorizedFunc,), vars(self)

    def __repr__(self) -> str:
        return f"MemorizedFunc({self._folder}, location={self._store.location!r})"


# --- Memory ---------------------------------------------------------------------------------------


class Memory(_Settings):
    """Remembers what functions returned: on disk, for this and all later programs, or in memory.

    >>> memory = Memory()                    # in memory; Memory("folder") keeps results on disk
    >>> @memory.cache
    ... def square(x):
    ...     print("computing")
    ...     return x * x
    >>> square(3), square(x=3)
    computing
    (9, 9)

    `Memory.cache` tells what else a cached function can do.

    Parameters
    ----------
    location : str, path or None, default None
        Folder of the cache, made when the first result is kept; everything is in
        `location/joblite`. None keeps results in memory, as long as this object lives, as bytes: a
        caller that changes a result does not change the cache.
    backend : str, default "local"
        "local"; "cloudpickle" (that package pickles results, so they may hold lambdas and local
        classes); "null" keeps nothing; or what `register_store_backend` was given.
    mmap_mode : None, "r", "r+", "w+" or "c", default None
        Map the arrays of a result into memory instead of reading them. "c" (copy on write) and "r"
        (read-only) cannot change the cache; "r+" and "w+" write through to it. Only where results
        are files; together with `compress` or a secret they are read, and a warning says so.
    compress : bool, int, str or (str, int), default False
        True (zlib 3), a level 0-9, a method ("zlib", "gzip", "bz2", "lzma", "xz", "lz4", "zstd"),
        or (method, level).
    verbose : int, default 1
        Lines on stderr: 0 none, 1 only on `clear`, 2 each computed call, 3 also each call read.
    bytes_limit : number, str or None, default None
        The most bytes that the cache keeps: a number, or a text such as "500M", "2G". The least
        recently used results are removed first. None: no limit, but 256 MB in memory.
    backend_options : dict or None, default None
        For "local": {"mode": 0o770} makes the folders with these permissions (default 0o700: yours
        alone); the files in them have those that the umask leaves, so a group that adds results
        needs one such as 002. {"secret": some bytes} signs each result: what was not written with
        this secret is never unpickled, and results are read, not mapped. The secret is sent to
        workers, never to files.

    Raises
    ------
    ValueError
        A setting is not one of those named above.
    TypeError
        The backend knows no such option.
    ImportError
        "cloudpickle" is not installed.

    Notes
    -----
    What is tracked: a call is read back when the function's name, everything that its code consists
    of, and its arguments are the same. The code is followed into the functions, classes, modules,
    constants and other globals of your project that it names, also inside closures, defaults,
    containers and arguments; modules that it imports inside a function, by their source. Change a
    helper: the call is computed anew; change it back: the old results are still there.

    What is not tracked: the standard library, installed packages other than the function's own and
    code written in C (they go by name), files that the function reads, what is looked up by a text,
    and the content of globals that cannot be pickled (their class counts). Name in `depends` what
    matters of these. An argument that cannot be pickled is a PicklingError: `ignore` leaves it out.

    What goes wrong: whatever happens to the cache (damaged file, full disk, folder gone or
    read-only), the call returns the function's value, with a warning. Threads and processes that
    make the same call at once compute it once.
    """

    def __init__(
        self,
        location: str | os.PathLike[str] | None = None,
        backend: str = "local",
        mmap_mode: str | None = None,
        compress: Any = False,
        verbose: int = 1,
        bytes_limit: float | str | None = None,
        backend_options: dict[str, Any] | None = None,
    ) -> None:
        _check_mmap_mode(mmap_mode)
        _expect(
            backend in _STORES,
            "backend",
            f"one of {sorted(_STORES)}; register_store_backend adds one",
            backend,
        )
        options = backend_options or {}
        packed = _parse_compress(compress)
        if (packed or "secret" in options) and mmap_mode:
            _warn("mmap_mode excludes compress and secret: results are read instead of mapped")
            mmap_mode = None
        vars(self).update(
            location=None if location is None else os.path.realpath(location),
            backend=backend,
            mmap_mode=mmap_mode,
            compress=compress,
            verbose=verbose,
            _packed=packed,
            _pickler=_module("cloudpickle").Pickler if backend == "cloudpickle" else Pickler,
        )
        if location is None and bytes_limit is None:
            bytes_limit = "256M"
        self.store = _STORES[backend](
            self.location, _parse_bytes(bytes_limit, "bytes_limit"), **options
        )

    @_typed
    def cache(
        self,
        func: Any = None,
        ignore: Iterable[str] | None = None,
        verbose: int | None = None,
        mmap_mode: Any = False,
        cache_validation_callback: Callable[[dict[str, Any]], Any] | None = None,
        *,
        key: Callable[..., Any] | None = None,
        depends: Iterable[Any] = (),
        version: Any = None,
        untracked: Iterable[str] = (),
    ) -> Any:
        """Give a function a memory. Works as a decorator, with and without arguments.

        >>> memory = Memory()
        >>> @memory.cache(ignore=["verbose"])
        ... def double(x, verbose=False): return 2 * x
        >>> double(2, verbose=True), double.check_call_in_cache(2)
        (4, True)

        Parameters
        ----------
        func : callable or None
            A function, coroutine function, method, classmethod, staticmethod, partial, ufunc,
            callable object.
        ignore : str, list of str or None, default None
            Names of arguments that do not matter to the result; of Python functions only.
        verbose, mmap_mode : default those of the Memory
            As in `Memory`.
        cache_validation_callback : callable or None, default None
            Asked before a result is used, with its metadata ("time", "duration", "input_args"); a
            false answer computes anew. `expires_after(days=1)` makes one.
        key : callable or None, default None
            Called with the arguments of a call; what it returns stands for them.
        depends : list, or one path, default ()
            What else the result depends on: functions and classes (by their code), paths
            (`pathlib.Path`: by the content of the file, or of all files in the folder), any other
            values, also texts.
        version : any value or None, default None
            Stands for the code of the function: change it to compute anew, and only then.
        untracked : str, list of str, default ()
            Names of globals that do not count: counters, timers, tables that helpers fill. Without
            this, a global that each call changes makes each call a new one (`explain` names it).

        Returns
        -------
        MemorizedFunc
            Called as the function itself. It has also these methods; those with `...` take the
            arguments of a call:

            `f.check_call_in_cache(...)`   whether the call would be read
            `f.explain(...)`               why it would be computed, in a sentence
            `f.entries()`                  what is kept for the function, latest first
            `f.call(...)`                  run it in any case: (value, metadata)
            `f.call_and_shelve(...)`       a reference to the value, whose `get()` reads it
            `f.forget(...)`                remove the value of one call
            `f.clear(warn=True)`           remove everything that is kept for the function
            `f.func`, `f.ignore`, `f.mmap_mode`   what it was made with

        Raises
        ------
        TypeError
            `func` is not callable, or is a generator function.
        ValueError
            `ignore` names no argument; `cache_validation_callback` is not callable; there is no
            such `mmap_mode`.
        """

        def listed(given: Any) -> list[Any]:
            if isinstance(given, (str, os.PathLike)):  # one name or path alone
                return [given]
            return [] if given is None else list(given)

        options = dict(
            ignore=listed(ignore),
            verbose=self.verbose if verbose is None else verbose,
            mmap_mode=self.mmap_mode if mmap_mode is False else mmap_mode,
            cache_validation_callback=cache_validation_callback,
            key=key,
            depends=tuple(listed(depends)),
            version=version,
            untracked=frozenset(listed(untracked)),
        )
        if func is None:
            return partial(self.cache, **options)
        if isinstance(func, MemorizedFunc):
            func = func.func
        if isinstance(func, MethodType):
            return self.cache(func.__func__, **options)._bound(func.__self__)
        if not callable(getattr(func, "__func__", func)):
            raise TypeError(f"Memory.cache: expected a function, got {func!r}")
        return MemorizedFunc(func, self, options)

    def eval(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function as if it were cached: `memory.cache(func)(*args, **kwargs)`.

        >>> Memory().eval(pow, 2, 10)
        1024

        Parameters
        ----------
        func : callable
            As for `cache`.
        *args, **kwargs
            Its arguments.

        Returns
        -------
        any value
            What the function returns.
        """
        return self.cache(func)(*args, **kwargs)

    def clear(self, warn: bool = True) -> None:
        """Remove all results of all functions, and nothing else.

        >>> Memory().clear()

        Parameters
        ----------
        warn : bool, default True
            Say so on stderr.
        """
        self.store.clear("", warn and self.verbose)

    def reduce_size(
        self,
        bytes_limit: float | str | None = None,
        items_limit: int | None = None,
        age_limit: Any = None,
    ) -> None:
        """Remove the least recently used results until all given limits are kept.

        >>> Memory().reduce_size("1M", items_limit=100)

        Parameters
        ----------
        bytes_limit : number, str or None, default None
            Bytes to keep: a number, or a text such as "3K".
        items_limit : int or None, default None
            Results to keep; 0 removes all.
        age_limit : datetime.timedelta or None, default None
            Results that were not used for so long are removed.

        Raises
        ------
        ValueError
            A limit is negative, or the age is not positive.
        """
        age = float("inf") if age_limit is None else age_limit.total_seconds()
        items = sys.maxsize if items_limit is None else items_limit
        _expect(age > 0, "age_limit", "a positive timedelta", age_limit)
        _expect(items >= 0, "items_limit", "0 or more results to keep", items_limit)
        self.store.trim(_parse_bytes(bytes_limit, "bytes_limit"), items, time.time() - age)

    def __repr__(self) -> str:
        return f"Memory(location={self.location!r})"


_SAMPLE = Memory(backend="null").cache(lambda: None)
register_hasher(
    MemorizedFunc,
    lambda function: (  # where it caches is not what it is
        function._run,
        function._prefix,
        function.version,
        _without(vars(function), vars(_SAMPLE)),  # what else was set on it
        [
            _path_digest(each) if isinstance(each, os.PathLike) else each
            for each in function.depends
        ],
    ),
)
register_hasher(Memory, lambda memory: "Memory")


# ==================================================================================================
# 5. Payloads
# ==================================================================================================
# Promise: whatever a caller can name in a task reaches another process and works there: functions
# and classes that the other side can import go by name, all others (lambdas, closures, what
# __main__ defines) by value.
#
#     _pack(value) -> [pickle, buffer 1, buffer 2, ...] -> any wire -> _unpack(frames) -> value
#                        |         '-- of max_nbytes or more, to a process here: in a segment
#                        '-- a function by value = its code + the globals that it names, as they are
#                            now + closure, defaults, attributes
#
#     segment: an unlinked file in shared memory, else in a temp folder, known by descriptors only:
#              it cannot be leaked. It is mapped at the task
#
# Laws
#   1. A buffer of 16 kB or more (an array's content) is never copied into the pickle.
#                                                           test_arrays_travel_uncopied
#   2. Functions that shared their globals share them again, within a payload and within a run; what
#      an initializer set in a worker stays set there.      test_functions_share_globals
#   3. A class sent out and back is the caller's own class. test_instances_come_home
#   4. What __main__ holds is in a worker what it is here: for pickle, hash and Memory, too.
#                                   test_values_of_main_are_in_a_worker_what_they_are_at_home
#   5. What cannot be packed is an error that names the guilty object.
#                                                           test_unpicklable_argument_is_named
#   6. A big array that many tasks share is laid down once, and goes with the last that uses it.
#                                                           test_a_shared_array_is_laid_down_once

_IN_BAND = 16_384  # bytes: a smaller buffer is cheaper to copy into the pickle than to send


class _Local(threading.local):
    """What holds in one thread."""

    came: Any = None  # see _unpack
    # the backend of calls inside a task: "sequential" in a worker thread; "threading" in a batch on
    # an executor of somebody else; a worker process sets it for all its threads
    inside: str | None = None
    settings: dict[str, Any] = {}  # what the innermost `parallel_config` says, outer ones included


_local = _Local()
# Two keys in the globals of functions that came by value: which globals they had at home; and the
# names that no payload changes any more, since an initializer gave them.
_SPACE = "__joblite_space__"
_KEPT = "__joblite_kept__"


def _can_import(module: Any) -> bool:
    """Whether another process can import this module: its package has been imported, running code
    has not made it."""
    if module == "__main__" or module not in sys.modules:
        return False
    return (
        module == __name__  # which may have come as text
        or getattr(sys.modules.get(module.partition(".")[0]), "__spec__", None) is not None
    )


def _name_abroad(obj: Any) -> str | None:
    """The qualified name by which another process finds it in its module; None if by none."""
    match _import_name(obj):
        case module, name if _can_import(module):
            return name
    return None


# A reducer takes an object that no name leads to, and the pickler. It returns what rebuilds the
# object: (function, arguments[, state, None, None, state setter]), or NotImplemented for "as pickle
# does".


def _find_shared(key: int) -> Any:
    """The function or class of that key, which all tasks of a run share here."""
    return _local.came[key]


_processes: dict[int, str] = {}  # id -> name. Any thread adds in one step


def _process() -> str:
    """A name for this process that no other has on any machine."""
    return _processes.setdefault(os.getpid(), os.urandom(16).hex())


def _place_of_globals(space: dict[str, Any]) -> tuple[str, str, str | None, bool]:
    """What `_enter_module` takes for these globals: functions which shared them share them again.
    First a token for them that no other process uses for others."""
    name = space.get("__name__", "__main__")
    return (
        space.get(_SPACE) or f"{_process()}{id(space)}",
        name,
        space.get("__package__"),
        _can_import(name),
    )


def _enter_module(token: str, name: str, package: str | None, importable: bool) -> ModuleType:
    """The module whose globals stand here for those called `token` at home. One that can be
    imported is a copy of the module here, so that it has what the payload lacks."""
    known: Any = _local.came.get(token)
    if known:
        return known  # it came before
    known = sys.modules.get(name)
    if token == _place_of_globals(getattr(known, "__dict__", {}))[0]:
        return known  # this is its home
    module = _local.came[token] = ModuleType(name)
    space = vars(module)
    if importable:
        space |= vars(_module("importlib").import_module(name))
    else:  # a spec keeps multiprocessing from running the caller's script once more
        space["__spec__"] = _module("importlib.machinery").ModuleSpec(
            f"{package}.{name}" if package else name, None
        )
    space |= {"__builtins__": __builtins__, _SPACE: token}  # imports by C code look there
    if name == "__main__" and _Local.inside:
        # what is named after this worker's `__main__` is found in it, by `pickle` and `hash` too
        sys.modules[name] = module
    return module


def _refuse(thing: Any, pickler: _Pickler) -> Any:
    """As pickle does it, a connection would take any descriptor of its number over there, and close
    it; a type alias or a module that running code made would not be found there."""
    raise PicklingError(f"{thing!r:.200} belongs to one process: make it in the tasks")


def _held_by(module: Any, thing: Any) -> Any:
    """What rebuilds a thing that a module holds under another name than its own."""
    for name, held in vars(module).items():
        if held is thing:
            return getattr, (module, name)
    return NotImplemented


# Of a class, which goes by value, in every process it reaches: its name, and the class of the name.
_class_tokens: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
_classes: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()


# of a class, what is made anew with every class
_MADE_ANEW = "__dict__", "__weakref__", "_abc_impl", "__slots__"


def _fill(thing: Any, state: tuple[Any, ...]) -> None:
    """Give a thing that goes by value what it holds: it is made empty, since it may hold itself."""
    attributes, changes = state
    put: Any = object.__setattr__  # the class may forbid it, as a frozen dataclass does
    if issubclass(type(thing), type):
        if _class_tokens[thing].startswith(_process()) or thing in _local.came:
            return  # it is at home here, or what an initializer set in it stays
        put = type.__setattr__
        for subclass in attributes.pop("_abc_impl", ()):
            type(thing).register(thing, subclass)
        for name in _without(vars(thing), {*_MADE_ANEW, *attributes}):
            delattr(thing, name)  # so it was at home, or by now
    for place, names in changes.items():
        space = vars(_enter_module(*place))
        # what an initializer set here stays; at home, what is there
        space |= _without(names, space.get(_KEPT, ()) if _SPACE in space else space)
    members = attributes.get("_member_map_", ())
    for name, value in attributes.items():
        if name in members:
            vars(members[name]).update(value)
        else:
            put(thing, name, value)


def _fill_later(
    thing: Any,
    pickler: _Pickler,
    attributes: dict[str, Any],
    changes: dict[Any, Any],
    make: Any,
    *made_of: Any,
) -> Any:
    """The result of a reducer for a thing that goes by value: `make` makes it empty, `_fill` sets
    its attributes, those of an enum's members, and globals; with an abstract class it registers
    others. What `__main__` holds here, the worker's `__main__` is to hold."""
    # annotations go if they can be packed: they are never evaluated, since Python 3.14 a function
    # of their own does that when they are asked for
    attributes = {
        name: value
        for name, value in attributes.items()
        if not name.startswith("__annot") or pickler.takes(value)
    }
    match _import_name(thing):
        case "__main__", name:
            name = name.partition(".")[0]
            space = vars(sys.modules["__main__"])
            changes.setdefault(_place_of_globals(space), {})[name] = space[name]
    return make, made_of, (attributes, changes), None, None, _fill


def _make_function(
    code: bytes, place: tuple[Any, ...], cells: Any, reached: list[str]
) -> FunctionType:
    for name in reached:
        __import__(name)
    return FunctionType(marshal.loads(code), vars(_enter_module(*place)), closure=cells)


def _reduce_function(func: FunctionType, pickler: _Pickler) -> Any:
    """A function by its place in a class, by its key where all tasks of a run may share it, since
    it holds nothing that one could change for another, else by value: with the globals that it
    names, and the submodules that it may reach through them or its closure."""
    found = _place_in_class(func)
    if found and (_name_abroad(found[0]) or pickler.key_of(found[0])):
        return _function_in, found
    defaults = *(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).values()
    holds = func.__closure__ or func.__dict__ or not _ATOMS.issuperset(map(type, defaults))
    if not holds and (key := pickler.key_of(func)):
        return _find_shared, (key,)
    attributes, variables, used = _contents(func)
    place = _place_of_globals(func.__globals__)
    if place[-1]:  # what cannot be sent, or is only itself, the far side has itself
        used = {
            name: value
            for name, value in used.items()
            if type(value) is not object and pickler.takes(value)
        }
    mentioned = _names_in_code(func.__code__).names
    reached = [
        value.__name__
        for value in (used | variables).values()
        if issubclass(type(value), ModuleType)
    ]
    for base in reached:  # grows
        reached += {f"{base}.{name}" for name in mentioned} & sys.modules.keys()
    reached += [
        name
        for name in getattr(sys, "lazy_modules", ())  # since Python 3.15
        # `m.f` of `from m import f` is among them
        if "." in name and mentioned.issuperset(name.split(".")) and _find_spec(name)
    ]
    for name in ("__qualname__", "__module__", "__doc__"):
        attributes[name] = getattr(func, name)
    attributes |= attributes.pop("__dict__")
    return _fill_later(
        func,
        pickler,
        attributes,
        {place: used} if used else {},
        _make_function,
        marshal.dumps(attributes.pop("__code__")),
        place,
        func.__closure__,
        reached,
    )


def _class_token(cls: type) -> str:
    token = _class_tokens.setdefault(cls, _process() + os.urandom(8).hex())
    _classes[token] = cls
    return token


def _make_once(token: str, make: Callable[..., Any], *args: Any) -> Any:
    """The class (or type variable) of that token: made here when it comes for the first time."""
    known = _classes.get(token)
    if known is None:
        made = make(*args)
        _class_tokens[made] = token
        known = _one_at_a_time("class tokens", _classes.setdefault, token, made)
    return known


def _make_as(base: Any, cls: Any, *args: Any) -> Any:
    """An object of a class, made as a base of that does it: nobody knows what methods of its own
    take."""
    made = base.__new__(cls, *args)
    base.__init__(made, *args)
    return made


def _new_class(
    kind: Any, meta: Any, name: str, bases: tuple[type, ...], start: dict[str, Any]
) -> Any:
    space = kind.__prepare__(name, bases)
    space.update(start)
    return _make_as(kind, meta, name, bases, space)


_HEAP_TYPE = 0x200  # a flag of classes made by a class statement (and of some native ones)


def _reduce_class(cls: Any, pickler: _Pickler) -> Any:
    """A class by its key where all tasks of a run share it, by its token where it is known over
    there, else by value: with an enum's members from the start."""
    if not cls.__flags__ & _HEAP_TYPE:  # some say to be of builtins, which has no such name
        return _held_by(types, cls)
    if key := pickler.key_of(cls):
        return _find_shared, (key,)
    token = _class_token(cls)
    if pickler.to == "home" and not token.startswith(_process()):
        return _make_once, (token, None)
    own = vars(cls)
    start = {"__qualname__": cls.__qualname__} | {
        name: own[name] for name in ("__module__", "__orig_bases__", "__slots__") if name in own
    }
    attributes = _contents(cls, _MADE_ANEW)[0]
    # the value of a member, or what it is as text or number: how a `__new__` of its own has made
    # it is not known any more
    plain = getattr(own.get("_member_type_"), "__getnewargs__", None)
    for name, member in own.get("_member_map_", {}).items():
        start[name] = _module("enum").member(  # also where it is a function
            plain(member)[0] if plain else member._value_
        )
        attributes[name] = vars(member)
    if "_abc_impl" in own:  # what was registered with it
        attributes["_abc_impl"] = [ref() for ref in _module("abc")._get_dump(cls)[0]]
    # those of typing refuse the bases that they give their classes
    kinds = (each for each in type(cls).__mro__ if each.__module__ != "typing")
    return _fill_later(
        cls,
        pickler,
        attributes,
        {},
        _make_once,
        token,
        _new_class,
        next(filter(_name_abroad, kinds)),
        type(cls),
        cls.__name__,
        attributes.pop("<bases>"),
        start,
    )


def _reduce_cell(cell: Any, pickler: _Pickler) -> Any:
    value = _cell_value("", cell)
    if type(value) is dict and "__weakref__" in value:  # the namespace of a class, for annotations
        value = _without(value, _MADE_ANEW)
    return CellType, (), (None, {} if value is _NOTHING else {"cell_contents": value})


def _rebuild_lru_cache(func: Any, settings: dict[str, Any]) -> Any:
    return lru_cache(**settings)(func)


def _samples(view: memoryview, gather: Callable[..., Any] = b"".join) -> Any:
    """64 samples of the content of a buffer."""
    step = max(64, len(view) // 64)
    return gather(view[at : at + 64] for at in range(0, len(view), step))


def _reduce_array(array: Any, pickler: _Pickler) -> Any:
    """What looks into a memory map of a file goes to a process nearby by the file's name: what
    tasks write to it must get there. Any other big content can stay out of the pickle; of an array
    with gaps, its packed copy."""
    numpy: Any = sys.modules["numpy"]
    order = "F" if array.flags.fnc else "C"
    owner = array
    while isinstance(owner.base, numpy.ndarray):
        owner = owner.base
    if pickler.to == "near" and getattr(owner, "filename", None):
        at = array.ctypes.data - owner.ctypes.data
        if not array.flags.forc:
            return numpy.ndarray, (array.shape, array.dtype, owner, at, array.strides)
        place = [owner.filename, array.dtype, "r", owner.offset + at, array.shape, order]
        try:  # whether the file still holds what the array does, as far as samples tell
            pairs = zip(
                *[
                    _samples(each.ravel("K").view("u1").data, list)
                    for each in (array, numpy.memmap(*place))
                ]
            )
            # a difference counts if it stays: tasks may write to the file at this moment
            if all(a in itertools.repeat(b, 9) for a, b in pairs):
                place[2] = owner.mode.replace("w", "r")
                return numpy.memmap, tuple(place)
        except Exception:  # deleted, not for us, or shorter by now
            pass
    return numpy.asarray(array, order=order).__reduce_ex__(5)


# By type, or its name: a reducer, or the attributes that the type takes to make the object again.
_REDUCERS: dict[type | str, str | Callable[[Any, Any], Any]] = {
    type: _reduce_class,  # of a metaclass, too
    FunctionType: _reduce_function,
    # annotations hold some
    types.CodeType: lambda code, _: (marshal.loads, (marshal.dumps(code),)),
    CellType: _reduce_cell,
    **dict.fromkeys(  # `singledispatch` holds a weak one
        (MappingProxyType, weakref.WeakKeyDictionary),
        lambda held, _: (type(held), (dict(held),)),
    ),
    property: "fget fset fdel __doc__",
    classmethod: "__func__",
    staticmethod: "__func__",
    "functools._lru_cache_wrapper": lambda cached, pickler: _fill_later(
        cached, pickler, {}, {}, _rebuild_lru_cache, cached.__wrapped__, cached.cache_parameters()
    ),
    # by its function: `super().run` has the name of the override
    MethodType: "__func__ __self__",
    _DiskStore: lambda store, _: store.__reduce__(store._secret),
    MemorizedFunc: lambda cached, pickler: _fill_later(
        cached, pickler, vars(cached), {}, object.__new__, MemorizedFunc
    ),
    # over there it is one thing, of that name; what bounds it is not evaluated, and stays here
    "typing.TypeVar": lambda variable, pickler: _fill_later(
        variable,
        pickler,
        {"__module__": variable.__module__},
        {},
        _make_once,
        _class_token(variable),
        type(variable),
        variable.__name__,
    ),
    ModuleType: _refuse,  # no import finds it
    "typing.ParamSpec": _refuse,
    "typing.TypeVarTuple": _refuse,
    "typing.NewType": _refuse,
    "typing.TypeAliasType": _refuse,
    "multiprocessing.connection.Connection": _refuse,
    # What code knows by its identity; and the generators behind the functions of modules: each
    # process has its own, or all would draw the same.
    **dict.fromkeys(
        (
            "dataclasses._FIELD_BASE",
            "dataclasses._MISSING_TYPE",
            "random.Random",
            "numpy.random.mtrand.RandomState",
        ),
        lambda thing, _: _held_by(sys.modules[type(thing).__module__], thing),
    ),
    "numpy.ndarray": _reduce_array,
    "numpy.memmap": _reduce_array,
    "functools.cached_property": lambda p, _: (type(p), (p.func,), {"attrname": p.attrname}),
}


def _reduce_error(error: BaseException, pickler: _Pickler) -> Any:
    """An exception without what cannot be packed of it; of arguments, their text."""
    cls: Any = type(error)
    base = next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)
    _, args, *parts = base.__reduce__(error)
    match object.__getstate__(error):
        case _, slots:
            parts.append(slots)
    attributes = {
        name: value for held in parts for name, value in held.items() if pickler.takes(value)
    }
    made_of = [arg if pickler.takes(arg) else repr(arg) for arg in args]
    return _make_as, (base, cls, *made_of), (attributes, {}), None, None, _fill


class _Pickler(Pickler):
    """A pickler that sends by value what the other side cannot import: see `_packer`."""

    to: str
    key_of: Callable[[Any], int]
    tried: dict[int, bool] | None  # id -> whether that value can be packed; None on the first try

    def takes(self, value: Any) -> bool:
        """Whether a value can be packed: it is tried on the second try, and hoped on the first."""
        tried = self.tried
        key = id(value)
        if tried is None:
            return True
        if key not in tried:
            tried[key] = True  # as long as it is being tried
            try:
                _pack(value, self.to, self.key_of, tried)
            except Exception:  # a __reduce__ of the user may raise anything
                tried[key] = False
        return tried[key]

    def reducer_override(self, obj: Any) -> Any:
        kind: Any = type(obj)
        if "_member_map_" in vars(kind) and obj._name_ in kind.__members__:
            return operator.getitem, (kind, obj._name_)  # its value may be a function by value
        if self.to == "home" and issubclass(kind, BaseException):
            return _reduce_error(obj, self)
        if kind is ModuleType:
            if obj.__name__ == "__main__":
                return _enter_module, _place_of_globals(vars(obj))
            if _can_import(obj.__name__):
                return _module("importlib").import_module, (obj.__name__,)
        by_type = _REDUCERS.get(type if issubclass(kind, type) else kind)
        match by_type or _REDUCERS.get(f"{kind.__module__}.{kind.__name__}"):
            case None:
                return NotImplemented
            case str() as names:
                return kind, _attributes(names, self, obj)[1:]
            case reducer:
                return _name_abroad(obj) or reducer(obj, self)


def _packer(
    to: str = "far",
    key_of: Callable[[Any], int] = lambda thing: 0,
    tried: dict[int, bool] | None = None,
) -> Callable[[Any], list[Any]]:
    """What gives the frames of a value: a pickle, then the buffers that stay out of it. It goes
    `to` "home", where a class that came from there goes as its token; "near", where the same files
    are seen, so that a map of one goes by its name; or "far". `key_of` gives the key of what the
    tasks of a run share, or 0. On a second try, what cannot be packed is left out where that does
    no harm, and what joblite's own pickling by value leaves out is left to cloudpickle's
    reducers."""
    parts: list[bytes] = []
    buffers: list[Any] = []

    def is_small(buffer: Any) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _IN_BAND:
            return True  # it stays in the pickle
        buffers.append(raw)
        return False

    pickler = _Pickler(types.SimpleNamespace(write=parts.append), 5, buffer_callback=is_small)
    pickler.to = to
    pickler.key_of = key_of
    pickler.tried = tried
    if tried is not None and _find_spec("cloudpickle"):
        pickler.dispatch_table = _module("cloudpickle").CloudPickler.dispatch_table

    def pack(value: Any) -> list[Any]:
        parts.clear()
        buffers.clear()
        pickler.clear_memo()
        try:
            pickler.dump(value)
        except Exception:  # a __reduce__ of the user may raise anything
            if tried is not None:
                raise
            return _pack(value, to, key_of, {})
        return [b"".join(parts), *buffers]

    return pack


def _pack(value: Any, *options: Any) -> list[Any]:
    """The frames of a payload; `options` as `_packer` takes them."""
    return _packer(*options)(value)


# How the big buffers of a run travel between processes here: mapped from this number of bytes on,
# in a folder, with an mmap_mode at the task
_NO_MAPPING = sys.maxsize, ""
_MOST_MAPS = 128  # of pieces in a process: then it copies, for each may hold a descriptor
_maps: weakref.WeakSet[Any] = weakref.WeakSet()  # those that live in this process


class _Segment:
    """An unlinked file that holds big buffers."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)


class _Piece(types.SimpleNamespace):
    """A buffer in a `segment`: stands for it as a frame. `where` is its offset, number of bytes and
    mmap_mode. Where it was laid down, it has `samples`, and as `view` the buffer that it was taken
    from, which lives as long as the piece."""

    def __len__(self) -> int:
        return self.where[1]


def _address(view: memoryview) -> tuple[Any, int]:
    """What tells a living buffer from others: where it lies, which numpy can say, and its size.
    Without numpy, each is another one."""
    numpy: Any = sys.modules.get("numpy")
    if not numpy:
        return id(view), 0
    return numpy.frombuffer(view, "u1").__array_interface__["data"], len(view)


def _open_unlinked(folder: str | None) -> int:
    """A descriptor of a new file without a name, by default in the system's folder for those."""
    with _module("tempfile").TemporaryFile(prefix="joblite-", dir=folder) as file:
        return os.dup(file.fileno())


def _lay_big(frames: dict[Any, Any], nbytes: int, folder: str, mode: str = "c") -> dict[Any, Any]:
    """Those of the frames that are buffers of so many bytes, as pieces of one segment in the first
    folder with room, each where a map can begin; none if no folder has room."""
    big = {
        key: frame
        for key, frame in frames.items()
        if type(frame) is memoryview and len(frame) >= nbytes
    }
    for place in (folder, "/dev/shm", None) if big else ():
        pieces = {}
        try:
            segment = _Segment(_open_unlinked(place))
            with open(segment.fd, "wb", closefd=False) as file:
                for key, view in big.items():
                    # a map can begin at a multiple of it, on every system
                    at = file.seek(-file.tell() % 65536, os.SEEK_CUR)
                    pieces[key] = _Piece(
                        segment=segment,
                        where=(at, len(view), mode),
                        view=view,
                        samples=_samples(view),
                    )
                    file.write(view)
            return pieces
        except OSError:  # it is full, or not there, or not for us
            pass
    return {}


def _unpack(frames: Iterable[Any], came: dict[Any, Any], copied: bool = False) -> Any:
    """The value of a payload, whose buffers may be written to: pieces are mapped anew, or copied
    where this process has very many maps already; the others are copied, if it is asked for or they
    must not be written to. What came before is known from payload to payload: by a name, the module
    that holds the globals of functions that came by value; by a number, what the tasks of a run
    share."""
    packed, *frames = frames
    buffers: list[Any] = []
    for frame in frames:
        match frame:
            case _Piece(segment=segment, where=(offset, nbytes, mode)):
                frame = _module("mmap").mmap(
                    segment.fd,
                    nbytes,
                    access={"r": 1, "c": 3}.get(mode, 2),  # ACCESS_READ, _COPY, _WRITE
                    offset=offset,
                )
                if mode == "c" and len(_maps) >= _MOST_MAPS:
                    frame = bytearray(frame)
                else:
                    _maps.add(frame)
            case _ if copied or memoryview(frame).readonly:
                frame = bytearray(frame)
        buffers.append(frame)
    outer = _local.came
    _local.came = came
    try:
        return _pickle_loads(packed, buffers=buffers)
    finally:
        _local.came = outer


def _pack_or_explain(value: Any, what: str, pack: Callable[[Any], Any] = _pack) -> list[Any]:
    """As `pack`; the error names the guilty object: `what`, or the part of it that is to blame."""
    try:
        return pack(value)
    except Exception as error:
        text = _blame(error, value, what, pack)
        for pattern, hint in (  # which errors of pickling tell what to do instead
            (r"'_thread\.", "; make it where it is used, or use backend='threading'"),
            ("'generator' object", "; pass list(...) of it"),
            (
                "TextIOWrapper|Buffered|FileIO|pickle files",
                "; pass its path, and open it where it is used",
            ),
        ):
            if _module("re").search(pattern, text):
                text += hint
        raise PicklingError(text) from error


# An error crosses as a payload whose first frame is empty, the second plain texts; then comes, if
# it survives pickling, itself.


class RemoteTraceback(Exception):
    """Shows the traceback of a task's error as it was in the worker: the cause of your error."""


def _exact_text(value: Any) -> str:
    """The text of a value as a `str` and no subclass of it, which `marshal` does not take."""
    return str.__str__(str(value))


def _say_where(stack: str) -> str:
    """In words, where the task of a stack was, which has the innermost frame first. Of the stacks
    of several threads the main thread's is the last. Frames of this module are left out."""
    stack = stack.rpartition("first):\n  File")[2].partition(" in _run_calls\n")[0]
    places = [
        "{}:{} {}".format(*each)
        for each in _module("re").findall(r'"(?:.*[/\\])?(.*)", line (\d+),? in (.*)\n', stack)
        if each[0] != os.path.basename(__file__)
    ]
    where = " <- ".join(places[:10])  # a recursion may have no end
    return where and f"; it was at {where}"


def _pack_error(error: BaseException) -> list[Any]:
    """The payload of an error: its type and message, its traceback, and itself."""
    cls = type(error)
    said = cls.__qualname__
    inner = error.__traceback__
    while inner and inner.tb_frame.f_code.co_filename == __file__:  # without our own frames
        inner = inner.tb_next
    try:
        said = f"{cls.__module__}.{cls.__qualname__}: {error}"
        text = _module("traceback").format_exception(cls, error, inner)
    except Exception:  # a __getattr__ of the user may raise anything
        text = _module("traceback").format_tb(inner)
    payload = [b"", marshal.dumps((said, "".join(text)))]
    try:
        payload += map(bytes, _pack(error, "home"))
    except Exception:  # code of the user may fail in any way
        pass
    return payload


def _restore_error(described: Any, *frames: Any) -> BaseException:
    """The error that a worker described, with the worker's traceback as its cause."""
    said, text = marshal.loads(described)

    def add_source(frame: Any) -> str:  # only this process knows that of a notebook's cell
        return frame[0] + _module("linecache").getline(frame[1], int(frame[2]))

    text = _module("re").sub(r'  File "(.+)", line (\d+), in .+\n(?!    )', add_source, text)
    try:
        error = _unpack(frames, {})
    except Exception:  # it has none, or its class does not exist here, or refuses
        error = RuntimeError(said)
    # even if the class forbids it
    object.__setattr__(error, "__cause__", RemoteTraceback(f'\n"""\n{text}"""'))
    return error


def wrap_non_picklable_objects(obj: Any, keep_wrapper: bool = True) -> Any:
    """Give back `obj`: functions and classes travel by value anyway. Kept for code that calls it.

    >>> wrap_non_picklable_objects(len)
    <built-in function len>

    Parameters
    ----------
    obj : any value
    keep_wrapper : bool, default True
        Ignored.

    Returns
    -------
    any value
        `obj` itself.
    """
    return obj


# ==================================================================================================
# 6. Pools
# ==================================================================================================
# Promise: a batch that is handed to a pool comes back with what came of it: values, errors by task;
# the other tasks were not started, or a worker died before it had delivered what came of them; they
# are run again. Whatever befalls a worker is the error of one task at most.
#
#     |============= this process =============|== socket ==|========= worker =========|
#     submit(batch) -> driver thread ----------- payload -------->  open and run, by task
#     done.get() <---- driver thread <---------- payload ---------  pack
#
#     pool: what one run hands its batches to. A driver thread of this process has a worker run a
#     batch: it owns the worker meanwhile, and puts into the pool's queue what the caller's thread
#     is to hear. (A small batch is sent by the caller's thread, before a driver thread wakes up)
#     fork server: one clean child process; forks workers on request, sees how they die, takes them
#     along when we are gone
#     page: memory shared with a worker: the key of its batch; the number in it, from 1, of the task
#     at work or just done (0 before the first and after the last); its start; when the worker is to
#     be killed, interrupted before (negative once it has seen that); the key of a batch that is to
#     give tasks back; how it died; and then the stacks that `faulthandler` wrote
#
# Laws
#   1. A worker has one batch at a time: a crash, a timeout or a kill blames one task.
#                                                               test_a_fault_fails_its_task_only
#   2. A run that ends early leaves no task running in a process. test_error_ends_running_tasks
#   3. When this process is gone, so is every process of ours.
#                                                       test_no_process_outlives_a_killed_caller
#   4. Nothing here keeps the interpreter from exiting. test_exit_does_not_wait_for_a_stuck_task
#   5. A worker that dies idle is not noticed.          test_idle_death_is_not_noticed
#   6. What tasks print, warn of and log comes home at once and in order; silence costs no message.
#                                            test_prints_warnings_and_records_keep_their_order
#   7. What runs elsewhere, on executors of others, needs Python and no more.
#                                                   test_executors_of_others_keep_the_promises
#   8. No task in a process sees what another wrote to its arguments, whatever its batch.
#                                                     test_tasks_do_not_see_each_others_writes
#   9. Whoever waits is told where a task was that ran too long, or crashed.
#                                                       test_a_timeout_says_where_the_task_was
#  10. Where nothing can be forked, workers that the standard library starts keep what they can.
#                                                    test_the_standard_pool_keeps_what_it_can
#  11. An idle worker ends as a program does: its files are written, what is to run at exit runs.
#                                                test_an_idle_worker_ends_as_a_program_does
#
#     data                  | who writes it                            | who may read it
#     a pool, a context     | the caller's thread; their end: `close`  | the same, and its drivers
#     the queues of a pool  | any thread, in one step                  | the same
#     a worker, its batch   | who submits it, then its driver thread   | the same, then the caller's
#     a page                | worker, driver, fork server: some words  | all sides
#     output of tasks       | any thread of the worker                 | who holds the lock, to send
#     idle workers, drivers, pools at work | any thread, in one step   | the same
#     `_starters`           | any thread, under its lock               | the same
#     the control socket    | any thread, in one step                  | the fork server

# A worker that has worked so long sends what is done; work lost with a dead worker, and the
# unevenness at the end of a run, are of this size
CHECKPOINT_S = 0.02
LOOK_S = 0.001  # how long it works before it looks whether it should, or give tasks back
GRACE_S = 0.2  # what a running task gets between KeyboardInterrupt and SIGKILL, for its `finally`
# On every system; to import `signal` takes a descriptor, and none may be left
_SIGINT = 2
_SIGKILL = 9
# After so long a batch gives back what it has not started, and so do all when nothing has come for
# so long
_LONG_S = 0.2
_LONGEST_S = 2e6  # to wait at once: the system takes no endless numbers
# Workers, fork servers, or workers of an executor that may die before they have begun a batch
_START_TRIES = 3

_cores: int | None = None  # in a worker process: the cores it may use for itself


class TerminatedWorkerError(RuntimeError):
    """A task's worker process ended before the task did: killed, crashed, or out of memory.

    >>> issubclass(TerminatedWorkerError, RuntimeError)
    True

    The text says which task, which signal or exit code, and after a crash where the task was. With
    `on_error="return"` or "skip" the run goes on with a new worker.
    """


# A number that no other batch, run or worker of this process has: one step, of any thread
_next_number = itertools.count(1).__next__
# what a forked child of this process must let go
_sockets: weakref.WeakSet[Any] = weakref.WeakSet()


def _spread(source: Any, tasks: Iterable[Any]) -> Iterable[Task]:
    """Tasks of a batch or run as (function, arguments, keyword arguments). With a width, they are
    the arguments of one function: in tuples, or as they are if the width is 1."""
    if not source.width:
        return tasks
    args = zip(tasks) if source.width == 1 else tasks
    return zip(itertools.repeat(source.function), args, itertools.repeat({}))


_ANSWER, _PART, _INIT_FAILED = range(3)  # kinds of answers; after a part more follow


class _Batch:
    """Tasks that travel together, and what came of them: `values` of the first tasks, with a filler
    where `errors`, by offset, has an entry; an error may also stand beyond the values. The other
    tasks are to be sent again; if nothing came of a batch, in smaller ones, to find out why.
    """

    width = 0  # see _spread
    function: Any = None
    is_late = False  # whether the time of its only task was up
    payload: Any = None  # functions, whether its tasks are plain, payloads: to be sent to a process
    nbytes = 0  # of that, beside what was sent before
    tries = 0  # how many new workers it was given to; or how often it was sent to an executor
    future: Any = None  # of the executor that it was given to
    left: list[Any] = []  # of a thread that calls one function: its tasks again; emptied to stop it
    worker: _Worker | None = None  # that is at work on it
    seconds = 0.0
    nbytes_back = 0  # that the values took on their way
    fault: BaseException | None = None  # what kept the pool from running it at all

    def __init__(self, first: int, tasks: Any, settings: tuple[float | None, bool, bool]) -> None:
        self.key = _next_number()
        self.first = first  # number of the first task in its run
        self.tasks = tasks
        # timeout      seconds that its only task may run
        # keep_going   whether the tasks after a failed one are run
        # shrinkable   whether tasks that are not started may be given back
        self.timeout, self.keep_going, self.shrinkable = self.settings = settings
        self.values: list[Any] = []
        self.errors: dict[int, BaseException] = {}
        self.page: Any = [0] * 6  # of a worker thread; a worker process puts its own here

    def add(self, values: list[Any], errors: dict[int, BaseException], seconds: float) -> None:
        """Take what came of the next tasks."""
        for offset, error in errors.items():
            self.errors[len(self.values) + offset] = error
        self.values += values
        self.seconds += seconds

    def receive(self, answer: list[Any]) -> int:
        """Take an answer: gives its kind."""
        (head,), *payloads = answer
        kind, seconds, values = _pickle_loads(head)
        errors: dict[int, BaseException] = {}
        for own in payloads:
            value = _NOTHING
            try:
                if own[0]:
                    value = _unpack(own, {})
                else:
                    errors[len(values)] = _restore_error(*own[1:])
            except Exception as error:  # a value's unpickling may raise anything
                errors[len(values)] = RuntimeError(
                    f"the result could not be unpickled here: {type(error).__name__}: {error}"
                )
            values.append(value)
        if kind == _INIT_FAILED:
            self.fault = errors[0]
        elif not self.is_late:
            self.add(values, errors, seconds)
            self.nbytes_back += sum(len(frame) for own in answer for frame in own)
        return kind  # type: ignore[no-any-return]

    def blame(self, error: BaseException) -> None:
        """Nothing came of it: if it has one task, that is to blame; several are sent again, in
        smaller batches, to find out which."""
        if len(self.tasks) == 1:
            self.errors[0] = error


_BATCH, _TASK, _START, _END, _SHED, _DEATH = range(6)  # places in a page
_STACK_AT = 48  # behind them, in bytes
_PAGE_NBYTES = 1_048_576  # the stacks of 100 threads fit in


def _is_task(task: Any) -> bool:
    return isinstance(task, (tuple, list)) and len(task) == 3 and callable(task[0])


def _no_task(task: Any) -> TypeError:
    """What to write in place of what is no task; or is one, in place of an iterable of them."""
    got = f"{task!r:.200}, which looks like a result: write delayed(f)(x), not f(x)"
    if callable(task):
        got = "a function without its arguments: write (delayed(f)(x) for x in xs)"
    elif _is_task(task):
        got = "one task: put it into a list"
    error = TypeError(
        f"expected tasks: delayed(function)(...), or (function, args, kwargs); got {got}"
    )
    error.__suppress_context__ = True  # how it showed tells nothing
    return error


def _call(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _run_calls(batch: _Batch) -> Iterator[tuple[Any, ...]]:
    """Run the calls of a batch in order, and give what came of them every CHECKPOINT_S, and at the
    end: (kind of answer, values, errors by offset, seconds). The page shows the place of the call
    at work, and says when to give back the others; after _LONG_S they are given back anyway. A
    thread that calls one function does so with no line of Python between the calls; whoever empties
    `left` stops it after the call at work."""
    page = batch.page
    clock = time.monotonic
    begun = clock()
    look = begun + LOOK_S
    late = begun + _LONG_S if batch.shrinkable else math.inf
    values: list[Any] = []
    errors: dict[int, BaseException] = {}
    function = batch.function
    is_single = batch.width == 1
    tasks = iter(batch.left or batch.tasks)
    # what a thread has left of the tasks, as results
    calls = batch.left and (map if is_single else itertools.starmap)(function, tasks)
    for page[_TASK], args in enumerate(tasks, 1):
        try:
            values.append(function(args) if is_single else function(*args))
            if calls:
                values.extend(calls)  # keeps what came before an error
                # an iterator that has come to the end of its list lets it go
                if len(tasks.__reduce__()) > 2:
                    raise StopIteration  # a call did
        except BaseException as error:  # also SystemExit and KeyboardInterrupt end only their task
            errors[len(values)] = error
            values.append(_NOTHING)
            if not batch.keep_going or isinstance(error, KeyboardInterrupt):
                break
        now = clock()
        if now < look:
            continue
        look = now + LOOK_S
        if page[_SHED] == batch.key or now > late:
            break
        if now - begun > CHECKPOINT_S:
            yield _PART, values, errors, now - begun
            values, errors, begun = [], {}, clock()
    page[_TASK] = 0  # from here on an interrupt comes too late
    yield _ANSWER, values, errors, clock() - begun


# ---- tasks and results across a border ----
# No task sees what another writes to its arguments, whatever batch they travel in: each has a
# pickle of its own, which is opened as the task begins. Only where nothing that could be written to
# comes twice, all may go in one. Results likewise. `own` is one payload: a list of frames.


def _are_apart(values: Sequence[Any], count: int) -> bool:
    """Whether one pickle may hold these values of so many tasks, since no task that writes to its
    own changes another's: they are plain, or short lists and tuples of plain values, each of which
    comes once. (To look into more of them would take longer than a pickle for each task.)"""
    if _ATOMS.issuperset(map(type, values)):
        return True
    numpy: Any = sys.modules.get("numpy")
    plain = _ATOMS.union(getattr(numpy, "sctypeDict", {}).values())
    plain -= {getattr(numpy, "void", None)}
    held = [value for value in values if type(value) not in plain]
    return (
        _SEQUENCES.issuperset(map(type, held))
        and len({*map(id, held)}) == len(held)
        and sum(map(len, held)) < _SMALL * count
        and plain.issuperset(map(type, itertools.chain.from_iterable(held)))
    )


def _raise(error: BaseException, *_: Any, **__: Any) -> None:
    raise error


def _open_batch(message: Sequence[Any], came: dict[Any, Any], page: Any) -> _Batch:
    """The batch of a message, on every far side. Before its tasks come the functions that are new
    here; `came` keeps them by their keys."""
    head, *payloads = message
    number, first, settings, keys, are_plain = marshal.loads(head[0])
    batch = _Batch(first, (), settings)
    batch.page = page
    batch.key = page[_BATCH] = number
    for key, own in zip(keys, payloads):
        try:
            came[key] = _quietly(_unpack, own, came)
        except BaseException as error:  # unpickling runs code of the user
            came[key] = partial(_raise, error)
    page[_START] = time.monotonic_ns()  # what functions import is not the task's time
    opened: Any = None

    def run_packed(own: list[Any]) -> Any:
        nonlocal opened  # holds them until the value is sent: a worker may die of dropping them
        # a buffer may be for several tasks: each gets a copy
        opened = func, args, kwargs = _unpack(own, came, True)
        return (came[func] if type(func) is int else func)(*args, **kwargs)

    batch.function = run_packed
    batch.width = 1
    batch.tasks = payloads[len(keys) :]
    if are_plain:
        key, batch.width, batch.tasks = _pickle_loads(*batch.tasks[0])
        batch.function = came[key]
    return batch


def _pack_answer(
    kind: int, values: list[Any], errors: dict[int, BaseException], seconds: float
) -> list[Any]:
    """What came of some tasks: a head with the values, if one pickle may hold all, else a payload
    of each. A value that cannot be packed becomes an error."""
    are_plain = not errors and _are_apart(values, len(values))
    payloads = [[_pickle_dumps((kind, seconds, values if are_plain else []), 5)]]
    if are_plain:
        return payloads
    pack = _packer("home")
    for offset, value in enumerate(values):
        try:
            if offset in errors:
                raise errors[offset]
            payload = _pack_or_explain(value, "the result", pack)
        except BaseException as error:
            payload = _pack_error(error)
        payloads.append(payload)
    return payloads


# ---- messages over a socket ----


def _send_all(sock: Any, data: Any, fds: Iterable[int] = ()) -> None:
    """Send bytes, and descriptors with the first of them. Where the other side is gone, this is an
    OSError also in a program that lets SIGPIPE end it."""
    socket = _module("socket")  # no import statement, which fails as the interpreter ends
    quiet = getattr(socket, "MSG_NOSIGNAL", 0)
    if fds:
        rights = socket.SOL_SOCKET, socket.SCM_RIGHTS, _module("array").array("i", fds)
        sent = sock.sendmsg([data], [rights], quiet)  # `socket.send_fds` forgets the flags
        data = memoryview(data)[sent:]
    sock.sendall(data, quiet)


def _hang_up(sock: Any) -> None:
    """End a connection, also where a forked child still holds the socket."""
    try:
        sock.shutdown(2)  # both ways
    except OSError:  # the other side is gone
        pass
    sock.close()


# A message is several payloads over one stream socket: the length of a table, the table, and the
# big frames. The table has, by their ids, small frames themselves; the sizes of big ones; and of
# pieces the place of the segment's descriptor, among those that come with the length, and theirs in
# the segment. And for each payload it has the ids of its frames. A pipe of the standard library
# tells the length of what it sends itself.


def _send_message(
    sock: Any, payloads: Sequence[Sequence[Any]], mapping: Sequence[Any] = _NO_MAPPING
) -> None:
    entries = {id(frame): frame for own in payloads for frame in own}
    entries |= _lay_big(entries, *mapping)
    fds: dict[int, int] = {}
    big: list[Any] = []
    for key, frame in entries.items():
        match frame:
            case _Piece(segment=segment, where=where):
                entries[key] = fds.setdefault(segment.fd, len(fds)), where
            case _ if len(frame) >= _IN_BAND:
                entries[key] = len(frame)
                big.append(frame)
    data = marshal.dumps((entries, [[*map(id, own)] for own in payloads]))
    if not _HAS_FORK:  # a pipe of the standard library
        for frame in data, *big:
            sock.send_bytes(frame)
        return
    data = len(data).to_bytes(8) + data  # one copy while it is sent, not two
    _send_all(sock, data, fds)
    for frame in big:
        _send_all(sock, frame)


def _receive_message(sock: Any) -> list[list[Any]]:
    """The next message. EOFError when the other side is gone."""

    def read(nbytes: int) -> Any:
        if not _HAS_FORK:
            return sock.recv_bytes()
        frame = bytearray(nbytes)
        rest = memoryview(frame)
        while rest:
            got = sock.recv_into(rest)
            if not got:
                raise EOFError
            rest = rest[got:]
        return frame

    head = b""
    fds: list[int] = []
    if _HAS_FORK:
        # the system passes no more descriptors at once
        head, fds, _, _ = _module("socket").recv_fds(sock, 8, 253)
    segments = list(map(_Segment, fds))
    # where nothing came, `marshal` says EOFError
    frames, payloads = marshal.loads(read(int.from_bytes(head)))
    for key, entry in frames.items():
        match entry:
            case int():
                frames[key] = read(entry)
            case place, where:
                if place >= len(segments):
                    raise RuntimeError(
                        "a big array could not be received: too many open files in this process"
                    )
                frames[key] = _Piece(segment=segments[place], where=where)
    return [[frames[key] for key in own] for own in payloads]


def _has_data(sock: Any, patience: float = 0) -> Any:
    """Whether there is something to read within so many seconds, or the end of the other side to be
    noticed."""
    import select

    try:
        if not _HAS_FORK:
            return sock.poll(patience)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
    # the garbage collector has closed it, as a part of a cycle; or the other side of a pipe is gone
    except Exception:
        return True
    return poll.poll(patience * 1000)


# ---- the world of the caller: what of it a task may depend on ----


def _world() -> tuple[Any, ...]:
    """That of this process, in plain values that any process can read."""
    import warnings

    try:
        folder = os.getcwd()
    except OSError:  # it was deleted
        folder = ""
    path = []
    for entry in sys.path:
        if isinstance(entry, str):  # Python looks at nothing else
            if not os.path.isabs(entry):  # modules came from where it led then, or leads now
                path.append(os.path.join(_START_FOLDER, entry))
            path.append(_exact_text(entry))
    process = sys.modules.get("multiprocessing.process")
    # managers ask for it
    authkey = bytes(process.current_process().authkey) if process else b""
    levels = None
    logging: Any = sys.modules.get("logging")
    if hasattr(logging, "root"):  # not if another thread just loads it
        levels = (
            int(logging.root.level),
            bool(logging.root.handlers),
            {
                _exact_text(name): int(level)
                for name, level in logging.getLevelNamesMapping().items()
            },
        )
    return (
        folder,
        path,
        list(map(_exact_text, sys.argv)),
        dict(os.environ._data),  # type: ignore[attr-defined]  # without decoding it all
        authkey,
        _portable_filters(tuple(warnings.filters)),
        levels,
    )


@lru_cache
def _portable_filters(filters: tuple[Any, ...]) -> bytes:
    """The filters of warnings, packed, but for those whose category no other process finds, and
    those of numpy itself, which a worker need not import for them."""
    return _pickle_dumps(
        [
            each
            for each in filters
            if _name_abroad(each[2])
            and not (each[0] == "always" and each[2].__module__.startswith("numpy."))
        ]
    )


def _quietly(func: Callable[..., Any], *args: Any) -> Any:
    """The result of a call that may import modules: what they warn of when they are imported was
    said at home. After it, what was shown once may be shown again: a run finds a used worker like a
    new one."""
    import warnings

    with warnings.catch_warnings(action="ignore"):
        return func(*args)


_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


# ---- the side of the worker ----

_OUT, _ERR, _RECORD = range(1, 4)  # the kind of a piece of output; the first two are descriptors


def _initialize(packed: bytes, start_spaces: dict[Any, Any]) -> None:
    """Run the initializer of a worker process; what it sets here stays."""

    def modules(more: Iterable[Any] = ()) -> list[Any]:
        return [each for each in [*sys.modules.values(), *more] if type(each) is ModuleType]

    initializer, initargs = _quietly(_unpack, _pickle_loads(packed), start_spaces)
    before = {each.__name__: {**vars(each)} for each in modules()}
    before["__main__"] = {}
    initializer(*initargs)
    start_spaces.update(dict.fromkeys(_classes.values()))
    for module in modules(start_spaces.values()):
        space = vars(module)
        # `before` itself stands for a name that was not there
        old = before.get(module.__name__, {})
        space[_KEPT] = [name for name in space if space[name] is not old.get(name, before)]


class _Output(io.RawIOBase):
    """Hands what is written to a worker's sys.stdout or sys.stderr to `say`, as (descriptor,
    bytes), when it is flushed or a line ends: the output of another worker might come between two
    halves of a line. C code and child processes write elsewhere: to the descriptors 1 and 2, which
    are those that the caller had when its fork server started."""

    def __init__(self, fd: int, say: Callable[..., Any]) -> None:
        self.fd = fd
        self.say = say
        self.name = "<stdout>" if fd == _OUT else "<stderr>"
        self.half: deque[bytes] = deque()  # of a line

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.fd

    def write(self, data: Any) -> int:
        data = bytes(data)
        if data:
            self.half.appendleft(data)
        if self.half and (not data or data.endswith(b"\n")):
            self.say(self.fd, b"".join(_drained(self.half)))
        return len(data)


class _OutputStream(io.TextIOWrapper):
    """A worker's sys.stdout or sys.stderr."""

    mode = "w"

    def flush(self) -> None:
        super().flush()
        self.buffer.write(b"")  # tells `_Output`


class _WorkerState:
    """All that a worker process keeps. Its messages are answers, and what tasks say: whole lines,
    and what they have flushed, at once."""

    mapping = _NO_MAPPING  # how big results travel
    idle_s = _LONGEST_S  # how long it waits for a batch

    def __init__(self, sock: Any, page: Any, fd: int) -> None:
        self.sock = sock
        self.lock: Any = threading.RLock()  # whose owner sends messages
        self.messages: deque[list[Any]] = deque()  # not sent yet
        self.page = page
        self.fd = fd  # of the page's file, which takes stacks
        self.start_spaces: dict[Any, Any] = {}  # of the initializer: every run starts from them
        self.main = sys.modules["__main__"]  # between runs
        self.streams = [
            _OutputStream(
                _Output(fd, self.say), "utf-8", "backslashreplace", "\n", line_buffering=True
            )
            for fd in (_OUT, _ERR)
        ]
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = self.streams  # type: ignore[misc]

    def settle(self, caller: int, line: int) -> None:
        """Become a process of its own after the fork. `line` can be read when the fork server is
        gone, which ends with the caller at the latest: then this process group is killed, even in
        the midst of a task."""
        import faulthandler
        import fcntl
        import signal
        from multiprocessing import process, resource_tracker

        def end() -> None:
            os.read(line, 1)
            os.kill(0, _SIGKILL)  # the group

        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if sys.platform == "linux":  # SIGIO ends a process there
            fcntl.fcntl(line, fcntl.F_SETOWN, -os.getpid())
            fcntl.fcntl(line, fcntl.F_SETFL, fcntl.FASYNC)
            if _has_data(line):  # it went before, as this interpreter started: no signal comes
                raise EOFError
        else:
            _start_thread(end)
        process.current_process().name = f"joblite-worker-{os.getpid()}"
        process._parent_process = process._ParentProcess(  # type: ignore[attr-defined]
            "MainProcess", caller, line
        )
        # The resource tracker is no process, and is told nothing: at the end of the worker it would
        # unlink the shared memory of others. Processes that a task starts ask for its descriptor
        resource_tracker._resource_tracker._fd = os.open(  # type: ignore[attr-defined]
            os.devnull, os.O_WRONLY
        )
        faulthandler.enable(self.fd, all_threads=False)
        # a forked child of a task must not speak for the worker
        os.register_at_fork(after_in_child=self.sock.close)

    def live(self) -> None:
        """The life of a worker process: it answers messages until there are no more, or the other
        side has been silent for long."""
        import signal

        _Local.inside = "threading"
        signal.signal(_SIGINT, self.interrupt)
        try:
            while _has_data(self.sock, min(self.idle_s, _LONGEST_S)):
                message = _receive_message(self.sock)
                if message:
                    self.work(message)
                else:  # a run is over whose functions this worker keeps
                    self.forget()
                del message  # the big arrays of the batch may go
        except EOFError:
            pass
        self.sock.close()  # what is said from here on goes to the descriptors

    def enter_world(
        self,
        folder: str,
        path: list[str],
        argv: list[str],
        environ: dict[Any, Any],
        authkey: bytes,
        filters: bytes,
        levels: tuple[int, bool, dict[str, int]] | None,
    ) -> None:
        """Take over the caller's world."""
        import warnings

        sys.path[:] = path
        sys.argv[:] = argv
        self.levels = levels
        try:
            os.chdir(folder)
        except OSError:  # deleted: a task that needs it will say so
            pass
        raw: Any = getattr(os, "environb", os.environ)
        raw.clear()
        raw.update(environ)
        for name in _THREAD_VARIABLES:
            # what the user has asked for counts more than the environment
            if self.native_threads or name not in os.environ:
                os.environ[name] = str(self.native_threads or _cores)
        if authkey:
            from multiprocessing import process

            process.current_process().authkey = authkey
        try:
            opened = _quietly(_pickle_loads, filters)
            warnings.resetwarnings()
            warnings.filters[:] = opened  # type: ignore[index]
        except Exception:  # a category is not to be had here
            pass
        if levels:
            import logging

            level, _, names = levels
            logging.root.setLevel(level)
            for name, number in names.items():
                logging.addLevelName(number, name)

    def enter_run(self, mapping: Any, world: Any, kind: Any) -> None:
        """Serve another run. Have log records go home which no handler here takes. The root logger
        has a handler for that if it has one at home: else `logging.info` in a task would set up
        another."""
        global _cores
        self.mapping = mapping
        packed = b""
        if kind:
            # that native libraries may start; None: one for each core it has
            self.idle_s, _cores, self.native_threads, packed, _ = kind
        if world:
            self.enter_world(*world)
        if packed:
            _initialize(packed, self.start_spaces)
            self.main = sys.modules["__main__"]
        self.forget()
        if self.levels:
            import logging.handlers

            # makes the text, and calls `put_nowait`
            handler = logging.handlers.QueueHandler(self)  # type: ignore[arg-type]
            logging.lastResort = handler
            if self.levels[1] and not logging.root.handlers:
                logging.root.addHandler(handler)

    def forget(self) -> None:
        """What came for the run before may go."""
        self.came = dict(self.start_spaces)  # see _unpack
        sys.modules["__main__"] = self.main

    def work(self, message: list[Any]) -> None:
        """Run the tasks of a batch, and send what comes of them."""
        import faulthandler  # sub-interpreters cannot import it

        try:
            for of_run in message[0][1:]:  # there is one in the first batch of a run
                self.enter_run(*_pickle_loads(of_run))
        except BaseException as error:  # whatever an initializer raises is told
            self.answer(_INIT_FAILED, [None], {0: error}, 0.0)
            return
        batch = _open_batch(message, self.came, self.page)
        if batch.timeout:  # a task that holds the lock hears of no interrupt, and is killed
            faulthandler.dump_traceback_later(batch.timeout + 0.025, file=self.fd)
        for part in _run_calls(batch):
            faulthandler.cancel_dump_traceback_later()
            self.answer(*part)

    def say(self, kind: int, content: Any) -> None:
        """Send a piece of output."""
        if self.sock.fileno() < 0:  # in a process that a task has forked
            os.write(kind, content)
        else:
            self.send([[b"", marshal.dumps((kind, content))]])

    def put_nowait(self, record: Any) -> None:
        """Send a log record, with its text made: its attributes in plain values."""
        if self.sock.fileno() < 0:
            import logging

            logging._defaultLastResort.handle(record)  # type: ignore[attr-defined]
            return
        state = {
            key: value if type(value) in _ATOMS else _exact_text(value)
            for key, value in vars(record).items()
        }
        state["levelno"] = int(record.levelno)
        self.say(_RECORD, state)

    def answer(self, kind: int, *done: Any) -> None:
        """Send what came of some tasks: values, errors, seconds."""
        payloads = _pack_answer(kind, *done)
        for stream in self.streams:  # which may hold half a line
            try:
                stream.flush()
            except ValueError:  # a task has closed it, or detached its buffer
                pass
        self.send(payloads)

    def send(self, payloads: list[Any]) -> None:
        """Send a message. Amid it a finalizer, a signal handler or another thread may want to send
        one: whoever is at it sends that, too."""
        self.messages.appendleft(payloads)
        while self.messages and not self.lock._is_owned() and self.lock.acquire(False):
            try:
                for message in _drained(self.messages):
                    _send_message(self.sock, message, self.mapping)
            finally:
                self.lock.release()
        if self.page[_END] > 0:  # an interrupt may have come amid the message
            _module("signal").raise_signal(_SIGINT)

    def interrupt(self, *_: Any) -> None:
        """Raise KeyboardInterrupt in the task, if the worker is to end: the main thread runs this.
        The fork server asks again, until it is done."""
        import faulthandler

        # no message is cut
        if self.page[_TASK] and self.page[_END] > 0 and not self.lock._is_owned():
            self.page[_END] *= -1
            faulthandler.cancel_dump_traceback_later()  # two would mix
            faulthandler.dump_traceback(self.fd, all_threads=False)
            raise KeyboardInterrupt


# ---- the fork server ----

_BOOT = """\
import sys
# not the current directory: its modules may have names of the library
sys.path[:1] = filter(None, sys.path[:1])
import os
# what the caller lets its children have is not for workers
for each in os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else range(3, 1024):
    try:
        if int(each) > 2 and os.get_inheritable(int(each)):
            os.close(int(each))
    except OSError:  # it was for that list, or is none
        pass
try:
    os.getcwd()
except OSError:  # deleted: imports may fail there
    os.chdir("/")
import multiprocessing.resource_tracker, socket, warnings, {modules}  # workers need them
control = socket.socket(fileno=os.dup(0))
with open(os.devnull) as nothing:
    os.dup2(nothing.fileno(), 0)
from importlib.machinery import ModuleSpec, SourceFileLoader
loader = SourceFileLoader({name!r}, {path!r})
module = type(sys)({name!r})
module.__file__, module.__loader__ = {path!r}, loader
module.__spec__ = ModuleSpec({name!r}, loader, origin={path!r})
sys.modules[{name!r}] = module
if {nbytes}:
    import marshal
    code = marshal.loads(control.recv({nbytes}, socket.MSG_WAITALL))
else:
    code = loader.get_code({name!r})
exec(code, module.__dict__)
module._serve_forks(control)
"""  # a child loads this very file under the name it has here: a package around it is not imported


@lru_cache
def _own_code() -> bytes:
    """The code of this module, for a process that cannot read its file."""
    # if it was itself sent by a caller, it came with its code
    return globals().get("_code") or marshal.dumps(globals()["__loader__"].get_code(__name__))


def _view(shared: Any) -> Any:
    """Shared memory as a page."""
    return memoryview(shared).cast("B").cast("q")


def _map_page(file: _Segment) -> Any:
    import mmap

    return _view(mmap.mmap(file.fd, _PAGE_NBYTES))


def _kill_group(pid: int, sig: int) -> None:
    try:
        os.killpg(pid, sig)
    except OSError:  # it is gone, or (macOS) a zombie
        pass


def _fork_worker(fds: list[int], workers: dict[int, Any], control: Any) -> None:
    """Fork a worker that serves these descriptors, a socket and a page. It keeps no socket and no
    life line of other workers, and not the control socket. What nothing holds any more is
    closed."""
    import socket

    caller = os.getppid()
    try:
        sock = socket.socket(fileno=fds[0])
        file = _Segment(fds[1])
        page = _map_page(file)
        inner, line = map(_Segment, os.pipe())
        pid = os.fork()
    except Exception:  # of the system, or no descriptors came, for want of room
        return  # what was opened closes, and the caller sees the end of its socket
    if pid:
        workers[pid] = sock, page, line
        return
    try:
        os.setpgid(0, 0)  # until then a signal does not reach it, and is sent again
        workers.clear()
        control.close()
        del line
        state = _WorkerState(sock, page, file.fd)
        state.settle(caller, inner.fd)
        state.live()
        sys.exit()  # as a program does: files are written out, what was to run at exit runs
    finally:
        # Whatever else happens: the fork server goes on in the parent only. Its caller may be gone;
        # or it wants this worker gone, and its KeyboardInterrupt came as the task ended
        if type(sys.exception()) is not SystemExit:
            os._exit(1)


def _serve_forks(control: Any) -> None:
    """What the fork server runs: it forks, ends and reaps workers until its caller is gone; they,
    whose life lines it holds, end with it. A message with descriptors asks for a worker;
    one without says that the page of one tells when it is to end. How it died is noted there."""
    import gc
    import select
    import signal
    import socket
    import warnings

    wake, wake_end = os.pipe()
    os.set_blocking(wake_end, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_end)
    warnings.simplefilter("ignore")  # of sockets that nothing holds any more
    gc.freeze()  # forked workers share these objects' pages
    # by process id: socket, page and life line, which are held here, too
    workers: dict[int, tuple[Any, ...]] = {}
    while True:
        patience = None
        for pid, (_, page, _) in list(workers.items()):
            end = page[_END]
            dead, status = os.waitpid(pid, os.WNOHANG)
            if dead:
                _kill_group(pid, _SIGKILL)  # what the worker started
                page[_DEATH] = status + 1
                _hang_up(workers.pop(pid)[0])  # a grandchild may still hold it
                continue
            if not end:
                continue
            # Python overlooks a signal that comes as a task is about to wait for a lock, which
            # takes its time in free-threaded builds: an interrupt is sent until it is seen
            patience = 0.05
            if time.monotonic_ns() >= abs(end):
                _kill_group(pid, _SIGKILL)
            elif end > 0:
                _kill_group(pid, _SIGINT)
        # `_` gets another value: it held a life line, which no worker that is forked may hold
        ready, _, _ = select.select((control, wake), (), (), patience)
        if wake in ready:
            os.read(wake, 4096)
        if control in ready:
            data, fds, _, _ = socket.recv_fds(control, 1, 2)
            if not data:
                os._exit(0)  # the caller is gone; what holds the workers goes with this process
            if fds:
                _fork_worker(fds, workers, control)


def _socket_pair() -> tuple[Any, Any]:
    """Two connected sockets: one to keep, which a forked child of this process lets go, and one to
    give away."""
    import socket

    ours, theirs = socket.socketpair()
    ours.settimeout(None)  # whatever the program has set for its own
    _sockets.add(ours)
    return ours, theirs


class _ForkServer:
    """The caller's handle on the process that forks its workers. Any thread may use it: a request
    is so short that the system sends it whole."""

    def __init__(self) -> None:
        self.sock, theirs = _socket_pair()  # for requests: the server never answers
        code = b"" if __file__.endswith(".py") and os.path.isfile(__file__) else _own_code()
        boot = _BOOT.format(
            name=__name__,
            path=os.path.abspath(__file__),
            nbytes=len(code),
            modules="logging.handlers" if sys.modules.get("logging") else "warnings",
        )
        options = []
        if "".join(sys.orig_argv[1:2]).startswith("-"):
            options = _module("subprocess")._args_from_interpreter_flags()
        with theirs:
            self.pid = os.posix_spawn(  # to import `subprocess` takes 8 ms
                sys.executable,
                [sys.executable, *options, "-c", boot],
                os.environ,
                # never the same number: of a pair, that of `theirs` is the higher one
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
                setpgroup=0,
                setsigmask=(),  # this thread may block some
            )
        _send_all(self.sock, code)

    def ask(self, fds: Sequence[int] = ()) -> None:
        """Have a worker started, to serve these descriptors; or have it noticed that a page
        changed."""
        try:
            _send_all(self.sock, b"!", fds)
        except OSError:  # the server is gone, and its workers with it
            self.close()

    def close(self) -> None:
        """End the server and all workers it forked."""
        _hang_up(self.sock)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:  # the program waits for any child
            pass


# ---- the side of the caller ----


def _place_in(page: Any) -> str:
    """In words, where the task was, by the stack that its worker wrote last in its page."""
    return _say_where(page.obj[_STACK_AT:].partition(b"\0")[0].decode())


def _death_of(page: Any) -> str:
    """In words, how a worker ended."""
    import signal

    if not page[_DEATH]:
        return (
            "ended together with the fork server, or could not be started: the system allows no "
            f"more processes or descriptors, or {sys.executable} cannot run {__file__}"
        )
    code = os.waitstatus_to_exitcode(page[_DEATH] - 1)
    if code >= 0:
        return f"ended with exit code {code} before the task did"
    name = next((each.name for each in signal.Signals if each == -code), "unknown")
    hint = ""
    if name == "SIGKILL":
        hint = "; if nobody sent it, the system may have run out of memory"
    elif name in "SIGABRT SIGBUS SIGFPE SIGILL SIGSEGV":  # else a child of a task wrote the stack
        hint = _place_in(page)
    return f"was killed by signal {-code} ({name}){hint}"


_starters: list[_ForkServer] = []  # holds that of this process, once there is one


def _living_server() -> _ForkServer:
    """The fork server, for one thread at a time. One that has died is replaced."""
    if not _starters or _starters[0].sock.fileno() < 0:
        _starters[:] = [_ForkServer()]
    return _starters[0]


class _Context:
    """What the batches of one run share on their way to processes: the caller's world, and
    functions packed once."""

    MOST_FUNCTIONS = 500  # of one run, that a worker keeps: others travel with their batch

    # to pack at a time: what a worker may take; 1 when tasks bring an object again with other
    # content
    most_tasks = sys.maxsize
    mapping: tuple[Any, ...] = _NO_MAPPING
    nbytes = 0  # of the functions
    copy: Callable[[Any], Any] = bytes  # what a frame is for an executor of others
    last: dict[int, tuple[Any, Any]] = {}  # arguments of the last single task, by id
    # pieces and other buffers of the batch packed last: kept, for the next may well use them
    newest: dict[Any, Any] = {}

    def __init__(self, to: str) -> None:
        self.to = to  # see _packer
        self.number = _next_number()
        self.world = _world()
        # id, which is the key, -> (payload, function)
        self.packed: dict[int, tuple[list[Any], Any]] = {}
        # (address, size) -> piece
        self.laid: weakref.WeakValueDictionary[Any, _Piece] = weakref.WeakValueDictionary()

    def name(self, func: Any) -> int:
        """The key of a function that tasks call, or that their arguments hold; with its payload it
        is noted in `functions`. It is packed once in a run. 0 says that it goes with its tasks: it
        is a method or another object that can be called, or the run has too many functions."""
        key = id(func)
        if key not in self.packed:
            if (
                len(self.packed) >= self.MOST_FUNCTIONS
                or not issubclass(
                    type(func),
                    (FunctionType, type, MemorizedFunc, BuiltinMethodType, type(_module)),
                )
                # it is a method, or caches or wraps what an object does
                or type(getattr(getattr(func, "__wrapped__", func), "__self__", sys))
                is not ModuleType
                or getattr(func, "_carried", None)
            ):
                return 0
            payload = _pack(func, self.to)
            self.nbytes += self.settle([payload])
            self.packed[key] = payload, func
        self.functions[key] = self.packed[key][0]
        return key

    def pack(self, batch: _Batch) -> None:
        """Make what is sent of a batch: payloads by function key; its tasks as one pickle, if they
        share a function and no argument that could be written to; else theirs. Notice, while tasks
        still travel one by one, that their iterator refills an object it has yielded before: the
        second and the third time it comes are compared, big buffers of it by samples. What can be
        called is taken not to change."""
        self.functions: dict[int, list[Any]] = {}  # key -> payload
        function = batch.function
        tasks = batch.tasks
        if not batch.width:
            function = tasks[0][0]
            tasks = [
                args
                for func, args, kwargs in tasks
                # other iterables may be read only once
                if func is function and type(args) is tuple and not kwargs
            ]
        values = tasks if batch.width == 1 else [*itertools.chain.from_iterable(tasks)]
        key = self.name(function) if len(tasks) == len(batch.tasks) else 0
        # a list of a single task may come again with other content
        are_plain = key and _are_apart(values, len(tasks) - 1)
        if are_plain:
            payloads = [[_pickle_dumps((key, batch.width or 2, tasks), 5)]]
        else:
            calls: Any = [
                (self.name(func) or func, *given) for func, *given in _spread(batch, batch.tasks)
            ]
            payloads = list(map(_packer(self.to, self.name), calls))
            match calls:
                case [(_, given, named)]:
                    self.compare([*given, *named.values()])
                case _:
                    self.last = {}
        batch.nbytes = self.settle(payloads)
        batch.payload = self.functions, are_plain, payloads

    def compare(self, given: Iterable[Any]) -> None:
        """Notice whether the arguments of a single task came before, with other content."""
        known = self.last
        self.last = {}
        for value in given:
            content = None
            if id(value) in known and not callable(value):
                packed, *views = _pack(value)
                content = [_crc32(packed), *map(_samples, views)]
                if known[id(value)][1] not in (None, content):
                    self.most_tasks = 1
            self.last[id(value)] = value, content

    def settle(self, payloads: list[list[Any]]) -> int:
        """Make payloads independent of the caller, who may refill its arrays; gives how many of
        their bytes are new: not in the batch before. A buffer of several goes once. For a process
        nearby, big buffers become pieces, and a piece that a batch of this run still uses is taken
        again while samples tell no change."""
        frames: dict[Any, Any] = {_address(view): view for own in payloads for view in own[1:]}
        nbytes = 0
        segments: set[_Segment] = set()
        for at, view in frames.items():
            piece = self.laid.get(at)
            # the system passes no more than 253 descriptors at a time
            if piece and len(segments) < 60 and piece.samples == _samples(view):
                segments.add(piece.segment)
                frames[at] = piece
            elif at not in self.newest:
                nbytes += len(view)
        self.newest = {}
        if frames:
            pieces = _lay_big(frames, *self.mapping)
            self.laid.update(pieces)
            self.newest = {**frames, **pieces}
            for at, frame in self.newest.items():
                frames[at] = frame if type(frame) is _Piece else self.copy(frame)
        for own in payloads:
            nbytes += len(own[0])
            own[0] = self.copy(own[0])
            own[1:] = map(frames.get, map(_address, own[1:]))
        return nbytes

    def message(self, batch: _Batch, known: set[int], of_run: Sequence[bytes] = ()) -> list[Any]:
        """A batch for a process that has the `known` functions; then it has all."""
        functions, are_plain, payloads = batch.payload
        new = [*functions.keys() - known]
        known.update(new)
        return [
            [marshal.dumps((batch.key, batch.first, batch.settings, new, are_plain)), *of_run],
            *map(functions.get, new),
            *payloads,
        ]


def _say_here(kind: int, content: Any) -> None:
    """Say what a worker's task said: to the stream or log handlers of the moment."""
    if kind == _RECORD:
        import logging

        record = logging.makeLogRecord(content)
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    else:
        stream = sys.stdout if kind == _OUT else sys.stderr
        _write_to(stream, content.decode("utf-8", "backslashreplace"))


@lru_cache
def _timeout_type() -> type[Exception]:
    """A TimeoutError that is multiprocessing's one as well. Made when the first is raised."""
    from multiprocessing.context import TimeoutError as other

    return type("TimeoutError", (TimeoutError, other), {})


class _Worker:
    """The caller's handle on one worker process. It belongs to the driver thread that runs a batch
    on it, else to the pool of a run, else it is idle."""

    served = 0  # how many tasks it was given
    batch = run = 0  # numbers of the last that it served
    known: set[int]  # keys of the functions it has of that run
    world: Any = None  # that it knows of

    def __init__(self) -> None:
        make = getattr(os, "memfd_create", lambda _: _open_unlinked(None))
        file = _Segment(make("joblite-page"))
        os.ftruncate(file.fd, _PAGE_NBYTES)
        os.lseek(file.fd, _STACK_AT, 0)
        self.page = _map_page(file)
        # if the server dies as it is asked, so has the worker
        self.starter = _one_at_a_time("fork server", _living_server)
        self.sock, theirs = _socket_pair()
        with theirs:
            self.starter.ask((theirs.fileno(), file.fd))

    def send(self, batch: _Batch, pool: _ProcessPool) -> None:
        """Have the worker begin a batch. OSError if it is dead."""
        self.batch = batch.key
        self.served += len(batch.tasks)
        context = pool.context
        of_run = []
        if context.number != self.run:
            world = context.world if context.world != self.world else None
            new = () if self.run else pool.kind
            of_run = [_pickle_dumps((context.mapping[:2], world, new))]
            self.run, self.known, self.world = context.number, set(), context.world
        _send_message(self.sock, context.message(batch, self.known, of_run))

    def run_batch(self, batch: _Batch, pool: _ProcessPool) -> bool:
        """Have the worker run a batch; whether it can run another. EOFError or OSError if it
        dies."""
        if self.batch != batch.key:  # else the caller has sent it
            self.send(batch, pool)
        while True:
            self.wait(batch)
            match _receive_message(self.sock):
                case [[_, said]]:
                    pool.done.put(marshal.loads(said))
                case answer:
                    kind = batch.receive(answer)
                    if kind != _PART:
                        return kind != _INIT_FAILED
                    # no worker may have had it yet when the caller asked
                    pool.ask_back([batch])

    def wait(self, batch: _Batch) -> None:
        """With a limit, wait for a message, unless the time of the task is up: then it is ended."""
        while batch.timeout and not batch.is_late:
            left = batch.timeout
            if self.page[_TASK]:  # else none of this batch has begun
                left -= (time.monotonic_ns() - self.page[_START]) / 1e9
            if left <= 0:
                batch.is_late = True
                self.stop(GRACE_S)
            elif _has_data(self.sock, left):
                return

    def bury(self, batch: _Batch) -> bool:
        """The worker has died: whether it had begun the batch, and so a task is to blame."""
        self.close()
        if self.page[_BATCH] != batch.key and batch.tries < _START_TRIES:
            return False
        # 0, which blames none: it died before the first task, or after the last. But a single one
        # may have just been beginning or ending
        place = (self.page[_TASK] or len(batch.tasks) == 1) - 1
        if place >= len(batch.values):
            batch.errors[place] = TerminatedWorkerError(
                f"the worker process of task {batch.first + place} {_death_of(self.page)}"
            )
        return True

    def stop(self, grace_s: float) -> None:
        """Have the task at work interrupted, and the worker killed so many seconds later. It
        runs no other task, amid which a finalizer might clean up after this one."""
        self.page[_END] = time.monotonic_ns() + int(grace_s * 1e9)
        self.starter.ask()

    def close(self) -> None:
        """End the worker, whatever it does."""
        self.stop(0.0)
        try:
            while self.sock.recv(_IN_BAND):  # the fork server hangs up when the worker is dead
                pass
        except OSError:  # it is gone, with a message unread
            pass
        _hang_up(self.sock)


# ---- where no process can be forked ----


def _serve_spawned(sock: Any, shared: Any) -> None:
    """What a process runs that the standard library has started."""
    # it is a daemon for its caller, so that it ends with that: yet tasks may start processes
    _module("multiprocessing").current_process().daemon = False
    inner, fd = os.pipe()
    # what is written there comes into the page piece by piece; the pipe has no end
    _start_thread(partial(open(inner, "rb").readinto, memoryview(shared)[_STACK_AT:]))
    try:
        _send_message(sock, [])
        _WorkerState(sock, _view(shared), fd).live()
    except (EOFError, OSError):  # the caller is gone
        pass


class _SpawnedWorker(_Worker):
    """One whose process the standard library starts. A task that waits in it is not interrupted:
    the process is killed."""

    def __init__(self) -> None:
        context = _module("multiprocessing").get_context("spawn")
        shared = context.RawArray("c", _PAGE_NBYTES)
        self.page = _view(shared)
        self.sock, theirs = context.Pipe()  # not a socket
        self.process: Any = context.Process(
            target=_serve_spawned, args=(theirs, shared), name="joblite-worker", daemon=True
        )
        with theirs:
            self.process.start()
        try:
            # on Windows, one that dies before it has its end of the pipe leaves that open
            if self.sock not in _module("multiprocessing.connection").wait(
                [self.sock, self.process.sentinel]
            ):
                raise EOFError
            _receive_message(self.sock)
        except (EOFError, OSError):
            self.close()
            raise TerminatedWorkerError(
                f"a worker process {_death_of(self.page)}; where no process can be forked, "
                "a script needs if __name__ == '__main__':"
            ) from None

    def stop(self, grace_s: float) -> None:
        self.page[_END] = 1  # it sees that as it sends
        threading.Timer(grace_s, self.process.kill).start()

    def close(self) -> None:
        self.sock.close()
        self.process.join(GRACE_S)  # so long as an idle one takes to end
        self.process.kill()
        self.process.join()
        self.page[_DEATH] = 1 + (abs(self.process.exitcode) << 8)  # as the fork server notes it


# ---- driver threads ----


def _pop(items: Any) -> Any:
    """The last of some items, which other threads take, too; None when there is none."""
    try:
        return items.pop()
    except IndexError:
        return None


def _drained(items: Any) -> Iterator[Any]:
    """Take one item after the other, until there is none."""
    return iter(partial(_pop, items), None)


# What driver threads are to call, whichever run wants it; None: one may end
_driver_calls: SimpleQueue[Any] = SimpleQueue()
# An item for each of them that waits for a call and was promised none
_waiting_drivers: list[bool] = []


def _drive(first: list[Any]) -> None:
    """The life of a driver thread: a daemon, which exit does not wait for. It keeps nothing of the
    calls it has made. One is started whenever none is idle, since calls may wait for each other. It
    ends when it has been idle for a second."""
    threading.current_thread().name = "joblite-driver"
    call = first.pop()
    while True:
        if call:
            call()
            _waiting_drivers.append(True)
        elif _pop(_waiting_drivers):  # else all that wait are about to be called
            return
        call = None
        try:
            # not for long: free-threaded Python frees what this thread has made only when it runs
            # again, or ends
            call = _driver_calls.get(timeout=1.0)
        except Empty:
            pass


def _end_drivers() -> None:
    """End the threads that are idle, and the others when they will be: one that has just given the
    last result of a run needs a moment."""
    drivers = [
        thread
        for thread in threading.enumerate()
        # the current one, if a task forks
        if thread.name == "joblite-driver" and thread is not threading.current_thread()
    ]
    for _ in drivers:
        _driver_calls.put(None)
    for _ in range(50):
        if not any(
            # Python 3.12 counts also one that is about to end
            thread.is_alive() or os.path.exists(f"/proc/self/task/{thread.native_id}")
            for thread in drivers
        ):
            break
        time.sleep(0.001)


# ---- batches in this process, and in processes that others start ----


_FAR_SIDE = """\
import importlib, marshal, sys
name, version, python = caller
try:
    module = importlib.import_module(name)
except Exception:
    module = None
if module is None and code and python == sys.version[:4]:
    module, loaded = type(sys)(name), marshal.loads(code)
    module.__file__, module._code = loaded.co_filename, code
    exec(loaded, module.__dict__)
    module = sys.modules.setdefault(name, module)
if module or code:
    here = name, getattr(module, "__version__", "unknown"), sys.version[:4]
    if here != caller:
        raise ImportError("the caller has {} {} on Python {}, and here is {} {} on Python {} ({}): "
                          "they must be the same".format(
                              *caller, *here, getattr(module, "__file__", "no file")))
answer = module and module._run_payload(frames)
"""  # What an executor of somebody else runs. It goes as text, since the other side may have
#      nothing but Python: where this file cannot be imported the answer is None, and the batch is
#      sent again with this file's code.


def _fail_late(batch: _Batch, where: str) -> None:
    text = f"task {batch.first} ran longer than timeout={batch.timeout:g} s{where}"
    batch.add([_NOTHING], {0: _timeout_type()(text)}, 0.0)


def _run_here(place: str, batch: _Batch) -> None:
    """Run a batch in this thread; a `Parallel` in it finds itself inside that place. With a limit
    it runs in another thread, which is left to itself when the time is up."""
    parts: list[tuple[Any, ...]] = []

    def work() -> None:
        outer, _local.inside = _local.inside, place
        try:
            parts.extend(_run_calls(batch))
        finally:
            _local.inside = outer

    thread: Any = batch.timeout and _start_thread(work)
    if not thread:
        work()
    else:
        thread.join(batch.timeout)
        if thread.is_alive():
            frame = sys._current_frames().get(thread.ident)
            stack = _module("traceback").format_stack(frame) if frame else []
            where = _say_where("".join(reversed(stack)))
            _fail_late(batch, f"{where} (it cannot be stopped here, and is left running)")
            return
    for _, *part in parts:
        batch.add(*part)


def _run_payload(message: Sequence[Any]) -> list[Any]:
    """On the other side: a batch in; out what came of its tasks. A big buffer of several tasks is
    laid down once, and mapped by each."""
    frames = {id(frame): memoryview(frame) for own in message for frame in own}
    frames |= _lay_big(frames, 1_048_576, "/dev/shm")
    batch = _open_batch([[frames[id(frame)] for frame in own] for own in message], {}, [0] * 6)
    _run_here("threading", batch)
    return [
        [*map(bytes, own)]
        for own in _pack_answer(_ANSWER, batch.values, batch.errors, batch.seconds)
    ]


# ---- idle workers, and when they are too old ----


@lru_cache(maxsize=1)
def _project_names(count: int, newest: str) -> list[str]:
    """The names of the project's modules: looked for anew when another module was imported."""
    return [
        name
        for name, module in [*sys.modules.items()]
        if type(module) is ModuleType and _can_import(name) and _is_project(name)
    ]


_HOLD_CODE = {  # where types of what modules and classes hold have their function
    FunctionType: "__wrapped__",
    property: "fget",
    classmethod: "__wrapped__",
    staticmethod: "__wrapped__",
    type(_module): "__wrapped__",
}
# How the project's modules were loaded, and the code of their functions and methods. Workers import
# these themselves, once: where a module was imported or loaded anew, or a function has other code
# since (IPython's autoreload changes that in place), idle workers are too old
_project_code: list[Any] = []


def _look_at_project() -> None:
    """Notice changes: another list takes the place of the former. Takes some 200 ns a function."""
    global _project_code
    found: list[Any] = []
    names = list(sys.modules)  # in one step: another thread may import
    for name in _project_names(len(names), names[-1]):
        space = getattr(sys.modules.get(name), "__dict__", {})
        found.append(space.get("__spec__"))
        values = [*space.values()]
        for value in [*values]:
            # not isinstance, which asks the value: a proxy outside of its context raises
            if issubclass(type(value), type) and value.__module__ == name:
                values += vars(value).values()
        found += [
            getattr(getattr(value, _HOLD_CODE[type(value)], value), "__code__", None)
            for value in values
            if type(value) in _HOLD_CODE
        ]
    if [*map(id, found)] != [*map(id, _project_code)]:
        _project_code = found
        _end_idle_workers(0)


# of which idle workers are kept: a program that makes ever new initializers shall not fill the
# machine
_MOST_KINDS = 4
# By kind and the project's code. Any thread puts and takes in one step
_idle_workers: dict[tuple[Any, ...], list[_Worker]] = {}


def _end_workers(workers: Sequence[_Worker]) -> None:
    """End some that are idle: they have a second, all together, for what is to run at exit."""
    for worker in workers:
        try:
            worker.sock.shutdown(1)
        except (AttributeError, OSError):  # it is a pipe, which `close` closes; or dead
            pass
    grace_s = 1.0
    for worker in workers:
        grace_s *= _HAS_FORK and bool(_has_data(worker.sock, grace_s))
        worker.close()


def _end_idle_workers(most: int) -> None:
    """End those that are not of so many kinds, of which the newest count: a kind is as old as its
    first worker here."""
    for kind in [*_idle_workers][: -most or None]:
        _end_workers([*_drained(_idle_workers.pop(kind, []))])


# Executors that were made for a backend's name: (factory, options, executor). Any thread adds in
# one step
_made: list[tuple[Any, dict[str, Any], Any]] = []


def _executor_of(factory: Callable[..., Any], /, **options: Any) -> Any:
    """What a factory makes of these options: made at their first use, and anew when it has
    ended."""
    _watch_exit_and_forks()
    ended = "shutdown", "broken", "_shutdown", "_shutdown_thread", "_broken"
    for made in [*_made]:
        *made_of, executor = made
        flags = getattr(executor, "_flags", executor)  # where loky notes it
        try:
            if any(map(getattr(flags, "__dict__", {}).get, ended)):
                _made.remove(made)
            elif made_of == [factory, options]:
                return executor
        except ValueError:  # there are arrays among the options; or another thread was quicker
            pass
    executor = factory(**options)
    # a backend of joblib's kind serves one run at a time
    if not hasattr(executor, "effective_n_jobs"):
        _made.append((factory, options, executor))
    return executor


def shutdown_workers(wait: bool = True) -> None:
    """End all idle workers; the next call that needs some starts new ones.

    >>> shutdown_workers()

    A task that is at work in one of the worker processes fails with TerminatedWorkerError (where
    nothing can be forked it goes on, and its process ends with the run).

    Parameters
    ----------
    wait : bool, default True
        Taken as True: the processes are gone when it returns.
    """
    _end_idle_workers(0)
    server = _one_at_a_time("fork server", _pop, _starters)
    if server:
        server.close()
    _end_drivers()


# Of runs of this process that have begun: a garbage collection that drops a generator would close
# the sockets of its workers before the generator could give them back
_pools_at_work: set[_Pool] = set()


def _start_anew() -> None:
    """In a forked child: the workers and threads are the parent's."""
    global _driver_calls
    _driver_calls = SimpleQueue()
    for sock in list(_sockets):
        sock.close()
    for kept in _idle_workers, _waiting_drivers, _starters, _made, _pools_at_work:
        kept.clear()  # type: ignore[attr-defined]


_exiting = 0  # a number, when the interpreter has begun to end: runs with lower ones began before


@lru_cache
def _watch_exit_and_forks() -> None:
    """At the first use: let go of everything at exit, and in a forked child of this process. (Two
    threads may do it at once; twice does no harm.)"""
    import atexit

    def shut_down() -> None:
        global _exiting
        _exiting = _next_number()
        shutdown_workers()

    atexit.register(shut_down)
    if _HAS_FORK:  # idle threads end: Python warns of a fork beside threads
        os.register_at_fork(before=_end_drivers, after_in_child=_start_anew)


# ---- the pool of a run ----


class _Pool:
    """What a run hands its batches to; here an executor of somebody else. The caller's thread uses
    it, and waits for what comes back through `done`: batches, and what their tasks have printed."""

    # what the arguments or the results of a batch should take at most
    BATCH_NBYTES = 8_000_000
    GROWTH = 64  # how many times larger a batch may be than one that was seen to finish

    is_over = False  # whether the run is
    # whether workers have nothing to do, and no further batch is to be had; or all are late
    hungry = False

    def __init__(self, size: int, executor: Any = None, shares_memory: bool = True) -> None:
        _watch_exit_and_forks()
        self.size = size
        self.done: SimpleQueue[Any] = SimpleQueue()
        self.executor = executor
        # where batches are packed, if they do not share our memory
        self.context: Any = None if shares_memory else _Context("far")

    def pack(self, batch: _Batch) -> None:
        """Prepare what `submit` sends; whatever cannot be packed raises."""
        if self.context:
            self.context.pack(batch)
        elif batch.width:
            batch.left = list(batch.tasks)

    def submit(self, batch: _Batch) -> None:
        """Take a batch, which waits in the executor until a worker is free; the caller does not."""
        done = self.done
        if not self.context:
            future = self.start(_run_here, "sequential", batch)
        else:
            future = self.start(
                eval,
                "exec(far_side) or answer",
                {
                    "far_side": _FAR_SIDE,
                    "caller": (__name__, __version__, sys.version[:4]),
                    "code": _own_code() if batch.tries else b"",
                    "frames": self.context.message(batch, set()),
                },
            )
            batch.tries += 1
        if not hasattr(future, "add_done_callback"):
            raise TypeError(
                f"backend: expected an executor whose `submit` gives a future; that of "
                f"{type(self.executor).__name__} gave {future!r:.200}"
            )
        batch.future = future
        future.add_done_callback(lambda _: done.put(batch))

    def start(self, func: Callable[..., Any], *args: Any) -> Any:
        """Have the executor call a function: a future."""
        return self.executor.submit(func, *args)

    def take(self, patience: float | None) -> _Batch:
        """The next batch that came back; what tasks have printed until then is said. queue.Empty if
        nothing comes."""
        while True:
            match self.done.get(timeout=patience):
                case (kind, content):
                    _say_here(kind, content)
                case batch:
                    return batch  # type: ignore[no-any-return]

    def receive(self, batch: _Batch) -> bool:
        """Open what came back of a batch; False when it was sent again."""
        from concurrent.futures import BrokenExecutor, CancelledError

        future, batch.future = batch.future, None  # its callback holds the batch, as a cycle
        try:
            answer = future.result()
            if self.context:
                if answer is None:
                    self.submit(batch)
                    return False
                batch.receive(answer)
        except Exception as error:  # the executor is broken, or reports that it lost a worker
            text = f"the executor failed: {type(error).__name__}: {error}"
            if isinstance(error, BrokenExecutor):
                text += "; with spawn a script needs if __name__ == '__main__':"
            lost = TerminatedWorkerError(text)
            lost.__cause__ = error
            match error:
                case BrokenExecutor() | CancelledError():
                    batch.fault = lost  # nothing more is to be had of it
                case _:
                    batch.blame(lost)
        return True

    def ask_back(self, batches: Iterable[_Batch]) -> None:
        """Have workers give back tasks that they have not started: if others are idle, if nothing
        has come back for long, or if their results take more bytes than a batch should."""
        for batch in batches:
            if batch.shrinkable and (self.hungry or batch.nbytes_back > self.BATCH_NBYTES):
                batch.left.clear()
                (batch.worker or batch).page[_SHED] = batch.key

    def close(self, out: set[_Batch]) -> None:
        """The run is over: stop what is queued or at work, let the workers go."""
        self.hungry = self.is_over = True
        for batch in out:
            batch.shrinkable = True
            if batch.future:
                batch.future.cancel()
        self.ask_back(out)


class _DaskPool(_Pool):
    """The executor of a `distributed` client. A big buffer is sent once, as long as its content
    stays the same."""

    GROWTH = 4096  # since a batch costs milliseconds

    def __init__(self, size: int, executor: Any, shares_memory: bool) -> None:
        super().__init__(size, executor, shares_memory)
        self.context.copy = self.lay
        self.laid: dict[tuple[int, int], Any] = {}  # size and checksum -> dask's future

    def start(self, func: Callable[..., Any], *args: Any) -> Any:
        # pure: else equal batches would be run once. Its own futures tell when a buffer is lost
        return self.executor._client.submit(func, *args, **self.executor._kwargs, pure=False)

    def lay(self, frame: Any) -> Any:
        if len(frame) < 1_048_576:  # it goes with every batch
            return bytes(frame)
        content = len(frame), _crc32(frame)
        if content not in self.laid:
            if len(self.laid) >= 8:  # so many are remembered as sent
                self.laid.clear()
            self.laid[content] = self.executor._client.scatter(bytes(frame), hash=False)
        return self.laid[content]

    def receive(self, batch: _Batch) -> bool:
        is_open = super().receive(batch)
        if batch.fault and batch.tries < _START_TRIES and self.context.most_tasks > 1:
            batch.fault = None
            self.laid.clear()  # a buffer was lost with the worker that held it, or the answer
            self.context.packed.clear()
            self.pack(batch)
            self.submit(batch)
            return False
        return is_open


class _ProtocolPool(_Pool):
    """A backend written to joblib's protocol, configured for one run."""

    def __init__(self, size: int, executor: Any, shares_memory: bool) -> None:
        size = executor.configure(n_jobs=size, parallel=None)
        super().__init__(size, executor, shares_memory)
        executor.start_call()

    def start(self, func: Callable[..., Any], *args: Any) -> Any:
        from concurrent.futures import Future

        backend: Any = self.executor
        future: Any = Future()

        def fill(retrieve: Callable[[Any], Any], out: Any) -> None:
            try:
                future.set_result(retrieve(out))
            except BaseException as error:
                future.set_exception(error)

        call = partial(func, *args)
        if backend.supports_retrieve_callback:
            backend.submit(call, callback=partial(fill, backend.retrieve_result_callback))
        else:  # its callback may fail to come with an error: wait for the result itself
            out = backend.submit(call, callback=lambda _: None)
            _start_thread(partial(fill, backend.retrieve_result, out))
        return future

    def close(self, out: set[_Batch]) -> None:
        if out:
            self.executor.abort_everything(ensure_ready=False)
        self.executor.stop_call()
        self.executor.terminate()


class _ThreadPool(_Pool):
    """Driver threads, at most `size` at once, that run the batches of one run."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.waiting: deque[_Batch] = deque()
        self.free = [True] * size  # an item for each thread that may be at work and is not

    def submit(self, batch: _Batch) -> None:
        self.waiting.appendleft(batch)
        if _pop(self.free):
            # no lock is taken: Ctrl-C may come anywhere, and a garbage collection may start a call
            # from anywhere
            if _pop(_waiting_drivers):
                _driver_calls.put(self.serve)
            elif not _start_thread(partial(_drive, [self.serve])):
                self.serve()  # no thread is to be had, as in a browser

    def serve(self) -> None:
        """In a driver thread: run batches while some wait."""
        for batch in _drained(self.waiting):
            try:
                self.run(batch)
            except BaseException as error:  # such as: no memory left. Whoever waits is told
                batch.fault = error
            self.done.put(batch)
            del batch
        self.free.append(True)
        if self.waiting and _pop(self.free):  # came just now
            self.serve()

    def run(self, batch: _Batch) -> None:
        if not self.is_over:
            _run_here("sequential", batch)

    def receive(self, batch: _Batch) -> bool:
        return True


class _ProcessPool(_ThreadPool):
    """Driver threads, each of which has a worker process run its batch: it alone reads from the
    worker and closes it, and writes to it, but for what the caller has sent before. Others set a
    word in the worker's page, and may have the fork server look at it."""

    def __init__(self, size: int, kind: tuple[Any, ...], most: int) -> None:
        _look_at_project()
        super().__init__(size)
        self.context = _Context("near" if _HAS_FORK else "far")
        self.most_tasks = self.context.most_tasks = most  # in a worker's life, and so in a batch
        self.code = _project_code  # kept, so that no other has its id
        # of its workers: seconds they stay idle; cores they may use; threads that native libraries
        # may start there, if the user has said; packed (initializer, arguments), or b""; the code
        self.kind = *kind, id(self.code)
        self.workers: list[_Worker] = []  # that have nothing to do

    def idle_worker(self, batch: _Batch) -> Any:
        """A worker that has nothing to do: whether it lives shows when it is to work. One that has
        had its share of tasks is ended."""
        while worker := _pop(self.workers) or _pop(_idle_workers.get(self.kind, [])):
            if worker.served + len(batch.tasks) <= self.most_tasks:
                return worker
            _end_workers([worker])

    def submit(self, batch: _Batch) -> None:
        """Take a batch. One so small that to send it takes no waiting is begun at once, if a worker
        has nothing to do: until a driver thread gets to it, the caller makes the next."""
        try:
            if self.free and self.context.nbytes + batch.nbytes < _IN_BAND:
                batch.worker = worker = self.idle_worker(batch)
                if worker:
                    worker.send(batch, self)
        except OSError:  # it is dead: the driver thread takes another
            worker.close()
            batch.worker = None
        finally:
            super().submit(batch)

    def run(self, batch: _Batch) -> None:
        """Have a worker run a batch; one that dies before it has begun is replaced."""
        while batch.worker or not self.is_over:
            if not batch.worker and self.context.number < _exiting:
                raise RuntimeError("the interpreter is shutting down: no more tasks are started")
            worker = (
                batch.worker
                or self.idle_worker(batch)
                or (_Worker if _HAS_FORK else _SpawnedWorker)()
            )
            batch.tries += not worker.served  # one that has died idle was no try
            batch.worker = worker
            is_well = False
            try:
                # else `close` sees that there is a worker
                is_well = self.is_over or worker.run_batch(batch, self)
            except (EOFError, OSError):
                if not worker.bury(batch):
                    continue
            finally:
                # an error that holds the batch shall not hold the worker's page, a descriptor
                batch.worker = None
                if is_well and not (batch.is_late or self.is_over):
                    self.workers.append(worker)
                else:  # it may have been stopped
                    worker.close()
            if batch.is_late and not batch.values:  # its value may have come just before
                _fail_late(batch, _place_in(worker.page))
            batch.payload = None  # its big arrays may go
            break

    def close(self, out: set[_Batch]) -> None:
        """Let the workers go. Running tasks get a KeyboardInterrupt; a worker that is not done with
        it after its grace is killed. All are waited for, but not for ever: it may be the garbage
        collector that drops a generator, in the midst of something that a driver thread needs."""
        super().close(out)
        error: Any = sys.exception()
        at_work = [(batch, worker) for batch in out if (worker := batch.worker)]
        try:
            for _, worker in at_work:
                worker.stop(GRACE_S)
            while out:
                # Ctrl-C may have kept the caller from what it had just taken: that has no payload
                is_awaited = any(batch.payload for batch in out)
                out.discard(self.take(4 * GRACE_S if is_awaited else 0.0))
        except Empty:
            pass
        except KeyboardInterrupt:  # once more
            for _, worker in at_work:
                worker.stop(0.0)
            if not isinstance(error, GeneratorExit):
                raise
            # a finalizer would swallow it: the main thread gets another, when it has left that
            threading.Timer(
                0.05,
                _module("_thread").interrupt_main
                if IS_WINDOWS  # there a signal would end the program
                else partial(os.kill, os.getpid(), _SIGINT),
            ).start()
        if isinstance(error, KeyboardInterrupt):
            for batch, worker in at_work:
                where = _place_in(worker.page)
                if where and batch.errors:  # the last was at work
                    error.add_note(f"task {batch.first + max(batch.errors)} was ended{where}")
        # idle workers may forget big functions that came for this run alone
        for worker in _drained(self.workers):
            try:
                if self.context.nbytes > _IN_BAND:
                    _send_message(worker.sock, [])
            except OSError:  # it has just died
                pass
            _idle_workers.setdefault(self.kind, []).append(worker)
        _end_idle_workers(_MOST_KINDS)
        self.context = None  # threads that are about to end still hold this pool


# ==================================================================================================
# 7. Choosing
# ==================================================================================================
# Promise: what a call leaves open is settled here: from its own arguments, else from the
# `parallel_config` in force in this thread, else from where the call stands (nested calls share one
# budget), else by default.
#
#     Parallel(...) arguments > parallel_config in force > place: process -> threads,
#                                                                 thread -> in place > processes
#
# Laws
#   1. An argument that was given beats a context (`prefer` is only a hint); a context ends where
#      its `with` does.                                           test_contexts_nest_and_restore
#   2. `require="sharedmem"` is kept whatever the context says.   test_sharedmem_beats_context
#   3. By default a nested call starts no process.                test_nested_calls_share_one_budget

_DEFAULTS: dict[str, Any] = {
    "backend": None,
    "n_jobs": None,
    "verbose": 0,
    "temp_folder": None,
    "max_nbytes": "1M",
    "mmap_mode": "c",
    "prefer": None,
    "require": None,
}
_UNSET: Any = types.SimpleNamespace(**{name: _Unset(each) for name, each in _DEFAULTS.items()})
_WORDS = {
    "prefer": (None, "processes", "threads"),
    "require": (None, "sharedmem"),
    "return_as": ("list", "generator", "generator_unordered"),
    "on_error": ("raise", "return", "skip"),
}


def _settle(settings: dict[str, Any]) -> dict[str, Any]:
    """Complete the arguments that were given: by what the `parallel_config` in force says, else by
    the defaults. Gives the options for the backend, which it takes out."""
    del settings["self"]
    outer = _local.settings or _DEFAULTS
    for name in _DEFAULTS:
        if type(settings[name]) is _Unset:
            settings[name] = outer[name]
    for name, words in _WORDS.items():
        if settings.get(name, words[0]) not in words:
            _expect(False, name, f"one of {words}", settings[name])
    _expect(
        not (settings["prefer"] == "processes" and settings["require"]),
        "prefer",
        "None or 'threads' beside require='sharedmem', since processes share no memory",
        "processes",
    )
    return {
        name: value for name, value in settings.pop("backend_options").items() if value is not None
    }


def _whole(name: str, value: Any, expected: str, least: int = 1) -> int:
    """The whole number that an argument gives, other than 0. A text is fine, from an environment
    variable say."""
    try:
        number = float(value)
    except Exception:
        number = 0.0
    _expect(number and number >= least and not number % 1, name, expected, value)
    return int(number)


class ParallelBackendBase:
    """What backends derive from that were written to joblib's protocol.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> class Three(ParallelBackendBase):
    ...     supports_sharedmem = supports_retrieve_callback = True
    ...     def effective_n_jobs(self, n_jobs):               # n_jobs may be -1: all there are
    ...         return 3
    ...     def configure(self, n_jobs=1, parallel=None, **options):
    ...         self.pool = ThreadPoolExecutor(3)
    ...         return 3
    ...     def submit(self, func, callback=None):
    ...         self.pool.submit(func).add_done_callback(callback)
    ...     def retrieve_result_callback(self, out): return out.result()
    ...     def terminate(self): self.pool.shutdown()
    >>> Parallel(backend=Three())(delayed(abs)(i) for i in (-1, -2))
    [1, 2]

    `Parallel(backend=...)` takes an instance, `register_parallel_backend` the class. (joblib's own
    class of this name will do, too.) A run calls `configure`, `start_call`, `submit` for each
    batch, `stop_call`, `terminate`; `abort_everything` if it ends early. Without
    `supports_retrieve_callback`, what `submit` gives is handed to `retrieve_result`.

    Parameters
    ----------
    nesting_level, inner_max_num_threads, **more
        Kept as attributes, the last as `backend_kwargs`; joblite does not use them.
    """

    supports_sharedmem = False  # whether its workers are threads of this process
    supports_retrieve_callback = False

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **more: Any,
    ) -> None:
        self.nesting_level = nesting_level
        self.inner_max_num_threads = inner_max_num_threads
        self.backend_kwargs = more

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Get ready for a run; gives the number of workers."""
        return self.effective_n_jobs(n_jobs)  # type: ignore[attr-defined,no-any-return]

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Any:
        """Start a batch: `func()` runs it. When it has ended, call `callback` with the future."""
        return self.apply_async(func, callback)  # type: ignore[attr-defined]  # the older spelling

    def retrieve_result(self, out: Any, timeout: float | None = None) -> Any:
        """The results of what `submit` gave."""
        return out.get()

    def start_call(self, **options: Any) -> None: ...

    stop_call = terminate = abort_everything = start_call


# A way to run tasks. `open(n_jobs)` gives a pool for one run; `options` are the names of the
# keywords that it takes besides; `capacity` the number of workers that it has anyway. What is
# external has a capacity, and runs tasks also for n_jobs=1.
_Backend = namedtuple("_Backend", "name open shares_memory options capacity", defaults=((), None))


@lru_cache
def _say_that_there_are_no_processes() -> None:
    _warn(
        "processes cannot be started here (no fork, or no interpreter to start): tasks run in "
        "threads; where there are none, one after the other and without timeout"
    )


def _open_processes(
    n_jobs: int,
    *,
    initializer: Callable[..., Any] | None = None,
    initargs: Iterable[Any] = (),
    maxtasksperchild: int = sys.maxsize,
    idle_worker_timeout: float = 300.0,  # seconds; the fork server stays
    inner_max_num_threads: int | None = None,
) -> _Pool:
    if not HAS_PROCESSES:
        _say_that_there_are_no_processes()
        return _ThreadPool(n_jobs)
    packed = b""
    if initializer is not None:
        frames = _pack_or_explain((initializer, tuple(initargs)), "(initializer, initargs)")
        packed = _pickle_dumps([*map(bytearray, frames)], 5)
    return _ProcessPool(
        n_jobs,
        (
            idle_worker_timeout,
            max(1, (_cores or cpu_count()) // n_jobs),
            inner_max_num_threads,
            packed,
        ),
        _whole("maxtasksperchild", maxtasksperchild, "None or a whole number above 0"),
    )


_THREADS = _Backend("threading", _ThreadPool, True)
_PROCESSES = _Backend(
    "loky",
    _open_processes,
    not HAS_PROCESSES,
    _open_processes.__kwdefaults__,
)


def _dask_client(scatter: Any = None, wait_for_workers_timeout: Any = None) -> Any:
    """The client in force. What joblib's options say happens here by itself."""
    try:
        return sys.modules["distributed"].get_client()
    except (KeyError, AttributeError, ValueError):  # not imported, or no client
        raise ValueError(
            "backend='dask' needs a client: start one with `from distributed import Client; "
            "client = Client()` (or give it the scheduler's address), then call again"
        ) from None


# Names of backends -> a _Backend, or what makes an executor of the backend options. None is for
# where no backend is named. Written and read in one step by any thread
_backends: dict[Any, Any] = {
    None: _PROCESSES,
    "sequential": _Backend("sequential", None, True),  # the caller's thread runs the tasks
    "threading": _THREADS,
    "threads": _THREADS,
    "loky": _PROCESSES,
    "processes": _PROCESSES,
    "multiprocessing": _PROCESSES,
    "dask": _dask_client,
}


def register_parallel_backend(
    name: str, factory: Callable[..., Any], make_default: bool = False
) -> None:
    """Make `Parallel(backend=name)` run on the executor that `factory(**backend_options)` gives.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> two_threads = ThreadPoolExecutor(2)
    >>> register_parallel_backend("two threads", lambda: two_threads)
    >>> Parallel(backend="two threads")(delayed(abs)(i) for i in (-1, -2))
    [1, 2]
    >>> two_threads.shutdown()

    Parameters
    ----------
    name : str
        What users pass as `backend`. It may replace a name of joblite's own.
    factory : callable
        Called with the backend options, once for each set of them; gives a
        `concurrent.futures.Executor`, which joblite does not close. When that has been shut down or
        is broken, the factory is called again.
    make_default : bool, default False
        Use it where no backend is named.
    """
    _backends[name] = backend = partial(_executor_of, factory)
    if make_default:
        _backends[None] = backend


def _external(executor: Any) -> _Backend:
    """The backend that an executor of somebody else is, or the client of a dask cluster, or a
    backend of joblib's kind."""
    match executor:
        case object(get_executor=get_executor):
            executor = get_executor()
    kind: Any = _Pool
    match executor:  # by the attributes that it has
        case object(effective_n_jobs=count):
            kind = _ProtocolPool
            offer = count(-1)
        case object(_client=client):
            kind = _DaskPool
            offer = sum(client.nthreads().values())
        case object(_max_workers=offer) if offer:
            pass
        case _:
            offer = getattr(executor, "num_workers", None)
    name = type(executor).__name__
    shares_memory = getattr(
        executor,
        "supports_sharedmem",
        isinstance(executor, _module("concurrent.futures").ThreadPoolExecutor)
        and "Interpreter" not in name,  # each thread of such a pool has its own memory
    )
    return _Backend(
        name,
        partial(kind, executor=executor, shares_memory=shares_memory),
        shares_memory,
        capacity=offer or cpu_count(),
    )


def _find_backend(backend: Any, options: dict[str, Any]) -> _Backend:
    """The backend, with these options, that a name or an executor stands for."""
    match backend:
        case None | str():  # an executor need not be hashable
            backend = _backends.get(backend, backend)
            if callable(backend):
                backend = backend(**options)
                options = {}
    if not isinstance(backend, _Backend):
        _expect(
            hasattr(backend, "submit") and not isinstance(backend, type),
            "backend",
            f"one of {[*_backends]} or a concurrent.futures.Executor",
            backend,
        )
        backend = _external(backend)
    if options and backend.open:  # in place there is no use for any
        unknown = sorted(options.keys() - backend.options)
        if unknown:
            _expect(
                False,
                f"backend {backend.name!r}",
                f"options among {sorted(backend.options)}, or what help(Parallel) lists",
                unknown,
            )
        backend = backend._replace(open=partial(backend.open, **options))
    return backend


def _choose(parallel: Parallel[Any, Any], options: dict[str, Any]) -> tuple[_Backend, int]:
    """Settle what a `Parallel` leaves open: its backend and the number of workers."""
    backend = parallel.backend
    if backend is None:  # an executor that is a container may be empty, and so untrue
        backend = _local.settings.get("backend") or _local.inside
        if backend in ("threading", _THREADS):  # it was not chosen here: it takes none of processes
            options = _without(options, _PROCESSES.options)
    if backend is None and (parallel.require or parallel.prefer == "threads"):
        backend = _THREADS
    found = _find_backend(backend, options)
    if parallel.require and not found.shares_memory:
        _expect(
            parallel.backend is None,
            "backend",
            "one of threads, which require='sharedmem' needs",
            parallel.backend,
        )
        found = _THREADS
    n_jobs = parallel.n_jobs
    if n_jobs is None:
        n_jobs = _local.settings.get("n_jobs")
    if n_jobs is None:
        return found, found.capacity or 1
    n_jobs = _whole(
        "n_jobs",
        n_jobs,
        "a whole number other than 0 (-1: all cores, -2: all but one), or None; tasks go into the "
        "call: Parallel(n_jobs=2)(tasks)",
        -sys.maxsize,
    )
    if n_jobs < 0:  # counts back from all there are
        n_jobs += 1 + (found.capacity or _cores or cpu_count())
    return found, max(1, n_jobs) if found.open else 1


class parallel_config:
    """Settings for every `Parallel` that is made in this thread until the `with` block ends.

    >>> with parallel_config(backend="threading", n_jobs=2) as settings:
    ...     Parallel()(delayed(abs)(i) for i in (-1, -2)), settings["n_jobs"]
    ([1, 2], 2)

    Parameters
    ----------
    backend : str, Executor or None
        As for `Parallel`.
    n_jobs, verbose, temp_folder, max_nbytes, mmap_mode, prefer, require
        What a `Parallel` uses that is not given its own; see there.
    inner_max_num_threads : int or None, default None
        How many threads the native libraries (OpenMP, BLAS, ...) of one worker process may use.
        None: a fair share of the cores.
    **backend_options
        Options of the backend, as for `Parallel`.

    Returns
    -------
    dict
        What `with ... as` gives: all settings that hold inside.

    Raises
    ------
    ValueError
        Backend options without a backend; inner_max_num_threads with a backend that cannot keep it;
        an unknown name.
    """

    def __init__(
        self,
        backend: Any = _UNSET.backend,
        *,
        n_jobs: Any = _UNSET.n_jobs,
        verbose: Any = _UNSET.verbose,
        temp_folder: Any = _UNSET.temp_folder,
        max_nbytes: Any = _UNSET.max_nbytes,
        mmap_mode: Any = _UNSET.mmap_mode,
        prefer: Any = _UNSET.prefer,
        require: Any = _UNSET.require,
        inner_max_num_threads: Any = None,
        **backend_options: Any,
    ) -> None:
        self.settings = settings = {**locals()}  # a copy: a debugger refills that dict
        self.outer = _local.settings
        backend_options["inner_max_num_threads"] = inner_max_num_threads
        options = _settle(settings)
        match backend:
            case None | _Unset():
                _expect(
                    not options,
                    "backend",
                    f"'loky' or another that has the options {sorted(options)}",
                    None,
                )
            case _:
                settings["backend"] = _find_backend(backend, options)
        _local.settings = settings

    def __enter__(self) -> dict[str, Any]:
        return self.settings

    def __exit__(self, *_: object) -> None:
        self.unregister()

    def unregister(self) -> None:
        """Go back to the settings from before: for code that uses no `with` block.

        >>> settings = parallel_config(n_jobs=2)
        >>> effective_n_jobs(None)
        2
        >>> settings.unregister()
        >>> effective_n_jobs(None)
        1
        """
        _local.settings = self.outer


class parallel_backend(parallel_config):
    """The older spelling of `parallel_config`: a backend is required, `n_jobs` is -1 by default.

    >>> with parallel_backend("threading") as (backend, n_jobs):
    ...     n_jobs
    -1

    Parameters
    ----------
    backend, n_jobs, inner_max_num_threads, **options
        As for `parallel_config`.

    Returns
    -------
    (backend, int)
        What `with ... as` gives: the backend and `n_jobs`.
    """

    def __init__(
        self, backend: Any, n_jobs: int = -1, inner_max_num_threads: Any = None, **options: Any
    ) -> None:
        super().__init__(
            backend, n_jobs=n_jobs, inner_max_num_threads=inner_max_num_threads, **options
        )

    def __enter__(self) -> tuple[Any, int]:  # type: ignore[override]
        return self.settings["backend"], self.settings["n_jobs"]


# ==================================================================================================
# 8. Parallel
# ==================================================================================================
# Promise: `Parallel(...)(tasks)` gives what `[f(*args, **kwargs) for f, args, kwargs in tasks]`
# gives, sooner.
#
#     tasks --cut--> batch --submit--> pool           at most `pre_dispatch` batches are out at once
#                                        |
#     results <--in order / as ready-- done           each finished batch lets the next one be cut
#
# A run ends when all results are there, or early: by an error of a task or of the tasks' iterator,
# by Ctrl-C, or when its generator is closed or dropped.
#
# Laws
#   1. A `Parallel` holds settings, a _Run holds one call; only its own end frees the workers.
#                                                  test_two_generators_are_open_at_once
#   2. The caller's thread owns the tasks' iterator and the results.
#                                                  test_tasks_are_asked_for_in_the_callers_thread
#   3. A slow reader of a generator slows the feeding.     test_slow_reader_bounds_what_is_out
#   4. However a run ends, its batches do too.             test_dropped_generator_frees_the_workers


def delayed(function: Callable[P, R]) -> Callable[P, TaskOf[R]]:
    """Record a call instead of making it: `delayed(f)(1, a=2)` is the task `(f, (1,), {"a": 2})`.

    >>> delayed(pow)(2, 3)
    (<built-in function pow>, (2, 3), {})

    Parameters
    ----------
    function : callable
        What the task will call.

    Returns
    -------
    callable
        It takes the arguments of `function` and gives the task.

    Raises
    ------
    TypeError
        `function` is not callable.
    """
    if not callable(function):
        raise TypeError(f"delayed: expected a function, got {function!r:.200} (did you call it?)")

    def record(*args: P.args, **kwargs: P.kwargs) -> TaskOf[R]:
        return function, args, kwargs

    try:
        record.__name__ = function.__name__
    except Exception:  # an instance or a partial has no name, another may say anything
        pass
    return record


def _window(pre_dispatch: Any, n_jobs: int) -> float:
    """How many batches may be out at once.

    >>> _window("2 * n_jobs", 4), _window("1.5*n_jobs", 3), _window(0.5, 4)
    (8, 4.5, 1)
    """
    match pre_dispatch:
        case "2 * n_jobs" | "all":
            return 2 * n_jobs
    text = str(pre_dispatch).replace("n_jobs", f" {n_jobs} ", 1)
    try:
        size = math.prod(map(float, text.split("*")))
    except ValueError:
        size = 0.0
    _expect(
        size > 0,
        "pre_dispatch",
        "'all', a number above 0, or a text such as '2 * n_jobs'",
        pre_dispatch,
    )
    return max(1, size)


class _Counts:
    """What a run tells about itself."""

    total: int | None = None  # where that is known
    dispatched = completed = 0
    told = 0  # how many were done when the last line was printed, at `told_at`
    close: Any = bool  # ends the bar, if one is shown

    def __init__(self, calls: _Calls, parallel: Parallel[Any, Any]) -> None:
        self.told_at = self.begun = time.monotonic()
        try:
            self.total = len(calls)
        except Exception:  # a generator, a tqdm bar around one; a range longer than any list
            pass
        # seconds between two lines, if any are printed
        self.line_s: float | None = 1.0 if parallel.verbose > 1 else None
        # a subclass or a patch may have lines of its own
        if parallel.verbose > 2 or parallel.print_progress != parallel._print_progress:
            self.line_s = 0.0
        self.progress = self.make_bar() if parallel.progress is True else parallel.progress

    def make_bar(self) -> Any:
        """What shows progress=True: lines without tqdm, and inside another call nothing."""
        if _local.inside or _Run.work.__code__ in [
            frame.f_code for frame, _ in _module("traceback").walk_stack(None)
        ]:
            return None
        try:
            from tqdm import tqdm  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            self.line_s = 1.0
            return None
        bar = tqdm(total=self.total)
        self.close = bar.close
        return bar

    def tell(self, parallel: Parallel[Any, Any], count: int) -> None:
        """So many tasks more are done; none at the end. Let whoever wants to know."""
        if count:
            match self.progress:
                case None | False:
                    pass
                case object(update=update):
                    update(count)
                case show:
                    show(self.completed, self.total)
        if self.line_s is None or self.completed == self.told:
            return
        now = time.monotonic()
        if not count or now - self.told_at >= self.line_s:
            parallel.print_progress()
            self.told, self.told_at = self.completed, now


class _Calls:
    """The tasks of a run: an iterable of them; or of the arguments that one function is called
    with, which a run takes as they are. Whoever else asks gets tasks."""

    def __init__(self, function: Any, width: int, *iterables: Any) -> None:
        self.function = function  # `_call` for tasks
        self.width = width  # see _spread
        self.iterables = iterables
        self.tasks = iter(iterables[0]) if width < 2 else zip(*iterables)

    def __len__(self) -> int:
        return min(map(len, self.iterables))

    def __iter__(self) -> Iterator[Task]:
        return iter(_spread(self, self.tasks))


class _Run:
    """One call of a `Parallel`, from the first task to the last result; here in the caller's own
    thread."""

    given = 0  # results that were given out, in order

    def __init__(self, parallel: Parallel[Any, Any], calls: _Calls) -> None:
        self.parallel = parallel
        self.calls = calls
        self.counts = parallel._counts = _Counts(calls, parallel)
        # number of a task -> results of it and those after it; _NOTHING for an error left out
        self.ready: dict[int, list[Any]] = {}

    def take(self) -> list[Any]:
        """The results that may be given out now."""
        taken: list[Any] = []
        while values := self.ready.pop(self.given, None):
            self.given += len(values)
            taken += values
        if self.parallel.return_as == "generator_unordered":
            for values in self.ready.values():
                taken += values
            self.ready.clear()
        if self.parallel.on_error == "skip":
            return [value for value in taken if value is not _NOTHING]
        return taken

    def failed(self, error: BaseException, number: int, task: Any) -> Any:
        """What stands in the place of a task that failed, unless its error ends the run. The error
        gets a note that says which task raised it; of what is no task, it says what to write."""
        if not _is_task(task):
            error = _no_task(task)
        note = f"joblite: this is the error of task {number} (counted from 0)"
        notes = vars(error).setdefault("__notes__", [])
        if note not in notes:  # an exception that is raised again and again
            notes.append(note)
        match self.parallel.on_error:
            case "raise":
                try:
                    raise error
                finally:
                    del error  # its traceback holds this frame: it would be a cycle
            case "return":
                return error
        return _NOTHING

    def work(self) -> Iterator[Any]:
        """Run the tasks, and yield None after the first; of a generator, run the others as their
        results are asked for, and yield these."""
        parallel, counts = self.parallel, self.counts
        is_list = not parallel.return_generator
        is_watched = counts.progress is not None or counts.line_s is not None
        values = self.ready[0] = []
        for number, task in enumerate(self.calls, 1):
            counts.dispatched = number
            try:
                func, args, kwargs = task
                value = func(*args, **kwargs) if kwargs else func(*args)
            except Exception as error:
                if number == 1:
                    yield None
                value = self.failed(error, number - 1, task)
            else:
                if number == 1:
                    yield None
            counts.completed = number
            if is_watched:
                counts.tell(parallel, 1)
            if is_list:
                values.append(value)
            elif value is not _NOTHING:
                yield value

    def stream(self) -> Iterator[Any]:
        """Yield None when the run has begun. Then of a generator the results, as they come; those
        of a list are there for `take` at the end."""
        try:
            yield from self.work()
            self.counts.tell(self.parallel, 0)
        except GeneratorExit:  # at the end of the interpreter the names below may be gone
            raise
        except BaseException as error:
            not_given = {
                number: value
                for first, values in self.ready.items()
                for number, value in enumerate(values, first)
                if value is not _NOTHING
            }
            object.__setattr__(error, "partial_results", not_given)  # a class may forbid it
            if isinstance(error.__cause__, RemoteTraceback):
                error.with_traceback(None)  # how it came home; the cause tells where it was raised
            raise
        finally:
            self.counts.close()
        if self.parallel.return_generator:
            yield from self.take()


class _PoolRun(_Run):
    """One call of a `Parallel`, whose tasks a pool runs."""

    broken: BaseException | None = None  # what the tasks' iterator raised

    def __init__(self, parallel: Parallel[Any, Any], calls: _Calls) -> None:
        super().__init__(parallel, calls)
        self.pool = parallel._backend.open(parallel.n_jobs)
        match self.pool.context:
            case _Context(to="near") as context:
                context.mapping = parallel._mapping
        is_auto = parallel.batch_size == "auto"
        # of batches: see there
        self.settings = parallel.timeout, parallel.on_error != "raise", is_auto
        self.tasks: Any = calls.tasks  # () when they have ended
        self.size = 1 if is_auto else parallel.batch_size  # of the next batches
        self.out: set[_Batch] = set()
        # batches that were cut already: number of the first task, tasks
        self.waiting: list[tuple[int, Sequence[Any]]] = []

    # -- out --

    def feed(self) -> None:
        """Keep as many batches out as may be, as long as there are tasks: when none is out after
        it, all are done."""
        while len(self.out) + 1 <= self.parallel._window and (cut := self.cut()):
            batch = _Batch(*cut, self.settings)
            batch.function, batch.width = self.calls.function, self.calls.width
            try:
                self.pack(batch)
            except Exception as error:
                batch.blame(error)
                self.absorb(batch)
            else:
                self.out.add(batch)
                self.pool.submit(batch)

    def pack(self, batch: _Batch) -> None:
        """Have the pool pack a batch. What cannot be packed is found once its task is alone in a
        batch: then the error names the object."""
        try:
            self.pool.pack(batch)
        except Exception:
            task = next(iter(_spread(batch, batch.tasks)))
            for what, part in zip(("function", "args", "kwargs"), task):
                _pack_or_explain(part, f"task {batch.first}: {what}")
            raise

    def cut(self) -> tuple[int, Sequence[Any]] | None:
        """The tasks of the next batch, and the number of the first; None if there are none."""
        if self.waiting:
            return self.waiting.pop(0)
        # where tasks are packed, there may be a limit
        size = min(self.size, getattr(self.pool.context, "most_tasks", self.size))
        tasks: list[Any] = []
        try:
            tasks.extend(itertools.islice(self.tasks, size))
        except Exception as error:
            if not self.parallel.return_generator:
                raise
            self.broken = error
        if len(tasks) < size:
            self.tasks = ()
        first = self.counts.dispatched
        self.counts.dispatched += len(tasks)
        return (first, tasks) if tasks else None

    def send_again(self, first: int, tasks: Sequence[Any]) -> None:
        """Have tasks sent once more: each worker gets a share, which is no larger than the next
        batches are. Shares of a batch that failed as a whole are smaller than it was, and so the
        task that it failed of is alone in the end."""
        size = max(1, min(self.size, len(tasks) // max(2, self.parallel.n_jobs)))
        for at in range(0, len(tasks), size):
            self.waiting.append((first + at, tasks[at : at + size]))
        self.waiting.sort()  # by the number of the first task

    # -- in --

    def collect(self) -> None:
        """Wait for a finished batch, take its results, and send out the next."""
        pool = self.pool
        if pool not in _pools_at_work:
            raise RuntimeError(
                "this call of Parallel belongs to the parent process and can be read only there; "
                "make a new call here"
            )
        pool.hungry = not (self.waiting or self.tasks) and len(self.out) < pool.size
        # seconds: what is done sooner is not worth sharing out
        patience: float | None = 0.002 if pool.hungry else _LONG_S
        while True:
            try:
                batch = pool.take(patience)
                if pool.receive(batch):
                    break
            except Empty:
                pool.hungry = True
                pool.ask_back(self.out)
                patience = 0.2 if IS_WINDOWS else None  # there no wait can be interrupted
        self.out.remove(batch)
        self.absorb(batch)
        self.feed()

    def absorb(self, batch: _Batch) -> None:
        """Take what came of a batch: results, errors, and tasks to be sent again."""
        first, tasks, values = batch.first, batch.tasks, batch.values
        if batch.fault is not None:
            raise batch.fault  # of no task
        done = rest = len(values)
        self.ready[first] = values
        if values and batch.shrinkable:
            size = min(  # of the next batches: they shall take so many seconds and bytes at most
                done * 0.03 / max(batch.seconds, 1e-9),  # long against the cost of sending one
                done * self.pool.BATCH_NBYTES / max(batch.nbytes, batch.nbytes_back, 1),
                max(self.size, done * self.pool.GROWTH),
                4096,  # beyond it nothing is gained, and the first results come later
            )
            self.size = int(size) or 1
        for place, error in batch.errors.items():
            task = _spread(batch, tasks[place : place + 1])
            value = self.failed(error, first + place, *task)
            if place < len(values):
                values[place] = value
            else:  # its worker died of it; what that had not delivered is done again
                self.ready[first + place] = [value]
                self.send_again(first + rest, tasks[rest:place])
                rest = place + 1
                done += 1
        self.counts.completed += done
        self.counts.tell(self.parallel, done)
        self.send_again(first + rest, tasks[rest:])

    def work(self) -> Iterator[Any]:
        """Have the pool run the tasks, and yield None when the first are sent; of a generator,
        yield the results as they come."""
        pool = self.pool
        try:
            _pools_at_work.add(pool)
            self.feed()
            if self.parallel.pre_dispatch == "all":  # tasks run while others are read
                read: deque[Any] = deque()
                for task in self.tasks:
                    read.append(task)
                    if not pool.done.empty():
                        self.tasks = (read.popleft() for _ in range(len(read)))
                        self.collect()
                self.tasks = iter(read)
            yield None
            while self.out:
                if self.parallel.return_generator:
                    yield from self.take()
                self.collect()
            if self.broken is not None:
                yield from self.take()
                raise self.broken
        except Exception:
            if _exiting and threading.current_thread().daemon:
                # for ever: no call of a daemon thread lives to tell that the interpreter ends
                SimpleQueue().get()
            raise
        finally:
            # The one place where a run in a pool ends. In a forked copy all is the parent's. At the
            # end of the interpreter processes and threads go anyway, and names before generators
            if sys and not sys.is_finalizing() and pool in _pools_at_work:
                try:
                    pool.close(self.out)
                finally:
                    _pools_at_work.discard(pool)


if TYPE_CHECKING:
    # What methods of `Parallel` are to a type checker; pyright goes by the name `__init__`

    @overload
    def __init__(
        self: Parallel[_List, Never],
        n_jobs: int | None = ...,
        backend: Backend = ...,
        return_as: Literal["list"] = ...,
        verbose: int = ...,
        timeout: float | None = ...,
        batch_size: int | Literal["auto"] = ...,
        pre_dispatch: int | str = ...,
        temp_folder: str | Path | None = ...,
        max_nbytes: int | str | None = ...,
        require: Literal["sharedmem"] | None = ...,
        *,
        prefer: Literal["threads", "processes"] | None = ...,
        mmap_mode: Mode = ...,
        progress: Any = ...,
        on_error: Literal["raise", "skip"] = ...,
        **backend_options: Any,
    ) -> None: ...

    @overload
    def __init__(
        self: Parallel[_List, BaseException],
        n_jobs: int | None = ...,
        backend: Backend = ...,
        *,
        on_error: Literal["return"],
        return_as: Literal["list"] = ...,
        **options: Any,
    ) -> None: ...

    @overload
    def __init__(
        self: Parallel[_Stream, Never],
        n_jobs: int | None = ...,
        backend: Backend = ...,
        *,
        return_as: Literal["generator", "generator_unordered"],
        on_error: Literal["raise", "skip"] = ...,
        **options: Any,
    ) -> None: ...

    @overload
    def __init__(
        self: Parallel[_Stream, BaseException],
        n_jobs: int | None = ...,
        backend: Backend = ...,
        *,
        return_as: Literal["generator", "generator_unordered"],
        on_error: Literal["return"],
        **options: Any,
    ) -> None: ...

    def __init__(*args: Any, **options: Any) -> Any: ...

    @overload
    def __call__(self: Parallel[_List, E], iterable: Iterable[TaskOf[R]]) -> list[R | E]: ...

    @overload
    def __call__(
        self: Parallel[_Stream, E], iterable: Iterable[TaskOf[R]]
    ) -> Generator[R | E, None, None]: ...

    def __call__(*args: Any, **options: Any) -> Any: ...

    @overload
    def _map(
        self: Parallel[_List, E], function: Callable[..., R], *iterables: Iterable[Any]
    ) -> list[R | E]: ...

    @overload
    def _map(
        self: Parallel[_Stream, E], function: Callable[..., R], *iterables: Iterable[Any]
    ) -> Generator[R | E, None, None]: ...

    def _map(*args: Any, **options: Any) -> Any: ...

    _typed_init = _typed_as(__init__)
    _typed_call = _typed_as(__call__)
    _typed_map = _typed_as(_map)
else:
    _typed_init = _typed_call = _typed_map = _as_it_is


class Parallel(_Shaped[Shape, E]):
    """Run many calls at once, on all cores or wherever you say.

    >>> Parallel(n_jobs=2)(delayed(pow)(i, 2) for i in range(5))
    [0, 1, 4, 9, 16]
    >>> for result in Parallel(n_jobs=2, return_as="generator")(delayed(abs)(i) for i in (-1, -2)):
    ...     print(result)
    1
    2

    Call it with an iterable of tasks, `delayed(function)(arguments)`: it gives their results, as a
    list or a generator. Where all tasks call one function, `.map(function, arguments)` does the
    same with less to write, and sooner. Any function and any argument will do: lambdas, closures,
    what a script or notebook defines; no `if __name__ == "__main__"` is needed, except on Windows.
    `with Parallel(...) as parallel:` works and changes nothing: workers stay between calls anyway.

    Parameters
    ----------
    n_jobs : int or None, default None
        How many tasks run at once: -1 all usable cores, -2 all but one; None what `parallel_config`
        says, else 1, or with an executor all that it offers.
    backend : str or Executor, default None
        "loky": worker processes of this module (the default; the name is kept because existing code
        uses it); "processes" and "multiprocessing" are the same. "threading" or "threads": threads,
        for tasks that wait or release the interpreter's lock. "sequential": no workers. "dask": the
        current distributed client. A name from `register_parallel_backend`. Any distributed client
        or `concurrent.futures.Executor`: it is used and not closed. An array of 1 MB or more that
        many tasks use goes to a dask cluster once, to other executors with every batch.
    return_as : str, default "list"
        "list"; "generator": results in the order of the tasks, as they come; "generator_unordered":
        in the order in which they are ready. A generator asks for further tasks only as it is read.
        Closing it ends its tasks.
    verbose : int, default 0
        0 and 1 no lines (warnings go through `warnings` always), 2 at most one line a second on
        stderr and one at the end, with the time so far and the time left; 3 one for each batch;
        above 50 they go to stdout.
    timeout : float or None, default None
        Seconds that one task may run, from its start in its worker. Its worker is then ended and
        replaced, other tasks go on. A thread, and a task on an executor of your own, cannot be
        ended: the error comes, the task is left running (in a thread of its own: it sees no
        thread-locals of an initializer). Ignored, with a warning, where tasks run in place.
    batch_size : int or "auto", default "auto"
        How many tasks travel together. "auto": as many as take about 30 ms, measured.
    pre_dispatch : int or str, default "2 * n_jobs"
        How many batches are taken from the iterable ahead: a number, a multiple of n_jobs as a
        text, or "all".
    temp_folder : path or None, default None
        Where the content of big arrays lies for worker processes to map, in files without a name,
        which leave nothing behind. None: the environment's JOBLIB_TEMP_FOLDER, else shared memory
        (/dev/shm), else the system's folder for temporary files. Where there is no room, the next
        is tried; at last the content is sent.
    max_nbytes : int, str or None, default "1M"
        Arrays (any buffer that pickle protocol 5 keeps out of band) of this many bytes or more are
        written once and mapped by all tasks that use them at a time, as long as samples of them
        show no change; results likewise. A number, or a text such as "500K", "0.5G". None: never.
        Smaller ones are sent.
    mmap_mode : str or None, default "c"
        How tasks see such arrays: "c" may be written to, and nobody else sees it; "r" read only;
        "r+" and "w+" shared with the other tasks. None: never map. Memory maps of files
        (`numpy.memmap`) keep their own mode.
    require : str or None, default None
        "sharedmem": the tasks change the caller's objects, so only threads will do.
    prefer : str or None, default None
        "threads" or "processes": a hint, which a backend that a `parallel_config` names overrules.
    progress : bool, callable or None, default None
        True: a bar on stderr by tqdm, or where that is missing a line a second; not inside another
        call. A callable is called with (done, total or None); an object with `update(n)` gets the
        number of tasks done since. Tasks count when they are finished.
    on_error : str, default "raise"
        "raise": the first error ends the run. "return": the exception stands in the result's place.
        "skip": it is left out.
    **backend_options
        For processes: `initializer`, `initargs`, `idle_worker_timeout` (seconds, default 300),
        `inner_max_num_threads`, `maxtasksperchild` (a worker is replaced before it has more tasks
        than that).

    Raises
    ------
    ValueError
        An argument that is not one of the above; the text says what is expected.
    TimeoutError
        A task ran longer than `timeout`. The text says where it was: "it was at work.py:8 inner <-
        work.py:9 outer".
    TerminatedWorkerError
        The worker process of a task ended before the task did. After a crash the text says where
        the task was. Tasks of the same batch that were done but not yet delivered (at most some
        20 ms of work) are run again: only after a death may a task run more than once.
    pickle.PicklingError
        A task or result cannot be sent to another process; the text names the object.
    Exception
        Whatever a task raises, of its own type: its cause shows the worker's traceback, a note
        names the task, and `.partial_results` (task number -> result) holds what was done, but not
        what a generator has given already.

    Notes
    -----
    What workers see: tasks in worker processes find the caller's environment, current directory,
    `sys.path`, warning filters and root log level of the moment of the call. (What a task itself
    changes there stays changed in its worker.) A function that no module holds is sent once a call,
    with what it names, closes over or has as defaults, as that is when its first task is submitted.

    What comes back: what tasks print to `sys.stdout` and `sys.stderr` comes back in whole lines, at
    once and in order to the caller's streams, and so do warnings, as text. (What C code and child
    processes write goes to the descriptors 1 and 2 of the caller instead.) A warning that is to be
    shown once is shown once a call and worker. Log records go to the caller's handlers. Where an
    initializer or a module has given a logger a handler in the worker, that has them first; they go
    home all the same if the root logger has a handler at home, and none of its own in the worker.

    Random numbers: each worker has random states of its own, freshly seeded, behind `random` and
    `numpy.random`; a generator object that is passed in travels as it is.

    Reloading: when code of the project was reloaded, or changed as IPython's autoreload does it,
    the next call starts fresh workers, which import it anew.
    """

    _counts: Any = _Counts  # those of the newest run

    @_typed_init
    def __init__(
        self,
        n_jobs: int | None = None,
        backend: Any = None,
        return_as: str = "list",
        verbose: int = _UNSET.verbose,
        timeout: float | None = None,
        batch_size: int | str = "auto",
        pre_dispatch: int | str = "2 * n_jobs",
        temp_folder: str | Path | None = _UNSET.temp_folder,
        max_nbytes: int | str | None = _UNSET.max_nbytes,
        require: str | None = _UNSET.require,
        *,
        prefer: str | None = _UNSET.prefer,
        mmap_mode: str | None = _UNSET.mmap_mode,
        progress: Any = None,
        on_error: str = "raise",
        **backend_options: Any,
    ) -> None:
        vars(self).update(locals())
        options = _settle(vars(self))
        if batch_size != "auto":
            self.batch_size = _whole("batch_size", batch_size, "'auto' or a whole number above 0")
        if timeout is not None:
            _expect(
                hasattr(timeout, "__float__") and timeout > 0,
                "timeout",
                "None or seconds above 0",
                timeout,
            )
            self.timeout = min(float(timeout), _LONGEST_S)  # numpy's numbers do not travel
            self.batch_size = 1
        _expect(hasattr(self.verbose, "__float__"), "verbose", "a number", self.verbose)
        _expect(
            not isinstance(progress, str),
            "progress",
            "True, a function of (done, total), or an object with update, such as a tqdm bar",
            progress,
        )
        _check_mmap_mode(self.mmap_mode)
        self._mapping = (
            # without a mode no array is mapped
            _parse_bytes(self.max_nbytes if self.mmap_mode else None, "max_nbytes"),
            os.fspath(self.temp_folder or os.environ.get("JOBLIB_TEMP_FOLDER") or "/dev/shm"),
            self.mmap_mode,
        )
        self._backend, self.n_jobs = _choose(self, options)
        self._window = _window(pre_dispatch, self.n_jobs)
        self.return_generator = return_as != "list"

    def __repr__(self) -> str:
        return f"Parallel(n_jobs={self.n_jobs})"

    def __enter__(self) -> Parallel[Shape, E]:
        return self

    def __exit__(self, *_: object) -> None: ...

    @_typed_call
    def __call__(self, iterable: Iterable[Task], *more: Any) -> Any:
        """Run the tasks.

        >>> Parallel(n_jobs=2)([delayed(pow)(2, 3), delayed(pow)(2, 4)])
        [8, 16]

        Parameters
        ----------
        iterable : iterable of tasks
            What `delayed(function)(arguments)` gives. It is read as workers have room for more.

        Returns
        -------
        list or generator
            The results, as `return_as` says.

        Raises
        ------
        TypeError
            Something in the iterable is not a task: the text says what to write. For other errors
            see the class.
        """
        if more or isinstance(iterable, FunctionType) or _is_task(iterable):
            raise _no_task(iterable)
        calls = iterable if type(iterable) is _Calls else _Calls(_call, 0, iterable)
        if self.n_jobs > 1 or self._backend.capacity:
            run: _Run = _PoolRun(self, calls)
        else:
            run = _Run(self, calls)
            if self.timeout:
                _warn(
                    "timeout is ignored where tasks run in the caller's own thread: with n_jobs=1"
                )
        results = run.stream()
        if self.return_generator:
            next(results, None)  # begins
            return results
        for _ in results:
            pass
        return run.take()

    @_typed_map
    def map(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Any:
        """Call one function with the elements of one or more iterables, as the built-in `map` does.

        >>> Parallel(n_jobs=2).map(pow, range(5), [2, 2, 2])
        [0, 1, 4]

        Options and errors are those of `Parallel(...)(tasks)`.

        Parameters
        ----------
        function : callable
            What each task calls: itself, without `delayed`.
        *iterables : iterable
            One for each positional argument of the function; the shortest ends the run.

        Returns
        -------
        list or generator
            The results, as `return_as` says.
        """
        if (
            not (callable(function) and iterables)
            or getattr(function, "__qualname__", "") == "delayed.<locals>.record"
        ):
            raise TypeError(
                "map: expected a function, without delayed, and one or more iterables "
                f"of its arguments, as .map(f, xs), got {(function, *iterables)!r:.200}"
            )
        return self(_Calls(function, len(iterables), *iterables))  # type: ignore[misc]

    # -- progress --

    def print_progress(self) -> None:
        """Print one line about the newest run. A subclass may override it."""
        done, total = self.n_completed_tasks, self.n_tasks
        if not done:  # there may have been no run
            return
        seconds = time.monotonic() - self._counts.begun
        of = left = ""
        if total:
            of = f" of {total}"
            left = f", {seconds / done * (total - done):.1f} s left"
        _write_to(
            sys.stdout if self.verbose > 50 else sys.stderr,
            f"[{self!r}] {done}{of} tasks done in {seconds:.1f} s{left}\n",
        )

    _print_progress = print_progress

    @property
    def n_tasks(self) -> int | None:
        """How many tasks the newest run has; None while that is not known."""
        return self._counts.total

    @property
    def n_dispatched_tasks(self) -> int:
        """How many tasks of the newest run were sent out."""
        return self._counts.dispatched

    @property
    def n_completed_tasks(self) -> int:
        """How many tasks of the newest run are done."""
        return self._counts.completed


def get_active_backend() -> tuple[Any, int]:
    """The backend, and the number of workers, that `Parallel()` would use here and now.

    >>> with parallel_config(backend="threading", n_jobs=2):
    ...     backend, n_jobs = get_active_backend()
    >>> backend.name, n_jobs
    ('threading', 2)

    Returns
    -------
    (backend, int)
        The backend has a `name`.
    """
    parallel = Parallel()
    return parallel._backend, parallel.n_jobs


def effective_n_jobs(n_jobs: int | None = -1) -> int:
    """The number of workers that `Parallel(n_jobs=n_jobs)` would use here and now.

    >>> effective_n_jobs(3), effective_n_jobs(None)
    (3, 1)
    >>> with parallel_config(backend="threading", n_jobs=2):
    ...     effective_n_jobs(None)
    2

    Parameters
    ----------
    n_jobs : int or None, default -1
        As for `Parallel`: -1 all usable cores, -2 all but one, None what the context says, else 1.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        `n_jobs` is 0 or not a whole number.
    """
    return Parallel(n_jobs).n_jobs
