"""All tests of joblite.

    python -m pytest                          everything (some minutes)
    JOBLITE_QUICK=1 python -m pytest          without the slow ones (under a minute)
    python -m pytest -k "hash"                one subject; tests are named as sentences
    python -m pytest -k "Section3"            one section of joblite.py: each has a class here
    python test_joblite.py soak [10] [seed]   random calls, kills and forks from several threads,
                                              for so many minutes

Optional packages (cloudpickle, joblib, pandas, distributed, nbclient and ipykernel, ...) are tested
where installed; a test that needs one which is missing is skipped and says so. Nothing here asserts
a time: speed lives in bench.py.
"""
# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "pytest", "nbformat"]
# ///

from __future__ import annotations

import _thread
import abc
import ast
import asyncio
import base64
import builtins
import bz2
import collections
import contextlib
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import gc
import glob
import gzip
import hashlib
import importlib
import importlib.util
import inspect
import io
import json
import itertools
import logging
import lzma
import math
import multiprocessing
import multiprocessing.resource_tracker
import operator
import os
import pathlib
import pickle
import py_compile
import random
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import textwrap
import threading
import time
import tokenize
import traceback
import tracemalloc
import types
import typing
import uuid
import warnings
import weakref
import zipfile
import zlib
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import joblite
from joblite import Parallel, delayed, parallel_config

# ==================================================================================================
# 1. Tools
# ==================================================================================================

HERE = Path(__file__).resolve().parent
README = (HERE / "README.md").read_text(encoding="utf-8")
QUICK = bool(os.environ.get("JOBLITE_QUICK"))
DEADLINE = (
    60.0  # seconds to wait for an event that always comes: generous, since machines may be busy
)

huge = pytest.mark.skipif(
    "JOBLITE_HUGE" not in os.environ, reason="takes 10 GB of memory: JOBLITE_HUGE=1 runs it"
)
slow = pytest.mark.skipif(QUICK, reason="JOBLITE_QUICK is set")
posix = pytest.mark.skipif(
    os.name != "posix",
    reason="looks at what POSIX systems have: signals, modes, names, locks, "
    "files that are replaced or removed while they are open",
)
forking = pytest.mark.skipif(
    not hasattr(os, "fork"),
    reason="the standard library's process pool ends no task, its "
    "processes see no change since they began",
)
windows = pytest.mark.skipif(
    os.name != "nt", reason="on Windows alone open files stay, and no wait can be interrupted"
)


def needs(*packages):
    """Skip a test when one of the optional packages is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def wait_until(condition, what="the condition", deadline=DEADLINE):
    """Return the first true value of `condition()`; fail when it never comes."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come within {deadline:g} s")


def run_script(
    code, *args, cwd=None, env=None, check=True, python=sys.executable, stdin=None, flags=()
):
    """Run `code` as a file in a fresh interpreter that can import joblite;
    gives the finished process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "script.py")
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        command = [python, *flags, str(path), *map(str, args)]
        done = subprocess.run(
            command,
            cwd=cwd or folder,
            env=script_env(env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE * 2,
        )
    if check and done.returncode:
        pytest.fail(f"the script ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


# a shell is the first one of its machine, Python the second
SECOND_PROCESS = ("sh", "-c", '"$@"; exit $?', "sh")


def elsewhere(*first):
    """Arguments of `run_script` for a machine of its own, as far as process ids and mounts go.
    `first` runs before."""
    unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*unshare, "true"], capture_output=True).returncode
    ):
        pytest.skip("namespaces are not permitted here")
    return {"python": unshare[0], "flags": [*unshare[1:], *first, sys.executable]}


def side_by_side(run, rows):
    """What `run` gives for each row of a table, in a dict: two at a time, for what is run are
    programs that wait for nothing."""
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(rows, threads.map(run, rows)))


def script_env(extra=None):
    """The environment of a fresh interpreter that finds joblite."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **(extra or {})}


def all_pids():
    """The pids of this machine (Linux; elsewhere none are seen)."""
    listed = os.listdir("/proc") if os.path.exists("/proc/self/stat") else []
    return set(map(int, filter(str.isdigit, listed)))


def state_and_parent(pid):
    """What Linux tells of a process; of one that has ended and of its parent nothing."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            state, parent = file.read().rpartition(b") ")[2].split(None, 2)[:2]
    except OSError:
        return None, None
    return state.decode(), int(parent)


def descends(pid):
    """Whether a process lives, and this one is among those it comes from."""
    while pid != os.getpid():
        state, pid = state_and_parent(pid)
        if state in (None, "Z"):
            return False
    return True


def child_processes():
    """The pids of the living descendants of this process."""
    return {pid for pid in all_pids() - {os.getpid()} if descends(pid)}


def available_memory():
    """How many bytes may be taken without harm to others (Linux; elsewhere 0)."""
    meminfo = Path("/proc/meminfo")
    return (
        1024 * int(re.search(r"MemAvailable:\s+(\d+)", meminfo.read_text())[1])
        if meminfo.exists()
        else 0
    )


def belongings():
    """Processes, also of others, threads, temp files, shared memory."""
    folders = {tempfile.gettempdir(), "/dev/shm"}
    return {
        *(("process", pid) for pid in all_pids()),
        *(("thread", thread.name) for thread in threading.enumerate()),
        *(("file", path) for folder in folders for path in glob.glob(f"{folder}/joblite-*")),
    }


def leftovers(before):
    """What a test must not leave behind: what was not among the belongings `before`.
    Only which processes are new is looked at for all of them: twice a test, that costs little."""
    new = belongings() - before
    return {(kind, name) for kind, name in new if kind != "process" or descends(name)}


# Functions that tasks call.


def square(x):
    return x * x


def fail_on(x, bad):
    if x == bad:
        raise ValueError(f"no {x}")
    return x


def die_on(x, bad, how):
    if x == bad:
        how()
    return x


def where(_=None):
    return os.getpid()


def wait_for_file(path):
    wait_until(Path(path).exists, path)
    return path


def mark_and_hang(path):
    """Leave a sign that this task runs, then hang (but let an interrupt through)."""
    Path(path).write_text(str(os.getpid()))
    threading.Event().wait(DEADLINE * 10)


def fail_after(path):
    """Fail as another task has left its sign."""
    wait_for_file(path)
    raise ValueError("enough")


def hang_and_tidy(folder):
    """Hang, with a sign, and leave another one when interrupted."""
    try:
        mark_and_hang(folder / "sign")
    finally:
        (folder / "tidied").touch()


def hang_in(folder):
    """Hang as long as this folder is there."""
    try:
        folder.mkdir()
        threading.Event().wait(DEADLINE * 10)
    finally:
        folder.rmdir()


class TwoArguments(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class Stamped(Exception):
    def __str__(self):
        return f"{self.args[0]} {time.perf_counter() % 1:.9f}"


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Unshown:
    def __repr__(self):
        raise RuntimeError("no text")


class MadeByNew(Exception):
    def __new__(cls, first, second):
        self = super().__new__(cls, first)
        self.second = second
        return self

    def __init__(self, first, second):
        super().__init__(first)


class WithPath(OSError):
    def __init__(self, path):
        super().__init__(2, "No such file", path)
        self.path = path


class WithSlots(Exception):
    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__(f"code {code} {object()}")
        self.code = code


class AnyAttribute(Exception):
    def __getattr__(self, name):
        raise RuntimeError(f"no {name}")


class FromItem(Exception):
    def __init__(self, item):
        super().__init__(f"bad {item}")
        self.item = item


class KeywordOnly(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class HoldsLock(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def raise_it(make):
    raise make()


class Index:
    """A whole number of another type, as numpy's are."""

    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number

    def __lt__(self, other):
        return self.number < other

    __int__ = __index__


RETURN_AS = ["list", "generator", "generator_unordered"]
BACKENDS = ["sequential", "threading", "loky"] + ([] if QUICK else ["executor"])


def backend_options(name):
    """Arguments of a Parallel of two workers for each way to run tasks."""
    if name == "sequential":
        return {"n_jobs": 1}
    return {"n_jobs": 2, "backend": name}


@pytest.fixture
def numpy_comes_later():
    if run_script("import sys; print('numpy' in sys.modules)").stdout != "False\n":
        pytest.skip("numpy is loaded as Python starts")


@pytest.fixture(scope="session")
def clean_processes():
    """How to start processes that have nothing of this one. Where they can be forked, then from
    a server that has imported joblite: to start anew takes each of them longer than most tests."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    multiprocessing.set_forkserver_preload(["joblite"])
    importlib.import_module("multiprocessing.forkserver").ensure_running()
    return multiprocessing.get_context("forkserver")


@pytest.fixture(params=BACKENDS)
def backend(request, clean_processes):
    """Arguments of a Parallel, for each way to run tasks in turn."""
    if request.param == "executor":
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(2, clean_processes) as executor:
            yield {"n_jobs": 2, "backend": executor}
    else:
        yield backend_options(request.param)


@pytest.fixture
def processes():
    """Arguments of a Parallel of two worker processes."""
    return backend_options("loky")


@pytest.fixture
def patience(monkeypatch):
    """What a task that is ended does in its `finally` fits into its grace,
    however busy the machine is."""
    monkeypatch.setattr(joblite, "GRACE_S", DEADLINE / 12)


@pytest.fixture
def by_value(monkeypatch):
    """Let the functions and classes of this file travel by value, as those of a script or notebook
    do. By name (as in most of section 7) each new worker imports this file, numpy and pytest, which
    takes longer than most tests."""
    monkeypatch.setattr(sys.modules[__name__], "__spec__", None)


@pytest.fixture(scope="class")
def one_fork_server():
    """Let the tests of a class, which are about values, share the process that forks their workers.
    (How it starts and ends is seen by those about pools and faults, and by every script.)"""
    yield
    joblite.shutdown_workers()


@pytest.fixture(autouse=True)
def nothing_left_behind(request):
    """Fail a test that leaves a process, a thread, a temp file or a shared memory entry."""
    if os.name == "posix":
        # the standard library's own, which stays to the end
        multiprocessing.resource_tracker.ensure_running()
        # the default from Python 3.14 on
        if multiprocessing.get_all_start_methods()[0] == "forkserver":
            importlib.import_module("multiprocessing.forkserver").ensure_running()  # it stays, too
    before = belongings()
    yield
    if "one_fork_server" in request.fixturenames:
        joblite._end_idle_workers(0)
        joblite._end_drivers()
    else:
        joblite.shutdown_workers()
    kept = {("process", server.pid) for server in joblite._starters}
    end = time.monotonic() + DEADLINE
    while (left := leftovers(before) - kept) and time.monotonic() < end:
        time.sleep(0.005)
    assert not left, f"left behind: {sorted(left)}"


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """A shell that starts the suite in the background makes it ignore SIGINT,
    and so would every script of a test."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def compiled():
    """Where PYTHONDONTWRITEBYTECODE is set, each fresh process
    would compile these two long files again."""
    import py_compile

    if sys.dont_write_bytecode:
        for path in (joblite.__file__, __file__):
            py_compile.compile(path)


@pytest.fixture(scope="session", autouse=True)
def versions(record_testsuite_property):
    """Print the versions that matter, once."""
    import platform

    names = [
        name
        for name in ("numpy", "joblib", "cloudpickle", "pandas", "distributed", "nbclient")
        if importlib.util.find_spec(name)
    ]
    from importlib.metadata import version

    line = ", ".join(
        [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]
    )
    record_testsuite_property("versions", line)
    print(f"\n{line}, {joblite.cpu_count()} cores", file=sys.__stderr__)


# ==================================================================================================
# 2-8. The sections of joblite.py
# ==================================================================================================


class TestSection1Ground:
    @posix
    def test_ctrl_c_while_threads_start_leaves_none_that_is_waited_for(self):
        """Interrupted 300 times, as one that runs already is not yet known."""
        code = """
            import os, random, signal, joblite
            os.sched_getaffinity = lambda pid: range(8)
            def interrupt(*args):
                if armed: raise KeyboardInterrupt
            signal.signal(signal.SIGALRM, interrupt)
            generator, armed = random.Random(0), []
            for _ in range(300):
                try:
                    armed.append(True)
                    signal.setitimer(signal.ITIMER_REAL, 0.00005 + generator.random() * 0.001)
                    for _ in joblite._map_on_threads(abs, range(10_000)): pass
                except KeyboardInterrupt: pass
                finally: armed.clear()
            print("ended")
            """
        assert run_script(code).stdout == "ended\n"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing can be forked here")
    def test_a_forked_child_waits_for_no_thread_of_its_parent(self):
        code = """
            import os, joblite
            os.sched_getaffinity = lambda pid: range(4)
            results = joblite._map_on_threads(abs, range(1000))
            print(next(results), flush=True)
            if os.fork() == 0:
                results.close()
                os._exit(0)
            print(os.wait()[1], sum(results))
            """
        assert run_script(code).stdout == f"0\n0 {sum(range(1000))}\n"

    def test_import_is_light(self):
        """Importing joblite loads no numpy and no heavy standard module, and starts no thread."""
        done = run_script(
            """
            import sys, threading
            before = set(sys.modules)
            import joblite
            heavy = {"numpy", "multiprocessing", "subprocess", "logging", "concurrent.futures",
                     "tempfile", "asyncio", "lzma", "bz2", "inspect", "typing", "socket", "pickle",
                     "dis", "ctypes", "shutil"}
            print(sorted((set(sys.modules) - before) & heavy), threading.active_count())
            """,
            flags=["-S"],
        )
        assert done.stdout.split() == ["[]", "1"]

    def test_other_pythons_are_told_that_they_are_not_served(self):
        done = run_script(
            "import sys; sys.modules['_pickle'] = None; import joblite; joblite.hash", check=False
        )
        assert "\nImportError: joblite runs on CPython only, got cpython\n" in done.stderr

    @pytest.mark.parametrize("first", ["before", "never"])
    def test_while_the_interpreter_closes_the_caller_works_alone(self, first, tmp_path):
        """Then no thread can be started: big values are hashed, written and read all the same."""
        done = run_script(
            """
            import atexit, sys, numpy as np, joblite
            value = [np.arange(1_100_000) // 1000]
            name = joblite.hash(value) if "before" in sys.argv else ""

            @atexit.register
            def late():
                for compress in (0, "xz"):
                    joblite.dump(value, "value", compress=compress)
                    found = joblite.hash(joblite.load("value"))
                    print(joblite.hash(value) == found == (name or found))
            """,
            first,
            cwd=tmp_path,
        )
        assert done.stdout.split() == ["True", "True"] and not done.stderr

    def test_numbers_of_bytes_are_any_finite_number_or_a_text(self):
        """Whole numbers, floats, numpy's scalars and texts with a unit;
        what is no amount of bytes is refused."""
        sizes = [1000, 1e3, np.int64(1000), np.float32(1000), "1000", " 1e3 "]
        assert [joblite._parse_bytes(size, "limit") for size in sizes] == [1000] * len(sizes)
        found = [joblite._parse_bytes(size, "limit") for size in (0, 0.5, "2k", "2 K", "1.5M")]
        assert found == [0, 0, 2048, 2048, 3 << 19]
        assert joblite._parse_bytes(None, "limit") == sys.maxsize
        assert joblite._parse_bytes(1, "limit") == 1  # which is no True
        wrong = [-1, -0.5, math.nan, math.inf, np.float64("inf"), True, b"1", 1j]
        for size in [*wrong, "", "K", "-1K", "nan"]:
            with pytest.raises(
                ValueError,
                match="limit: expected bytes as a number or a text such as '500K'.*, got",
            ):
                joblite._parse_bytes(size, "limit")


class Plain:
    """An object with attributes; equal by what it holds."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def method(self):
        return self

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = object.__hash__


class Tagged(np.ndarray):
    """A subclass of arrays without anything of its own."""


class TaggedMasked(np.ma.MaskedArray):
    """A subclass of masked arrays; its objects may get attributes."""


class SlotSet(set):
    __slots__ = ("unit", "_other")


class SlotOrdered(collections.OrderedDict):
    __slots__ = ("unit", "_other")


def measured(value, unit):
    """The value with an attribute `unit`."""
    value.unit = unit
    return value


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: object = None


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a, self.b = a, b


def copied(value):
    """An equal value that shares no part with `value`."""
    return pickle.loads(pickle.dumps(value, 5))


def adder(n):
    return lambda x: x + n


def looped(depth, leaf):
    """A list that holds itself `depth` levels below, beside a leaf."""
    top = inner = [leaf]
    for _ in range(depth - 1):
        inner.append([leaf])
        inner = inner[1]
    inner.append(top)
    return top


def linked(length):
    """The first node of a doubly linked list."""
    nodes = [Plain(number=number) for number in range(length)]
    for left, right in itertools.pairwise(nodes):
        left.next, right.previous = right, left
    return nodes[0]


def tangled(seed):
    """Objects, lists, dicts and sets that hold each other at random."""
    rng = random.Random(seed)
    nodes = [rng.choice([Plain, list, dict, set])() for _ in range(rng.randrange(2, 12))]
    keys = ["p", "q", 3, *(node for node in nodes if type(node) is Plain)]
    for node in nodes:
        for _ in range(rng.randrange(4)):
            part = rng.choice([*nodes, "ab", (1, 2), None, rng.randrange(5)])
            if type(node) is Plain:
                setattr(node, rng.choice("abcd"), part)
            elif type(node) is dict:
                node[rng.choice(keys)] = part
            elif type(node) is list:
                node.append(part)
            else:
                node.add(rng.choice(keys))
    return nodes


@functools.cache
def long_array(dtype):
    """An array of several blocks."""
    return np.arange(300_000).reshape(-1, 6).astype("f8").astype(dtype)


def nested(depth):
    """A list in a list in a list."""
    return functools.reduce(lambda below, _: [below], range(depth), 1)


def family(names):
    """A parent and a set of children that know it."""
    parent = Plain(children=set())
    for name in names:
        parent.children.add(Plain(name=name, parent=parent))
    return parent


ARRAY = np.arange(24.0).reshape(4, 6)
BIG = 10**40

# Each row: values that must all have one digest, and a different one from those of every other row.
DIFFERENT_VALUES = {
    "one": [1, int("1")],
    "one float": [1.0],
    "true": [True],
    "one complex": [1 + 0j],
    "text": ["a", copied("a")],
    "bytes": [b"a"],
    "bytearray": [bytearray(b"a")],
    "none": [None],
    "ellipsis": [...],
    "big": [BIG, copied(BIG)],
    "empty list": [[]],
    "empty tuple": [()],
    "empty dict": [{}],
    "empty set": [set()],
    "empty frozenset": [frozenset()],
    "list": [[1, 2]],
    "tuple": [(1, 2)],
    "other order": [[2, 1]],
    "nested": [[1, [2]]],
    "nested tuple": [[1, (2,)]],
    "dict": [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
    "swapped": [{"a": 2, "b": 1}],
    "pairs": [[("a", 1), ("b", 2)]],
    "ordered": [collections.OrderedDict(a=1, b=2), copied(collections.OrderedDict(a=1, b=2))],
    "ordered otherwise": [collections.OrderedDict(b=2, a=1)],
    "counter": [collections.Counter("aab"), collections.Counter("baa")],
    "defaultdict": [collections.defaultdict(int, a=1, b=2), collections.defaultdict(int, b=2, a=1)],
    "set": [{"a", 1, ("a", 1)}, {("a", 1), 1, "a"}],
    "frozenset": [frozenset(["a", 1, ("a", 1)])],
    "mixed keys": [{"a": 1, 1: 2, None: 3}, {None: 3, 1: 2, "a": 1}],
    "nan in a set": [{decimal.Decimal("NaN"), 1}, {1, decimal.Decimal("NaN")}],
    "sets in dicts": [{"x": [{3, 1, 2}]}, {"x": [{2, 1, 3}]}],
    "nan": [float("nan"), copied(float("nan"))],
    "zero": [0.0],
    "minus zero": [-0.0],
    "surrogate": ["\ud800"],
    "range": [range(3)],
    "slice": [slice(1, 2)],
    "decimal": [decimal.Decimal("1.0")],
    "date": [datetime.date(2020, 1, 1)],
    "time": [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)],
    "path": [Path("a")],
    "enum": [Colour.RED],
    "other enum": [Colour.BLUE],
    "dataclass": [Point(1), Point(1)],
    "slots": [Slots(1, 2), Slots(1, 2)],
    "other slots": [Slots(2, 1)],
    "object": [Plain(a=1, b=2), Plain(b=2, a=1)],
    "other object": [Plain(a=1, b=3)],
    "class": [Plain],
    "function": [copied],
    "builtin": [gc.collect],
    "builtin len": [len],
    "method": [Plain(a=1).method, Plain(a=1).method],
    "method of another": [Plain(a=2).method],
    "bound": [collections.deque([1]).extend],
    "bound to another": [collections.deque([2]).extend],
    "lambda": [adder(1), adder(1)],
    "closure of another": [adder(2)],
    "partial": [functools.partial(adder, 1)] * 2,
    "partial of another": [functools.partial(adder, 2)],
    "module": [os.path],
    "other module": [sys],
    "ufunc": [np.add],
    "other ufunc": [np.subtract],
    "numpy function": [np.dot],
    "pattern": [re.compile("a")],
    "array": [ARRAY, ARRAY.copy(), copied(ARRAY), ARRAY[:, :], np.concatenate([ARRAY, ARRAY])[:4]],
    "fortran": [np.asfortranarray(ARRAY)],
    "shape": [ARRAY.reshape(6, 4)],
    "float32": [ARRAY.astype("f4")],
    "big-endian": [ARRAY.astype(">f8")],
    "view": [ARRAY[:, ::2], ARRAY[:, ::2].copy()],
    "list of array": [ARRAY.tolist()],
    "reversed": [ARRAY[::-1], ARRAY[::-1].copy()],
    "0-d": [np.array(1.0)],
    "1-d": [np.array([1.0])],
    "scalar": [np.float64(1.0), copied(np.float64(1.0))],
    "scalar32": [np.float32(1.0)],
    "dates": [np.array(["2020-01-01"], "M8[D]"), copied(np.array(["2020-01-01"], "M8[D]"))],
    "deltas": [np.array([18262], "m8[D]")],
    "date scalar": [np.datetime64("2020-01-01")],
    "objects": [np.array(["a", {1}, None], object), copied(np.array(["a", {1}, None], object))],
    "masked": [
        np.ma.array([1, 2], "i8", mask=[0, 1]),
        copied(np.ma.array([1, 2], "i8", mask=[0, 1])),
    ],
    "other mask": [np.ma.array([1, 2], mask=[1, 0])],
    "unmasked": [np.ma.array([1, 2])],
    "masked constant": [np.ma.masked],
    "matrix": [np.asmatrix([[1, 2]])],
    "subclass": [ARRAY.view(Tagged)],
    "dtype": [np.dtype("f8"), copied(np.dtype("f8"))],
    "fields": [np.dtype([("a", "f8"), ("b", "i4")]), copied(np.dtype([("a", "f8"), ("b", "i4")]))],
    "aligned fields": [np.dtype([("a", "i1"), ("b", "f8")], align=True)],
    "dtype of arrays": [np.dtype(("f8", 3))],
    "records": [np.array([(1, 2.0)], "i1,f8"), copied(np.array([(1, 2.0)], "i1,f8"))],
    "empty": [np.zeros((0, 3))],
    "itself": [looped(2, 0), copied(looped(2, 0))],
    "itself with another leaf": [looped(2, 1)],
    "itself further down": [looped(3, 0)],
    "family": [family("abc"), family("cab"), copied(family("bca"))],
    "other family": [family("abd")],
    "linked": [linked(500), linked(500)],
    "linked longer": [linked(501)],
    "deep": [nested(3000), nested(3000)],
    "deeper": [nested(3001)],
    "flat copy": [copied(linked(50)), linked(50)],
    "60 levels": [functools.reduce(lambda below, _: [below, below], range(60), 1)],
    "61 levels": [functools.reduce(lambda below, _: [below, below], range(61), 1)],
    "shared": [[[1] * 100] * 2, [[1] * 100, [1] * 100]],
    "shared text": [["ab"] * 2, ["ab", "".join("ab")]],
    **{
        f"{kind} in {unit}": [measured(make(), unit), measured(make(), unit)]
        for unit in "mk"
        for kind, make in {
            "masked": lambda: np.ma.array([1, 2]).view(TaggedMasked),
            "tagged": lambda: ARRAY.view(Tagged),
            "slots of a set": lambda: SlotSet([1]),
            "slots of an ordered dict": lambda: SlotOrdered(a=1),
        }.items()
    },
}

# Digests of plain values and arrays: files and caches made long ago rely on them,
# on every version of Python and numpy.
GOLDEN_DIGESTS = {
    "one": "203afea1d313d31b",
    "one float": "9f74bd5c5f187c8f",
    "true": "e632b7095b0bf32c",
    "one complex": "593c7baec1dd4993",
    "text": "f9d57df948ff5a1e",
    "bytes": "9d60de581d9d969c",
    "none": "8ce86a6ae65d3692",
    "ellipsis": "cdb4ee2aea69cc6a",
    "big": "2234efb0b13243b5",
    "empty dict": "2bad7ce13daa88ee",
    "list": "3ab3b6f245741993",
    "tuple": "e40461125bb6a7ef",
    "dict": "63ddf4cb14842670",
    "ordered": "c802dee042b641db",
    "set": "025318906fc7740b",
    "frozenset": "d70c32ee5ac504f6",
    "mixed keys": "9082e35b5736372a",
    "date": "e6101de97fd29704",
    "decimal": "378c081cf1dcf8b0",
    "object": "883dbe1b89db39d6",
    "array": "ef7c5a3929951cd6",
    "fortran": "e1bcc8fa4cb7bb81",
    "big-endian": "76c1c3eea056f657",
    "view": "0cab5505e1a30fec",
    "0-d": "6a479c5cfa53d93f",
    "scalar": "4fabeedb12839280",
    "dates": "d0863203a494d2e3",
    "objects": "b2848c299a6a41b7",
    "masked": "2470055424e06c45",
    "fields": "37bd8150fb1a6036",
    "records": "706b79df6a9d4cfa",
    "empty": "2700b2a9d6530362",
    "itself": "e65d6f68bddc09a2",
    "family": "f6b9b8de08798894",
    "60 levels": "9d8a5ac139524703",
    "shared": "f2751d4d3a8bf2ca",
    "builtin len": "6da2a554c0530269",
    "slots": "e1cd22b80925b5ac",
    "enum": "ba5dbe27efd41f21",
}


class Metre(float):
    """A number whose objects may get attributes."""


class Text(str):
    """A text whose objects may get attributes."""


class Deque(collections.deque):
    """A deque whose objects may get attributes."""


class Reducing(np.ndarray):
    """An array with more state than its attributes show: only its pickle has it."""

    units = {}

    def __reduce__(self):
        maker, args, state = super().__reduce__()
        return maker, args, (*state, self.units[id(self)])

    def __setstate__(self, state):
        super().__setstate__(state[:-1])
        self.units[id(self)] = state[-1]


class WithSlot(np.ndarray):
    __slots__ = ("unit",)


class Sampled:
    """An object whose state is an array."""

    def __init__(self, length):
        self.length = length

    def __getstate__(self):
        return np.arange(self.length)


class Sentinels(enum.Enum):
    FIRST, SECOND = object(), object()


class Access(enum.Flag):
    READ, WRITE = 1, 2


FirstPair = collections.namedtuple("FirstPair", "a b")
SecondPair = collections.namedtuple("SecondPair", "a b")


def reducing(unit):
    """An array that carries a unit where nobody sees it."""
    array = ARRAY.view(Reducing)
    Reducing.units[id(array)] = unit
    return array


def local_class(kind=type, bases=(), **body):
    """A class that no import finds."""
    return kind("Local", bases, {"__module__": "nowhere", **body})


def annotated_class():
    """The same with annotations that are no texts."""
    source = """if True:
        import typing

        class Local:
            size: int
            others: typing.List["int"]

            def look(self, others: typing.List["int"]): ...
        """
    space = {"__name__": "nowhere"}
    exec(compile(source, "nowhere.py", "exec", dont_inherit=True), space)
    return space["Local"]


def float_of(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def different_times():
    """One wall time, told apart by fold, zone, name of zone, class."""
    zoneinfo = pytest.importorskip("zoneinfo")
    known = zoneinfo.available_timezones()  # Windows has none without the package tzdata
    wall, hour = datetime.datetime(2020, 10, 25, 2, 30), datetime.timedelta(hours=1)
    zones = [
        datetime.UTC,
        *(datetime.timezone(n * hour, name) for n in (0, 1) for name in "ab"),
        *map(zoneinfo.ZoneInfo, known & {"UTC", "Europe/Berlin", "Europe/Paris"}),
    ]
    return [
        wall,
        wall.replace(fold=1),
        *(wall.replace(tzinfo=zone) for zone in zones),
        *zones,
        wall.date(),
        wall.time(),
        wall.time().replace(fold=1),
        wall.time().replace(tzinfo=zones[0]),
    ]


def different_numbers():
    """Zeros with signs, texts of decimals, what NaNs carry, classes, attributes."""
    decimals = map(decimal.Decimal, "1 1.0 0 -0 0E2 NaN NaN1 -NaN sNaN Infinity".split())
    nans = [float_of(bits) for bits in (0x7FF8 << 48, (0x7FF8 << 48) + 1, 0xFFF8 << 48)]
    contexts = [
        decimal.Context(prec=3),
        decimal.Context(rounding="ROUND_UP"),
        decimal.Context(traps=[]),
        decimal.Context(flags=[decimal.Inexact]),
        decimal.Context(Emax=9),
        decimal.Context(clamp=1),
    ]
    return [
        *decimals,
        *nans,
        *contexts,
        1,
        1.0,
        True,
        1 + 0j,
        0.0,
        -0.0,
        0j,
        complex(0.0, -0.0),
        complex(-0.0, 0.0),
        fractions.Fraction(1),
        Metre(1),
        measured(Metre(1), "m"),
        range(3),
        range(1, 3),
        slice(3),
        slice(0, 3),
        np.float64(1),
        np.float32(1),
        np.int64(1),
        np.longdouble(1),
        np.longdouble(1) + np.finfo("g").eps,
        np.clongdouble(1),
        np.datetime64(1, "s"),
        np.datetime64(1, "ms"),
        np.datetime64("NaT", "s"),
        np.timedelta64(1, "s"),
        np.void(b"1"),
        np.str_("1"),
        np.bytes_(b"1"),
    ]


def different_containers():
    """Limits, factories, order, classes, attributes, types of items."""
    import array
    import ctypes

    ordered = [collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)]
    return [
        collections.deque([1]),
        collections.deque([1], 2),
        collections.deque([1], 3),
        Deque([1]),
        measured(Deque([1]), "m"),
        collections.defaultdict(int, a=1),
        collections.defaultdict(list, a=1),
        {"a": 1, "b": 2},
        *ordered,
        types.MappingProxyType({"a": 1, "b": 2}),
        *map(types.MappingProxyType, ordered),
        types.SimpleNamespace(a=1),
        types.SimpleNamespace(a=2),
        FirstPair(1, 2),
        SecondPair(1, 2),
        (1, 2),
        "a",
        Text("a"),
        measured(Text("a"), "m"),
        SlotSet([1]),
        measured(SlotSet([1]), "m"),
        *(array.array(kind, [97]) for kind in "bBhilqfd"),
        ctypes.c_int8(97),
        ctypes.c_int16(97),
        ctypes.c_int64(97),
        ctypes.c_uint64(97),
        ctypes.c_double(97),
        io.BytesIO(b"a"),
        measured(io.BytesIO(b"a"), "m"),
        io.StringIO("a"),
        re.compile("a"),
        re.compile("a", re.I),
        Path("a"),
        *map(pathlib.PureWindowsPath, "ab"),
    ]


def different_functions():
    """Bound values, keywords, attributes, closures behind wrappers, members, metaclasses."""
    draws = [random.Random(1), random.Random(2), random.Random(1)]
    draws[2].gauss(0, 1)
    wrappers = [
        property,
        staticmethod,
        classmethod,
        functools.cached_property,
        functools.partialmethod,
    ]
    return [
        functools.partial(copied),
        functools.partial(copied, 1),
        functools.partial(copied, value=1),
        functools.partial(copied, value=2),
        measured(functools.partial(copied), "m"),
        measured(adder(1), "m"),
        measured(adder(1), "km"),
        *(wrap(copied) for wrap in wrappers),
        property(None, copied),
        operator.itemgetter(1),
        operator.itemgetter(2),
        "a".join,
        "b".join,
        *draws,
        *Sentinels,
        *Access,
        Access.READ | Access.WRITE,
        Access(0),
        Colour.RED,
        ValueError("a"),
        KeyError("a"),
        measured(ValueError("a"), "m"),
        ImportError("a", name="b"),
        ImportError("a", name="c"),
        local_class(),
        local_class(a=1),
        local_class(abc.ABCMeta),
        local_class(bases=(Plain,)),
        local_class(bases=(Plain,), __bases__=()),
        local_class(bases=(dict,), __bases__=()),
        local_class(p=property(copied)),
        local_class(p=staticmethod(copied)),
        local_class(p=copied),
        annotated_class(),
        list[int],
        list[str],
        int | str,
    ]


# Windows has none that differ from doubles
LONG_DOUBLES = ["g", "G"] if np.dtype("g") != np.dtype("d") else []


def different_dtypes():
    """Names, titles, places, classes of records, metadata; of numpy and of other packages."""
    fields = [
        [("a", "f8")],
        [("b", "f8")],
        [(("title", "a"), "f8")],
        [(("other", "a"), "f8")],
        [("a", ">f8")],
        [("a", "f8", (1,))],
        [("a", "f8", (2,))],
        [("a", [("b", "f8")])],
        (np.record, [("a", "f8")]),
        [],
        {"names": ["a"], "formats": ["f8"], "offsets": [8]},
        [("a", "U0"), ("b", "f8")],
        {"names": ["a"], "formats": ["f8"], "itemsize": 16},
    ]
    dtypes = [
        *map(np.dtype, fields),
        *map(np.dtype, "? i1 <i4 >i4 u4 f4 <f8 >f8 F D S1 S2 U1 V1 V2 O".split()),
        *map(np.dtype, ["M8[s]", "M8[ms]", "M8[2s]", "m8[s]"]),
        np.dtype("f8", metadata={"unit": "m"}),
        np.dtype("f8", metadata={"unit": "km"}),
        np.dtype([("a", np.dtype("f8", metadata={"unit": "m"}))]),
    ]
    dtypes += map(np.dtype, LONG_DOUBLES)
    if hasattr(getattr(np, "dtypes", None), "StringDType"):
        dtypes += [
            np.dtypes.StringDType(),
            np.dtypes.StringDType(na_object=None),
            np.dtypes.StringDType(coerce=False),
        ]
    if importlib.util.find_spec("ml_dtypes"):
        import ml_dtypes

        names = [
            "bfloat16",
            "float8_e4m3fn",
            "float8_e4m3fnuz",
            "float8_e4m3b11fnuz",
            "float8_e5m2",
            "float8_e5m2fnuz",
            "int4",
            "uint4",
        ]
        dtypes += [np.dtype(getattr(ml_dtypes, name)) for name in names]
    return dtypes


def different_arrays():
    """Zeros of all dtypes; classes, attributes, slots, what only a pickle holds; long doubles."""
    mask = {"mask": [[0, 1]]}
    limits = np.finfo("g")
    long_doubles = np.array(
        [
            1,
            1 + limits.eps,
            -1,
            0,
            -0.0,
            np.inf,
            -np.inf,
            np.nan,
            limits.max,
            limits.tiny,
            limits.smallest_subnormal,
        ],
        "g",
    )
    return [
        *(np.zeros(3, dtype) for dtype in different_dtypes()),
        *long_doubles[:, None],
        long_doubles[:1] * 1j,
        ARRAY,
        ARRAY.T,
        ARRAY.view(Tagged),
        measured(ARRAY.view(Tagged), "m"),
        measured(ARRAY.view(WithSlot), "m"),
        measured(ARRAY.view(WithSlot), "km"),
        Sampled(5),
        Sampled(6),
        reducing("m"),
        reducing("km"),
        np.rec.array(ARRAY),
        np.asmatrix(ARRAY),
        *(np.ma.array([[1.0, 2.0]], **mask, fill_value=value) for value in (None, 3, 4)),
        np.ma.array(np.asmatrix([1.0, 2.0]), **mask),
        np.ma.array([[1.0, 2.0]]),
        np.ma.array([None, "text"], object, **mask),
        np.ma.masked,
    ]


def different_pandas_dtypes():
    import pandas as pd

    hours = [datetime.timezone(datetime.timedelta(hours=number), "local") for number in (2, 3)]
    dtypes = [
        pd.CategoricalDtype(["a", "b"]),
        pd.CategoricalDtype(["b", "a"]),
        pd.CategoricalDtype(["a", "b"], True),
        pd.CategoricalDtype([1, 2]),
        pd.CategoricalDtype(pd.Index([1.0, 2.0])),
        pd.PeriodDtype("D"),
        pd.PeriodDtype("M"),
        pd.IntervalDtype("f8", "left"),
        pd.IntervalDtype("f8", "right"),
        pd.IntervalDtype("M8[ns]", "right"),
        *(pd.SparseDtype("f8", fill) for fill in (0.0, 1.0, math.nan)),
        *(pd.DatetimeTZDtype("ns", zone) for zone in ("UTC", "Europe/Berlin", *hours)),
        pd.Int64Dtype(),
        pd.Int32Dtype(),
        pd.Float64Dtype(),
        pd.BooleanDtype(),
        pd.StringDtype("python"),
    ]
    if importlib.util.find_spec("pyarrow"):
        import pyarrow as pa

        times = [pa.timestamp("ns", zone) for zone in ("UTC", "Europe/Berlin")]
        dtypes += map(pd.ArrowDtype, [pa.int64(), pa.int32(), pa.list_(pa.int64()), *times])
    return dtypes


def different_columns():
    """Series, indexes and frames without a value or with a missing one, of all dtypes."""
    import pandas as pd

    dtypes = different_pandas_dtypes()
    empty = [pd.Series([], dtype=dtype) for dtype in dtypes]
    missing = [pd.Series([None], dtype=dtype) for dtype in dtypes]
    return [
        *empty,
        *missing,
        *map(pd.Index, empty),
        *map(pd.DataFrame, missing),
        *(each.array for each in missing),
    ]


def different_frames():
    """Flags, attributes, names, frequencies by more than their text, sides, categories."""
    import pandas as pd
    from pandas.tseries import offsets

    column, frame = pd.Series([1, 2]), pd.DataFrame({"a": [1, 2]})
    noted, other = frame.copy(), frame.copy()
    noted.attrs, other.attrs = {"unit": "m"}, {"unit": "km"}
    holidays = [offsets.CustomBusinessDay(holidays=[day]) for day in ("2020-02-03", "2020-02-04")]
    days = pd.DatetimeIndex(["2020-01-01", "2020-01-02"])
    return [
        column,
        column.rename("a"),
        column.rename_axis("a"),
        column.astype("f8"),
        column.astype("category"),
        column.set_flags(allows_duplicate_labels=False),
        frame,
        frame.set_flags(allows_duplicate_labels=False),
        noted,
        other,
        frame.rename_axis(columns="a"),
        frame.T,
        frame.astype(object),
        days,
        days.tz_localize("UTC"),
        days.tz_localize("Europe/Berlin"),
        days.to_period("D"),
        days.to_period("M"),
        *(pd.DatetimeIndex(days, freq=freq) for freq in ("D", *holidays)),
        *holidays,
        offsets.Day(2),
        pd.interval_range(0, 2),
        pd.interval_range(0, 2, closed="left"),
        pd.CategoricalIndex([1, 2]),
        pd.CategoricalIndex([1, 2], ordered=True),
        pd.MultiIndex.from_product([[1], [2]]),
        pd.MultiIndex.from_product([[1], [2]], names=["a", "b"]),
        pd.MultiIndex.from_product([[1], [2.0]]),
        *(pd.Timestamp("2020", tz=zone) for zone in (None, "UTC", "Europe/Berlin")),
    ]


def different_sparse_arrays():
    from scipy import sparse

    return [
        getattr(sparse, f"{layout}_{kind}")(np.eye(3) * number)
        for layout in ("csr", "csc", "coo", "bsr", "dok")
        for kind in ("array", "matrix")
        for number in (1, 2)
    ]


FOR_PANDAS = [different_pandas_dtypes, different_columns, different_frames]
DIFFERENT_KINDS = [
    different_times,
    different_numbers,
    different_containers,
    different_functions,
    different_dtypes,
    different_arrays,
    *(pytest.param(make, marks=needs("pandas")) for make in FOR_PANDAS),
    pytest.param(different_sparse_arrays, marks=needs("scipy")),
]


def look_at(value):
    """What a debugger does: show a value, and read all that can be read of it."""
    looks = repr, vars, len, builtins.hash, typing.get_type_hints, lambda value: value == value
    for look in looks:
        with contextlib.suppress(Exception):
            look(value)
    for name in dir(type(value)):
        if not callable(getattr(type(value), name, None)):
            with contextlib.suppress(Exception):
                getattr(value, name)


class TestSection2Hash:
    @pytest.mark.parametrize("name", DIFFERENT_VALUES)
    def test_equal_values_have_one_digest(self, name):
        """Only content counts: not identity, sharing, interning, order of dicts and sets,
        nor how a value was made."""
        values = DIFFERENT_VALUES[name]
        assert len({joblite.hash(value) for value in values}) == 1
        assert len({joblite.hash(["beside", value, {"in": value}]) for value in values}) == 1

    def test_other_values_have_other_digests(self):
        """Type, value and layout count, alone and inside a list."""
        for wrap in (lambda value: value, lambda value: [value], lambda value: {"key": (value, 1)}):
            seen = {}
            for name, values in DIFFERENT_VALUES.items():
                other = seen.setdefault(joblite.hash(wrap(values[0])), name)
                assert other == name

    @pytest.mark.parametrize("make", DIFFERENT_KINDS)
    def test_whatever_tells_values_apart_counts(self, make):
        """Attributes, units, zones, flags, classes: what differs in one has another digest."""
        values = make()
        for wrap in (lambda value: value, lambda value: [value, value]):
            digests = [joblite.hash(wrap(value)) for value in values]
            repeated = [
                value for digest, value in zip(digests, values) if digests.count(digest) > 1
            ]
            assert not repeated
            assert digests == [joblite.hash(wrap(value)) for value in make()]

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("make", DIFFERENT_KINDS)
    def test_looking_at_a_value_changes_no_digest(self, make):
        """Nor does hashing change the value: its pickle stays the same, but for pandas' caches."""
        for value in make():
            pickled = []
            with contextlib.suppress(Exception):
                pickled = [pickle.dumps(value, 4), pickle.dumps(value, 4)]
            digest = joblite.hash(value)
            if pickled and pickled[0] == pickled[1] and "pandas" not in str(pickled[0]):
                assert pickle.dumps(value, 4) == pickled[0]
            look_at(value)
            assert joblite.hash(value) == digest, value

    @pytest.mark.skipif(sys.version_info < (3, 15), reason="needs the lazy imports of Python 3.15")
    def test_a_lazy_import_counts_as_what_it_brings(self):
        done = run_script("""
            import joblite
            lazy import json
            lazy from wave import open as opened
            work = lambda: (json.dumps, opened.__name__)
            early = joblite.hash(work)
            work()
            print(joblite.hash(work) == early)
            """)
        assert done.stdout == "True\n"

    def test_digests_are_the_same_in_other_processes(self):
        """No digest depends on the hash seed, on addresses, or on the process."""
        code = """
            import collections, decimal, sys, joblite
            from pathlib import Path
            class Node: pass
            node = Node(); node.children = {Node(), Node()}
            for place, child in enumerate(sorted(node.children, key=id)):
                child.parent, child.place = node, place
            values = [{"a", "b", 1, ("c",)}, frozenset("xyz"), {"k": {"a", "b"}, 2: Path("p")},
                      collections.Counter("abc"),
                      lambda x: x in {"a", "b"}, decimal.Decimal(1), Node, node, [node, {3: node}]]
            print([joblite.hash(value) for value in values])
            """
        outputs = {
            run_script(code, env={"PYTHONHASHSEED": seed}).stdout for seed in ("0", "1", "2")
        }
        assert len(outputs) == 1

    def test_digests_never_change(self):
        """Plain values and arrays have the digests they always had."""
        found = {name: joblite.hash(DIFFERENT_VALUES[name][0])[:16] for name in GOLDEN_DIGESTS}
        assert found == GOLDEN_DIGESTS

    def test_identity_of_parts_never_leaks(self):
        """Two equal parts count alike whether they are one object or two,
        where nothing holds itself."""
        with_cycles = {
            "family",
            "other family",
            *(name for name in DIFFERENT_VALUES if "itself" in name),
        }
        too_deep = {
            name for name in DIFFERENT_VALUES if name.startswith(("linked", "deep", "flat"))
        }
        for name in DIFFERENT_VALUES.keys() - with_cycles - too_deep:
            first, last = DIFFERENT_VALUES[name][0], DIFFERENT_VALUES[name][-1]
            assert (
                joblite.hash([first, first])
                == joblite.hash([first, last])
                == joblite.hash([last, first])
            )

    def test_shared_parts_cost_once(self):
        """A graph of lists and objects that share their parts takes linear time:
        2**60 paths end at once."""
        lists = objects = dicts = (1, "a")
        for _ in range(60):
            lists, objects, dicts = (
                [lists, lists],
                Plain(a=objects, b=objects),
                {1: dicts, 2: dicts},
            )
        assert len({joblite.hash(value) for value in (lists, objects, dicts)}) == 3

    def test_recursive_values(self):
        """In what holds itself, content counts, and which parts are one object; not the order in
        sets and dicts."""
        ring = [Plain(number=number) for number in range(30)]
        for place, node in enumerate(ring):
            node.next, node.previous = ring[(place + 1) % 30], ring[place - 1]
        assert joblite.hash(ring) == joblite.hash(copied(ring)) != joblite.hash(ring[1:])
        before = joblite.hash(ring)
        ring[7].number = 8
        assert joblite.hash(ring) != before
        a, b = [1], [1]
        a.append(b)
        b.append(a)
        assert joblite.hash(a) == joblite.hash(b) != joblite.hash(looped(1, 1))
        assert joblite.hash([a, a]) != joblite.hash([a, copied(a)])
        b[0] = 2
        assert joblite.hash(a) != joblite.hash(b)
        first, second = {"a": 1, "b": [2], (1, "c"): 3}, {(1, "c"): 3, "b": [2], "a": 1}
        for loop in (first, second):
            loop["b"].append(loop)
        assert joblite.hash(first) == joblite.hash(second)

    def test_values_that_hold_themselves_at_random_equal_their_copies(self):
        values = [tangled(seed) for seed in range(300)]
        digests = [joblite.hash(value) for value in values]
        assert digests == [joblite.hash(copied(value)) for value in values]
        assert digests == [joblite.hash(tangled(seed)) for seed in range(300)]
        for value, digest in zip(values, digests):
            value.append("another")
            assert joblite.hash(value) != digest

    def test_long_recursive_values(self):
        """Thousands of parts that hold each other do not depend on the recursion limit."""
        first, second, longer = map(linked, (12_000, 12_000, 12_001))
        assert joblite.hash(first) == joblite.hash(second) != joblite.hash(longer)
        crowd, other = family(range(2_000)), family(range(2_000))
        crowd.all, other.all = list(range(12_000)), list(range(12_000))
        assert joblite.hash(crowd) == joblite.hash(other)
        other.all[-1] = 0
        assert joblite.hash(crowd) != joblite.hash(other)

    def test_instances_that_hold_their_own_methods(self):
        """Two objects that keep a wrapper of their own method have one digest."""

        def make(value):
            obj = Plain(value=value)
            obj.wrapped = functools.partial(obj.method)
            return obj

        assert joblite.hash(make(1)) == joblite.hash(make(1)) != joblite.hash(make(2))

    @pytest.mark.parametrize("dtype", ["f8", "M8[ns]", "i1,f8", "S3"])
    @pytest.mark.parametrize(
        "view", ["array", "array[::2]", "array[::-1]", "array.T", "array[:, 1:3]", "array[5]"]
    )
    def test_big_arrays_have_the_digest_of_their_copies(self, view, dtype):
        """Whatever the strides, an array of several blocks has the digest of its C copy,
        in threads as in one piece."""
        array = eval(view, {"array": long_array(dtype)})
        copy = array.copy("F" if view == "array.T" else "C")
        assert joblite.hash(array) == joblite.hash(copy)

    def test_digests_do_not_depend_on_the_number_of_threads(self):
        """One core gives the digest that two give."""
        code = """
            import numpy as np, joblite
            print(joblite.hash(np.arange(1_000_000)), joblite.hash(np.arange(1_000_000)[::3]))
            """
        names = {run_script(code, env={"LOKY_MAX_CPU_COUNT": cores}).stdout for cores in ("1", "2")}
        assert len(names) == 1

    def test_memmap_equals_its_array_only_when_coerced(self, tmp_path):
        mapped = np.memmap(tmp_path / "a", "f8", "w+", shape=(3, 2))
        mapped[:] = [[1, 2], [3, 4], [5, 6]]
        array = np.array(mapped)
        assert joblite.hash(mapped) != joblite.hash(array)
        assert (
            joblite.hash(mapped, coerce_mmap=True)
            == joblite.hash(array, coerce_mmap=True)
            == joblite.hash(array)
        )
        assert joblite.hash([mapped], coerce_mmap=True) == joblite.hash([array])

    def test_equal_dtypes_have_one_digest(self):
        """However they were made: whether their fields were to be aligned does not count."""
        aligned = np.dtype([("a", "i1"), ("b", "i4")], align=True)
        placed = np.dtype(
            {"names": ["a", "b"], "formats": ["i1", "i4"], "offsets": [0, 4], "itemsize": 8}
        )
        assert aligned == placed and joblite.hash(aligned) == joblite.hash(placed)
        assert joblite.hash(np.zeros(2, aligned)) == joblite.hash(np.zeros(2, placed))
        assert joblite.hash(np.dtype("f8", metadata={})) == joblite.hash(np.dtype("f8"))

    def test_gaps_between_fields_do_not_count(self):
        """Equal records have one digest whatever the padding bytes hold."""
        dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
        zeros, ones = np.zeros(48, "u1"), np.full(48, 255, "u1")  # records of 16 bytes, or 12
        first, second = zeros.view(dtype).copy(), ones.view(dtype).copy()
        second["a"] = second["b"] = 0
        for kind in np.ndarray, np.recarray:
            one, other = first.view(kind), second.view(kind)
            assert joblite.hash(one) == joblite.hash(other)
            assert joblite.hash(one[::2]) == joblite.hash(other[::2])

    def test_long_doubles_count_by_value(self):
        first = np.zeros(4, "g")
        second = np.full(first.nbytes, 255, "u1").view("g").copy()
        second[:] = 0
        assert joblite.hash(first) == joblite.hash(second) != joblite.hash(first + 1)
        strided = np.arange(40_000, dtype="g").reshape(20, 20, 100).T[::-1]
        assert joblite.hash(strided) == joblite.hash(strided.copy())

    def test_local_functions_and_classes_count_by_what_they_do(self):
        def make(text, extra):
            class Local:
                value = text

                def method(self):
                    return super().__repr__() + extra

            return Local

        assert joblite.hash(make("a", "b")) == joblite.hash(make("a", "b"))
        names = {
            joblite.hash(make("a", "b")),
            joblite.hash(make("a", "c")),
            joblite.hash(make("b", "b")),
        }
        assert len(names) == 3
        assert joblite.hash(make("a", "b")()) == joblite.hash(make("a", "b")())
        first, second = eval("lambda x: x + 1"), eval("lambda x: x + 2")
        assert joblite.hash(first) != joblite.hash(second)

    def test_a_local_class_keeps_its_digest_when_an_object_of_it_was_pickled(self):
        """Pickling leaves a note in the class."""

        def make():
            class Local:
                pass

            return Local

        local = make()
        joblite.hash(local())
        assert joblite.hash(local) == joblite.hash(make())

    @slow
    @huge
    def test_texts_and_bytes_of_more_than_2_gib_have_digests(self):
        """marshal refuses them; small ones keep the digest that they always had."""
        if available_memory() < 10e9:
            pytest.skip("needs 10 GB of free memory")
        with ThreadPoolExecutor(2) as pool:
            one, other = pool.map(
                joblite.hash, [{"a": [b"b", bytes(2**31 + 1)]}, ("\xe9" * 2**30, "c")]
            )
        assert one != other

    def test_the_globals_that_functions_use_count(self):
        """A function that cannot be imported changes its digest with a global that it reads."""
        scope = {"factor": 2}
        exec("helper = lambda x: x * factor\ncaller = lambda x: helper(x) + 1", scope)
        before = joblite.hash(scope["caller"])
        assert joblite.hash(scope["caller"]) == before
        scope["factor"] = 3
        assert joblite.hash(scope["caller"]) != before

    def test_what_is_followed_stands_in_the_digest_by_its_label(self):
        """What `hash` is made of takes in what Memory knows about functions and classes."""

        asked = []

        def follow(thing):
            asked.append(thing)
            return "fingerprint" if thing is Point else None

        value = [Point(1), Point(2), copied]
        sha256 = joblite._hash_maker("sha256")
        plain, mixed = (joblite._digest(value, sha256, False, each) for each in (None, follow))
        assert plain.hex() == joblite.hash(value) and plain != mixed
        assert Point in asked and copied in asked
        assert joblite._digest([copied], sha256, follow=follow).hex() == joblite.hash([copied])

    def test_the_order_of_dicts_counts_where_it_is_asked_for(self):
        """As in the keys of Memory; what is not a dict keeps its digest."""

        def ordered(value):
            return joblite._digest(value, joblite._hash_maker("sha256"), follow=lambda thing: None)

        loop = {"a": 1, "b": []}
        loop["b"].append(loop)
        for first in ({"a": 1, "b": 2}, {"a": 1, 2: [3]}, loop):
            for wrap in (
                lambda value: value,
                lambda value: [value],
                lambda value: Plain(inside=value),
            ):
                one, other = wrap(first), wrap(dict(reversed(first.items())))
                assert ordered(one) != ordered(other)
        assert ordered([{"b", "a", 1}, Point(1, 2)]) == ordered([{1, "a", "b"}, Point(1, 2)])
        assert ordered({"a": 1, "b": 2}) == ordered({"a": 1, "b": 2})

    @pytest.mark.parametrize("hash_name", ["md5", "sha1", "sha256", "blake2b", "sha3_256"])
    def test_every_algorithm_of_hashlib(self, hash_name):
        names = {
            joblite.hash(value, hash_name)
            for value in (1, [1], {"a": ARRAY}, looped(1, 1), np.zeros(400_000))
        }
        assert {len(name) for name in names} == {2 * hashlib.new(hash_name).digest_size}
        assert len(names) == 5

    @pytest.mark.parametrize("hash_name", ["md4711", "shake_128", None, ""])
    def test_unknown_algorithm_is_refused_with_the_valid_ones(self, hash_name):
        with pytest.raises(ValueError, match="hash_name: expected one of .*md5.*sha256.*, got"):
            joblite.hash(1, hash_name)

    @pytest.mark.parametrize(
        "value",
        [threading.Lock(), (x for x in ()), [1, {"a": threading.Lock()}], sys.stderr],
        ids=["lock", "generator", "nested lock", "stream"],
    )
    def test_what_cannot_be_pickled_has_no_digest(self, value):
        with pytest.raises(pickle.PicklingError, match="cannot hash an object of type .*pickle"):
            joblite.hash(value)

    @pytest.mark.parametrize("function", [lambda x: x + 1, round])
    def test_a_ufunc_of_the_program_has_no_digest(self, function):
        with pytest.raises(pickle.PicklingError, match=r"no import finds '.* \(vectorized\)"):
            joblite.hash(np.frompyfunc(function, 1, 1))

    def test_values_deeper_than_the_recursion_limit(self):
        def deep(leaf):
            return functools.reduce(lambda below, _: [below, object()], range(12_000), leaf)

        one, same, other = deep(1), deep(1), deep(2)
        assert joblite.hash(one) == joblite.hash(same) != joblite.hash(other)
        # taken apart step by step: to free it at once would be as deep
        for value in (one, same, other):
            while type(value) is list:
                value = value[0]

    def test_register_hasher_counts_what_the_function_gives(self):
        class Handle:
            def __init__(self, number):
                self.number, self.lock = number, threading.Lock()

        class Special(Handle):
            pass

        try:
            joblite.register_hasher(Handle, lambda handle: handle.number)
            assert joblite.hash(Handle(1)) == joblite.hash(Handle(1)) != joblite.hash(Handle(2))
            assert joblite.hash(Special(1)) == joblite.hash(Special(1)) != joblite.hash(Handle(1))
            assert joblite.hash(Handle(1)) != joblite.hash(1)
        finally:
            joblite._PARTS.pop(Handle, None)
        with pytest.raises(TypeError, match="expected a class and a function"):
            joblite.register_hasher("Handle", len)

    @pytest.mark.usefixtures("numpy_comes_later")
    def test_numpy_is_not_needed_and_not_imported(self):
        done = run_script("""
            import sys, datetime, joblite
            value = [1, {"a": datetime.date(2020, 1, 1)}, {1, 2}, len, lambda: 0]
            print(joblite.hash(value)[:4] != "", "numpy" in sys.modules)
            """)
        assert done.stdout.split() == ["True", "False"]

    @needs("pandas")
    def test_equal_frames_have_one_digest_whatever_their_blocks(self):
        import pandas as pd

        columns = {"a": [1, 2], "b": [1.5, 2.5], "c": ["x", None], "d": [3, 4]}
        whole = pd.DataFrame(columns)
        grown = pd.DataFrame({"a": [1, 2]})
        for name in "bcd":
            grown[name] = columns[name]
        rows = pd.concat([whole[:1], whole[1:]])
        assert (
            joblite.hash(whole)
            == joblite.hash(grown)
            == joblite.hash(rows)
            == joblite.hash(copied(whole))
        )
        changed = whole.copy()
        changed.loc[1, "d"] = 5
        names = {
            joblite.hash(frame)
            for frame in (
                whole,
                changed,
                whole[["b", "a", "c", "d"]],
                whole.rename(columns={"a": "z"}),
                whole.set_index("a"),
                whole.astype({"a": "f8"}),
                whole["a"],
                whole.index,
            )
        }
        assert len(names) == 8

    @needs("pandas")
    @pytest.mark.parametrize(
        "make",
        [
            lambda pd: pd.Series([1, None], dtype="Int64"),
            lambda pd: pd.Series(["a", "b", "a"], dtype="category"),
            lambda pd: pd.Series(pd.to_datetime(["2020-01-01", None], utc=True)),
            lambda pd: pd.Series(["a", None]),
            lambda pd: pd.date_range("2020", periods=3),
            lambda pd: pd.MultiIndex.from_product([[1, 2], ["a", "b"]]),
            lambda pd: pd.interval_range(0, 3),
            lambda pd: pd.Index(["x", "y"], name="n"),
            lambda pd: pd.Timestamp("2020-01-01"),
            lambda pd: pd.Series([1, 2], dtype="Sparse[int]"),
            lambda pd: pd.period_range("2020", periods=2, freq="M"),
        ],
    )
    def test_pandas_values_have_one_digest_each(self, make):
        import pandas as pd

        assert joblite.hash(make(pd)) == joblite.hash(make(pd)) == joblite.hash(copied(make(pd)))
        assert joblite.hash([make(pd), make(pd)]) == joblite.hash([make(pd)] * 2)

    @needs("pandas")
    @pytest.mark.parametrize("base", ["DataFrame", "Series"])
    def test_what_a_pandas_subclass_keeps_counts(self, base, monkeypatch):
        """`_metadata` names the attributes that pandas pickles and hands on."""
        import pandas as pd

        cls = getattr(pd, base)
        own = type(
            "Measured", (cls,), {"_metadata": [*cls._metadata, "unit"], "__module__": __name__}
        )
        monkeypatch.setattr(sys.modules[__name__], "Measured", own, raising=False)
        values = [
            own([1, 2]),
            *(measured(own([1, 2]), unit) for unit in ("m", "km", "m", {"in": "m"})),
        ]
        names = [joblite.hash(value) for value in values]
        assert len(set(names)) == 4 and names[1] == names[3] == joblite.hash(copied(values[1]))


def same(first, second):
    """Whether two values are equal in type, dtype, layout and content."""
    return joblite.hash(first) == joblite.hash(second)


def round_trip(value, folder, **options):
    """The value that comes back from a file."""
    path = os.path.join(folder, "value")
    joblite.dump(value, path, **options)
    return joblite.load(path)


class Picky:
    """Fails to pickle after the bytes before it."""

    def __reduce__(self):
        raise ZeroDivisionError("this object fails")


class Writer:
    """A file object with nothing but `write`, which takes a few bytes at a time."""

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += bytes(data[:1000])
        return min(len(data), 1000)


class Trickle:
    """A file object with nothing but `read`, which gives a few bytes at a time."""

    def __init__(self, data):
        self.file = io.BytesIO(data)

    def read(self, nbytes):
        return self.file.read(min(nbytes, 7))


class Attack:
    """A pickle that calls `function(*args)` when it is loaded."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def foreign_buffers(n):
    """Objects that offer memory out of band."""
    return [Holder(bytes([number]) * 100) for number in range(n)]


class Holder:
    def __init__(self, data):
        self.data = bytes(data)

    def __reduce_ex__(self, protocol):
        return Holder, (pickle.PickleBuffer(self.data) if protocol >= 5 else self.data,)

    def __eq__(self, other):
        return self.data == other.data


ARRAYS = {
    "contiguous": ARRAY,
    "fortran": np.asfortranarray(ARRAY),
    "strided": ARRAY[:, ::2],
    "reversed": ARRAY[::-1],
    "transposed": ARRAY.T,
    "3-d strided": np.arange(60.0).reshape(3, 4, 5)[::2, :, 1:4],
    "broadcast": np.broadcast_to(ARRAY[0], (3, 6)),
    "0-d": np.array(1.5),
    "empty": np.zeros((0, 3)),
    "big-endian": ARRAY.astype(">f8"),
    "complex": ARRAY + 1j,
    "bool": ARRAY > 3,
    "text": np.array(["a", "bcd"]),
    "bytes": np.array([b"a", b"bcd"]),
    "dates": np.array(["2020-01-01", "NaT"], "M8[ns]"),
    "deltas": np.array([1, 2], "m8[D]"),
    "records": np.array([(1, 2.0), (3, 4.0)], "i1,f8"),
    "records of objects": np.array([(1, "a")], "i1,O"),
    "half": ARRAY.astype("f2"),
    "objects": np.array([1, "a", None, [ARRAY]], object),
    "void": np.zeros(3, "V5"),
    "read-only": np.frombuffer(b"12345678", "f8"),
}
VALUES = {
    "none": None,
    "int": BIG,
    "text": "\ud800é",
    "list": [1, [2, (3,)]],
    "dict": {"a": {1, 2}},
    "object": Plain(a=1, b=[2]),
    "arrays in an object": Plain(a=ARRAY, b=[ARRAY, {"c": ARRAY[::2]}]),
    "function": copied,
    "masked": np.ma.array([1, 2], mask=[0, 1]),
    "matrix": np.asmatrix([[1, 2]]),
    "subclass": ARRAY.view(Tagged),
    "scalar": np.float32(1),
    "dtype": np.dtype("i1,f8"),
    "many arrays": [np.full(number % 7, number) for number in range(500)],
    "foreign buffers": Plain(a=foreign_buffers(3)),
    **ARRAYS,
}
SAMPLE = {
    "text": ["some text", 1.5, None],
    "array": np.arange(300.0),
    "more": [np.arange(7, dtype="i2"), b"bytes"],
}
METHODS = [
    "zlib",
    "gzip",
    "bz2",
    "lzma",
    "xz",
    pytest.param("lz4", marks=needs("lz4")),
    pytest.param(
        "zstd", marks=needs("compression" if sys.version_info >= (3, 14) else "zstandard")
    ),
]
TOOLS = {
    "gzip": ["gzip", "-dc"],
    "bz2": ["bzip2", "-dc"],
    "xz": ["xz", "-dc"],
    "lzma": ["xz", "--format=lzma", "-dc"],
    "zstd": ["zstd", "-dc"],
    "lz4": ["lz4", "-dc"],
    "zlib": [
        sys.executable,
        "-c",
        "import sys, zlib; sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))",
    ],
}

# Files of joblib 0.8.4 (Python 3.6, arrays in .npy and .z files beside: too old to be read), 0.13.2
# (3.7), 1.0.1 (3.8), 1.2.0 (3.9) and 1.6.0 (3.11), as <version>/<value>.<kind>. Each was made in a
# fresh environment of that version, numpy 1.13 to 2.4, by `joblib.dump(value, path)` for the values
# of OLD_VALUES and, for kinds other than "pkl", `compress=(kind, 3)` (0.8.4: `compress=3`). An
# archive of them, packed with xz.
OLD_VALUES = {
    "plain": {"a": [1, 2.5, "x"], "b": (None, True, b"y")},
    "c": np.arange(12.0).reshape(3, 4),
    "f": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(12.0).reshape(3, 4)[:, ::2],
    "objects": np.array([1, "a", None, [2]], dtype=object),
    "nested": {
        "x": np.arange(4.0),
        "y": [
            np.arange(5, dtype="i1"),
            {"z": np.array(["2020-01-01"], "M8[D]")},
            np.arange(12, dtype="f4").reshape(3, 4),
        ],
        "r": np.array([(1, 2.0)], dtype="i2,f8"),
        "e": np.zeros((0, 3)),
        "o": np.array(1.5),
    },
}
OLD_FILES = """
/Td6WFoAAATm1rRGAgAhARwAAAAQz1jM4T//JBBdABgLgofPJD8UIA4Ve1y6g4ZWLp4FiJ2JRUwAHlZRQgYtRLIAcxm3tUCXZKKD
nOOFENJrNfFrqWb7bLx7sdG0TFehPUNZX9KcThng8dtZL+f3JpTjxdSjjvp32MJjEcUBoCxFNyB5zzlXimMR5N8JM2wYK479FM1/
YClKHnkxox4I6613G19b42eeHs4goMjbPaWHzcd3o2l5RW5PPxieUyAPz2gARMNmZayVjz7iPu6F8KrXUvCAdoYSLZaD3k/9KwBB
vEzPUKod1dHZYAoHN4fQ/upvX4shoKfjWIe9aX/3WcIZZeOdsXiqVdYC3GdXkrQLPuJJXTqzuP2KtIM/610hQbchvJIdLcaMQFzr
/dbqVfRXDXXMqGXcYcoL+/JqpXJbhUfYo1DrdUXXWqKrsGUPfqOXUylCYi976nQTCUJrv8F9IRXbO2yJWKk1mtSh/Moc0KkYddBt
0V5BsdarG0I5RSr6uQx2RxnAH7FK4qBHa+PT2LMtpTQypcAOPi3eZimMtmyFKGYxW5RtMstS0zupJ8FQgKEYjaJHXvXOzJi9B+5k
Wpv7Mn9xncx1yOaDImiDiqqn+C+fm0PCuoMRQAB+NAKYrww1L6/1N/m8ZjH6Dt0IDpMvQc2BnnqrXvoQMIpW8BlNBFUnXF5i30ZH
0nVjWrFJiLz8Lh9v+zvSYpmy71QeXEnrO72yCU9d27PgUTkmOT79zSDg44gwrrVF0Bc8Z1fzKFzpNSu5uK1++k31Bic7Oq0KGps9
OGvri5RXT1LonMQu87bngwbXOd5NhNWLzGnygz0Ii6ufbBwDDBFA/VEne4Qt4uhKutaM0Y66ZyhMRbEHx250c2UZdAXFOvc2ASkU
mnPUq3TLQs5YL2ejnR1quIIyBvudfmSlTy79yWJKGGF7983e0prltamIJvzM9N+uEZ2i96OmEbEMUcCdTZs8cw0+X+eyE5isZY9s
p+ujtkSx1S4m6hEFW2FXvl5GYUzF8z0aVdyZdC9xky96oWjNrzhLCOC8DMp+UGQ+R656HMhP39OJJqkZZ9iKUfklooxb40hSLI4Z
k8xjIwfjWhXlwo7bMbBzJbJUmNAycM+bqmSwazGfyrVPKkIzmXs1b0ERZllCbvtn0SFCJw6D1EBj/pYbuRvq3XWaWp7yEkiYS1zK
d40QrobWoJX/mkZQaKV0lV393L2E+08FVFculUnGUny8TXC/7KH84MSfm/jwiz/UvHU87HIrtMD0CLuq3Q/GjnRLzNrOhBEp/45F
o6EnWRd4YRhipFMrrqGD5SAqJLdq8HIoPyHlssvUe/bQqnFvmS1Dup0PrjRgjnOQSph+mcMCZFZfthlaXQxsfcfxmKFgz08YuPJm
kxy0l8qf/JMPieIR7QeOd5bP8r7DQgt1l9rECO9I4nZS9PMWLPcJRaFjepJ9L9m8Z/9XBnSN4L4NyUJb7SrEbC/N535lL90xGRkL
X4IiX5Q3fypvF6mZJmcMAIJUSQ2zZNBmNIDonLAxZ92zrG0E4sJ0mHSkUkpMDaV3rL6/iBsePpnIqo4hthbQzAwuIvZv5ccs4+I4
Z1z67zDfr2pI6rgOCOPChwy2MCXnFJFqiY86XArj1AEkgciQeJ4Fj+S6TYdb9TQyZp2sUWtgdAedQOKbshGbwVR/ChBBstVZxmQO
WHC/eshZs+LtoqcMx6cLY2u8h3qKFzRbBKnJw/GQ89idbiNTXfxfnMp/tfawNSU2THlew25gPgcpWqsnUm9F6Aep/wSBMtIB3/E2
TgzQVW0CXddO+WJqWggeunkab3vxsOzlq+VgPxz1q5id08Px2ftoTsEVS+Nx6bRMrNTve2eKiXCvNF84izHyRgzsuA0A5W3/QiCF
uxun43V3hYGcvry5O7dfzyEq9D8QoMvQf3wggCHYsNq9N7NZqVS70iH2mW6JX2PAEpWGZ/S9oeObe8lEHKQ9UAeEa3znJwkE0ryt
0YITjidOQ9vf/2oxMqHDLhEamnynC0Jo4Zz2SE4+xdoMYTOQKr5LD4VHXrK4dXce5IQ2sfqMJa0jYc5m772x0o/QckfuwRlHK1sm
46724yek1ScSohv+XCqpKNQY8nbZdHnhmk1oMVqPMuTBqoBPYUPb6UC+1aHrCoRF8tIn+7zc2PK6bs6frKXP4ANt0fRVkNf+qbo3
6R6OvaDnEyJ8sKdsDPopDOD5mpwBGSSUZIvcJTbGCaSsortvuatxTwjeJPrThC6xZqLeMX1b+eNoXwHDhLakm4CSTCfxfKHhsb9M
SofWs6YJnEsZgUnLVXcQBHMU10PYcI2jjTZviE8/3xOB0cEce+CBWw+7KpyjtBT/SPYCum4vayoYf3SvrPgj0nTmMiK10hgA4HTG
vKR7WTYDa8OeKZWYsfciaGWsSar4DowMqbg0FbBxnmfAMOgq8kMKRL1+m4i5pobnHumTv7z0YBd93+TxwKcupCCWV1x5mr6J+PYH
5JD+3MLilIUWjOCse5xPH4X2bU+vlRL6MIbQw/lJo0OW7O+1n6TD41f1nPn7F0i1sxHd683LMQCyWz9ludxD0xDToN8KTlzODNVp
kNrz4mz9uqtSgeVtlJIyl5uzapuiARrSTPn56vMTADzXSXtnm61ZTIZ16DzTy1CTPlAsjdgB5a8oxHsJxwNtEuSTfO1fCAOGf+az
S98p9QZdkUx7maBhUvmkSpLXED3EvOKaxyx0eb/eXRjl7tBzjX9ZNjpPXmUhtANWdayDnjSIZjMl6LskGvI7gGOVHAsESn0k35tl
TXcF3puXQ1hnJMVpcaKraALus+ktMm9bs2CuEz9tIz1C38fiEvODQU3krE9T2gvdXiIEs3EJSBFNYihLDI7ZwN+S80tBCYHnIPcF
UpCwT13EY8LAkL5UorHa9e4hI0isPeTCUJFwaQruz9aL0gUfT5NBm3Y873mWq7CjM1cW2UXnM9EsejC3nrbqpXt+Bc63D+KLOCBA
auFW26HjbD3CkheqOMiEipf1vLX9MtSHqJuM72wJTOtCkXPP1aF8WRtvlxcHp0e5zI6jo3PwhHMjtL7s52H8bjl8PUzdeUJWMwWw
1lBjNfge3X7iiAPgevVNkpDe9Z0bTHGkgTWAASbU6SFOsEATcMLwOfYs+a8/sHi7cL5dvraqaF9hzejG4IavrDfuEEaZL09e0e7h
xzbapwHZ1jAwoT025dvj0YMVFzdiuvZSfAKtimz7RABVELcbVu4PS4jihX0Wb5ShNlYa5SYBgbWtdpYJO2JtC81EP8SyF4NAC0Q3
lKjYoQD6fKWW1fghBC8QEG+7R9tMBigt9AfGSOoLNYB/iAyHZyaSrRbQTnzkKyDjdX1r+lILGo3W1oW6GvT159U5PuHnlxbrjTVy
D3Fa9lH6MyUHOojM9311gJPCLKMZ2lcLeoH6CzeYayJwsx5ym2z7T6gTOKLtrHUMpuRwP51UE5Ds4vFS/3a2+zGWeAIm3b9cwkhu
B1ligGIMyz05rlnImSkMbFat9t43kNw0G0a9kta+0l5gUFAcMtYnaTbjmNfehECMq3cVtP60RGRoTyZXr1tmYE0f+KQUL7dy7Cwj
nTAoaB7cVStYg+hLqsVm5ab4MnWZoQf1odYfUPLe9GyPjCTzNVxSx4JOn3lEePkqTFayKcv1k0GZTGq2SdVBb8joqI/jhm5k1vI0
Wd6f36dzCeYo4dJf2qGX8kcXC5ivD7WHSDS2K9bRsG+mDl9F0V43VAh9WFMTlx708jzT+Flmhn21n2REI9VftuEbWQgoEJjvFgUA
nq0tOcw1xiRO2dWTsHXBsWKZYLakTE5f+ax+lHw6hQGW+b7IJUL+qBKdDMKjqecwnsatAiZCADTW0nVHWROSAcD3We2gsvnc7Y+c
oEUR6ilDcC9SwI96v99R+KTbfk+6i3oafRJzW0HOdoxrkl9l088dO9M7BKTo/s1JutTfnARdH3Mu/CeFwYWCLtkXwHbiXiPOjyUl
XtK6qHLz3yWel8YuUHhdlV6LH+Ov8F8OjyXfIGCxvR6wyvHtueCK1tre7H2BirhXO1FdHUSrZq6LimRyrfIAfc6+4Tq3YC3wraht
s+07E1dHbWZk/YrULTVds8FLCksb9UreM4o29/pyWcFYnHu1gXkzIhaicWo2fMbgSLLlwlv4ldvDdy30TGSCjeN6Ga74DdGr+XHM
9Ebuao2NxT8jdF7byuG76YgfQVUu7EDmTmhnJ9VKcNvZOhpvTAqPVFY5Ikf3N5MFYA7cTcVAO6t/x0/dWH6X0HK0EA4IjNxtZyGo
wMZ28zLn4S4Gy6rcW+kJBOetQtC9TuCRalU6pHWmatNifHMcqZ0aAp1o3opz0prTJv/kb+/WTW7COS0OBkUzVoN5PbqsCsctGEQc
ml0L2bHfifsAnIO8n0pqXDDdPml3YtDx8BEmrU7NAT8UONSa4ARTFcWKnogVNDc8QKELHqFKj35n0uzaxC3tDdgsosWwWfY9i2Hz
pZDFMzGJRhbljRfEoP0PVWJ/euIt82i4DmrMXKXn/7puX3BDLDQIZ9dLp2Kpf24oqKbKSmwT92l7mlkUPUINnSB5l7hDK949GwGs
koUloZKcSm95+ip8dh0JvxpTfEHNUHI9GUwKPNSqxWFLx16bwrmaNgDmNa5VmQzAb2D6XQAbGleYXVE8m/605I2IOZiottKnB0H9
k76gpHOntj+fOhM4UBUdXzBxMuUrv3hX3/G/SSTh8BFoRgwRzPy331QrvaLj3FMrVNPmmlwBIRa3fO+EHvqCPCB7KWFSCc1Mon/a
s2D70Yp+haX7JctJ3UFt0vZMHT9GtNR1vybwRu+XJuNQLYNC4qwCE+Xnd6z4P4uYmpX2WpaU5AvEcoWE6F35H+gtpJ5Vt/jZqQYr
hjVy6nRE0i0DKXEWhGeVLnHZoD8SIehoJ+sD6oICYJ1/lR+3qRH6ebpSTz9g4hZZGDLEqSexgLkjE8gGUAozoQwit93jIkPFHZf7
MHdvmXvTWgitMPQeL47p4Rt13oy5prj0ij7grnqhT04/l8yb19LuKPupDYHiOfz6RQVux4Mifre6MrWjXnLEhEFQtM6r/qmNsto8
RAFEKOerNECRIJVTEtQGhzMyyKDU9lBRWaQcsKGrOBGacvMAcfkP7cGWVpQ9FY9fc2HQjgWdC3wV8DRWHB1YRdxGbPiiqsVsm+Rv
0khUSjh7nV04zV7QUVIm63uL0t9yz159HJUuVJfuXWBJbkSrGS4fXhPQLpe1k9oLpgqSyEUJsJQXgcIh5x4DNJUdbUnsGUBBEMMu
/db0h7UWLj0C0s3aBIkjQtQNwukaJfDO1OLNpMZGeUaPnJAnX0gsqYebN5LsjZ0jMn2kB09k27et2rQNJ3XH5vGGm0NJ5aw2zk77
cysITUcgovJbcHxUr+Ypcq+zEeNSJ1EeR0wNFjPwNfYkygrp5pXhm1Xa7I2EQBtVHdKECJg4kKcePYcPYoT/9VXxRBiEOCeQib99
fanSrmXW7ns4nRz1qdGeKT8yI3vRNR7f2L4f/Khib4yY8+vI3QPxHnVpUwGtNNkkBK2bn8DERT0dCXqMhsbjWQmcXfhuZeAjl1e1
Ex2vJnax4JmMEV6Ndgv0/GJFmd67EcNkVdSg02VasFHwqzu/AGhfmAQ1i04aEAlHl1jB7Q+xRN93QOM2jibeNDxoBebwYbo4ikCU
X774fCkAe7PKAujhq7Te7Glr6ub+5O4DUqcFX7MBXpKtU7TaZVnwi64T2xCXHIU3AaeRgl3npOaOdVrf5OBInfcm0GGZMVkfAy8y
GkP9/dNdcB/dnhYZvgkDz12Hw7wSGZUjnOogwJ6E82xllFZ0lfmz8zLcpJXfwg1koEChpeJo/noRFQs1HktzFHSsnOtwaDmeoeSW
fpBbbP66AiPKKUB0OoZ5jkbn3dzAsE34vjnbsEkJFjjdh6QsEYWd5qkwNzk3v/2gOHGlESjhTRfzvXOQXgfY628Lmrr9RAOhgBst
2pOEcwzAi5q/UkLRSnLu4RmX5KIM1fflnKs+e6kJfplfQxZEEBwTG54RPRuL7jRdBCKdGCfWOJkiozag34GNwf3vCYkjE3QrkzGq
u2lz/4cfz2q4S+3ujvcUWnM+7l6VyWL1IxwZWUsM0jn90FH7oK3wCVUYxJb+vFyLy4JkHkmGMx0DtXEP7uEfqvwdDrTHtGZyRJCy
mEhh45uO27y1cg4+DWk6PGfxvKh4zPaO6v68DlGj6OsmQR6rUJ0oAD+vYQCVgOkGIC1A8iNP4xBH6NsCD2lPNImeg5d8JixZLmTC
1gMRfC1hTMtaI0HFmbN5xQLGDJCDMWa9pCMDaQaPCN1QValam2PXUHdqQGRPIFCgxE30L34JOWdSVG07JAh5BX97mGHO5/M8/azT
iTuCj4+O6r0jqTtJKdavj3viKzSWMjwITRcpeygyp5ATqcOsS7I73aj/NbvZcqkEiQJ8Utsa31c4CpdED8jNYRP1AF8VL1Nc3SPc
+DCJQA+qhdF/QQ31xBcBwRyoUJ7Xae6fboaCri6Es5P/EMBsCdwY/f12VTH6Pp62o4pk0QoTFOa1UaWehXUyWweuncpqy1lgPl0U
JnwzWVGmYLAFGtLVvGcaKxtBmgKxMog2n2mtjsWcUQVQfasJycuag4dHmQpZuoH+tNRkZij2LQ/MnUMLnD/radcPSEdkZE0ULPNA
zXOfy6TrYxjqoK0GnE7w21iPRInfcdVf6RScdRxBjpkz+A5sLb4UBTTanH97xxxBElpVZHkKPUKySrZOmK5jC+G1FV6zbGX5/UYa
tNkTXHDlz5WyOh8X+Samb+dUO46e+toLlIA0fwfF8YGuRPeHmUym6PL2GIaGdzgH7S0xmDQ3oRagxMp4fyvTc+t+C7Xl2koQomm1
odTCTxlCNAzizllJjWZr1CnvFdBY3FY6z69DcxCWfagoIirwHjxa6d9D46547LYSFMA2vZ1h05ruaFtqStDacfCD8SxE2AOgEqfA
VPzKj0RazatMKmBkgPJFZH+OnLNvKgeYqu1fBWHNxZHnKIxgIh4lXV6Jw/jTrN+F01GT57PZC/X+AyyhrSbBmucMuhfi71HQo1Ta
7kh/1SRtM/jQvZnw+aeGIKi7I6/k0IVTaZo+WoyBungCWdQYB+o9LYd3ijnBnzgy8Q0jc3IlPQnB8+nFG+1dV5ovRhosvEku5hKB
1tTtCWD9bmizkyD3H2H7uUu6Opyao+TH2+ydY1ebTJUppDzIY/QP1PPEagMEb1N55PQmw7qzdlaLm1CwkacnRHLlWeFh+dQ5uFcS
PNDLpozPUQoWa/Zrquot4pKfLs9hbFUOnLZg7RaWtn+EiBDHMpFowjpvF2kEtxyDyypb/2/21EfqSLYLRyD7W/h5YLafbxkoNfoi
uXlBAyjFsteobudoDXmVqyexPYcTEWt+AXqsPRELNhZ5JNfKsvDe7K92Aaari3/HJrfo6UH5HiHNIRkew5i/CpFVJNbNbltst5ER
OQRCta8V46iN29RP7KwxQuYuiXah0k3UXtgqeYS606K3az+kVFcAJSla9HYjsUaRF54Rm+W5d0o6ItTs6uLfJQIMEeNHcx/wL2Ot
rJmxaJMwTiSuV1WQCvnWES9ip49rCbS4dkjN2i21WKlYkRNmqD3Ne7xYxS4XYI/PO/ru6SGvep1bTw6WqGeK0iDxA+vWbnn6zeUs
ukogpRxAcEQyo8T7FU2CnhTVXk169bY68ssOZvx9MjlkrZcsRV+C2Izpq8SzB+8Ds1f5xSTfQlO43mq5vyJfyIQbc//xAJcw9f9n
r2pY2F8UFOUaa3u8HFiDt1t5G/RrFj8ge8yn9BZOewcLbK+jIwRqI7DBDL/LGDjlpvFtDZvNRlD+BrNP3oEkzL3KWgR8+bRJ2u+M
XmEGj+V1f8bKvUuu/R1C/5u/Sj5wO39LiKf8upvb7sui3rkrxoSphgW6yK4qqoBvO8xQPW8D2dve5FVqfkzmpb9ts/Soh5u3n2L8
6jTyN8hUhV9+5qm7l8ik7SQd7cLOu3Fm0DCoZUzPSQlFObaV10d8ujMQnL/mwIAbG8Eg5sGCyieprVKKgrX0BmoWkZDNwcAc3/9N
G1TV2HUcldjLAQbmeXtIFEDnCoNyebMj1/RbLF+CrynQTQFlF/wQz2+/x5qLdbP3pffUtynscnbCyUBTAfoyz6SVws98m9aDO6Qy
J/eVrezdwzyg+mRefEQL1r+1JA7AK8CAjqxSujluaJxI6UsCfmg61iUDD86uSFbDvVoS6MNE9Wu8XzRDIwuGSTwQaH5CI+rbUCrD
vAxwjASAaDe/4SaO/mSg2hmZMB/qnPKN+jYNAuTYnu79a8TXdf/0FdwGLXUym6ICf2S6jli3Q38r+vkOZKipooxVIu/HOOgVcKCr
V96au8kOrgAh/PDIz87w6tGYX1SfSEvK4VyKr63ehhZPK+hW8rP0vDXsMNrww2QBRXCFeJPzYf2oV0BLKv38pwNsq9O2ZeCbwk0X
NC1QVmAp1Thxyrj7pixH+cp3P4PoByaMl3Aij1BuWlWDn/UNwTtGiMblyfPnX4rEG8PYkzhdWGzV1lxwj+sVgN8yqKjYrnIbekAx
K0zt9Fng7r2PIi1p+T21VHhScM5t1kRcAmWG2ly8YDNQjFUj3629s3Ejs+z7wwe1btQy+I6TgRtG1uiRjS8V9UVOS214yYQM6ryk
e5yED1gX5TlmoOBPDf3iMypX+C6l7FZXopAFGuSAHnO8/dZgK9lBr72mrv+sllvp40zNo5+0zcariye2/lba1zCwaaSL82vHt/xC
A36kIghIVSVtv+WsZUv7VRkNsb7AeO/RXSKcgiETpmn89Yrns+cYlx7NHeed8AkbKsXPK0Y2EO4ZLRRQQ8RIN2uhnxYO5/I7xzz3
WWNWFDvJuSoO+pZxQxXfcu2s6OJuDgP64V4uNQVtCyRbn6ipoSlJtJmmgQ9UUnYFd1SGmKHG1ZGP4RMq/Q+pC8w1i3xNHjQzt+81
OhmFn9CW5vV6K2oZV1PX+wnQwYxTKNlEhpLQ+a3dHTzwPHKpaHuFCuzA7F8W0YxsMauknYrOhTHE1bNBuXo4quMFbEyIfDg+DEql
tyaR7bZ7oqWiQHhHW37IfJwC48ZmxYnTCjANdfSonChl2Np9Khd9Kd/NqBkHU4upoK+dzmM7t9Qvzfaag7ic5XLD71zY5gFo0RZX
BeYYXIxODG7MLSTH2N46rYYIzrD48rno0NALhyFYh87H7V4ijqvd5hIu3to3WwX3JBsbsZ8ZRibDKzSblRCPhaQL1v+L3WKZ++gr
r5TnDTX5zkfgIOgcouh3TAIgfeMXC3XqOzAjizRnoa6LXY2czt/EXT8m34uaOzLtYnp9zpYJ+PBAr+eeVwZvpEI9SffqSHGbK4X+
CmKqYtC2e5btnA0fj1CqQSzJHxhsVqH4mzEz2AGruY5qUmxUHLBS5hPV2G5ZOBT6wnUZpMkkPPlWqNYUDIZFQ5RoZCFPDe/oe2Dz
KdlQ9Ri4MrtgXvvBbrAszpxhIxTFoBhTnAP95O/RFRgDYoWDS3bdMaCTDOk4qZLQ8WYCSyv6Bq2w1Z6R85diS0pGa6f2Zx0yqxvn
On/6p0+e1PTPJ7/nURrjoufM4bkLK254V2NKtHnsmN2yZf014UY6/DQ98jWsrkFAQeAFZItKMcMftuvh6CBBo0dsCXksF8hOv17D
S4UeJEOnVfq6UnqdABnUvi/iAzyVullxZkduHml2K57UMYZ5i3Rj/ye49SXGA6unSxYs/DXisLF06xiEzEqafknMGh70toWr+T6y
g08edtEwXoDvwQiWlc349VRIE3P8MKqhPekq3sKOmaZaLh0KODcgv2vxXkM1VK7O2hsIlHWX+E9py+IJNwfNGGeZGW/XmnWbu+PI
Db2Fr6yIbeHtr4oYTkNOlBJvb1UIMHg1ARwLUlCQ7MZKpbLdMngst+zMtTV/4y81Zqqr9JdXLCqkNilew5/5fwUFSFXsR2nnl++A
7IVkpaQsZRJ+/HjaHh4HRWty2dfLLSCnt8J9cnISGYoWLNe3DmNyOIdYuIKy1XkMACFh4yN7fRIgmxxsNhweQG79NtZDPp2eU79k
6DvYV4Y4x7eFsDa68xeXYtFjQo7BZYTGEYdL9NHAR8oiad6Zoiz6MKDgwR7OqX0G/0xXqU9fTAVhVKWc00tjo1UM5KrykIi5XpPr
cKk2y6jTsN8fOHp8NXPuwl9BEzfaUMLhFvsSAs2Vh0AYgPOZbfBx+Kw3er9ZRDS3xYWtQXqIXjyRwIESUqNLhhkdEu/Td15tP0nz
6y2ShFSGQqr4231s/TvfXvDBKK7iUb5wYoWJUfLPM1iZqCbNCnQN76pVBI+RR8JqXWbTzlYhkV2vcL0I1f9llh1QwIhwRMbRJXov
/pE1c9RjRiW2b3h9HFxpfiUzABaTJREkNrLM9O7AMA1GZFZu/lQjrYWa95Z3gXe5BkStk4KRMq5O0/TUXbHEoQsEy+nus8Cswqo6
/3SrpM+fJ+s0TXC5P1cI3kBrvlEKMCfKu37JAPD7x/spbEFXLYRDQYivH0TXDXa3d71UJZGWAckvzSO3buWWJp1xraNk+L0OlHIc
lY1nxnh9gVRbMXf9tcAITrNyi8Y6AYmSr6oTAMwWXTytlpeLczk/RLYep2OkJP1/bgNcHBpt8SAn8QL4+5lhj2qyycUQiXiB/VKu
ezdqKHQDyv5hk6TM80NprsZo5sOny7TNW33kpJfVUIhX8FYvZcfnc9h+RILBNH8yl/bXX5t8Akqngktdd5QArGRYMPyrb7x9prmQ
Bci/Ad/b3XNkcC3QLBQ8ZHmUz5eEfbAaEQE+aqgRtJZNlCKVi0DeW2zDk9qzr15zMEtEcNIMvhRTSv4RLw6hRPGAm1iUylhqOj8a
N/J8cOAIfZePgdp9lnnlN79lR7llsl8O3kIK9QOBb30Pz6v65o8FYifDv7/Fv+yEt0HasPGt64YmnrVsUWeJGfh2WyfyNJLdhzvR
K2d6FMubKx6Tn1gLucXVeuPXUCZ1dtQqmvSLeScWGZssiadBbFkTRQyc/AuOYol0PGlmcs1hYN4QGN+bWTe0lhqLDirBFZMzSWi9
s6KPgA9Q/ybRgDbiwZ80dB6SuIh9c4un2YYTnaXuk2v6xLObEVWl4fiic+EV1XJFDcg/i1/Rv89+iSAz9lvtG/btLhaK3FeOb0un
3ToXGGGcf2oPIv5Jv1iW24uhrH/JHAFUFylmEvCfT94NjqGCLhj9/SyBt+FaOhbEH/LPm88jPOQrmRH8Kq4sZdwDZvEPiwDLdY3B
8Z87YF01FmrqdsclVl3GaFesCcCh9GIIGHkpaylgevxI8aTYgt+6JNuE5CesvcHPcV5MTZtM5Y7y/KPAQ85PSrtjeGUVTlWxFxa+
XX7LZ0Mih8md668rHcDWTT6u6GQqWn9XSm9IXopXlCJxUwmTClDokppEzofsD8vRNKC6KSqDin7Ugt+MbmGujYt3jZu9f6gTEvui
t0n/aGvMiF09M6lVXq4D1+LMejhNUISNzZgJZlMjy5RYoxMRAsgxZ3c659vgwi0Y00GgNqDLyZKPXeX7Gzbiur25X2vkCCPJAGQk
NWc6Lzy8s8Eim+s2NN2hgrjsr+m5890Vxw4sanJlgg6rEYIeGoPxGbzMwBgNbBhAIqS86niLHVoyYAvLdojfz/F5O2gFNhyvd94A
QYyscqJcUt8SIfgq2hc+fy+SLIUCfGf62r8sBN80tb2l1VeKb1K2xp4NywnNRZ4UmzLMRFHGt5uo8RLdDF8JloIX6bO83aPq3VJ7
TD2xADGyz+Wl/RgNOvKz82ey5TRJtj+3xzEfEgjcip3QLP6FGytiXRhOCWgEGte2NA2Dywuyfa+JJBUG5dPBfDo4tPl6KluTNDg4
dLBpCwskNU16fWy9cKsZzWUEvVHuKoNW/SEr1tRB5mKJ0h0SWDJB/cN3gtVX+5fOgrve1dqOoClO0PLFleW6RozaeMXNHeJgH1P+
eiuJZI4B2rvo6En96lCTF7DLc7i4JpJFdTWbkuq81eM0GoVMXYg8XOix++61vgecqvqP+xqntgZGnF9EvHwx87LZliILv4aaq2YT
QPuILcBeg42bIMJG8sWFpdz6v6emfejobIUy330pkM3w8dTcV/l4psGg/LwZji6pTnstdOp4YoKlhWDMocLZqfiqOBwBbDBM4J+R
Jba0hIeHBTKIkJYEKhP4VDS10BlzUdmTXskRUP5jWj1RVz5Z0z8Bha6a/5tNSZross34H4Qbs1doAupKMUlPKCyV2FCNBJvsuUg/
bTaVivrDXj9QAg29v5e6wLd3KyN/4vqlezMNQDYtG36FfVLHkAAAbo4ubp7U5YQAAaxIgIAFAD5PE7SxxGf7AgAAAAAEWVo=
"""


@pytest.fixture(scope="session")
def old_files(tmp_path_factory):
    """A folder with files of old versions of joblib."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(OLD_FILES)), mode="r:xz") as archive:
        archive.extractall(folder, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    return folder


def overwrite(path, data):
    """Write a file of the same length in place: some disks are slow to make one anew."""
    with open(path, "r+b") as file:
        file.write(data)


def bit_flipped(data, rng):
    """A copy with one bit changed, anywhere."""
    place = rng.randrange(len(data) * 8)
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


class Code(bytes):
    """Opcodes of a pickle that push one value."""


def code(value):
    """The opcodes for a value, as a dump has them; containers may hold opcodes, too."""
    if isinstance(value, Code):
        return value
    if isinstance(value, dict):
        return Code(b"}(" + b"".join(map(code, itertools.chain(*value.items()))) + b"u")
    if isinstance(value, tuple):
        return Code(b"(" + b"".join(map(code, value)) + b"t")
    if isinstance(value, list):
        return Code(b"](" + b"".join(map(code, value)) + b"e")
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 5)
    pickler.fast = True  # it remembers nothing
    pickler.dump(value)
    opcodes = file.getvalue()[2:-1]
    return Code(opcodes[9:] if opcodes.startswith(pickle.FRAME) else opcodes)


def named(name):
    """The opcodes for what a module holds."""
    return Code(b"".join(map(code, name.rsplit(".", 1))) + pickle.STACK_GLOBAL)


def calling(name, *args):
    """The opcodes for what a function gives."""
    return Code(named(name) + code(args) + pickle.REDUCE)


def stated(target, state):
    """The opcodes for an object that is given a state."""
    return Code(target + code(state) + pickle.BUILD)


def array_code(buffer=bytes(8), dtype="<f8", shape=(1,), order="C"):
    """The opcodes for an array."""
    if not isinstance(dtype, Code):
        dtype = calling("numpy.dtype", dtype)
    return calling("numpy.core.numeric._frombuffer", buffer, dtype, shape, order)


def objects_code(values, shape=(1,), dtype="|O"):
    """The opcodes for an array of objects."""
    return array_code(values, dtype, shape)


def then(*parts):
    """The opcodes for the last of some values; the first is again where AGAIN stands."""
    return Code(parts[0] + pickle.MEMOIZE + b"0" + b"0".join(parts[1:]))


def hostile(opcodes, buffers=()):
    """A dump with right checksums, whatever its pickle says."""
    return b"".join(joblite._stream(b"\x80\x05" + opcodes + b".", list(buffers), 0))


AGAIN = Code(b"h\0")
F8 = calling("numpy.dtype", "<f8")
TRICKS = {  # what a hostile pickle does: its opcodes, what the error says
    **{
        f"bytes for objects: {dtype}": (
            array_code(dtype=dtype),
            "strange dtype|do not fit|value: it is neither",
        )
        for dtype in (
            *"O |O |O8 object i4,O (1,)O p M8[s],O T".split(),
            [("a", "|O", ())],
            [("a", [("b", "<i4", ()), ("c", "O", (1,))], ())],
            [("a", "<i4,O", ())],
            "<f8\n",
            "",
            [],
            {},
            None,
            ("<f8", (1,)),
        )
    },
    **{
        f"a shape that is none: {shape}": (
            array_code(shape=shape),
            "do not fit|value: it is neither",
        )
        for shape in ((-1,), (-1, -1), "8", 8, (True,), (1.0,), None, (1,) * 65, (-(2**63), -1))
    },
    **{
        f"a shape that does not fit: {shape}": (array_code(shape=shape), "do not fit")
        for shape in ((2,), (0,), (2**62, 4), (2**64, 2**64), (1, 0), (2**61,))
    },
    **{
        f"an order that is none: {order!r}": (array_code(order=order), "value: it is neither")
        for order in ("K", 1)
    },
    "items that do not fit": (array_code(bytes(7), shape=(0,)), "do not fit"),
    "items of no size": (array_code(b"", dtype="V0"), "value: it is neither"),
    "fields of no size": (array_code(b"", dtype=[("a", "<f8", (0,))]), "value: it is neither"),
    "an array in the memory of another": (array_code(array_code()), "do not fit"),
    "an array in a text": (array_code("x" * 8), "do not fit"),
    "an array in nothing": (array_code(None), "do not fit"),
    **{
        f"dtypes {depth} deep": (
            calling(
                "numpy.dtype",
                functools.reduce(
                    lambda inner, _: Code(b"](" + code(("a", inner, ())) + b"e"),
                    range(depth),
                    code("<f8"),
                ),
            ),
            "strange dtype",
        )
        for depth in (16, 3000)
    },
    **{
        f"a dtype in the place of a shape: {shape}": (
            calling("numpy.dtype", [("a", "V", shape)]),
            "strange dtype|value: it is neither",
        )
        for shape in ([("x", "<f8")], {"names": ["x"], "formats": ["O"]}, "O", "<f8", 8)
    },
    "a dtype made before inside another": (
        calling("numpy.dtype", [("a", F8, ())]),
        "strange dtype",
    ),
    "a text for the dtype of an array": (
        calling("numpy.core.numeric._frombuffer", bytes(8), "<f8", (1,), "C"),
        "do not fit",
    ),
    "a dtype inside itself": (
        calling(
            "numpy.dtype",
            then(
                Code(b"]"), Code(AGAIN + code([("a", AGAIN, ()), ("b", AGAIN, ())] * 30)[1:]), AGAIN
            ),
        ),
        "strange dtype",
    ),
    "a field that is none": (array_code(dtype=[("a", "<f8")]), "value: "),
    "a field without a name": (array_code(dtype=[(1, "<f8", ())]), "value: "),
    "a dtype by more than its text": (calling("numpy.dtype", "f8", False, True), "dtype with gaps"),
    "a state for a dtype": (stated(F8, (3, "|", None, None, None, -1, -1, 63)), "neither"),
    "a state for an array": (stated(array_code(), (1, (1,), F8, False, bytes(8))), "neither"),
    "a state for a class": (stated(named("decimal.Decimal"), {"int": 5}), "neither"),
    "a state for a list": (stated(code([1]), {"a": 5}), "neither"),
    "too few objects": (objects_code([7], (5,)), "do not fit"),
    "too many objects": (objects_code([7], (0,)), "do not fit"),
    "negative sizes of objects": (objects_code([7], (-1, -1)), "do not fit"),
    "bytes for a list of objects": (objects_code(bytes(8)), "do not fit"),
    "numbers in an array of objects": (objects_code([7], (1,), F8), "do not fit"),
    "memory that was never filled": (calling("numpy.empty", (8,), "<f8"), "numpy.empty"),
    **{
        f"fields of more bytes than numpy counts: {last}": (
            array_code(
                dtype=[*((name, "V999999999", ()) for name in "abcd"), ("e", last, ())], shape=()
            ),
            "too many bytes|value: it is neither",
        )
        for last in ("V294967304", "V999999999", "V1")
    },
    "bytes for objects in a scalar": (
        calling("numpy.core.multiarray.scalar", calling("numpy.dtype", "|O"), bytes(8)),
        "do not fit",
    ),
    "no bytes for a scalar": (
        calling("numpy.core.multiarray.scalar", calling("numpy.dtype", "V9999"), None),
        "do not fit",
    ),
    "a number of bytes for a scalar": (
        calling("numpy.core.multiarray.scalar", calling("numpy.dtype", "V9999"), 1 << 27),
        "do not fit",
    ),
    "too few bytes for a scalar": (
        calling("numpy.core.multiarray.scalar", calling("numpy.dtype", "V9999"), b"x"),
        "do not fit",
    ),
    "something else for a dtype": (
        calling("numpy.core.multiarray.scalar", calling("collections.Counter", {}), b"x"),
        "do not fit",
    ),
    "a masked array of a list": (calling("numpy.ma.MaskedArray", [1], True), "strange or huge"),
    "a masked array with a class": (
        calling("numpy.ma.MaskedArray", array_code(), True, named("builtins.int")),
        "strange or huge",
    ),
    "a dtype that is called twice": (Code(F8 + code(()) + b"R"), "calls something that may not"),
    "a list that is called": (Code(code([1]) + code(()) + b"R"), "calls something that may not"),
    "an array with too long a buffer": (array_code(Code(pickle.NEXT_BUFFER)), "value: "),
    **{
        f"memory that nobody filled: {name}": (calling(name, *args), "strange or huge")
        for name, args in (
            ("builtins.bytes", (2**40,)),
            ("builtins.bytearray", (2**40,)),
            ("builtins.int", ("9" * 4000,)),
            ("builtins.list", (range(2**40),)),
            ("builtins.set", ([1],)),
            ("builtins.str", (b"x", "rot13")),
        )
    },
    **{
        f"{name} of what is not plain": (calling(name, *args), "strange or huge")
        for name, args in (
            ("collections.deque", (calling("builtins.range", 0, 2**40, 1),)),
            ("collections.Counter", (calling("builtins.range", 0, 2**40, 1),)),
            ("decimal.Decimal", (array_code(),)),
        )
    },
    "a fraction of a text": (calling("fractions.Fraction", "1e999999999"), "makes a Fraction"),
    "a huge fraction": (calling("fractions.Fraction", 1 << 2**20, 3), "makes a Fraction"),
    "a fraction made without a call": (
        Code(named("fractions.Fraction") + code(("1e999999999",)) + pickle.NEWOBJ),
        "neither",
    ),
    "a call with names": (
        Code(named("decimal.Decimal") + code(()) + code({"value": "1"}) + pickle.NEWOBJ_EX),
        "neither",
    ),
    "a huge text for an integer": (Code(b"I" + b"9" * 10_000 + b"\n"), "neither"),
    "an opcode of old pickles": (Code(b"cbuiltins\nint\n"), "neither"),
    "an opcode that calls": (Code(b"(S'touch EVIL'\nios\nsystem\n"), "neither"),
    "an extension code": (Code(b"\x82\x01"), "neither"),
    "a persistent id": (Code(code("x") + pickle.BINPERSID), "neither"),
    "a class inside a class": (named("decimal.Decimal.from_float"), "from_float"),
    "a module inside a module": (
        Code(code("datetime") + code("sys.modules") + pickle.STACK_GLOBAL),
        "sys.modules",
    ),
    "a method of what is listed": (
        Code(code("builtins") + code("str.format") + pickle.STACK_GLOBAL),
        "str.format",
    ),
    "an error while it is made": (calling("datetime.date", b"xx"), "value: it is neither"),
    "a map of a file": (calling("numpy.memmap", "secret"), "numpy.memmap"),
    "a file beside": (Code(named("joblib.numpy_pickle_compat.NDArrayWrapper")), "NDArrayWrapper"),
    "a function of numpy that opens files": (calling("numpy.load", "secret.npy"), "numpy.load"),
}


class TestSection3Files:
    @pytest.mark.parametrize("compress", [0, True])
    @pytest.mark.parametrize("name", VALUES)
    def test_every_value_comes_back(self, name, compress, tmp_path):
        """Equal in type, dtype, layout and content; in the byte order of this machine; and able to
        be changed."""
        value = VALUES[name]
        found = round_trip(value, tmp_path, compress=compress)
        if name == "foreign buffers":
            assert found == value
        elif name == "big-endian":
            assert found.dtype.isnative and (found == value).all()
        else:
            assert same(found, value)
        if type(found) is np.ndarray:
            assert found.flags.writeable

    @pytest.mark.parametrize("number", range(len(different_dtypes())))
    def test_arrays_of_every_dtype_come_back(self, number, tmp_path):
        """Those of other packages, records, with titles, offsets, metadata; and the dtypes too."""
        dtype = different_dtypes()[number]
        arrays = [np.zeros(3, dtype), np.zeros((0, 2), dtype), dtype]
        joblite.dump(arrays, tmp_path / "value")
        assert same(joblite.load(tmp_path / "value", ensure_native_byte_order=False), arrays)

    @pytest.mark.parametrize("protocol", [0, 2, 4, 5, -1])
    def test_every_protocol(self, protocol, tmp_path):
        """Each is taken as 5, so that arrays can be mapped."""
        assert same(round_trip(SAMPLE, tmp_path, protocol=protocol), SAMPLE)
        joblite.dump([ARRAY], tmp_path / "value", protocol=protocol)
        assert type(joblite.load(tmp_path / "value", mmap_mode="r")[0]) is np.memmap

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros(3),
            np.zeros(0),
            np.zeros((2, 0, 3), ">i2", "F"),
            np.zeros(0, "i1,f8"),
            np.array([None, 1]),
            np.zeros(0, object),
            np.array(5),
            np.zeros(0, "M8[s]"),
        ],
        ids=repr,
    )
    def test_a_read_only_array_comes_back_writable(self, array, tmp_path):
        """One without elements, too (pandas has such)."""
        array.flags.writeable = False
        for compress in (0, "gzip"):
            found = round_trip(array, tmp_path, compress=compress)
            assert (
                found.flags.writeable
                and found.shape == array.shape
                and found.tolist() == array.tolist()
            )

    @pytest.mark.parametrize(
        "dtype",
        [
            *"f8 >i4 ? S0 U3 V5 M8[ns] m8[25us] M8 O i1,O i1,f8 (2,3)f4".split(),
            *LONG_DOUBLES,
            np.dtype("i1,f8", align=True),
            np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [4, 16]}),
            np.dtype({"names": ["a"], "formats": ["i1"], "itemsize": 9}),
            np.dtype([(("title", "a"), "f8")]),
            np.dtype([("a", [("b", ">f4", (2, 3)), ("c", "U2")], 2), ("é \n", "M8[D]")]),
            np.dtype("f8", metadata={"a": 1}),
            np.dtype([("a", np.dtype("i1", metadata={"b": 2}))]),
            np.dtype([("a", np.dtype("i1,f8", align=True))]),
            np.dtype({"names": ["a", "b"], "formats": ["f8", "i4"], "offsets": [0, 4]}),
        ],
        ids=repr,
    )
    def test_every_dtype_comes_back(self, dtype, tmp_path):
        """Alone, and as that of arrays and of scalars: gaps, overlaps, alignment, titles, metadata
        of the parts."""

        def told(dtype):
            parts = [] if dtype.names is None else [told(dtype[name]) for name in dtype.names]
            return (
                dtype,
                dtype.isalignedstruct,
                dict(dtype.metadata or {}),
                dtype.str,
                dtype.fields,
                parts,
            )

        dtype = np.dtype(dtype)
        arrays = [np.zeros(3, dtype), np.zeros(0, dtype), np.zeros((), dtype)]
        joblite.dump([dtype, *arrays, *arrays[0][:1]], tmp_path / "value")
        found = joblite.load(tmp_path / "value", ensure_native_byte_order=False)
        assert told(found[0]) == told(dtype)
        for each, array in zip(found[1:4], arrays):
            assert told(each.dtype) == told(array.dtype) and each.shape == array.shape
            assert dtype.hasobject or each.tobytes() == array.tobytes()
        assert type(found[4]) is type(arrays[0][0])

    @needs("ml_dtypes")
    def test_dtypes_of_packages_come_back(self, tmp_path):
        import ml_dtypes

        for name in ("bfloat16", "int4", "float8_e4m3fn"):
            array = np.array([1, 2, 3], getattr(ml_dtypes, name))
            for compress in (0, 1):
                found = round_trip([array, array.dtype], tmp_path, compress=compress)
                assert (
                    found[0].dtype == found[1] == array.dtype
                    and found[0].tolist() == array.tolist()
                )
            with pytest.raises(joblite.UntrustedObjectError):
                joblite.load(tmp_path / "value", trusted=False)

    def test_what_is_shared_stays_shared(self, tmp_path):
        """One object in two places, or in a cycle, is one object again."""
        shared = Plain(array=ARRAY.copy())
        value = [shared, shared, shared.array]
        value.append(value)
        found = round_trip(value, tmp_path)
        assert found[0] is found[1] and found[0].array is found[2] and found[3] is found

    def test_arrays_over_several_pieces_come_back(self, tmp_path):
        """Big arrays of every layout, on threads."""
        array = np.arange(3_000_001.0)
        records = np.zeros(700_001, "i1,f8,u2")
        records["f1"] = np.arange(700_001)
        value = [array, array[::3], array[:3_000_000].reshape(3, -1).T[::7], records, records[::2]]
        assert same(round_trip(value, tmp_path), value)

    @pytest.mark.parametrize(
        "make",
        [lambda path: path, lambda path: Path(path), lambda path: os.fsencode(path)],
        ids=["str", "Path", "bytes"],
    )
    def test_every_kind_of_path(self, make, tmp_path):
        name = "näme \n.x" if os.name == "posix" else "näme x"
        path = make(str(tmp_path / name))
        assert joblite.dump(SAMPLE, path) == [os.fsdecode(path)]
        assert same(joblite.load(path), SAMPLE)

    @pytest.mark.parametrize("compress", [0, "gzip", "bz2", METHODS[-1]])
    def test_every_kind_of_file_object(self, compress, tmp_path):
        """In memory, on disk with and without buffer, one that only writes and reads in small
        bits."""
        memory = io.BytesIO()
        assert joblite.dump(SAMPLE, memory, compress=compress) is None
        assert same(joblite.load(memory), SAMPLE)  # it stands at its end: rewound
        for buffering in (0, -1):
            with open(tmp_path / "file", "wb", buffering) as file:
                joblite.dump(SAMPLE, file, compress=compress)
            with open(tmp_path / "file", "rb", buffering) as file:
                assert same(joblite.load(file), SAMPLE)
        writer = Writer()
        joblite.dump(SAMPLE, writer, compress=compress)
        assert same(joblite.load(Trickle(writer.data)), SAMPLE)
        with tempfile.TemporaryFile() as file:
            joblite.dump(SAMPLE, file, compress=compress)
            assert same(joblite.load(file), SAMPLE)

    @pytest.mark.parametrize("compress", [0, "gzip"])
    def test_a_file_object_may_lack_read1(self, compress):
        """The base of buffered files has one that refuses."""

        class ReadsOnly(io.BufferedIOBase):
            def read(self, size=-1):
                return content.read(size)

        content = io.BytesIO()
        joblite.dump(SAMPLE, content, compress=compress)
        content.seek(0)
        assert same(joblite.load(ReadsOnly()), SAMPLE)

    def test_a_file_object_that_gives_text_is_not_called_damaged(self):
        with pytest.raises(TypeError, match="bytes-like object is required, not 'str'"):
            joblite.load(types.SimpleNamespace(read=lambda size: "text"))

    @pytest.mark.parametrize("compress", [0, "xz"])
    def test_pipes_and_sockets(self, compress):
        """What can neither seek nor tell; several values follow each other."""
        ends = socket.socketpair()
        with ends[0], ends[1], ends[0].makefile("wb") as out, ends[1].makefile("rb") as source:
            values = [SAMPLE] if compress else [SAMPLE, 1, [ARRAY] * 2]

            def send():
                for value in values:
                    joblite.dump(value, out, compress=compress)
                out.flush()
                ends[0].shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            for value in values:
                assert same(joblite.load(source), value)
            sender.join()

    @pytest.mark.parametrize("compress", [0, *METHODS])
    def test_a_pipe_that_gives_few_bytes_at_once(self, compress):
        """What the first look at its buffer shows is less than the first bytes of a file."""

        class Drops(io.RawIOBase):
            def readable(self):
                return True

            def readinto(self, target):
                data = content.read(min(3, len(target)))
                target[: len(data)] = data
                return len(data)

        content = io.BytesIO()
        joblite.dump(SAMPLE, content, compress=compress)
        content.seek(0)
        assert same(joblite.load(io.BufferedReader(Drops())), SAMPLE)

    def test_several_values_in_one_file(self, tmp_path):
        """Each `load` takes one, wherever it starts; mapped too."""
        values = [1, SAMPLE, "two", [ARRAY, ARRAY[::2]], 3]
        with open(tmp_path / "file", "w+b") as file:
            file.write(b"five!")
            for value in values:
                joblite.dump(value, file)
            for mode in (None, "r"):
                file.seek(5)
                for value in values:
                    found = joblite.load(file, mmap_mode=mode)
                    assert joblite.hash(found, coerce_mmap=True) == joblite.hash(value)

    @pytest.mark.parametrize("method", METHODS)
    def test_compressed_values_follow_each_other(self, method, tmp_path):
        """And plain ones: each `load` takes one and leaves the file behind it."""
        values = [[1], np.random.default_rng(0).random(20_000), "plain", "x" * 1_000_000, 5]
        path = tmp_path / "file"
        for file in (io.BytesIO(), open(path, "w+b", 0), open(path, "w+b")):
            with file:
                for value in values:
                    joblite.dump(value, file, compress=method if value is not values[2] else 0)
                file.seek(0)
                assert same([joblite.load(file) for _ in values], values) and not file.read()

    @pytest.mark.parametrize("mode", [None, "r"])
    def test_a_value_that_was_moved_inside_a_file(self, mode, tmp_path):
        """Bytes of a dump copied to any place of another file are still a value, small or big."""
        for value in ([ARRAY, ARRAY[::2]], [np.arange(5_000_000.0), ARRAY]):
            memory = io.BytesIO()
            joblite.dump(value, memory)
            with open(tmp_path / str(value[0].size), "w+b") as file:
                file.write(b"thirteen more" + memory.getvalue())
                file.seek(13)
                found = joblite.load(file, mmap_mode=mode)
                assert joblite.hash(found, coerce_mmap=True) == joblite.hash(value)

    @pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
    def test_files_that_compress_themselves(self, opener, tmp_path):
        """A GzipFile and the like are written to and read from as they are, not compressed
        twice."""
        with opener(tmp_path / "file", "wb") as file:
            joblite.dump(SAMPLE, file)
        with opener(tmp_path / "file", "rb") as file:
            assert same(joblite.load(file), SAMPLE)
        assert same(joblite.load(tmp_path / "file"), SAMPLE)

    # ---- compression

    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_and_its_tool(self, method, tmp_path):
        """By name and level and by extension; the usual tool opens the file, and what it gives is a
        dump itself."""
        extension = joblite._CODECS[method].extension
        by_name, by_extension = tmp_path / "by_name", tmp_path / f"value{extension}"
        value = {"a": np.arange(160_000) % 1000, "b": SAMPLE}
        joblite.dump(value, by_name, compress=(method, 1))
        joblite.dump(value, by_extension)
        for path in (by_name, by_extension):
            data = path.read_bytes()
            assert data.startswith(joblite._CODECS[method].prefix) and len(data) < 700_000
            assert same(joblite.load(path), value)
            if shutil.which(TOOLS[method][0]):
                content = subprocess.run(
                    TOOLS[method], input=data, stdout=subprocess.PIPE, check=True
                ).stdout
                assert same(joblite.load(io.BytesIO(content)), value)

    @pytest.mark.parametrize(
        ("compress", "name", "expected"),
        [
            (0, "", None),
            (False, "", None),
            (None, "", None),
            (True, "", ("zlib", 3)),
            (7, "", ("zlib", 7)),
            ("gzip", "", ("gzip", 3)),
            (("xz", 9), "", ("xz", 9)),
            (("xz", 0), "", None),
            (0, "a.gz", ("gzip", 3)),
            (True, "a.bz2", ("bz2", 3)),
            (5, "a.xz", ("xz", 5)),
            ("lzma", "a.gz", ("lzma", 3)),
            (("zlib", 2), "a.gz", ("zlib", 2)),
            (0, "a.pkl", None),
            (0, "gz", None),
            (0, "a.z", ("zlib", 3)),
            (0, "a.zst", ("zstd", 3)),
            (0, "a.lz4", ("lz4", 3)),
        ],
    )
    def test_what_compress_means(self, compress, name, expected):
        assert joblite._parse_compress(compress, name) == expected

    @pytest.mark.parametrize(
        "compress",
        [-1, 10, 1.5, ("zlib", 10), ("zlib",), ("zlib", 3, 3), "zip", ("zip", 3), ("zlib", "3")],
    )
    def test_wrong_compress_is_refused_with_the_valid_values(self, compress, tmp_path):
        with pytest.raises(
            ValueError, match=r"compress: expected .*(0 to 9|zlib, gzip, bz2|pair).*got"
        ):
            joblite.dump(1, tmp_path / "value", compress=compress)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("filename", [{}, 3, None, io.StringIO(), [1]])
    def test_wrong_file_is_refused(self, filename):
        for call in (lambda: joblite.dump("foo", filename), lambda: joblite.load(filename)):
            with pytest.raises(
                ValueError, match="filename: expected a path or a binary file object to"
            ):
                call()

    def test_missing_codec_names_the_package(self, tmp_path):
        code = """
            import sys
            sys.modules["lz4"] = sys.modules["zstandard"] = sys.modules["lz4.frame"] = None
            import joblite
            for data in (b"\\x04\\x22\\x4d\\x18" + bytes(9), b"\\x28\\xb5\\x2f\\xfd" + bytes(9)):
                open("f", "wb").write(data)
                for call in (lambda: joblite.load("f"), lambda: joblite.dump(1, "g.lz4")):
                    try: call()
                    except ImportError as error: print(error)
                    except ValueError:  # Python 3.14 has zstd, and the file is damaged
                        assert sys.version_info >= (3, 14) and data[0] == 0x28
            """
        lines = run_script(code, cwd=tmp_path).stdout.splitlines()
        assert any("lz4" in line for line in lines)
        assert len(set(lines)) == 2 - (sys.version_info >= (3, 14)), (
            "reading and writing say the same"
        )
        assert sys.version_info >= (3, 14) or any("zstandard" in line for line in lines)
        assert not (tmp_path / "g.lz4").exists()

    def test_register_compressor(self, tmp_path):
        class Wrapper:
            prefix, extension = b"\x1f\x8b\x08", ".mine"

            def compressor_file(self, file, compresslevel=None):
                return gzip.GzipFile(fileobj=file, mode="wb", compresslevel=compresslevel)

            def decompressor_file(self, file):
                return gzip.GzipFile(fileobj=file, mode="rb")

        try:
            joblite.register_compressor("mine", Wrapper())
            kinds = (
                ({"compress": "mine"}, "value"),
                ({"compress": ("mine", 9)}, "value"),
                ({}, "value.mine"),
            )
            for options, name in kinds:
                joblite.dump(SAMPLE, tmp_path / name, **options)
                assert gzip.decompress((tmp_path / name).read_bytes()).startswith(b"\x89PYO")
                assert same(joblite.load(tmp_path / name), SAMPLE)
            with pytest.raises(ValueError, match="not taken, unless force=True, got 'mine'"):
                joblite.register_compressor("mine", Wrapper())
            joblite.register_compressor("mine", Wrapper(), force=True)
        finally:
            joblite._CODECS.pop("mine", None)
        with pytest.raises(ValueError, match="expected a text that is not taken, .* got 3"):
            joblite.register_compressor(3, Wrapper())
        for name, value in (("prefix", "text"), ("extension", None), ("compressor_file", None)):
            for odd in (object(), type("Odd", (Wrapper,), {name: value})()):
                with pytest.raises(
                    ValueError, match="compressor: expected an object with .* got <"
                ):
                    joblite.register_compressor("other", odd)
        assert "other" not in joblite._CODECS

    # ---- mapping and byte order

    @pytest.mark.parametrize("mode", ["r", "r+", "w+", "c"])
    def test_arrays_are_mapped_where_they_lie(self, mode, tmp_path):
        """In attributes, lists and dicts; each a numpy.memmap with its true offset, aligned; shared
        ones shared."""
        path = tmp_path / "value"
        value = Plain(
            a=ARRAY,
            b=[np.arange(5, dtype="i1"), {"c": np.asfortranarray(ARRAY)}, np.arange(3), ARRAY[::2]],
        )
        joblite.dump(value, path)
        found = joblite.load(path, mmap_mode=mode)
        pairs = [(found.a, value.a), (found.b[1]["c"], value.b[1]["c"])]
        pairs += [(found.b[0], value.b[0]), (found.b[3], value.b[3])]
        for array, source in pairs:
            assert type(array) is np.memmap and array.mode == ("r+" if mode == "w+" else mode)
            assert (
                array.offset % 64 == 0
                and array.ctypes.data % 16 == 0
                and array.filename == str(path)
            )
            assert array.flags.writeable == (mode != "r") and same(
                np.array(array, order="A"), np.array(source, order="A")
            )
            raw = path.read_bytes()[array.offset : array.offset + array.nbytes]
            assert raw == source.tobytes("A")

    @pytest.mark.parametrize(("mode", "kept"), [("r+", True), ("w+", True), ("c", False)])
    def test_what_is_written_to_a_map(self, mode, kept, tmp_path):
        """With r+ and w+ it is in the file, which still loads; with c it is not."""
        path = tmp_path / "value"
        joblite.dump([1, ARRAY.copy()], path)
        for _ in range(2):
            array = joblite.load(path, mmap_mode=mode)[1]
            array[0, 0] = 77
            del array
        assert (joblite.load(path)[1][0, 0] == 77) == kept

    def test_maps_of_empty_and_odd_arrays(self, tmp_path):
        value = [
            np.zeros((0, 3)),
            np.array(1.5),
            np.array([{}], object),
            np.array(["2020"], "M8[D]"),
            1,
        ]
        joblite.dump(value, tmp_path / "value")
        found = joblite.load(tmp_path / "value", mmap_mode="r")
        assert same([np.array(each) for each in found[:4]], value[:4]) and found[1].offset % 64 == 0
        joblite.dump([np.zeros((0, 3)), np.zeros(0, "U2")], tmp_path / "empty")
        for mode in ("r", "r+", "w+", "c"):
            found = joblite.load(tmp_path / "empty", mmap_mode=mode)
            assert [array.shape for array in found] == [(0, 3), (0,)]

    @posix
    def test_replacing_a_file_leaves_its_maps_alone(self, tmp_path):
        joblite.dump(ARRAY, tmp_path / "value")
        array = joblite.load(tmp_path / "value", mmap_mode="r")
        joblite.dump(ARRAY + 1, tmp_path / "value")
        assert (array == ARRAY).all() and (joblite.load(tmp_path / "value") == ARRAY + 1).all()

    @windows
    def test_a_file_in_use_cannot_be_replaced_and_that_says_what_to_do(self, tmp_path):
        """Read by somebody, or mapped: it stays as it was, with nothing beside it."""
        path = tmp_path / "value"
        joblite.dump(ARRAY, path)
        with open(path, "rb"), pytest.raises(PermissionError, match="close it, `del` the arrays"):
            joblite.dump(ARRAY + 1, path)
        mapped = joblite.load(path, mmap_mode="r")
        with pytest.raises(PermissionError, match="close it, `del` the arrays"):
            joblite.dump(ARRAY + 1, path)
        assert (mapped == ARRAY).all() and os.listdir(tmp_path) == ["value"]
        del mapped
        joblite.dump(ARRAY + 1, path)
        assert (joblite.load(path) == ARRAY + 1).all()

    def test_maps_of_open_files(self, tmp_path):
        joblite.dump(ARRAY, tmp_path / "value")
        for buffering in (0, -1):
            with open(tmp_path / "value", "rb", buffering) as file:
                assert type(joblite.load(file, mmap_mode="c")) is np.memmap

    @pytest.mark.parametrize("mode", ["r+", "w+"])
    def test_a_map_for_writing_of_a_file_open_for_reading_is_refused(self, mode, tmp_path):
        """One that is open for both is mapped."""
        joblite.dump(ARRAY, tmp_path / "value")
        for buffering in (0, -1):
            with open(tmp_path / "value", "rb", buffering) as file:
                with pytest.raises(PermissionError):
                    joblite.load(file, mmap_mode=mode)
            with open(tmp_path / "value", "r+b", buffering) as file:
                assert joblite.load(file, mmap_mode=mode).mode == "r+"

    def test_a_file_that_cannot_be_mapped_is_read_with_one_warning(self, tmp_path):
        packed = tmp_path / "packed.gz"
        joblite.dump(SAMPLE, packed)
        memory = io.BytesIO()
        joblite.dump(SAMPLE, memory)
        for source, name in (
            (packed, "packed.gz"),
            (memory, "BytesIO"),
            (gzip.open(packed), "packed.gz"),
        ):
            with pytest.warns(
                UserWarning, match=f"mmap_mode='r' is ignored for .*{name}"
            ) as caught:
                found = joblite.load(source, mmap_mode="r")
            assert same(found, SAMPLE) and len(caught) == 1 and caught[0].filename == __file__
            if hasattr(source, "close"):
                source.close()

    def test_byte_order(self, tmp_path):
        """This machine's by default, the file's if asked for or mapped; both wishes at once are
        refused at once."""
        value = [ARRAY.astype(">f8"), np.array([(1, 2)], ">i2,<f8")]
        joblite.dump(value, tmp_path / "value")
        assert [array.dtype.isnative for array in joblite.load(tmp_path / "value")] == [True, True]
        assert joblite.load(tmp_path / "value", ensure_native_byte_order=False)[0].dtype == ">f8"
        assert joblite.load(tmp_path / "value", mmap_mode="r")[0].dtype == ">f8"
        for array, source in zip(joblite.load(tmp_path / "value"), value):
            assert array.tolist() == source.tolist()
        with pytest.raises(ValueError, match="ensure_native_byte_order"):
            joblite.load(tmp_path / "missing", mmap_mode="r", ensure_native_byte_order=True)
        with pytest.raises(ValueError, match="mmap_mode: expected None, 'r'"):
            joblite.load(tmp_path / "missing", mmap_mode="rw")

    def test_a_dumped_map_loads_as_an_array(self, tmp_path):
        mapped = np.memmap(tmp_path / "map", "f8", "w+", shape=(3,))
        assert type(round_trip([mapped, mapped], tmp_path)[0]) is np.ndarray

    # ---- writing safely

    @posix
    def test_mode_and_umask(self, tmp_path):
        """A new file has what the umask allows, a replaced one keeps its mode."""
        before = os.umask(0o027)
        try:
            joblite.dump(1, tmp_path / "new")
            os.chmod(tmp_path / "new", 0o604)
            assert stat.S_IMODE(os.stat(joblite.dump(2, tmp_path / "newer")[0]).st_mode) == 0o640
            assert stat.S_IMODE(os.stat(joblite.dump(2, tmp_path / "new")[0]).st_mode) == 0o604
        finally:
            os.umask(before)

    @posix
    def test_links_are_followed(self, tmp_path):
        (tmp_path / "folder").mkdir()
        joblite.dump(1, tmp_path / "folder" / "target")
        (tmp_path / "link").symlink_to(Path("folder") / "target")
        (tmp_path / "second").symlink_to("link")
        (tmp_path / "dangling").symlink_to("later")
        joblite.dump(2, tmp_path / "second")
        joblite.dump(3, tmp_path / "dangling")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "second").is_symlink()
        assert (
            joblite.load(tmp_path / "folder" / "target") == 2
            and joblite.load(tmp_path / "later") == 3
        )

    @posix
    def test_devices_and_pipes_are_written_to_not_replaced(self, tmp_path):
        joblite.dump([1] * 100, "/dev/null")
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
        os.mkfifo(tmp_path / "pipe")
        found = []
        reader = threading.Thread(target=lambda: found.append(joblite.load(tmp_path / "pipe")))
        reader.start()
        joblite.dump(SAMPLE, tmp_path / "pipe")
        reader.join(DEADLINE)
        assert same(found, [SAMPLE]) and stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
        code = "import joblite; joblite.dump([1, 2], '/dev/stdout')"  # a link to a pipe
        folder = os.path.dirname(joblite.__file__)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, check=True
        )
        assert joblite.load(io.BytesIO(done.stdout)) == [1, 2]

    @posix
    def test_a_folder_that_takes_no_new_files(self, tmp_path):
        """A file that may be written in a folder that may not is written in place; else an error
        names it."""
        folder = tmp_path / "folder"
        folder.mkdir()
        joblite.dump(1, folder / "value")
        os.chmod(folder / "value", 0o666)
        os.chmod(folder, 0o555)
        for each in (tmp_path, *list(tmp_path.parents)[:3]):
            os.chmod(each, os.stat(each).st_mode | 0o055) if each != Path("/tmp") else None
        code = """
            import os, sys, joblite
            joblite.dump(0, os.devnull)  # loads modules that another user may not read
            joblite.load(sys.argv[1])
            if os.geteuid() == 0:
                os.setgroups([]); os.setgid(65534); os.setuid(65534)
            path = sys.argv[1]
            joblite.dump("in place", path)
            print(joblite.load(path), os.listdir(os.path.dirname(path)))
            try: joblite.dump(1, path + "2")
            except OSError as error: print(type(error).__name__, error.filename)
            """
        try:
            done = run_script(code, folder / "value", cwd="/")
        finally:
            os.chmod(folder, 0o755)
        assert done.stdout.splitlines()[0] == "in place ['value']"
        assert (
            done.stdout.splitlines()[1].startswith("PermissionError")
            and str(folder) in done.stdout.splitlines()[1]
        )

    @pytest.mark.parametrize("compress", [0, "gzip"])
    def test_failed_dump_keeps_the_old_file(self, compress, tmp_path):
        """An object that cannot be pickled, however late: the old file stays, nothing is left
        beside it."""
        joblite.dump("old", tmp_path / "value")
        with pytest.raises(ZeroDivisionError, match="this object fails"):
            joblite.dump([np.zeros(100_000), Picky()], tmp_path / "value", compress=compress)
        assert joblite.load(tmp_path / "value") == "old" and os.listdir(tmp_path) == ["value"]
        with pytest.raises((IsADirectoryError, PermissionError)):
            joblite.dump(1, tmp_path)
        with pytest.raises(FileNotFoundError) as caught:
            joblite.dump(1, tmp_path / "missing" / "value")
        assert caught.value.filename == str(tmp_path / "missing" / "value")

    @pytest.mark.parametrize("compress", [0, "zlib"])
    def test_a_kept_error_of_a_failed_dump_keeps_no_thread(self, compress):
        class Full:
            def write(self, chunk):
                if len(chunk) > 1 << 16:  # the threads have begun
                    raise OSError("no room")

        before, errors = _thread._count(), []
        try:
            joblite.dump(np.random.default_rng(0).random(4_000_000), Full(), compress=compress)
        except OSError as error:
            errors.append(error)
        assert len(errors) == 1
        end = time.monotonic() + DEADLINE
        while _thread._count() > before and time.monotonic() < end:  # they end by themselves
            time.sleep(0.01)
        assert _thread._count() <= before

    @posix
    @pytest.mark.parametrize("compress", [0, "zlib"])
    def test_full_disk(self, compress, tmp_path):
        """The error of the system, the old file whole, no partial file, no thread left."""
        small = tmp_path / "small"
        small.mkdir()
        if (
            os.geteuid()
            or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True
            ).returncode
        ):
            pytest.skip("cannot mount a small file system here")
        try:
            joblite.dump("old", small / "value")
            with pytest.raises(OSError, match="No space left"):
                joblite.dump(
                    np.random.default_rng(0).random(4_000_000), small / "value", compress=compress
                )
            assert joblite.load(small / "value") == "old" and os.listdir(small) == ["value"]
        finally:
            subprocess.run(["umount", small], check=True)

    @posix
    @pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM"])
    def test_interrupted_dump_keeps_the_old_file(self, ending, tmp_path):
        """A signal while a big array is written: the old file is whole, and there is no partial
        one."""
        code = """
            import os, signal, sys, threading
            import numpy as np, joblite
            def stop(*_): raise SystemExit(3)
            signal.signal(signal.SIGTERM, stop)
            class Late:
                def __reduce__(self):
                    for name in os.listdir("."):
                        if name != "value":
                            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
                    return int, ()
            class Buffers:  # taken apart while the file beside is open
                def __reduce_ex__(self, protocol):
                    return list, ([np.zeros(1_000_000), Late()],)
            joblite.dump(Buffers(), "value")
            """
        joblite.dump("old", tmp_path / "value")
        done = run_script(code, ending, cwd=tmp_path, check=False)
        assert done.returncode and (ending != "SIGTERM" or done.returncode == 3)
        assert joblite.load(tmp_path / "value") == "old" and os.listdir(tmp_path) == ["value"]

    @posix
    def test_reader_and_writer_at_once(self, tmp_path):
        """A file that is replaced again and again is always one whole value."""
        path = tmp_path / "value"
        joblite.dump(np.zeros(50_000), path)
        stop = threading.Event()

        def write():
            number = 0
            while not stop.is_set():
                number += 1
                joblite.dump(np.full(50_000 + number % 3, number), path)

        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        try:
            for _ in range(200):
                assert len(set(joblite.load(path).tolist())) == 1
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert os.listdir(tmp_path) == ["value"]

    # ---- damage

    @pytest.mark.parametrize("kind", ["plain", *METHODS])
    def test_every_cut_is_found(self, kind, tmp_path):
        """A small file cut at any length is a ValueError that names it; so it is for mapping."""
        path = tmp_path / "value"
        joblite.dump(SAMPLE, path, compress=0 if kind == "plain" else kind)
        for length in reversed(range(path.stat().st_size)):
            os.truncate(path, length)
            for mode in (None, "r") if kind == "plain" else (None,):
                with pytest.raises(ValueError, match="value: "):
                    joblite.load(path, mmap_mode=mode)

    @pytest.mark.parametrize("kind", ["plain", *METHODS])
    def test_every_flipped_bit_is_found(self, kind, tmp_path):
        """200 random bits of a larger file, one at a time: the error, or a value that is right all
        the same."""
        path = tmp_path / "value"
        value = {
            "a": np.random.default_rng(1).random(5_000),
            "b": [SAMPLE, ["x" * number for number in range(200)]],
        }
        joblite.dump(value, path, compress=0 if kind == "plain" else kind)
        data, rng, name = path.read_bytes(), random.Random(7), joblite.hash(value)
        found = 0
        for _ in range(200):
            overwrite(path, bit_flipped(data, rng))
            try:
                assert joblite.hash(joblite.load(path)) == name
            except ValueError as error:
                assert str(path) in str(error)
                found += 1
        assert found >= 195

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "it begins with b''"),
            (b"hello, world", "neither a file of this dump nor a pickle"),
            (bytes(100), "neither"),
            (b"\x80", "neither"),
            (b"\x89PNG\r\n\x1a\n" + bytes(50), "neither"),
            (b"\x1f\x8bnonsense", "damaged"),
            (b"x\x9cnonsense", "damaged"),
            (b"BZh9nonsense", "damaged"),
            (b"\xfd7zXZ\0nonsense", "damaged"),
            (b"ZF0x10" + bytes(40), "neither"),
            (b"\x89PYO\r\n\x1a\n", "cut short"),
            (b"\x89PYO\r\n\x1a\n" + bytes(40), "its pickle is damaged"),
            (pickle.dumps(SAMPLE)[:-20], "neither"),
            (b"cnowhere\nname\n.", "neither|nowhere"),
        ],
    )
    def test_foreign_and_damaged_files_are_one_kind_of_error(self, content, reason, tmp_path):
        (tmp_path / "value").write_bytes(content)
        for trusted in (True, False):
            for source in (tmp_path / "value", io.BytesIO(content)):
                what = reason if trusted else f"{reason}|not a file of this dump"
                with pytest.raises(ValueError, match=what) as caught:
                    joblite.load(source, trusted=trusted)
                assert isinstance(source, io.BytesIO) or str(source) in str(caught.value)
        with pytest.raises(FileNotFoundError):
            joblite.load(tmp_path / "missing")

    def test_the_format_is_as_written_down(self, tmp_path):
        """A reader made from the description alone finds the pickle, the buffers and the
        checksums."""
        value = [np.arange(1_500_000.0), {"b": np.asfortranarray(ARRAY)}, "text", np.zeros((0, 2))]
        data = Path(joblite.dump(value, tmp_path / "value")[0]).read_bytes()
        magic, count, size = struct.unpack("<8sQQ", data[:24])
        pickled = data[24 : 24 + size]
        place = 24 + size + 8 * count + 4
        sizes = struct.unpack(f"<{count}Q", data[24 + size : place - 4])
        assert (magic, count, place % 64) == (b"\x89PYO\r\n\x1a\n", 3, 0)
        assert data[place - 4 : place] == struct.pack("<I", zlib.crc32(data[: place - 4]))
        buffers = []
        for size in sizes:
            buffers.append(data[place : place + size])
            place += -(-size // 64) * 64
        pieces = [
            buffer[at : at + 2**20] for buffer in buffers for at in range(0, len(buffer), 2**20)
        ]
        assert (
            data[place:] == b"".join(struct.pack("<I", zlib.crc32(piece)) for piece in pieces)
            and len(pieces) == 13
        )
        assert b"joblite" not in pickled and same(
            pickle.loads(pickled, buffers=map(bytearray, buffers)), value
        )

    def test_damage_of_whole_rows_and_words_is_found(self, tmp_path):
        """Zeroed and exchanged pages and words, also of an array that holds one round number
        everywhere."""
        damages = {
            "a zeroed page": lambda words: words[512:1024].fill(0),
            "four zeroed pages": lambda words: words[512:2560].fill(0),
            "every other word zeroed": lambda words: words[::2].fill(0),
            "two words exchanged": lambda words: words.put([5, 700], words[[700, 5]]),
            "two pages exchanged": lambda words: words.put(
                range(1024), [*words[512:1024], *words[:512]]
            ),
            "moved by a word": lambda words: words.put(range(1, 9000), words[:8999]),
        }
        for array in (np.full(10_000, 2.0), np.arange(10_000.0)):
            whole = Path(joblite.dump(array, tmp_path / "value")[0]).read_bytes()
            start = whole.index(array.tobytes())
            for name, damage in damages.items():
                words = array.copy()
                damage(words)
                (tmp_path / "value").write_bytes(
                    whole[:start] + words.tobytes() + whole[start + array.nbytes :]
                )
                with (
                    contextlib.nullcontext()
                    if (words == array).all()
                    else pytest.raises(ValueError, match="damaged")
                ):
                    assert (joblite.load(tmp_path / "value") == array).all(), name

    def test_a_copy_under_another_name_reads_the_files(self, tmp_path):
        """No name of this module is in a file."""
        joblite.dump([ARRAY, {"a": 1}], tmp_path / "value")
        package = tmp_path / "package" / "vendored"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        shutil.copy(joblite.__file__, package / "other_name.py")
        code = """
            import sys; sys.path.insert(0, sys.argv[1]); sys.modules["joblite"] = None
            from vendored import other_name
            print(other_name.load(sys.argv[2])[0].sum(), other_name.hash([1, 2]))
            """
        done = run_script(code, tmp_path / "package", tmp_path / "value")
        assert done.stdout.split() == [str(ARRAY.sum()), joblite.hash([1, 2])]

    @pytest.mark.usefixtures("numpy_comes_later")
    def test_numpy_is_imported_only_for_arrays(self, tmp_path):
        joblite.dump([1, {"a": datetime.date(2020, 1, 1)}], tmp_path / "plain")
        joblite.dump(ARRAY, tmp_path / "array")
        code = """
            import sys, joblite
            for name in ("plain", "array"):
                value = joblite.load(sys.argv[1] + "/" + name)
                joblite.dump(value, sys.argv[1] + "/copy", compress=True)
                joblite.load(sys.argv[1] + "/copy")
                print("numpy" in sys.modules)
            """
        assert run_script(code, tmp_path).stdout.split() == ["False", "True"]

    # ---- files of others

    def test_reads_the_files_of_old_joblibs(self, old_files):
        """Those of four versions, with every compressor; joblib is not imported."""
        paths = [path for path in sorted(old_files.glob("*/*")) if path.parent.name != "0.8.4"]
        for path in paths:
            if np.__version__ < "2" and path.match("1.6.0/objects*"):
                continue  # it names modules of numpy 2
            assert same(joblite.load(path), OLD_VALUES[path.name.partition(".")[0]]), path
        assert len(paths) >= 30 and len({path.parent for path in paths}) == 4
        assert len({path.suffix for path in paths}) == 6

    def test_files_of_joblib_before_0_10_are_refused(self, old_files):
        """Their arrays lie in files beside: the error says what to do."""
        paths = [*old_files.glob("0.8.4/[cfn]*.pkl")]
        for path in paths:
            with pytest.raises(
                ValueError, match=f"{path.name}: joblib before 0.10 .* load it once with joblib and"
            ):
                joblite.load(path)
        assert len(paths) == 3

    def test_maps_the_files_of_old_joblibs(self, old_files):
        for path in sorted(old_files.glob("[!0]*/[cf].pkl")):
            array = joblite.load(path, mmap_mode="r")
            assert type(array) is np.memmap and same(
                np.array(array, order="A"), OLD_VALUES[path.stem]
            ), path

    @pytest.mark.parametrize("mode", ["r", "r+", "c"])
    def test_a_cut_file_of_joblib_is_not_mapped(self, mode, old_files, tmp_path):
        """The error, and the file is not made longer."""
        data = (old_files / "1.6.0" / "c.pkl").read_bytes()[:-20]
        (tmp_path / "value").write_bytes(data)
        with pytest.raises(ValueError, match="value: it is cut short"):
            joblite.load(tmp_path / "value", mmap_mode=mode)
        assert (tmp_path / "value").read_bytes() == data

    def test_old_files_through_file_objects(self, old_files):
        for path in sorted(old_files.glob("1.*/nested.*")):
            assert same(joblite.load(Trickle(path.read_bytes())), OLD_VALUES["nested"]), path
            assert same(joblite.load(io.BytesIO(path.read_bytes())), OLD_VALUES["nested"]), path

    def test_files_of_others_need_trust(self, old_files, tmp_path):
        """What joblib or pickle wrote is refused unless `trusted=True`, by one sentence; no file
        beside is read."""
        (tmp_path / "pickle").write_bytes(pickle.dumps(1))
        for path in [tmp_path / "pickle", *old_files.glob("*/*.[pgx]*")]:
            with pytest.raises(
                joblite.UntrustedObjectError, match=f"{path.name}: it is not a file of this dump"
            ):
                joblite.load(path, trusted=False)

    def test_cut_old_files_are_found(self, old_files, tmp_path):
        for source in (old_files / "1.6.0" / "nested.pkl", old_files / "1.6.0" / "nested.zlib"):
            data = source.read_bytes()
            for length in range(0, len(data) - 1, 7):
                (tmp_path / "value").write_bytes(data[:length])
                with pytest.raises(ValueError, match="value: "):
                    joblite.load(tmp_path / "value")

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_reads_plain_pickles(self, protocol, tmp_path):
        (tmp_path / "value").write_bytes(pickle.dumps(SAMPLE, protocol))
        assert same(joblite.load(tmp_path / "value"), SAMPLE)
        assert same(joblite.load(Trickle((tmp_path / "value").read_bytes())), SAMPLE)

    @needs("joblib")
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_reads_what_the_installed_joblib_writes(self, protocol, tmp_path):
        import joblib

        for name, value in {**VALUES, **OLD_VALUES}.items():
            try:
                joblib.dump(value, tmp_path / "value", protocol=protocol)
            except Exception:  # this protocol is too old for it
                assert protocol < 2
                continue
            expected = joblib.load(tmp_path / "value")
            found = joblite.load(tmp_path / "value")
            if name == "foreign buffers":
                assert found == expected
            elif name != "matrix":  # with numpy 2 it is an array to joblib
                assert same(found, expected)

    @needs("pandas")
    def test_pandas_values_come_back(self, tmp_path):
        import pandas as pd

        frame = pd.DataFrame(
            {
                "a": [1, 2],
                "b": ["x", None],
                "c": pd.to_datetime(["2020", "2021"]),
                "d": pd.Categorical(["u", "v"]),
            }
        )
        for compress in (0, 3):
            pd.testing.assert_frame_equal(round_trip(frame, tmp_path, compress=compress), frame)
        joblite.dump(pd.DataFrame(np.arange(10.0).reshape(5, 2)), tmp_path / "frame")
        assert joblite.load(tmp_path / "frame", mmap_mode="r").sum().tolist() == [20.0, 25.0]

    @needs("cloudpickle")
    def test_another_pickler(self):
        """What is under `dump` takes a class of picklers; arrays still go beside."""
        import cloudpickle

        file = io.BytesIO()
        joblite._write_value([adder(2), SAMPLE], file, pickler=cloudpickle.Pickler)
        file.seek(0)
        function, sample = joblite._read_value(file)
        assert function(3) == 5 and same(sample, SAMPLE)

    # ---- trust

    @pytest.mark.parametrize(
        "name",
        [
            name
            for name in VALUES
            if name
            not in (
                "object",
                "arrays in an object",
                "function",
                "foreign buffers",
                "matrix",
                "subclass",
                "records of objects",
            )
        ],
    )
    def test_plain_data_needs_no_trust(self, name, tmp_path):
        for path in ("value", "value.z"):
            joblite.dump(VALUES[name], tmp_path / path)
            found = joblite.load(tmp_path / path, trusted=False, ensure_native_byte_order=False)
            assert (
                (found == VALUES[name]).all() if name == "big-endian" else same(found, VALUES[name])
            )
        found = joblite.load(tmp_path / "value", "r", trusted=False)
        assert joblite.hash(found, coerce_mmap=True) == joblite.hash(VALUES[name])

    def test_plain_data_of_the_standard_library_needs_no_trust(self, tmp_path):
        value = [
            datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
            datetime.timedelta(1),
            decimal.Decimal("1.5"),
            1j,
            fractions.Fraction(1, 3),
            collections.OrderedDict(a=1),
            collections.deque([1], 3),
            collections.defaultdict(list, a=[1]),
            collections.Counter("aab"),
            range(3),
            slice(1),
            bytearray(b"x"),
            {1},
            frozenset([2]),
            np.datetime64("2020-01-01"),
            np.float32(1),
            np.dtype("i1,f8"),
            np.dtype([("a", "M8[ns]"), ("b", "f8", (2, 3))]),
            functools.reduce(lambda inner, _: np.dtype([("a", inner)]), range(8), np.dtype("f8")),
            np.dtype("O"),
            [int, list, dict],
            np.void(b"abc"),
            np.str_(""),
            np.bytes_(b""),
            np.ma.array([1.5, 2], mask=[1, 0], fill_value=7, hard_mask=True),
            np.ma.array(["a"]),
            2**70,
            -(2**70),
            np.array((1, 2.5), "i1,f8")[()],
            np.timedelta64(5, "25s"),
            np.array([{"a": [1]}, None], object),
        ]
        joblite.dump(value, tmp_path / "value")
        assert same(joblite.load(tmp_path / "value", trusted=False), value)

    @pytest.mark.parametrize(
        ("value", "name"),
        [
            (Attack(os.system, "touch EVIL"), "posix.system|nt.system"),
            (Attack(eval, "open('EVIL', 'w')"), "builtins.eval"),
            (Attack(getattr, Attack, "__init__"), "builtins.getattr"),
            (Attack(subprocess.Popen, ["touch", "EVIL"]), "subprocess.Popen"),
            (Attack(functools.partial, os.system, "touch EVIL"), "functools.partial"),
            (Attack(copyreg._reconstructor, Plain, object, None), "copyreg"),
            (np.array([Attack(os.system, "touch EVIL")], object), "system"),
            (np.array([(1, Attack(os.system, "x"))], "i1,O"), "_reconstruct|dtype with gaps"),
            (np.zeros(2, np.dtype("i1,f8", align=True)), "dtype with gaps, alignment or metadata"),
            ({"deep": [collections.deque([Attack(exec, "x")])]}, "builtins.exec"),
            (collections.defaultdict(os.getpid), "getpid"),
            (Plain(a=1), "test_joblite.Plain"),
            (copied, "test_joblite.copied"),
            (ARRAY.view(Tagged), "_reconstruct"),
            (np.ma.array(ARRAY.view(Tagged)), "_reconstruct"),
            (np.random.RandomState(0), "numpy.random"),
            (Path("a"), "pathlib"),
            (operator.attrgetter("a"), "operator.attrgetter"),
            (uuid.UUID(int=5), "uuid.UUID"),
            (threading.Thread, "threading.Thread"),
        ],
    )
    def test_attacks_are_refused(self, value, name, tmp_path, monkeypatch):
        """In a dump, or a compressed one: the name is in the error, and nothing ran."""
        monkeypatch.chdir(tmp_path)
        for source in ("dump", "dump.gz"):
            joblite.dump(value, source)
            with pytest.raises(joblite.UntrustedObjectError, match=name) as caught:
                joblite.load(source, trusted=False)
            assert isinstance(caught.value, ValueError) and source in str(caught.value)
        assert not os.path.exists("EVIL")

    @pytest.mark.parametrize("thing", [np.ndarray, np.memmap, np.empty, np.float64, np.load])
    def test_nothing_of_numpy_is_handed_out(self, thing, tmp_path):
        """A class or function of numpy is no plain data."""
        for value in (
            thing,
            [ARRAY, {"kind": (thing,)}],
            {thing: 1},
            np.array([thing, np.float32(1)], object),
            collections.defaultdict(thing),
        ):
            joblite.dump(value, tmp_path / "value")
            with pytest.raises(joblite.UntrustedObjectError):
                joblite.load(tmp_path / "value", trusted=False)

    @pytest.mark.parametrize("thing", [np.dtype, np.ma.MaskedArray, int, decimal.Decimal])
    def test_a_class_of_plain_data_may_be_a_value(self, thing, tmp_path):
        """It is that class, never something that stands for it."""
        joblite.dump([thing, ARRAY, {"kind": thing}], tmp_path / "value")
        found = joblite.load(tmp_path / "value", trusted=False)
        assert found[0] is found[2]["kind"] is thing

    @pytest.mark.parametrize("name", TRICKS)
    def test_tricks_of_hand_made_pickles(self, name, tmp_path, monkeypatch):
        """Layouts and states that make numpy take numbers for addresses, calls that take time or
        memory, opcodes and names that no dump has: refused, whether the arrays are read or
        mapped."""
        opcodes, what = TRICKS[name]
        monkeypatch.chdir(tmp_path)
        np.save("secret.npy", ARRAY)
        data = hostile(opcodes, [memoryview(bytes(16))])
        Path("value").write_bytes(data)
        tracemalloc.start()
        try:
            for mode in (None, "r", "r+"):
                with pytest.raises(
                    ValueError, match=f"value: .*{what}" if "value: " not in what else what
                ):
                    joblite.load("value", trusted=False, mmap_mode=mode)
            assert tracemalloc.get_traced_memory()[1] < 2**26
        finally:
            tracemalloc.stop()
        assert Path("value").stat().st_size == len(data), "it is as long as it was"
        assert sorted(os.listdir(tmp_path)) == ["secret.npy", "value"]

    @pytest.mark.parametrize("method", ["zlib", "xz", *METHODS[-2:]])
    def test_what_is_not_trusted_unpacks_to_a_limit(self, method, tmp_path):
        """A small file does not become a big value unasked: the error names the limit, and no more
        memory is taken."""
        count = 20_000_000 if method in ("zlib", "lz4") else 9_000_000  # how well zeros pack
        path = joblite.dump(np.zeros(count), tmp_path / "value", compress=(method, 1))[0]
        code = """
            import os, sys, joblite
            try: joblite.load(sys.argv[1], trusted=False)
            except joblite.UntrustedObjectError as error: print(error)
            if os.path.exists("/proc/self/status"):
                lines = open("/proc/self/status").read().splitlines()
                print(*[line.split()[1] for line in lines if line.startswith("VmHWM")])
            """
        error, *peaks = run_script(code, path).stdout.splitlines()
        assert re.search(
            "value: it unpacks to more than 100 times its size and 64 MiB, the limit", error
        )
        assert all(int(kilobytes) < 300_000 for kilobytes in peaks)
        assert joblite.load(path).shape == (count,)
        joblite.dump(np.random.default_rng(0).random(100_000), path, compress=(method, 1))
        assert joblite.load(path, trusted=False).shape == (100_000,)

    def test_a_registered_format_unpacks_to_a_limit(self, tmp_path):
        class Mine:
            prefix, extension = b"MINE", ".mine"

            def compressor_file(self, file, compresslevel=None):
                file.write(b"MINE")
                return gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1)

            def decompressor_file(self, file):
                assert file.read(4) == b"MINE"
                return gzip.GzipFile(fileobj=file)

        joblite.register_compressor("mine", Mine())
        try:
            path = joblite.dump(np.zeros(9_000_000), tmp_path / "value.mine")[0]
            with pytest.raises(joblite.UntrustedObjectError, match="it unpacks to more than"):
                joblite.load(path, trusted=False)
            assert joblite.load(path).shape == (9_000_000,)
            joblite.dump(SAMPLE, path)
            assert same(joblite.load(path), SAMPLE)
        finally:
            joblite._CODECS.pop("mine")

    @needs("compression" if sys.version_info >= (3, 14) else "zstandard")
    @pytest.mark.parametrize("trusted", [True, False])
    def test_a_small_zstd_file_does_not_fill_the_memory(self, trusted, tmp_path):
        """16 KiB that say 4,096 times: 128 KiB of zeros. They are unpacked a part at a time."""
        (tmp_path / "value").write_bytes(b"\x28\xb5\x2f\xfd\0\x58" + b"\x02\0\x10\0" * 4096)
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="value: it is (neither|not) a file"):
                joblite.load(tmp_path / "value", trusted=trusted)
            assert tracemalloc.get_traced_memory()[1] < 2**27
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("value", [ARRAY.view(Tagged), Plain(a=1), Slots(1, 2)])
    def test_other_classes_need_trust(self, value, tmp_path):
        """Those of the user and of arrays: the error says what to do."""
        joblite.dump(value, tmp_path / "value")
        with pytest.raises(
            joblite.UntrustedObjectError, match=r"which is not plain data: trusted=True reads it if"
        ):
            joblite.load(tmp_path / "value", trusted=False)
        assert same(joblite.load(tmp_path / "value"), value)

    @pytest.mark.parametrize("trusted", [[Plain], [], None, "all", 2])
    def test_trust_is_all_or_nothing(self, trusted, tmp_path):
        """What is not True is no trust."""
        joblite.dump(Plain(a=1), tmp_path / "value")
        with pytest.raises(joblite.UntrustedObjectError):
            joblite.load(tmp_path / "value", trusted=trusted)

    # ---- memory

    @huge
    @posix
    def test_a_big_array_is_never_doubled(self, tmp_path):
        """Dump, load, map and hash of 2.2 GB, more than a single read or write takes: peak memory
        stays under 1.2 times the array."""
        if available_memory() < 8e9 or shutil.disk_usage(tmp_path).free < 8e9:
            pytest.skip("needs 8 GB of free memory and of disk")
        code = """
            import re, sys
            import numpy as np, joblite
            nbytes, path = 2_200_000_000, sys.argv[1]
            def tell(step):  # not ru_maxrss: it begins with the peak of the process before this
                peak = re.search("VmHWM:[^0-9]*([0-9]+) kB", open("/proc/self/status").read())[1]
                print(step, 1024 * int(peak) / nbytes)
            array = np.ones(nbytes // 8)
            tell("made"), joblite.dump(array, path), tell("dump")
            del array
            array = joblite.load(path)
            tell("load"), joblite.hash(array), tell("hash")
            assert array.shape == (nbytes // 8,) and array[0] == array[-1] == 1
            del array
            assert joblite.load(path, mmap_mode="c")[-1] == 1
            tell("map")
            """
        peaks = [
            line.rpartition(" ")
            for line in run_script(code, tmp_path / "value").stdout.splitlines()
        ]
        assert (
            len(peaks) == 5
            and 1 < float(peaks[0][2])
            and not [step for step, _, peak in peaks if float(peak) > 1.2]
        )


WITNESSED = []  # what happened to a Witness


class Witness:
    """Notes when it is unpickled."""

    def __reduce__(self):
        return witness_of, (0,)


def witness_of(n):
    """Makes a Witness, and notes it."""
    if n == 0:
        WITNESSED.append("made")
    return Witness()


def square_text(n):
    """A task of section 4: a text of some length."""
    return str(n * n) * 100


JOB = '''
"""A job."""
import sys
from pathlib import Path
from unittest import mock

import joblite
import more
import other
from packaged import installed
from shapes import Shape

memory = joblite.Memory(sys.argv[1], verbose=0)
RATE = 3
TABLE = {"a": [1]}
CALLS = []


def decorated(function):
    def wrapper(x):
        return [function(x), 1000]
    return wrapper


def make(step):
    def step_by(x):
        return x + step
    return step_by


by = make(5)


def helper(x, factor=10):
    return x * factor


def __private(x):
    return x


__version__ = "1.0"


@memory.cache
@decorated
def work(x, extra=2):
    """What it does."""
    CALLS.append(x)
    from late import late_helper
    total = helper(x) + RATE + extra
    total += by(x) + TABLE["a"][0] + other.CONSTANT
    total += __private(x) + len(__version__)
    total += other.deep(x) + Shape(x).area() + late_helper(x)
    return [total, installed(x), sorted({"x", "y"}), more.many(x), reader()]


@memory.cache(depends=[Path(__file__).parent / "data.txt"], version=1)
def reader():
    return (Path(__file__).parent / "data.txt").read_text()


kept = work.check_call_in_cache(7)
value = work(7)
print("hits" if kept else "computes", not CALLS, value, work.func(7) == value)
'''
OTHER = """
CONSTANT = 1
def deeper(x): return x + 1
def deep(x): return deeper(x)
"""
SHAPES = """
class Base:
    unit = 1
    def area(self): return self.side ** 2 * self.unit
class Shape(Base):
    def __init__(self, side): self.side = side
"""
MORE = '''
import dataclasses
import functools
import threading

import as_variable
import by_default
import by_lambda
import in_instance
import in_table
import kept
import lazy

TABLE = {"module": in_table, "lambda": lambda x: by_lambda.tool(x), "kept": kept.tool,
         "lock": threading.Lock()}


class Wrapper:
    def __init__(self, function): self.function = function
    def __call__(self, x): return self.function(x)


@Wrapper
def wrapped(x): return in_instance.tool(x)


class Unpicklable(threading.local):
    def method(self, x): return x - 3


class Registered:
    def __init__(self, rate): self.rate = rate
    def get(self): return self.rate
    def __reduce__(self): return "REGISTERED"


class Aliased:
    rate = 16


class Point:
    __match_args__ = ("x", "y")
    def __init__(self, x, y): self.x, self.y = x, y


@dataclasses.dataclass
class Record:
    """A record."""
    __scale__ = 11
    size: int = dataclasses.field(default=1, metadata={"unit": 12})
    @functools.singledispatchmethod
    def show(self, x): return x
    @show.register(int)
    def _(self, x): return x + 13
    @show.register(str)
    def _(self, x): return x


def rated(x): return x * rated.rate


rated.rate = 14
REGISTERED, UNPICKLABLE, ALIAS = Registered(15), Unpicklable(), list[Aliased]


def many(x, tool=lambda x: by_default.tool(x)):
    import pkg
    import pkg.unit.more
    from pkg import __file__ as place
    module = as_variable
    unit = dataclasses.fields(Record)[0].metadata["unit"]
    match Point(x, 2):
        case Point(first): pass
    return [pkg.passed_on(x), pkg.unit.base(x), lazy.made(x), module.tool(x), wrapped(x), tool(x),
            TABLE["module"].tool(x), TABLE["lambda"](x), TABLE["kept"](x), UNPICKLABLE.method(x),
            REGISTERED.get(), ALIAS.__args__[0].rate, Record().show(x), rated(x), Record.__scale__,
            Record.__annotations__, unit, first]
'''
IMPORTS_ARE_LAZY = os.environ.get("PYTHON_LAZY_IMPORTS") == "all"  # since Python 3.15
TOOL = "def tool(x):\n    return x + 1\n"
FILES = {
    "job.py": JOB,
    "other.py": OTHER,
    "shapes.py": SHAPES,
    "late.py": "def late_helper(x): return x\n",
    "site-packages/packaged.py": "def installed(x): return 'v1'\n",
    "more.py": MORE,
    "data.txt": "1",
    "pkg/__init__.py": "from .core import passed_on, other\n",
    "pkg/unit/more.py": "",
    "pkg/core.py": "def passed_on(x):\n    return x + 1\ndef other(x): return x\n",
    "pkg/unit/__init__.py": "def base(x): return x + 1\n",
    "lazy/__init__.py": "def __getattr__(name):\n    from importlib import import_module\n"
    "    return getattr(import_module('lazy.inner'), name)\n",
    "lazy/inner.py": "def made(x): return x + 1\n",
    "kept.py": "import functools\n@functools.lru_cache\n" + TOOL,
    "as_variable.py": "from in_variable import tool\n",
    **dict.fromkeys(
        ["in_variable.py", "by_default.py", "by_lambda.py", "in_instance.py", "in_table.py"], TOOL
    ),
}

ARGUMENTS_JOB = """
import functools, sys, joblite
from pathlib import Path
from unittest import mock
import by_lambda, in_class, in_table, module, in_cached, kept, box.unit
memory = joblite.Memory("cache", verbose=0)
def make():
    def inner(x):
        from in_local import tool
        return tool(x)
    class Local:
        def method(self, x): return in_class.tool(x)
    return inner, Local()
@memory.cache(depends=[Path("data.txt")])
def cached(x): return [in_cached.tool(x), Path("data.txt").read_text()]
@memory.cache
def apply(first, inner, local, module, table, cached, kept, box):
    return [first(1), inner(1), local.method(1), module.tool(1), table["a"].tool(1), cached(1),
            kept(1), box.unit.tool(1)]
args = (lambda x: by_lambda.tool(x), *make(), module, {"a": in_table}, cached, kept.tool, box)
kept = apply.check_call_in_cache(*args)
print(kept, apply(*args) == apply.func(*args))
"""

EDITS = {  # what is edited: (file, text before, text after, what the next run does)
    "a comment": ("job.py", "total = helper", "# a remark\n    total = helper", "hits"),
    "a blank line": ("job.py", "    return [total", "\n\n    return [total", "hits"),
    "the docstring": ("job.py", "What it does", "What it really does", "hits"),
    "the docstring goes": ("job.py", '    """What it does."""\n', "", "hits"),
    "place in the file": ("job.py", "RATE = 3", "RATE = 3\n" + "\n" * 30, "hits"),
    "a local name": ("job.py", "total", "amount", "computes"),
    "an annotation": (
        "job.py",
        "def work(x, extra=2)",
        "def work(x: int, extra: int = 2) -> list",
        "computes",
    ),
    "an unused function": ("job.py", "by = make(5)", "by = make(5)\ndef unused(): pass", "hits"),
    "a helper's comment": (
        "other.py",
        "def deep(x): return",
        "def deep(x):\n    # a remark\n    return",
        "hits",
    ),
    "a class's docstring": ("shapes.py", "    unit", "    'Text.'\n    unit", "hits"),
    "a place in a class's file": ("shapes.py", "class Base", "\n\n\nclass Base", "hits"),
    "a constant": ("job.py", "+ extra", "+ extra + 1", "computes"),
    "the type of a constant": ("job.py", "+ extra", "+ extra + 0.0", "computes"),
    "a set of constants": ("job.py", '{"x", "y"}', '{"x", "z"}', "computes"),
    "a default": ("job.py", "extra=2", "extra=4", "computes"),
    "a closure's value": ("job.py", "make(5)", "make(6)", "computes"),
    "a helper": ("job.py", "x * factor", "x * factor + 1", "computes"),
    "a helper with a private name": (
        "job.py",
        "    return x\n\n\n__version__",
        "    return x + 1\n\n\n__version__",
        "computes",
    ),
    "the version of a module": ("job.py", '"1.0"', '"1.0.1"', "computes"),
    "a helper's default": ("job.py", "factor=10", "factor=11", "computes"),
    "a helper of another module": (
        "other.py",
        "return deeper(x)",
        "return deeper(x) + 1",
        "computes",
    ),
    "a helper of a helper": ("other.py", "x + 1", "x + 2", "computes"),
    "a helper imported in the function": ("late.py", "return x", "return x + 1", "computes"),
    "a method of the base class": ("shapes.py", "** 2", "** 3", "computes"),
    "an attribute of a class": ("shapes.py", "unit = 1", "unit = 2", "computes"),
    "__init__ of a class": ("shapes.py", "self.side = side", "self.side = side + 1", "computes"),
    "a global": ("job.py", "RATE = 3", "RATE = 4", "computes"),
    "the type of a global": ("job.py", "RATE = 3", "RATE = 3.0", "computes"),
    "inside a global": ("job.py", '{"a": [1]}', '{"a": [2]}', "computes"),
    "a global of another module": ("other.py", "CONSTANT = 1", "CONSTANT = 2", "computes"),
    "the decorator": ("job.py", "1000", "2000", "computes"),
    "what a package passes on": ("pkg/core.py", "x + 1", "x + 2", "computes"),
    # it is imported in a function: its source counts
    "a comment in what a package passes on": (
        "pkg/core.py",
        "    return x + 1",
        "    # one\n    return x + 1",
        "computes",
    ),
    "a package whose module is imported": ("pkg/unit/__init__.py", "x + 1", "x + 2", "computes"),
    "what a module makes when asked": ("lazy/inner.py", "x + 1", "x + 2", "computes"),
    "what a module in a variable passes on": ("in_variable.py", "x + 1", "x + 2", "computes"),
    "a module in a table": ("in_table.py", "x + 1", "x + 2", "computes"),
    "what a lambda in a table uses": ("by_lambda.py", "x + 1", "x + 2", "computes"),
    "a comment there": ("by_lambda.py", "x + 1", "x + 1  # one", "hits"),
    "a lru_cache in a table": ("kept.py", "x + 1", "x + 2", "computes"),
    "what a default uses": ("by_default.py", "x + 1", "x + 2", "computes"),
    "what a function inside an object uses": ("in_instance.py", "x + 1", "x + 2", "computes"),
    "a lambda in a table": (
        "more.py",
        "lambda x: by_lambda.tool(x)",
        "lambda x: -by_lambda.tool(x)",
        "computes",
    ),
    "the class of what cannot be pickled": ("more.py", "x - 3", "x - 4", "computes"),
    "an object that is pickled by name": (
        "more.py",
        "Registered(15)",
        "Registered(10)",
        "computes",
    ),
    "the class in a generic alias": ("more.py", "rate = 16", "rate = 10", "computes"),
    "the order of a pattern": ("more.py", '("x", "y")', '("y", "x")', "computes"),
    "special data of a class": ("more.py", "11", "10", "computes"),
    "the metadata of a field": ("more.py", "12", "10", "computes"),
    "the annotation of a field": ("more.py", "size: int", "size: float", "computes"),
    "the docstring of a dataclass": ("more.py", "A record", "The record", "hits"),
    "one of several implementations": ("more.py", "x + 13", "x + 10", "computes"),
    "an attribute of a function": ("more.py", "rate = 14", "rate = 10", "computes"),
    "the file of a cached helper": ("data.txt", "1", "2", "computes"),
    "the version of a cached helper": ("job.py", "version=1", "version=2", "computes"),
    # not followed: the README says so
    "an installed package": ("site-packages/packaged.py", "v1", "v2", "hits"),
}


# One module in two versions, in one process. A row: what changes, the text before, the text after;
# below it the source with `f`.
CHANGES_TEXT = """
a keyword of a call: g(low=x) -> g(high=x)
    def g(low=0, high=0): return [low, high]
    def f(x): return g(low=x)
a closure's object with a method add: make(10) -> make(20)
    class Thing:
        def __init__(self, rate): self.rate = rate
        def add(self, x): return x + self.rate
    def make(rate):
        thing = Thing(rate)
        def f(x): return thing.add(x)
        return f
    f = make(10)
the same in a global: rate = 1 -> rate = 2
    class Thing:
        rate = 1
        def add(self, x): self.got = x + self.rate
    THING = Thing()
    def f(x):
        THING.add(x)
        return vars(THING).get("got")
a variable that is read and then set: make(2) -> make(3)
    def make(n):
        def f(x):
            nonlocal n
            y = x * n
            n += 0
            return y
        return f
    f = make(2)
a list that is added to, and read under its name as a text: LOG = [1] -> LOG = [2]
    LOG = [1]
    def f(x):
        LOG.append(x)
        return eval("LOG[0]")
a global that is read and then set: N = 2 -> N = 3
    N = 2
    def f(x):
        global N
        y = x * N
        N = N + 0
        return y
an attribute that is read and then set: rate = 1 -> rate = 2
    class Config: rate = 1
    def f(x):
        y = Config.rate
        Config.rate = y
        return y
the value of append that is used: Log([1]) -> Log([1, 2])
    class Log(list):
        def append(self, x): return len(self) + x
    LOG = Log([1])
    def f(x): return LOG.append(x)
a list that is added to and read: [1] -> [2]
    LOG = [1]
    def f(x):
        LOG.append(x)
        return LOG[0]
a list added to under one name, read by another: [1] -> [2]
    LOG = [1]
    ALIAS = LOG
    def f(x):
        LOG.append(x)
        return ALIAS[0]
a list that a helper reads: [1] -> [2]
    LOG = [1]
    def g(): return LOG[0]
    def f(x):
        LOG.append(x)
        return g()
a default that is added to: log=[1] -> log=[2]
    def f(x, log=[1]):
        log.append(x)
        return log[0]
a variable that a function inside reads: make(1) -> make(2)
    def make(n):
        def f(x):
            def g(): return n
            return g()
        return f
    f = make(1)
a variable seen by locals(): make(1) -> make(2)
    def make(n):
        def f(x):
            n
            return locals()['n']
        return f
    f = make(1)
the order of a global dict: 'a': 1, 'b': 2 -> 'b': 2, 'a': 1
    STEPS = {'a': 1, 'b': 2}
    def f(x): return list(STEPS)
the order of a dict in a default: 'a': 1, 'b': 2 -> 'b': 2, 'a': 1
    def f(x, steps={'a': 1, 'b': 2}): return list(steps)
the order in an object: self.a, self.b = 1, 2 -> self.b, self.a = 2, 1
    class Steps:
        def __init__(self): self.a, self.b = 1, 2
    STEPS = Steps()
    def f(x): return list(vars(STEPS))
the order in a class: a, b = 1, 2 -> b, a = 2, 1
    class Steps: a, b = 1, 2
    def f(x): return [n for n in vars(Steps) if n in 'ab']
a member of an enum: A = 1 -> A = 2
    import enum
    class E(enum.Enum): A = 1
    def f(x): return E.A.value
the order of an enum: A, B = 1, 2 -> B, A = 2, 1
    import enum
    class E(enum.Enum): A, B = 1, 2
    def f(x): return [e.name for e in E]
an attribute of a member: P.X -> P.Y
    import enum
    class E(bytes, enum.Enum):
        def __new__(cls, value, label):
            member = bytes.__new__(cls, [value])
            member._value_, member.label = value, label
            return member
        A = (0, "P.X")
    def f(x): return E.A.label
an alias of a member: C = 1 -> C = 2
    import enum
    class E(enum.IntFlag): A, B = 1, 2; C = 1
    def f(x): return E['C'].name
a default of make_dataclass: default=3 -> default=4
    from dataclasses import field, make_dataclass
    Point = make_dataclass("Point", [("x", int, field(default=3))])
    def f(x): return Point().x
a default of a dataclass: = 1 -> = 2
    import dataclasses
    @dataclasses.dataclass
    class P:
        a: int = 1
    def f(x): return P().a
the field of a dataclass: a: int = 1 -> b: int = 1
    import dataclasses
    @dataclasses.dataclass
    class P:
        a: int = 1
    def f(x): return repr(P(1))
the factory of a dataclass: [1] -> [2]
    import dataclasses
    @dataclasses.dataclass
    class P: a: list = dataclasses.field(default_factory=lambda: [1])
    def f(x): return P().a
a default of a NamedTuple: = 1 -> = 2
    import typing
    class P(typing.NamedTuple): a: int = 1
    def f(x): return P().a
a default of a namedtuple: [1] -> [2]
    import collections
    P = collections.namedtuple('P', 'a', defaults=[1])
    def f(x): return P().a
a class that type() made: 'a': 1 -> 'a': 2
    P = type('P', (), {'a': 1})
    def f(x): return P.a
the type under a NewType: int -> float
    import typing
    Unit = typing.NewType('Unit', int)
    def f(x): return repr(Unit.__supertype__(x))
an annotation of a helper: age: int -> age: float
    import typing
    def spec(age: int): ...
    def f(x): return repr([kind(x) for kind in typing.get_type_hints(spec).values()])
an annotation of a class: age: int -> age: float
    import typing
    class Spec: age: int
    def f(x): return repr([kind(x) for kind in typing.get_type_hints(Spec).values()])
an annotation of a decorated helper: age: int -> age: float
    import functools, typing
    def deco(g):
        @functools.wraps(g)
        def inner(*args): return g(*args)
        return inner
    @deco
    def spec(age: int): ...
    def f(x): return repr([kind(x) for kind in typing.get_type_hints(spec).values()])
an attribute of a helper: rate = 1 -> rate = 2
    def g(): ...
    g.rate = 1
    def f(x): return g.rate
a metaclass: rate = 1 -> rate = 2
    class Meta(type): rate = 1
    class C(metaclass=Meta): pass
    def f(x): return C.rate
a property: return 1 -> return 2
    class C:
        @property
        def a(self): return 1
    def f(x): return C().a
a slot's class: 'a' -> 'b'
    class C:
        __slots__ = 'a'
    def f(x): return sorted(C.__slots__)
a partial: g, 1 -> g, 3
    import functools
    def g(a, b): return a
    P = functools.partial(g, 1)
    def f(x): return P(2)
a bound method: C(1) -> C(2)
    class C:
        def __init__(self, a): self.a = a
        def m(self): return self.a
    M = C(1).m
    def f(x): return M()
an object with a lock: C(1) -> C(2)
    import threading
    class C:
        def __init__(self, a): self.a, self.lock = a, threading.Lock()
    THING = C(1)
    def f(x): return THING.a
a lambda in an object with a lock: C(1) -> C(2)
    import threading
    class C:
        def __init__(self, a): self.a, self.lock = lambda: a, threading.Lock()
    THING = C(1)
    def f(x): return THING.a()
a value deep in containers: 2: 3 -> 2: 4
    T = {'a': [({'b': (1, {2: 3})},)]}
    def f(x): return repr(T)
the name of a function: 'low' -> 'high'
    g = lambda s: s
    g.__name__ = 'low'
    def f(x): return g.__name__
the name of a class: 'Low' -> 'High'
    class C: pass
    C.__name__ = 'Low'
    def f(x): return C.__name__
what a property of a class of its own holds: 2) -> 3)
    class Times(property):
        def __init__(self, get, n):
            super().__init__(get)
            self.n = n
        def __get__(self, obj, owner=None): return super().__get__(obj, owner) * self.n
    class C: five = Times(lambda self: 5, 2)
    def f(x): return C().five
what a helper imports: floor -> ceil
    def f(x):
        import math
        return math.floor(x + .5)
a name that a class body reads: R = 1 -> R = 2
    R = 1
    def f(x):
        class C: r = R
        return C.r
a name that a comprehension reads: R = 1 -> R = 2
    R = 1
    def f(x): return [R for _ in 'a']
a builtin that is covered: len = lambda x: 1 -> pass
    len = lambda x: 1
    def f(x): return len('ab')
a value in a module that a held module holds: HELD = 1 -> HELD = 2
    import types
    inner, outer = types.ModuleType("inner"), types.ModuleType("outer")
    inner.rate, outer.inner, HELD = 1, inner, {"m": outer}
    def f(x): return getattr(getattr(HELD["m"], "inner"), "rate")
a module's value under its name: x -> x
    import helping_out
    def f(x): return helping_out.rate
a module without a source that a function imports: x -> x
    def f(x):
        import helping_out
        return helping_out.rate
"""
CHANGES = {
    name: (textwrap.dedent(source), before, after)
    for name, before, after, source in re.findall(
        r"^(\S.*?): (.*) -> (.*)\n((?:    .*\n)+)", CHANGES_TEXT, re.MULTILINE
    )
}
for _method in ("append", "update", "extend", "insert", "clear"):
    _source, *_texts = CHANGES["a closure's object with a method add"]
    CHANGES[f"a closure's object with a method {_method}"] = (
        _source.replace("add", _method),
        *_texts,
    )


def project(folder, files=FILES):
    """Write the files of a small project."""
    for name, text in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Path(folder)


def run_job(folder, *args, seed="random", script="job.py"):
    """Run a script of a project in a fresh process; gives what it printed."""
    env = script_env({"PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"})
    env["PYTHONPATH"] += os.pathsep + str(Path(folder, "site-packages"))
    done = subprocess.run(
        [sys.executable, str(Path(folder, script)), *map(str, args)],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def cache_of_a_run(tmp_path_factory):
    """The cache that the first run of the project leaves."""
    folder = tmp_path_factory.mktemp("first_run")
    assert run_job(project(folder / "project"), folder / "cache").startswith("computes False")
    return folder / "cache"


def entry_files(location):
    """The files of the kept calls in a cache folder."""
    return sorted(path for path in Path(location, "joblite", "v1").glob("*/*"))


def make_older(path, seconds):
    """As if nobody had written to the file for so much longer."""
    changed = path.stat().st_mtime - seconds
    os.utime(path, (changed, changed))


def snapshot(folder):
    """Everything that a look into a folder can tell, apart from times of access."""
    return sorted(
        (str(path), path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in Path(folder).rglob("*")
    )


@pytest.fixture
def memory(tmp_path):
    """A Memory in a fresh folder."""
    return joblite.Memory(tmp_path / "cache", verbose=0)


@pytest.fixture(params=["disk", "memory"])
def any_memory(request, tmp_path):
    """A Memory of each kind."""
    return joblite.Memory(tmp_path / "cache" if request.param == "disk" else None, verbose=0)


class Calls(list):
    """A list that is not content: what cannot be pickled counts by its class."""

    def __reduce_ex__(self, protocol):
        raise TypeError("calls are not content")


def counted(function=None):
    """A function that counts its calls in `.calls`, which does not count for its name."""
    calls = Calls()

    @functools.wraps(function or (lambda x: x))
    def counting(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs) if function else args[0]

    counting.calls = calls
    return counting


def scale(value, factor, note=""):
    return value * factor


# A module that is loaded and then written, or has another file moved in its place
LATE_JOB = textwrap.dedent("""
    import os, sys, joblite, late
    from pathlib import Path
    late.a  # where imports are lazy, it is loaded now
    def f(x):
        import late
        return late.a
    cached = joblite.Memory("cache", verbose=0).cache(f)
    if "edit" in sys.argv:
        Path("late.py").write_text("a = 22222")
    if "move" in sys.argv:
        os.replace("kept.py", "late.py")
    print(cached(1), cached.check_call_in_cache(1), "may have changed" in cached.explain(1))
    """)


def byte_of(cached):
    """Where the lock of a call without arguments is in the lock file."""
    return 8 + joblite._crc32(cached._name((), {}).key.encode())


class TestSection4Memory:
    # ---- the fingerprint

    def test_a_new_name_in_a_module_that_is_held_is_seen(self, any_memory, monkeypatch):
        held = types.ModuleType("held")
        held.__file__ = "/project/held.py"
        monkeypatch.setitem(sys.modules, "held", held)
        cached = any_memory.cache(lambda name: getattr(held, name, None))
        assert cached("rate") is None
        held.rate = 3
        assert cached("rate") == 3

    def test_an_edit_of_the_source_recomputes(self, cache_of_a_run, tmp_path):
        """After each edit a fresh process recomputes, and is never stale."""

        def run_edited(edit):
            name, before, after, _ = EDITS[edit]
            files = FILES | {name: FILES[name].replace(before, after)}
            cache = shutil.copytree(cache_of_a_run, tmp_path / edit / "cache")
            kept, untouched, *_, fresh = run_job(project(tmp_path / edit, files), cache).split()
            return kept, untouched, fresh

        edits = [edit for edit, (*_, expected) in EDITS.items() if expected == "computes"]
        if IMPORTS_ARE_LAZY:  # which module a text names is known only of packages that are loaded
            edits.remove("what a module makes when asked")
        assert side_by_side(run_edited, edits) == dict.fromkeys(
            edits, ("computes", "False", "True")
        )

    @pytest.mark.parametrize(
        "left_out",
        [("the docstring",), ("the docstring goes", "an installed package")],
        ids=" and ".join,
    )
    def test_edits_that_change_no_value_hit(self, left_out, cache_of_a_run, tmp_path):
        """All together; and so does one of an installed package, which is not followed."""
        files, package = dict(FILES), "site-packages/packaged.py"
        for edit, (name, before, after, expected) in EDITS.items():
            # where imports are lazy, what is not loaded yet counts by its source
            is_seen = IMPORTS_ARE_LAZY and name not in ("job.py", package)
            if expected == "hits" and edit not in left_out and not is_seen:
                assert before in files[name]
                files[name] = files[name].replace(before, after)
        cache = shutil.copytree(cache_of_a_run, tmp_path / "cache")
        kept, untouched, *_, fresh = run_job(project(tmp_path, files), cache).split()
        # where the package is another one, the value is still that of the former
        is_fresh = "an installed package" in left_out
        assert (kept, untouched, fresh) == ("hits", "True", str(is_fresh))

    def test_an_edit_that_is_undone_hits_again(self, cache_of_a_run, tmp_path):
        """Also after several edits, and an entry of each."""
        folder, cache = (
            project(tmp_path / "project"),
            shutil.copytree(cache_of_a_run, tmp_path / "cache"),
        )
        for edit in ("a helper of a helper", "inside a global", "the file of a cached helper"):
            name, before, after, _ = EDITS[edit]
            (folder / name).write_text(FILES[name].replace(before, after))
            assert run_job(folder, cache).startswith("computes"), edit
            project(folder)
            assert run_job(folder, cache).startswith("hits True"), edit

    def test_a_moved_project_and_cache_hit(self, cache_of_a_run, tmp_path):
        """Neither the folder of the sources nor that of the cache is part of a name."""
        assert run_job(
            project(tmp_path), shutil.copytree(cache_of_a_run, tmp_path / "moved")
        ).startswith("hits True")

    def test_a_change_while_running_is_noticed(self, memory):
        """Globals, their content, helpers, code, closures and
        classes are looked at again at each call."""
        space = {"__name__": "changing", "memory": memory}
        exec(
            textwrap.dedent("""
            RATE, TABLE = 1, {"a": [1]}
            class Config: scale = 1
            def helper(x): return x
            def make():
                step = 1
                def set_step(value):
                    nonlocal step
                    step = value
                def f(x): return (helper(x), RATE, TABLE["a"][0], Config.scale, step)
                return f, set_step
            f, set_step = make()
            cached = memory.cache(f)
            """),
            space,
        )
        changes = [
            "RATE = 2",
            "TABLE['a'][0] = 2",
            "Config.scale = 2",
            "helper = lambda x: -x",
            "set_step(2)",
            "f.__code__ = (lambda step: lambda x: (step, 'new'))(0).__code__",
        ]
        cached, f = space["cached"], space["f"]
        assert cached(5) == f(5)
        for change in changes:
            exec(change, space)
            assert not cached.check_call_in_cache(5), change
            assert cached(5) == f(5), change
            assert cached.check_call_in_cache(5), change

    @pytest.mark.parametrize("change", CHANGES)
    def test_two_versions_of_a_module_never_share_a_result(self, change, any_memory, monkeypatch):
        """Whatever the version differs in; the first one finds its result again."""
        source, before, after = CHANGES[change]

        def load(text, rate=1):
            helping = types.ModuleType("helping_out")
            helping.rate = rate
            module = types.ModuleType("in_versions")
            monkeypatch.setitem(sys.modules, "helping_out", helping)
            monkeypatch.setitem(sys.modules, "in_versions", module)
            exec(text, module.__dict__)
            return module.f

        results = []
        for number, text in enumerate((source, source.replace(before, after))):
            cached, plain = any_memory.cache(load(text, number)), load(text, number)
            assert not cached.check_call_in_cache(1)
            results.append(cached(1))
            assert results[-1] == plain(1)
        assert results[0] != results[1], "the test is at fault: the change makes no difference"
        assert any_memory.cache(load(source, 0)).check_call_in_cache(1)

    @pytest.mark.parametrize(
        "adds",
        [
            "LOG.append(x)",
            "SEEN.add(x)",
            "TABLE.update(a=x)",
            "LOG.extend([x,\n        x])",
            "QUEUE.append(x)",
            "held.append(x)",
            "LOG.append(g(x))",
            "for i in [x]: LOG.append(i)",
            "(lambda: None)(); SEEN.add(x)",
            "def inner():\n        held.append(x)\n    inner()",
        ],
    )
    def test_what_code_only_adds_to_does_not_count(self, adds, any_memory):
        """An exact list, set, dict or deque in a global or a closure;
        the second of two equal calls is read."""
        source = f"""
from collections import deque
LOG, SEEN, TABLE, QUEUE = [], set(), {{}}, deque()
def g(x): return x
def make():
    held = []
    def f(x):
        {adds.replace(chr(10), chr(10) + "    ")}
        return x
    return f
f = make()"""
        space = {"__name__": "adding"}
        exec(source, space)
        cached = any_memory.cache(space["f"])
        assert cached(1) == 1 and cached.check_call_in_cache(1)
        assert cached.func(2) == 2 and cached._fingerprints[""].holds(), (
            "nor costs it a new look at all"
        )

    def test_untracked_globals_do_not_count(self, any_memory):
        """Of the function's module and of its helpers' modules, also in arguments;
        another change still counts."""
        space = {"__name__": "counting"}
        exec(
            textwrap.dedent("""
            COUNT, MEMO, RATE = {"calls": 0}, {}, 1
            def helper(x):
                if x not in MEMO: MEMO[x] = x * RATE
                return MEMO[x]
            def f(x, g=None):
                COUNT["calls"] += 1
                return helper(x)
            """),
            space,
        )
        cached = any_memory.cache(space["f"], untracked=["COUNT", "MEMO"])
        assert cached(1) == 1 and cached.check_call_in_cache(1)
        assert cached(2, space["helper"]) == 2 and cached.check_call_in_cache(2, space["helper"])
        assert any_memory.cache(space["f"], untracked="COUNT").untracked == {"COUNT"}
        assert not any_memory.cache(space["f"]).check_call_in_cache(1)
        assert cached._fingerprints[""].holds(), "a counter costs no new look at all else"
        space["RATE"] = 2
        assert not cached.check_call_in_cache(1)

    @pytest.mark.parametrize(
        "before, after",
        [
            (np.zeros((2, 3)), np.zeros(6, "i8")),
            (np.float64(0), np.int64(0)),
            (bytearray(b"a"), b"a"),
            (b"a", np.int8(97)),
            ({"in": [b"a"]}, {"in": [bytearray(b"a")]}),
            (True, 1),
            ([1], (1,)),
            ({1}, frozenset({1})),
        ],
    )
    def test_another_type_inside_a_container_is_noticed(self, before, after, any_memory):
        """Also where the bytes are the same."""
        held = {"value": before}
        cached = any_memory.cache(lambda: (repr(held["value"]), 1))
        assert cached() == cached.func()
        held["value"] = after
        assert cached() == cached.func()

    def test_what_lies_under_a_read_only_array_counts(self, any_memory):
        """Who holds the writable array under it changes it;
        one of objects holds what may change."""
        base, objects = np.zeros((2, 1)), np.array([None], object)
        objects[0] = [1]
        objects.flags.writeable = False
        views = [
            np.broadcast_to(base, (2, 4)),
            np.lib.stride_tricks.sliding_window_view(base, 1, 0),
            objects,
        ]

        def lister(view):
            return any_memory.cache(lambda: view.tolist())

        listers = list(map(lister, views))
        assert [each() for each in listers] == [view.tolist() for view in views]
        base[0], objects[0][0] = 100, 2
        assert [each() for each in listers] == [view.tolist() for view in views]

    def test_globals_that_compare_in_their_own_way_are_never_compared(self, any_memory):
        """An array says so of each item, others fail or equal everything."""

        class Same:
            def __eq__(self, other):
                return True

        class Failing:
            def __eq__(self, other):
                raise ZeroDivisionError

        space = {"ARRAY": np.arange(3), "SAME": Same(), "FAILING": Failing()}
        cached = any_memory.cache(eval("lambda: ARRAY.sum() + bool(SAME) + bool(FAILING)", space))
        assert cached() == 5
        space["ARRAY"][0] = 10
        assert cached() == 15

    def test_a_change_of_the_kind_of_a_thing_is_noticed(self, any_memory, monkeypatch):
        """Bases, the attributes of an object at once, a property over one, a lock that leaves,
        what a lambda names."""
        module = types.ModuleType("held_here")
        monkeypatch.setitem(sys.modules, "held_here", module)
        exec(
            textwrap.dedent("""
            import threading
            class One: rate = 1
            class Two: rate = 2
            class Derived(One): pass
            class Config: pass
            first, second, third = Config(), Config(), Config()
            table = {"rate": 1, "lock": threading.Lock()}
            first.rate = second.rate = third.rate = 1
            def f(apply):
                return (Derived.rate, first.rate, second.rate, third.rate, table["rate"], apply(),
                        f.rate)
            f.rate, apply = 1, lambda: [first.rate, table["rate"]]
            """),
            module.__dict__,
        )
        cached = any_memory.cache(module.f)
        changes = [
            "Derived.__bases__ = (Two,)",
            "first.__dict__ = {'rate': 2}",
            "third.__class__ = Derived",
            "Config.rate = property(lambda self: 3)",
            "table['rate'] = 2",
            "del table['lock']",
            "f.rate = 2",
            "table['rate'] = 3",
            "apply.__code__ = (lambda: len(table)).__code__",
        ]
        for change in ["pass", *changes]:
            exec(change, module.__dict__)
            assert cached(module.apply) == module.f(module.apply), change
            assert cached.check_call_in_cache(module.apply), change

    def test_an_attribute_over_one_of_the_class_is_followed_once(self, any_memory):
        """Where the class gives another object each time it is asked (a bound classmethod),
        nothing has changed."""

        class Config:
            @classmethod
            def rate(cls):
                return 1

        config = Config()
        config.__dict__["rate"] = 3
        cached = any_memory.cache(
            eval("lambda: config.rate", {"__name__": "__main__", "config": config})
        )
        assert cached() == 3
        fingerprint = cached._fingerprints[""]
        assert fingerprint.holds() and cached() == 3 and cached._fingerprints[""] is fingerprint
        config.__dict__["rate"] = 4
        assert cached() == 4

    def test_closures_and_lambdas_have_their_own_results(self, any_memory):
        """Two closures of one factory, two lambdas on one line,
        one lambda as argument: never mixed up."""

        def factory(step):
            return any_memory.cache(lambda x: x + step)

        one, two = factory(1), factory(2)
        first, second = any_memory.cache(lambda x: x * 2), any_memory.cache(lambda x: x * 3)
        apply = any_memory.cache(lambda function, x: function(x))
        assert [one(1), two(1), first(5), second(5)] == [2, 3, 10, 15]
        assert [apply(lambda x: x + 1, 1), apply(lambda x: x + 2, 1)] == [2, 3]

    def test_functions_and_classes_in_arguments_count_by_their_code(self, tmp_path):
        """A project function or an instance of a project class as an
        argument brings its code into the key."""
        job = textwrap.dedent("""
            import sys, joblite
            from part import double, Scaler
            memory = joblite.Memory(sys.argv[1], verbose=0)
            @memory.cache
            def apply(function, scaler, x): return [function["f"](x), scaler.run(x)]
            args = {"f": double}, Scaler(), 2
            print(apply.check_call_in_cache(*args), apply(*args))
            """)
        part = "def double(x): return 2 * x\nclass Scaler:\n    def run(self, x): return 3 * x\n"
        folder = project(tmp_path, {"job.py": job, "part.py": part})
        assert run_job(folder, "cache") == "False [4, 6]\n"
        assert run_job(folder, "cache") == "True [4, 6]\n"
        project(folder, {"part.py": part.replace("2 * x", "5 * x")})
        assert run_job(folder, "cache") == "False [10, 6]\n"
        project(folder, {"part.py": part.replace("3 * x", "7 * x")})
        assert run_job(folder, "cache") == "False [4, 14]\n"

    @pytest.mark.skipif(sys.version_info < (3, 15), reason="needs the lazy imports of Python 3.15")
    def test_what_is_imported_lazily_counts(self, tmp_path):
        """A module of a package that is an argument, and one that a module names,
        before they are loaded."""
        job = textwrap.dedent("""
            import joblite
            lazy import box.unit, outer
            def apply(box, outer): return box.unit.tool(1) + outer.inner.tool(1)
            cached = joblite.Memory("cache", verbose=0).cache(apply)
            print(cached.check_call_in_cache(box, outer), cached(box, outer))
            """)
        folder = project(
            tmp_path,
            {
                "job.py": job,
                "box/__init__.py": "",
                "box/unit.py": TOOL,
                "outer.py": "lazy import inner",
                "inner.py": TOOL,
            },
        )
        kept = run_job(folder).split()[1]
        assert run_job(folder) == f"True {kept}\n"
        for edited in ("box/unit.py", "inner.py"):
            project(folder, {edited: TOOL.replace("1", "2")})
            computed = run_job(folder).split()
            assert computed[0] == "False" and computed[1] != kept, edited
            kept = computed[1]

    @pytest.mark.skipif(sys.version_info < (3, 15), reason="needs the lazy imports of Python 3.15")
    def test_what_a_call_loads_of_installed_packages_does_not_matter(self, tmp_path):
        job = textwrap.dedent("""
            import sys, joblite
            lazy import colorsys, xml.sax.saxutils, wave as waves
            def f(x):
                return [colorsys.rgb_to_hsv(x, x, x), xml.sax.saxutils.escape("<"), waves.Error]
            cached = joblite.Memory("cache", verbose=0).cache(f)
            loaded = {"colorsys", "xml.sax.saxutils", "wave"} & sys.modules.keys()
            kept = cached.check_call_in_cache(1)
            print(len(loaded), kept, bool(cached(1)), cached.check_call_in_cache(1))
            """)
        assert run_job(project(tmp_path, {"job.py": job})) == "0 False True True\n"
        assert run_job(tmp_path) == "0 True True True\n"

    def test_what_arguments_lead_to_counts(self, tmp_path):
        """Functions and classes without a name, modules, cached functions:
        an edit of what they use computes."""
        tools = "in_local.py in_class.py in_cached.py in_table.py by_lambda.py module.py".split()
        files = {
            **dict.fromkeys([*tools, "box/unit.py"], TOOL),
            "box/__init__.py": "",
            "data.txt": "1",
            "kept.py": FILES["kept.py"],
            "job.py": ARGUMENTS_JOB,
        }
        folder = project(tmp_path, files)
        assert run_job(folder) == "False True\n"
        assert run_job(folder) == "True True\n"
        for edited in [*tools, "box/unit.py", "data.txt", "kept.py"]:
            project(folder, {edited: files[edited].replace("1", "2")})
            assert run_job(folder) == "False True\n", edited

    def test_what_else_a_program_loads_or_counts_does_not_matter(self, tmp_path):
        """A module loaded besides, a list that is only added to,
        the order of a set of functions."""
        job = textwrap.dedent("""
            import sys, joblite
            if len(sys.argv) > 1: import pkg.unused
            memory = joblite.Memory("cache", verbose=0)
            for n in range(5): exec(f"def plus_{n}(x): return x + {n}")
            STEPS, LOG = {plus_0, plus_1, plus_2, plus_3, plus_4}, []
            def helper(x):
                LOG.append(x)
                return x
            @memory.cache
            def f(x):
                import pkg
                import pkg.used
                return helper(x) + pkg.used.value + sum(step(x) for step in STEPS)
            print(f.check_call_in_cache(1), f(1), f.func(1), f.check_call_in_cache(1))
            """)
        folder = project(
            tmp_path,
            {"job.py": job, "pkg/__init__.py": "", "pkg/used.py": "value = 1", "pkg/unused.py": ""},
        )
        assert run_job(folder) == "False 17 17 True\n"
        for args in [(), ("more",), (), ("more",)]:
            assert run_job(folder, *args) == "True 17 17 True\n"

    def test_naming_a_call_imports_nothing(self, tmp_path):
        """Modules of branches that are not taken do not run; their sources count,
        and those that they import."""
        job = textwrap.dedent("""
            import sys, joblite
            from pack import job
            memory = joblite.Memory("cache", verbose=0)
            cached = memory.cache(job.f)
            kept = cached.check_call_in_cache(1)
            print(kept, cached(1), cached.check_call_in_cache(1),
                  [name for name in sys.modules if "never" in name])
            """)
        f = """
            def f(x):
                if x > 100:
                    import never_run
                    import pack.never_either.deep as deep
                    from . import never_too, __version__
                    from .never_either import n
                return x
            """
        files = {
            "job.py": job,
            "pack/__init__.py": "",
            "pack/job.py": textwrap.dedent(f),
            "never_run.py": "import sys, never_in_turn\nsys.exit('it ran')\n",
            "never_in_turn.py": "A = 1\n",
            "pack/never_too.py": "A = 1\ndef g():\n    from . import never_last\n",
            "pack/never_last.py": "A = 1\n",
            "pack/never_either/__init__.py": "A = 1\n",
            "pack/never_either/deep.py": "A = 1\nraise SystemExit\n",
            "pack/never_either/n.py": "A = 1\n",
            "unused_never.py": "A = 1\n",
            "never_broken.py": "def",
        }
        folder = project(tmp_path, files)
        assert run_job(folder) == "False 1 True []\n"
        assert run_job(folder) == "True 1 True []\n"
        for name, text in files.items():
            if "A = 1" in text:
                project(folder, {name: text.replace("A = 1", "A = 2")})
                assert run_job(folder).startswith(str("unused" in name)), name

    def test_annotations_count_and_are_never_evaluated(self, any_memory, monkeypatch):
        """Before Python 3.14 they are not evaluated where they are texts."""
        source = """
            def helper(x: nowhere) -> nowhere: return x
            class C:
                a: nowhere
                def __init__(self, x: nowhere = 1): self.x = x
            def f(x: nowhere, c: nowhere = C): return helper(c(x).x)
            """
        future = "from __future__ import annotations\n" if sys.version_info < (3, 14) else ""

        def load(text):
            module = types.ModuleType("annotated_nowhere")
            monkeypatch.setitem(sys.modules, "annotated_nowhere", module)
            exec(future + textwrap.dedent(text), vars(module))
            return vars(module)

        for name, result in (("f", 1), ("C", None), ("helper", 1)):
            cached = any_memory.cache(load(source)[name])
            value = cached(1)
            assert result is None or value == result
            assert cached.check_call_in_cache(1)
            changed = load(source.replace("nowhere", "elsewhere"))[name]
            assert not any_memory.cache(changed).check_call_in_cache(1)

    def test_code_in_a_zip_file_counts_by_its_source(self, tmp_path):
        """So do modules without a source, and packages without an __init__."""
        job = textwrap.dedent("""
            import sys, joblite
            sys.path[:0] = ["code.zip", "compiled"]
            def f(x):
                import zipped, bytes_only, space.inside
                return [zipped.a, bytes_only.a, space.inside.a]
            cached = joblite.Memory("cache", verbose=0).cache(f)
            print(cached.check_call_in_cache(1), cached(1), f(1))
            """)
        folder = project(tmp_path, {"job.py": job, "space/inside.py": "a = 1\n"})

        def pack(value):
            with zipfile.ZipFile(folder / "code.zip", "w") as file:
                file.writestr("zipped.py", f"a = {value}\n")

        def translate(value):
            (folder / "source.py").write_text(f"a = {value}\n")
            (folder / "compiled").mkdir(exist_ok=True)
            py_compile.compile(folder / "source.py", folder / "compiled" / "bytes_only.pyc")

        pack(1), translate(1)
        assert run_job(folder) == "False [1, 1, 1] [1, 1, 1]\n"
        assert run_job(folder) == "True [1, 1, 1] [1, 1, 1]\n"
        pack(2)
        assert run_job(folder) == "False [2, 1, 1] [2, 1, 1]\n"
        translate(2)
        assert run_job(folder) == "False [2, 2, 1] [2, 2, 1]\n"
        project(folder, {"space/inside.py": "a = 22\n"})
        assert run_job(folder) == "False [2, 2, 22] [2, 2, 22]\n"

    def test_a_folder_without_an_init_in_a_package_is_searched(self, tmp_path):
        """Also while that package is not loaded; and what the modules in it import."""
        job = textwrap.dedent("""
            import joblite
            def f(x):
                import outer.middle.bare.inner
                return outer.middle.bare.inner.tool(x)
            cached = joblite.Memory("cache", verbose=0).cache(f)
            print(cached.check_call_in_cache(1), cached(1), cached.check_call_in_cache(1))
            """)
        files = {"job.py": job, "outer/__init__.py": "", "outer/middle/__init__.py": ""}
        files["outer/middle/bare/inner.py"] = "from in_turn import tool\n"
        folder = project(tmp_path, {**files, "in_turn.py": TOOL})
        assert run_job(folder) == "False 2 True\n"
        assert run_job(folder) == "True 2 True\n"
        project(folder, {"in_turn.py": TOOL.replace("1", "2")})
        assert run_job(folder) == "False 3 True\n"

    def test_old_code_is_not_stored_under_a_new_source(self, tmp_path):
        """A module that was loaded before its file changed:
        its calls are computed, and explained."""
        folder = project(tmp_path, {"job.py": LATE_JOB, "late.py": "a = 1\n"})
        assert run_job(folder, "edit") == "1 False True\n"
        assert run_job(folder) == "22222 True False\n"
        project(folder, {"late.py": "a = 1\n"})
        assert run_job(folder) == "1 True False\n"

    def test_an_older_file_in_the_place_of_a_loaded_module_is_noticed(self, tmp_path):
        """Moving a file leaves its time as it is: what the process began
        with is told by the time of the move, too."""
        folder = project(tmp_path, {"job.py": LATE_JOB, "late.py": "a = 1\n", "kept.py": "a = 2\n"})
        os.utime(folder / "kept.py", (1e9, 1e9))
        assert run_job(folder, "move") == (
            "1 True False\n" if joblite.IS_WINDOWS else "1 False True\n"
        )
        assert run_job(folder).startswith("1" if joblite.IS_WINDOWS else "2")

    @pytest.mark.parametrize(
        "source, name",
        [
            ("RATES = {'rate': 1}\ndef __getattr__(name): return RATES[name]\n", "made"),
            (
                "RATES = {'rate': 1}\n"
                "class Kind(type(sys)):\n    made = property(lambda self: RATES['rate'])\n"
                "sys.modules[__name__].__class__ = Kind\n",
                "made",
            ),
            *(
                (f"RATES = {{'rate': 1}}\ndef {name}(): return RATES['rate']\n", name)
                for name in ("exit", "In", "_1")
            ),
        ],
    )
    def test_what_a_module_gives_under_any_name_counts(self, source, name, any_memory, monkeypatch):
        """By its `__getattr__` or class; and under a name that IPython uses in `__main__`,
        where the module is held."""
        module = types.ModuleType("gives_names")
        monkeypatch.setitem(sys.modules, "gives_names", module)
        exec("import sys\n" + source.replace("[name]", "['rate']"), vars(module))
        get = eval(
            "lambda x: gives_names.made" if name == "made" else f"lambda x: held[0].{name}()",
            {"__name__": "asking", "gives_names": module, "held": [module]},
        )
        cached = any_memory.cache(get)
        assert [cached(1), cached.check_call_in_cache(1)] == [1, True]
        module.RATES["rate"] = 2
        assert cached(1) == 2

    def test_annotations_that_are_replaced_count(self, any_memory):
        def noted(x: int):
            pass

        cached = any_memory.cache(lambda: noted.__annotations__["x"] in (int, "int"))
        assert [cached(), cached.check_call_in_cache()] == [True, True]
        noted.__annotations__ = {"x": str}
        assert cached() is False

    @posix
    def test_names_of_any_letters_do_in_a_system_that_knows_few(self, tmp_path):
        code = """
            import sys, joblite
            space = {"__name__": "m\\xf6dule"}
            exec("def \\u51fd(x): return x", space)
            cached = joblite.Memory(sys.argv[1]).cache(space["\\u51fd"])
            print(cached(1), cached.check_call_in_cache(1), len(cached.entries()))
            """
        env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        assert run_script(code, tmp_path, env=env).stdout == "1 True 1\n"

    def test_functions_of_one_name_in_modules_without_a_source_hit_again(self, tmp_path):
        """They are told apart by their order, which is the same in each process."""
        code = """
            import sys, types, joblite
            def make(n): return lambda: n
            for name in ("one", "two", "three"):
                sys.modules[name] = types.ModuleType(name)
                sys.modules[name].get = make(name)
            @joblite.Memory(sys.argv[1]).cache
            def f():
                import one, two, three
                return one.get() + two.get() + three.get()
            print(f(), len(f.entries()))
            """
        for seed in "0123":
            env = {"PYTHONHASHSEED": seed}
            assert run_script(code, tmp_path, env=env).stdout == "onetwothree 1\n"

    def test_a_class_without_a_module_counts_by_its_content(self, any_memory):
        bare = eval("type('Bare', (), {'rate': 1})", {})
        cached = any_memory.cache(lambda: bare.rate)
        assert [cached(), cached.check_call_in_cache()] == [1, True]
        bare.rate = 2
        assert cached() == 2

    @pytest.mark.skipif(joblite.IS_WINDOWS, reason="not everybody may make links there")
    def test_links_that_lead_nowhere_do_not_count(self, any_memory, tmp_path):
        """Editors lock files by such links."""
        folder = project(tmp_path / "folder", {"data": "1"})
        (folder / ".#data").symlink_to("somebody@somewhere")
        cached = any_memory.cache(lambda: (folder / "data").read_text(), depends=[folder])
        assert [cached(), cached.check_call_in_cache()] == ["1", True]
        (folder / ".#data").unlink()
        assert cached.check_call_in_cache()
        (folder / "data").write_text("22")
        assert cached() == "22"

    def test_a_module_that_warns_in_a_call_is_no_new_one(self, memory, tmp_path, monkeypatch):
        """What the interpreter notes in it (`__warningregistry__`) does not count."""
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        (tmp_path / "that_warns.py").write_text(
            "import warnings\ndef go(x):\n    warnings.warn('old')\n    return x\n"
        )
        import that_warns

        for function in (lambda x: that_warns.go(x), lambda x: [that_warns][0].go(x)):
            cached = memory.cache(function)
            with pytest.warns(UserWarning, match="old"):
                assert cached(1) == 1
            assert cached.check_call_in_cache(1)
        del sys.modules["that_warns"]

    @pytest.mark.parametrize("place", ["site-packages", "target"])
    def test_an_installed_function_counts_with_its_own_package(self, place, tmp_path):
        """Another installed package goes by its name. Installed: in site-packages,
        or beside a *.dist-info."""
        job = textwrap.dedent("""
            import sys, joblite
            sys.path.insert(0, sys.argv[1])
            from mine.core import compute
            cached = joblite.Memory("cache", verbose=0).cache(compute)
            print(cached.check_call_in_cache(1), cached(1))
            """)
        files = {
            "job.py": job,
            f"{place}/mine/__init__.py": "",
            f"{place}/other-1.dist-info/METADATA": "",
            f"{place}/mine/core.py": "from .more import g\nimport other\n"
            "def compute(x): return g(x), other.h(x)\n",
            f"{place}/mine/more.py": "def g(x): return 1\n",
            f"{place}/other.py": "def h(x): return 1\n",
        }
        folder = project(tmp_path, files)
        assert run_job(folder, place) == "False (1, 1)\n"
        project(folder, {f"{place}/mine/more.py": "def g(x): return 2\n"})
        assert run_job(folder, place) == "False (2, 1)\n"
        project(folder, {f"{place}/other.py": "def h(x): return 2\n"})
        assert run_job(folder, place) == "True (2, 1)\n"

    def test_a_package_may_be_installed_in_part(self, tmp_path):
        """One without an __init__ may lie in several folders: what is not installed is followed."""
        job = textwrap.dedent("""
            import sys, joblite
            sys.path.insert(0, "site-packages")
            import company.installed, company.own
            def f(x): return company.own.tool(x), company.installed.tool(x)
            cached = joblite.Memory("cache", verbose=0).cache(f)
            print(cached.check_call_in_cache(1), cached(1))
            """)
        parts = ["company/own.py", "site-packages/company/installed.py"]
        folder = project(tmp_path, {"job.py": job, **dict.fromkeys(parts, TOOL)})
        assert run_job(folder) == "False (2, 2)\n"
        assert run_job(folder) == "True (2, 2)\n"
        project(folder, {parts[1]: TOOL.replace("1", "2")})
        assert run_job(folder) == "True (2, 2)\n"
        project(folder, {parts[0]: TOOL.replace("1", "2")})
        assert run_job(folder) == "False (3, 3)\n"

    @posix
    def test_a_spawned_child_finds_what_its_parent_has_stored(self, tmp_path):
        """There the script's `__main__` is called `__mp_main__`."""
        job = textwrap.dedent("""
            import multiprocessing, joblite
            memory = joblite.Memory("cache", verbose=0)
            class Config: k = 2
            CONFIG, TABLE = Config(), {"a": Config}
            def helper(x): return x + TABLE["a"].k
            @memory.cache
            def f(x, config=CONFIG, g=helper): return g(x) + config.k
            def ask(x): return f.check_call_in_cache(x)
            if __name__ == "__main__":
                f(1)
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(pool.map(ask, [1, 2]))
            """)
        assert run_job(project(tmp_path, {"job.py": job})) == "[True, False]\n"

    def test_a_changed_cached_helper_recomputes_what_uses_it(self, tmp_path):
        """A cached function that calls another cached function follows it."""
        job = textwrap.dedent("""
            import sys, joblite
            memory = joblite.Memory(sys.argv[1], verbose=0)
            @memory.cache
            def inner(x): return x + 1
            @memory.cache
            def outer(x): return inner(x) * 10
            print(outer(1))
            """)
        folder = project(tmp_path, {"job.py": job})
        assert run_job(folder, "cache") == "20\n"
        project(folder, {"job.py": job.replace("x + 1", "x + 2")})
        assert run_job(folder, "cache") == "30\n"

    def test_a_reloaded_module_recomputes(self, memory, tmp_path, monkeypatch):
        """After importlib.reload the new code counts; a source file
        deleted after import changes nothing."""
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        path = tmp_path / "reloaded_part.py"
        path.write_text("def f(x): return x\n")
        module = importlib.import_module("reloaded_part")
        cached = memory.cache(module.f)
        assert cached(1) == 1
        path.unlink()
        assert cached.check_call_in_cache(1)
        path.write_text("def f(x): return x + 100\n")
        importlib.invalidate_caches()
        importlib.reload(module)
        assert memory.cache(module.f)(1) == 101
        assert cached(1) == 1
        del sys.modules["reloaded_part"]

    def test_wrapped_code_of_packages_leads_to_the_users_function(self, memory):
        """lru_cache, partial, contextmanager and cached_property are looked through."""
        space = {"__name__": "through"}
        source = textwrap.dedent("""
            import contextlib, functools
            @functools.lru_cache
            def a(x): return 1
            @contextlib.contextmanager
            def b(): yield 2
            c = functools.partial(lambda x, y: 3, 1)
            class D:
                @functools.cached_property
                def d(self): return 4
            def f(x):
                with b() as two: return (a(x), two, c(x), D().d)
            """)

        def cached_version(old, new):
            exec(source.replace(old, new), space)
            return memory.cache(space["f"])

        assert cached_version("", "")(0) == (1, 2, 3, 4)
        edits = [
            ("return 1", "return 10"),
            ("yield 2", "yield 20"),
            ("3, 1", "30, 1"),
            ("return 4", "return 40"),
        ]
        for old, new in edits:
            changed = cached_version(old, new)
            assert not changed.check_call_in_cache(0), old
            assert changed(0) == changed.func(0)
        assert cached_version("", "").check_call_in_cache(0)

    def test_depends_version_and_key_say_what_counts(self, memory, tmp_path):
        """depends adds files, functions and values; version replaces the code;
        key replaces the arguments."""
        data = tmp_path / "data.txt"
        data.write_text("one")
        read = memory.cache(lambda: data.read_text(), depends=[data])
        assert read() == "one"
        data.write_text("three")
        assert read() == "three"

        def build(text, **options):
            return memory.cache(eval(f"lambda x: {text}", {"__name__": "built"}), **options)

        assert build("1", version=1)(0) == 1
        assert build("2", version=1)(0) == 1
        assert build("2", version=2)(0) == 2
        assert not build("2", version=2, depends=[{"a": 1}]).check_call_in_cache(0)
        (tmp_path / "folder" / "inner").mkdir(parents=True)
        for name in ("a.txt", "inner/b.txt"):
            (tmp_path / "folder" / name).write_text("one")
        depending = memory.cache(lambda: 1, depends=[tmp_path / "folder"])
        for change in ("write_text", "unlink"):
            depending()
            assert depending.check_call_in_cache()
            getattr(tmp_path / "folder" / "inner" / "b.txt", change)(
                *["other"][: change == "write_text"]
            )
            assert not depending.check_call_in_cache()
        assert memory.cache(lambda: data.read_text(), depends=data)() == "three"
        data.write_text("four")
        assert memory.cache(lambda: data.read_text(), depends=data)() == "four"
        assert memory.cache(lambda: 1, depends="text").depends == ("text",)
        with pytest.raises(FileNotFoundError, match=": .*none"):
            memory.cache(lambda: 1, depends=[tmp_path / "none"])()
        by_length = memory.cache(lambda text: text.upper(), key=lambda text: len(text))
        assert [by_length("abc"), by_length("xyz"), by_length("four")] == ["ABC", "ABC", "FOUR"]

    def test_the_order_and_the_number_of_what_it_depends_on_count(self, any_memory, tmp_path):
        for folder in "abc":
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "data").write_text(folder)

        def cached(*depends):
            return any_memory.cache(lambda: 1, version=1, depends=depends)

        paths = [tmp_path / folder / "data" for folder in "abc"]
        for before, after in [
            ((True, False), (False, True)),
            ((True, False, True), (True, False, False)),
            (paths[:2], paths[1::-1]),
            ([*paths, paths[0]], [*paths, paths[1]]),
        ]:
            assert not cached(*before).check_call_in_cache()
            cached(*before)()
            assert cached(*before).check_call_in_cache()
            changed = cached(*after)
            assert not changed.check_call_in_cache() and changed.explain() > "computes: changed"

    def test_the_function_given_as_key_counts(self, any_memory):
        def last(pair):
            return pair

        by_first = any_memory.cache(last, key=lambda pair: pair[0])
        by_second = any_memory.cache(last, key=lambda pair: pair[1])
        assert by_first((1, 2)) == (1, 2) and by_second((3, 1)) == (3, 1)
        assert by_first((1, 5)) == (1, 2)

    def test_what_is_set_on_a_cached_function_counts(self, any_memory):
        @any_memory.cache
        def own(x):
            return x * own.factor

        @any_memory.cache
        def helper(x):
            return x

        @any_memory.cache
        def outer(x):
            return x * helper.factor

        for factor in 2, 3:
            own.factor = helper.factor = factor
            assert (own(1), outer(1)) == (factor, factor)
        assert own.check_call_in_cache(1)

    def test_a_coroutine_is_named_when_it_runs(self, any_memory):
        async def work():
            nonlocal rate
            waiting = cached([1])
            rate = 2
            first = await waiting
            rate = 1
            return first, await cached([1])

        @any_memory.cache
        async def cached(values):
            return rate

        rate = 1
        assert asyncio.run(work()) == (2, 1)

    def test_a_notebook_cell_hits_again_and_a_copy_of_the_notebook_too(self, tmp_path):
        """Functions of cells: run again hits, edited recomputes,
        another notebook with the same cell hits."""
        code = """
            import sys, joblite
            sys.argv.pop(0)
            cache, cell, text = sys.argv
            space = sys.modules["__main__"].__dict__
            memory = joblite.Memory(cache, verbose=0)
            exec(compile(text, f"<ipython-input-{cell}>", "exec"), space)
            print(f.check_call_in_cache(1), f(1))
            """
        cell = "OFFSET = 1\n@memory.cache\ndef f(x):\n    return x + OFFSET\n"
        cache = tmp_path / "cache"
        runs = [
            ("1", cell),
            ("7", cell),
            ("8", "\n# again\n" + cell),
            ("9", cell.replace("OFFSET = 1", "OFFSET = 2")),
        ]
        done = [run_script(code, cache, *run).stdout for run in runs]
        assert done == ["False 2\n", "True 2\n", "True 2\n", "False 3\n"]

    def test_a_pipeline_computes_only_what_a_changed_helper_touches(self, tmp_path):
        """Three cached steps; a helper of the second changes and changes back."""
        code = """
            import sys
            from joblite import Memory
            memory = Memory(sys.argv[1], verbose=0)
            def weight(word): return len(word)
            @memory.cache
            def words(text):
                print("words", end=" ")
                return text.split()
            @memory.cache
            def weigh(items):
                print("weigh", end=" ")
                return [weight(item) for item in items]
            @memory.cache
            def total(numbers):
                print("total", end=" ")
                return sum(numbers)
            def pipeline(): return total(weigh(words("to be or not")))
            print(pipeline())
            print(pipeline())
            def weight(word): return len(word) ** 2
            print(weigh.explain(["to", "be", "or", "not"]))
            print(pipeline())
            def weight(word): return len(word)
            print(pipeline())
            """
        assert run_script(code, tmp_path).stdout.splitlines() == [
            "words weigh total 9",
            "9",
            "computes: changed since: __main__.weight",
            "weigh total 21",
            "9",
        ]

    # ---- the arguments

    def test_spellings_of_one_call_are_one_entry(self, any_memory):
        """Positional, keyword and default spellings are one key; other arguments are another."""
        calls = []

        def function(a, /, b, *rest, c=3, **more):
            calls.append(a)
            return (a, b, rest, c, more)

        cached = any_memory.cache(function)
        same = [cached(1, 2), cached(1, b=2), cached(1, b=2, c=3), cached(1, 2, c=3)]
        assert same == [(1, 2, (), 3, {})] * 4
        assert len(calls) == 1
        assert cached(1, 2, 3) == (1, 2, (3,), 3, {})
        assert cached(1, 2, z=1, y=2) == cached(1, 2, y=2, z=1)
        assert cached(1, 2, a=5) == (1, 2, (), 3, {"a": 5})
        assert len(calls) == 4

    def test_a_decorator_with_parameters_of_its_own_binds_by_them(self, any_memory):
        """The defaults of the function inside count only where its
        wrapper hands on whatever it gets."""

        def inner(x, n=1):
            return x * n

        def own_default(x, n=5):
            return inner(x, n)

        def other_order(n, x):
            return inner(x, n)

        def only_named(*args, n=7):
            return inner(*args, n)

        class Caller:
            def __init__(self):
                functools.update_wrapper(self, inner)

            def __call__(self, x, n=8):
                return inner(x, n)

        calls = [
            ((3, 1), {}),
            ((3,), {"n": 2}),
            ((3,), {"n": 1}),
            ((3,), {}),
            ((1,), {"n": 3}),
            ((), {"x": 2, "n": 9}),
        ]
        for outer in (own_default, other_order, only_named, Caller()):
            function = outer if isinstance(outer, Caller) else functools.wraps(inner)(outer)
            cached = any_memory.cache(function)
            for args, kwargs in calls:
                try:
                    expected = function(*args, **kwargs)
                except TypeError:  # not a call that this one takes
                    continue
                assert cached(*args, **kwargs) == expected

    def test_a_parameter_may_have_any_name_also_under_a_decorator(self, any_memory):
        """No label of ours stands for it."""

        def handed_on(function):
            @functools.wraps(function)
            def handing(*args, **kwargs):
                return function(*args, **kwargs)

            return handing

        cached = any_memory.cache(handed_on(lambda more, *rest: (more, rest)))
        for args in [(1,), (2,), (1, 3), (2, 3), (2, 4)]:
            assert cached(*args) == (args[0], args[1:])

    def test_a_decorator_may_tell_the_spellings_of_a_call_apart(self, any_memory):
        """What it takes for the function inside may mean something to itself:
        a default of its own, a keyword given."""

        def inner(a, b=2):
            return (a, b)

        @functools.wraps(inner)
        def with_default(*args, **kwargs):
            kwargs.setdefault("b", 10)
            return inner(*args, **kwargs)

        @functools.wraps(inner)
        def counts(a, *args, **kwargs):
            return (a, len(args), sorted(kwargs))

        for outer in (with_default, counts, functools.wraps(inner)(counts)):
            cached = any_memory.cache(outer)
            for args, kwargs in [
                ((1,), {}),
                ((1,), {"b": 2}),
                ((1,), {"b": 10}),
                ((), {"a": 1}),
                ((), {"b": 3, "a": 1}),
            ]:
                assert cached(*args, **kwargs) == outer(*args, **kwargs)
                assert cached.check_call_in_cache(*args, **kwargs)

    def test_the_names_of_the_function_inside_can_be_ignored(self, any_memory):
        """Also where the decorator names the first parameters, as those of methods do."""

        def plain(self, x, n=1):
            return (self, x, n)

        @functools.wraps(plain)
        def named(self, *args, **kwargs):
            return plain(self, *args, **kwargs)

        for function in (counted(plain), functools.wraps(plain)(named), functools.lru_cache(plain)):
            cached = any_memory.cache(function, ignore=["self"])
            assert cached(1, 2) == (1, 2, 1)
            assert cached.check_call_in_cache(5, 2)

    def test_the_arguments_of_a_decorated_function_have_the_names_inside(self, any_memory):
        """Those given by place; keywords may come in any order."""

        def inner(a, b=2, c=3):
            return (a, b, c)

        @functools.wraps(inner)
        def handing(*args, **kwargs):
            return inner(*args, **kwargs)

        cached = any_memory.cache(handing)
        assert cached(1, c=5, b=4) == (1, 4, 5) and cached.check_call_in_cache(1, b=4, c=5)
        assert cached.call(1, 6)[1]["input_args"] == {"a": "1", "b": "6"}

    def test_arguments_may_be_called_self(self, memory):
        """Every way to name a call takes the keywords that the function takes."""
        for function in (
            lambda self, func=1: (self, func),
            lambda **more: (more["self"], more["func"]),
        ):
            cached = memory.cache(function)
            assert cached(self=5, func=6) == cached.call(self=5, func=6)[0] == (5, 6)
            assert cached.call_and_shelve(self=5, func=6).get() == (5, 6)
            assert cached.check_call_in_cache(self=5, func=6) and cached.explain(
                self=5, func=6
            ).startswith("hits")
            assert cached.forget(self=5, func=6) and not cached.check_call_in_cache(self=5, func=6)

    def test_arguments_of_another_type_are_another_call(self, any_memory):
        """1, 1.0, True and "1" are four calls; equal dicts in another order are two,
        for code can see it."""
        cached = any_memory.cache(lambda x: repr(x))
        found = [cached(x) for x in (1, 1.0, True, "1", None, b"1", [1], (1,))]
        assert found == "1 1.0 True '1' None b'1' [1] (1,)".split()
        for value in (
            {"a": 1, "b": 2},
            {"b": 2, "a": 1},
            [{"b": {1: 2, 3: 4}}],
            [{"b": {3: 4, 1: 2}}],
        ):
            assert cached(value) == repr(value)

    def test_wrong_arguments_raise_what_the_plain_call_raises(self, any_memory):
        """TypeError with the interpreter's own text, and nothing is kept."""

        def plain(a, b=1):
            return a

        cached = any_memory.cache(plain)
        for args, kwargs in [((), {}), ((1, 2, 3), {}), ((1,), {"a": 2}), ((1,), {"z": 2})]:
            with pytest.raises(TypeError) as wanted:
                plain(*args, **kwargs)
            with pytest.raises(TypeError) as got:
                cached(*args, **kwargs)
            assert str(got.value) == str(wanted.value)
        assert cached.entries() == []

    def test_ignored_arguments_do_not_matter(self, any_memory):
        """ignore works by name, through functools.wraps, for *args and **kwargs;
        an unknown name is an error."""
        function = counted(lambda x, y=1: (x, y))
        cached = any_memory.cache(function, ignore=["y"])
        assert [cached(1, 2), cached(1, y=3), cached(1)] == [(1, 2)] * 3
        more = any_memory.cache(lambda x, *args, **kwargs: (x, args, kwargs), ignore=["*", "**"])
        assert more(1, 2, a=3) == more(1, 5, b=4)
        assert any_memory.cache(function, ignore=np.array(["x", "y"])).ignore == ["x", "y"]
        assert any_memory.cache(lambda x, note: x, ignore="note").ignore == ["note"]
        for refusing, names in ((function, "x, y"), (lambda x, *args: x, r"x, \*")):
            with pytest.raises(
                ValueError, match=rf"expected names of arguments .*\({names}\), got \['z'\]"
            ):
                any_memory.cache(refusing, ignore=["z"])

    def test_ignore_lets_no_call_pass_that_does_not_fit(self, any_memory):
        """A positional parameter that is ignored takes no keyword, not even a wrong one."""
        cached = any_memory.cache(lambda x=0, /, **more: more, ignore=["x"])
        assert [cached(5), cached(), cached(x=1), cached(x=2)] == [{}, {}, {"x": 1}, {"x": 2}]
        lock = threading.Lock()
        cached = any_memory.cache(lambda lock=None, /: 1, ignore=["lock"])
        assert cached(lock) == 1
        for args, kwargs in [((lock, 2), {}), ((), {"lock": 2}), ((lock,), {"z": 2})]:
            with pytest.raises(TypeError, match=r"<lambda>\(\) (takes|got)"):
                cached(*args, **kwargs)

    def test_ignored_stars_of_a_decorator_hide_no_argument(self, any_memory):
        """It cannot be told which of them the function inside has a name for."""
        with pytest.raises(ValueError, match=r"expected names of arguments .*\(x\), got"):
            any_memory.cache(counted(lambda x: x), ignore=["**"])

    def test_a_function_that_changes_its_argument_keeps_the_right_key(self, any_memory):
        """Arguments are named before the call."""
        cached = any_memory.cache(lambda items: items.append(0) or len(items))
        assert [cached([1]), cached([1]), cached([1, 0])] == [2, 2, 3]

    def test_an_argument_that_cannot_be_named_is_an_error_that_says_what_to_do(self, any_memory):
        cached = any_memory.cache(lambda lock: 1)
        with pytest.raises(
            pickle.PicklingError, match="argument 'lock' of type lock.*ignore=\\['lock'\\].*key="
        ):
            cached(threading.Lock())

    def test_a_changed_result_does_not_change_the_cache(self, any_memory):
        cached = any_memory.cache(lambda: [1, 2])
        cached().append(3)
        cached().append(4)
        assert cached() == [1, 2]

    # ---- what can be cached

    def test_methods_bind_and_count_their_object(self, any_memory):
        """Methods, classmethods and staticmethods, in both orders of decorators;
        the state of self is an argument."""

        class Thing:
            def __init__(self, state):
                self.state = state

            @any_memory.cache
            def method(self, x):
                return (self.state, x)

            @classmethod
            @any_memory.cache
            def of_class(cls, x):
                return (cls.__name__, x)

            @any_memory.cache
            @classmethod
            def of_class_too(cls, x):
                return (cls.__name__, x)

            @staticmethod
            @any_memory.cache
            def static(x):
                return x

            @any_memory.cache
            @staticmethod
            def static_too(x):
                return x

        one, two = Thing(1), Thing(2)
        assert [one.method(5), two.method(5), Thing(1).method(x=5)] == [(1, 5), (2, 5), (1, 5)]
        assert one.method.check_call_in_cache(5) and not one.method.check_call_in_cache(6)
        assert [Thing.of_class(1), one.of_class_too(1), Thing.of_class_too(1)] == [("Thing", 1)] * 3
        assert [Thing.static(1), one.static(2), Thing.static_too(1), one.static_too(2)] == [
            1,
            2,
            1,
            2,
        ]
        assert len(Thing.of_class_too.entries()) == 1
        assert one.method.func(5) == any_memory.cache(one.method)(5) == (1, 5), (
            "bound once, it stays so"
        )
        one.state = 9
        assert one.method(5) == (9, 5)

    def test_a_bound_method_cached_in_init_works(self, any_memory):
        """The classic `self.f = memory.cache(self.f)`; two such
        objects of equal content share results."""

        class Thing:
            def __init__(self, state):
                self.state = state
                self.run = any_memory.cache(self.run)

            def run(self, x):
                return (self.state, x)

        assert [Thing(1).run(2), Thing(3).run(2)] == [(1, 2), (3, 2)]
        assert Thing(1).run.check_call_in_cache(2)

    def test_partials_ufuncs_builtins_and_callable_objects_cache(self, any_memory):
        class Adder:
            def __init__(self, n):
                self.n = n

            def __call__(self, x):
                return x + self.n

        half, third = functools.partial(pow, 2), functools.partial(pow, 3)
        for function in (half, third, Adder(1), Adder(2), np.add.reduce, math.gcd, max, int):
            cached = any_memory.cache(function)
            args = (
                ([4, 6],)
                if function in (np.add.reduce, max)
                else (4, 6)
                if function is math.gcd
                else (4,)
            )
            assert cached(*args) == cached(*args) == function(*args)
            assert cached.check_call_in_cache(*args)
        assert any_memory.cache(np.multiply)(3, 4) == 12

    def test_what_a_callable_carries_is_told_from_its_arguments(self, any_memory):
        """Objects of different content, and partials, whose
        parameters have the names `object` and `partial`."""

        class Adder:
            def __init__(self, n):
                self.n = n

            def __call__(self, object):
                return object + self.n

        def add(n, partial):
            return n + partial

        functions = [Adder(1), Adder(2), functools.partial(add, 3), functools.partial(add, 4)]
        assert [any_memory.cache(function)(10) for function in functions] == [11, 12, 13, 14]

    def test_generators_are_refused(self, any_memory):
        def numbers():
            yield 1

        async def later():
            yield 1

        for function in (numbers, later):
            with pytest.raises(TypeError, match="got a generator function.*return a list"):
                any_memory.cache(function)
        with pytest.raises(TypeError, match="expected a function, got 3"):
            any_memory.cache(3)

    def test_coroutine_functions_are_awaited_and_computed_once(self, any_memory):
        """Many tasks with one missing call: one computes,
        the others wait without blocking the loop."""
        calls = []

        @any_memory.cache
        async def fetch(x):
            calls.append(x)
            await asyncio.sleep(0)
            return [x]

        async def main():
            many = await asyncio.gather(*(fetch(n % 3) for n in range(60)))
            value, about = await fetch.call(1)
            shelved = await fetch.call_and_shelve(2)
            return (
                many,
                value,
                about["input_args"],
                shelved.get(),
                await any_memory.eval(fetch.func, 1),
            )

        assert asyncio.run(main()) == ([[n % 3] for n in range(60)], [1], {"x": "1"}, [2], [1])
        assert sorted(calls) == [0, 1, 1, 2]

    def test_an_object_whose_call_is_a_coroutine_function_is_awaited(self, any_memory):
        calls = []

        class Fetch:
            async def __call__(self, x):
                calls.append(x)
                return x

        async def main():
            fetch = any_memory.cache(Fetch())
            return [await fetch(1), await fetch(1)]

        assert [asyncio.run(main()), calls] == [[1, 1], [1]]

    def test_a_cancelled_owner_frees_the_waiting_tasks(self, memory):
        started = []

        @memory.cache
        async def fetch(x):
            started.append(x)
            if len(started) == 1:
                await asyncio.Event().wait()
            return x

        async def main():
            first = asyncio.ensure_future(fetch(1))
            while not started:
                await asyncio.sleep(0)
            second = asyncio.ensure_future(fetch(1))
            await asyncio.sleep(0)
            first.cancel()
            return await asyncio.wait_for(second, DEADLINE)

        assert asyncio.run(main()) == 1

    def test_a_function_that_calls_itself_with_the_same_arguments_does_not_hang(self, any_memory):
        depth = []

        @any_memory.cache
        def again(x):
            depth.append(x)
            return again(x) if len(depth) < 3 else len(depth)

        assert again(1) == 3

    def test_it_looks_like_the_function(self, memory):
        """Name, doc, signature, attributes; repr shows location and function."""

        def documented(a, b=2):
            """Text."""

        documented.extra = 5
        cached = memory.cache(documented, ignore=["b"], mmap_mode="r")
        assert (cached.__name__, cached.__doc__, cached.extra) == ("documented", "Text.", 5)
        assert str(inspect.signature(cached)) == "(a, b=2)"
        assert (cached.func, cached.ignore, cached.mmap_mode) == (documented, ["b"], "r")
        assert repr(memory.location) in repr(cached) and "documented" in repr(cached)
        assert repr(memory.location) in repr(memory)

    def test_memory_and_cached_functions_pickle(self, any_memory, tmp_path):
        """By name where they can be imported, by their parts otherwise;
        bound ones with their object."""
        copy = pickle.loads(pickle.dumps(any_memory))
        assert (copy.location, copy.verbose, copy.backend) == (any_memory.location, 0, "local")
        again = pickle.loads(pickle.dumps(any_memory.cache(math.sqrt)))
        assert again(4) == 2.0
        nameless = [
            any_memory.cache(each)
            for each in (functools.partial(pow, 2), operator.attrgetter("imag"))
        ]
        assert [each(5) for each in pickle.loads(pickle.dumps(nameless))] == [32, 0]
        code = """
            import sys, pickle, joblite
            memory = joblite.Memory(sys.argv[1], verbose=0)
            @memory.cache
            def f(x): return x + 1
            class C:
                @memory.cache
                def m(self, x): return x + 2
            assert pickle.loads(pickle.dumps(f)) is f
            bound = pickle.loads(pickle.dumps(C().m))
            print(f(1), bound(1))
            """
        assert run_script(code, tmp_path / "c").stdout == "2 3\n"

    def test_cached_functions_of_main_work_inside_parallel_and_hit_at_home(self, tmp_path):
        """Sent by value to processes, recursive through their own cached name,
        they keep what the caller finds."""
        code = """
            import os, sys, joblite
            from joblite import Parallel, delayed
            memory = joblite.Memory(sys.argv[1], verbose=0)
            OFFSET = 1
            def helper(x): return x + OFFSET
            @memory.cache
            def f(x): return helper(x) if x < 2 else f(x - 1) + f(x - 2)
            if os.name == "posix" or __name__ == "__main__":
                print(Parallel(2)(delayed(f)(i) for i in range(6)),
                      [f.check_call_in_cache(i) for i in range(7)])
            """
        assert run_script(code, tmp_path).stdout == f"[1, 2, 3, 5, 8, 13] {[True] * 6 + [False]}\n"

    def test_a_mapped_result_is_the_same_argument_as_its_array(self, tmp_path):
        memory = joblite.Memory(tmp_path, verbose=0, mmap_mode="r")
        make, total = memory.cache(lambda n: np.arange(n)), memory.cache(lambda array: array.sum())
        make(1000)
        total(make(1000))
        assert total.check_call_in_cache(np.arange(1000))

    # ---- questions and small services

    def test_questions_change_nothing(self, memory, recwarn):
        """check_call_in_cache, entries and explain write, delete, compute and warn of nothing,
        even over damage."""
        function = counted()
        cached = memory.cache(function)
        folder = Path(memory.location)
        assert not cached.check_call_in_cache(1) and not folder.exists()
        cached(1), cached(2)
        Path(entry_files(folder)[0]).write_bytes(b"damaged")
        before, calls = snapshot(folder), len(function.calls)
        for x in (1, 2, 3):
            cached.check_call_in_cache(x), cached.explain(x), cached.entries()
        assert (snapshot(folder), len(function.calls), len(recwarn)) == (before, calls, 0)

    def test_explain_names_what_is_new(self, memory):
        """never called, another argument, a changed name, expired, refused, hit."""
        space = {"__name__": "explained"}
        source = "RATE = 1\ndef helper(x): return x * RATE\ndef f(x, y): return helper(x) + y\n"
        exec(source, space)
        cached = memory.cache(space["f"])
        assert cached.explain(1, 2) == "computes: nothing is kept for explained.f"
        cached(1, 2)
        assert cached.explain(1, 2) == "hits"
        assert cached.explain(1, 3) == "computes: changed since: y (it was 2)"
        space["RATE"] = 5
        assert cached.explain(1, 2) == "computes: changed since: explained.RATE"
        counter = {"__name__": "explained", "COUNT": {"calls": 0}}
        counting = memory.cache(eval("lambda: COUNT.update(calls=COUNT['calls'] + 1)", counter))
        counting()
        assert counting.explain() == "computes: changed since: explained.COUNT"
        exec(source.replace("x * RATE", "x"), space)
        assert "explained.helper" in memory.cache(space["f"]).explain(1, 2)
        memory.cache(math.cos, version=1)(0)
        later = memory.cache(math.cos, version=2)
        assert later.explain(0) == "computes: changed since: version, depends or key"
        refusing = memory.cache(math.sqrt, cache_validation_callback=lambda about: None)
        refusing(4)
        assert "refused by the callback" in refusing.explain(4)
        expired = memory.cache(
            math.sqrt, cache_validation_callback=joblite.expires_after(seconds=0)
        )
        assert "expired" in expired.explain(4)

    def test_entries_list_what_is_kept_and_forget_removes_one(self, any_memory):
        cached = any_memory.cache(lambda x, y=2: [x] * 10)
        cached(1), cached("text")
        kept = cached.entries()
        assert [entry.arguments for entry in kept] == ["x='text', y=2", "x=1, y=2"]
        assert all(entry.current and entry.nbytes > 0 and entry.duration >= 0 for entry in kept)
        assert cached.forget("text") and not cached.forget("text")
        assert [entry.arguments for entry in cached.entries()] == ["x=1, y=2"]

    def test_call_always_runs_and_gives_metadata(self, any_memory):
        calls = []

        def function(x, y=1):
            calls.append(x)
            return x

        cached = any_memory.cache(function)
        (first, about), (second, _) = cached.call(3), cached.call(3)
        assert (first, second, len(calls), cached(3), len(calls)) == (3, 3, 2, 3, 2)
        assert (
            about["input_args"] == {"x": "3", "y": "1"}
            and about["duration"] >= 0
            and about["time"] > 0
        )

    def test_a_result_is_as_old_as_the_end_of_its_computation(self, any_memory):
        """Else one that takes longer than it may be kept would never be read."""
        ends = []

        def function():
            before = time.time()
            while time.time() == before:
                pass
            ends.append(time.time())

        about = any_memory.cache(function).call()[1]
        assert about["time"] >= ends[0] and about["duration"] > 0

    def test_a_cached_function_pickles_after_a_call_whatever_its_defaults_are(
        self, any_memory, monkeypatch
    ):
        """A default that cannot be pickled stays with the function, which goes by its name."""
        monkeypatch.setattr(textwrap.indent, "__defaults__", (threading.Lock(),))
        cached = any_memory.cache(textwrap.indent)
        for _ in range(2):
            assert (
                pickle.loads(pickle.dumps(cached))("a", "- ", None)
                == cached("a", "- ", None)
                == "- a"
            )

    def test_a_shelved_result_can_be_got_cleared_pickled_and_pasted(self, any_memory):
        cached = any_memory.cache(lambda x: [x])
        result = cached.call_and_shelve(5)
        assert result.get() == pickle.loads(pickle.dumps(result)).get() == [5]
        assert result.metadata["input_args"] == {"x": "5"}
        if any_memory.location:
            assert eval(repr(result), {"MemorizedResult": joblite.MemorizedResult}).get() == [5]
        result.clear()
        result.clear()
        with pytest.raises(KeyError, match="not in the cache any more"):
            result.get()

    def test_a_shelved_value_that_the_store_did_not_take_costs_no_more_warnings(
        self, memory, monkeypatch
    ):
        def fail(*_):
            raise OSError("no such luck")

        monkeypatch.setattr(memory.store, "write", fail)
        monkeypatch.setattr(memory.store, "open", fail)
        with pytest.warns(UserWarning, match="no such luck"):
            result = memory.cache(lambda x: [x]).call_and_shelve(5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert result.get() == pickle.loads(pickle.dumps(result)).get() == [5]

    def test_a_validation_callback_decides(self, any_memory):
        """It gets the metadata; any false answer recomputes; what is not callable is refused."""
        seen, answers, function = [], [True, None, True], counted()

        def accepts(about):
            seen.append(about)
            return answers.pop(0)

        cached = any_memory.cache(function, cache_validation_callback=accepts)
        assert [cached(1) for _ in range(4)] == [1] * 4
        assert len(function.calls) == 2
        assert all({"time", "duration", "input_args"} <= set(about) for about in seen)
        with pytest.raises(
            ValueError, match="cache_validation_callback: expected a function or None, got 5"
        ):
            any_memory.cache(function, cache_validation_callback=5)

    def test_a_validation_callback_does_not_hide_damage(self, memory):
        """What cannot be read is warned of once, and the callback is not asked about it."""
        asked, function = [], counted()
        cached = memory.cache(function, cache_validation_callback=asked.append)
        cached(1)
        entry_files(memory.location)[0].write_bytes(b"damaged")
        with pytest.warns(UserWarning, match="counts as missing") as told:
            assert cached(1) == 1
        assert (len(told), len(function.calls), asked) == (1, 2, [])

    def test_clear_removes_the_functions_results_or_all(self, any_memory, capsys):
        one, two = any_memory.cache(lambda x: x), any_memory.cache(lambda y: y + 1)
        two.func.__name__ = "two"
        one(1), two(1), any_memory.cache(math.sqrt)(4)
        any_memory.cache(math.sqrt).clear(warn=False)
        assert any_memory.cache(math.sqrt).entries() == []
        assert one.check_call_in_cache(1)
        any_memory.clear(warn=False)
        assert not one.check_call_in_cache(1) and not two.check_call_in_cache(1)
        assert capsys.readouterr() == ("", "")

    def test_clear_leaves_what_is_not_ours(self, memory):
        """Foreign files beside, another format version, and the .gitignore stay."""
        memory.cache(math.sqrt)(4)
        base = Path(memory.location)
        (base / "joblite" / "v0" / "x").mkdir(parents=True)
        for path in (base / "mine.txt", base / "joblite" / "v0" / "x" / "old"):
            path.write_text("keep")
        (base / "joblite" / ".gitignore").write_text("own rules")
        memory.clear(warn=False)
        memory.cache(math.sqrt)(4)
        assert (base / "mine.txt").exists() and (base / "joblite" / "v0" / "x" / "old").exists()
        assert (base / "joblite" / ".gitignore").read_text() == "own rules"

    @posix
    def test_the_folder_is_private_and_ignored_by_git(self, memory, tmp_path, recwarn):
        old = os.umask(0)
        try:
            memory.cache(math.sqrt)(4)
            shared = joblite.Memory(tmp_path / "shared", verbose=0, backend_options={"mode": 0o770})
            shared.cache(math.sqrt)(4)
        finally:
            os.umask(old)
        base = Path(memory.location, "joblite")
        assert (base / ".gitignore").read_text() == "*\n"
        ours = [path for path in [base.parent, *base.rglob("*")] if path.name != ".gitignore"]
        modes = {path: path.stat().st_mode & 0o777 for path in ours}
        assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
        assert (tmp_path / "shared" / "joblite" / "v1").stat().st_mode & 0o777 == 0o770
        assert len(recwarn) == 0

    @posix
    @pytest.mark.parametrize("folder", [".", "joblite", "joblite/v1"])
    @pytest.mark.parametrize(
        "spoil, expected",
        [
            (lambda path: path.chmod(0o777), "others can write to it, .*chmod go-w"),
            (
                lambda path: os.chown(path, 12345, 12345),
                "belongs to another user, .*; use a folder of your own",
            ),
            (lambda path: (os.chown(path, -1, 12345), path.chmod(0o770)), "others can write to it"),
            (lambda path: path.chmod(0o755), None),
        ],
        ids=["all may write", "of another user", "a group may write", "all may read"],
    )
    def test_a_folder_where_others_can_put_entries_is_warned_about_once(
        self, folder, spoil, expected, tmp_path
    ):
        if os.getuid() and expected and "chmod" not in expected:
            pytest.skip("needs root")
        cached = joblite.Memory(tmp_path / "cache", verbose=0).cache(math.sqrt)
        cached(4)
        spoil(tmp_path / "cache" / folder)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            again = joblite.Memory(tmp_path / "cache", verbose=0).cache(math.sqrt)
            assert not told, "only at the first use"
            assert again(4) == again(4) == pickle.loads(pickle.dumps(again))(4) == 2
        assert len(told) == bool(expected)
        assert re.search(expected or "", str([str(each.message) for each in told]))

    @posix
    def test_a_shared_or_sticky_folder_is_not_warned_about(self, tmp_path):
        """Where `mode` shares the cache, and where others cannot replace our folder, as in /tmp."""
        (tmp_path / "sticky").mkdir()
        (tmp_path / "sticky").chmod(0o1777)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for name, options in (("sticky", {}), ("shared", {"mode": 0o770})):
                for _ in range(2):
                    joblite.Memory(tmp_path / name, verbose=0, backend_options=options).cache(
                        math.sqrt
                    )(4)

    @pytest.mark.parametrize(
        "tamper",
        [
            lambda path, other: path.write_bytes(pickle.dumps(Witness())),
            lambda path, other: joblite.dump(Witness(), path),
            lambda path, other: path.write_bytes(other.read_bytes()),
            lambda path, other: path.write_bytes(path.read_bytes()[:-1]),
            lambda path, other: path.write_bytes(path.read_bytes()[:20]),
            lambda path, other: path.write_bytes(path.read_bytes() + b"x"),
            lambda path, other: path.write_bytes(path.read_bytes()[32:]),
            lambda path, other: path.write_bytes(b""),
            *[
                lambda path, other, secret=secret: (
                    joblite.Memory(path.parents[3], verbose=0, backend_options=secret)
                    .cache(witness_of, version=1)
                    .call(1)
                )
                for secret in ({}, {"secret": b"another"})
            ],
        ],
        ids=[
            "a pickle",
            "a dump",
            "another entry",
            "cut",
            "cut in the signature",
            "longer",
            "without signature",
            "empty",
            "written without a secret",
            "written with another secret",
        ],
    )
    def test_what_the_secret_did_not_sign_is_never_unpickled(self, tamper, tmp_path, monkeypatch):
        """It counts as missing, with one warning, for values and metadata alike."""
        monkeypatch.setattr(sys.modules[__name__], "WITNESSED", witnessed := [])
        memory = joblite.Memory(
            tmp_path / "cache", verbose=0, backend_options={"secret": b"known to us"}
        )
        cached = memory.cache(witness_of, version=1)
        results = [cached.call_and_shelve(n) for n in (1, 2)]
        path, other = (
            Path(memory.location, "joblite", "v1", cached._name((n,), {}).key) for n in (1, 2)
        )
        witnessed.clear()
        assert isinstance(cached(1), Witness) and witnessed.pop() == "made"
        tamper(path, other)
        witnessed.clear()
        assert (
            not cached.check_call_in_cache(1)
            and results[0].metadata == {}
            and "computes" in cached.explain(1)
        )
        assert len(cached.entries()) == 1
        with pytest.warns(UserWarning, match="counts as missing") as told, pytest.raises(KeyError):
            results[0].get()
        with pytest.warns(UserWarning, match="not written with the secret of this cache") as told:
            cached(1)
        assert len(told) == 1 and witnessed == []
        assert isinstance(cached(1), Witness) and witnessed == ["made"]

    def test_each_flipped_byte_of_a_signed_entry_is_found(self, tmp_path):
        cached = joblite.Memory(
            tmp_path, verbose=0, backend_options={"secret": b"known to us"}
        ).cache(counted())
        cached(1)
        [path] = entry_files(tmp_path)
        whole = path.read_bytes()
        for place in range(len(whole)):
            overwrite(path, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert not cached.check_call_in_cache(1)
        with pytest.warns(UserWarning, match="counts as missing"):
            assert joblite.Memory(tmp_path, verbose=0).cache(cached.func)(1) == 1, (
                "without a secret it is read by none"
            )

    @pytest.mark.usefixtures("by_value")
    def test_the_secret_stays_in_memory(self, tmp_path, processes):
        """Workers have it; files, texts and errors do not, and what comes from a file says so."""
        secret = b"open sesame"
        memory = joblite.Memory(tmp_path / "cache", verbose=0, backend_options={"secret": secret})
        cached = memory.cache(square_text)
        shelved = cached.call_and_shelve(1)
        for thing in (memory, cached, shelved, memory.cache(functools.partial(square_text, 1))):
            joblite.dump(thing, tmp_path / "dumped")
            assert secret not in (tmp_path / "dumped").read_bytes() + pickle.dumps(shelved)
            assert secret.decode() not in repr(thing) + str(cached.call(1)[1]) + cached.explain(1)
        assert all(
            secret not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
        )
        tasks = [delayed(cached.check_call_in_cache)(1), delayed(shelved.get)(), delayed(cached)(2)]
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            assert Parallel(**processes)(tasks) == [True, square_text(1), square_text(2)]
            assert cached.check_call_in_cache(2)
        loaded = pickle.loads(pickle.dumps(memory)).cache(square_text)
        with pytest.warns(UserWarning, match="its secret does not travel in files"):
            assert loaded(3) == square_text(3)
        assert not cached.check_call_in_cache(3)
        with pytest.raises(ValueError, match="secret: expected some bytes, got <class 'str'>"):
            joblite.Memory(tmp_path, backend_options={"secret": secret.decode()})
        with pytest.raises(TypeError) as raised:
            joblite.Memory(tmp_path, backend_options={"secret": secret, "speed": 1})
        assert secret.decode() not in str(raised.value)
        with pytest.warns(UserWarning, match="mmap_mode excludes compress and secret"):
            assert (
                joblite.Memory(
                    tmp_path, mmap_mode="r", backend_options={"secret": secret}
                ).mmap_mode
                is None
            )

    @posix
    def test_two_spellings_of_a_location_are_one_cache(self, tmp_path, monkeypatch):
        """A symbolic link, a detour, a relative path: one location, and so one lock."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        places = [
            joblite.Memory(place) for place in ("real", "link", "link/../real", tmp_path / "link")
        ]
        assert {memory.location for memory in places} == {str(tmp_path / "real")}
        shelved = places[1].cache(math.sqrt).call_and_shelve(4)
        assert joblite.MemorizedResult("link", shelved.func, shelved.args_id).get() == 2

    def test_a_location_is_a_text_or_a_path_and_made_absolute(self, tmp_path, monkeypatch):
        """After os.chdir the same folder is meant; odd characters are fine."""
        monkeypatch.chdir(tmp_path)
        odd = "caché 'x' %s\n#" if os.name == "posix" else "caché 'x' %s#"
        one, two = joblite.Memory(odd, verbose=0), joblite.Memory(Path(odd), verbose=0)
        assert one.location == two.location == str(tmp_path / odd)
        one.cache(math.sqrt)(4)
        monkeypatch.chdir("/")
        assert two.cache(math.sqrt).check_call_in_cache(4)

    def test_bad_settings_are_refused_with_the_choices(self, tmp_path):
        cases = [
            ({"mmap_mode": "x"}, "mmap_mode: expected None, 'r'"),
            ({"backend": "s3"}, "backend: expected one of.*local"),
            ({"bytes_limit": "lots"}, "bytes_limit: expected bytes"),
            ({"compress": "rar"}, "."),
        ]
        for options, text in cases:
            with pytest.raises(ValueError, match=text):
                joblite.Memory(tmp_path, **options)
        with pytest.raises(ValueError, match="mmap_mode: expected None, 'r'"):
            joblite.Memory(tmp_path).cache(square, mmap_mode="rw")
        with pytest.raises(TypeError, match="unexpected keyword argument 'speed'"):
            joblite.Memory(tmp_path, backend_options={"speed": 1})

    def test_verbose_says_what_happens_on_stderr_only(self, tmp_path, capsys):
        for verbose, expected in [(0, []), (1, []), (2, ["computed"]), (3, ["computed", "read"])]:
            cached = joblite.Memory(tmp_path / str(verbose), verbose=verbose).cache(math.sqrt)
            cached(4), cached(4)
            out, err = capsys.readouterr()
            assert out == "" and [word for word in ("computed", "read") if word in err] == expected
        with_closed_stderr = (
            "import sys, math, joblite\nsys.stderr = None\n"
            "print(joblite.Memory(sys.argv[1], verbose=3).cache(math.sqrt)(4))"
        )
        assert run_script(with_closed_stderr, tmp_path).stdout == "2.0\n"

    def test_arrays_of_a_hit_are_mapped_in_every_mode(self, tmp_path):
        """None reads; r and c protect the cache; r+ and w+ write through;
        compress excludes mapping with a warning."""
        cached = joblite.Memory(tmp_path, verbose=0).cache(lambda: np.arange(1000.0))
        cached()
        for mode in ("r", "c", "r+", "w+"):
            mapped = joblite.Memory(tmp_path, verbose=0, mmap_mode=mode).cache(cached.func)()
            assert isinstance(mapped, np.memmap) and mapped[5] == (7 if mode == "w+" else 5)
            if mode == "r":
                with pytest.raises(ValueError):
                    mapped[5] = 6
            else:
                mapped[5] = 6 if mode == "c" else 7
        assert cached()[5] == 7 and type(cached()) is np.ndarray
        with pytest.warns(UserWarning, match="mmap_mode excludes compress"):
            packed = joblite.Memory(tmp_path / "z", verbose=0, mmap_mode="r", compress=True).cache(
                cached.func
            )
        packed()
        assert type(packed()) is np.ndarray

    @pytest.mark.parametrize("mode", ["r", "r+", "c"])
    def test_the_first_call_gives_a_mapped_array_like_the_later_ones(self, mode, tmp_path):
        memory = joblite.Memory(tmp_path, verbose=0, mmap_mode=mode)
        cached = memory.cache(lambda n: {"array": np.full(100, n)})

        @memory.cache
        async def awaited(n):
            return {"array": np.full(100, n)}

        async def both():
            return [(await awaited(1))["array"], (await awaited.call(2))[0]["array"]]

        firsts = [
            cached(1)["array"],
            cached.call(2)[0]["array"],
            cached.call_and_shelve(3).get()["array"],
        ]
        for first in firsts + asyncio.run(both()):
            assert type(first) is np.memmap and first.mode == mode and len(set(first)) == 1
        assert [first[0] for first in firsts] == [1, 2, 3] and type(cached(1)["array"]) is np.memmap

    def test_a_first_result_that_is_not_kept_is_given_as_it_is(self, tmp_path):
        """Too big for the limit, or not to be pickled: never an older value of the same call."""
        values = iter([np.zeros(100), np.ones(100_000), threading.Lock(), np.full(100, 3)])
        cached = joblite.Memory(tmp_path, verbose=0, mmap_mode="r", bytes_limit="10K").cache(
            lambda: next(values)
        )
        assert type(cached()) is np.memmap
        assert cached.call()[0][0] == 1 and not cached.check_call_in_cache()
        with pytest.warns(UserWarning, match="its value of type lock cannot be kept"):
            assert cached().acquire()
        assert (
            cached()[0] == 3 and joblite.Memory(mmap_mode="r").cache(lambda: np.zeros(3))()[0] == 0
        )

    def test_arrays_that_cannot_be_mapped_are_read(self, tmp_path, recwarn):
        """Kept in memory, or, with the warning of `load`, compressed by another Memory."""
        packing = joblite.Memory(tmp_path, verbose=0, compress=True)
        for memory in (
            joblite.Memory(mmap_mode="r", verbose=0),
            joblite.Memory(tmp_path, mmap_mode="r", verbose=0),
        ):
            function = counted(lambda: np.arange(1000.0))
            packing.cache(function, version=1)()
            cached, calls = memory.cache(function, version=1), len(function.calls)
            assert cached()[5] == cached()[5] == 5 and len(function.calls) - calls == (
                memory.location is None
            )
            told = {re.sub(" for .*?:", ":", str(each.message)) for each in recwarn}
            assert told == (
                {
                    "mmap_mode='r' is ignored: only an uncompressed file on disk can be mapped; "
                    "its arrays are read into memory"
                }
                if memory.location
                else set()
            )

    @pytest.mark.parametrize(
        "compress", [False, True, 0, 9, "zlib", "gzip", "bz2", "lzma", "xz", ("zlib", 1)]
    )
    def test_compressed_results_come_back(self, compress, tmp_path):
        cached = joblite.Memory(tmp_path, verbose=0, compress=compress).cache(
            lambda: "text" * 100000
        )
        assert cached() == cached() == "text" * 100000
        assert (sum(path.stat().st_size for path in entry_files(tmp_path)) < 100000) == bool(
            compress
        )

    @needs("cloudpickle")
    def test_the_cloudpickle_backend_keeps_lambdas_and_local_classes(self, tmp_path):
        cached = joblite.Memory(tmp_path, backend="cloudpickle", verbose=0).cache(
            lambda n: lambda x: x + n
        )
        assert cached(1)(1) == cached(1)(1) == 2
        assert cached.check_call_in_cache(1)

    def test_a_missing_cloudpickle_is_said_at_once(self, tmp_path):
        code = """
            import sys, joblite
            sys.modules["cloudpickle"] = None
            try: joblite.Memory(sys.argv[1], backend="cloudpickle")
            except ImportError as err: print(err)
            """
        assert "import of cloudpickle" in run_script(code, tmp_path).stdout

    def test_the_null_backend_keeps_nothing(self, tmp_path):
        function = counted()
        cached = joblite.Memory(tmp_path / "none", backend="null", verbose=0).cache(function)
        assert [cached(1), cached(1), len(function.calls), list(tmp_path.iterdir())] == [
            1,
            1,
            2,
            [],
        ]
        lock = threading.Lock()
        assert cached(lock) is lock, "what has no name can be passed: none is needed"

    def test_a_memory_without_location_caches_in_ram_within_its_limit(self):
        function = counted(lambda x: "x" * 1000)
        cached = joblite.Memory(bytes_limit="10K", verbose=0).cache(function)
        for n in range(20):
            cached(n), cached(0)
        assert len(function.calls) == 20 and cached.check_call_in_cache(0)
        assert sum(entry.nbytes for entry in cached.entries()) <= 10 * 1024

    # ---- the order of use

    def test_the_least_recently_used_entry_goes_first(self, tmp_path):
        """Exactly, by our own marks; also where a second Memory without limit does the reading."""
        cached = joblite.Memory(tmp_path / "a", verbose=0).cache(lambda x: b"x" * 5000)
        cached(0)
        size = entry_files(tmp_path / "a")[0].stat().st_size
        limited = joblite.Memory(
            tmp_path / "b", verbose=0, bytes_limit=10 * size + size // 2
        ).cache(cached.func)
        for n in range(10):
            limited(n)
        for n in (3, 0, 7):
            limited(n)
        for n in range(10, 17):
            limited(n)
        assert [n for n in range(17) if limited.check_call_in_cache(n)] == [0, 3, 7, *range(10, 17)]

    def test_the_limit_holds_after_every_write(self, tmp_path):
        """Also for entries of many sizes; one that is larger than
        the limit is returned and not kept."""
        cached = joblite.Memory(tmp_path, verbose=0, bytes_limit="20K").cache(lambda n: b"x" * n)
        for n in [100, 5000, 300, 9000, 19000, 50000, 7, 8000, 12000]:
            assert len(cached(n)) == n
            assert sum(path.stat().st_size for path in entry_files(tmp_path)) <= 20 * 1024
        assert not cached.check_call_in_cache(50000)

    @pytest.mark.parametrize("others", [0, 30], ids="others={}".format)
    def test_a_result_computed_anew_replaces_the_old_one_under_a_limit(self, others, tmp_path):
        """It returns, whatever old and new one take together, and the limit holds;
        on disk and in memory."""
        code = """
            import itertools, sys, joblite
            folder, others = sys.argv[1], int(sys.argv[2])
            rows = [
                [600_000] * 3,
                [600_000, 900_000, 100_000, 999_000, 600_000],
                [999_000, 2_000_000, 999_000],
                [500_000, 500_000],
            ]
            def of_size(): return bytes(size)
            for (number, sizes), location in itertools.product(enumerate(rows), (folder, None)):
                location = location and f"{folder}/{number}"
                memory = joblite.Memory(location, verbose=0, bytes_limit=1_000_000)
                never = lambda about: False
                anew = memory.cache(of_size, version=1, cache_validation_callback=never)
                other = memory.cache(lambda n: bytes(20_000), version=2)
                for n in range(others):
                    other(n)
                for size in sizes:
                    assert len(anew()) == size
                    kept = [entry.nbytes for cached in (anew, other) for entry in cached.entries()]
                    assert sum(kept) <= 1_000_000
                    assert (len(anew.entries()) == 1) == (size < 1_000_000)
            """
        run_script(code, tmp_path, others)

    def test_a_limit_leaves_room_for_what_fits(self, tmp_path):
        """1 MB keeps ten entries of 90 kB, also while others come and go,
        and one of 600 kB beside four of them."""
        cached = joblite.Memory(tmp_path, verbose=0, bytes_limit=1_000_000).cache(
            lambda n, size: bytes(size)
        )
        for n in range(30):
            cached(n, 90_000)
            assert len(cached.entries()) >= min(n + 1, 10)
        cached(0, 600_000)
        assert sorted(entry.nbytes // 90_000 for entry in cached.entries()) == [1, 1, 1, 1, 6]

    @pytest.mark.skipif(
        os.name != "posix",
        reason="without locks each call under a limit lists all entries: too slow",
    )
    def test_what_is_in_use_stays_among_thousands(self, tmp_path):
        """A tenth goes at a time; those that are read again and again are never removed."""
        memory = joblite.Memory(tmp_path, verbose=0, bytes_limit=2**19)
        function = counted(lambda n: b"x" * 100)
        cached = memory.cache(function, version=1)
        for n in range(3000):
            cached(n)
            if n % 100 == 0:
                for used in range(50):
                    cached(used)
        assert 0.85 * 2**19 < sum(entry.nbytes for entry in cached.entries()) <= 2**19
        assert len(function.calls) == 3000

    def test_what_cannot_be_removed_stays_and_the_next_goes(self):
        """An entry in use, say, on Windows: it costs a warning
        where the user asks for just that."""

        class Held:
            def __init__(self, location):
                self.kept, self.held = {}, set()

            def open(self, key):
                return io.BytesIO(self.kept[key][0]) if key in self.kept else None

            def write(self, key, fill):
                file = io.BytesIO()
                fill(file)
                self.kept[key] = file.getvalue(), len(self.kept)

            def delete(self, key):
                if key in self.held:
                    raise PermissionError("in use")
                return self.kept.pop(key, None) is not None

            def entries(self, prefix):
                return [(key, len(content), used) for key, (content, used) in self.kept.items()]

        joblite.register_store_backend("held", Held)
        try:
            memory = joblite.Memory(None, "held", verbose=0)
        finally:
            joblite._STORES.pop("held")
        cached = memory.cache(square)
        for n in range(4):
            cached(n)
        held = memory.store._guest.held
        held.add(next(iter(memory.store._guest.kept)))  # the oldest
        memory.reduce_size(items_limit=2)
        assert [cached.check_call_in_cache(n) for n in range(4)] == [True, False, False, True]
        with pytest.warns(UserWarning, match="in use or belongs to another user, and stays"):
            assert cached.forget(0) is False
        with pytest.warns(UserWarning, match="in use or belong to another user stay"):
            memory.clear()
        assert [cached.check_call_in_cache(n) for n in range(4)] == [True, False, False, False]
        held.clear()
        assert cached.forget(0) and not cached.entries()

    @windows
    def test_a_mapped_entry_costs_a_warning_at_most(self, tmp_path):
        """Room is made beside it; it goes when nobody uses it any more."""
        memory = joblite.Memory(tmp_path, verbose=0, mmap_mode="r", bytes_limit="9M")
        function = counted(lambda n: np.ones(500_000) * n)
        cached = memory.cache(function, version=1)
        held = cached(1)
        with warnings.catch_warnings(action="error"):
            for n in (2, 3, 4):
                assert cached(n)[0] == cached(n)[0] == n
        assert len(function.calls) == 4 and cached(1)[0] == held[0] == 1
        with pytest.warns(UserWarning, match="and stays"):
            assert not cached.forget(1)
        del held
        assert cached.forget(1)

    def test_an_idle_cache_holds_no_file_open_where_there_are_no_locks(self, tmp_path):
        """As on Windows, where a folder with an open file cannot be removed."""
        done = run_script(
            """
            import math, os, shutil, sys
            sys.modules["fcntl"] = None
            import joblite
            cached = joblite.Memory(sys.argv[1], verbose=0).cache(math.sqrt)
            for again in range(2):
                cached(4)
                if os.path.isdir("/proc/self/fd"):
                    names = os.listdir("/proc/self/fd")
                    links = {os.path.realpath(f"/proc/self/fd/{name}") for name in names}
                    assert not [link for link in links if link.startswith(sys.argv[1])], links
                shutil.rmtree(sys.argv[1])
            print(cached(4), cached.check_call_in_cache(4))
            """,
            tmp_path / "cache",
        )
        assert done.stdout == "2.0 True\n"

    def test_two_limits_on_one_folder_do_no_harm(self, tmp_path):
        small, large, free = (
            joblite.Memory(tmp_path, verbose=0, bytes_limit=limit).cache(square_text)
            for limit in ("8K", "80K", None)
        )
        for n in range(300):
            cached = (small, large, free)[n % 3]
            assert cached(n % 50) == square_text(n % 50)
        small(1000)
        assert sum(path.stat().st_size for path in entry_files(tmp_path)) <= 8 * 1024

    def test_reduce_size_keeps_the_limits_given(self, any_memory):
        cached = any_memory.cache(lambda x: b"x" * 1000)
        for n in range(10):
            cached(n)
        any_memory.reduce_size()
        assert len(cached.entries()) == 10
        any_memory.reduce_size(items_limit=6)
        any_memory.reduce_size(age_limit=datetime.timedelta(days=1))
        assert [n for n in range(10) if cached.check_call_in_cache(n)] == [4, 5, 6, 7, 8, 9]
        any_memory.reduce_size(bytes_limit=3e3)
        assert 1 <= len(cached.entries()) <= 3
        any_memory.reduce_size(items_limit=0)
        assert cached.entries() == []
        with pytest.raises(ValueError, match="age_limit: expected a positive timedelta"):
            any_memory.reduce_size(age_limit=datetime.timedelta(0))

    def test_reduce_size_keeps_what_was_read_last(self, any_memory):
        """Also when the reads came at once, and through another Memory on the same folder."""
        other = (
            joblite.Memory(any_memory.location, verbose=0) if any_memory.location else any_memory
        )
        cached, again = (
            each.cache(lambda x: b"x" * 1000, version=1) for each in (any_memory, other)
        )
        for n in range(8):
            cached(n)
        for n in (5, 1, 6):
            cached(n), again(n - 1)
        cached(1)
        for kept in ([0, 1, 4, 5, 6], [1, 5, 6], [1]):
            any_memory.reduce_size(items_limit=len(kept))
            assert [n for n in range(8) if cached.check_call_in_cache(n)] == kept

    # ---- bad luck

    def test_a_hit_opens_one_file(self, memory):
        """The audit hook of Python sees one open and the mark of use: no listing,
        no lock and no writing."""
        cached = memory.cache(lambda x: x)
        cached(1), cached(1)
        seen = []
        watched = set(
            "open os.listdir os.scandir os.mkdir os.rename os.remove fcntl.lockf os.utime".split()
        )
        on = [True]
        sys.addaudithook(lambda event, args: on and event in watched and seen.append(event))
        cached(1)
        on.clear()
        assert seen == ["open", "os.utime"]

    def test_what_is_no_python_function_counts_its_spellings(self, tmp_path):
        """Nothing is known of its parameters: no name can be ignored, and none leads astray."""
        memory = joblite.Memory(tmp_path, verbose=0)
        for function in (pow, functools.partial(scale, factor=3)):
            with pytest.raises(ValueError, match=r"ignore: expected names of arguments"):
                memory.cache(function, ignore=["note"])
        power = memory.cache(pow)
        assert power(2, 5) == 32
        assert power.check_call_in_cache(2, 5) and not power.check_call_in_cache(2, exp=5)
        assert power(base=2, exp=6) == 64

    def test_a_first_hit_is_light(self, tmp_path):
        """A program that finds the result of a plain function, however the call is spelled, loads
        no module that takes long to load."""
        code = """
            import sys
            before = set(sys.modules)
            import joblite
            sys.path.insert(0, sys.argv[1])
            from beside import helper
            @joblite.Memory(sys.argv[1], verbose=2).cache
            def function(a, b=2, *rest, c=3, **more): return helper(a) + b
            heavy = {"inspect", "re", "glob", "fnmatch", "ast", "tokenize", "asyncio", "logging",
                     "typing", "pickle", "concurrent.futures", "multiprocessing", "subprocess",
                     "socket", "tempfile", "shutil", "random", "importlib.util",
                     "importlib.metadata", "json", "datetime", "numpy", "ctypes", "contextlib"}
            print(function(1), function(1, c=3, b=2), sorted((set(sys.modules) - before) & heavy))
            """
        (tmp_path / "beside.py").write_text("ONE = 1\ndef helper(x): return x + ONE\n")
        told = [run_script(code, tmp_path, flags=["-S"]) for _ in range(2)]
        assert [each.stdout for each in told] == ["4 4 []\n"] * 2
        assert "computed" in told[0].stderr and not told[1].stderr

    def test_a_flipped_bit_never_lies(self, memory):
        """200 flips at random places: the right value each time,
        and a warning whenever it was computed again."""
        function = counted(lambda x: {"text": "abc" * 50, "numbers": list(range(50))})
        cached = memory.cache(function)
        wanted = cached(1)
        [path] = entry_files(memory.location)
        whole, rng = path.read_bytes(), random.Random(1)
        for _ in range(200):
            path.write_bytes(bit_flipped(whole, rng))
            calls = len(function.calls)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                assert cached(1) == wanted
            assert len(told) == len(function.calls) - calls <= 1
        assert len(function.calls) > 150

    def test_a_damaged_entry_is_computed_again_with_one_warning(self, memory):
        """Cut, zeroed, emptied, swapped with another entry's file, or of a class that is gone."""
        function = counted(lambda x: [x] * 100)
        cached = memory.cache(function)
        damages = {
            "cut": lambda path, other: path.write_bytes(path.read_bytes()[:-7]),
            "zeroed": lambda path, other: path.write_bytes(bytes(path.stat().st_size)),
            "emptied": lambda path, other: path.write_bytes(b""),
            "swapped": lambda path, other: path.write_bytes(other.read_bytes()),
            "longer": lambda path, other: path.write_bytes(b"x" + path.read_bytes()),
            "another kind of file": lambda path, other: joblite.dump({"a": 1}, path),
        }
        for name, damage in damages.items():
            cached(f"{name} 1"), cached(f"{name} 2")
            damage(
                *[
                    Path(memory.location, "joblite", "v1", cached._name((f"{name} {n}",), {}).key)
                    for n in (1, 2)
                ]
            )
            calls = len(function.calls)
            with pytest.warns(UserWarning, match="counts as missing") as told:
                assert cached(f"{name} 1") == [f"{name} 1"] * 100
            assert (len(told), len(function.calls) - calls) == (1, 1), name
            assert cached(f"{name} 1") and len(function.calls) - calls == 1

    def test_a_value_that_cannot_be_pickled_is_returned_with_one_warning(self, any_memory):
        cached = any_memory.cache(lambda x: threading.Lock())
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("default")
            assert cached(1).acquire() and cached(1).acquire()
        assert len(told) == 1 and "its value of type lock cannot be kept in" in str(told[0].message)
        if any_memory.location:
            assert any_memory.location in str(told[0].message)
            assert not list(Path(any_memory.location, "joblite", "v1").glob("tmp-*"))
        assert cached.call_and_shelve(1).get().acquire()

    def test_the_folder_may_vanish_between_calls(self, memory):
        cached = memory.cache(counted())
        for _ in range(3):
            assert cached(1) == 1 and cached.check_call_in_cache(1)
            shutil.rmtree(memory.location)
            assert not cached.check_call_in_cache(1)
            memory.clear(warn=False)

    @posix
    def test_a_read_only_folder_costs_a_warning(self, tmp_path):
        """As another user: old results are read, new ones computed each time,
        one warning names the folder."""
        code = """
            import os, sys, warnings, joblite
            def f(x): calls.append(x); return x
            calls = []
            cache = joblite.Memory(sys.argv[1], verbose=0).cache(f)
            cache(1)
            os.system(f"chmod -R a+rX {sys.argv[1]}; chmod -R a-w {sys.argv[1]}")
            if os.getuid() == 0: os.setuid(12345)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("default")
                values = cache(1), cache(2), cache(2)
                print(*values, len(calls), [sys.argv[1] in str(each.message) for each in told])
            """
        folder = tempfile.mkdtemp(dir="/tmp")
        try:
            os.chmod(folder, 0o755)
            assert run_script(code, f"{folder}/cache", cwd="/").stdout == "1 2 2 3 [True]\n"
        finally:
            subprocess.run(["chmod", "-R", "u+w", folder])
            shutil.rmtree(folder)

    @pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="mounting needs root")
    def test_a_full_disk_costs_a_warning(self, tmp_path):
        """A real file system of 2 MB: the value is returned, one warning names the folder,
        no partial file stays."""
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]).returncode:
            pytest.skip("mounting a tmpfs is not allowed here")
        try:
            cached = joblite.Memory(disk, verbose=0).cache(lambda n: os.urandom(n))
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("default")
                assert [len(cached(n)) for n in (3 << 20, 5 << 20)] == [3 << 20, 5 << 20]
            assert len(told) == 1 and re.search(
                f"{re.escape(str(disk))}.*No space left", str(told[0].message)
            )
            assert len(cached(1000)) == 1000 and cached.check_call_in_cache(1000)
            assert not list((disk / "joblite" / "v1").glob("tmp-*"))
        finally:
            del cached  # closes the lock file, which would keep the file system busy
            gc.collect()
            subprocess.run(["umount", str(disk)], check=True)

    def test_an_exception_of_the_function_is_not_kept(self, any_memory):
        function = counted(lambda x: 1 // x)
        cached = any_memory.cache(function)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                cached(0)
        assert len(function.calls) == 2 and cached.entries() == []

    def test_a_function_may_raise_stop_iteration(self, any_memory):
        """It is the caller's exception, also out of a cached call inside;
        an error like it is left alone."""
        inner = any_memory.cache(lambda items: next(iter(items)), version=1)
        outer = any_memory.cache(lambda items: inner(items), version=2)
        for cached in (inner, outer):
            with pytest.raises(StopIteration):
                cached([])
        generating = any_memory.cache(lambda: list(next(iter([])) for _ in [1]), version=3)
        with pytest.raises(RuntimeError, match="generator raised StopIteration"):
            generating()

    # ---- many at once

    def test_threads_compute_a_missing_call_once(self, any_memory):
        """Eight threads, one key; also through two Memory objects on one folder."""
        function = counted(lambda x: wait_until(lambda: len(waiting) == 8 and [x]))
        other = (
            joblite.Memory(any_memory.location, verbose=0) if any_memory.location else any_memory
        )
        cached, waiting, values = (
            [each.cache(function, version=1) for each in (any_memory, other)],
            [],
            [],
        )

        def ask(n):
            waiting.append(n)
            values.append(cached[n % 2](1))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert values == [[1]] * 8 and len(function.calls) == 1

    @posix
    @pytest.mark.parametrize(
        "function, work",
        [
            ("def f(x): return log() or time.sleep(0.3) or x", "f(7)"),
            (
                "async def f(x): return log() or await asyncio.sleep(0.3) or x",
                "asyncio.run(three())[2]",
            ),
        ],
        ids=["function", "coroutine"],
    )
    @posix
    def test_processes_compute_a_missing_call_once(self, function, work, tmp_path):
        """Eight processes on a fresh folder that start together; of coroutines, three in each."""
        code = f"""
            import asyncio, os, sys, time, joblite
            def log():
                with open(sys.argv[2], "a") as file: file.write("called\\n")
            {function}
            f = joblite.Memory(sys.argv[1], verbose=0).cache(f, version=1)
            async def three(): return await asyncio.gather(f(7), f(7), f(7))
            pids = []
            ready, go = os.pipe()
            for n in range(8):
                pid = os.fork()
                if pid == 0:
                    os.close(go)
                    os.read(ready, 1)
                    os._exit({work} != 7)
                pids.append(pid)
            os.close(go)
            print([os.waitpid(pid, 0)[1] for pid in pids])
            """
        assert run_script(code, tmp_path / "cache", tmp_path / "log").stdout == f"{[0] * 8}\n"
        assert (tmp_path / "log").read_text() == "called\n"

    @pytest.mark.parametrize("size", [2, 3])
    def test_threads_that_need_each_others_calls_do_not_wait_for_ever(self, size, any_memory):
        """Each computes what the one before needs: a ring.
        One of them computes what it cannot wait for."""
        begun, values = set(), {}

        @any_memory.cache(ignore=["seen"], version=1)
        def reach(node, seen):
            begun.add(node)
            wait_until(lambda: len(begun) == size)
            other = (node + 1) % size
            return [node, other in seen or reach(other, seen | {node})[0]]

        threads = [
            threading.Thread(
                target=lambda n=n: values.update({n: reach(n, frozenset())[0]}), daemon=True
            )
            for n in range(size)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert values == {n: n for n in range(size)}

    @pytest.mark.parametrize("loops", [1, 2])
    @pytest.mark.parametrize("start", ["awaited", "gathered"])
    def test_tasks_that_need_each_others_calls_do_not_wait_for_ever(self, start, loops, any_memory):
        """In one event loop, and in two threads with a loop each;
        also where each call starts tasks."""
        begun, values = set(), {}

        @any_memory.cache(ignore=["seen"], version=1)
        async def reach(node, seen):
            begun.add(node)
            while len(begun) < 2:
                await asyncio.sleep(0.001)
            others = [reach(other, seen | {node}) for other in {1 - node} - seen]
            if start == "gathered":
                await asyncio.gather(*others, asyncio.sleep(0))
            for other in others if start == "awaited" else []:
                await other
            return [node]

        async def main(*nodes):
            values.update(
                zip(nodes, await asyncio.gather(*(reach(node, frozenset()) for node in nodes)))
            )

        threads = [
            threading.Thread(target=lambda nodes=nodes: asyncio.run(main(*nodes)), daemon=True)
            for nodes in ([(0, 1)] if loops == 1 else [(0,), (1,)])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert values == {0: [0], 1: [1]}

    def test_a_task_that_needs_the_call_it_is_part_of_does_not_wait_for_ever(self, any_memory):
        """A coroutine function whose tasks call it again with the same arguments."""

        @any_memory.cache(ignore=["depth"], version=1)
        async def again(n, depth):
            return (
                [n]
                if depth == 3
                else (await asyncio.gather(again(n, depth + 1), again(n + 1, 3)))[0]
            )

        async def main():
            return await asyncio.wait_for(again(1, 0), DEADLINE)

        assert asyncio.run(main()) == [1]

    @posix
    @pytest.mark.parametrize("size", [2, 3])
    def test_processes_that_need_each_others_calls_do_not_wait_for_ever(self, size, tmp_path):
        """Of two threads in each process, one waits beside the ring for a call that takes long; or
        it waits, itself in no call, for what the other one then needs: it is a part of the ring."""
        code = """
            import os, signal, sys, threading, time, joblite
            folder, kind, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
            if kind == "coroutines":
                import asyncio
            memory = joblite.Memory(folder + "/cache", verbose=0)
            def all_begun(node):
                open(f"{folder}/{node}", "w").close()
                while not all(os.path.exists(f"{folder}/{n}") for n in range(size)):
                    time.sleep(0.001)
            def reach(node, seen):
                all_begun(node)
                other = (node + 1) % size
                return [node, other in seen or reach(other, seen | {node})[0]]
            async def reach_awaited(node, seen):
                all_begun(node)
                other = (node + 1) % size
                return [node, other in seen or (await reach_awaited(other, seen | {node}))[0]]
            reach = memory.cache(reach, ignore=["seen"], version=1)
            reach_awaited = memory.cache(reach_awaited, ignore=["seen"], version=2)
            long = memory.cache(lambda: all_begun(0) or time.sleep(1), version=3)
            pids = []
            for n in range(size):
                pid = os.fork()
                if pid == 0:
                    signal.alarm(100)
                    if kind == "between":
                        args = (n + 1) % size, frozenset()
                        other = threading.Thread(target=reach, args=args, daemon=True)
                        other.start()
                    if kind == "beside":
                        threading.Thread(target=long, daemon=True).start()
                        while n and not os.path.exists(f"{folder}/0"): time.sleep(0.001)
                    value = (reach_awaited if kind == "coroutines" else reach)(n, frozenset())
                    os._exit((asyncio.run(value) if kind == "coroutines" else value)[0] != n)
                pids.append(pid)
            print([os.waitpid(pid, 0)[1] for pid in pids])
            """

        def run(kind):
            (tmp_path / kind).mkdir()
            return run_script(code, tmp_path / kind, kind, size).stdout

        kinds = ["functions", "coroutines", "beside", "between"]
        assert side_by_side(run, kinds) == dict.fromkeys(kinds, f"{[0] * size}\n")

    @posix
    def test_a_thread_that_writes_hides_no_ring_from_the_system(self, memory):
        """The system follows one wait of each process: here one thread waits for a key of another
        process, which wants a key of ours; and a second thread cannot write meanwhile."""
        outer = memory.cache(lambda: inner() + 1, version=1)
        inner = memory.cache(lambda: 1, version=2)
        other = memory.cache(lambda: 3, version=3)
        assert memory.cache(lambda: 4, version=4)() == 4  # the lock file is there
        lock_file = f"{memory.location}/joblite/v1/lock"

        def start(*keys):
            """A process that locks one byte, and on a word the next."""
            code = """
                import fcntl, sys
                file = open(sys.argv[1], "r+b")
                for byte in sys.argv[2:]:
                    try: fcntl.lockf(file, fcntl.LOCK_EX, 1, int(byte))
                    except OSError: sys.exit("a ring")
                    print("locked", flush=True)
                    input()
                """
            command = [sys.executable, "-c", textwrap.dedent(code), lock_file, *map(str, keys)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            assert process.stdout.readline() == b"locked\n"
            return process

        def start_thread(cached, *functions):
            """A thread, which has come to the last of these functions."""
            thread = threading.Thread(target=cached)
            thread.start()
            frames = []
            while not set(functions) <= set(frames):
                frame, frames = sys._current_frames()[thread.ident], []
                while frame:
                    frames.append(frame.f_code.co_name)
                    frame = frame.f_back
            return thread

        with start(0) as writer, start(*[byte_of(each) for each in (inner, outer)]) as ring:
            try:
                waiting = start_thread(outer, "_one_at_a_time", "lock")
                writing = start_thread(other, "put_in_place", "lock")
                assert ring.communicate(b"\n", timeout=DEADLINE)[1] == b"a ring\n"
                writer.communicate(b"\n")
                for thread in (waiting, writing):
                    thread.join(DEADLINE)
                assert [outer(), other()] == [2, 3]
            finally:
                ring.kill()
                writer.kill()

    def test_a_nested_call_that_another_thread_makes_is_computed_once(self, any_memory):
        """One thread computes `inner` and then wants `outer`; the other one computes `outer`,
        which needs `inner`."""
        calls = []
        inner = any_memory.cache(
            lambda n: calls.append(("inner", n)) or time.sleep(0.002) or n, version=1
        )
        outer = any_memory.cache(lambda n: calls.append(("outer", n)) or inner(n), version=2)
        for n in range(50):
            other = threading.Thread(target=outer, args=(n,))
            other.start()
            assert inner(n) == outer(n) == n
            other.join()
        assert sorted(calls) == sorted((name, n) for name in ("inner", "outer") for n in range(50))

    @posix
    def test_processes_with_threads_compute_a_missing_call_once(self, tmp_path):
        """Each process computes one call in one thread and waits for the
        other's in another one: that is no ring."""
        code = """
            import os, signal, sys, threading, time, joblite
            folder = sys.argv[1]
            def f(name):
                with open(f"{folder}/{name}", "a") as log: log.write("called ")
                time.sleep(0.5)
                return name
            f = joblite.Memory(folder + "/cache", verbose=0).cache(f, version=1)
            pids = []
            for names in ("ab", "ba"):
                pid = os.fork()
                if pid == 0:
                    signal.alarm(100)
                    first = threading.Thread(target=f, args=(names[0],))
                    first.start()
                    while not all(os.path.exists(f"{folder}/{name}") for name in "ab"):
                        time.sleep(0.001)
                    value = f(names[1])
                    first.join()
                    os._exit(value != names[1])
                pids.append(pid)
            print([os.waitpid(pid, 0)[1] for pid in pids])
            """
        assert run_script(code, tmp_path).stdout == "[0, 0]\n"
        assert [(tmp_path / name).read_text() for name in "ab"] == ["called ", "called "]

    @posix
    @pytest.mark.parametrize("call", ["cached(2)", "cached.call(2)"])
    def test_ctrl_c_while_another_process_has_the_locks_leaves_none_held(self, call, tmp_path):
        """Another thread goes on as soon as the other process has let go."""
        code = """
            import fcntl, os, signal, subprocess, sys, threading, joblite
            memory = joblite.Memory(sys.argv[1], verbose=0, bytes_limit="1M")
            cached = memory.cache(lambda n: n, version=1)
            cached(1)
            other = ("import fcntl, sys; file = open(sys.argv[1], 'r+b'); "
                     "fcntl.lockf(file, fcntl.LOCK_EX); "
                     "print('held', flush=True); sys.stdin.read()")
            lock = sys.argv[1] + "/joblite/v1/lock"
            holder = subprocess.Popen([sys.executable, "-c", other, lock],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            holder.stdout.readline()
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                CALL
                sys.exit("it did not wait")
            except KeyboardInterrupt:
                holder.communicate()
            def go_on():
                CALL
                cached(3)
                print("goes on", flush=True)
            thread = threading.Thread(target=go_on, daemon=True)
            thread.start()
            thread.join(60)
            os._exit(0)
            """.replace("CALL", call)
        assert run_script(code, tmp_path).stdout == "goes on\n"

    @posix
    def test_ctrl_c_at_any_moment_leaves_no_lock_held(self, tmp_path):
        """Interrupted 300 times: another process can lock every byte,
        another thread makes the same call."""
        code = """
            import fcntl, itertools, os, random, signal, sys, threading, joblite
            memory = joblite.Memory(sys.argv[1], verbose=0, bytes_limit="20K")
            cached = memory.cache(lambda n: "x" * 1000, version=1)
            cached(-1)
            def all_free():
                pid = os.fork()
                if pid == 0:
                    lock = os.open(sys.argv[1] + "/joblite/v1/lock", os.O_RDWR)
                    try: fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except OSError: os._exit(1)
                    os._exit(0)
                return os.waitpid(pid, 0)[1] == 0
            def interrupt(*args):
                if armed:
                    armed.clear()
                    raise KeyboardInterrupt
            signal.signal(signal.SIGALRM, interrupt)
            generator, armed, n = random.Random(0), [], 0
            for _ in range(300):
                armed.append(True)
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + generator.random() * 0.002, 0.001)
                    while True:
                        n += 1
                        cached(n)
                except KeyboardInterrupt:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                if not all_free():
                    sys.exit("a byte is still locked")
                thread = threading.Thread(target=cached, args=(n,), daemon=True)
                thread.start()
                thread.join(60)
                if thread.is_alive():
                    print("another thread hangs", flush=True)
                    os._exit(1)
            """
        run_script(code, tmp_path)

    @posix
    def test_the_death_of_an_owner_frees_the_others(self, tmp_path):
        """A process killed while it computes: the one that waits for it computes."""
        code = """
            import os, signal, sys, joblite
            def f(x):
                if owner: os.kill(os.getpid(), signal.SIGKILL)
                return x
            f = joblite.Memory(sys.argv[1], verbose=0).cache(f, version=1)
            owner = True
            pid = os.fork()
            if pid == 0: f(1)
            os.waitpid(pid, 0)
            owner = False
            print(f(1))
            """
        assert run_script(code, tmp_path).stdout == "1\n"

    @posix
    @slow
    def test_processes_read_write_evict_and_clear_one_cache_at_once(self, tmp_path):
        """Eight processes, 300 calls each on overlapping keys under a tight limit,
        two of them clearing: no error."""
        code = """
            import os, random, sys, warnings, joblite
            warnings.simplefilter("error")
            def f(n): return {"n": n, "text": "x" * (n * 37 % 3000)}
            def work(number):
                limit = None if number == 7 else "30K"
                memory = joblite.Memory(sys.argv[1], verbose=0, bytes_limit=limit)
                cached, generator = memory.cache(f), random.Random(number)
                for _ in range(300):
                    n = generator.randrange(60)
                    assert cached(n) == f(n), n
                    if number < 2 and generator.random() < 0.02: memory.clear(warn=False)
                    if number == 2 and generator.random() < 0.05: cached.forget(n)
            pids = []
            for number in range(8):
                pid = os.fork()
                if pid == 0:
                    try: work(number)
                    except BaseException:
                        import traceback
                        traceback.print_exc()
                        os._exit(1)
                    os._exit(0)
                pids.append(pid)
            print([os.waitpid(pid, 0)[1] for pid in pids])
            """
        done = run_script(code, tmp_path)
        assert done.stdout == f"{[0] * 8}\n", done.stderr
        memory = joblite.Memory(tmp_path, verbose=0, bytes_limit="30K")
        memory.cache(square_text)(1)
        assert sum(path.stat().st_size for path in entry_files(tmp_path)) <= 30 * 1024

    @posix
    @slow
    def test_killed_writers_leave_no_harm(self, tmp_path):
        """50 writers killed at random moments: every entry is whole, the limit still holds,
        half-written files go at the first write of a program an hour later."""
        run_script(
            """
            import os, random, signal, sys, time
            import joblite
            memory = joblite.Memory(sys.argv[1], verbose=0, bytes_limit="200K")
            cached = memory.cache(lambda n: [n] * 5000, version=1)

            def write(seed):
                generator = random.Random(seed)
                while True:
                    n = generator.randrange(300)
                    if cached(n) != [n] * 5000:
                        os._exit(1)

            generator = random.Random(0)
            for start in range(0, 50, 5):
                writers = [os.fork() or write(seed) for seed in range(start, start + 5)]
                for writer in writers:
                    # the moment of death is random: that is the test
                    time.sleep(generator.random() * 0.05)
                    os.kill(writer, signal.SIGKILL)
                    assert os.WTERMSIG(os.waitpid(writer, 0)[1]) == signal.SIGKILL
            """,
            tmp_path / "cache",
        )
        cache = tmp_path / "cache"
        cached = joblite.Memory(cache, verbose=0, bytes_limit="200K").cache(
            lambda n: [n] * 5000, version=1
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for n in range(300):
                assert cached(n) == [n] * 5000
        sizes = sum(path.stat().st_size for path in entry_files(cache))
        assert 100 * 1024 < sizes <= 200 * 1024
        folder = cache / "joblite" / "v1"
        for left in folder.glob("tmp-*"):
            make_older(left, 3601)
        del cached  # the next one is as in another program
        gc.collect()
        joblite.Memory(cache, verbose=0).cache(square_text)(1)
        assert not list(folder.glob("tmp-*"))

    @posix
    def test_the_half_written_file_of_a_killed_writer_goes_and_that_of_a_living_one_stays(
        self, tmp_path
    ):
        """At the first write of a program, when nobody wrote to it for an hour; the living one's
        entry is then kept."""
        code = """
            import sys, joblite
            class Slow:
                def __reduce__(self):  # while it is written
                    print("writing", flush=True)
                    sys.stdin.read(1)
                    return int, ("7",)
            joblite.Memory(sys.argv[1], verbose=0).cache(lambda: Slow(), version=sys.argv[2])()
            """

        def start(name):
            return subprocess.Popen(
                [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(tmp_path), name],
                env=script_env(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )

        folder = tmp_path / "joblite" / "v1"
        killed = start("killed")
        assert killed.stdout.readline() == b"writing\n"
        killed.kill()
        killed.wait()
        [left] = folder.glob("tmp-*")
        living = start("living")
        assert living.stdout.readline() == b"writing\n"
        for hours, is_there in ((0.9, True), (1.1, False)):
            make_older(left, hours * 3600)
            joblite.Memory(tmp_path, verbose=0).cache(square_text)(hours)
            assert left.exists() == is_there
        assert len(list(folder.glob("tmp-*"))) == 1
        living.communicate(b"!")
        assert living.returncode == 0
        assert not list(folder.glob("tmp-*"))
        assert len(entry_files(tmp_path)) == 3

    def test_two_machines_share_one_folder(self, tmp_path):
        """Equal host names, separate process ids and mounts:
        one does not take the other's half-written file away."""
        code = """
            import os, sys, time, warnings, joblite
            warnings.simplefilter("error")
            folder, me = sys.argv[1:]
            class Slow:
                def __reduce__(self):  # while it is written
                    open(f"{folder}/written by {os.getpid()}", "w").close()
                    while not os.path.exists(f"{folder}/go"):
                        time.sleep(0.01)
                    return int, ("7",)
            memory = joblite.Memory(folder + "/cache", verbose=0)
            if me == "slow":
                memory.cache(lambda: Slow(), version="slow")()
            print(memory.cache(lambda: print("computed", me) or 5, version="shared")())
            """
        other = threading.Thread(
            target=lambda: seen.append(
                run_script(code, tmp_path, "slow", check=False, **elsewhere(*SECOND_PROCESS))
            )
        )
        seen, there = [], elsewhere()
        other.start()
        wait_until((tmp_path / "written by 2").exists, "the first machine's file")
        quick = run_script(code, tmp_path, "quick", check=False, **there)
        (tmp_path / "go").touch()
        other.join()
        assert (quick.stdout, quick.stderr) == ("computed quick\n5\n", "")
        assert (seen[0].stdout, seen[0].stderr) == ("5\n", "")

    @posix
    def test_locks_that_do_not_work_are_not_trusted(self, tmp_path):
        """Two writers without locks: values are right, and the
        limit holds up to one entry a writer."""
        code = """
            import errno, fcntl, sys, joblite
            def fail(*args):
                raise OSError(errno.ENOLCK, "no locks available")
            fcntl.lockf = fcntl.flock = fail
            memory = joblite.Memory(sys.argv[1], verbose=0, bytes_limit="100K")
            cached = memory.cache(lambda n: [n] * 2500, version=1)
            sums = sys.argv[1] + "/joblite/v1/lock"
            print("ready", flush=True)
            sys.stdin.read(1)
            for n in range(int(sys.argv[2]), 300, 2):
                assert cached(n) == [n] * 2500
                with open(sums, "wb") as sum_of_sizes:  # as a lost race would leave it
                    sum_of_sizes.write(bytes(8))
            """
        writers = [
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(tmp_path), str(n)],
                env=script_env(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for n in range(2)
        ]
        for writer in writers:
            writer.stdout.readline()
        assert [writer.communicate(b"!")[0] or writer.returncode for writer in writers] == [0, 0]
        sizes = [path.stat().st_size for path in entry_files(tmp_path)]
        assert 80 * 1024 < sum(sizes) <= 100 * 1024 + 2 * max(sizes)

    def test_a_strange_file_among_the_half_written_ones_does_no_harm(self, tmp_path):
        joblite.Memory(tmp_path, verbose=0).cache(square_text)(1)
        gc.collect()  # the next one opens the lock file anew, and looks at what lies there
        for name in ("notes", "tmp", "tmp-a", "tmp-a-b-c", "tmp-1-1"):
            (tmp_path / "joblite" / "v1" / name).touch()
        other = joblite.Memory(tmp_path, verbose=0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other.cache(square_text)(2)
        other.clear()
        assert not entry_files(tmp_path)

    def test_a_clock_that_is_ahead_takes_no_half_written_file_away(self, tmp_path, monkeypatch):
        def write_as_in_another_program(n):
            gc.collect()
            joblite.Memory(tmp_path, verbose=0).cache(square_text)(n)

        write_as_in_another_program(1)
        half_written = tmp_path / "joblite" / "v1" / "tmp-other_machine-1-1"
        half_written.touch()
        ahead = time.time() + 10 * 24 * 3600
        monkeypatch.setattr(joblite.time, "time", lambda: ahead)
        write_as_in_another_program(2)
        assert half_written.exists()
        old = half_written.stat().st_mtime - 2 * 24 * 3600
        os.utime(half_written, (old, old))
        write_as_in_another_program(3)
        assert not half_written.exists()

    def test_a_fork_while_threads_compute_does_not_hang_the_child(self, tmp_path):
        """Locks that other threads held at the moment of the fork are new ones in the child."""
        if not hasattr(os, "fork"):
            pytest.skip("needs fork")
        code = """
            import os, sys, threading, joblite
            inside, go = threading.Event(), threading.Event()
            def f(x):
                if os.getpid() == parent and not go.is_set():
                    inside.set()
                    go.wait()
                return x
            parent = os.getpid()
            f = joblite.Memory(None, verbose=0).cache(f, version=1)
            thread = threading.Thread(target=f, args=(1,))
            thread.start()
            inside.wait()
            pid = os.fork()
            if pid == 0: os._exit(f(1) != 1)
            print(os.waitpid(pid, 0)[1])
            go.set()
            thread.join()
            """
        assert run_script(code, tmp_path).stdout == "0\n"

    def test_a_guest_store_needs_four_methods(self):
        """What register_store_backend documents is enough for everything a Memory does."""
        kept = {}

        class Guest:
            def __init__(self, location, size=1):
                self.size = size

            def open(self, key):
                return io.BytesIO(kept[key]) if key in kept else None

            def write(self, key, fill):
                file = io.BytesIO()
                fill(file)
                kept[key] = file.getvalue()

            def delete(self, key):
                return kept.pop(key, None) is not None

            def entries(self, prefix):
                return [(key, len(kept[key]), 0.0) for key in kept if key.startswith(prefix)]

        joblite.register_store_backend("guest", Guest)
        memory = joblite.Memory("nowhere", backend="guest", verbose=0, backend_options={"size": 2})
        cached = memory.cache(math.sqrt)
        assert cached(4) == cached(4) == 2.0 and len(kept) == 1 and cached.entries()
        memory.clear(warn=False)
        assert kept == {}


# ---- 5. Payloads ----


def make_counter():
    count = 0

    def step():
        nonlocal count
        count += 1
        return count

    def total():
        return count

    return step, total


def travel(value):
    """The value after a trip to another process and back, as bytes."""
    return Parallel(n_jobs=2)([delayed(lambda x: x)(value)] * 2)[0]


@pytest.mark.usefixtures("by_value", "one_fork_server")
class TestSection5Payloads:
    FUNCTIONS = {
        "a lambda": (lambda x: x + 1, (1,), 2),
        "a closure": ((lambda k: lambda x: x + k)(5), (1,), 6),
        "a partial of a lambda": (functools.partial(lambda x, y: x - y, y=1), (3,), 2),
        "defaults": (lambda x, y=7, *, z=8: (x, y, z), (1,), (1, 7, 8)),
        "a builtin": (abs, (-1,), 1),
        "a bound method": ([1, 2].count, (2,), 1),
        "a class": (complex, (1, 2), 1 + 2j),
        "a mock": (mock.MagicMock(return_value=3), (), 3),
    }

    def test_callables_of_every_kind_work_in_processes(self, processes):
        for name, (func, args, expected) in self.FUNCTIONS.items():
            assert Parallel(**processes)([delayed(func)(*args)] * 3) == [expected] * 3, name

    def test_a_class_may_hold_what_refuses_every_question(self):
        class Outside:
            def __getattr__(self, name):
                raise RuntimeError(f"outside of its context: {name}")

        class Holder:
            proxy = Outside()

            def method(self):
                return 1

        assert Parallel(2)(delayed(Holder().method)() for _ in range(2)) == [1, 1]

    def test_the_class_of_a_class_may_refuse_changes(self):
        class Final(type):
            def __setattr__(cls, name, value):
                raise AttributeError("it is final")

        class Holder(metaclass=Final):
            value = 1

            def method(self):
                return self.value

        assert Parallel(2)(delayed(Holder().method)() for _ in range(2)) == [1, 1]

    def test_recursive_and_mutually_recursive_local_functions_work(self):
        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)

        assert Parallel(n_jobs=2)(delayed(even)(n) for n in range(4)) == [True, False, True, False]

    def test_closures_share_their_variable(self):
        step, total = make_counter()

        def both(step, total):
            step()
            step()
            return total()

        assert Parallel(n_jobs=2)([delayed(both)(step, total)] * 2) == [2, 2]

    def test_decorated_and_cached_functions_work(self):
        def shout(func):
            @functools.wraps(func)
            def wrapper(*args):
                return func(*args) + "!"

            return wrapper

        @shout
        def name(x):
            return str(x)

        @functools.lru_cache(maxsize=2)
        def cached(x):
            return x * 2

        assert Parallel(n_jobs=2)([delayed(name)(1), delayed(cached)(2)]) == ["1!", 4]

    METHODS = """
        import functools

        def loud(func):
            @functools.wraps(func)
            def wrapper(*args):
                return f"{func(*args)}!"
            return wrapper

        class Base(list):
            def run(self, i): return "base", i
            @classmethod
            def make(cls, i): return cls.__name__, "base", i
            def __secret(self, i): return "secret of base", i
            def secret(self): return self.__secret
            def inherited(self, i): return "inherited", i

        class Child(Base):
            def run(self, i): return "child", i
            @classmethod
            def make(cls, i): return cls.__name__, "child", i
            def __call__(self, i): return "called", i
            def __secret(self, i): return "secret of child", i
            short = lambda self, i: (len(self), i)
            once_run = run
            @loud
            def name(self, i): return i
            def supers(self): return super().run, super().make

        class Slots:
            __slots__ = "value", "__weakref__"
            def get(self, i): return self.value, i

        Child.added = lambda self, i: ("added", i)
        child, slots = Child([3, 3]), Slots()
        slots.value = 7
        child.own = child.run
        methods = {
            "plain": child.run, "inherited": child.inherited, "private": child.secret(),
            "of super()": child.supers()[0], "of the class": Child.make,
            "of the class of super()": child.supers()[1],
            "of a builtin": child.index, "call": child.__call__,
            "decorated": child.name, "undecorated": Child.name.__wrapped__.__get__(child),
            "renamed": child.once_run, "a lambda": child.short,
            "added": child.added, "of slots": slots.get, "in its object": child.own,
        }
        """

    @pytest.mark.parametrize("where", ["a module", "a notebook"])
    def test_bound_methods_run_the_function_that_they_are_of(self, where, module, processes):
        space = {"__name__": "notebook"}
        exec(textwrap.dedent(self.METHODS), space)
        methods = space["methods"] if where == "a notebook" else module(self.METHODS).methods
        call = Parallel(**processes, on_error="return")
        there = call(delayed(method)(3) for method in methods.values())
        assert dict(zip(methods, there)) == {name: method(3) for name, method in methods.items()}

    def test_methods_of_importable_classes_go_by_name(self, module):
        """Also where the qualified name of their function does not lead to it: little is sent."""
        methods = module(self.METHODS).methods
        by_value = {"added", "decorated", "undecorated"}  # found nowhere, or made by a decorator
        for name in methods.keys() - by_value:
            assert b"base" not in joblite._pack(methods[name])[0], name

    GLOBALS = """
        import logging, sys, threading
        CONFIG, COUNT, SET, LATER = "as imported", 0, "as imported", "as imported"
        MISSING, LOCK, GONE = object(), threading.Lock(), "here"
        LOGGER = logging.getLogger("of the module")
        def by_name(): return CONFIG
        def missing(): return MISSING
        def initialize():
            global SET
            SET = "by the initializer"
        def count():
            global COUNT
            COUNT += 1
            return COUNT
        def make():
            def step():
                global COUNT
                COUNT += 1
            def nested():
                return [CONFIG for _ in range(1)][0]
            return step, nested
        step, nested = make()
        class Local:
            made = lambda self: CONFIG
        asks = {
            "a lambda": lambda: CONFIG,
            "a nested function": lambda: nested(),
            "a method": Local.made.__get__(1),
            "a value that cannot be sent": lambda: (LOCK.acquire(), LOCK.release())[0],
            "a value that is only itself": lambda: MISSING is missing(),
            "a logger": lambda: LOGGER is logging.getLogger("of the module"),
            "one that is changed": lambda: (step(), step(), COUNT)[-1],
            "what the initializer set": lambda: SET,
            "one that is set later": lambda: LATER,
            "a function that goes by name": lambda: by_name(),
            "its own module": lambda: sys.modules[__name__].by_name is by_name,
        }
        """

    @pytest.mark.parametrize("initializer", [None, "by name", "by value"])
    def test_local_functions_see_globals_as_the_caller_has_them(
        self, module, initializer, processes
    ):
        """Those of a module that can be imported, too. What an initializer set in the worker stays
        set; what cannot be sent the worker has itself."""
        found = module(self.GLOBALS)
        set_there = "by the initializer"
        start = {"by name": found.initialize, "by value": lambda: setattr(found, "SET", set_there)}
        settings = {"initializer": start[initializer]} if initializer else {}
        for config in ("at run time", "later"):
            found.CONFIG = found.LATER = config
            there = Parallel(**processes, **settings)(delayed(ask)() for ask in found.asks.values())
            assert dict(zip(found.asks, there)) == {
                "a lambda": config,
                "a nested function": config,
                "a method": "as imported",
                "a logger": True,
                "a value that cannot be sent": True,
                "a value that is only itself": True,
                "one that is changed": 2,
                "what the initializer set": set_there if initializer else "as imported",
                "one that is set later": config,
                "a function that goes by name": "as imported",
                "its own module": True,
            }
            assert found.COUNT == 0

    def test_proxies_that_raise_outside_of_their_context_do_no_harm(self, module):
        found = module("""
            class Proxy:
                __class__ = property(lambda self: 1 / 0)
                def __getattr__(self, name): raise RuntimeError("outside of its context")
            current = Proxy()
            class Task:
                def run(self): return lambda: type(current).__name__
            """)
        assert Parallel(n_jobs=2)([delayed(found.Task().run())()] * 2) == ["Proxy"] * 2
        assert Parallel(n_jobs=2)([delayed(lambda: found.Task().run()())()] * 2) == ["Proxy"] * 2

    def test_functions_come_home_to_their_module(self, module):
        found = module("""
            NUMBER = 1
            def make(): return lambda: NUMBER
            get = make()
            """)
        sent, made = Parallel(n_jobs=2)([delayed(lambda f: (f, found.make()))(found.get)])[0]
        found.NUMBER = 2
        assert (sent(), made()) == (2, 1), "what a task made has the globals of its worker"

    def test_submodules_that_a_closure_reaches_are_imported(self):
        import xml.etree.ElementTree

        def tag(text):
            return [xml.etree.ElementTree.fromstring(text).tag for _ in range(1)][0]

        assert Parallel(n_jobs=2)(delayed(tag)("<a/>") for _ in range(2)) == ["a", "a"]

    MAIN = """
        import collections, dataclasses, enum, functools, joblite, pickle, tempfile
        from joblite import Memory, Parallel, delayed
        class Point:
            def __init__(self, x): self.x = x
            def get(self): return self.x
            @classmethod
            def make(cls): return cls(1)
        class Empty: pass
        class Color(enum.Enum):
            RED = 1
        class Outer:
            class Inner: pass
        @dataclasses.dataclass
        class Data:
            x: int = 1
        Pair = collections.namedtuple("Pair", "a b")
        def plain(x): return x + 1
        @functools.lru_cache(maxsize=2)
        def cached(x): return x
        @functools.singledispatch
        def dispatched(x): return 1
        memory = Memory(tempfile.mkdtemp(), verbose=0)
        @memory.cache
        def takes(value): return 1
        values = [Point(3), Empty(), Color.RED, Outer.Inner(), Data(), Pair(1, 2), plain, Point,
                  Empty, Color, functools.partial(plain, 1), Point(plain), Point(2).get,
                  Point.make, dispatched, cached, takes]
        """

    def test_values_of_main_are_in_a_worker_what_they_are_at_home(self, tmp_path):
        """They are named, pickled and kept there as here."""
        done = run_script(
            textwrap.dedent(self.MAIN)
            + textwrap.dedent("""
            def there(value):
                assert pickle.loads(pickle.dumps(value)) is not None
                return joblite.hash(value), takes(value)
            for run in (Parallel(n_jobs=2), Parallel(n_jobs=2, initializer=list)):
                for value in values:
                    found = run([delayed(there)(value)])[0]
                    if found != (joblite.hash(value), 1) or not takes.check_call_in_cache(value):
                        print(value)
                    takes.clear(warn=False)
            """),
            env={"TMPDIR": str(tmp_path)},
        )
        assert done.stdout == done.stderr == ""

    def test_tasks_may_start_processes_with_multiprocessing(self):
        """These neither fail nor run the script anew."""
        done = run_script("""
            import multiprocessing
            from joblite import Parallel, delayed
            print("script")
            def task(method):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    return pool.apply(abs, (-3,))
            methods = "spawn", "forkserver", "fork"
            print(Parallel(n_jobs=2)(delayed(task)(method) for method in methods))
            """)
        assert done.stdout == "script\n[3, 3, 3]\n"

    def test_globals_of_main_go_when_their_run_is_over(self):
        done = run_script("""
            import gc, sys, types
            from joblite import Parallel, delayed
            class Big: pass
            big = Big()
            def use(): return big is not None
            def left():
                gc.collect()
                return [name for each in gc.get_objects() if (name := type(each).__name__) == "Big"]
            print(Parallel(n_jobs=2, batch_size=1)([delayed(use)()] * 2))
            del big, Big, use
            print(Parallel(n_jobs=2, batch_size=1)([delayed(left)()] * 8)[-1])
            """)
        assert done.stdout == "[True, True]\n[]\n"

    @pytest.mark.skipif(sys.version_info < (3, 15), reason="needs the lazy imports of Python 3.15")
    def test_helpers_that_are_imported_lazily_travel(self, tmp_path):
        (tmp_path / "lazy_helper.py").write_text("def ten(i): return 10 * i\n")
        done = run_script(
            """
            lazy import lazy_helper, xml.etree.ElementTree, not_there
            lazy from lazy_helper import ten as times
            lazy from lazy_helper import ten
            from joblite import Parallel, delayed
            def work(i):
                if i > 5:
                    not_there.use()
                return times(i) + lazy_helper.ten(i), xml.etree.ElementTree.fromstring("<a/>").tag
            print(Parallel(n_jobs=2)(delayed(work)(i) for i in range(2)))
            """,
            env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE}"},
        )
        assert done.stdout == "[(0, 'a'), (20, 'a')]\n"

    def test_annotations_travel_without_being_evaluated(self):
        space = {"__name__": "notebook"}
        exec(
            textwrap.dedent(
                """
            import inspect
            def f(x: int, y: "text") -> str: return x
            class A:
                x: int
                def f(self, y: float): return y
            def later(x: Later = 1): return x  # noqa
            """
                if sys.version_info >= (3, 14)
                else """
            import inspect
            def f(x: int, y: "text") -> str: return x
            class A:
                x: int
                def f(self, y: float): return y
            def later(x: "Later" = 1): return x
            """
            ),
            space,
        )
        ask = eval("lambda: [str(each.__annotations__) for each in (f, A, A.f)]", space)
        assert Parallel(n_jobs=2)([delayed(ask)()] * 2) == [ask()] * 2
        assert Parallel(n_jobs=2)([delayed(space["later"])()] * 2) == [1, 1]

    def test_dispatching_functions_travel(self):
        @functools.singledispatch
        def kind(value):
            return "any"

        @kind.register
        def _(value: int):
            return "int", kind("x")

        for _ in range(2):  # the second time it has a cache
            there = Parallel(n_jobs=2)(delayed(kind)(value) for value in (1, "s"))
            assert there == [("int", "any"), "any"]
            assert kind(1) == ("int", "any")

    LOCAL = {  # what code that is in no module defines; the last line is what is asked of it there
        "a dataclass": """
            @dataclasses.dataclass
            class A:
                x: int
                y: int = 2
            [dataclasses.replace(A(1), x=9).x, A(1) == A(1), dataclasses.fields(A)[0].name]
            """,
        "a frozen dataclass": """
            @dataclasses.dataclass(frozen=True)
            class A:
                x: int = dataclasses.field(default=3)
            [hash(A()) == hash(A()), dataclasses.fields(A)[0].default]
            """,
        "slots": """
            class A:
                __slots__ = ('a', '__b')
                def __init__(self):
                    self.__b = 1
                def get(self):
                    return self.__b
            [A().get(), hasattr(A(), 'a'), hasattr(A(), '__dict__')]
            """,
        "methods": """
            class B:
                def two(self): return 2
            class A(B):
                @property
                def four(self): return 2 * self.two()
                @classmethod
                def name(cls): return cls.__name__
                @staticmethod
                def one(): return 1
                def two(self): return super().two()
                @functools.cached_property
                def slow(self): return 7
            [A().four, A.name(), A().one(), A().slow, isinstance(A(), B)]
            """,
        "a namedtuple": """
            A = collections.namedtuple('A', 'x y')
            A(1, 2)._asdict()
            """,
        "a NamedTuple": """
            class A(typing.NamedTuple):
                x: int
                y: int = 3
            [A(1)._asdict(), A._field_defaults]
            """,
        "an abstract class": """
            class B(abc.ABC):
                @abc.abstractmethod
                def f(self): ...
            class A(B):
                def f(self): return 1
            [A().f(), isinstance(A(), B), sorted(B.__abstractmethods__)]
            """,
        "a registered subclass": """
            class B(abc.ABC): pass
            @B.register
            class A: pass
            isinstance(A(), B)
            """,
        "an enum": """
            class A(enum.Enum):
                X = 1
                Y = 1
                _private = 2
                def shout(self): return self.name + '!'
            [A.X.shout(), A.Y is A.X, A(1) is A.X, A._private]
            """,
        "an enum of texts": """
            class A(str, enum.Enum):
                X = 'x'
                __str__ = str.__str__
            [repr(A.X), str(A.X), A.X == 'x']
            """,
        "an enum of floats": """
            class A(float, enum.Enum):
                X = 1.5
            [repr(A.X), A.X + 1]
            """,
        "an IntEnum": """
            class A(enum.IntEnum):
                X = 1
            [str(A.X), A.X + 1, A(1) is A.X]
            """,
        "a flag": """
            class A(enum.Flag):
                X = 1
                Y = 2
            [repr(A.X | A.Y), (A.X | A.Y) is A(3)]
            """,
        "an enum with names of its own": """
            class A(str, enum.Enum):
                def _generate_next_value_(name, *_): return name.lower()
                X = enum.auto()
                @classmethod
                def _missing_(cls, value): return cls.X
            [A.X.value, A('none').name]
            """,
        "an enum with attributes": """
            class A(enum.Enum):
                X = (1, 2)
                def __init__(self, a, b): self._b = b
            A.X._b
            """,
        "an enum with __new__": """
            class A(enum.Enum):
                X = (1, 'one')
                def __new__(cls, value, label):
                    self = object.__new__(cls)
                    self._value_, self.label = value, label
                    return self
            [A.X.label, A(1) is A.X]
            """,
        "an enum whose __new__ makes its bytes": """
            class A(bytes, enum.Enum):
                X = 3
                def __new__(cls, value):
                    self = bytes.__new__(cls, [value])
                    self._value_ = value
                    return self
            [bytes(A.X), A.X.value, A(3) is A.X]
            """,
        "an enum of texts with __new__": """
            class A(str, enum.Enum):
                X = 'x', 'label'
                def __new__(cls, value, label):
                    self = str.__new__(cls, value)
                    self._value_, self.label = value + '!', label
                    return self
                __str__ = lambda self: 'shown'
            [A.X == 'x', A.X.value, A.X.label, str(A.X), A('x!') is A.X]
            """,
        "an enum of tuples": """
            class A(tuple, enum.Enum):
                X = 1, 2
            [A.X[1], A((1, 2)) is A.X]
            """,
        "an enum of functions": """
            class A(enum.Enum):
                X = enum.member(lambda x: x * x)
                Y = enum.member(int)
            [A.X.value(3), A(int) is A.Y]
            """,
        "a method dispatched by its argument": """
            class A:
                @functools.singledispatchmethod
                def f(self, x): return 'any'
                @f.register
                def _(self, x: int): return 'int'
            [A().f(1), A().f('x')]
            """,
        "weak references to objects": """
            class A: pass
            a = A()
            w = weakref.WeakKeyDictionary({a: 1})
            w[a]
            """,
        "a generic class": """
            class B(typing.Generic[T]):
                def f(self) -> T: return 1
            class A(B[int]): pass
            [A().f(), str(A.__orig_bases__), B.__parameters__ == (T,), B[int]().f()]
            """,
        "a generic NamedTuple": """
            class A(typing.NamedTuple, typing.Generic[T]):
                x: T
            A[int](1)._asdict()
            """,
        "a protocol": """
            @typing.runtime_checkable
            class B(typing.Protocol[T]):
                def f(self) -> T: ...
            class A:
                def f(self): ...
            [isinstance(A(), B), isinstance(3, B)]
            """,
        "a metaclass that takes keywords": """
            class B(type):
                def __new__(meta, name, bases, space, *, deep):
                    return super().__new__(meta, name, bases, {**space, 'deep': deep})
                def __init__(cls, *given, deep): pass
            class A(metaclass=B, deep=3): pass
            [A.deep, type(A) is B]
            """,
        "a metaclass that looks up every other name": """
            class B(type):
                def __getattr__(cls, name): return cls.held[name]
            class A(metaclass=B): held = {'x': 1}
            A.x
            """,
        "a TypedDict": """
            class B(typing.TypedDict):
                x: int
            class A(B, total=False):
                y: B
            [A(x=1), A.__required_keys__, A.__optional_keys__, sorted(A.__annotations__)]
            """,
        "a generic TypedDict": """
            class A(typing.TypedDict, typing.Generic[T]):
                x: T
            A[int](x=1)
            """,
        "type variables": """
            S = typing.TypeVar('S', int, str)
            R = typing.TypeVar('R', bound=typing.Sized)
            def f(c: typing.Callable[[S], S]) -> R: ...
            [str(f.__annotations__), f.__annotations__['return'] is R]
            """,
        "annotations that one cannot send": """
            P = typing.ParamSpec('P')
            S = typing.TypeVarTuple('S')
            A = typing.NewType('A', int)
            def f(c: typing.Callable[P, T], x: A, *a: typing.Unpack[S]) -> T: return x
            f(None, 3)
            """,
        "a type variable of a module": """
            def f(a: typing.AnyStr): ...
            f.__annotations__['a'] is typing.AnyStr
            """,
        "a text as annotation": """
            def f(x: typing.List['Later']): ...
            repr(f.__annotations__)
            """,
        "type parameters": """
            def f[S: int](x: S) -> S: return x
            class A[S]:
                def g(self, x: S): return x
            def h[S: Later](x: S) -> S: return x
            [f(1), h(1), A().g(2), A[int]().g(3), A.__parameters__ == A.__type_params__]
            """,
        "a type alias": """
            type A[S] = list[S] | int
            def f(x: A): return x
            f(1)
            """,
        "functions of a module made here": """
            m = types.ModuleType('m')
            exec('y = 5\\ndef g():\\n    global y\\n    y = 6\\ndef h(): return y', vars(m))
            g, h = m.g, m.h
            [g(), h(), g.__module__]
            """,
    }
    SINCE = {"type parameters": (3, 12), "a type alias": (3, 12)}

    def test_local_classes_of_every_kind_travel(self):
        asks = {}
        for name, text in self.LOCAL.items():
            if sys.version_info >= self.SINCE.get(name, (3,)):
                *definitions, question = textwrap.dedent(text).strip().splitlines()
                modules = "abc collections dataclasses enum functools types typing weakref".split()
                space = {module: importlib.import_module(module) for module in modules}
                space.update(__name__="notebook", T=typing.TypeVar("T"))
                exec(compile("\n".join(definitions), "notebook", "exec", dont_inherit=True), space)
                asks[name] = eval(f"lambda: {question}", space)
        there = Parallel(n_jobs=2, on_error="return")([delayed(ask)() for ask in asks.values()] * 2)
        expected = {name: ask() for name, ask in asks.items()}
        assert dict(zip(asks, there)) == dict(zip(asks, there[len(asks) :])) == expected

    def test_relative_imports_of_a_module_run_as_main_work(self, tmp_path):
        package = tmp_path / "package"
        package.mkdir()
        (package / "util.py").write_text("def g(x): return x + 100\n")
        (package / "__init__.py").touch()
        (package / "main.py").write_text(
            textwrap.dedent("""
            from joblite import Parallel, delayed
            def work(x):
                from .util import g
                return g(x)
            print(Parallel(n_jobs=2)(delayed(work)(i) for i in range(3)))
            """)
        )
        done = subprocess.run(
            [sys.executable, "-m", "package.main"],
            text=True,
            capture_output=True,
            env=script_env(),
            timeout=DEADLINE,
            cwd=tmp_path,
        )
        assert (done.stdout, done.stderr) == ("[100, 101, 102]\n", "")

    def test_relative_imports_of_a_local_function_warn_of_nothing(self, tmp_path):
        package = tmp_path / "package"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "util.py").write_text("def g(x): return x + 100\n")
        (package / "work.py").write_text(
            textwrap.dedent("""
            def make():
                def work(x):
                    from .util import g
                    return g(x)
                return work
            """)
        )
        done = run_script(
            """
            import warnings
            from joblite import Parallel, delayed
            from package.work import make
            warnings.simplefilter("error")
            print(Parallel(n_jobs=2)(delayed(make())(i) for i in range(2)))
            """,
            env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE}"},
        )
        assert done.stdout == "[100, 101]\n"

    def test_instances_come_home(self):
        """An instance sent out and back, or made over there,
        is an instance of the caller's own class."""

        class Local:
            def __init__(self, x):
                self.x = x

        class Color(enum.Enum):
            RED = 1

        back = Parallel(n_jobs=2)(
            delayed(lambda v: (v, Local(v.x + 1)))(Local(i)) for i in range(4)
        )
        assert all(type(value) is Local for pair in back for value in pair)
        assert [(a.x, b.x) for a, b in back] == [(0, 1), (1, 2), (2, 3), (3, 4)]
        variable = typing.TypeVar("variable")

        class Operation(enum.Enum):
            SQUARE = enum.member(lambda x: x * x)

        class Mode(enum.Flag):
            READ, WRITE = 1, 2

        for value in (Color.RED, Operation.SQUARE, Mode.READ | Mode.WRITE, variable):
            assert travel(value) is value

    def test_what_was_deleted_from_a_class_is_deleted(self):
        class Base:
            def __init_subclass__(cls):
                cls.made = cls.kept = 1

        class Local(Base):
            here = 1

        del Local.made

        def look():
            return sorted(set(vars(Local)) & {"here", "kept", "made"})

        assert Parallel(n_jobs=2)([delayed(look)()] * 2) == [["here", "kept"]] * 2
        del Local.here
        assert Parallel(n_jobs=2)([delayed(look)()] * 2) == [["kept"]] * 2

    def test_threads_may_fill_one_class_at_once(self):
        """Tasks that dask runs in threads of one process bring the same class."""

        class Local:
            here = 1

        class Names:
            def __contains__(self, name):
                Local.late = 1  # as another thread does
                return False

        assert "here" in joblite._without(vars(Local), Names())

    def test_what_belongs_to_one_process_is_refused(self):
        """Pickle takes a connection's number for it: over there that is another file, or none."""
        ours, theirs = multiprocessing.Pipe()
        with ours, theirs, socket.socket() as sock:
            made = types.ModuleType("made")
            for thing, name in (
                (ours, "connection"),
                (sock, "socket"),
                (threading.Lock(), "lock"),
                (made, "module 'made'"),
                (typing.NewType("New", int), "New belongs to one process"),
                (typing.ParamSpec("Params"), "~Params belongs to one process"),
                (typing.TypeVarTuple("Types"), "Types belongs to one process"),
            ):
                text = rf"task 0: args\[0\]\S* cannot be pickled: .*{name}"
                with pytest.raises(pickle.PicklingError, match=text):
                    Parallel(n_jobs=2)([delayed(square)(thing)])

    def test_functions_share_globals(self):
        """Functions of one namespace change and see one set of globals over there too."""
        done = run_script("""
            from joblite import Parallel, delayed
            count = 0
            def step():
                global count
                count += 1
                return look()
            def look():
                return count
            print(Parallel(n_jobs=2)([delayed(lambda f, g: (f(), g()))(step, look)]), count)
            """)
        assert done.stdout == "[(1, 1)] 0\n"

    def test_functions_share_globals_whichever_thread_sends_first(self):
        """The first threads of a process that send functions do so at once: what comes back lives
        in the caller's globals."""
        done = run_script("""
            import os, threading
            from joblite import Parallel, delayed
            draw, firsts, both = os.urandom, iter(range(2)), threading.Barrier(2)
            def draw_together(nbytes):
                if nbytes == 16 and next(firsts, None) is not None:
                    both.wait(20)
                return draw(nbytes)
            os.urandom = draw_together
            def give():
                return lambda: draw
            def send():
                back, = Parallel(n_jobs=2)([delayed(give)()])
                found.append(back.__globals__ is globals())
            found = []  # two that print at once may mix their lines
            threads = [threading.Thread(target=send) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            print(found)
            """)
        assert done.stdout == "[True, True]\n"

    def test_arrays_travel_uncopied(self):
        array = np.arange(100_000.0)
        frames = joblite._pack({"deep": [array]})
        assert len(frames) == 2 and len(frames[0]) < 1000
        assert np.shares_memory(np.frombuffer(frames[1]), array)
        back = joblite._unpack([bytes(frames[0]), bytearray(frames[1])], {})["deep"][0]
        assert (back == array).all() and back.flags.writeable
        assert (travel(array) == array).all()

    def test_packing_keeps_nothing_alive(self):
        value = Point(1, 2)
        gone = weakref.ref(value)
        gc.disable()
        try:
            joblite._pack([value])
            del value
            assert gone() is None
        finally:
            gc.enable()

    def test_unpicklable_argument_is_named(self, processes):
        text = r"^task 2: args\[0\]\['m'\]\.lock cannot be pickled: .*lock"
        values = [0, 1, {"m": Locked()}, 3, 4]
        with pytest.raises(pickle.PicklingError, match=text):
            Parallel(**processes)(delayed(square)(value) for value in values)

    GUILTY = {
        "args[0]": lambda: delayed(square)(threading.Lock()),
        "args[0].lock": lambda: delayed(square)(Locked()),
        "kwargs['x'][1]": lambda: delayed(square)(3, x=[1, Locked()]),
        "function.args": lambda: delayed(functools.partial(square, Locked()))(),
        "function.__self__": lambda: delayed(Locked().look)(),
        "function.__defaults__[0].lock": lambda: delayed(
            (lambda lock: lambda x=lock: x)(Locked())
        )(),
        "kwargs['x']['a'][0].lock": lambda: delayed(square)(x={"a": [Locked()]}),
        "args[0][0][0]": lambda: delayed(square)(holding_itself(threading.Lock())),
        "function (its variable lock)": lambda: delayed((lambda lock: lambda: lock)(Locked()))(),
    }

    @pytest.mark.parametrize("text", GUILTY)
    def test_the_part_that_cannot_be_pickled_is_named(self, text):
        with pytest.raises(pickle.PicklingError, match=re.escape(f"task 0: {text}")):
            Parallel(n_jobs=2)([self.GUILTY[text]()])

    def test_arrays_of_every_size_can_be_written_to(self):
        def sort(array):
            array.sort()
            return array

        for count in (1000, 2500, 7500, 12_500, 300_000):
            for result in Parallel(n_jobs=2)(
                delayed(sort)(np.arange(count)[::-1].copy()) for _ in range(2)
            ):
                result += 1
                assert result[0] == 1

    def test_reason_is_told_without_cloudpickle_too(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
        text = r"args\[0\] cannot be pickled: .*'_thread.lock'"
        with pytest.raises(pickle.PicklingError, match=text):
            Parallel(n_jobs=2)([delayed(square)(threading.Lock())])

    def test_big_result_that_cannot_be_unpickled_here_fails_its_task_only(self, processes):
        def make(i):
            # so that each result leaves as soon as it is there
            time.sleep(joblite.CHECKPOINT_S * 1.5)
            return [bytes(2**21), Trap("caller")] if i == 1 else i

        results = Parallel(**processes, on_error="return", batch_size=3)(
            delayed(make)(i) for i in range(3)
        )
        assert results[::2] == [0, 2] and "could not be unpickled here" in str(results[1])

    ERRORS = {
        "plain": (lambda: ValueError("text", 2), ValueError, "text"),
        "an address in its text": (
            lambda: ValueError("bad item", Trap("")),
            ValueError,
            "bad item",
        ),
        "a set in its text": (lambda: KeyError(frozenset("abcdefghijklmn")), KeyError, "frozenset"),
        "another text each time": (lambda: Stamped("now"), Stamped, "now 0."),
        "a __new__ of its own": (lambda: MadeByNew(1, 2), MadeByNew, "1"),
        "an os error with a path": (lambda: WithPath("gone.txt"), WithPath, "Errno 2.*'gone.txt'"),
        "slots": (lambda: WithSlots(4), WithSlots, "code 4 <object"),
        "any attribute raises": (lambda: AnyAttribute("odd"), AnyAttribute, "odd"),
        "no text": (lambda: Unprintable("x"), Unprintable, None),
        "an argument without a text": (lambda: ValueError(Unshown()), ValueError, None),
        "its text made from an item": (
            lambda: FromItem(Trap("")),
            FromItem,
            r"bad <.*Trap object at [^>]*>(\n|$)",
        ),
        "two arguments": (lambda: TwoArguments(1, 2), TwoArguments, "1 and 2"),
        "keyword-only": (lambda: KeywordOnly(code=3), KeywordOnly, "code 3"),
        "unpicklable attribute": (lambda: HoldsLock("locked"), HoldsLock, "locked"),
        "unpicklable argument": (
            lambda: ValueError("see", threading.Lock()),
            (ValueError, RuntimeError),
            "see",
        ),
        "huge message": (lambda: ValueError("x" * 3_000_000), ValueError, "xxx"),
        "os error": (
            lambda: FileNotFoundError(2, "No such file", "gone.txt"),
            FileNotFoundError,
            "gone.txt",
        ),
        "system exit": (lambda: SystemExit(4), SystemExit, "4"),
        "local class": (lambda: type("Odd", (Exception,), {})("odd one"), Exception, "odd one"),
        "group": (
            lambda: ExceptionGroup("some", [KeywordOnly(code=3), HoldsLock("locked")]),
            ExceptionGroup,
            "some",
        ),
    }

    def test_errors_arrive_as_their_own_type(self, processes):
        for name, (make, kind, text) in self.ERRORS.items():
            with pytest.raises(kind, match=text) as caught:
                Parallel(**processes)(delayed(raise_it)(make) for _ in range(2))
            assert "raise_it" in str(caught.value.__cause__), (
                f"{name}: the worker's traceback is the cause"
            )

    def test_errors_keep_their_attributes(self):
        for make, attribute, value in (
            (lambda: FromItem("x"), "item", "x"),
            (lambda: WithPath("x"), "path", "x"),
            (lambda: WithSlots(4), "code", 4),
            (lambda: MadeByNew(1, 2), "second", 2),
            (lambda: ImportError("x", name="y"), "name", "y"),
            (lambda: StopIteration("x"), "value", "x"),
        ):
            error = Parallel(n_jobs=2, on_error="return")([delayed(raise_it)(make)])[0]
            assert type(error) is type(make()) and getattr(error, attribute) == value

    def test_error_chains_are_shown(self):
        def chained():
            try:
                1 / 0
            except ZeroDivisionError as error:
                raise KeyError("outer") from error

        with pytest.raises(KeyError) as caught:
            Parallel(n_jobs=2)([delayed(chained)()])
        assert "ZeroDivisionError" in str(caught.value.__cause__)

    @needs("cloudpickle")
    def test_cloudpickle_helps_with_what_is_left_out(self):
        assert travel({1: 2}.keys()) == {1}

    HOW = {"a file": [], "python -c": ["-c"], "stdin": ["-"]}

    @pytest.mark.parametrize("how", HOW)
    def test_main_needs_no_guard(self, how, tmp_path):
        code = textwrap.dedent("""
            from joblite import Parallel, delayed
            factor = 2
            class Box:
                def __init__(self, x): self.x = x
            def double(box): return Box(box.x * factor)
            results = Parallel(n_jobs=2)(delayed(double)(Box(i)) for i in range(3))
            factor = 3
            results += Parallel(n_jobs=2)(delayed(double)(Box(i)) for i in range(3))
            print([box.x for box in results], all(type(box) is Box for box in results))
            """)
        path = tmp_path / "script.py"
        path.write_text(code)
        last = {"a file": [str(path)], "python -c": ["-c", code], "stdin": ["-"]}[how]
        done = subprocess.run(
            [sys.executable, *last],
            input=code if how == "stdin" else "",
            text=True,
            capture_output=True,
            env=script_env(),
            timeout=DEADLINE,
            cwd=tmp_path,
        )
        assert (done.stdout, done.stderr) == ("[0, 2, 4, 0, 3, 6] True\n", "")


def send_a_file():
    with open(os.devnull, "rb") as file:
        Parallel(2)([delayed(square)(file)])


def holding_itself(value):
    holder = []
    holder += [holder, value]
    return holder


class Locked:
    def __init__(self):
        self.lock = threading.Lock()

    def look(self):
        pass


class Trap:
    """Cannot be unpickled in one of the two kinds of process."""

    def __init__(self, where):
        self.where = where

    def __setstate__(self, state):
        worker = joblite._Local.inside or multiprocessing.parent_process()
        if state["where"] == ("worker" if worker else "caller"):
            raise ValueError("trapped")
        self.__dict__.update(state)


# ---- 6. Pools ----

CALLER = """
    import os, sys, threading, time
    from joblite import Parallel, delayed
    def hang(i):
        with open(f"{sys.argv[1]}/{i}", "w") as sign:  # a finalizer would swallow a Ctrl-C
            sign.write(str(os.getpid()))
        threading.Event().wait(600)
    list(Parallel(n_jobs=3)(delayed(hang)(i) for i in range(3)))
    """


@contextlib.contextmanager
def running_caller(tmp_path, code, tasks=3):
    """A fresh interpreter in the midst of a run of hanging tasks, and the pids of its workers."""
    script = tmp_path / "caller.py"
    script.write_text(textwrap.dedent(code))
    signs = tmp_path / "signs"
    signs.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), str(signs)], env=script_env(), stderr=subprocess.PIPE
    )
    try:
        wait_until(
            lambda: process.poll() is not None or len(list(signs.iterdir())) == tasks,
            "the start of the tasks",
        )
        assert process.poll() is None, process.stderr.read().decode()
        pids = wait_until(
            lambda: {int(path.read_text() or 0) for path in signs.iterdir()} - {0}, "pids"
        )
        yield process, pids
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def all_gone(pids):
    """Whether all have ended. The first process of a machine may take its time to bury those that
    their parents have left to it."""
    return {state_and_parent(pid) for pid in pids} <= {(None, None), ("Z", 1)}


@contextlib.contextmanager
def listening(name, handler):
    """A handler on a logger while the block runs."""
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that writes a module of this text and imports it, or loads it anew; `.write` does
    not."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"module_{tmp_path.name}"

    def write(text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        importlib.invalidate_caches()

    def load(text):
        write(text)
        return (
            importlib.reload(sys.modules[name])
            if name in sys.modules
            else importlib.import_module(name)
        )

    load.write = write
    yield load
    sys.modules.pop(name, None)


@pytest.mark.usefixtures("by_value")
class TestSection6Pools:
    @posix
    def test_killed_worker_ends_the_run_and_the_next_one_works(self, processes):
        with pytest.raises(joblite.TerminatedWorkerError, match="SIGKILL") as caught:
            Parallel(**processes)(
                delayed(die_on)(i, 3, lambda: os.kill(os.getpid(), signal.SIGKILL))
                for i in range(5)
            )
        assert "task 3" in caught.value.__notes__[0]
        assert Parallel(**processes)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    @posix
    def test_a_bound_object_is_sent_as_it_is_when_its_task_is_submitted(self):
        items = [1]

        def tasks():
            for _ in range(4):
                yield delayed(items.count)(1)
                items.append(1)

        assert Parallel(n_jobs=2, pre_dispatch=1, batch_size=1)(tasks()) == [1, 2, 3, 4]

    @pytest.mark.parametrize("name", ["multiprocessing", "loky"])
    def test_globals_that_an_initializer_sets_stay(self, name):
        done = run_script(
            """
            import sys
            from joblite import Parallel, delayed
            data, seen, factor = None, [], 1
            def prepare():
                global data, fresh
                data, fresh = [10, 20, 30], 7
                seen.append("ready")
            def work(i): return data[i] * factor, fresh, seen[-1]
            for factor in (2, 3):
                parallel = Parallel(n_jobs=2, backend=sys.argv[1], initializer=prepare)
                print(parallel(delayed(work)(i) for i in range(2)))
            print(data, seen)
            """,
            name,
        )
        assert done.stdout == (
            "[(20, 7, 'ready'), (40, 7, 'ready')]\n[(30, 7, 'ready'), (60, 7, 'ready')]\nNone []\n"
        )

    def test_idle_death_is_not_noticed(self, processes):
        pids = set(Parallel(**processes, batch_size=1)(delayed(where)() for _ in range(8)))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        again = Parallel(**processes)(delayed(where)() for _ in range(4))
        assert len(again) == 4 and not pids & set(again)

    @posix
    def test_many_idle_deaths_are_not_noticed(self, tmp_path):
        def meet(i):
            (tmp_path / str(i)).touch()
            for other in range(6):
                wait_for_file(tmp_path / str(other))
            return os.getpid()

        pids = set(Parallel(6, batch_size=1)(delayed(meet)(i) for i in range(6)))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        again = Parallel(2, batch_size=4)(delayed(abs)(i) for i in range(4))
        assert len(pids) == 6 and again == [0, 1, 2, 3]

    @posix
    def test_workers_hold_no_descriptor_that_children_inherit(self):
        def pipes():
            held = []
            for each in os.listdir("/dev/fd"):
                with contextlib.suppress(OSError):  # of that list
                    held.append(os.fstat(int(each)).st_ino)
            return held

        joblite.shutdown_workers()
        ends = os.pipe()
        try:
            os.set_inheritable(ends[1], True)
            [held] = Parallel(n_jobs=2)([delayed(pipes)()])
            assert held and os.fstat(ends[1]).st_ino not in held
        finally:
            for end in ends:
                os.close(end)

    @pytest.mark.parametrize("flags", [(), ("-O",), ("-O", "-X", "dev", "-b")], ids=str)
    @posix
    def test_workers_have_the_options_of_the_interpreter(self, flags):
        done = run_script(
            """
            import sys
            from joblite import Parallel, delayed

            def flags():
                return tuple(sys.flags), sys._xoptions.get("dev")

            here = flags()
            assert Parallel(n_jobs=2)([delayed(flags)()]) == [here]
            print(sys.flags.optimize, sys.flags.dev_mode)
            """,
            flags=flags,
        )
        assert done.stdout.split() == [str(int("-O" in flags)), str("dev" in flags)]

    @posix
    def test_a_program_that_waits_for_any_child_may_end_its_workers(self):
        run_script(
            """
            import os, signal
            import joblite
            from joblite import Parallel, delayed

            assert Parallel(n_jobs=2)(delayed(abs)(i) for i in (-1, -2)) == [1, 2]
            os.kill(joblite._starters[0].pid, signal.SIGKILL)
            assert os.wait()[0] == joblite._starters[0].pid
            joblite.shutdown_workers()
            assert Parallel(n_jobs=2)(delayed(abs)(i) for i in (-1, -2)) == [1, 2]
            """
        )

    @posix
    def test_killed_fork_server_is_replaced(self):
        workers = set(Parallel(n_jobs=2, batch_size=1)(delayed(where)() for _ in range(8)))
        os.kill(joblite._starters[0].pid, signal.SIGKILL)
        wait_until(
            lambda: all_gone(workers),
            "the end of its workers, to which a task might be given before",
        )
        assert Parallel(n_jobs=2)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    @posix
    def test_killed_fork_server_fails_running_tasks(self, tmp_path):
        def kill_server():
            wait_for_file(tmp_path / "sign")
            os.kill(joblite._starters[0].pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_server)
        Parallel(n_jobs=2)(delayed(where)() for _ in range(2))
        killer.start()
        with pytest.raises(joblite.TerminatedWorkerError, match="fork server"):
            Parallel(n_jobs=2)([delayed(mark_and_hang)(tmp_path / "sign")])
        killer.join()
        assert Parallel(n_jobs=2)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    @posix
    @posix
    @pytest.mark.parametrize("sig", ["SIGKILL", "SIGTERM"])
    def test_no_process_outlives_a_killed_caller(self, sig, tmp_path):
        with running_caller(tmp_path, CALLER) as (process, pids):
            family = pids | {process.pid}
            parents = {state_and_parent(pid)[1] for pid in pids}
            process.send_signal(getattr(signal, sig))
            process.wait()
            wait_until(
                lambda: all_gone(family | parents - {os.getpid()} - {process.pid}),
                "the end of all processes",
            )

    @pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="looks for processes in /proc")
    def test_no_worker_outlives_a_caller_and_a_fork_server_that_are_killed_as_it_starts(self):
        # a worker that lives holds our standard output
        done = run_script(
            f"""
            import contextlib, glob, os, signal, threading, time
            from joblite import Parallel, delayed
            def children(pid):
                found = []
                for path in glob.glob("/proc/[0-9]*/stat"):
                    with contextlib.suppress(OSError):  # it has ended
                        if open(path).read().rpartition(")")[2].split()[1] == str(pid):
                            found.append(int(path.split("/")[2]))
                return found
            tasks = [delayed(time.sleep)({DEADLINE * 4})] * 2
            threading.Thread(target=lambda: Parallel(2)(tasks), daemon=True).start()
            server = []
            while not (server and children(server[0])):
                server = children(os.getpid())
            for pid in (*server, os.getpid()):
                os.kill(pid, signal.SIGKILL)
            """,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr

    @posix
    @pytest.mark.parametrize("options", ["3", "3, return_as='generator'", "3, 'threading'", "1"])
    def test_ctrl_c_ends_the_run(self, options, tmp_path):
        with running_caller(
            tmp_path, CALLER.replace("n_jobs=3", options), tasks=int(options[0])
        ) as (process, pids):
            process.send_signal(signal.SIGINT)
            errors = process.stderr.read().decode()
            process.wait(DEADLINE)
            assert "KeyboardInterrupt" in errors
            wait_until(lambda: all_gone(pids), "the end of the workers")

    @posix
    def test_interrupted_task_runs_its_finally(self, tmp_path, patience):
        """A task that is ended because another failed gets a KeyboardInterrupt first,
        so that it can tidy up."""

        tasks = [delayed(hang_and_tidy)(tmp_path), delayed(fail_after)(tmp_path / "sign")]
        with pytest.raises(ValueError, match="enough"):
            Parallel(n_jobs=2)(tasks)
        wait_until((tmp_path / "tidied").exists, "the end of the task")

    @posix
    def test_interrupted_worker_is_not_used_again(self, tmp_path):
        """What its task was in the midst of may be undone at any later time: by a finalizer,
        in the task of another."""

        def fail():
            return wait_for_file(tmp_path / "sign") and int("no number")

        with pytest.raises(ValueError, match="no number"):
            Parallel(n_jobs=2)([delayed(mark_and_hang)(tmp_path / "sign"), delayed(fail)()])
        interrupted = int((tmp_path / "sign").read_text())
        again = Parallel(n_jobs=2, batch_size=1)(delayed(os.getpid)() for _ in range(20))
        assert interrupted not in again

    @posix
    def test_task_that_ignores_interrupts_is_killed(self, tmp_path):
        def stubborn():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            mark_and_hang(tmp_path / "sign")

        with pytest.raises(ValueError, match="enough"):
            Parallel(n_jobs=2)([delayed(stubborn)(), delayed(fail_after)(tmp_path / "sign")])
        pid = int((tmp_path / "sign").read_text())
        wait_until(lambda: all_gone({pid}), "the end of the worker")

    def test_timeout_ends_its_task_only(self, processes, tmp_path):
        tasks = [delayed(square)(i) for i in range(6)]
        tasks[2] = delayed(mark_and_hang)(tmp_path / "sign")
        for _ in ("cold", "warm"):
            results = Parallel(**processes, timeout=1, on_error="return")(tasks)
            assert results[:2] + results[3:] == [0, 1, 9, 16, 25]
            assert isinstance(results[2], TimeoutError) and isinstance(
                results[2], multiprocessing.TimeoutError
            )
            assert "task 2 ran longer than timeout=1 s" in str(results[2])

    def test_a_task_that_talks_all_the_time_has_its_time(self, processes):
        """There is always a message of it, and it swallows the interrupt."""
        done = run_script(f"""
            import time
            from joblite import Parallel, delayed
            def talk():
                while True:
                    try:
                        print("talk")
                        time.sleep(0.001)
                    except BaseException:
                        pass
            if __name__ == "__main__":
                late, well = Parallel(**{processes}, timeout=0.5, on_error="return")(
                    [delayed(talk)(), delayed(abs)(-1)])
                print(type(late).__name__, well)
            """)
        assert done.stdout.splitlines()[-1] == "TimeoutError 1" and not done.stderr

    HANGS = {
        "a loop": "while True: pass",
        "a sleep": "__import__('time').sleep(600)",
        "C code that keeps the lock": "__import__('re').match('(a+)+$', 'a' * 60 + 'b')",
        "a loop that swallows the interrupt": (
            "while True:\n  try:\n    while True: pass\n  except BaseException: pass"
        ),
    }
    CRASHES = {
        "a bad address": "__import__('ctypes').string_at(0)",
        "an abort": "__import__('os').abort()",
    }

    @staticmethod
    def outer_of(code):
        """A function that runs code in an inner one, while another thread of its process waits."""
        space = {}
        inner = "def inner():\n" + textwrap.indent(code, "  ")
        wait = "Thread(target=Event().wait, args=(600,), daemon=True).start()"
        outer = f"def outer():\n  {wait}\n  inner()"
        whole = f"from threading import Event, Thread\n{inner}\n{outer}\n"
        exec(compile(whole, "/away/work.py", "exec"), space)
        return space["outer"]

    def test_a_timeout_says_where_the_task_was(self, monkeypatch):
        monkeypatch.setattr(joblite, "GRACE_S", 2.0)  # the stack is written, however busy it is
        tasks = [delayed(self.outer_of(code))() for code in self.HANGS.values()] + [
            delayed(abs)(-1)
        ]
        where = r"=0.5 s; it was at (\S+ (prefix)?match <- )*work.py:\d inner <- work.py:\d+ outer$"
        for _ in ("cold", "warm"):
            *late, well = Parallel(len(tasks), timeout=0.5, on_error="return")(tasks)
            assert well == 1
            for what, error in zip(self.HANGS, late):
                assert isinstance(error, TimeoutError) and re.search(where, str(error)), what

    @pytest.mark.parametrize("what", CRASHES)
    def test_a_crash_says_where_the_task_was(self, what):
        with pytest.raises(joblite.TerminatedWorkerError) as caught:
            Parallel(2)([delayed(self.outer_of(self.CRASHES[what]))()])
        where = r" \(SIG\w+\); it was at (\S+ string_at <- )?work.py:3 inner <- work.py:6 outer$"
        assert re.search(where, str(caught.value))

    def test_a_recursion_without_end_is_told_by_its_first_frames(self):
        deep = self.outer_of(
            "def dig(n):\n    dig(n - 1) if n else __import__('os').abort()\ndig(500)"
        )
        with pytest.raises(joblite.TerminatedWorkerError) as caught:
            Parallel(2)([delayed(deep)()])
        assert re.search(" at (work.py:4 dig <- ){9}work.py:4 dig$", str(caught.value))

    def test_ctrl_c_says_where_the_tasks_were(self, tmp_path):
        def nap(i):
            os.mkdir(tmp_path / str(i))
            for _ in range(600):
                time.sleep(0.1)

        def interrupt():
            wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt) as caught:
            Parallel(2)(delayed(nap)(i) for i in range(4))
        thread.join()
        notes = sorted(caught.value.__notes__)
        assert [re.sub(r":\d+", "", note) for note in notes] == [
            f"task {i} was ended; it was at test_joblite.py nap" for i in range(2)
        ]

    @posix
    @pytest.mark.parametrize("sig", ["SIGKILL", "SIGTERM"])
    def test_a_kill_from_outside_says_nothing_of_an_earlier_task(self, sig):
        """Also not what a process that the task has forked wrote there as it crashed."""

        def fork_and_crash():
            pid = os.fork()
            if pid == 0:
                os.abort()
            return os.WTERMSIG(os.waitpid(pid, 0)[1])

        def kill_itself():
            os.kill(os.getpid(), getattr(signal, sig))
            threading.Event().wait(DEADLINE)

        results = Parallel(2, batch_size=2, on_error="return")(
            [delayed(fork_and_crash)(), delayed(kill_itself)()]
        )
        assert (
            results[0] == signal.SIGABRT
            and f"({sig})" in str(results[1])
            and " at " not in str(results[1])
        )

    def test_many_timeouts_leave_no_descriptor(self):
        def hang():
            threading.Event().wait(DEADLINE)

        def descriptors():
            joblite._end_idle_workers(0)  # there may be one or two
            server = joblite._starters[0].pid
            return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), server)]

        Parallel(2, timeout=0.01, on_error="skip")([delayed(hang)()] * 2)
        ours, of_server = descriptors()
        most = [ours, of_server + 3]  # the server may still hold what is of the last that it saw
        assert Parallel(2, timeout=0.01, on_error="skip")([delayed(hang)()] * 40) == []

        def are_few():
            return all(map(operator.le, descriptors(), most))

        wait_until(are_few, "the descriptors of ended workers to be closed")

    def test_a_task_with_a_signal_handler_and_a_fault_handler_of_its_own_has_them(self, tmp_path):
        def work():
            import faulthandler

            heard = []
            signal.signal(signal.SIGUSR1, lambda *_: heard.append("SIGUSR1"))
            signal.raise_signal(signal.SIGUSR1)
            with open(tmp_path / "own", "w") as file:
                faulthandler.dump_traceback(file)
                faulthandler.enable(file)
            return heard, faulthandler.is_enabled()

        assert Parallel(2, timeout=DEADLINE)([delayed(work)()]) == [(["SIGUSR1"], True)]
        assert " in work\n" in (tmp_path / "own").read_text()

    def test_a_timeout_in_threads_says_where_the_task_is(self):
        gate = threading.Event()

        def inner():
            gate.wait(DEADLINE)

        def outer():
            inner()

        try:
            parallel = Parallel(2, backend="threading", timeout=0.5, on_error="return")
            late, _ = parallel([delayed(outer)(), delayed(abs)(-1)])
            where = r" wait <- test_joblite.py:\d+ inner <- test_joblite.py:\d+ outer \(it cannot"
            assert re.search(where, str(late))
        finally:
            gate.set()

    @slow
    def test_what_a_worker_imports_first_does_not_count_as_time_of_its_task(
        self, processes, module
    ):
        """That takes nearly twice the timeout, and the task a part of it."""
        found = module(f"""
            import os, threading
            if os.getpid() != {os.getpid()}:
                threading.Event().wait(2.2)
            def work():
                return threading.Event().wait(0.4)
            """)
        assert Parallel(**processes, timeout=1.2)([delayed(found.work)()]) == [False]

    def test_what_a_task_in_time_prints_does_not_hide_its_answer(self):
        """Both may be read at once: then nothing more is to be waited for."""
        done = run_script("""
            from joblite import Parallel, delayed

            def speak(x):
                print(x, flush=True)
                return x

            numbers = list(range(300))
            assert Parallel(2, timeout=600)(delayed(speak)(i) for i in numbers) == numbers
            """)
        assert sorted(map(int, done.stdout.split())) == list(range(300)) and not done.stderr

    def test_timeout_in_threads_leaves_the_thread(self, tmp_path):
        gate = threading.Event()
        try:
            results = Parallel(2, backend="threading", timeout=0.5, on_error="return")(
                [delayed(gate.wait)(DEADLINE), *(delayed(square)(i) for i in range(4))]
            )
            assert isinstance(results[0], TimeoutError) and results[1:] == [0, 1, 4, 9]
        finally:
            gate.set()

    def test_timeout_in_place_is_ignored_with_a_warning(self):
        with pytest.warns(UserWarning, match="timeout is ignored"):
            assert Parallel(n_jobs=1, timeout=0.001)([delayed(square)(2)]) == [4]

    def test_workers_are_reused(self, processes):
        first = set(Parallel(**processes, batch_size=1)(delayed(where)() for _ in range(8)))
        again = set(Parallel(**processes, batch_size=1)(delayed(where)() for _ in range(8)))
        assert os.getpid() not in first and first & again

    def test_idle_workers_are_closed(self):
        before = child_processes()
        Parallel(n_jobs=2, idle_worker_timeout=0.1)(delayed(where)() for _ in range(4))
        server = joblite._starters[0].pid
        wait_until(lambda: child_processes() - before <= {server}, "the end of idle workers")
        assert Parallel(n_jobs=2, idle_worker_timeout=0.1)(
            delayed(square)(i) for i in range(3)
        ) == [0, 1, 4]

    def test_workers_may_stay_idle_for_ever(self):
        run = Parallel(n_jobs=2, idle_worker_timeout=float("inf"), batch_size=1)
        assert len({*run(delayed(where)() for _ in range(20))}) <= 2

    def test_what_an_initializer_sets_on_a_class_stays(self, processes):
        class Database:
            link = None

            @classmethod
            def connect(cls, link):
                cls.link = cls.new = link

        run = Parallel(**processes, initializer=Database.connect, initargs=(5,))
        for _ in range(2):
            assert run(delayed(lambda: (Database.link, Database.new))() for _ in range(4)) == (
                [(5, 5)] * 4
            )
        assert Database.link is None

    @pytest.mark.parametrize("how", ["at exit", "maxtasksperchild", "silence", "shutdown_workers"])
    def test_an_idle_worker_ends_as_a_program_does(self, how, tmp_path):
        """What it has written reaches the file, what was to run at exit runs."""
        options = {
            "maxtasksperchild": {"maxtasksperchild": 1},
            "silence": {"idle_worker_timeout": 0.01},
        }
        run_script(
            """
            import atexit, os, sys, tempfile, time
            import joblite
            folder, how, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
            def work(i):
                global file, beside
                file = open(f"{folder}/{i} of {os.getpid()}.txt", "w")
                file.write("written")
                beside = tempfile.TemporaryDirectory(dir=folder)
                atexit.register(open, f"{folder}/{i} of {os.getpid()}.exit", "w")
            joblite.Parallel(2, **options, batch_size=1)(joblite.delayed(work)(i) for i in range(6))
            if how == "silence":
                end = time.monotonic() + 60
                while len([f for f in os.listdir(folder) if f.endswith("exit")]) < 6:
                    assert time.monotonic() < end
                    time.sleep(0.01)
            if how == "shutdown_workers":
                joblite.shutdown_workers()
                assert len([f for f in os.listdir(folder) if f.endswith("exit")]) == 6
            """,
            tmp_path,
            how,
            options.get(how, {}),
        )
        names = os.listdir(tmp_path)
        assert len(names) == 12 and sum(name.endswith("exit") for name in names) == 6
        texts = [path.read_text() for path in tmp_path.glob("*.txt")]
        assert texts == ["written"] * 6

    def test_an_idle_worker_that_does_not_end_is_killed(self):
        done = run_script("""
            import threading
            from joblite import Parallel, delayed
            def start(i):
                threading.Thread(target=threading.Event().wait).start()
            Parallel(3, batch_size=1)(delayed(start)(i) for i in range(9))
            print("end")
            """)
        assert (done.stdout, done.stderr) == ("end\n", "")

    def test_initializer_runs_in_each_worker(self, processes):
        def prepare(value):
            import builtins

            builtins.joblite_test_value = value

        def read():
            import builtins

            return builtins.joblite_test_value

        run = Parallel(**processes, initializer=prepare, initargs=([7],))
        assert run(delayed(read)() for _ in range(4)) == [[7]] * 4
        assert run(delayed(read)() for _ in range(4)) == [[7]] * 4

    def test_failing_initializer_raises_its_own_error(self, processes):
        with pytest.raises(KeyError, match="no database") as caught:
            Parallel(
                **processes, initializer=raise_it, initargs=(lambda: KeyError("no database"),)
            )(delayed(square)(i) for i in range(3))
        assert not hasattr(caught.value, "__notes__")  # it is the error of no task

    # what tasks do with memory and locks that processes share, and how it ends for the caller
    SHARED_MEMORY = {
        "the caller's": """
            def use(name):
                segment = SharedMemory(name=name)
                segment.buf[0] = 4  # each task the same: they run side by side
                segment.close()
            segment = SharedMemory(create=True, size=64)
            run(use, segment.name)
            again = SharedMemory(name=segment.name)
            assert segment.buf[0] == again.buf[0] == 4
            again.close()
            segment.close()
            segment.unlink()
            # a list
            def use(name):
                shared = ShareableList(name=name)
                shared[0] = 4  # each task the same: they run side by side
                shared.shm.close()
            shared = ShareableList([0, "text"])
            run(use, shared.shm.name)
            assert list(ShareableList(name=shared.shm.name)) == [4, "text"]
            shared.shm.close()
            shared.shm.unlink()
            # a list as an argument
            def use(shared):
                shared[0] = 4  # each task the same: they run side by side
            shared = ShareableList([0, "text"])
            run(use, shared)
            assert list(shared) == [4, "text"]
            shared.shm.close()
            shared.shm.unlink()
            """,
        "a task's": """
            # unlinked there
            def use(i):
                segment = SharedMemory(create=True, size=64)
                segment.close()
                segment.unlink()
                return i
            assert run(use, 7) == [7] * 4
            # a manager
            def use(i):
                with SharedMemoryManager() as manager:
                    segment = manager.SharedMemory(64)
                    segment.buf[0] = i
                    return int(segment.buf[0])
            assert run(use, 7) == [7] * 4
            # locks
            def use(i):
                for method in multiprocessing.get_all_start_methods():
                    lock = multiprocessing.get_context(method).Lock()
                    with lock:
                        pass
                return i
            assert run(use, 7) == [7] * 4
            # unlinked here
            def use(i):
                segment = SharedMemory(create=True, size=64)
                segment.buf[0] = i
                segment.close()
                return segment.name
            for name in run(use, 7):
                segment = SharedMemory(name=name)
                assert segment.buf[0] == 7
                segment.close()
                segment.unlink()
            """,
        "a manager's": """
            # a lock and a queue
            def use(lock, queue):
                with lock:
                    queue.put(1)
            with multiprocessing.Manager() as manager:
                queue = manager.Queue()
                run(use, manager.Lock(), queue)
                assert [queue.get() for _ in range(4)] == [1] * 4
            def use(name):
                segment = SharedMemory(name=name)
                segment.buf[0] = 4  # each task the same: they run side by side
                segment.close()
            with SharedMemoryManager() as manager:
                segment = manager.SharedMemory(64)
                run(use, segment.name)
                assert segment.buf[0] == 4
            del manager  # which makes a noise at the end of a free-threaded interpreter
            """,
        "processes of a task": """
            def use(method):
                context = multiprocessing.get_context(method)
                with context.Pool(1) as pool:
                    return pool.map(abs, [-1, -2])
            for method in multiprocessing.get_all_start_methods():
                assert run(use, method) == [[1, 2]] * 4
            """,
    }

    @pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="looks into /dev/shm")
    @pytest.mark.parametrize("name", SHARED_MEMORY)
    def test_shared_memory_outlives_the_workers(self, name):
        """They start no process that would unlink it at their end."""
        # managers that a task makes have a socket in a folder of their own, which ends with nobody
        with tempfile.TemporaryDirectory() as folder:
            done = run_script(
                """
            import multiprocessing, os, subprocess
            from multiprocessing.managers import SharedMemoryManager
            from multiprocessing.shared_memory import ShareableList, SharedMemory
            from joblite import Parallel, delayed, shutdown_workers
            # of the managers here: others need a main guard
            multiprocessing.set_start_method("fork")
            def trackers_of_workers():
                command = ["ps", "-eo", "pid=,ppid=,args="]
                lines = subprocess.run(command, capture_output=True, text=True).stdout
                rows = [line.split(None, 2) for line in lines.splitlines()]
                parents = {int(row[0]): int(row[1]) for row in rows}
                def is_ours(pid):
                    return pid == os.getpid() or pid in parents and is_ours(parents[pid])
                return [row for row in rows if "resource_tracker import main" in row[2]
                        and is_ours(int(row[0])) and int(row[1]) != os.getpid()]
            def run(func, *args):
                values = Parallel(2)([delayed(func)(*args)] * 4)
                assert not trackers_of_workers()
                shutdown_workers()
                return values
                """
                + self.SHARED_MEMORY[name],
                env={"TMPDIR": folder},
            )
        assert done.stdout == done.stderr == ""

    def test_workers_have_a_name_and_a_parent(self):
        def tell():
            parent = multiprocessing.parent_process()
            return (
                multiprocessing.current_process().name,
                parent.pid,
                parent.name,
                parent.is_alive(),
            )

        names = set()
        for name, pid, parent, lives in Parallel(2, batch_size=1)([delayed(tell)()] * 8):
            names.add(name)
            assert re.fullmatch(r"joblite-worker-\d+", name)
            assert (pid, parent, lives) == (os.getpid(), "MainProcess", True)
        assert len(names) <= 2

    def test_a_caller_whom_sigpipe_would_end_lives(self):
        done = run_script("""
            import os, signal, time
            from joblite import Parallel, delayed
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            def kill(pid, i):
                os.kill(pid, signal.SIGKILL)
                time.sleep(60)
            def where(i):
                return os.getpid()
            for pid in Parallel(2)(delayed(where)(i) for i in range(9)):  # idle ones
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            parent = Parallel(2)([delayed(os.getppid)()])[0]  # the one that starts them
            errors = Parallel(2, on_error="return")(delayed(kill)(parent, i) for i in range(3))
            assert len(errors) == 3, errors
            results = Parallel(2, return_as="generator")(delayed(where)(i) for i in range(99))
            pid = next(results)
            os.kill(pid, signal.SIGKILL)
            results.close()
            big = bytes(10_000_000)
            Parallel(2, on_error="return")(delayed(os._exit)(len(big)) for i in range(3))
            print(len(Parallel(2)(delayed(where)(i) for i in range(9))))
            """)
        assert (done.stdout, done.stderr) == ("9\n", "")

    @pytest.mark.parametrize("wait", [True, False])
    def test_ended_workers_leave_no_zombie(self, wait):
        def zombies():
            return [pid for pid in all_pids() if state_and_parent(pid) == ("Z", os.getpid())]

        for _ in range(3):
            Parallel(2)([delayed(abs)(-1)] * 3)
            joblite.shutdown_workers(wait)
        wait_until(lambda: not zombies(), "the end of the last zombie")

    def test_manager_proxies_work_in_tasks(self):
        with multiprocessing.Manager() as manager:
            shared = manager.list()
            Parallel(n_jobs=2)(delayed(shared.append)(i) for i in range(5))
            assert sorted(shared) == [0, 1, 2, 3, 4]

    def test_workers_follow_the_callers_world(self, processes, tmp_path, monkeypatch):
        def look():
            return os.getcwd(), os.environ.get("JOBLITE_TEST"), sys.path[0]

        Parallel(**processes)(delayed(look)() for _ in range(4))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("JOBLITE_TEST", "set later")
        monkeypatch.syspath_prepend(tmp_path / "modules")
        expected = str(tmp_path), "set later", str(tmp_path / "modules")
        assert Parallel(**processes)(delayed(look)() for _ in range(4)) == [expected] * 4

    def test_relative_entries_of_the_path_lead_where_they_led(self, tmp_path):
        """Workers find modules that came from there before the
        caller changed its directory, and after."""

        def run(row):
            entry, moved = row
            folder = tmp_path / f"{rows.index(row)}"
            (folder / "near").mkdir(parents=True)
            (folder / entry / "first_one.py").write_text("def f(x): return x + 1")
            return run_script(
                f"""
                import os, sys
                sys.path[:1] = [{entry!r}]
                from joblite import Parallel, delayed
                import first_one
                Parallel, first_one.f  # where imports are lazy, they are loaded now
                os.chdir({moved!r})
                later = []
                if {moved!r} != "/":
                    open("second_one.py", "w").write("def f(x): return x + 2")
                    import second_one
                    later = [delayed(second_one.f)(1)]
                print(Parallel(2)([delayed(first_one.f)(1), *later]))
                """,
                cwd=folder,
            ).stdout

        rows = [
            ("", "/"),
            ("near", "/"),
            (".", "/"),
            ("near/../near", "/"),
            ("", "near"),
            ("", "."),
        ]
        expected = {row: "[2]\n" if row[1] == "/" else "[2, 3]\n" for row in rows}
        assert side_by_side(run, rows) == expected

    def test_deleted_current_directory_is_no_error(self, processes, tmp_path, monkeypatch):
        for state in ("cold", "warm"):
            gone = tmp_path / state
            gone.mkdir()
            monkeypatch.chdir(gone)
            gone.rmdir()
            assert Parallel(**processes)([delayed(abs)(-1)] * 3) == [1] * 3

    DRAWS = {
        "numpy loaded by the task": lambda: __import__(
            "numpy"
        ).random.random_sample(),  # first: in fresh workers
        "random": lambda: random.random(),
        "random.random": random.random,
        "random.uniform": functools.partial(random.uniform, 0, 1),
        "numpy.random": lambda: float(np.random.rand()),
        "np.random.rand": np.random.rand,
    }

    def test_random_numbers_differ_between_workers(self, processes):
        """No worker inherits a state, neither of its siblings nor of the caller;
        the caller keeps its own."""
        for name, draw in self.DRAWS.items():
            random.seed(1)
            np.random.seed(1)
            here = [random.random(), np.random.rand()]
            random.seed(1)
            np.random.seed(1)
            drawn = Parallel(**processes, batch_size=1)(delayed(draw)() for _ in range(20))
            assert len({*drawn, *here}) == 22, name
            assert [random.random(), np.random.rand()] == here, "the caller's state is untouched"

    def test_maxtasksperchild_replaces_workers(self, processes):
        for most, options in ((1, {}), (3, {"batch_size": 7}), (4, {"return_as": "generator"})):
            call = Parallel(**processes, maxtasksperchild=most, **options)
            pids = list(call(delayed(lambda i: (i, os.getpid()))(i) for i in range(2 * most + 1)))
            assert [i for i, _ in pids] == list(range(2 * most + 1))
            assert max(collections.Counter(pid for _, pid in pids).values()) <= most
        with pytest.raises(
            ValueError, match="maxtasksperchild: expected None or a whole number above 0, got 0"
        ):
            Parallel(**processes, maxtasksperchild=0)([delayed(square)(1)])

    def test_what_tasks_print_comes_back_in_order(self, processes, capsys):
        def talk(i):
            print("begin", i)
            sys.stdout.buffer.write(b"raw ")
            print(i, file=sys.stderr)
            print("end", i, "\N{SNOWMAN}")

        for _ in range(2):  # cold and warm
            Parallel(**processes, batch_size=2)(delayed(talk)(i) for i in range(6))
            out, err = capsys.readouterr()
            assert sorted(out.splitlines()) == sorted(
                line for i in range(6) for line in (f"begin {i}", f"raw end {i} \N{SNOWMAN}")
            )
            # lines of one worker keep their order, those of two may come by turns
            for first in (0, 2, 4):
                own = re.findall(f"(?:begin|end) [{first}{first + 1}]", out)
                assert own == [
                    f"{word} {i}" for i in (first, first + 1) for word in ("begin", "end")
                ]
            assert sorted(err.splitlines()) == list("012345")

    def test_a_line_stays_whole_whatever_else_is_said(self, processes, tmp_path, monkeypatch):
        """Its rest may come late: the caller says nothing of another worker in its midst."""

        class Ear(io.StringIO):
            def write(self, text):
                (tmp_path / f"heard {text.split()[0]}").touch()
                super().write(text)

        def first():
            sys.stdout.buffer.write(b"first, ")
            print("error", file=sys.stderr)
            logging.getLogger("joblite.test").warning("record")
            wait_for_file(tmp_path / "heard second")
            print("and its end")

        def second():
            wait_for_file(tmp_path / "heard error")
            wait_for_file(tmp_path / "heard record")
            print("second")

        monkeypatch.setattr(sys, "stdout", Ear())
        monkeypatch.setattr(sys, "stderr", Ear())
        with listening("joblite.test", logging.StreamHandler(sys.stderr)):
            Parallel(**processes)([delayed(first)(), delayed(second)()])
        assert sys.stdout.getvalue() == "second\nfirst, and its end\n"
        assert sys.stderr.getvalue() == "error\nrecord\n"

    def test_what_one_print_says_stays_together(self, processes, capsys):
        def talk(i):
            for _ in range(300):
                print(f"{i}\n{i}\n{i}")

        Parallel(**processes)(delayed(talk)(i) for i in range(2))
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1800 and all(
            len(set(lines[i : i + 3])) == 1 for i in range(0, 1800, 3)
        )

    def test_streams_of_tasks_are_like_real_ones(self, processes, capsys):
        """But that what is written to their buffers comes as text, too."""

        def say():
            sys.stdout.buffer.write(b"\xff\xfe\n")
            return sys.stdout.name, sys.stderr.name, sys.stdout.mode, sys.stdout.fileno()

        assert Parallel(**processes)([delayed(say)()]) == [("<stdout>", "<stderr>", "w", 1)]
        assert capsys.readouterr().out == "\\xff\\xfe\n"

    def test_modules_of_the_current_directory_do_not_shadow_the_library(
        self, processes, tmp_path, monkeypatch
    ):
        (tmp_path / "socket.py").write_text("raise RuntimeError('the wrong one')")
        monkeypatch.chdir(tmp_path)
        assert Parallel(**processes)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    def test_prints_warnings_and_records_keep_their_order(self, processes, capsys):
        def talk():
            print("print", file=sys.stderr)
            warnings.warn("warning", FutureWarning, stacklevel=1)
            logging.getLogger("joblite.test").warning("rec%s", "ord")
            threading.Thread(target=print, args=("thread",), kwargs={"file": sys.stderr}).run()

        handler = logging.StreamHandler(sys.stderr)
        with listening("joblite.test", handler), warnings.catch_warnings():
            warnings.simplefilter("always")
            Parallel(**processes)([delayed(talk)()])
        found = capsys.readouterr().err
        assert re.fullmatch(
            r"print\n.*FutureWarning: warning\n  warnings.warn.*\nrecord\nthread\n", found
        ), found

    @pytest.mark.parametrize("flush", [False, True])
    def test_long_task_is_heard_before_its_end(self, flush, processes, tmp_path, monkeypatch):
        class Ear(io.StringIO):
            def write(self, text):
                (tmp_path / text.strip()).touch()

        def talk():
            print("heard", end="" if flush else "\n", flush=flush)
            wait_for_file(tmp_path / "heard")

        monkeypatch.setattr(sys, "stdout", Ear())
        assert Parallel(**processes)([delayed(talk)()] * 2) == [None] * 2
        assert len(list(Parallel(**processes, return_as="generator")([delayed(talk)()] * 2))) == 2

    def test_last_words_of_a_worker_are_heard(self, processes, capsys):
        def die():
            print("last words", flush=True)
            os._exit(1)

        with pytest.raises(joblite.TerminatedWorkerError):
            Parallel(**processes)([delayed(die)()])
        assert capsys.readouterr().out == "last words\n"

    def test_what_tasks_say_costs_no_thread(self, processes):
        """Off Linux there is one thread more, which waits for the end of the caller."""
        pytest.importorskip("fcntl")
        threads = 1 if sys.platform == "linux" else 2
        count = delayed(lambda: threading.active_count())
        assert (
            Parallel(**processes)([delayed(print)("heard"), *[count()] * 4])
            == [None] + [threads] * 4
        )

    def test_an_interrupt_cuts_no_message(self, processes, capsys):
        def chatter(sign):
            try:
                while True:
                    print("x" * 1000)
                    sign.touch()
            finally:
                print("tidied")

        def fail(sign):
            wait_for_file(sign)
            raise ValueError("enough")

        for i in range(5):
            with tempfile.TemporaryDirectory() as folder:
                sign = Path(folder, "sign")
                with pytest.raises(ValueError, match="enough"):
                    Parallel(**processes)([delayed(chatter)(sign), delayed(fail)(sign)])
            said = capsys.readouterr().out.replace("tidied\n", "")
            assert set(said.splitlines()) <= {"x" * 1000, ""}, i

    @posix
    def test_a_thread_that_talks_all_the_time_keeps_no_interrupt_away(
        self, processes, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(joblite, "GRACE_S", 0.5)

        def talk():
            while True:
                print("x" * 5000)

        def work(folder):
            threading.Thread(target=talk, daemon=True).start()
            hang_and_tidy(folder)

        for i in range(8):
            folder = tmp_path / str(i)
            folder.mkdir()
            with pytest.raises(ValueError, match="enough"):
                Parallel(**processes)([delayed(work)(folder), delayed(fail_after)(folder / "sign")])
            assert (folder / "tidied").exists()

    def test_what_a_finalizer_says_amid_a_message_is_heard(self, processes, capsys):
        def litter():
            class Cycle:
                def __del__(self):
                    print("gone")

            gc.set_threshold(1)
            for i in range(300):
                cycle = Cycle()
                cycle.me = cycle
                print("line", i)
            del cycle
            gc.set_threshold(700)
            gc.collect()

        Parallel(**processes)([delayed(litter)()])
        lines = capsys.readouterr().out.splitlines()
        assert lines.count("gone") == 300 and [line for line in lines if line != "gone"] == [
            f"line {i}" for i in range(300)
        ]

    def test_what_a_thread_says_between_two_calls_is_heard_with_the_next(self):
        done = run_script("""
            import threading
            from joblite import Parallel, delayed
            def start():
                import builtins
                builtins.go, builtins.said = threading.Event(), threading.Event()
                def late():
                    go.wait()
                    for _ in range(100_000): pass
                    print("late")
                    said.set()
                threading.Thread(target=late, daemon=True).start()
            Parallel(2)([delayed(start)()])
            Parallel(2)([delayed(lambda: go.set())()])
            Parallel(2)([delayed(lambda: said.wait(60))()])
            print("end")
            """)
        assert done.stdout == "late\nend\n"

    def test_a_thread_that_talks_all_the_time_does_not_cost_its_worker(self, processes, capsys):
        """When a call has its answer, nothing comes behind it."""

        def start():
            threading.Thread(target=talk, daemon=True).start()
            return os.getpid()

        def talk():
            while True:
                print("talk")
                time.sleep(0.0001)

        calls = [start, *[os.getpid] * 200]
        assert len({pid for call in calls for pid in Parallel(**processes)([delayed(call)()])}) == 1

    @posix
    def test_forked_child_of_a_task_does_not_disturb(self, processes, capfd):
        def fork():
            print("before")
            if os.fork() == 0:
                print("child", flush=True)
                warnings.warn("child warns", stacklevel=1)
                logging.getLogger("joblite.test").error("child logs")
                os._exit(0)
            os.wait()
            print("after")
            return 1

        assert Parallel(**processes)([delayed(fork)()] * 2) == [1, 1]
        out, err = capfd.readouterr()
        assert sorted(out.split()) == ["after"] * 2 + ["before"] * 2 + ["child"] * 2
        assert err.count("UserWarning: child warns") == 2 and err.count("child logs") == 2

    def test_nested_calls_are_heard_by_the_outermost_caller(self, processes, capsys, caplog):
        def inner(i):
            sys.stdout.write(f"inner {i}\n")  # free-threaded, the parts of two prints may mix
            logging.getLogger("joblite.test").warning("logged %d", i)

        def outer(backend):
            Parallel(2, backend=backend)(delayed(inner)(i) for i in range(2))

        for backend in ("threading", "loky"):
            Parallel(**processes)([delayed(outer)(backend)])
            assert sorted(capsys.readouterr().out.splitlines()) == ["inner 0", "inner 1"]
        assert (
            sorted(record.getMessage() for record in caplog.records)
            == ["logged 0"] * 2 + ["logged 1"] * 2
        )

    @pytest.mark.parametrize("stream", [None, "closed", "ascii"])
    def test_printing_tasks_work_whatever_stdout_is(self, stream, monkeypatch):
        ascii = io.TextIOWrapper(io.BytesIO(), "ascii")
        if stream == "closed":
            ascii.close()
        monkeypatch.setattr(sys, "stdout", stream and ascii)
        assert Parallel(2)([delayed(print)("\N{SNOWMAN}")] * 2) == [None] * 2
        assert stream != "ascii" or ascii.buffer.getvalue() == b"\\u2603\n" * 2
        assert Parallel(2)([delayed(lambda: sys.stdout.buffer.write(b"\xff\n"))()] * 2) == [2] * 2

    def test_warnings_come_back_as_text(self, processes, capsys):
        class Mine(UserWarning):
            pass

        def warn(i):
            warnings.warn(Mine(f"warning {i}"), stacklevel=1)
            warnings.warn("repeated", UserWarning, stacklevel=1)

        with warnings.catch_warnings():
            warnings.resetwarnings()
            warnings.simplefilter("default")
            for _ in range(2):  # a warm worker shows again what a cold one shows
                Parallel(**processes)(delayed(warn)(i) for i in range(4))
                found = capsys.readouterr().err
                assert sorted(re.findall("test_joblite.py:[0-9]+: Mine: (.*)", found)) == [
                    f"warning {i}" for i in range(4)
                ]
                assert 1 <= found.count("UserWarning: repeated") <= 2, "once a worker"

    def test_warning_filters_follow_the_caller(self, processes, module, capsys):
        """Of those whose category no module holds, workers do without."""
        found = module("""
            import warnings
            class Mine(UserWarning): pass
            def warn(text): warnings.warn(text, Mine, stacklevel=1)
            """)
        local = type("Local", (Warning,), {})
        call = Parallel(**processes)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            call([delayed(found.warn)("text 1")])
            warnings.filterwarnings("ignore", message="TEXT [12]", category=found.Mine)
            warnings.simplefilter("ignore", local)
            call([delayed(found.warn)("text 2")])
            assert re.findall("Mine: (.*)", capsys.readouterr().err) == ["text 1"]
            warnings.filterwarnings("error", category=UserWarning, module=found.__name__)
            with pytest.raises(found.Mine, match="text 3"):
                call([delayed(found.warn)("text 3")])

    def test_default_filters_hold_where_nobody_has_imported_warnings(self):
        done = run_script("""
            import os
            from joblite import Parallel, delayed
            unclosed = lambda: open(os.devnull).name
            print(Parallel(2)([delayed(unclosed)()]))
            """)
        assert (done.stdout, done.stderr) == (f"{[os.devnull]}\n", "")

    def test_error_filters_do_not_hit_imports_in_workers(self, processes, module):
        with pytest.warns(UserWarning, match="old"):
            found = module("import warnings\nwarnings.warn('old')\ndef one(): return 1\n")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert Parallel(**processes)([delayed(found.one)()] * 4) == [1] * 4

    def test_log_records_reach_the_callers_handlers(self, processes, caplog):
        def fail():
            try:
                1 / 0
            except ZeroDivisionError:
                logging.getLogger("joblite.test").exception(
                    "failed: %s", threading.Lock(), extra={"lock": [threading.Lock()], "number": 3}
                )

        Parallel(**processes)([delayed(fail)()])
        (record,) = caplog.records
        assert (record.name, record.levelname, record.number, record.funcName) == (
            "joblite.test",
            "ERROR",
            3,
            "fail",
        )
        assert "failed: <unlocked" in record.getMessage() and "lock object" in record.lock
        assert "ZeroDivisionError" in caplog.text and record.process != os.getpid()

    def test_the_root_log_level_and_names_of_levels_follow_the_caller(self, processes, monkeypatch):
        # there is no way back but this
        monkeypatch.setattr(logging, "_levelToName", dict(logging._levelToName))
        monkeypatch.setattr(logging, "_nameToLevel", dict(logging._nameToLevel))
        logging.addLevelName(25, "NOTICE")

        def say(text):
            logging.info(text)
            logging.getLogger("joblite.test").log(25, "%s", text)
            return logging.getLogger().level

        call, heard = Parallel(**processes, batch_size=1), io.StringIO()
        handler = logging.StreamHandler(heard)
        handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        with listening(None, handler):
            before = logging.root.level
            try:
                for level in (logging.INFO, 25, logging.WARNING, logging.DEBUG):
                    logging.root.setLevel(level)
                    assert call([delayed(say)(str(level))]) == [level]
            finally:
                logging.root.setLevel(before)
        assert heard.getvalue().splitlines() == [
            "root INFO 20",
            "joblite.test NOTICE 20",
            "joblite.test NOTICE 25",
            "root INFO 10",
            "joblite.test NOTICE 10",
        ]

    def test_what_a_logger_at_home_refuses_is_not_shown(self, processes, caplog):
        def say():
            for name in ("joblite.quiet", "joblite.off", "joblite.heard"):
                logging.getLogger(name).warning(name)

        call = Parallel(**processes)
        try:
            logging.getLogger("joblite.quiet").setLevel(logging.ERROR)
            logging.getLogger("joblite.off").disabled = True
            call([delayed(say)()])
            logging.disable(logging.WARNING)
            call([delayed(say)()])
        finally:
            logging.disable(0)
            logging.getLogger("joblite.quiet").setLevel(0)
            logging.getLogger("joblite.off").disabled = False
        assert [record.getMessage() for record in caplog.records] == ["joblite.heard"]

    LOGS = {  # what tasks do -> what the caller's handlers get, and what its stderr
        "functions of the module": (
            "logging.warning('a'); logging.getLogger('lib').warning('b')",
            "a b",
            "",
        ),
        "a logger with a null handler": (
            "log = logging.getLogger('lib'); log.addHandler(logging.NullHandler()); "
            "log.warning('a')",
            "a",
            "",
        ),
        "a logger that passes nothing on": (
            "log = logging.getLogger('lib'); log.propagate = False; log.warning('a')",
            "a",
            "",
        ),
        "arguments that do not fit": (
            "logging.warning('%d', 'a'); logging.warning('b')",
            "b",
            "not all arg|TypeError",
        ),
        "no arguments where some belong": (
            "logging.warning('%d%%'); logging.warning('%d', ()); ",
            "%d%%",
            "TypeError",
        ),
        "a handler of the task's own": (
            "log = logging.getLogger('lib.x'); "
            "log.handlers or log.addHandler(logging.StreamHandler()); "
            "log.warning('a'); logging.getLogger('lib').warning('b')",
            "a b",
            "a",
        ),
    }
    OWN_HANDLER = {"a logger with a null handler": "", "a handler of the task's own": "b"}

    @pytest.mark.parametrize("where", ["the root logger", "a named logger"])
    def test_records_reach_handlers_wherever_they_are(self, where):
        def run(what):
            code = self.LOGS[what][0]
            if where == "a named logger":
                code = code.replace("logging.warning(", "logging.getLogger('lib.y').warning(")
            return run_script(f"""
                import io, logging
                from joblite import Parallel, delayed
                heard = io.StringIO()
                logging.getLogger({None if where == "the root logger" else "lib"!r}).addHandler(
                    logging.StreamHandler(heard))
                def task():
                    {code}
                for _ in range(2):
                    Parallel(2)([delayed(task)()])
                print(*heard.getvalue().split())
                """)

        for what, done in side_by_side(run, self.LOGS).items():
            _, heard, told = self.LOGS[what]
            # then a worker knows of no handler of the caller's: its own ones come first
            if where == "a named logger":
                heard = self.OWN_HANDLER.get(what, heard)
            assert done.stdout.split() == heard.split() * 2, what
            assert re.search(told, done.stderr) if told else not done.stderr, what

    def test_a_task_may_set_up_logging_where_the_caller_has_not(self):
        done = run_script("""
            import logging
            from joblite import Parallel, delayed
            def task(how):
                how()
                logging.getLogger("lib").info("heard")
            def set_up():
                logging.basicConfig(level="INFO", format="in worker: %(message)s")
            Parallel(2)([delayed(task)(set_up)])
            """)
        assert done.stderr == "in worker: heard\n"

    def test_initializer_may_set_up_logging(self, processes, capsys):
        def say():
            logging.getLogger("joblite.test").info("told")

        setting = {
            "initializer": functools.partial(
                logging.basicConfig, level="INFO", format="in worker: %(message)s"
            )
        }
        with listening("joblite.test", logging.NullHandler()):
            Parallel(**processes, **setting)([delayed(say)()])
        assert capsys.readouterr().err == "in worker: told\n"

    def test_native_threads_share_the_cores(self, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setenv("MKL_NUM_THREADS", "7")

        def look():
            return os.environ.get("OMP_NUM_THREADS"), os.environ.get("MKL_NUM_THREADS")

        share = str(max(1, joblite.cpu_count() // 2))
        assert Parallel(n_jobs=2)(delayed(look)() for _ in range(2)) == [(share, "7")] * 2
        with parallel_config(backend="loky", inner_max_num_threads=3):
            assert Parallel(n_jobs=2)(delayed(look)() for _ in range(2)) == [("3", "3")] * 2, (
                "asked for"
            )
        assert "OMP_NUM_THREADS" not in os.environ

    @pytest.mark.parametrize("backend", ["threading", "loky"])
    def test_exit_does_not_wait_for_a_stuck_task(self, backend):
        done = run_script(f"""
            import threading
            from joblite import Parallel, delayed
            in_threads = {backend!r} == "threading"
            wait = threading.Event().wait if in_threads else __import__("time").sleep
            results = Parallel(2, backend={backend!r}, return_as="generator")(
                delayed(wait)(600) for i in range(4))
            print("end")
            """)
        assert (done.stdout, done.stderr) == ("end\n", "")

    def test_nothing_is_printed_at_exit(self):
        done = run_script(
            """
            import gc
            from joblite import Parallel, delayed
            class Cycle:
                pass
            cycle = Cycle()
            cycle.me = cycle
            tasks = [delayed(abs)(i) for i in range(100)]
            cycle.generator = Parallel(2, return_as="generator")(iter(tasks))
            next(cycle.generator)
            del cycle
            print(sum(Parallel(2)(delayed(abs)(i) for i in range(10))))
            other = Parallel(2, return_as="generator", verbose=1)(iter(tasks))
            next(other)
            """,
            flags=["-X", "dev"],
        )
        assert (done.stdout, done.stderr) == ("45\n", "")

    def test_works_under_another_name_and_twice(self, tmp_path):
        package = tmp_path / "mypackage"
        package.mkdir()
        (package / "__init__.py").write_text("raise_if_imported_in_worker = 1\n")
        (package / "_vendored.py").write_bytes(Path(joblite.__file__).read_bytes())
        done = run_script(
            """
            import joblite
            from mypackage import _vendored as other
            f = lambda x: x + 1
            print(other.Parallel(2)(other.delayed(f)(i) for i in range(3)),
                  joblite.Parallel(2)(joblite.delayed(f)(i) for i in range(3)))
            """,
            env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE}"},
        )
        assert done.stdout == "[1, 2, 3] [1, 2, 3]\n"

    @pytest.mark.parametrize("kind", ["a zip", "compiled only"])
    def test_works_without_a_file_of_source(self, kind, tmp_path):
        if kind == "a zip":
            with zipfile.ZipFile(tmp_path / "app.zip", "w") as file:
                file.write(joblite.__file__, "joblite.py")
                file.writestr("helper.py", "def ten(i): return 10 * i\n")
        else:
            py_compile.compile(joblite.__file__, str(tmp_path / "joblite.pyc"), doraise=True)
            (tmp_path / "helper.py").write_text("def ten(i): return 10 * i\n")
        done = run_script(
            """
            import sys
            sys.path[:] = [sys.argv[1], *(path for path in sys.path if path != sys.argv[2])]
            import helper, joblite
            from joblite import Parallel, delayed
            print(joblite.__file__.startswith(sys.argv[1]))
            print(Parallel(n_jobs=2)(delayed(helper.ten)(i) for i in range(3)))
            local = lambda i: (i, joblite.hash(i)[:0])
            print(Parallel(n_jobs=2)(delayed(local)(i) for i in range(2)))
            """,
            tmp_path / "app.zip" if kind == "a zip" else tmp_path,
            HERE,
        )
        assert done.stdout == "True\n[0, 10, 20]\n[(0, ''), (1, '')]\n"


# ---- 6. Executors of others ----

EXECUTORS = """
    import contextlib, importlib.util, json, os, sys, time, uuid
    import numpy as np

    @contextlib.contextmanager
    def started(kind):
        if kind == "spawn":
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor
            executor = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
        elif kind == "loky":
            from loky import ProcessPoolExecutor
            executor = ProcessPoolExecutor(2)
        elif kind == "mpi4py":
            from mpi4py.futures import MPIPoolExecutor
            executor = MPIPoolExecutor(2)
        else:
            import dask
            from distributed import Client, LocalCluster
            retries = 3 if kind == "dask that tries again" else 0
            dask.config.set({"distributed.scheduler.allowed-failures": retries,
                             "distributed.scheduler.worker-saturation": 1})
            settings = dict(n_workers=2, threads_per_worker=1, host="127.0.0.1", protocol="tcp://")
            if kind == "dask threads":
                settings = dict(n_workers=1, threads_per_worker=2, processes=False)
            settings["dashboard_address"] = None
            with LocalCluster(**settings) as cluster, Client(cluster) as client:
                yield client
            return
        with executor:
            yield executor

    def load():  # under a name that the other side cannot import
        spec = importlib.util.spec_from_file_location("hidden_joblite", sys.argv[2])
        module = sys.modules["hidden_joblite"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    """

PROMISES = """
    class Point:
        def __init__(self, x):
            self.x = x

    def caught(run):
        try:
            return run()
        except Exception as error:
            notes = "".join(getattr(error, "__notes__", []))
            return [type(error).__name__, "task 3" in notes, "divide" in str(error.__cause__)]

    def write(array, i):
        array[0] = i
        return array

    def write_more(array, found, inside, i):
        array[0] += 1
        inside["a"][0] += 1
        found.append(i)
        return [int(array[0]), int(inside["a"][0]), len(found)]

    def refilled(delayed, array):
        for i in range(9):
            array[:] = i
            yield delayed(np.max)(array)

    def promises(joblite, executor):
        def parallel(tasks, **options):
            return joblite.Parallel(backend=executor, **options)(tasks)

        delayed, array, seen = joblite.delayed, np.zeros(200_000), []
        divide = lambda i: 6 // (i - 3)
        inner = lambda: joblite.Parallel(2)._backend.name
        points = parallel(delayed(lambda i: Point(i * i))(i) for i in range(50))
        yield "values", [point.x for point in points] == [i * i for i in range(50)]
        yield "own classes", type(points[0]) is Point
        yield "n_jobs", joblite.Parallel(backend=executor).n_jobs
        has_code = lambda: hasattr(sys.modules["hidden_joblite"], "_code")
        yield "code is sent", parallel([delayed(has_code)()])[0]
        arrays = parallel(delayed(write)(array, i) for i in range(4))
        arrays[0][1] = 1
        yield "arrays", [list(a[:2]) for a in [array, *arrays]]
        yield "changed array", list(map(float, parallel(refilled(delayed, array))))
        zeros, found = np.zeros(200_000), []
        tasks = [delayed(write_more)(zeros, found, {"a": zeros[:9]}, i) for i in range(9)]
        yield "own writes only", parallel(tasks, batch_size=3) == [[1, 1, 1]] * 9
        yield "error", caught(lambda: parallel(delayed(divide)(i) for i in range(10)))
        tasks = [delayed(divide)(i) for i in (1, 3, 5)]
        yield "return", [type(value).__name__ for value in parallel(tasks, on_error="return")]
        yield "skip", list(parallel(tasks, on_error="skip", return_as="generator"))
        tasks = [delayed(time.sleep)(60 * (i == 3)) for i in range(5)]
        yield "timeout", caught(lambda: parallel(iter(tasks), timeout=1.5))
        results = parallel((delayed(abs)(-i) for i in range(50)), return_as="generator_unordered")
        yield "unordered", sorted(results)[-1]
        parallel([delayed(abs)(1)] * 9, progress=lambda *now: seen.append(now))
        yield "progress", seen[-1]
        new_name = lambda: uuid.uuid4().hex
        yield "equal tasks are run each", len(set(parallel([delayed(new_name)()] * 6)))
        yield "nested", parallel([delayed(inner)()])[0]
        generator = parallel((delayed(abs)(-i) for i in range(10_000)), return_as="generator")
        yield "first of a generator", next(generator) or generator.close()
        script = lambda: joblite.Parallel(n_jobs=2)(delayed(divmod)(i, 7) for i in range(9))
        with joblite.parallel_config(backend=executor):
            yield "same script here and there", script()
        yield "and here", script()
        yield "not closed", executor.submit(abs, -1).result()

    if __name__ == "__main__":
        with started(sys.argv[1]) as executor:
            print(json.dumps(dict(promises(load(), executor))))
    """

KEPT = {
    "values": True,
    "own classes": True,
    "n_jobs": 2,
    "code is sent": True,
    "arrays": [[0, 0], [0, 1], [1, 0], [2, 0], [3, 0]],
    "own writes only": True,
    "changed array": [*range(9)],
    "error": ["ZeroDivisionError", True, True],
    "return": ["int", "ZeroDivisionError", "int"],
    "skip": [-3, 3],
    "timeout": ["TimeoutError", True, False],
    "unordered": 49,
    "progress": [9, 9],
    "equal tasks are run each": 6,
    "nested": "threading",
    "same script here and there": [[0, i] if i < 7 else [1, i - 7] for i in range(9)],
    "and here": [[0, i] if i < 7 else [1, i - 7] for i in range(9)],
    "first of a generator": None,
    "not closed": 1,
}


def run_on_executor(kind, code, path=""):
    """Run a script that gets the executor of a kind from `started(kind)`;
    gives what it prints, as JSON."""
    packages = {"loky": ["loky"], "mpi4py": ["mpi4py"], "spawn": []}.get(kind, ["distributed"])
    for package in packages:
        pytest.importorskip(package)
    command = {"flags": ["-W", "ignore"]}
    if kind == "mpi4py":
        mpiexec = Path(sys.executable).with_name("mpiexec")
        if not mpiexec.exists():
            pytest.skip("needs mpiexec beside this Python: pip install mpich")
        command = {
            "python": str(mpiexec),
            "flags": ["-n", "3", sys.executable, "-m", "mpi4py.futures"],
        }
    return json.loads(
        run_script(
            textwrap.dedent(EXECUTORS) + textwrap.dedent(code),
            kind,
            joblite.__file__,
            env={"PYTHONPATH": path},
            **command,
        ).stdout
    )


class Elsewhere(Executor):
    """An executor that does not tell how much it takes; what it is given crosses as bytes."""

    def __init__(self, workers, way_s=0.0, broken=()):
        self.pool = ThreadPoolExecutor(workers)
        self.way_s = way_s  # seconds that a job is on its way
        self.broken = broken  # an executor that loses a worker as soon as there is something in it
        self.futures = []

    def submit(self, function, /, *args, **kwargs):
        self.futures.append(self.pool.submit(self.run, pickle.dumps((function, args, kwargs))))
        return self.futures[-1]

    def run(self, packed):
        threading.Event().wait(self.way_s)
        function, args, kwargs = pickle.loads(packed)
        answer = function(*args, **kwargs)
        if self.broken:
            self.broken.clear()
            raise OSError("the worker is gone")
        return answer

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.pool.shutdown(wait, cancel_futures=cancel_futures)


LOST = []  # what `lose` leaves for the executor that it runs on


def lose(i):
    if i == 3:
        LOST.append(i)
    return i


class TestSection6Executors:
    def test_classes_cross_between_machines_on_which_process_ids_are_equal(self):
        there = elsewhere(*SECOND_PROCESS)
        code = textwrap.dedent("""
            import joblite, os, pickle
            class Point:
                def double(self):
                    return 2 * os.getpid()
            print(pickle.dumps([*map(bytes, joblite._pack(Point()))]).hex(), flush=True)
            input()
            """)
        with subprocess.Popen(
            [there["python"], *there["flags"], "-c", code],
            env=script_env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as home:
            done = run_script(
                """
                import joblite, pickle, sys
                print(joblite._unpack(pickle.loads(bytes.fromhex(sys.argv[1])), {}).double())
                """,
                home.stdout.readline().strip(),
                check=False,
                **there,
            )
            home.communicate("\n")
        assert (done.stdout, done.stderr) == ("4\n", "")

    def test_other_version_on_the_other_side_is_named(self, tmp_path):
        (tmp_path / "hidden_joblite.py").write_text("__version__ = '0'")
        assert "here is hidden_joblite 0 on Python 3" in run_on_executor(
            "spawn",
            """
            if __name__ == "__main__":
                joblite = load()
                with started("spawn") as executor:
                    print(json.dumps(str(joblite.Parallel(backend=executor, on_error="return")(
                        [joblite.delayed(abs)(1)]))))
            """,
            path=str(tmp_path),
        )

    @pytest.mark.parametrize(
        "kind",
        [
            "spawn",
            *(
                pytest.param(kind, marks=slow)
                for kind in ("loky", "mpi4py", "dask", "dask threads")
            ),
        ],
    )
    def test_executors_of_others_keep_the_promises(self, kind):
        expected = KEPT | ({"code is sent": False} if kind == "dask threads" else {})
        assert run_on_executor(kind, PROMISES) == expected

    @slow
    def test_dask_gets_a_big_array_once(self):
        assert run_on_executor(
            "dask",
            """
            if __name__ == "__main__":
                with started(sys.argv[1]) as client:
                    joblite, array = load(), np.ones(300_000)
                    results = joblite.Parallel(backend="dask", batch_size=1, return_as="generator")(
                        joblite.delayed(np.sum)(array) for _ in range(9))
                    sums = [int(next(results)) for _ in range(6)]
                    def sizes(dask_scheduler):
                        return [task.nbytes for task in dask_scheduler.tasks.values()]
                    large = [size for size in client.run_on_scheduler(sizes) if size > 2_000_000]
                    print(json.dumps([set(sums) == {300_000}, len(large)]))
                    results.close()
            """,
        ) == [True, 1]

    @slow
    def test_worker_that_dask_lost_fails_one_task(self):
        assert run_on_executor(
            "dask",
            """
            def die(i):
                return os._exit(1) if i == 3 else i

            if __name__ == "__main__":
                with started(sys.argv[1]) as client:
                    joblite = load()
                    results = joblite.Parallel(backend=client, on_error="return", batch_size=3)(
                        joblite.delayed(die)(i) for i in range(7))
                    told = [each if isinstance(each, int) else str(each)[:33] for each in results]
                    print(json.dumps(told))
            """,
        ) == [0, 1, 2, "the executor failed: KilledWorker", 4, 5, 6]

    @slow
    def test_array_that_dask_lost_with_a_worker_is_sent_again(self):
        assert run_on_executor(
            "dask that tries again",
            """
            def use(array, i, mark):
                if i == 3 and not os.path.exists(mark):
                    open(mark, "w").close()
                    os._exit(1)
                return int(array.sum()) + i

            if __name__ == "__main__":
                with started(sys.argv[1]) as client:
                    joblite, array, mark = load(), np.ones(300_000), os.path.abspath("mark")
                    print(json.dumps(joblite.Parallel(backend=client, batch_size=1)(
                        joblite.delayed(use)(array, i, mark) for i in range(7))))
            """,
        ) == [300_000 + i for i in range(7)]

    def test_an_answer_that_dask_lost_before_it_was_fetched_is_computed_again(self):
        class Lost(Future):
            def result(self, timeout=None):
                raise CancelledError

        class Cluster:
            def __init__(self):
                self.futures = [Lost(), Future(), Future()]

            def nthreads(self):
                return {"worker": 1}

            def scatter(self, data, hash):
                return data

            def submit(self, function, /, *args, pure):
                future = self.futures.pop(0)
                future.set_result(function(*args))
                return future

        class DaskExecutor:
            _client, _kwargs, submit = Cluster(), {}, None

        assert Parallel(backend=DaskExecutor())([delayed(abs)(-1)] * 2) == [1, 1]

    def test_lost_batch_is_tried_task_by_task(self):
        with Elsewhere(1, broken=LOST) as executor:
            call = Parallel(n_jobs=2, backend=executor, batch_size=5, on_error="return")
            results = call(delayed(lose)(i) for i in range(10))
        assert [i for i, value in enumerate(results) if value != i] == [3]
        assert isinstance(
            results[3], joblite.TerminatedWorkerError
        ) and "the worker is gone" in str(results[3])

    def test_batches_are_longer_where_the_way_is_longer(self):
        with Elsewhere(2) as near, Elsewhere(2, way_s=0.1) as far:
            for executor in near, far:
                assert Parallel(n_jobs=2, backend=executor)(
                    [delayed(abs)(-i) for i in range(3000)]
                ) == [*range(3000)]
            assert len(far.futures) < 15

    def test_closing_a_generator_cancels_what_waits(self, tmp_path):
        with Elsewhere(1) as executor:
            results = Parallel(n_jobs=4, backend=executor, return_as="generator", batch_size=1)(
                delayed(wait_for_file)(str(tmp_path / "go")) for _ in range(100)
            )
            results.close()
            (tmp_path / "go").touch()
            assert (
                len(executor.futures) == 8
                and sum(future.cancelled() for future in executor.futures) >= 7
            )


# ---- 7. Choosing ----


def memory_of(array):
    """The mapping of this process in which an array's content lies: (inode, path), or (0,
    "") for ordinary memory."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, _, inode, *path = line.split(maxsplit=5)
        start, end = (int(bound, 16) for bound in span.split("-"))
        if start <= address < end:
            return int(inode), path[0] if path else ""


def look(array, *_):
    """What a task sees of an array: where it lies, whether it may be written to, its sum."""
    return memory_of(array), array.flags.writeable, float(array.sum())


def add_one(array):
    array += 1
    return float(array.flat[0])


def open_segments():
    """How many segments in shared memory this process holds open."""
    # not `readlink`: another thread may close one just now
    links = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
    return sum(link.startswith("/dev/shm/") and "(deleted)" in link for link in links)


def put_one(found):
    """How many things are in a list after one was put in."""
    found.append(1)
    return len(found)


def put_by_name(*, found):
    return put_one(found)


def add_one_to(array):
    """The first number of an array after one was added to it."""
    array.flat[0] = array.flat[0] + 1
    return int(array.flat[0])


def add_one_to_first(arrays):
    return add_one_to(arrays[0])


def add_one_to_frame(frame):
    frame.iloc[0, 0] += 1
    return int(frame.iloc[0, 0])


def add_one_to_bytes(data):
    data[0] += 1
    return data[0]


def count_up(step):
    return step()


class Counter:
    """Counts its calls in each of the ways that an object may be called."""

    def __init__(self):
        self.n = 0

    def up(self):
        self.n += 1
        return self.n

    __call__ = up


def zeros(nbytes):
    return np.zeros(nbytes // 8)


NULL = joblite.Memory(backend="null")  # it runs all calls
WRITES = {  # what each of many tasks gets, which is the same for all; run alone, each gives 1
    "a list": lambda: (put_one, ([],)),
    "a list by keyword": lambda: (put_by_name, (), {"found": []}),
    "a list beside a number": lambda: (lambda i, found: put_one(found), (3, [])),
    "a list in a tuple in a dict": lambda: (lambda d: put_one(d["a"][0]), ({"a": ([],)},)),
    "a bound method": lambda: (Counter().up, ()),
    "a method of a list": lambda: ([2, 1].pop, ()),
    "an instance": lambda: (Counter.up, (Counter(),)),
    "an instance that is called": lambda: (Counter(), ()),
    "a method as an argument": lambda: (count_up, (Counter().up,)),
    "a closure as an argument": lambda: (count_up, (make_counter()[0],)),
    "a cached method": lambda: (NULL.cache(Counter().up), ()),
    "a cached partial": lambda: (NULL.cache(functools.partial(put_one, [])), ()),
    "a cached object": lambda: (NULL.cache(Counter()), ()),
    "a partial": lambda: (functools.partial(put_one, []), ()),
    "a partial with keywords": lambda: (functools.partial(put_by_name, found=[]), ()),
    "a partial in a partial": lambda: (functools.partial(functools.partial(put_one), []), ()),
    "bytes": lambda: (add_one_to_bytes, (bytearray(9),)),
    "many bytes": lambda: (add_one_to_bytes, (bytearray(3_000_000),)),
    "a small array": lambda: (add_one_to, (zeros(80),)),
    "an array of 20 kB": lambda: (add_one_to, (zeros(20_000),)),
    "an array of 500 kB": lambda: (add_one_to, (zeros(500_000),)),
    "an array of 3 MB": lambda: (add_one_to, (zeros(3_000_000),)),
    "an array in Fortran's order": lambda: (
        add_one_to,
        (np.asfortranarray(zeros(2_000_000).reshape(500, -1)),),
    ),
    "an array with gaps": lambda: (add_one_to, (zeros(4_000_000)[::2],)),
    "an array in a list": lambda: (add_one_to_first, ([zeros(2_000_000), zeros(2_000_000)],)),
    "a view of an array": lambda: (add_one_to, (zeros(4_000_000)[9:300_000],)),
    "an array of objects": lambda: (add_one_to, (np.array([0, None, []], object),)),
    "a masked array": lambda: (add_one_to, (np.ma.masked_equal(zeros(2_000_000), 5),)),
}
if importlib.util.find_spec("pandas"):
    WRITES["a frame"] = lambda: (
        add_one_to_frame,
        (importlib.import_module("pandas").DataFrame({"a": zeros(2_000_000)}),),
    )


@pytest.mark.usefixtures("by_value", "one_fork_server")
class TestSection6Isolation:
    """What a task writes to its arguments no other task sees."""

    def test_tasks_do_not_see_each_others_writes(self):
        given = [
            {"batch_size": 10},
            {},
            {"return_as": "generator", "batch_size": 3},
            {"max_nbytes": None, "batch_size": 4},
        ]
        for options, (name, make) in itertools.product(given, WRITES.items()):
            func, args, kwargs = (*make(), {})[:3]
            found = list(Parallel(n_jobs=2, **options)([(func, args, kwargs)] * 24))
            assert found == [1] * 24, (options, name)

    @pytest.mark.usefixtures("numpy_comes_later")
    def test_tasks_keep_their_arguments_where_numpy_is_not_loaded(self):
        done = run_script("""
            import sys
            from joblite import Parallel, delayed
            print(Parallel(n_jobs=2, batch_size=5)(delayed(list.copy)([i]) for i in range(10)))
            print("numpy" in sys.modules)
            """)
        assert done.stdout == f"{[[i] for i in range(10)]}\nFalse\n"

    def test_a_task_that_shares_something_with_another_and_not_all_sees_no_write(self):
        array, listed = zeros(3_000_000), []

        def write(i, array, *found):
            return add_one_to(array), *map(put_one, found)

        tasks = [delayed(write)(i, array, listed, [i]) for i in range(24)]
        assert Parallel(n_jobs=2, batch_size=6)(tasks) == [(1, 1, 2)] * 24
        assert (array[0], listed) == (0, [])

    @pytest.mark.parametrize("give", ["as an argument", "as a result"])
    def test_of_lists_in_lists_and_tuples_no_two_tasks_share_one(self, give):
        """However few bytes they are, and whichever of them many tasks have in common."""
        common, pair = [], ([],)
        made = {
            "each its own": lambda i: [i],
            "all the same": lambda i: common,
            "the same in lists": lambda i: [i, common],
            "the same in a tuple": lambda i: (i, common),
            "in a tuple that all have": lambda i: pair,
            "every other the same": lambda i: common if i % 2 else [i],
            "deep down": lambda i: [[[common]]],
        }

        def write(value):
            while value and isinstance(value[-1], (list, tuple)):
                value = value[-1]
            value.append("written")
            return value.count("written")

        for name, make in made.items():
            values = [make(i) for i in range(24)]
            if give == "as an argument":
                found = Parallel(n_jobs=2, batch_size=6).map(write, values)
                found += Parallel(n_jobs=2, batch_size=6)(delayed(write)(value) for value in values)
            else:
                results = Parallel(n_jobs=2, batch_size=6).map(make, range(24))
                found = [write(result) for result in results]
            assert set(found) == {1}, name
        assert (common, pair) == ([], ([],))

    def test_a_method_in_a_lru_cache_shows_no_task_what_another_wrote(self):
        class Adder:
            n = 0

            def add(self, i):
                self.n += 1
                return self.n

        cached = functools.lru_cache(Adder().add)
        assert Parallel(n_jobs=2, batch_size=5).map(cached, range(30)) == [1] * 30

    def test_inside_a_task_what_is_one_stays_one(self):
        def same(*found, **named):
            first, *others = [*found, *named.values()]
            return all(each is first for each in others)

        for one in [0], {}, Counter(), b"bytes" * 9, zeros(20_000), zeros(3_000_000):
            tasks = [delayed(same)(one, one, third=one) for _ in range(12)]
            assert all(Parallel(n_jobs=2, batch_size=4)(tasks)), type(one)
        counter = Counter()
        tasks = [
            delayed(counter.up)(),
            delayed(lambda up, one: (up(), one.n))(counter.up, counter),
        ] * 6
        assert Parallel(n_jobs=2, batch_size=6)(tasks) == [1, (1, 1)] * 6

    def test_scalars_of_numpy_are_what_they_were(self):
        scalars = [
            kind(1) for kind in {*np.sctypeDict.values()} - {np.void, np.object_, np.datetime64}
        ]
        scalars += [
            np.datetime64("2020-01-01"),
            np.timedelta64(3, "s"),
            np.str_("text"),
            np.bytes_(b"bytes"),
            np.zeros(1, [("x", "i8")])[0],
        ]
        for options in {}, {"batch_size": 9}:
            back = Parallel(n_jobs=2, **options)(delayed(lambda x: x)(scalar) for scalar in scalars)
            assert list(map(repr, back)) == list(map(repr, scalars))
            named = Parallel(n_jobs=2, **options)(
                delayed(dict)(**{np.str_("x"): scalar}) for scalar in scalars
            )
            assert [repr(found["x"]) for found in named] == list(map(repr, scalars))

    def test_results_of_two_tasks_are_two(self):
        """Also where a task returns what its worker keeps; what one task returns twice is one."""

        def give(kept, i):
            mine = kept_here.setdefault("kept", kept)
            return mine, mine

        kept_here = {}
        for kept in [], zeros(20_000), zeros(3_000_000):
            kept_here.clear()
            results = Parallel(n_jobs=1 + 1, batch_size=5)(
                delayed(give)(kept, i) for i in range(10)
            )
            assert all(one is two for one, two in results)
            assert len({id(one) for one, _ in results}) == 10
            if len(kept):
                results[0][0][:] = 7
                assert all(one[0] == 0 for one, _ in results[1:])

    def test_only_a_shared_mapping_shows_what_other_tasks_write(self):
        array = zeros(3_000_000)
        for mode, seen in ("c", {1}), ("r+", {*range(1, 13)}), ("w+", {*range(1, 13)}):
            found = Parallel(n_jobs=2, mmap_mode=mode, batch_size=12)(
                delayed(add_one_to)(array) for _ in range(12)
            )
            assert set(found) == seen

    def test_classes_and_plain_functions_in_arguments_are_sent_once_a_run(self):
        def packed(options):
            counts.clear()
            tasks = [
                delayed(lambda point, double: double(point.x))(Point(i, 2), lambda x: 2 * x)
                for i in range(30)
            ]
            assert Parallel(n_jobs=2, **options)(tasks) == [2 * i for i in range(30)]
            return counts["class"]

        counts = collections.Counter()

        class Point:
            def __init__(self, x, y):
                self.x = x

        class Told:
            def __reduce__(self):
                counts["class"] += 1
                return str, ()

        Point.told = Told()
        assert packed({"batch_size": 1}) == packed({"batch_size": 15}) == 1

    def test_a_function_with_plain_defaults_sends_its_globals_once_a_run(self):
        class Told:
            def __reduce__(self):
                counts["global"] += 1
                return str, ()

        counts, space = collections.Counter(), {"told": Told(), "__name__": "made_here"}
        exec("def use(x, k=1, *, text='a'): return x + k + len(told + text)", space)
        use = space["use"]
        tasks = [delayed(functools.partial(use, k=i))(1) for i in range(30)]
        assert Parallel(n_jobs=2)(tasks) == [*range(2, 32)]
        assert counts["global"] == 1

    def test_the_error_of_an_argument_is_its_tasks_alone(self):
        found = Parallel(n_jobs=2, batch_size=4, on_error="return")(
            delayed(type)(Trap("worker") if i == 2 else [i]) for i in range(8)
        )
        assert found[:2] == [list, list] and found[3:] == [list] * 5 and "trapped" in str(found[2])


@pytest.mark.usefixtures("by_value", "one_fork_server")
@pytest.mark.skipif(
    not os.access("/dev/shm", os.W_OK), reason="looks into /proc/self/maps and /dev/shm"
)
class TestSection6BigArrays:
    def test_a_shared_array_is_laid_down_once(self, processes):
        array = np.ones(300_000)
        seen = Parallel(**processes)(delayed(look)(array, i) for i in range(20))
        assert len(set(seen)) == 1 and seen[0][0][0] and seen[0][1:] == (True, 300_000.0)
        assert open_segments() == 0

    def test_on_an_executor_of_others_a_batch_lays_an_array_down_once(self):
        array = np.ones(300_000)
        tasks = [delayed(look)(array, i) for i in range(20)]
        with Elsewhere(2) as executor:
            seen = Parallel(backend=executor, batch_size=5)(tasks)
        for at in range(0, 20, 5):
            (memory, *rest), *others = seen[at : at + 5]
            assert others == [(memory, *rest)] * 4 and memory[0] and rest == [True, 300_000.0]
        assert open_segments() == 0

    def test_idle_workers_hold_no_array_of_an_ended_run(self, processes):
        array = np.ones(300_000)

        def by_closure(i):
            return array[i]

        def held():
            maps = (
                Path(f"/proc/{pid}/maps").read_text()
                for pid in child_processes()
                if pid != os.getpid()
            )
            return sum(
                "(deleted)" in line and line.split()[1] == "rw-p" and "/#" in line
                for text in maps
                for line in text.splitlines()
            )

        assert Parallel(**processes)(delayed(by_closure)(i) for i in range(4)) == [1.0] * 4
        assert Parallel(**processes)(delayed(np.sum)(array) for _ in range(4)) == [300_000.0] * 4
        wait_until(lambda: held() == 0, "the end of the last map")

    def test_several_views_of_one_array_share_its_segment_or_not_but_are_right(self, processes):
        array = np.arange(600_000.0).reshape(600, 1000)
        views = [
            array,
            array.T,
            array[:300],
            array[300:],
            array[::2],
            np.asfortranarray(array),
            array[:, 3:900],
        ]
        for _ in range(2):
            found = Parallel(**processes)(delayed(look)(view) for view in views)
            assert [total for _, _, total in found] == [float(view.sum()) for view in views]
            assert all(inode for (inode, _), _, _ in found)

    def test_distinct_arrays_go_as_soon_as_their_task_is_done(self, processes):
        most = []

        def tasks():
            for i in range(30):
                most.append(open_segments())
                yield delayed(look)(np.full(200_000, i, float))

        found = Parallel(**processes, return_as="generator")(tasks())
        assert [total for _, _, total in found] == [200_000.0 * i for i in range(30)]
        assert 0 < max(most) <= 6 and open_segments() == 0

    def test_mmap_mode_says_who_sees_what_a_task_writes(self, tmp_path):
        def write_or_read(array, i, written):
            if i == 0:
                array[0] = 1
                written.touch()
            return float(array[0]) if wait_for_file(written) else None

        array = np.zeros(200_000)
        for mode, seen in ("c", 0.0), ("r+", 1.0), ("w+", 1.0):
            tasks = [delayed(write_or_read)(array, i, tmp_path / mode) for i in range(2)]
            assert Parallel(2, mmap_mode=mode)(tasks) == [1.0, seen]
            assert array.max() == 0

    def test_read_only_mode_refuses_writes(self, processes):
        with pytest.raises(ValueError, match="read-only"):
            Parallel(**processes, mmap_mode="r")(
                delayed(add_one)(np.zeros(200_000)) for _ in range(3)
            )

    def test_max_nbytes_says_what_is_mapped(self):
        array = np.zeros(200_000)
        for given, mapped in (
            ({}, True),
            ({"max_nbytes": "2M"}, False),
            ({"max_nbytes": None}, False),
            ({"mmap_mode": None}, False),
            ({"max_nbytes": 1_600_000}, True),
            ({"max_nbytes": 1_600_001}, False),
            ({"max_nbytes": "1e-3G"}, True),
        ):
            found = Parallel(2, **given)(delayed(look)(array) for _ in range(4))
            assert {bool(inode) for (inode, _), *_ in found} == {mapped}, given
            with joblite.parallel_config(backend="loky", n_jobs=2, **given):
                assert (
                    bool(Parallel()(delayed(look)(array) for _ in range(2))[0][0][0]) == mapped
                ), given
            back = Parallel(2, **given)(delayed(np.ones)(200_000) for _ in range(2))[0]
            assert bool(memory_of(back)[0]) == mapped and back.sum() == 200_000, given

    def test_big_results_come_back_mapped_and_writable(self, processes):
        results = Parallel(**processes)(delayed(np.full)(150_000 + i, i, float) for i in range(12))
        assert [(len(array), array[7]) for array in results] == [
            (150_000 + i, i) for i in range(12)
        ]
        assert all(memory_of(array)[0] for array in results)
        results[0][:] = 5
        assert results[0].sum() == 5 * 150_000 and results[1].sum() == 150_001
        del results
        if sysconfig.get_config_var("Py_GIL_DISABLED"):  # once the thread that made them runs
            wait_until(lambda: open_segments() == 0)
        assert open_segments() == 0

    def test_frames_of_pandas_travel_mapped(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({name: range(200_000) for name in "abc"})

        def see(frame):
            return memory_of(frame["b"].to_numpy())[0], int(frame["c"].sum())

        seen = Parallel(2)(delayed(see)(frame) for _ in range(6))
        assert len(set(seen)) == 1 and seen[0][0] and seen[0][1] == 200_000 * 199_999 // 2

    def test_a_big_global_crosses_once_a_call(self):
        done = run_script("""
            import numpy as np
            from joblite import Parallel, delayed
            table = np.ones(300_000)
            def use(i):
                for line in open("/proc/self/maps"):
                    start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
                    if start <= table.__array_interface__["data"][0] < end:
                        return line.split()[4], table.sum() + i
            seen = Parallel(2)(delayed(use)(i) for i in range(20))
            assert len({inode for inode, _ in seen}) == 1 and seen[0][0] != "0", seen
            assert [total for _, total in seen] == [300_000 + i for i in range(20)]
            table[:] = 2
            assert Parallel(2)(delayed(use)(i) for i in range(2))[0][1] == 600_000
            """)
        assert not done.stderr

    def test_arrays_changed_between_or_within_calls_are_seen(self, processes):
        array = np.zeros(200_000)
        with Parallel(**processes) as parallel:
            for i in range(3):
                array[i] = 1
                assert parallel(delayed(np.sum)(array) for _ in range(4)) == [i + 1] * 4
        # each at an old id
        fresh = Parallel(**processes)(delayed(np.max)(np.full(200_000, i)) for i in range(20))
        assert fresh == list(range(20))

    def test_a_memmap_of_the_caller_travels_by_reference(self, tmp_path):
        def see(view):
            return (
                getattr(view, "mode", None),
                getattr(view, "offset", None),
                memory_of(view),
                view.tolist(),
            )

        for mode, order in itertools.product(["r", "r+", "c"], "CF"):
            path = tmp_path / f"{mode} {order}"
            whole = np.memmap(path, "f8", "w+", 800, (500, 100), order)
            whole[:] = np.arange(50_000).reshape(500, 100)
            whole.flush()
            array = np.memmap(path, "f8", mode, 800, (500, 100), order)
            views = [
                array,
                array[100:],
                array[:, 50:],
                array[::2, ::-3],
                array.T,
                np.asarray(array)[7:90],
            ]
            found = Parallel(2)(delayed(see)(view) for view in [*views, whole])
            assert Parallel(2)([delayed(np.sum)(array.copy())] * 2) == [array.sum()] * 2
            assert found[0][:2] == (mode, 800) and found[-1][0] == "r+"
            for view, (_, _, memory, values) in zip([*views, whole], found):
                assert view.nbytes < 16384 or memory == (path.stat().st_ino, str(path))
                assert values == view.tolist()

    def test_tasks_write_through_a_memmap_and_not_through_a_copy(self, tmp_path):
        for mode, after in ("r+", 4.0), ("c", 0.0):
            array = np.memmap(tmp_path / mode, "f8", "w+", 0, (4, 10_000))
            array = np.memmap(tmp_path / mode, "f8", mode, 0, (4, 10_000))
            Parallel(2)(delayed(add_one)(row) for row in array)
            assert np.fromfile(tmp_path / mode)[::10_000].sum() == after
            parts = array[:, 5000:], array[:, 5000::-1].T  # with gaps
            Parallel(2)(delayed(add_one)(part) for part in parts)
            assert np.fromfile(tmp_path / mode)[[0, 4999, 5001, 9999]].tolist() == [after / 2] * 4
            Parallel(2)(delayed(add_one)(row[:9]) for row in array)  # small
            assert np.fromfile(tmp_path / mode)[::10_000].sum() == 3 * after

    def test_a_memmap_goes_by_its_file_while_a_task_writes_to_it(self, tmp_path):
        array = np.memmap(tmp_path / "array", "f8", "w+", 0, 50_000)

        def count(array, stop):
            while not os.path.exists(stop):
                array += 1

        def tasks(stop=tmp_path / "stop"):
            yield delayed(count)(array, stop)
            for _ in range(50):
                before = float(array[0])
                wait_until(lambda before=before: array[0] != before, "the first task")
                yield delayed(getattr)(array, "filename", None)
            stop.touch()

        found = Parallel(2, batch_size=1, pre_dispatch="all")(tasks())
        assert found == [None, *[array.filename] * 50]

    def test_a_memmap_whose_file_is_gone_or_another_goes_by_value(self, tmp_path):
        for spoil in (
            lambda path: None,
            Path.unlink,
            lambda path: (path.unlink(), path.write_bytes(bytes(400_000))),
        ):
            path = tmp_path / "array"
            np.arange(50_000.0).tofile(path)
            array = np.memmap(path, "f8", "c")
            array[:5] = 7  # from here on this page is the process's own
            spoil(path)
            assert Parallel(2)(delayed(np.sum)(array) for _ in range(2)) == [array.sum()] * 2

    def test_temp_folder_holds_what_is_mapped_and_keeps_nothing(self, tmp_path, monkeypatch):
        array = np.ones(200_000)
        for given in ({"temp_folder": tmp_path}, {}):
            (_, path), _, _ = Parallel(2, **given)(delayed(look)(array) for _ in range(2))[0]
            assert path.startswith(str(tmp_path)) and list(tmp_path.iterdir()) == []
            monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path))

    def test_a_bad_temp_folder_is_passed_over(self, tmp_path):
        (tmp_path / "a file").touch()
        for name in ("missing", "a file"):
            tasks = [delayed(look)(np.ones(200_000)) for _ in range(2)]
            found = Parallel(2, temp_folder=tmp_path / name)(tasks)
            assert [total for _, _, total in found] == [200_000] * 2

    def test_full_disks_leave_the_pipe(self, tmp_path):
        if os.geteuid() or subprocess.run(["unshare", "-m", "true"]).returncode:
            pytest.skip("mounting a tmpfs is not allowed here")
        done = run_script(
            """
            import os, subprocess, sys, tempfile, time
            import numpy as np
            from joblite import Parallel, delayed, shutdown_workers
            folders = ["/dev/shm", sys.argv[1]]
            for folder in folders:
                command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
                subprocess.run(command, check=True)
            tempfile.tempdir = sys.argv[1]
            array = np.arange(500_000.)
            for given in ({}, {"temp_folder": sys.argv[1]}):
                back = Parallel(2, **given)(delayed(np.negative)(array) for i in range(5))
                assert all((result == -array).all() for result in back)
                shutdown_workers()  # off Linux their status pages are files, which end with them
                end = time.monotonic() + 60
                while not all(os.statvfs(folder).f_bfree == 256 for folder in folders):
                    assert time.monotonic() < end
                    time.sleep(0.01)
            """,
            tmp_path,
            python="unshare",
            flags=("-m", sys.executable),
        )
        assert not done.stderr

    def test_more_big_results_than_descriptors_come_back(self):
        run_script("""
            import resource
            import numpy as np
            from joblite import Parallel, delayed
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
            results = Parallel(2)(delayed(np.full)(2**17, i, float) for i in range(300))
            assert [array[-1] for array in results] == list(range(300))
            """)

    def test_a_worker_that_holds_very_many_maps_copies(self):
        np = pytest.importorskip("numpy")
        array = np.ones(300_000)
        few = {"initializer": lambda: setattr(sys.modules["joblite"], "_MOST_MAPS", 0)}
        seen = Parallel(2, **few, batch_size=1)(delayed(look)(array, i) for i in range(8))
        assert [(inode, total) for (inode, _), _, total in seen] == [(0, 300_000.0)] * 8

    @pytest.mark.parametrize("victim", ["worker", "fork server", "caller"])
    def test_a_kill_leaves_no_segment(self, tmp_path, victim):
        if os.geteuid() or subprocess.run(["unshare", "-m", "true"]).returncode:
            pytest.skip("mounting a tmpfs is not allowed here")
        script = run_script(
            """
            import os, signal, subprocess, sys
            import numpy as np
            from joblite import Parallel, delayed
            folder, victim = sys.argv[1:]
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
            pid = os.fork()
            if not pid:
                def use(array, caller):
                    pids = {"worker": os.getpid(), "fork server": os.getppid(), "caller": caller}
                    os.kill(pids[victim], signal.SIGKILL)
                    return np.ones(10**6)
                try:
                    parallel, caller = Parallel(2, temp_folder=folder), os.getpid()
                    parallel(delayed(use)(np.ones(10**6), caller) for i in range(6))
                finally:
                    os._exit(7)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code == (-9 if victim == "caller" else 7), code
            while subprocess.run(["umount", folder], stderr=subprocess.DEVNULL).returncode:
                # the last worker is about to go: a file of it would keep the disk busy for ever
                pass
            """,
            tmp_path,
            victim,
            python="unshare",
            flags=("-m", sys.executable),
        )
        assert "Traceback" not in script.stderr


class TestSection7Choosing:
    def test_n_jobs_arithmetic(self, monkeypatch):
        monkeypatch.setattr(joblite, "cpu_count", lambda: 8)
        table = {1: 1, 3: 3, 20: 20, -1: 8, -2: 7, -20: 1, 2.0: 2, "3": 3, None: 1}
        assert {n: joblite.effective_n_jobs(n) for n in table} == table
        with parallel_config(backend="threading", n_jobs=5):
            assert joblite.effective_n_jobs(None) == 5 and joblite.effective_n_jobs(-1) == 8

    def test_numbers_of_numpy_are_settings_as_well(self):
        np = pytest.importorskip("numpy")
        parallel = Parallel(np.int64(2), timeout=np.float64(DEADLINE), batch_size=np.int8(1))
        assert parallel([delayed(abs)(-1)]) == [1]
        with ThreadPoolExecutor(np.int64(3)) as executor:
            assert Parallel(backend=executor).n_jobs == 3

    @pytest.mark.parametrize("bad", [0, 0.5, "two", float("nan")])
    def test_bad_n_jobs_is_refused(self, bad):
        with pytest.raises(ValueError, match="n_jobs: expected a whole number other than 0"):
            Parallel(n_jobs=bad)

    def test_an_executor_that_is_empty_is_used(self):
        class Counted(ThreadPoolExecutor):
            def __len__(self):
                return 0

        with Counted(2) as executor:
            assert Parallel(backend=executor)([delayed(os.getpid)()]) == [os.getpid()]
            assert Parallel(backend=executor).n_jobs == 2

    def test_a_big_value_is_not_quoted_in_full(self):
        with pytest.raises(ValueError, match="n_jobs: expected") as caught:
            Parallel([delayed(square)(i) for i in range(1000)])
        assert len(str(caught.value)) < 400

    def test_cpu_limit_of_the_environment_is_kept(self, monkeypatch):
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
        assert joblite.cpu_count() == 1
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "many")
        with pytest.raises(ValueError, match="LOKY_MAX_CPU_COUNT"):
            joblite.cpu_count()

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
    def test_affinity_counts(self):
        done = run_script(
            "import os, joblite; os.sched_setaffinity(0, {0}); print(joblite.cpu_count())"
        )
        assert done.stdout == "1\n"

    BAD = {
        "batch_size: expected": {"batch_size": -1},
        "prefer: expected": {"prefer": "wrong"},
        "require: expected": {"require": "wrong"},
        "since processes share no memory": {"prefer": "processes", "require": "sharedmem"},
        "backend: expected one of": {"backend": "nonsense"},
        "return_as: expected": {"return_as": "tuple"},
        "on_error: expected": {"on_error": "ignore"},
        "timeout: expected": {"timeout": -3},
        "max_nbytes: expected": {"max_nbytes": "1 apple"},
        "mmap_mode: expected None, 'r'": {"mmap_mode": "x"},
        "which require='sharedmem' needs": {"backend": "loky", "require": "sharedmem"},
        "expected options among": {"backend": "loky", "nonsense": 1},
    }

    @pytest.mark.parametrize("text", BAD)
    def test_bad_values_are_refused_at_construction(self, text):
        with pytest.raises(ValueError, match=text):
            Parallel(**self.BAD[text])

    @pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
    @pytest.mark.parametrize(
        "bad",
        [
            "__import__('os')",
            "9**9**9",
            "6 // (n_jobs - 2)",
            "(" * 10_000 + "n_jobs",
            "n_jobs" + " " * 10_000 + "x",
            "-n_jobs",
            "n_jobs * 0",
            "all of them",
            "",
            "nan",
            math.nan,
            0,
            -1,
            None,
            [2],
            "2 * n_jobs * n_jobs",
        ],
    )
    def test_a_bad_pre_dispatch_is_refused_at_construction(self, bad, return_as):
        with pytest.raises(
            ValueError, match="pre_dispatch: expected 'all', a number above 0, or a text such as"
        ):
            Parallel(2, pre_dispatch=bad, return_as=return_as)

    @pytest.mark.parametrize(
        "pre_dispatch, batches",
        [
            ("2 * n_jobs", 6),
            ("n_jobs", 3),
            ("3*n_jobs", 9),
            ("n_jobs * 2", 6),
            (" 1.5 * n_jobs ", 4),
            (".5*n_jobs", 1),
            ("2 * n_jobs * 2", 12),
            (7, 7),
            ("7", 7),
            (2.5, 2),
            (0.5, 1),
            (np.int64(4), 4),
        ],
    )
    def test_pre_dispatch_is_a_number_or_a_multiple_of_n_jobs(self, pre_dispatch, batches):
        taken = []
        tasks = (taken.append(i) or delayed(abs)(i) for i in range(100))
        parallel = Parallel(3, "threading", "generator", batch_size=1, pre_dispatch=pre_dispatch)
        results = parallel(tasks)
        assert len(taken) == batches
        results.close()

    def test_contexts_nest_and_restore(self):
        with parallel_config(backend="threading", n_jobs=3) as outer:
            assert (outer["n_jobs"], outer["verbose"]) == (3, 0)
            with pytest.raises(KeyError), parallel_config(n_jobs=2):
                assert Parallel().n_jobs == 2 and Parallel()._backend.name == "threading"
                raise KeyError
            assert Parallel().n_jobs == 3 and Parallel(n_jobs=4).n_jobs == 4
            seen = []
            thread = threading.Thread(target=lambda: seen.append(Parallel().n_jobs))
            thread.start()
            thread.join()
            assert seen == [1], "a context is local to its thread"
        assert Parallel().n_jobs == 1

    def test_parallel_backend_is_the_older_spelling(self):
        with joblite.parallel_backend("threading", n_jobs=2) as (_, n_jobs):
            assert n_jobs == 2 and Parallel().n_jobs == 2
        with joblite.parallel_backend("threading"):
            assert Parallel().n_jobs == joblite.cpu_count()

    def test_options_need_a_backend(self):
        with pytest.raises(
            ValueError, match="backend: expected 'loky' or another that has the options"
        ):
            parallel_config(initializer=print)
        with pytest.raises(ValueError, match="expected options among .*'inner_max_num_threads'"):
            parallel_config(backend="threading", inner_max_num_threads=2)

    def test_prefer_is_a_hint_and_context_beats_it(self):
        assert Parallel(n_jobs=2, prefer="threads")._backend.name == "threading"
        with parallel_config(backend="loky"):
            assert Parallel(n_jobs=2, prefer="threads")._backend.name == "loky"

    def test_sharedmem_beats_context(self):
        seen = []
        with parallel_config(backend="loky", n_jobs=2):
            Parallel(require="sharedmem")(delayed(seen.append)(i) for i in range(5))
        assert sorted(seen) == [0, 1, 2, 3, 4]

    def test_registered_backend_runs(self):
        with ThreadPoolExecutor(2) as executor:
            joblite.register_parallel_backend("mine", lambda: executor)
            try:
                assert Parallel(backend="mine")(delayed(square)(i) for i in range(4)) == [
                    0,
                    1,
                    4,
                    9,
                ]
                assert Parallel(backend="mine").n_jobs == 2
            finally:
                del joblite._backends["mine"]

    def test_options_of_a_registered_backend_go_to_its_factory(self):
        made = []
        joblite.register_parallel_backend(
            "sized", lambda size: made.append(ThreadPoolExecutor(size)) or made[-1]
        )
        try:
            with parallel_config(backend="sized", size=3):
                assert (
                    Parallel()(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]
                    and Parallel().n_jobs == 3
                )
            made[0].shutdown()
        finally:
            del joblite._backends["sized"]

    @pytest.mark.usefixtures("by_value")
    def test_nested_calls_share_one_budget(self):
        """Inside a process an inner call uses threads, inside a thread it runs in place,
        unless told otherwise."""

        def inner(kind, **options):
            call = Parallel(n_jobs=2, **options)
            return call._backend.name, len(call(delayed(where)() for _ in range(4)))

        assert Parallel(n_jobs=2)([delayed(inner)(1)] * 2) == [("threading", 4)] * 2
        assert (
            Parallel(n_jobs=2, backend="threading")([delayed(inner)(1)] * 2)
            == [("sequential", 4)] * 2
        )
        assert Parallel(n_jobs=2)([delayed(inner)(1, backend="loky")] * 2) == [("loky", 4)] * 2
        share = max(1, joblite.cpu_count() // 2)
        assert Parallel(n_jobs=2)([delayed(joblite.effective_n_jobs)(-1)] * 2) == [share] * 2

    def test_without_processes_threads_do_and_it_is_said_once(self):
        done = run_script("""
            import sys
            sys.executable = ""
            from joblite import Parallel, delayed
            for _ in range(2):
                print(Parallel(2)(delayed(abs)(-i) for i in range(3)))
            """)
        assert (
            done.stdout == "[0, 1, 2]\n[0, 1, 2]\n"
            and done.stderr.count("processes cannot be started here") == 1
        )

    def test_without_threads_tasks_run_in_place_and_it_is_said_once(self):
        """As in a browser, whose Python lacks more: the user's id, the numbers of threads."""
        done = run_script("""
            import os, sys, threading
            sys.platform = "emscripten"
            vars(os).pop("geteuid", None)
            def refuse(thread):
                raise RuntimeError("can't start new thread")
            threading.Thread.start = refuse
            from joblite import Memory, Parallel, delayed, shutdown_workers
            for backend in (None, "threading", None):
                parallel = Parallel(2, backend, timeout=9)
                print(parallel(delayed(threading.get_ident)() for _ in range(2)) ==
                      [threading.get_ident()] * 2)
            cached = Memory("cache").cache(abs)
            print(cached(-1), cached.check_call_in_cache(-1), threading.active_count())
            shutdown_workers()
            """)
        assert done.stdout == "True\n" * 3 + "1 True 1\n"
        assert (
            done.stderr.count("where there are none, one after the other and without timeout") == 1
        )
        assert "cannot be read" not in done.stderr

    @pytest.mark.parametrize(
        "options, says",
        [
            (
                {"backend": "interpreters"},
                "expected one of .*'loky'.* or a concurrent.futures.Executor, got 'inter",
            ),
            (
                {"backend": multiprocessing},
                "expected one of .*Executor, got <module 'multiprocessing'",
            ),
            (
                {"backend": multiprocessing.get_context("spawn")},
                "expected one of .*Executor, got <multiprocessing",
            ),
            ({"backend": ThreadPoolExecutor}, "expected one of .*Executor, got <class"),
            (
                {"backend": "multiprocessing", "context": "spawn"},
                r"expected options among .*got \['context'\]",
            ),
            ({"start_method": "spawn"}, r"expected options among .*got \['start_method'\]"),
        ],
    )
    def test_ways_to_start_workers_that_only_executors_offer_are_refused_at_once(
        self, options, says
    ):
        with pytest.raises(ValueError, match=says):
            Parallel(2, **options)

    def test_a_factory_is_called_once_for_each_set_of_options(self):
        made = []

        def factory(size=2, **more):
            made.append(ThreadPoolExecutor(size))
            return made[-1]

        joblite.register_parallel_backend("counted", factory)
        array = np.zeros(3)
        try:
            for options in ({}, {"size": 3}, {"more": [1]}, {"more": array}, {"more": array + 1}):
                for _ in range(3):
                    assert Parallel(backend="counted", **options)([delayed(square)(2)]) == [4]
                    with parallel_config("counted", **options):
                        assert Parallel()([delayed(square)(3)]) == [9]
            assert len(made) == 5
            made[0].shutdown()
            assert Parallel(backend="counted")([delayed(square)(2)] * 2) == [4, 4]
            assert len(made) == 6, "one that was shut down is replaced"
        finally:
            for executor in made:
                executor.shutdown()

    def test_an_executor_that_gives_no_future_is_refused(self):
        class Odd:
            def submit(self, function, *args):
                return function(*args)

        with pytest.raises(
            TypeError, match="expected an executor whose `submit` gives a future; that of Odd gave"
        ):
            Parallel(2, backend=Odd())([delayed(square)(2)])

    def test_without_fork_the_standard_pool_serves(self, tmp_path):
        """As on Windows. Lambdas and errors come through as everywhere; a crash ends the run,
        not the next one, and an error of a task ends the others."""
        done = run_script(
            """
            import os, threading, time
            vars(os).pop("fork", None)
            from joblite import Parallel, TerminatedWorkerError, delayed
            def double(x):
                return 2 * x
            def linger(x):
                return time.sleep(999) if x else 1 / x
            if __name__ == "__main__":
                for backend in ("loky", "multiprocessing"):
                    with Parallel(2, backend) as parallel:
                        print(parallel(delayed(double)(i) for i in range(3)))
                        print(parallel(delayed(lambda x: -x)(i) for i in range(3)))
                        try:
                            parallel([delayed(os._exit)(1)])
                        except TerminatedWorkerError as error:
                            print(error)
                        try:
                            parallel(delayed(linger)(i) for i in range(2))
                        except ZeroDivisionError as error:
                            print(error)
                        print(parallel(delayed(double)(i) for i in range(3)))
            """,
            tmp_path,
        )
        died = "the worker process of task 0 ended with exit code 1 before the task did"
        lines = f"[0, 2, 4]\n[0, -1, -2]\n{died}\ndivision by zero\n[0, 2, 4]\n"
        assert (done.stdout, done.stderr) == (lines * 2, "")

    def test_the_standard_pool_keeps_what_it_can(self, tmp_path):
        """As on Windows: prints, an initializer, the options, a timeout, the caller's directory
        and environment. What a task breaks fails that task only, and takes no result along."""
        done = run_script(
            """
            import contextlib, io, os, sys, threading, time
            vars(os).pop("fork", None)
            import joblite
            from joblite import Parallel, TerminatedWorkerError, delayed
            def initialize(value):
                global given
                given = value
                if value < 0:
                    raise LookupError("what the initializer says")
            def show(number):
                print("out", number)
                print("half", number, file=sys.stderr, end="")
                return given + number, os.environ["OMP_NUM_THREADS"], joblite.cpu_count() > 0
            def die(number, *deadly):
                return os._exit(3) if number in deadly else number
            def wait(seconds):
                time.sleep(seconds)
            if __name__ == "__main__":
                options = dict(initializer=initialize, initargs=(7,), inner_max_num_threads=3,
                               idle_worker_timeout=9)
                out, err = io.StringIO(), io.StringIO()
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    parallel = Parallel(2, backend="loky", **options)
                    found = parallel(delayed(show)(i) for i in range(3))
                assert found == [(7 + i, "3", True) for i in range(3)], found
                lines = sorted(out.getvalue().split("\\n"))
                assert lines == ["", "out 0", "out 1", "out 2"], lines
                halves = sorted(err.getvalue().replace("half", " half").split(" half "))
                assert halves == ["", "0", "1", "2"], halves
                try:
                    Parallel(2, backend="loky", **options | {"initargs": (-1,)})([delayed(die)(1)])
                except LookupError as error:
                    print(error)
                for batch_size in (1, 4, "auto"):
                    parallel = Parallel(2, on_error="return", batch_size=batch_size)
                    found = parallel(delayed(die)(i, 2, 9) for i in range(11))
                    print([i if type(i) is int else f"{type(i).__name__}: {i}" for i in found])
                print(Parallel(2, on_error="skip")([delayed(die)(0, 0)]),
                      Parallel(2)([delayed(die)(5)]))
                os.mkdir("other")
                os.chdir("other")
                os.environ["SAID"] = "later"
                print(Parallel(2)([delayed(os.getenv)("SAID")]),
                      os.path.basename(Parallel(2)([delayed(os.getcwd)()])[0]))
                try:
                    Parallel(2, timeout=0.1)([delayed(wait)(999)])
                except TimeoutError as error:
                    print(error)
            """,
            cwd=tmp_path,
        )
        named = [
            f"TerminatedWorkerError: the worker process of task {number} "
            "ended with exit code 3 before the task did"
            for number in (2, 9)
        ]
        found = [0, 1, named[0], 3, 4, 5, 6, 7, 8, named[1], 10]
        expected = (
            f"what the initializer says\n{found}\n{found}\n{found}\n[] [5]\n['later'] other\n"
        )
        late = "task 0 ran longer than timeout=0.1 s; it was at script.py:18 wait"
        assert (done.stdout, done.stderr) == (f"{expected}{late}\n", "")

    @windows
    def test_ctrl_c_is_heard_while_tasks_run(self, tmp_path):
        """Where no wait can be interrupted, it is cut into pieces."""
        done = run_script(
            """
            import _thread, os, sys, threading, time
            from joblite import Parallel, delayed
            def wait(number):
                open(f"{sys.argv[1]}/begun {number}", "w").close()
                while not os.path.exists(sys.argv[1] + "/go"):
                    time.sleep(0.01)
            def interrupt():
                while len(os.listdir(sys.argv[1])) < 2:
                    time.sleep(0.01)
                _thread.interrupt_main()
            if __name__ == "__main__":
                threading.Thread(target=interrupt).start()
                try:
                    Parallel(2)(delayed(wait)(number) for number in range(2))
                except KeyboardInterrupt:
                    print("heard")
                open(sys.argv[1] + "/go", "w").close()
            """,
            tmp_path,
        )
        assert done.stdout == "heard\n"

    def test_without_fork_a_task_that_holds_the_lock_is_killed_when_it_is_late(self, tmp_path):
        done = run_script(
            """
            import os, re
            vars(os).pop("fork", None)
            from joblite import Parallel, delayed
            def match(text):
                return bool(re.match("(a+)+$", text))
            if __name__ == "__main__":
                texts = "a", "a" * 99 + "b", "a"
                found = Parallel(2, timeout=1, on_error="return")(delayed(match)(t) for t in texts)
                # where it was is told if it came through before the kill
                for each in found:
                    print(f"{type(each).__name__}: {each}".partition("; it was at")[0])
            """,
            tmp_path,
        )
        late = "TimeoutError: task 1 ran longer than timeout=1 s"
        assert (done.stdout, done.stderr) == (f"bool: True\n{late}\nbool: True\n", "")

    @pytest.mark.parametrize("on_error", ["raise", "return"])
    def test_without_fork_a_missing_main_guard_is_named(self, on_error, tmp_path):
        """And the script does not start itself again and again."""
        done = run_script(
            """
            import os, sys
            vars(os).pop("fork", None)
            from joblite import Parallel, delayed
            with open("begun", "a") as file:
                file.write("x")
            print(Parallel(2, on_error=sys.argv[1])(delayed(abs)(i) for i in range(9)))
            """,
            on_error,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode and "a script needs if __name__ == '__main__':" in done.stderr
        assert len((tmp_path / "begun").read_text()) <= 5 and done.stdout == ""

    def test_dask_says_how_to_start_a_client(self):
        with pytest.raises(ValueError, match="needs a client"):
            parallel_config("dask", scatter=[1], wait_for_workers_timeout=10)
        with pytest.raises(TypeError, match="n_job'"):
            parallel_config("dask", n_job=2)
        with pytest.raises(ValueError, match="needs a client"):
            Parallel(2, backend="dask")([delayed(square)(1)])


# ---- 8. Parallel ----


def assert_it(x):
    assert x
    return x


class Watched:
    """An iterator of tasks that knows how far it was asked."""

    def __init__(self, tasks):
        self.tasks = iter(tasks)
        self.asked = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.asked += 1
        return next(self.tasks)


@pytest.mark.usefixtures("by_value", "one_fork_server")
class TestSection8Parallel:
    def test_delayed_records_a_call(self):
        assert delayed(square)(1, a=2) == (square, (1,), {"a": 2})
        assert delayed(square).__name__ == "square"

    @pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
    def test_results_are_those_of_the_plain_loop(self, backend, return_as):
        for count in (500, 0, 1, 3):
            results = list(
                Parallel(**backend, return_as=return_as)(delayed(square)(i) for i in range(count))
            )
            expected = [square(i) for i in range(count)]
            assert (sorted(results) if return_as == "generator_unordered" else results) == expected

    @pytest.mark.parametrize("batch_size", [1, 7, "auto"])
    @pytest.mark.parametrize("pre_dispatch", ["all", 1, "3 * n_jobs", math.inf, 10**300, "9" * 9])
    def test_batching_changes_no_result(self, batch_size, pre_dispatch):
        call = Parallel(2, backend="threading", batch_size=batch_size, pre_dispatch=pre_dispatch)
        assert call(delayed(square)(i) for i in range(100)) == [square(i) for i in range(100)]

    def test_keyword_arguments_and_mixed_functions_work(self, backend):
        tasks = [
            delayed(square)(2),
            delayed(int)("11", base=2),
            delayed(max)(1, 5),
            delayed(square)(x=3),
        ]
        assert Parallel(**backend)(tasks) == [4, 3, 5, 9]

    @pytest.mark.parametrize("return_as", ["list", "generator"])
    def test_map_gives_what_the_builtin_map_gives(self, backend, return_as):
        def give():
            letters = iter("abcdef")
            return [
                (square, range(500)),
                (square, []),
                (max, range(500), iter(range(9, 300))),
                (max, [3], []),
                (operator.mul, "ab", itertools.repeat(2)),
                (operator.add, letters, letters),
                (list, [[[1]], "ab"]),
            ]

        calls = Parallel(**backend, return_as=return_as)
        for arguments, same in zip(give(), give()):
            assert list(calls.map(*arguments)) == list(map(*same)), arguments

    def test_map_stops_reading_where_the_shortest_iterable_ends(self, backend):
        numbers = Watched(range(100))
        assert Parallel(**backend).map(max, numbers, [5, 5]) == [5, 5]
        assert numbers.asked == 3

    def test_map_reads_endless_iterables_for_a_generator(self, backend):
        for return_as in ("generator", "generator_unordered"):
            with contextlib.closing(
                Parallel(**backend, return_as=return_as).map(square, itertools.count())
            ) as results:
                assert len({next(results) for _ in range(5)}) == 5

    def test_map_obeys_the_options(self, backend):
        def run(**options):
            return Parallel(**backend, **options).map(fail_on, range(20), itertools.repeat(3))

        kept = [number for number in range(20) if number != 3]
        assert run(on_error="skip") == kept
        assert [type(value) for value in run(on_error="return", batch_size=7)].index(
            ValueError
        ) == 3
        assert (
            sorted(run(on_error="skip", return_as="generator_unordered", pre_dispatch="all"))
            == kept
        )
        with pytest.raises(ValueError, match="no 3") as caught:
            run()
        assert "task 3" in caught.value.__notes__[0] and 3 not in caught.value.partial_results

    def test_map_knows_how_many_tasks_there_are(self, backend):
        seen = []
        calls = Parallel(**backend, progress=lambda done, total: seen.append((done, total)))
        calls.map(max, range(9), [1] * 5)
        calls.map(max, range(5), itertools.repeat(1))
        assert (seen[-1], (5, 5) in seen) == ((5, None), True)

    def test_map_goes_through_the_call_of_a_subclass(self, backend):
        class Counting(Parallel):
            def __call__(self, tasks):
                self.seen = [*tasks]
                return super().__call__(self.seen)

        calls = Counting(**backend)
        assert calls.map(square, [1, 2]) == [1, 4]
        assert calls.map(max, [1, 2], [3, 0]) == [3, 2]
        assert calls.seen == [(max, (1, 3), {}), (max, (2, 0), {})]

    def test_map_tells_a_subclass_how_many_tasks_there_are(self):
        class Counting(Parallel):
            def __call__(self, tasks):
                self.total = len(tasks)
                return super().__call__(tasks)

        calls = Counting()
        assert calls.map(pow, [1, 2], [3, 2, 1]) == [1, 4] and calls.total == 2

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ((square,), "map: expected a function, without delayed, and one or more iterables"),
            ((3, [1]), "map: expected a function, without delayed, and one or more iterables"),
            (
                (delayed(square), [1]),
                "map: expected a function, without delayed, and one or more iterables",
            ),
            ((square, 3), "int"),
        ],
        ids=str,
    )
    def test_map_says_what_it_expects(self, arguments, text):
        with pytest.raises(TypeError, match=text):
            Parallel(2, "threading").map(*arguments)

    def test_tasks_of_map_do_not_see_each_others_writes(self, processes):
        shared = []
        calls = Parallel(**processes, batch_size=5)
        assert calls.map(put_one, [shared] * 20) == [1] * 20
        assert calls.map(
            lambda listed, number: put_one(listed) + number, [shared] * 20, range(20)
        ) == [*range(1, 21)]
        assert shared == []

    def test_a_crash_in_map_fails_its_task_only(self, processes):
        found = Parallel(**processes, on_error="return").map(
            die_on, range(200), itertools.repeat(150), itertools.repeat(os.abort)
        )
        assert isinstance(found[150], joblite.TerminatedWorkerError) and "task 150 " in str(
            found[150]
        )
        assert found[:150] + found[151:] == [*range(150), *range(151, 200)]

    @pytest.mark.parametrize("on_error", ["raise", "return"])
    def test_a_stop_iteration_of_a_task_is_an_error(self, backend, on_error):
        def stop_at(number, *bad):
            return next(iter(())) if number in bad else number

        for bad in (30, 40, 99):  # as 99 is the last
            for is_mapped in (False, True):
                parallel = Parallel(**backend, on_error=on_error)
                try:
                    if is_mapped:
                        found = parallel.map(stop_at, range(100), [bad] * 100)
                    else:
                        found = parallel(delayed(stop_at)(number, bad) for number in range(100))
                except RuntimeError as error:  # what Python makes of it in a generator
                    assert on_error == "raise" and f"task {bad} " in error.__cause__.__notes__[0]
                else:
                    assert [value for value in found if type(value) is int] == [
                        *range(bad),
                        *range(bad + 1, 100),
                    ]

    def test_a_thread_gives_calls_of_map_that_it_has_not_begun_to_an_idle_one(self):
        def work(number):
            if number >= 1000:
                time.sleep(0.05)
            return number, threading.get_ident()

        found = Parallel(2, "threading").map(work, range(1010))
        assert [number for number, _ in found] == [*range(1010)]
        assert len({thread for number, thread in found if number >= 1000}) == 2

    def test_first_error_ends_the_run_and_names_the_task(self, backend):
        with pytest.raises(ValueError, match="no 3") as caught:
            Parallel(**backend)(delayed(fail_on)(i, 3) for i in range(100))
        assert "task 3" in caught.value.__notes__[0]
        assert caught.value.partial_results.get(0, 0) == 0 and 3 not in caught.value.partial_results

    def test_a_traceback_shows_what_the_error_came_of(self, backend):
        def fail():
            try:
                {}[7]
            except KeyError:
                raise ValueError("no 7")  # noqa: B904

        def show(task):
            with pytest.raises((ValueError, TypeError)) as caught:
                Parallel(**backend)([task])
            return "".join(traceback.format_exception(caught.value))

        assert "KeyError: 7" in show(delayed(fail)())
        assert show(4).count("Traceback (most recent call last)") == 1, "no word of how it showed"

    def test_an_error_that_allows_no_attribute_comes_as_itself(self, backend):
        @dataclasses.dataclass(frozen=True)
        class Frozen(Exception):
            code: int

        def fail(code):
            raise Frozen(code)

        with pytest.raises(Frozen) as caught:
            Parallel(**backend)([delayed(fail)(7)])
        assert caught.value.code == 7 and caught.value.partial_results == {}
        assert [
            type(error) for error in Parallel(**backend, on_error="return")([delayed(fail)(7)] * 3)
        ] == [Frozen] * 3

    def test_a_program_may_make_a_new_function_for_each_task(self):
        """However many there are, a run keeps only some of them."""
        alive = weakref.WeakSet()

        def tasks():
            for i in range(800):
                own = adder(i)
                alive.add(own)
                yield delayed(own)(0)

        results = Parallel(n_jobs=2, batch_size=2, return_as="generator")(tasks())
        assert [next(results) for _ in range(780)] == list(range(780))
        assert len(alive) < 600
        assert list(results) == list(range(780, 800))

    @forking
    def test_texts_of_odd_types_do_not_end_a_worker(self, processes, monkeypatch):
        class Text(str):
            def __str__(self):
                return self

        class Level(enum.IntEnum):
            LOUD = 35

        def fail():
            raise ValueError(Text("hello"))

        assert Parallel(**processes)([delayed(square)(1)] * 2) == [1, 1]
        monkeypatch.setattr(sys, "path", [*sys.path, Path("/tmp"), Text("/somewhere"), None])
        monkeypatch.setattr(sys, "argv", [*sys.argv, Text("-x")])
        monkeypatch.setattr(logging.root, "level", Level.LOUD)
        found = Parallel(**processes)([delayed(lambda: (sys.path[-1], logging.root.level))()] * 2)
        assert found == [("/somewhere", 35)] * 2
        with pytest.raises(ValueError, match="hello"):
            Parallel(**processes)([delayed(fail)()] * 2)

    def test_parallel_stays_usable_after_an_error(self, backend):
        with Parallel(**backend) as parallel:
            with pytest.raises(ValueError, match="no 3"):
                parallel(delayed(fail_on)(i, 3) for i in range(10))
            assert parallel(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    def test_errors_can_be_returned_or_skipped(self, backend):
        tasks = [delayed(fail_on)(i, 3) for i in range(6)]
        returned = Parallel(**backend, on_error="return")(tasks)
        assert returned[:3] + returned[4:] == [0, 1, 2, 4, 5] and isinstance(
            returned[3], ValueError
        )
        assert Parallel(**backend, on_error="skip")(tasks) == [0, 1, 2, 4, 5]
        assert list(Parallel(**backend, on_error="skip", return_as="generator")(tasks)) == [
            0,
            1,
            2,
            4,
            5,
        ]

    @pytest.mark.parametrize(
        "on_error, found", [("skip", {0: 0, 2: 4}), ("return", {0: 0, 1: 1, 2: 4})]
    )
    def test_partial_results_bear_the_numbers_of_their_tasks(self, backend, on_error, found):
        def tasks():
            for i in range(3):
                yield delayed(fail_on)(i, 1) if i == 1 else delayed(square)(i)
            wait_until(lambda: backend.get("n_jobs") == 1 or parallel.n_completed_tasks == 3)
            raise KeyError("source is gone")

        parallel = Parallel(**backend, on_error=on_error, batch_size=1, pre_dispatch=1)
        with pytest.raises(KeyError) as caught:
            parallel(tasks())
        done = {
            number: 1 if isinstance(value, ValueError) else value
            for number, value in caught.value.partial_results.items()
        }
        assert done == found

    @forking
    def test_error_ends_running_tasks(self, processes, tmp_path):
        """One failing task ends a run of many long ones at once."""
        with pytest.raises(ValueError, match="enough"):
            Parallel(**processes)(
                [
                    delayed(mark_and_hang)(tmp_path / "sign"),
                    delayed(fail_after)(tmp_path / "sign"),
                    *[delayed(mark_and_hang)(tmp_path / "late")] * 50,
                ]
            )

    def test_a_task_may_be_a_list(self, backend):
        tasks = [[int, ("no number",), {}], [abs, (-1,), {}]]
        error, one = Parallel(**backend, on_error="return")(tasks)
        assert type(error) is ValueError and one == 1

    def test_a_bad_task_is_an_error_that_names_it(self, backend):
        for bad in (square, 4, None, (square, 1), ("square", (1,), {}), (1, (1,), {})):
            with pytest.raises(
                TypeError, match=r"expected tasks: delayed\(function\)\(...\), or .*; got"
            ) as caught:
                Parallel(**backend)([delayed(square)(1), bad])
            assert "task 1" in caught.value.__notes__[0]
            results = Parallel(**backend, on_error="return")(
                [delayed(square)(3), bad, delayed(square)(2)]
            )
            assert results[::2] == [9, 4] and isinstance(results[1], TypeError)

    SHAPES = {
        "delayed is forgotten": (
            lambda: Parallel(2)(square(i) for i in range(3)),
            TypeError,
            "expected tasks: delayed(function)(...), or (function, args, kwargs); "
            "got 0, which looks like a result: write delayed(f)(x), not f(x)",
        ),
        "delayed is forgotten, in place": (
            lambda: Parallel(1)(square(i) for i in range(3)),
            TypeError,
            "got 0, which looks like a result: write delayed(f)(x), not f(x)",
        ),
        "delayed is not called": (
            lambda: Parallel(2)(delayed(square) for _ in range(3)),
            TypeError,
            "got a function without its arguments: write (delayed(f)(x) for x in xs)",
        ),
        "delayed gets a result": (
            lambda: Parallel(2)(delayed(square(i)) for i in [3]),
            TypeError,
            "delayed: expected a function, got 9 (did you call it?)",
        ),
        "one task": (
            lambda: Parallel(2)(delayed(square)(1)),
            TypeError,
            "got one task: put it into a list",
        ),
        "one task, in place": (
            lambda: Parallel(1)(delayed(square)(1)),
            TypeError,
            "got one task: put it into a list",
        ),
        "a function in place of tasks": (
            lambda: Parallel(2)(square),
            TypeError,
            "got a function without its arguments: write (delayed(f)(x) for x in xs)",
        ),
        "as a pool maps": (
            lambda: Parallel(2)(square, [1, 2]),
            TypeError,
            "got a function without its arguments: write (delayed(f)(x) for x in xs)",
        ),
        "tasks go to the constructor": (
            lambda: Parallel(delayed(square)(i) for i in range(3)),
            ValueError,
            "; tasks go into the call: Parallel(n_jobs=2)(tasks)",
        ),
        "a slip in an option": (
            lambda: Parallel(n_job=2),
            ValueError,
            "or what help(Parallel) lists, got ['n_job']",
        ),
        "verbose": (
            lambda: Parallel(2, verbose="yes"),
            ValueError,
            "verbose: expected a number, got 'yes'",
        ),
        "timeout": (
            lambda: Parallel(2, timeout="5 s"),
            ValueError,
            "timeout: expected None or seconds above 0, got '5 s'",
        ),
        "progress": (
            lambda: Parallel(2, progress="tqdm"),
            ValueError,
            "progress: expected True, a function of (done, total), or an object with update, "
            "such as a tqdm bar, got 'tqdm'",
        ),
        "a lock": (
            lambda: Parallel(2)([delayed(square)({"a": [threading.Lock()]})]),
            pickle.PicklingError,
            "task 0: args[0]['a'][0] cannot be pickled: cannot pickle '_thread.lock' object; "
            "make it where it is used, or use backend='threading'",
        ),
        "a file": (
            send_a_file,
            pickle.PicklingError,
            "; pass its path, and open it where it is used",
        ),
        "a generator": (
            lambda: Parallel(2)([delayed(square)(x=(i for i in [1]))]),
            pickle.PicklingError,
            "task 0: kwargs['x'] cannot be pickled: cannot pickle 'generator' object; "
            "pass list(...) of it",
        ),
        "a lock that a function reads": (
            lambda: Parallel(2)([delayed((lambda lock: lambda: lock)(threading.Lock()))()]),
            pickle.PicklingError,
            "task 0: function (its variable lock) cannot be pickled: "
            "cannot pickle '_thread.lock' object; make it",
        ),
        "dump of a lock": (
            lambda: joblite.dump({"a": [0, threading.Lock()]}, io.BytesIO()),
            TypeError,
            "value['a'][1] cannot be pickled: cannot pickle '_thread.lock' object",
        ),
        "dump of a lambda": (
            lambda: joblite.dump([0, lambda: 0], io.BytesIO()),
            (AttributeError, pickle.PicklingError),
            "value[1] cannot be pickled: Can't ",
        ),
        "load of a text": (
            lambda: joblite.load(io.BytesIO(b"hello world")),
            ValueError,
            "neither a file of this dump nor a pickle that can be read here: "
            "it begins with b'hello wo'",
        ),
    }

    @pytest.mark.usefixtures("by_value")
    @pytest.mark.parametrize("mistake", SHAPES)
    def test_a_mistake_of_shape_gets_a_message_that_says_what_to_write(self, mistake):
        call, kind, text = self.SHAPES[mistake]
        with pytest.raises(kind) as caught:
            call()
        assert text in str(caught.value)

    @pytest.mark.parametrize("return_as", ["list", "generator"])
    @posix
    def test_a_run_that_cannot_begin_leaves_nothing(self, backend, return_as):
        before = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for options, tasks in (({}, 5), ({"pre_dispatch": "all"}, map(math.sqrt, [-1]))):
            with pytest.raises((TypeError, ValueError)):
                list(Parallel(**backend, return_as=return_as, **options)(tasks))
        joblite.shutdown_workers()
        wait_until(lambda: threading.active_count() <= before[0], "the end of threads")
        assert len(os.listdir("/proc/self/fd")) <= before[1]

    def test_error_of_the_iterator_comes_as_itself(self, backend):
        def tasks():
            yield delayed(square)(1)
            yield delayed(square)(2)
            raise KeyError("source is gone")

        with pytest.raises(KeyError, match="source is gone"):
            Parallel(**backend)(tasks())
        results = Parallel(**backend, return_as="generator")(tasks())
        assert [next(results), next(results)] == [1, 4]
        with pytest.raises(KeyError, match="source is gone"):
            next(results)

    def test_tasks_are_asked_for_in_the_callers_thread(self, backend):
        seen = set()

        def tasks():
            for i in range(50):
                seen.add(threading.get_ident())
                yield delayed(square)(i)

        Parallel(**backend)(tasks())
        assert seen == {threading.get_ident()}

    def test_pre_dispatch_bounds_what_is_taken(self, tmp_path):
        """With pre_dispatch=3 and single-task batches, the fourth task
        is asked for only after one has finished."""
        tasks = Watched(delayed(wait_for_file)(tmp_path / f"{i}") for i in range(6))
        results = Parallel(2, batch_size=1, pre_dispatch=3, return_as="generator")(tasks)
        assert tasks.asked == 3
        (tmp_path / "0").touch()
        next(results)
        assert tasks.asked == 4
        for i in range(1, 6):
            (tmp_path / f"{i}").touch()
        assert len(list(results)) == 5

    def test_progress_of_no_run_is_nothing(self, capfd):
        Parallel(verbose=2).print_progress()
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
    def test_all_tasks_are_read_at_once_and_run_meanwhile(self, backend, return_as, tmp_path):
        if backend["n_jobs"] == 1:
            pytest.skip("one job reads task by task")
        read = []

        def tasks():
            for _ in range(20):
                yield delayed(square)(0)
            yield delayed(Path.touch)(tmp_path / "ran")
            began = time.monotonic()
            while not (tmp_path / "ran").exists():  # far behind the first window
                assert time.monotonic() < began + DEADLINE
                time.sleep(0.001)
                yield delayed(square)(0)
            for i in range(200):
                read.append(i)
                yield delayed(square)(i)

        results = Parallel(**backend, return_as=return_as, pre_dispatch="all")(tasks())
        assert len(read) == 200
        assert (
            list(results)[-200:] == [i * i for i in range(200)]
            or return_as == "generator_unordered"
        )

    MANY_BYTES = {  # tasks of no work that bring or give 100 MB in all
        "bytes": lambda: (delayed(len)(bytes(20_000)) for _ in range(5000)),
        "lists": lambda: (delayed(len)([bytes(20_000)]) for _ in range(5000)),
        "arrays": lambda: (delayed(len)(zeros(100_000)) for _ in range(1000)),
        "results": lambda: (delayed(bytes)(20_000) for _ in range(5000)),
    }

    @pytest.mark.parametrize("name", MANY_BYTES)
    def test_batches_are_limited_in_bytes(self, name):
        Parallel(2)([delayed(abs)(-1)] * 4)
        tracemalloc.start()
        try:
            count = sum(1 for _ in Parallel(2, return_as="generator")(self.MANY_BYTES[name]()))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # what is out is held as tasks and as payloads. Of small ones, which lists are, a copy is
        # held while they are sent; of all, where nothing can be forked
        most = 100e6 if name == "lists" or not hasattr(os, "fork") else 80e6
        assert count in (1000, 5000) and peak < most

    def test_slow_reader_bounds_what_is_out(self, backend):
        tasks = Watched(delayed(square)(i) for i in range(100_000))
        results = Parallel(**backend, return_as="generator", batch_size=1)(tasks)
        assert [next(results) for _ in range(10)] == [square(i) for i in range(10)]
        asked = tasks.asked
        # what was out before it is done after it
        Parallel(**backend)(delayed(square)(i) for i in range(10))
        assert tasks.asked == asked < 100_000
        results.close()

    @pytest.mark.parametrize("way", ["delayed", "map"])
    @pytest.mark.parametrize("backend", [{"backend": "loky"}, {"backend": "threading"}])
    def test_results_come_early_where_tasks_turn_out_slow(self, backend, way, tmp_path):
        """A batch that was cut by the first tasks gives back what it has not started, and the
        tasks of lower numbers are run before others."""

        def nap(i):
            if i >= 4:
                (tmp_path / str(i)).touch()
                time.sleep(0.05)
            return i

        call = Parallel(2, **backend, return_as="generator")
        tasks = (delayed(nap)(i) for i in range(400))
        results = call(tasks) if way == "delayed" else call.map(nap, range(400))
        assert [next(results) for _ in range(8)] == list(range(8))
        assert len(os.listdir(tmp_path)) < 64
        results.close()

    def test_big_results_travel_in_small_batches(self, processes):
        """However quick the tasks are: what is out, and kept for a reader,
        must not be gigabytes."""
        parallel = Parallel(**processes, return_as="generator")
        results = parallel(delayed(bytes)(2**23) for _ in range(60))
        assert max(parallel.n_dispatched_tasks - taken for taken, _ in enumerate(results)) < 30

    def test_generator_starts_at_the_call(self, backend, tmp_path):
        results = Parallel(**backend, return_as="generator")(
            [delayed(Path.touch)(tmp_path / "sign")]
        )
        wait_for_file(tmp_path / "sign")
        assert list(results) == [None]

    def test_one_job_consumes_lazily(self):
        tasks = Watched(delayed(square)(i) for i in range(10))
        results = Parallel(n_jobs=1, return_as="generator")(tasks)
        assert [next(results), next(results)] == [0, 1]
        assert tasks.asked == 2

    def test_unordered_gives_the_quick_results_first(self, processes, tmp_path):
        def task(i):
            return wait_for_file(tmp_path / "go") and i if i == 0 else i

        results = Parallel(**processes, return_as="generator_unordered", batch_size=1)(
            delayed(task)(i) for i in range(10)
        )
        assert sorted(next(results) for _ in range(9)) == list(range(1, 10))
        (tmp_path / "go").touch()
        assert list(results) == [0]

    @pytest.mark.parametrize("how", ["close", "drop", "drop unread"])
    @forking
    def test_dropped_generator_frees_the_workers(self, how, processes, tmp_path):
        results = Parallel(**processes, return_as="generator", batch_size=1)(
            [delayed(square)(3), *(delayed(mark_and_hang)(tmp_path / f"{i}") for i in range(20))]
        )
        if how != "drop unread":
            assert next(results) == 9
        wait_for_file(tmp_path / "0")
        if how == "close":
            results.close()
        del results
        gc.collect()
        assert Parallel(**processes)(delayed(square)(i) for i in range(3)) == [0, 1, 4]
        assert not (tmp_path / "19").exists()

    def test_an_error_thrown_into_a_generator_ends_its_run(self, processes, tmp_path):
        results = Parallel(**processes, return_as="generator", batch_size=1)(
            [delayed(square)(3), *(delayed(mark_and_hang)(tmp_path / f"{i}") for i in range(20))]
        )
        assert next(results) == 9
        wait_for_file(tmp_path / "0")
        with pytest.raises(KeyError) as caught:
            results.throw(KeyError("mine"))
        assert not joblite._pools_at_work and caught  # which holds the generator's frame

    @pytest.mark.parametrize("return_as", ["list", "generator"])
    def test_arguments_of_a_task_that_failed_in_place_wait_for_no_garbage_collection(
        self, return_as
    ):
        class Argument:
            pass

        def call():
            argument = Argument()
            with pytest.raises(ValueError, match="invalid literal"):
                list(
                    Parallel(1, return_as=return_as)(
                        [delayed(lambda _: int("no number"))(argument)]
                    )
                )
            return weakref.ref(argument)

        gc.disable()
        try:
            assert call()() is None
        finally:
            gc.enable()

    @pytest.mark.parametrize("width", [1, 2])
    def test_a_call_that_raises_stop_iteration_as_others_are_given_back_is_not_run_again(
        self, width
    ):
        def stop(*_):
            begun.append(True)
            if len(begun) == stops_at:
                batch.left.clear()
                raise StopIteration

        for stops_at in (1, 2):
            begun = []
            batch = joblite._Batch(0, [(1, 2), (3, 4), (5, 6)], (None, True, True))
            batch.function, batch.width = stop, width
            batch.left = list(batch.tasks)
            ((_, values, errors, _),) = joblite._run_calls(batch)
            assert len(values) == stops_at
            assert type(errors.pop(stops_at - 1)) is StopIteration and not errors

    def test_tasks_whose_number_cannot_be_told_are_run(self):
        class Endless:
            def __len__(self):
                raise OverflowError

            def __iter__(self):
                return (delayed(abs)(-i) for i in range(3))

        assert Parallel()(Endless()) == [0, 1, 2]
        results = Parallel(return_as="generator").map(abs, range(10**30))
        assert [next(results) for _ in range(3)] == [0, 1, 2]

    @pytest.mark.parametrize("pool", ["ours", "an executor"])
    def test_threads_begin_no_further_task_of_a_run_that_is_over(self, pool):
        begun, go_on, count = [], threading.Event(), 100

        def work(i):
            begun.append(i)
            wait_until(go_on.is_set, "the end of the run")
            time.sleep(2 * joblite.CHECKPOINT_S)

        with ThreadPoolExecutor(2) as executor:
            backend = "threading" if pool == "ours" else executor
            results = Parallel(2, backend=backend, return_as="generator", batch_size=count)(
                delayed(work)(i) for i in range(2 * count)
            )
            wait_until(lambda: len(begun) == 2, "both threads to be at work")
            results.close()
            go_on.set()
        held = weakref.ref(work)
        del work, results
        wait_until(
            lambda: gc.collect() >= 0 and held() is None, "the threads to let go of the tasks"
        )
        assert len(begun) < count

    def test_two_generators_are_open_at_once(self, backend):
        parallel = Parallel(**backend, return_as="generator")
        first = parallel(delayed(square)(i) for i in range(20))
        second = parallel(delayed(abs)(-i) for i in range(20))
        pairs = list(zip(first, second))
        assert pairs == [(i * i, i) for i in range(20)]

    def test_tasks_that_are_read_ahead_travel_together(self, processes, capsys):
        count = 20_000
        assert Parallel(**processes, pre_dispatch="all", verbose=3)(
            map(delayed(abs), range(count))
        ) == [*range(count)]
        assert len(capsys.readouterr().err.splitlines()) < count // 10, "a line for each batch"

    def test_changed_globals_are_seen_by_the_next_call(self):
        done = run_script("""
            import os
            from joblite import Parallel, delayed
            def f(): return value
            if os.name == "posix" or __name__ == "__main__":
                for value in (1, 2):
                    print(Parallel(2)(delayed(f)() for _ in range(2)))
                def f(): return "redefined"
                print(Parallel(2)(delayed(f)() for _ in range(2)))
            """)
        assert done.stdout == "[1, 1]\n[2, 2]\n['redefined', 'redefined']\n"

    RELOADED = {
        "a function": lambda module: module.show,
        "a method": lambda module: module.Box().show,
        "a partial": lambda module: functools.partial(module.show),
        "a lambda that uses the module": lambda module: lambda: module.show(),
        "a closure of the module": lambda module: module.make(),
        "an argument": lambda module: functools.partial(lambda show: show(), module.show),
    }

    @forking
    def test_reloaded_modules_are_seen(self, processes, module):
        text = """
            def helper(): return {0!r}
            def show(): return helper()
            def make(): return lambda: helper()
            class Box:
                def show(self): return helper()
            """
        call = Parallel(**processes, batch_size=1)
        for name, value in itertools.product(self.RELOADED, ("old", "newer", "the newest")):
            found = module(text.format(value))
            assert call([delayed(self.RELOADED[name](found))()] * 4) == [value] * 4, name
            assert call([delayed(self.RELOADED[name](found))()] * 4) == [value] * 4, name

    CHANGED = {  # what is asked, and the function whose code is changed
        "a function": (lambda module: module.show, lambda module: module.show),
        "a helper": (lambda module: module.show, lambda module: module.helper),
        "a helper of a lambda": (
            lambda module: lambda: module.helper(),
            lambda module: module.helper,
        ),
        "a method": (lambda module: module.Box().show, lambda module: module.Box.show),
        "a classmethod": (lambda module: module.Box.make, lambda module: module.Box.make.__func__),
        "a property": (
            lambda module: lambda: module.Box().value,
            lambda module: module.Box.value.fget,
        ),
        "a decorated function": (
            lambda module: module.cached,
            lambda module: module.cached.__wrapped__,
        ),
    }

    @forking
    def test_code_that_is_changed_in_place_is_seen(self, processes, module):
        """As IPython's autoreload does it: the file is another one, the module's spec is not."""
        text = """
            import functools
            def helper(): return {0!r}
            def show(): return {0!r} and helper()
            class Box:
                def show(self): return {0!r}
                @classmethod
                def make(cls): return {0!r}
                @property
                def value(self): return {0!r}
            @functools.lru_cache
            def cached(): return {0!r}
            """
        call = Parallel(**processes, batch_size=1)
        for name, (ask, function_of) in self.CHANGED.items():
            found = module(text.format("old"))
            assert call([delayed(ask(found))()] * 4) == ["old"] * 4, name
            module.write(text.format("newer"))
            new = types.ModuleType(found.__name__)
            exec(Path(found.__file__).read_text(), vars(new))
            function_of(found).__code__ = function_of(new).__code__
            if name == "a function":
                found.helper.__code__ = new.helper.__code__
            assert call([delayed(ask(found))()] * 4) == ["newer"] * 4, name

    @forking
    def test_functions_that_are_added_to_a_module_are_seen(self, processes, module):
        found = module("def show(): return 'old'")
        call = Parallel(**processes, batch_size=1)
        assert call([delayed(found.show)()] * 4) == ["old"] * 4
        text = "def added(): return 'added'"
        module.write(text)
        exec(compile(text, found.__file__, "exec"), vars(found))
        assert call([delayed(found.added)()] * 4) == ["added"] * 4

    def test_functions_of_test_modules_go_by_name(self, monkeypatch):
        """An import hook that rewrites code (pytest's, here) does not make them travel by value."""
        monkeypatch.undo()
        assert joblite._held_by.__module__ and Parallel(2)([delayed(assert_it)(1)]) == [1]

    def test_globals_that_tasks_change_start_anew_with_each_call(self):
        done = run_script("""
            import os
            from joblite import Parallel, delayed
            count, seen = 0, []
            def step():
                global count
                count += 1
                seen.append(count)
                return len(seen)
            for _ in range(2 if os.name == "posix" or __name__ == "__main__" else 0):
                found = Parallel(2, batch_size=4)(delayed(step)() for _ in range(4))
                print(max(found), count, seen)
            """)
        assert done.stdout == "4 0 []\n4 0 []\n"

    def test_uneven_tasks_are_spread(self, tmp_path):
        """A batch that was cut from quick tasks and turns out slow
        is shared with whoever is idle."""

        def nap(i):
            if i >= 2000:
                (tmp_path / str(os.getpid())).touch()
                if len(os.listdir(tmp_path)) < 2:
                    # a minute in all, for a machine that is busy
                    time.sleep(0.01 * 1.5 ** (i - 2000))

        Parallel(2)(delayed(nap)(i) for i in range(2020))
        assert len(os.listdir(tmp_path)) == 2, "both workers had some of the slow ones"

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_verbose_says_how_far_the_run_is(self, n_jobs, capfd):
        for verbose, lines in (0, [0]), (1, [0]), (2, range(1, 6)), (3, [5]), (50, [5]):
            Parallel(n_jobs, verbose=verbose, batch_size=1)(delayed(square)(i) for i in range(5))
            captured = capfd.readouterr()
            said = captured.err.splitlines()
            assert captured.out == "" and len(said) in lines, verbose
            assert all("tasks done in" in line for line in said)
            assert not said or "5" in said[-1]

    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_verbose_can_be_set_on_a_parallel_that_is_made_already(self, n_jobs, capfd):
        call = Parallel(n_jobs, batch_size=1)
        call.verbose = 3
        call(delayed(square)(i) for i in range(5))
        assert len(capfd.readouterr().err.splitlines()) == 5

    def test_print_progress_of_a_subclass_is_called(self, backend):
        seen = []

        class Shown(Parallel):
            def print_progress(self):
                seen.append((self.n_completed_tasks, self.n_dispatched_tasks, self.n_tasks))

        Shown(**backend)([delayed(square)(i) for i in range(20)])
        assert seen[-1] == (20, 20, 20) and [n for n, _, _ in seen] == sorted(n for n, _, _ in seen)

    def test_progress_counts_finished_tasks(self, backend):
        seen, sum_of = [], []

        class Bar:
            def update(self, n):
                sum_of.append(n)

            def __bool__(self):
                raise TypeError("as a tqdm bar without a total")

        Parallel(**backend, progress=lambda done, total: seen.append((done, total)))(
            [delayed(square)(i) for i in range(30)]
        )
        assert seen[-1] == (30, 30) and seen == sorted(seen)
        list(
            Parallel(**backend, progress=Bar(), return_as="generator")(
                delayed(square)(i) for i in range(30)
            )
        )
        assert sum(sum_of) == 30
        Parallel(**backend, progress=Bar())(delayed(square)(i) for i in range(30))
        assert sum(sum_of) == 60

    @pytest.mark.parametrize("bar", ["tqdm", "plain"])
    def test_progress_bar_is_on_stderr(self, bar, backend, capfd, monkeypatch):
        """Whether that is a terminal, a notebook's or a file;
        its line is ended however the run ends."""
        if bar == "tqdm":
            # no thread of its own
            monkeypatch.setattr(pytest.importorskip("tqdm").tqdm, "monitor_interval", 0)
        else:
            monkeypatch.setitem(sys.modules, "tqdm", None)
        parallel = Parallel(**backend, progress=True)
        assert parallel([delayed(square)(i) for i in range(5)]) == [0, 1, 4, 9, 16]
        captured = capfd.readouterr()
        assert captured.out == "" and ("5/5" if bar == "tqdm" else "5 of 5") in captured.err
        assert captured.err.endswith("\n")
        with pytest.raises(ValueError, match="no 3"):
            parallel([delayed(fail_on)(i, 3) for i in range(6)])
        lines = capfd.readouterr().err
        assert lines[-1:] == "\n" or (bar == "plain" and not lines)  # a line comes after a second
        results = Parallel(**backend, progress=True, return_as="generator")(
            [delayed(square)(i) for i in range(50)]
        )
        assert next(results) == 0
        results.close()
        lines = capfd.readouterr().err
        assert lines[-1:] == "\n" or (bar == "plain" and not lines)

    def test_a_call_inside_a_task_shows_no_bar(self, capfd):
        def inner():
            return Parallel(2, "threading", progress=True)([delayed(square)(i) for i in range(5)])

        assert Parallel(2)([delayed(inner)()]) == [[0, 1, 4, 9, 16]]
        assert capfd.readouterr().err == ""

    # what runs: (lines that tqdm leaves; the last line without tqdm, None: none is promised)
    BARS = {
        "Parallel(2, progress=True)(tasks)": (["5/5"], "5 of 5"),
        "Parallel(2, progress=True)(iter(tasks))": (["5it"], "5 tasks"),
        "with suppress(TypeError): Parallel(2, progress=True)([*tasks, 0])": ([r"\d/6"], None),
        "with suppress(TypeError): Parallel(1, progress=True)([*tasks, 0])": (["5/6"], None),
        "with closing(Parallel(2, progress=True, return_as='generator')(tasks)) as results:"
        " next(results)": ([r"\d/5"], None),
        "for _ in range(2): Parallel(2, progress=True)(tasks)": (["5/5", "5/5"], "5 of 5"),
        "Parallel(1, progress=True)(nested)": (["2/2"], "2 of 2"),
        "Parallel(2, progress=True)(nested)": (["2/2"], "2 of 2"),
        "Parallel(2, 'threading', progress=True)(nested)": (["2/2"], "2 of 2"),
        "Parallel(1)(nested)": ([], None),
    }

    @staticmethod
    def said_in_a_kernel(script, folder):
        from jupyter_client.manager import start_new_kernel

        manager, client = start_new_kernel(kernel_name="python3", cwd=folder)
        said = []
        try:
            done = client.execute_interactive(
                script,
                timeout=DEADLINE,
                output_hook=lambda message: said.append(message["content"].get("text", "")),
            )
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        assert done["content"]["status"] == "ok"
        return "".join(said)

    @staticmethod
    def said_on_a_terminal(script, folder):
        termios = pytest.importorskip("termios")
        ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        said = []

        def listen():
            with contextlib.suppress(OSError):  # when the other end is closed
                while text := os.read(ours, 10_000):
                    said.append(text)

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            subprocess.run(
                [sys.executable, "-c", script],
                stderr=theirs,
                cwd=folder,
                check=True,
                timeout=DEADLINE,
            )
        finally:
            os.close(theirs)
            listener.join()
            os.close(ours)
        return b"".join(said).decode().replace("\r\n", "\n")

    @pytest.mark.parametrize("bar", ["tqdm", "plain"])
    @pytest.mark.parametrize(
        "place",
        [
            pytest.param(said_in_a_kernel, id="kernel", marks=needs("ipykernel", "jupyter_client")),
            pytest.param(said_on_a_terminal, id="terminal"),
        ],
    )
    def test_progress_leaves_whole_lines_in_a_notebook_and_on_a_terminal(
        self, place, bar, tmp_path
    ):
        """However the run ends; of calls inside calls the outermost is shown."""
        if bar == "tqdm":
            pytest.importorskip("tqdm")
        shutil.copy(joblite.__file__, tmp_path / "joblite.py")
        start = f"""
            import sys
            from contextlib import closing, suppress
            from joblite import Parallel, delayed
            if {bar == "plain"}:
                sys.modules["tqdm"] = None
            tasks = [delayed(abs)(i) for i in range(5)]
            def inner(n_jobs):
                return Parallel(n_jobs, progress=True)(tasks)
            nested = [delayed(inner)(1), delayed(inner)(2)]
            """
        said = place(
            "\nsys.stderr.write('--\\n')\n".join([textwrap.dedent(start), *self.BARS]) + "\n",
            tmp_path,
        )
        assert said.endswith("\n") and "\x1b[A" not in said
        for part, (call, (left, last)) in zip(
            said.split("--\n")[1:], self.BARS.items(), strict=True
        ):
            lines = [line.rpartition("\r")[2] for line in part.split("\n")[:-1]]
            if bar == "tqdm":
                assert len(lines) == len(left) and all(map(re.search, left, lines)), (call, lines)
            else:
                assert all("tasks done in" in line for line in lines), call
                assert last is None or last in lines[-1], call

    @needs("ipykernel", "jupyter_client")
    def test_a_traceback_in_a_notebook_shows_the_line_of_the_cell_and_one_frame_of_joblite(
        self, tmp_path
    ):
        shutil.copy(joblite.__file__, tmp_path / "joblite.py")
        said = self.said_in_a_kernel(
            textwrap.dedent("""
            import traceback
            from joblite import Parallel, delayed
            def invert(x):
                return 1 / (x - 3)
            try:
                Parallel(2)(delayed(invert)(i) for i in range(5))
            except ZeroDivisionError:
                print(traceback.format_exc())
            """),
            tmp_path,
        )
        assert (
            "    return 1 / (x - 3)\n" in said
            and len(re.findall(r'File ".*joblite\.py"', said)) == 1
        ), said

    def test_replaced_print_progress_is_called(self, backend, monkeypatch):
        """As the recipes for bars replace it: on the class, or on one object."""
        seen = []
        on_object = Parallel(**backend)
        on_object.print_progress = lambda: seen.append(on_object.n_completed_tasks)
        on_object([delayed(square)(i) for i in range(30)])
        assert seen.pop() == 30
        original = Parallel.print_progress

        def show(self):
            seen.append(self.n_completed_tasks)
            original(self)

        monkeypatch.setattr(Parallel, "print_progress", show)
        Parallel(**backend)([delayed(square)(i) for i in range(30)])
        assert seen[-1] == 30

    def test_odd_numbers_are_taken_for_what_they_say(self, backend):
        for options in (
            {"timeout": math.inf},
            {"timeout": 1e10},
            {"batch_size": Index(2)},
        ):
            assert Parallel(**backend, **options)(delayed(square)(i) for i in range(5)) == [
                0,
                1,
                4,
                9,
                16,
            ], options

    @pytest.mark.parametrize("place", ["threads of a context", "a worker", "a worker thread"])
    def test_a_library_that_gives_options_of_processes_runs_where_there_are_none(self, place):
        def library(i):
            call = Parallel(2, initializer=len, initargs=("a",), inner_max_num_threads=1)
            return call(delayed(square)(i) for i in range(3))

        if place == "threads of a context":
            with parallel_config(backend="threading"):
                assert library(0) == [0, 1, 4]
        else:
            backend = "loky" if place == "a worker" else "threading"
            assert Parallel(2, backend)(delayed(library)(i) for i in range(2)) == [[0, 1, 4]] * 2

    def test_settings_can_be_read(self):
        call = Parallel(n_jobs=2, verbose=1, timeout=3, return_as="generator")
        assert (call.n_jobs, call.verbose, call.timeout, call.return_generator) == (2, 1, 3, True)
        assert repr(call) == "Parallel(n_jobs=2)"

    @pytest.mark.parametrize(
        "give", [lambda array: ((array,), {}), lambda array: ((), {"a": array})]
    )
    def test_refilled_array_keeps_its_values_at_submission(self, give):
        def tasks(array):
            for i in range(300):
                array[:] = i
                yield np.max, *give(array)

        for array in np.zeros(300_000), np.zeros(4):
            assert Parallel(n_jobs=2)(tasks(array)) == list(range(300))

    @pytest.mark.parametrize("batch_size", [1, 10])
    def test_a_big_array_is_let_go_while_the_run_goes_on(self, batch_size):
        held = []

        def tasks():
            array = np.zeros(300_000)
            held.append(weakref.ref(array))
            yield delayed(np.sum)(array)
            del array
            yield from (delayed(len)([i]) for i in range(30))  # none can go in one pickle with it
            yield from (delayed(abs)(i) for i in itertools.count())

        call = Parallel(n_jobs=2, return_as="generator", batch_size=batch_size)
        results = call(tasks())
        assert [next(results) for _ in range(31)] == [0, *[1] * 30]
        assert [next(results) for _ in range(100)] == list(range(100))
        gc.collect()
        assert held[0]() is None
        results.close()

    def test_an_initializer_that_is_empty_is_run(self):
        class Start(list):
            def __call__(self):
                os.environ["JOBLITE_STARTED"] = "yes"

        found = Parallel(n_jobs=2, initializer=Start())([delayed(os.getenv)("JOBLITE_STARTED")] * 2)
        assert found == ["yes"] * 2

    @posix
    def test_a_forked_child_makes_executors_of_its_own_also_before_the_first_call(self):
        run_script("""
            import os
            from concurrent.futures import ThreadPoolExecutor
            from joblite import Parallel, register_parallel_backend

            def make():
                made.append(os.getpid())
                return ThreadPoolExecutor(1)

            made = []
            register_parallel_backend("mine", make)
            Parallel(backend="mine")
            child = os.fork()
            if not child:
                Parallel(backend="mine")
                os._exit(made != [os.getppid(), os.getpid()])
            assert os.waitpid(child, 0)[1] == 0
            """)

    def test_a_small_change_between_tasks_is_seen_where_each_is_sent_by_itself(self):
        """Samples may miss it, and the tasks of a batch are read before it is packed."""

        def tasks():
            array = np.zeros(300_000)
            for i in range(10):
                array[17] = i
                yield delayed(np.max)(array)

        single = Parallel(n_jobs=2, max_nbytes=None, batch_size=1)
        assert single(tasks()) == list(range(10))

    def test_thread_executor_shares_memory(self):
        seen = []
        with ThreadPoolExecutor(2) as executor:
            Parallel(backend=executor, require="sharedmem")(
                delayed(seen.append)(i) for i in range(5)
            )
        assert sorted(seen) == [0, 1, 2, 3, 4]

    def test_broken_executor_is_an_error_that_names_tasks(self):
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
            text = (
                "the executor failed: BrokenProcessPool.*; "
                "with spawn a script needs if __name__ == '__main__':"
            )
            with pytest.raises(joblite.TerminatedWorkerError, match=text):
                Parallel(backend=executor, batch_size=1)([delayed(os._exit)(1)])


# ---- 8. Parallel: what bad luck gets ----


# a task that ends when `total` tasks are in it at the same time: those of calls that wait for each
# other never do. A text, so that it travels by value, and workers need not import this file
MEET = """
def meet(folder, name, total):
    import os, time
    open(os.path.join(folder, name), "w").close()
    end = time.monotonic() + 60
    while len(os.listdir(folder)) < total:
        if time.monotonic() > end:
            raise RuntimeError(f"{name} met only {os.listdir(folder)}")
        time.sleep(0.005)
    return name
"""
_space = {"__name__": "somewhere"}
exec(MEET, _space)
meet = _space["meet"]


def descriptors():
    """What this process has open, so that two moments can be compared."""
    return sorted(
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    )


class DiesWhenFlushed(io.StringIO):
    def flush(self):
        os.kill(os.getpid(), signal.SIGKILL)


def trap_result(_):
    return Trap("caller")


def lock_result(_):
    return threading.Lock()


FAULTS = {  # name: (a task that fails, its error, a word of the text)
    "raises": (delayed(fail_on)(1, 1), ValueError, "no 1"),
    "no memory": (delayed(operator.mul)([0], sys.maxsize), MemoryError, ""),
    "odd error": (
        delayed(raise_it)(functools.partial(TwoArguments, 1, 2)),
        TwoArguments,
        "1 and 2",
    ),
    "odder error": (
        delayed(raise_it)(functools.partial(KeywordOnly, code=3)),
        KeywordOnly,
        "code 3",
    ),
    "error with a lock": (
        delayed(raise_it)(functools.partial(HoldsLock, "locked")),
        HoldsLock,
        "locked",
    ),
}
BORDER_FAULTS = {
    "argument": (
        delayed(square)(threading.Lock()),
        pickle.PicklingError,
        r"args\[0\] cannot be pickled",
    ),
    "function": (delayed(HoldsLock("").lock.acquire)(), pickle.PicklingError, "function"),
    "result": (delayed(lock_result)(0), pickle.PicklingError, "the result"),
    "result here": (delayed(trap_result)(0), RuntimeError, "could not be unpickled here"),
}
TERMINATED = joblite.TerminatedWorkerError
PROCESS_FAULTS = {
    "argument there": (delayed(square)(Trap("worker")), ValueError, "trapped"),
    "SIGKILL": (
        delayed(die_on)(1, 1, lambda: os.kill(os.getpid(), signal.SIGKILL)),
        TERMINATED,
        "SIGKILL",
    ),
    "segfault": (
        delayed(die_on)(1, 1, lambda: os.kill(os.getpid(), signal.SIGSEGV)),
        TERMINATED,
        "SIGSEGV",
    ),
    "abort": (delayed(die_on)(1, 1, os.abort), TERMINATED, "SIGABRT"),
    "os._exit": (delayed(die_on)(1, 1, lambda: os._exit(3)), TERMINATED, "exit code 3"),
}


@posix
@pytest.mark.usefixtures("by_value")
class TestSection8Faults:
    def test_a_fault_fails_its_task_only(self, backend):
        """On every backend: first with cold workers, then with warm ones."""
        kinds = FAULTS | (
            BORDER_FAULTS if "backend" in backend and backend["backend"] != "threading" else {}
        )
        kinds |= PROCESS_FAULTS if backend.get("backend") == "loky" else {}
        tasks = [
            task
            for fault, _, _ in kinds.values()
            for task in (delayed(abs)(-1), delayed(abs)(-2), fault)
        ]
        for _ in ("cold", "warm"):
            results = Parallel(**backend, on_error="return", batch_size=len(tasks))(tasks)
            assert results[0::3] + results[1::3] == [1] * len(kinds) + [2] * len(kinds)
            for number, (name, (_, kind, text)) in zip(range(2, len(tasks), 3), kinds.items()):
                error = results[number]
                assert isinstance(error, kind) and re.search(text, str(error)), (name, error)
                assert kind is not TERMINATED or f"task {number} " in str(error)

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="tells what is open")
    @pytest.mark.parametrize(
        "options, task", [({}, (os._exit, (1,), {})), ({"timeout": 0.01}, (time.sleep, (60,), {}))]
    )
    def test_what_an_ended_worker_held_waits_for_no_garbage_collection(self, options, task):
        def pages():
            return sum("joblite-" in name for name in descriptors())

        gc.disable()
        # of idle workers; a file that the tests print to may have such a name, too
        before = pages()
        try:
            for _ in range(6):
                with pytest.raises((joblite.TerminatedWorkerError, TimeoutError)):
                    Parallel(2, **options)([task])
            assert pages() <= before
        finally:
            gc.enable()

    def test_a_worker_that_dies_between_tasks_costs_no_task(self):
        """What was delivered is not run again, what was not started is."""

        def work_long(name):
            # so that it is delivered before the next one begins
            end = time.monotonic() + 3 * joblite.CHECKPOINT_S
            while time.monotonic() < end:
                pass
            sys.stdout = DiesWhenFlushed()
            return name

        assert Parallel(2, batch_size=3)(
            [delayed(work_long)("a"), delayed(abs)(-1), delayed(abs)(-2)]
        ) == ["a", 1, 2]

    @pytest.mark.parametrize("batch_size", [1, 2])
    def test_a_worker_that_dies_after_its_last_task_costs_no_task(self, batch_size):
        home = os.getpid()

        class DiesWhenDropped:
            def __del__(self):
                if os.getpid() != home:
                    os.kill(os.getpid(), signal.SIGKILL)

        def work_long(_):
            time.sleep(3 * joblite.CHECKPOINT_S)  # so that it is delivered at once
            return "a"

        tasks = [delayed(abs)(-1), delayed(work_long)(DiesWhenDropped())]
        assert Parallel(2, batch_size=batch_size)(tasks) == [1, "a"]

    def test_a_worker_that_is_killed_as_it_sends_costs_no_task(self, tmp_path):
        """A part is delivered, and the next message cut in two; both are read at once,
        as the caller was elsewhere."""
        sign = tmp_path / "sign"

        def work_long():
            end = time.monotonic() + 3 * joblite.CHECKPOINT_S
            while time.monotonic() < end:
                pass
            return "a"

        def send_much():
            sign.write_text(str(os.getpid()))
            return bytes(10**7)

        def tasks():
            yield delayed(work_long)()
            yield delayed(send_much)()
            pid = wait_until(lambda: sign.exists() and sign.read_text(), "the second task")
            wait_until(
                lambda: ") S " in Path(f"/proc/{pid}/stat").read_text(),
                "the worker to wait for its reader",
            )
            os.kill(int(pid), signal.SIGKILL)

        assert Parallel(2, batch_size=2)(tasks()) == ["a", bytes(10**7)]

    def test_workers_forget_functions(self, monkeypatch):
        monkeypatch.setattr(joblite._Context, "MOST_FUNCTIONS", 10)

        def count():
            import gc
            import types

            return sum(
                isinstance(value, types.FunctionType)
                and value.__code__.co_names == ("forgettable",)
                for value in gc.get_objects()
            )

        lambdas = [delayed(lambda x: x and x.forgettable)(0) for _ in range(40)]
        *_, first, second = Parallel(2, batch_size=1)(
            [*lambdas, delayed(count)(), delayed(count)()]
        )
        assert 0 < max(first, second) <= 12
        assert max(Parallel(2, batch_size=1)([delayed(count)()] * 4)) == 0, (
            "those of a run that is over"
        )

    def test_an_initializer_that_ends_its_worker_is_an_error(self, processes):
        with pytest.raises(joblite.TerminatedWorkerError, match="exit code 5"):
            Parallel(**processes, initializer=os._exit, initargs=(5,))([delayed(abs)(-1)])

    def test_ever_new_initializers_do_not_gather_workers(self):
        before = child_processes()
        for i in range(8):
            assert Parallel(2, initializer=abs, initargs=(i,))([delayed(abs)(-1)] * 4) == [1] * 4
        wait_until(
            lambda: len(child_processes() - before) <= 1 + 2 * joblite._MOST_KINDS,
            "the end of other workers",
        )

    def test_death_is_noticed_while_a_grandchild_lives_on(self, processes):
        def fork_and_die():
            if os.fork() == 0:
                threading.Event().wait(600)
            os.kill(os.getpid(), signal.SIGKILL)

        for _ in ("cold", "warm"):
            with pytest.raises(joblite.TerminatedWorkerError, match="SIGKILL"):
                Parallel(**processes)([delayed(fork_and_die)()])

    def test_a_forked_child_of_a_task_does_not_answer_for_it(self, processes):
        def fork_and_go_on():
            return "child" if os.fork() == 0 else "parent"

        assert Parallel(**processes)([delayed(fork_and_go_on)()] * 6) == ["parent"] * 6

    @pytest.mark.skipif(
        sys.platform != "linux", reason="looks into /proc and sets limits of another process"
    )
    @pytest.mark.parametrize("room", [0, 2])
    def test_a_fork_server_without_room_for_descriptors_refuses_and_lives(self, room):
        """`room`: how many more it may open; a worker takes two and then two for its life line."""
        import resource

        Parallel(n_jobs=2)([delayed(abs)(-1)] * 2)
        pid = joblite._starters[0].pid
        taken = set(map(int, os.listdir(f"/proc/{pid}/fd")))
        free = [number for number in range(1000) if number not in taken]
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[room], 1000))
        with pytest.raises(joblite.TerminatedWorkerError, match="could not be started"):
            Parallel(n_jobs=2, idle_worker_timeout=77)([delayed(abs)(-1)] * 2)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1000, 1000))
        assert Parallel(n_jobs=2, idle_worker_timeout=77)([delayed(abs)(-1)] * 2) == [1, 1]
        assert joblite._starters[0].pid == pid and limits[1] >= 1000

    def test_a_caller_with_thousands_of_open_files_has_workers(self):
        """`select` takes no descriptor above 1023."""
        done = run_script("""
            import os, resource
            from joblite import Parallel, delayed
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 2000), most))
            taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
            print(Parallel(2)(delayed(abs)(-i) for i in range(3)))
            """)
        assert done.stdout == "[0, 1, 2]\n"

    @forking
    def test_a_default_timeout_of_the_programs_sockets_is_none_of_its_tasks(self):
        done = run_script("""
            import socket, time
            socket.setdefaulttimeout(0.1)
            from joblite import Parallel, delayed
            print(Parallel(2)(delayed(time.sleep)(0.3) for _ in range(3)))
            """)
        assert done.stdout == "[None, None, None]\n"

    def test_workers_start_where_no_proc_is_mounted(self):
        code = """
            from joblite import Parallel, delayed
            print(Parallel(2)(delayed(abs)(-i) for i in range(3)))
            """
        done = run_script(
            code, **elsewhere("sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh")
        )
        assert (done.stdout, done.stderr) == ("[0, 1, 2]\n", "")

    def test_ctrl_c_amid_a_big_answer_is_a_keyboard_interrupt(self):
        """At eight moments while results of 20 MB come in over the sockets."""
        done = run_script("""
            import functools, signal, time
            from joblite import Parallel, delayed
            big = functools.lru_cache(lambda: (10**9).to_bytes(4, "little") * 5_000_000)
            def answer(_):
                return big()
            def run():
                begun = time.perf_counter()
                answers = Parallel(n_jobs=2, max_nbytes=None)(delayed(answer)(i) for i in range(2))
                assert sum(map(len, answers)) == 40_000_000
                return time.perf_counter() - begun
            run()
            seconds, interrupted = run(), 0
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            for part in range(1, 9):
                try:
                    signal.setitimer(signal.ITIMER_REAL, seconds * part / 9)
                    seconds = min(seconds, run())
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            run()
            print(interrupted > 0)
            """)
        assert done.stdout == "True\n"

    def test_ctrl_c_as_a_batch_comes_back_waits_for_it_no_more(self, processes, monkeypatch):
        """The caller has taken it, and does not know."""

        def interrupt(frame, event, batch):
            if event == "return" and frame.f_code is joblite._Pool.take.__code__ and batch:
                raise KeyboardInterrupt

        monkeypatch.setattr(joblite, "GRACE_S", 5)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            sys.setprofile(interrupt)  # ends with the first error
            try:
                Parallel(**processes)([delayed(abs)(-1)])
            finally:
                sys.setprofile(None)
        assert time.monotonic() - begun < 4 * joblite.GRACE_S

    def test_ctrl_c_as_a_dropped_generator_ends_is_a_keyboard_interrupt(self, tmp_path):
        """Also amid a finalizer, where Python itself prints it and goes on."""
        done = run_script(
            """
            import joblite, os, signal, sys, threading, time
            from joblite import Parallel, delayed
            joblite.GRACE_S = 60  # however slow the task is to send its signal
            def hang(caller):
                try:
                    os.mkdir(sys.argv[1] + "/begun")
                    threading.Event().wait(600)
                except KeyboardInterrupt:  # the run ends
                    os.kill(caller, signal.SIGINT)
                    threading.Event().wait(600)
            tasks = [delayed(abs)(-1), delayed(hang)(os.getpid())]
            results = Parallel(2, return_as="generator")(tasks)
            print(next(results))
            while not os.path.exists(sys.argv[1] + "/begun"):
                time.sleep(0.005)
            try:
                del results
                threading.Event().wait(30)
            except KeyboardInterrupt:
                print("interrupted")
            """,
            tmp_path,
        )
        assert (done.stdout, done.stderr) == ("1\ninterrupted\n", "")

    def test_closing_a_generator_that_a_forked_child_holds_too_ends_its_tasks(
        self, tmp_path, patience
    ):
        def hang(i):
            if i:
                try:
                    (tmp_path / f"{i}").mkdir()
                    threading.Event().wait(600)
                finally:
                    (tmp_path / f"{i}").rmdir()

        results = Parallel(n_jobs=2, return_as="generator")(delayed(hang)(i) for i in range(3))
        next(results)
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "two tasks at work")
        inner, outer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(outer)
            os.read(inner, 1)
            os._exit(0)
        try:
            results.close()
            assert not list(tmp_path.iterdir())
        finally:
            os.close(outer), os.close(inner), os.waitpid(pid, 0)

    @posix
    @pytest.mark.parametrize("end", ["the run ends", "its time is up"])
    def test_an_interrupt_that_a_task_does_not_see_comes_again(
        self, end, processes, tmp_path, patience
    ):
        """As one does that comes in the moment in which Python begins to wait for a lock."""

        def hang(path):
            seen = signal.signal(signal.SIGINT, lambda *_: signal.signal(signal.SIGINT, seen))
            try:
                (path / "begun").touch()
                threading.Event().wait(600)
            finally:
                (path / "ended").touch()

        def tasks():
            yield delayed(hang)(tmp_path)
            wait_for_file(tmp_path / "begun")
            if end == "the run ends":
                raise KeyError("source is gone")

        with pytest.raises((KeyError, TimeoutError)):
            Parallel(**processes, timeout=None if end == "the run ends" else 1)(tasks())
        assert {path.name for path in tmp_path.iterdir()} in ({"begun", "ended"}, set())

    def test_error_of_the_iterator_ends_running_tasks(self, processes, tmp_path, patience):
        def tasks(folder):
            yield delayed(hang_in)(folder)
            wait_for_file(folder)
            raise KeyError("source is gone")

        for state in ("cold", "warm"):
            with pytest.raises(KeyError, match="source is gone"):
                Parallel(**processes)(tasks(tmp_path / state))
            wait_until(lambda: not list(tmp_path.iterdir()), "the end of the task")

    @pytest.mark.parametrize("backend", ["sequential", "threading", "loky", "executor"])
    def test_an_open_generator_makes_no_noise_at_exit(self, backend):
        done = run_script(
            f"""
            from joblite import Parallel, delayed
            from concurrent.futures import ProcessPoolExecutor
            import multiprocessing
            if __name__ == "__main__":
                kind = {backend!r}
                options = {{"backend": kind}}
                if kind == "executor":
                    pool = ProcessPoolExecutor(2, multiprocessing.get_context("forkserver"))
                    options = {{"backend": pool}}
                parallel = Parallel(2, return_as="generator", **options)
                results = parallel(delayed(abs)(i) for i in range(100))
                print(next(results))
            """,
            flags=["-X", "dev"],
        )
        assert (done.stdout, done.stderr) == ("0\n", "")

    def test_a_run_that_ends_as_its_workers_start_makes_no_noise(self):
        done = run_script("""
            from joblite import Parallel, delayed, shutdown_workers
            import time
            def fail(seconds):  # while the other worker starts
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    pass
                raise ValueError
            for i in range(8):
                Parallel(2)([delayed(abs)(-1)])  # one warm worker
                try:
                    Parallel(2)([delayed(fail)(i * 0.01), delayed(abs)(-1)])
                except ValueError:
                    pass
                shutdown_workers()
            """)
        assert done.stderr == ""

    def test_what_is_queued_at_exit_is_not_begun(self, tmp_path):
        """A call by a later exit handler is."""
        done = run_script(
            """
            import atexit, os, sys, threading
            @atexit.register
            def last():
                print(Parallel(2)([delayed(abs)(-1)] * 9), len(os.listdir(sys.argv[1])))
            from joblite import Parallel, delayed
            def hang(path):
                os.mkdir(path)
                threading.Event().wait(600)
            tasks = [delayed(hang)(f"{sys.argv[1]}/{i}") for i in range(20)]
            results = Parallel(2, return_as="generator", pre_dispatch=8)(tasks)
            while len(os.listdir(sys.argv[1])) < 2:
                pass
            """,
            tmp_path,
        )
        assert (done.stdout, done.stderr) == (f"{[1] * 9} 2\n", "")

    def test_a_call_in_a_daemon_thread_makes_no_noise_at_exit(self):
        done = run_script(
            """
            import os, threading, time
            from joblite import Parallel, delayed
            read, write = os.pipe()
            def tasks():
                yield delayed(time.sleep)(0)
                os.write(write, b"!")  # the first task is with a worker
                yield delayed(time.sleep)(600)
            for options in ({}, {"backend": "threading"}):
                call = lambda: Parallel(2, **options)(tasks())
                threading.Thread(target=call, daemon=True).start()
                os.read(read, 1)
            print("end")
            """,
            flags=["-X", "dev"],
        )
        assert (done.stdout, done.stderr) == ("end\n", "")

    # the fork server or its workers are just starting
    @pytest.mark.parametrize("moment", [0.02, 0.05, 0.1])
    def test_a_worker_that_starts_as_the_interpreter_ends_does_not_run_its_task(self, moment):
        done = run_script(f"""
            import threading, time
            from joblite import Parallel, delayed
            def call():
                Parallel(2)([delayed(time.sleep)({DEADLINE * 4})] * 2)
            for _ in range(2):
                threading.Thread(target=call, daemon=True).start()
            time.sleep({moment})
            """)  # a worker that lives holds our standard output
        assert (done.stdout, done.stderr) == ("", "")

    @pytest.mark.parametrize("backend", ["loky", "threading"])
    def test_a_daemon_thread_can_close_its_generator_as_the_interpreter_ends(self, backend):
        done = run_script(
            f"""
            import atexit, threading
            from joblite import Parallel, delayed
            ready, end = threading.Event(), threading.Event()
            def read():
                Parallel(2)([delayed(abs)(-1)] * 2)
                parallel = Parallel(2, {backend!r}, return_as="generator")
                results = parallel(delayed(abs)(i) for i in range(100))
                print(next(results))
                ready.set(), end.wait()
                results.close()
                print("closed")
            # before joblite's own: runs after it
            atexit.register(lambda: (end.set(), thread.join()))
            thread = threading.Thread(target=read, daemon=True)
            thread.start()
            ready.wait()
            """,
            flags=["-X", "dev"],
        )
        assert (done.stdout, done.stderr) == ("0\nclosed\n", "")

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_closed_standard_streams_do_not_stop_the_work(self, closed):
        code = textwrap.dedent("""
            import os
            from joblite import Parallel, delayed
            for options in ({}, {"return_as": "generator"}, {"verbose": 10}):
                results = Parallel(2, **options)(delayed(print)(i) for i in range(3))
                assert list(results) == [None] * 3
            os._exit(7)
            """)
        command = f'exec "$0" -c "$1" {closed}'
        done = subprocess.run(
            ["sh", "-c", command, sys.executable, code],
            env=script_env(),
            timeout=DEADLINE,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 7, done.stderr

    def test_threads_and_busy_blas_in_the_caller_do_no_harm(self):
        stop, matrix = threading.Event(), np.ones((300, 300))

        def churn():
            while not stop.is_set():
                np.dot(matrix, matrix)
                with tempfile.TemporaryFile():
                    pass

        threads = [threading.Thread(target=churn) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in ("cold", "warm"):
                assert (
                    Parallel(2)(delayed(np.trace)(np.dot(matrix, matrix)) for _ in range(4))
                    == [90_000.0] * 4
                )
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def test_signals_that_the_calling_thread_blocks_still_reach_tasks(
        self, processes, tmp_path, patience
    ):
        def call():
            signal.pthread_sigmask(
                signal.SIG_BLOCK, {signal.SIGINT, signal.SIGCHLD, signal.SIGTERM}
            )
            Parallel(**processes, timeout=0.5, on_error="skip")([delayed(hang_and_tidy)(tmp_path)])

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert (tmp_path / "tidied").exists()

    def test_a_global_crosses_once_a_call(self):
        done = run_script("""
            from joblite import Parallel, delayed
            class Big:
                packed = 0
                def __getstate__(self):
                    Big.packed += 1
                    return {"content": bytes(100_000)}
            big = Big()
            def f(i):
                return len(big.content) + i
            for _ in range(2):
                found = Parallel(2, batch_size=1)(delayed(f)(i) for i in range(40))
                assert found == [100_000 + i for i in range(40)]
                print(Big.packed)
            """)
        assert done.stdout == "1\n2\n"

    @pytest.mark.parametrize("return_as", ["list", "generator"])
    def test_no_descriptor_left_is_an_error_and_then_all_is_well(self, processes, return_as):
        import resource

        limits, taken = resource.getrlimit(resource.RLIMIT_NOFILE), []
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(open(os.devnull))
            for file in taken[-10:]:  # enough for a worker or two, but not for eight
                file.close()
            with pytest.raises(OSError, match="Too many open files"):
                list(
                    Parallel(**{**processes, "n_jobs": 8}, return_as=return_as)(
                        [delayed(abs)(-1)] * 50
                    )
                )
        finally:
            for file in taken:
                file.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert Parallel(**processes)([delayed(abs)(-1)] * 3) == [1] * 3

    def test_calls_that_find_no_descriptor_keep_none(self):
        done = run_script(
            """
            import gc, os, resource, time
            from joblite import Parallel, TerminatedWorkerError, delayed, shutdown_workers
            def count():
                shutdown_workers()
                gc.collect()
                return len(os.listdir("/dev/fd"))
            Parallel(2)([delayed(abs)(-1)] * 2)
            before, (soft, hard) = count(), resource.getrlimit(resource.RLIMIT_NOFILE)
            for more in range(12):
                resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + more, hard))
                try:
                    Parallel(3)([delayed(abs)(-1)] * 6)
                except (OSError, TerminatedWorkerError):
                    pass
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            end = time.monotonic() + 60
            while count() > before and time.monotonic() < end:
                pass
            print(count() - before)
            """,
            flags=["-X", "dev"],
        )
        assert (done.stdout, done.stderr) == ("0\n", "")

    def test_ctrl_c_as_a_thread_is_started_leaves_nothing(
        self, monkeypatch, processes, tmp_path, patience
    ):
        """Before it has begun, or just after. (The system's call is replaced,
        to hit the moment.)"""

        def start_then_interrupt(thread):
            start(thread)
            if threading.current_thread() is threading.main_thread():
                wait_until(lambda: seen or list(tmp_path.iterdir()), "the task")
                seen.append(thread)  # the next one may have ended it at once
                raise KeyboardInterrupt

        def interrupt(_):
            raise KeyboardInterrupt

        def nested(depth):
            calls = [delayed(nested)(depth - 1)] * 2 if depth else []
            return Parallel(2, backend="threading", batch_size=1)(calls)

        start, seen = threading.Thread.start, []
        # where no task begins, none needs patience: the caller waits in vain for what it would give
        for when, grace in ((start_then_interrupt, joblite.GRACE_S), (interrupt, 0.1)):
            joblite.shutdown_workers()
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", when)
                patch.setattr(joblite, "GRACE_S", grace)
                with pytest.raises(KeyboardInterrupt):
                    Parallel(**processes)([delayed(hang_in)(tmp_path / "task")])
            wait_until(lambda: not list(tmp_path.iterdir()), "the end of the task")
            assert nested(2) == [[[], []], [[], []]]

    def test_many_calls_leave_no_descriptor_and_no_thread(self, processes, tmp_path):
        def calls(count):
            for i in range(count):
                assert Parallel(**processes)([delayed(abs)(-i)] * 3) == [i] * 3
                results = Parallel(**processes, return_as="generator")([delayed(abs)(-i)] * 30)
                assert next(results) == i
                del results
                with pytest.raises(ValueError):
                    Parallel(**processes)([delayed(fail_on)(i, i)] * 3)

            # how many idle workers are kept depends on who was interrupted
            joblite.shutdown_workers()

        calls(2)
        before, threads = descriptors(), threading.active_count()
        calls(4)
        wait_until(
            lambda: (len(descriptors()), threading.active_count()) <= (len(before), threads),
            "the end of all",
        )

    def test_where_no_thread_is_to_be_had_tasks_run_in_place(self, monkeypatch):
        """As in a browser's Python. (Here the system's call is replaced:
        nothing else forbids threads.)"""

        def refuse(*_, **__):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        for return_as in ("list", "generator"):
            results = Parallel(2, backend="threading", return_as=return_as)(
                delayed(square)(i) for i in range(50)
            )
            assert list(results) == [i * i for i in range(50)]

    @pytest.mark.parametrize("seed", range(4))
    def test_a_signal_at_any_moment_leaves_nothing(self, seed, tmp_path):
        """The caller gets SIGINT, SIGTERM or SIGKILL after some number of steps of its tasks.
        All its processes hold the pipe that they write the steps to: the pipe ends when the
        last process has."""
        code = """
            import itertools, os
            from joblite import Parallel, delayed
            step = lambda i: os.write(1, b".") and os.getpid()
            os.write(1, b".")
            for kind in itertools.cycle(({}, {"return_as": "generator"}, {"batch_size": 1})):
                list(Parallel(2, **kind)(delayed(step)(i) for i in range(30)))
            """
        rng = random.Random(seed)
        (tmp_path / "script.py").write_text(textwrap.dedent(code))
        (tmp_path / "temp").mkdir()
        plans = [
            (sig, rng.choice((1, 2, 5, rng.randrange(400))))
            for sig in (
                signal.SIGINT,
                signal.SIGTERM,
                signal.SIGKILL,
                signal.SIGINT,
                signal.SIGKILL,
            )
        ]
        callers = [
            subprocess.Popen(
                [sys.executable, str(tmp_path / "script.py")],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=script_env({"TMPDIR": str(tmp_path / "temp")}),
            )
            for _ in plans
        ]
        for caller, (sig, steps) in zip(callers, plans):
            caller.stdout.read(steps)
            caller.send_signal(sig)
        for caller, (sig, _) in zip(callers, plans):
            caller.communicate(timeout=DEADLINE)
            assert caller.returncode == -sig
        run_script(
            "from joblite import *; Parallel(2)([delayed(abs)(1)])",
            env={"TMPDIR": str(tmp_path / "temp")},
        )
        assert not list((tmp_path / "temp").iterdir()), "files stay"


@posix
@pytest.mark.usefixtures("by_value")
class TestSection8ManyCallers:
    def test_callers_of_every_kind_work_at_the_same_time(self, processes, tmp_path):
        """Threads, daemon threads, executors, coroutines, generators; different n_jobs:
        their tasks meet."""
        results = {}

        def call(name, n_jobs, options=processes):
            tasks = (delayed(meet)(str(tmp_path), f"{name}{i}", 13) for i in range(n_jobs))
            results[name] = list(Parallel(**{**options, "n_jobs": n_jobs})(tasks))

        async def call_from_coroutine():
            await asyncio.gather(
                asyncio.to_thread(call, "one", 2), asyncio.to_thread(call, "another", 2)
            )

        threads = [
            threading.Thread(target=call, args=("thread", 3)),
            threading.Thread(target=call, args=("daemon", 2), daemon=True),
            threading.Thread(target=asyncio.run, args=(call_from_coroutine(),)),
            threading.Thread(target=call, args=("threads", 2, {"backend": "threading"})),
        ]
        with ThreadPoolExecutor(1) as executor:
            executor.submit(call, "generator", 2, {**processes, "return_as": "generator"})
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join()
        expected = {"thread": 3, "daemon": 2, "one": 2, "another": 2, "threads": 2, "generator": 2}
        assert results == {
            name: [f"{name}{i}" for i in range(count)] for name, count in expected.items()
        }

    def test_threads_that_call_first_do_so_at_once(self, tmp_path):
        """One is held up as it gets ready: the tasks of the other, if it may begin, live on."""
        run_script(
            """
            import atexit, os, sys, threading, time
            from joblite import Parallel, delayed

            def wait_for(path):
                while not os.path.exists(path):
                    time.sleep(0.005)

            register, held, begun = atexit.register, threading.Event(), threading.Event()
            waited = []

            def hold_the_other(*args):
                if threading.current_thread() is other and not held.is_set():
                    held.set()
                    waited.append(begun.wait(60))
                return register(*args)

            atexit.register = hold_the_other
            other = threading.Thread(target=Parallel(2), args=([delayed(abs)(-1)],))
            other.start()
            assert held.wait(60)
            go = sys.argv[1]
            results = Parallel(2, return_as="generator")([delayed(abs)(-1), delayed(wait_for)(go)])
            next(results)
            begun.set()
            other.join()
            assert waited == [True]
            open(go, "x").close()
            assert list(results) == [None]
            """,
            tmp_path / "go",
        )

    def test_callers_do_not_notice_each_others_faults(self, backend, tmp_path):
        """One fails, one drops its generator, one is timed out, others count on:
        all in the same moment."""
        results, gate, stop = {}, threading.Barrier(5), threading.Event()
        stuck = {"loky": time.sleep, "threading": stop.wait}.get(str(backend.get("backend")))

        def good(name, n_jobs):
            for _ in range(3):
                call = Parallel(**{**backend, "n_jobs": min(n_jobs, 99 * backend["n_jobs"] - 98)})
                results[name] = call(delayed(pow)(i, 2) for i in range(200))

        def fails():
            results["fails"] = Parallel(**backend, on_error="return")(
                delayed(divmod)(1, 7 - i) for i in range(30)
            )

        def drops():
            results["drops"] = next(
                Parallel(**backend, return_as="generator")([delayed(abs)(-5)] * 100)
            )

        def is_late():
            if stuck:
                results["late"] = Parallel(**backend, timeout=1, on_error="return")(
                    [delayed(stuck)(600), delayed(abs)(-1)]
                )

        def at_once(work, *args):
            gate.wait(DEADLINE)
            work(*args)

        calls = [(good, "two", 2), (good, "three", 3), (fails,), (drops,), (is_late,)]
        threads = [threading.Thread(target=at_once, args=args) for args in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        assert (
            results["two"] == results["three"] == [i * i for i in range(200)]
            and results["drops"] == 5
        )
        assert [
            i for i, value in enumerate(results["fails"]) if isinstance(value, ZeroDivisionError)
        ] == [7]
        assert not stuck or isinstance(results["late"][0], TimeoutError) and results["late"][1] == 1

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_is_told_of_no_process_of_its_parent(self):
        done = run_script(
            """
            import os
            from joblite import Parallel, delayed
            Parallel(2)([delayed(abs)(-1)] * 2)
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
            """,
            flags=("-W", "default::ResourceWarning"),
        )
        assert done.stderr == ""

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_a_child_of_multiprocessing_has_its_own_pool(self, method, tmp_path):
        """Also a daemonic one, which may have no children by multiprocessing's own means;
        parent and child meet."""
        done = run_script(
            MEET
            + """
import multiprocessing, os, sys
from joblite import Parallel, delayed
def call(name, folder):
    expected = [name + str(i) for i in range(2)]
    assert Parallel(2)(delayed(meet)(folder, text, 4) for text in expected) == expected
if __name__ == "__main__":
    assert Parallel(2)([delayed(abs)(-1)] * 2) == [1, 1]
    context = multiprocessing.get_context(sys.argv[2])
    child = context.Process(target=call, args=("child", sys.argv[1]), daemon=True)
    child.start()
    call("parent", sys.argv[1])
    child.join()
    print(child.exitcode)
""",
            tmp_path,
            method,
        )
        assert (done.stdout, done.stderr) == ("0\n", "")

    def test_forked_servers_each_have_their_own_pool(self, tmp_path):
        """The parent uses its pool, then forks servers, as gunicorn does;
        one is killed in the midst of its call."""
        done = run_script(
            MEET
            + """
import os, signal, sys, time
from joblite import Parallel, delayed
folder, pids = sys.argv[1], {}
def call(name, total):
    expected = [f"{name}{i}" for i in range(2)]
    return Parallel(2)(delayed(meet)(folder, text, total) for text in expected) == expected
assert Parallel(2)([delayed(abs)(-1)] * 4) == [1] * 4
for name, total in ("one", 8), ("two", 8), ("killed", 99):
    pids[name] = os.fork()
    if pids[name] == 0:
        try:
            os._exit(0 if call(name, total) else 1)
        finally:
            os._exit(2)
while len(os.listdir(folder)) < 6:
    time.sleep(0.005)
os.kill(pids["killed"], signal.SIGKILL)
print(call("parent", 8), [os.waitpid(pid, 0)[1] for pid in pids.values()])
""",
            tmp_path,
        )
        assert (done.stdout, done.stderr) == ("True [0, 0, 9]\n", "")

    @pytest.mark.parametrize("kind", ["loky", "threading"])
    def test_a_fork_after_a_call_is_none_beside_threads(self, kind):
        """Python warns of one that is."""
        done = run_script(f"""
            import os, threading
            from joblite import Parallel, delayed
            assert Parallel(2, "{kind}")([delayed(abs)(-1)] * 4) == [1] * 4
            pid = os.fork()
            if pid == 0:
                threads = threading.active_count()
                print(threads, Parallel(2, "{kind}")([delayed(abs)(-1)] * 4), flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            print(threading.active_count(), Parallel(2, "{kind}")([delayed(abs)(-1)] * 4))
            """)
        assert (done.stdout, done.stderr) == ("1 [1, 1, 1, 1]\n" * 2, "")

    def test_a_fork_in_the_midst_of_calls_does_no_harm(self, processes, tmp_path):
        """Another thread's call is running, a generator is open:
        the child has its own pool and hands off both."""
        results = {}

        def call():
            results["call"] = Parallel(**processes)(
                delayed(meet)(str(tmp_path), f"{i}", 3) for i in range(2)
            )

        thread = threading.Thread(target=call)
        thread.start()
        generator = Parallel(**processes, return_as="generator")(
            delayed(pow)(i, 2) for i in range(20_000)
        )
        assert next(generator) == 0
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with pytest.raises(RuntimeError, match="parent process"):
                    list(generator)
                del generator
                code = (
                    0
                    if Parallel(**processes)(delayed(pow)(i, 2) for i in range(3)) == [0, 1, 4]
                    else 2
                )
                joblite.shutdown_workers()
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        (tmp_path / "go").touch()
        thread.join()
        assert list(generator) == [i * i for i in range(1, 20_000)] and results["call"] == [
            "0",
            "1",
        ]

    def test_a_forked_child_has_its_own_threads(self):
        done = run_script("""
            import os
            from joblite import Parallel, delayed
            def call():
                return Parallel(2, backend="threading")(delayed(pow)(i, 2) for i in range(5))
            call()
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
            print(call(), flush=True)
            os._exit(0)
            """)
        assert done.stdout == "[0, 1, 4, 9, 16]\n" * 2

    def test_a_dropped_cycle_with_a_generator_is_collected_anywhere(self, processes):
        """The garbage collector may end a run in any thread, at any moment,
        also in one of joblite's own."""
        for _ in range(5):

            class Cycle:
                pass

            cycle = Cycle()
            cycle.me, cycle.results = (
                cycle,
                Parallel(**processes, return_as="generator")(
                    delayed(pow)(i, 2) for i in range(200)
                ),
            )
            assert next(cycle.results) == 0
            del cycle
            thread = threading.Thread(target=gc.collect)
            thread.start()
            assert Parallel(**processes)(delayed(pow)(i, 2) for i in range(3)) == [0, 1, 4]
            thread.join()

    @pytest.mark.skipif(
        importlib.util.find_spec("_interpreters") is None, reason="needs Python 3.13's interpreters"
    )
    def test_a_subinterpreter_can_call_too(self):
        done = run_script("""
            import _interpreters as interpreters
            number = interpreters.create()
            error = interpreters.exec(number, '''if True:
                from joblite import Parallel, delayed
                for options in ((1,), (2, "threading"), (2,)):
                    print(Parallel(*options)(delayed(abs)(-i) for i in range(3)), flush=True)
                ''')
            print(error)
            interpreters.destroy(number)
            """)
        assert done.stdout == "[0, 1, 2]\n" * 3 + "None\n", done.stderr


# ==================================================================================================
# 10. Same as joblib
# ==================================================================================================
# One table of calls. Each takes a library and an empty folder and gives something to compare.
# What joblite must give stands at the call; joblib, where it is installed, runs the same calls in
# a process of its own.

SAME = {}  # name -> (call, what both libraries give)
# first cell of a row in the README's table -> (call, what joblib gives, what joblite gives)
DIFFERENT = {}


def as_joblib(expected):
    def add(call):
        SAME[call.__name__] = call, expected
        return call

    return add


def unlike_joblib(row, joblib, joblite):
    def add(call):
        DIFFERENT[row] = call, joblib, joblite
        return call

    return add


def error_of(call, *args, **kwargs):
    """The name of the error that a call raises."""
    try:
        call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__
    return "no error"


def answers_of_joblib(path):
    """Write what joblib gives for every call: runs in a process of its own."""
    import joblib

    answers = {}
    for name, (call, *_) in [*SAME.items(), *DIFFERENT.items()]:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                answers[name] = call(joblib, Path(folder))
            except Exception as error:
                answers[name] = f"{type(error).__name__}: {error}"
    Path(path).write_bytes(pickle.dumps(answers))


# ---- naming values and files ----


@as_joblib([False, False, True, True, True, False, False])
def hash_sees_type_content_and_layout(lib, folder):
    memory = lib.Memory(folder, verbose=0)

    def self_caching():
        value = SelfCaching()
        value.method = memory.cache(value.method)
        return value

    pairs = [
        (1, 1.0),
        ((1,), [1]),
        ({"a": 1, 1: 2}, {1: 2, "a": 1}),
        (self_caching(), self_caching()),
        (np.dtype([("a", "f8")]), copied(np.dtype([("a", "f8")]))),
        (ARRAY, np.asfortranarray(ARRAY)),
        (collections.deque([1]).extend, collections.deque([2]).extend),
    ]
    return [lib.hash(a) == lib.hash(b) for a, b in pairs]


class SelfCaching:
    def method(self, x):
        return x


@as_joblib(["PicklingError", "ValueError"])
def hash_refuses(lib, folder):
    return [error_of(lib.hash, Unwilling()), error_of(lib.hash, 1, hash_name="rot13")]


class Unwilling:
    def __reduce__(self):
        raise pickle.PicklingError("not me")


@as_joblib([["value"], "text", "text", "text", "text"])
def dump_and_load(lib, folder):
    names = lib.dump("text", folder / "value")
    memory, found = io.BytesIO(), [[os.path.basename(name) for name in names]]
    lib.dump("text", memory)
    found.append(lib.load(memory))
    for name, compress in [("a.gz", 0), ("plain_name", ("bz2", 3)), ("b.z", True)]:
        lib.dump("text", folder / name, compress=compress)
        found.append(lib.load(folder / name))
    return found


@as_joblib(["ValueError"] * 5)
def dump_and_load_refuse(lib, folder):
    path = folder / "value"
    return [
        error_of(lib.dump, 1, path, compress=10),
        error_of(lib.dump, 1, path, compress=("zlib", 1, 1)),
        error_of(lib.dump, 1, path, compress="rot13"),
        error_of(lib.dump, "foo", {}),
        error_of(lib.load, path, mmap_mode="r", ensure_native_byte_order=True),
    ]


class Reduced(np.ndarray):
    """An array that keeps a unit through its own `__reduce__`."""

    def __reduce__(self):
        return with_unit, (np.asarray(self), self.unit)


def with_unit(array, unit):
    found = array.view(Reduced)
    found.unit = unit
    return found


@as_joblib([True, "memmap", "r+", True, "ndarray", "m"])
def arrays_in_files(lib, folder):
    lib.dump(Plain(a=[ARRAY], b={"c": ARRAY.astype(">f8")}), folder / "value")
    read, mapped = lib.load(folder / "value"), lib.load(folder / "value", mmap_mode="w+")
    array = mapped.a[0]
    at_its_offset = (folder / "value").read_bytes()[
        array.offset : array.offset + array.nbytes
    ] == ARRAY.tobytes()
    lib.dump(array, folder / "again")
    lib.dump(with_unit(ARRAY, "m"), folder / "unit")
    return [
        read.b["c"].dtype.isnative,
        type(array).__name__,
        array.mode,
        at_its_offset,
        type(lib.load(folder / "again")).__name__,
        lib.load(folder / "unit").unit,
    ]


# ---- Memory ----


def counting(calls):
    def function(x, y=1):
        calls.append(x)
        x = [*x, 0] if isinstance(x, list) else x
        return x

    return function


@as_joblib([5, 5, 5, [0], 2])
def memory_caches(lib, folder):
    calls = []
    cached = lib.Memory(folder, verbose=0).cache(counting(calls))
    return [cached(5), cached(x=5), cached(5, y=1), cached([]), len(calls)]


@as_joblib([2, 2, 3, 3, 4, 4, 5, 5])
def memory_caches_callables_of_every_kind(lib, folder):
    space, found = {}, []
    exec("def moved(x): return x + 3", space)
    space["moved"].__module__ = "elsewhere"
    functions = [
        functools.partial(operator.add, 1),
        lambda x: x + 2,
        space["moved"],
        eval("lambda x: x + 4"),
    ]
    for name, function in enumerate(functions):
        cached = lib.Memory(folder / str(name), verbose=0).cache(function)
        found += [cached(1), cached(1)]
    return found


@as_joblib([2, 2, 1, 2, 2, 1, 3, 1])
def memory_keeps_to_the_function_in_memory(lib, folder):
    """Editing or deleting the source file changes nothing for what was imported;
    a re-import of a change recomputes."""
    path = folder / "edited_source.py"
    source = "CALLS = []\ndef f(x):\n    CALLS.append(x)\n    return x + 1\n"
    path.write_text(source)
    sys.path.insert(0, str(folder))
    memory, found = lib.Memory(folder / "cache", verbose=0), []
    try:
        importlib.invalidate_caches()
        module = importlib.import_module("edited_source")
        cached = memory.cache(module.f)
        found += [cached(1), cached(1), len(module.CALLS)]
        path.write_text("# a remark\n" + source)
        found.append(cached(1))
        path.unlink()
        found += [cached(1), len(module.CALLS)]
        path.write_text(source.replace("x + 1", "x + 2"))
        del sys.modules["edited_source"]
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        importlib.invalidate_caches()
        module = importlib.import_module("edited_source")
        found += [memory.cache(module.f)(1), len(module.CALLS)]
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("edited_source", None)
    return found


@as_joblib([(1, True), 2, False, True, True, 1, "KeyError", "gone"])
def memory_answers_and_shelves(lib, folder):
    calls = []
    cached = lib.Memory(folder, verbose=0).cache(counting(calls))
    value, about = cached.call(1)
    found = [
        (value, {"duration", "time", "input_args"} <= set(about)),
        cached.call(1) and len(calls),
    ]
    found += [cached.check_call_in_cache(2), cached.check_call_in_cache(1)]
    shelved = cached.call_and_shelve(1)
    found += [
        repr(shelved).startswith("MemorizedResult(location="),
        pickle.loads(pickle.dumps(shelved)).get(),
    ]
    shelved.clear(), shelved.clear()
    cached.clear(warn=False)
    return [*found, error_of(shelved.get), "kept" if cached.check_call_in_cache(1) else "gone"]


@as_joblib([3, [True, False], "ValueError", True])
def memory_asks_the_validation_callback(lib, folder):
    calls, answers = [], [None, 0, 1, True, False]
    memory = lib.Memory(folder, verbose=0)
    cached = memory.cache(counting(calls), cache_validation_callback=lambda about: answers.pop(0))
    for _ in range(4):
        cached(1)
    return [
        len(calls),
        [cached.check_call_in_cache(1) for _ in range(2)],
        error_of(memory.cache, counting(calls), cache_validation_callback=5),
        memory.cache(len, cache_validation_callback=lib.expires_after(days=1))([1]) == 1,
    ]


@as_joblib([1, 1, 2, 1])
def memory_awaits(lib, folder):
    memory = lib.Memory(folder, verbose=0)

    async def fetch(x):
        return x

    async def main():
        cached = memory.cache(fetch)
        shelved = await cached.call_and_shelve(1)
        return [
            await cached(1),
            shelved.get(),
            (await cached.call(2))[0],
            await memory.eval(fetch, 1),
        ]

    return asyncio.run(main())


@as_joblib(["ValueError", True, True, False, "*"])
def memory_reduces_its_size(lib, folder):
    memory = lib.Memory(folder, verbose=0)
    cached = memory.cache(counting([]))
    cached(1)
    found = [error_of(memory.reduce_size, age_limit=datetime.timedelta(days=-1))]
    for limits in [{}, {"bytes_limit": "1M"}, {"items_limit": 0}]:
        memory.reduce_size(**limits)
        found.append(cached.check_call_in_cache(1))
    return [*found, next(folder.rglob(".gitignore")).read_text().split()[-1]]


@as_joblib([3, 3, 3, True, True])
def memory_survives(lib, folder):
    """The folder may vanish, memories and functions pickle, and there may be no location at all."""
    memory = lib.Memory(folder / "cache", verbose=0)
    cached = memory.cache(math.floor)
    found = [cached(3.5)]
    shutil.rmtree(folder / "cache")
    found += [cached(3.5), pickle.loads(pickle.dumps(memory)).cache(math.floor)(3.5)]
    nowhere = lib.Memory(None, verbose=0)
    nowhere.cache(math.floor).clear(warn=False), nowhere.clear(warn=False)
    return [*found, nowhere.location is None, folder.name in repr(memory)]


# ---- Parallel and what it is told ----

FOUR_WAYS = ("sequential", "threading", "loky", "multiprocessing")


@as_joblib(["ValueError"] * 7)
def parallel_refuses(lib, folder):
    bad = [
        {"batch_size": -1},
        {"prefer": "wrong"},
        {"require": "wrong"},
        {"backend": "wrong"},
        {"n_jobs": 0},
        {"prefer": "processes", "require": "sharedmem"},
        {"return_as": "wrong"},
    ]
    return [error_of(lambda options=options: lib.Parallel(**options)([])) for options in bad]


@as_joblib(["no error", "no error", "no error", "ValueError"])
def pre_dispatch_is_a_multiple_of_n_jobs(lib, folder):
    return [
        error_of(lambda text=text: lib.Parallel(2, backend="threading", pre_dispatch=text)([]))
        for text in ("all", "3*n_jobs", "1.5 * n_jobs", "print(1)")
    ]


@as_joblib([[[0, 1], 2, []]] * 3)
def one_job_consumes_lazily_on_every_backend(lib, folder):
    found = []
    for backend in ("sequential", "threading", "loky"):
        tasks = Watched(lib.delayed(square)(i) for i in range(10))
        results = lib.Parallel(n_jobs=1, backend=backend, return_as="generator")(tasks)
        found.append(
            [
                [next(results), next(results)],
                min(tasks.asked, 2),
                lib.Parallel(1, backend=backend)(iter(())),
            ]
        )
        results.close()
    return found


@as_joblib(["ValueError", "ValueError"])
def one_failing_task_ends_a_run_of_long_ones(lib, folder):
    """In threads it cannot stop what runs, but what has not begun does not begin."""
    found = []
    for backend in ("threading", "loky"):
        tasks = [lib.delayed(math.sqrt)(-1), *[lib.delayed(time.sleep)(0.2)] * 100_000]
        found.append(error_of(lib.Parallel(2, backend=backend), tasks))
    return found


@as_joblib(set())
def every_nesting_of_backends_works(lib, folder):
    ways = FOUR_WAYS if lib is joblite else FOUR_WAYS[1:3]  # joblib takes a second for each
    wrong = set()
    for pair in itertools.product(ways, ways):
        tasks = [lib.delayed(sum_in_parallel)(lib.__name__, pair[1], i) for i in range(3)]
        if lib.Parallel(2, backend=pair[0])(tasks) != [2, 3, 4]:
            wrong.add(pair)
    return wrong


def sum_in_parallel(library, backend, i):
    lib = importlib.import_module(library)
    return sum(lib.Parallel(2, backend=backend)(lib.delayed(abs)(j) for j in (i, 1, 1)))


@as_joblib([[100.0, 100.0]] * 4)
def max_nbytes_is_a_number_or_a_text(lib, folder):
    array = np.ones(100)
    return [
        lib.Parallel(2, max_nbytes=limit, backend=backend)([lib.delayed(np.sum)(array)] * 2)
        for limit, backend in [
            (10, "loky"),
            ("0.5G", "loky"),
            ("1M", "threading"),
            (None, "threading"),
        ]
    ]


@as_joblib([0, 1, 4])
def multiprocessing_is_a_backend(lib, folder):
    with lib.parallel_config("multiprocessing", n_jobs=2):
        return lib.Parallel()(lib.delayed(square)(i) for i in range(3))


@as_joblib([{7, 8}, True, False])
def initializers_go_through_parallel_config(lib, folder):
    """Workers are reused where it is equal, and replaced where it is not;
    a manager's proxy can be given to it."""

    def note_start(started, value):
        started.append(value)

    def pids(*args):
        with lib.parallel_config("loky", n_jobs=2, initializer=note_start, initargs=args):
            return set(lib.Parallel(batch_size=1)(lib.delayed(os.getpid)() for _ in range(20)))

    with multiprocessing.Manager() as manager:
        started = manager.list()
        first, again, other = pids(started, 7), pids(started, 7), pids(started, 8)
        return [set(started), bool(first & again), bool(first & other)]


@as_joblib([[0, 1, 2], [0, 1, 2]])
def parallel_runs_in_any_thread_of_any_name(lib, folder):
    found, before = [], threading.main_thread().name

    def call():
        found.append(lib.Parallel(2)(lib.delayed(abs)(i) for i in range(3)))

    threading.main_thread().name = "conductor"
    try:
        call()  # loky looks at the name, joblite does not
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    finally:
        threading.main_thread().name = before
    return found


@as_joblib([[0, 1, 2], [0, 1, 2], (3, 3), [0, 1, 4], False, 3])
def subclasses_show_progress(lib, folder):
    """The recipes for tqdm: a subclass with a bar, by `print_progress`;
    and one that overrides `__call__`."""

    class Bar:
        n = total = 0

    class Shown(lib.Parallel):
        def __call__(self, *args, **kwargs):
            self.bar = Bar()
            return lib.Parallel.__call__(self, *args, **kwargs)

        def print_progress(self):
            if self.n_tasks is None:
                self.bar.total = self.n_dispatched_tasks
            self.bar.n = self.n_completed_tasks

    class Wrapped(lib.Parallel):
        def __call__(self, iterable):
            return super().__call__(
                (operator.mul, args * 2, kwargs) for _, args, kwargs in iterable
            )

    found = []
    for backend in ("threading", "loky"):
        shown = Shown(n_jobs=2, backend=backend)
        found.append(shown(lib.delayed(abs)(i) for i in range(3)))
        wait_until(lambda shown=shown: shown.bar.n == 3, "the last step of the bar")
    found.append((shown.bar.n, shown.bar.total))
    found.append(Wrapped(2, backend="threading")(lib.delayed(abs)(i) for i in range(3)))
    return [*found, shown.return_generator, lib.Parallel(timeout=3, verbose=0).timeout]


# ---- choosing ----


@as_joblib([1, 2, 5, 3, 1, 2, "ValueError", "ValueError"])
def n_jobs_follows_the_context(lib, folder):
    found = [lib.effective_n_jobs(None), lib.effective_n_jobs(2)]
    with lib.parallel_config("threading", n_jobs=5):
        found += [lib.effective_n_jobs(None), lib.effective_n_jobs(3)]
        with lib.parallel_config("threading", n_jobs=None):
            found.append(lib.effective_n_jobs(None))
        with lib.parallel_config(n_jobs=2):
            found.append(lib.Parallel(n_jobs=None).n_jobs)
    return [
        *found,
        error_of(lib.effective_n_jobs, 0),
        error_of(lib.parallel_config, initializer=print),
    ]


@as_joblib([("threading", 2), (2, 3), [1, 2], True])
def contexts_tell_and_restore(lib, folder):
    found = []
    with lib.parallel_config("threading", n_jobs=2, verbose=0) as outer:
        name = getattr(outer["backend"], "name", type(outer["backend"]).__name__)
        found.append(("threading" if "hread" in name else "?", outer["n_jobs"]))
        with lib.parallel_config(n_jobs=3) as inner:
            found.append((outer["n_jobs"], inner["n_jobs"]))
    seen = []
    with lib.parallel_config("loky", n_jobs=2):
        lib.Parallel(require="sharedmem")(lib.delayed(seen.append)(i) for i in (1, 2))
        pids = lib.Parallel(prefer="threads")(lib.delayed(os.getpid)() for _ in range(2))
    return [*found, sorted(seen), os.getpid() not in pids]


# ---- small things ----


@as_joblib([True, "square", 1])
def small_things(lib, folder):
    task = lib.delayed(square)(1, a=2)
    return [
        task == (square, (1,), {"a": 2}),
        lib.delayed(square).__name__,
        lib.wrap_non_picklable_objects(lambda x: x)(1),
    ]


@as_joblib([[0, 1, 2], [0, 1, 2], "ValueError", [0, 1, 2], True])
def backends_of_others(lib, folder):
    """joblib's protocol: one that calls back (as ray's does),
    one whose result is waited for (as ipyparallel's)."""

    class CallsBack(lib.ParallelBackendBase):
        supports_retrieve_callback = True
        ended = 0

        def effective_n_jobs(self, n_jobs):
            return 2

        def configure(self, n_jobs=1, parallel=None, **options):
            self.parallel, self.pool = parallel, ThreadPoolExecutor(n_jobs)
            return n_jobs

        def submit(self, func, callback=None):
            future = self.pool.submit(func)
            future.add_done_callback(callback)
            return future

        def retrieve_result_callback(self, out):
            return out.result()

        def terminate(self):
            self.pool.shutdown()
            CallsBack.ended += 1

    class IsAsked(CallsBack):
        supports_retrieve_callback = False
        submit = lib.ParallelBackendBase.submit

        def apply_async(self, func, callback=None):
            future = self.pool.submit(func)
            future.get = lambda timeout=None: future.result()
            if callback:
                future.add_done_callback(lambda future: callback(future.result()))
            return future

    found = []
    for name, kind in [("calls back", CallsBack), ("is asked", IsAsked)]:
        lib.register_parallel_backend(name, kind)
        found.append(lib.Parallel(2, backend=name)(lib.delayed(abs)(i) for i in range(3)))
    found.append(
        error_of(
            lib.Parallel(2, backend="calls back"), [lib.delayed(math.sqrt)(-i) for i in range(3)]
        )
    )
    with lib.parallel_config("is asked", n_jobs=2):
        found.append(lib.Parallel()(lib.delayed(abs)(i) for i in range(3)))
    return [*found, CallsBack.ended >= 4]


# ---- what is different: each call is a row of README's table "From joblib", with the reason ----

TOLD_BY_TESTS = {  # rows of that table that take a run to see -> the test that shows our side
    "`timeout`": "test_timeout_ends_its_task_only",
    "a worker that crashes": "test_a_fault_fails_its_task_only",
    "a generator that is read slowly": "test_slow_reader_bounds_what_is_out",
    "the caller's warning filters and root log level": "test_warning_filters_follow_the_caller",
    "`print`, warnings, log records of a task": "test_prints_warnings_and_records_keep_their_order",
    "`random.random`, `np.random.rand` as a task": "test_random_numbers_differ_between_workers",
    "a module that the caller reloads": "test_reloaded_modules_are_seen",
    "positional arguments": "test_parameters_are_those_of_joblib_or_explained",
    "types": "test_types_follow_the_users_own_functions",
}


@unlike_joblib("a helper, a global or a closure's value changed", joblib=[11, 11], joblite=[11, 12])
def changed_helper(lib, folder):
    path, found = folder / "with_helper.py", []
    sys.path.insert(0, str(folder))
    try:
        for number in (1, 2):
            path.write_text(
                f"def helper(x): return x + {number}\n\ndef f(x):\n    return helper(x)\n"
            )
            shutil.rmtree(folder / "__pycache__", ignore_errors=True)
            importlib.invalidate_caches()
            sys.modules.pop("with_helper", None)
            found.append(
                lib.Memory(folder / "cache", verbose=0).cache(
                    importlib.import_module("with_helper").f
                )(10)
            )
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("with_helper", None)
    return found


@unlike_joblib("`Memory(location=None)`", joblib=2, joblite=1)
def memory_without_location(lib, folder):
    calls = []
    cached = lib.Memory(None, verbose=0).cache(counting(calls))
    cached(1), cached(1)
    return len(calls)


@unlike_joblib("the cache folder", joblib=["joblib"], joblite=["joblite"])
def names_in_the_cache_folder(lib, folder):
    lib.Memory(str(folder), verbose=0).cache(math.floor)(1.5)
    return [path.name for path in folder.iterdir() if path.is_dir()]


@unlike_joblib("`Memory(verbose=1)`, the default", joblib=True, joblite=False)
def memory_prints(lib, folder):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        lib.Memory(folder).cache(math.floor)(1.5)
    return bool(out.getvalue())


@unlike_joblib("`Parallel(verbose=1)`; `verbose=5`", joblib=[True, False], joblite=[False, True])
def lines_of_a_run(lib, folder):
    """Whether there are any with verbose=1, and with 5 one for each of 12 batches."""
    counts = []
    for verbose in (1, 5):
        with contextlib.redirect_stderr(io.StringIO()) as err:
            lib.Parallel(2, verbose=verbose, batch_size=1)(lib.delayed(abs)(i) for i in range(12))
        counts.append(len(err.getvalue().splitlines()))
    return [counts[0] > 0, counts[1] == 12]


@unlike_joblib("an unknown option, `Parallel(foo=3)`", joblib="no error", joblite="ValueError")
def unknown_option(lib, folder):
    return error_of(lambda: lib.Parallel(2, foo=3)([lib.delayed(abs)(1)]))


@unlike_joblib("`n_jobs=1.7`", joblib="no error", joblite="ValueError")
def broken_number_of_jobs(lib, folder):
    return error_of(lambda: lib.Parallel(1.7)([lib.delayed(abs)(1)]))


@unlike_joblib("wrong arguments to a cached function", joblib="ValueError", joblite="TypeError")
def wrong_arguments(lib, folder):
    return error_of(lib.Memory(folder, verbose=0).cache(counting([])), 1, 2, 3, 4)


@unlike_joblib("a generator function given to `Memory.cache`", joblib=[False], joblite="TypeError")
def caching_a_generator_function(lib, folder):
    def numbers(n):
        yield from range(n)

    try:
        cached = lib.Memory(folder, verbose=0).cache(numbers)
        return [cached.check_call_in_cache(1) for _ in cached(1)]
    except TypeError as error:
        return type(error).__name__


@unlike_joblib("`check_call_in_cache` with a callback that refuses", joblib=False, joblite=True)
def question_keeps_the_entry(lib, folder):
    answers = [False, True]
    cached = lib.Memory(folder, verbose=0).cache(
        counting([]), cache_validation_callback=lambda about: answers.pop(0)
    )
    cached(1)
    cached.check_call_in_cache(1)
    return cached.check_call_in_cache(1)


@unlike_joblib("arrays of 1 MB and more in tasks", joblib="ValueError", joblite="no error")
def writing_to_a_big_argument(lib, folder):
    def write(array):
        array[0] = 1

    return error_of(lib.Parallel(2), [lib.delayed(write)(np.zeros(300_000))] * 2)


@unlike_joblib(
    "a second call while a generator of the same `Parallel` is open",
    joblib="RuntimeError",
    joblite="no error",
)
def second_call_of_a_parallel(lib, folder):
    parallel = lib.Parallel(2, return_as="generator", batch_size=1)
    stop = folder / "stop"
    first = parallel([lib.delayed(abs)(1), lib.delayed(wait_for_file)(stop)])
    next(first)
    error = error_of(lambda: list(parallel([lib.delayed(abs)(1)])))
    stop.touch()
    list(first)
    return error


@unlike_joblib(
    '`backend="multiprocessing"`',
    joblib=["ValueError", "AttributeError"],
    joblite=["no error", "no error"],
)
def multiprocessing_does_all(lib, folder):
    def local(x):
        return x

    def run(return_as):
        return list(
            lib.Parallel(2, backend="multiprocessing", return_as=return_as)(
                [lib.delayed(local)(1)] * 3
            )
        )

    return [error_of(run, "generator"), error_of(run, "list")]


@unlike_joblib("the default of `hash_name`", joblib=32, joblite=64)
def length_of_a_hash(lib, folder):
    return len(lib.hash(1))


@unlike_joblib("`hash` of what cannot be pickled", joblib="TypeError", joblite="PicklingError")
def hash_of_a_lock(lib, folder):
    return error_of(lib.hash, threading.Lock())


@unlike_joblib("files", joblib=b"\x80", joblite=b"\x89")
def first_byte_of_a_file(lib, folder):
    lib.dump([1], folder / "value")
    return (folder / "value").read_bytes()[:1]


@unlike_joblib("a damaged file", joblib="no error", joblite="ValueError")
def load_of_a_damaged_file(lib, folder):
    lib.dump(np.zeros(1000), folder / "value")
    data = bytearray((folder / "value").read_bytes())
    data[-1000] ^= 1
    (folder / "value").write_bytes(data)
    return error_of(lib.load, folder / "value")


@unlike_joblib("`register_store_backend`", joblib="ValueError", joblite="no error")
def a_store_with_four_methods(lib, folder):
    class Store:
        def __init__(self, location):
            self.kept = {}

        def open(self, key):
            return io.BytesIO(self.kept[key]) if key in self.kept else None

        def write(self, key, fill):
            fill(file := io.BytesIO())
            self.kept[key] = file.getvalue()

        def delete(self, key):
            return self.kept.pop(key, None) is not None

        def entries(self, prefix):
            return []

    return error_of(
        lambda: (
            lib.register_store_backend("four", Store),
            lib.Memory(str(folder), backend="four", verbose=0).cache(abs)(1),
        )
    )


@unlike_joblib("`wrap_non_picklable_objects`", joblib=False, joblite=True)
def wrapping_gives_the_object(lib, folder):
    def local(x):
        return x

    return lib.wrap_non_picklable_objects(local) is local


@pytest.fixture(scope="session")
def joblib_answers(tmp_path_factory):
    pytest.importorskip("joblib")
    path = tmp_path_factory.mktemp("joblib") / "answers"
    script = path.with_suffix(".py")
    script.write_text(
        f"import test_joblite\nif __name__ == '__main__':\n"
        f"    test_joblite.answers_of_joblib({str(path)!r})\n"
    )
    subprocess.run([sys.executable, script], env=script_env(), check=True, timeout=10 * DEADLINE)
    return pickle.loads(path.read_bytes())


@pytest.mark.usefixtures("by_value", "one_fork_server")
class TestSection10SameAsJoblib:
    @pytest.mark.parametrize("name", SAME)
    def test_a_call_gives_what_it_gives_in_joblib(self, name, tmp_path):
        call, expected = SAME[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert call(joblite, tmp_path) == expected

    @slow
    @pytest.mark.parametrize("name", SAME)
    def test_joblib_gives_the_same(self, name, joblib_answers):
        assert joblib_answers[name] == SAME[name][1]

    @pytest.mark.parametrize("row", DIFFERENT)
    def test_a_difference_is_as_the_readme_says(self, row, tmp_path):
        call, _, expected = DIFFERENT[row]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert call(joblite, tmp_path) == expected

    @slow
    @pytest.mark.parametrize("row", DIFFERENT)
    def test_joblib_differs_as_the_readme_says(self, row, joblib_answers):
        assert joblib_answers[row] == DIFFERENT[row][1]

    def test_every_row_of_the_readme_is_shown_and_explained(self):
        rows = readme_table("| what | joblib | joblite | why |")
        assert {row[0] for row in rows} == {*DIFFERENT, *TOLD_BY_TESTS}
        assert all(len(row) == 4 and all(row) for row in rows)
        assert all(
            f"def {test}(" in Path(__file__).read_text(encoding="utf-8")
            for test in TOLD_BY_TESTS.values()
        )

    @needs("joblib")
    def test_every_public_name_is_here_or_explained(self):
        import joblib

        rows = readme_table("| left out | instead |")
        left_out = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
        assert all(len(row) == 2 and all(row) for row in rows)
        assert set(joblib.__all__) - set(joblite.__all__) <= left_out
        assert not left_out & set(joblite.__all__)

    @needs("joblib")
    def test_parameters_are_those_of_joblib_or_explained(self):
        """The same names in the same order; ours come after,
        but for what the README's table says."""
        import joblib

        def parameters(function):
            return [
                name
                for name, each in inspect.signature(function).parameters.items()
                if each.kind.value % 2
            ]

        pairs = [
            (getattr(joblib, name), getattr(joblite, name))
            for name in joblib.__all__
            if hasattr(joblite, name)
        ]
        pairs += [
            (getattr(joblib.Memory, name), getattr(joblite.Memory, name))
            for name in ("cache", "eval", "clear", "reduce_size")
        ]
        others = {
            theirs.__name__
            for theirs, ours in pairs
            if parameters(ours)[: len(parameters(theirs))] != parameters(theirs)
        }
        assert others == {"Parallel", "Memory", "MemorizedResult"}
        assert set(parameters(joblib.Parallel)) <= set(parameters(joblite.Parallel))
        assert set(parameters(joblib.Memory)) <= set(parameters(joblite.Memory))

    def test_one_job_needs_no_multiprocessing(self):
        """Where the interpreter has no `_multiprocessing`, importing and n_jobs=1 work."""
        done = run_script("""
            import sys
            sys.modules["_multiprocessing"] = None
            from joblite import Parallel, delayed
            print(Parallel(n_jobs=1)(delayed(abs)(-i) for i in range(3)),
                  "multiprocessing" in sys.modules)
            """)
        assert done.stdout == "[0, 1, 2] False\n"


# ---- scikit-learn, unchanged, on joblite ----

# A package named joblib, put first on the path, with the module names that scikit-learn imports.
# `Memory(None)` caches nothing there, as scikit-learn expects. The last two files only let its test
# modules be imported.
JOBLIB_SHIM = {
    "__init__.py": """
        import joblite
        from joblite import *
        from . import logger, numpy_pickle, parallel
        __version__ = "1.6.0"  # whose interface this is
        class Memory(joblite.Memory):
            def __init__(self, location=None, backend="local", *args, **options):
                backend = "null" if location is None else backend
                super().__init__(location, backend, *args, **options)
        """,
    "logger.py": """
        def short_format_time(seconds):
            return f"{seconds / 60:4.1f}min" if seconds > 60 else f" {seconds:5.1f}s"
        """,
    "parallel.py": """
        mp = True
        def get_active_backend():
            return object(), 1
        """,
    "numpy_pickle.py": "from pickle import _Pickler as NumpyPickler",
}
SKLEARN_TESTS = [
    "utils.tests.test_parallel",
    "tests.test_pipeline",
    "tests.test_common",
    "model_selection.tests",
    "ensemble.tests",
    "inspection.tests",
    "feature_extraction.tests",
]
# what has to do with joblib, by name; of the checks of every estimator a sample that maps arrays
SKLEARN_CHOICE = (
    "parallel or n_jobs or pickle or memory or memmap or backend or cache or joblib or 2d_array",
    "test_common and readonly_memmap and (Forest or Bagging or Search or Voting)",
)
SKLEARN_LEFT_OUT = {  # test -> why
    "test_memory_layout": "is about arrays, not about joblib",
    "test_backend_respected": "derives a backend from the private class of joblib's default",
    "no_side_effect_with_loky_backend": "expects the caller's warning filters not to reach workers",
    "test_different_bitness_joblib_pickle": "makes a file with joblib's private NumpyPickler",
    "test_different_endianness_joblib_pickle": "the same (in tree.tests, which is not chosen)",
}


@pytest.fixture(scope="session")
def joblib_shim(tmp_path_factory):
    """The environment of an interpreter in which `import joblib` gives joblite."""
    folder = tmp_path_factory.mktemp("shim")
    project(folder, {f"joblib/{name}": textwrap.dedent(text) for name, text in JOBLIB_SHIM.items()})
    path = os.pathsep.join([str(folder), str(HERE)])
    return {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


@slow
@needs("sklearn")
class TestScikitLearnOnJoblite:
    def test_its_own_tests_pass(self, joblib_shim, tmp_path):
        some, common = SKLEARN_CHOICE
        choice = (
            f"({some}) and not test_common and not ({' or '.join(SKLEARN_LEFT_OUT)}) or ({common})"
        )
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore",
        ]
        command += [
            "--import-mode=append",
            "--pyargs",
            *(f"sklearn.{name}" for name in SKLEARN_TESTS),
            "-k",
            choice,
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env=joblib_shim, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout[-8000:]
        assert int(re.search(r"(\d+) passed", done.stdout).group(1)) > 100

    def test_its_estimators_use_joblite(self, joblib_shim, tmp_path):
        code = """
            import sys, joblib
            from sklearn.utils import parallel, validation
            assert issubclass(parallel.Parallel, joblib.joblite.Parallel)
            memory = validation.check_memory(None)
            calls = []
            memory.cache(calls.append)(1), memory.cache(calls.append)(1)
            print(len(calls), [name for name in sys.modules if name.startswith("joblib.externals")])
            """
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(code))
        assert (
            subprocess.check_output([sys.executable, script], env=joblib_shim, text=True)
            == "2 []\n"
        )

    @needs("distributed")
    def test_a_grid_search_runs_on_dask(self, joblib_shim, tmp_path):
        code = """
            import joblib, numpy as np
            from distributed import Client
            from sklearn.linear_model import LogisticRegression
            from sklearn.model_selection import GridSearchCV
            if __name__ == "__main__":
                rng = np.random.default_rng(0)
                data, labels = rng.random((90, 4)), rng.integers(0, 2, 90)
                search = GridSearchCV(LogisticRegression(), {"C": [0.01, 1, 100]}, cv=3)
                here = search.fit(data, labels).cv_results_["mean_test_score"]
                with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
                    with joblib.parallel_config(backend="dask"):
                        there = search.fit(data, labels).cv_results_["mean_test_score"]
                    tasks = client.run(lambda dask_worker: dask_worker.state.executed_count)
                print((here == there).all(), sum(tasks.values()) > 0)
            """
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(code))
        done = subprocess.run(
            [sys.executable, script], env=joblib_shim, capture_output=True, text=True, timeout=300
        )
        assert done.stdout == "True True\n", done.stderr

    @pytest.mark.parametrize("compress", [0, 3, "xz"])
    def test_fitted_models_are_read_as_joblib_wrote_them(self, compress, tmp_path):
        """joblite reads joblib's file and its own, mapped where it is not compressed."""
        import joblib
        from sklearn.ensemble import RandomForestClassifier

        rng = np.random.default_rng(0)
        data, labels = rng.random((60, 4)), rng.integers(0, 3, 60)
        model = RandomForestClassifier(n_estimators=3, random_state=0).fit(data, labels)
        for writer in (joblib, joblite):
            writer.dump(model, tmp_path / "model", compress=compress)
            for mode in [None] if compress else [None, "r", "c"]:
                found = joblite.load(tmp_path / "model", mmap_mode=mode)
                assert (found.predict_proba(data) == model.predict_proba(data)).all()


def readme_table(head):
    """The cells of the README's tables that begin with this line."""
    lines = []
    for table in README.split(head)[1:]:
        lines += itertools.takewhile(lambda line: line.startswith("|"), table.splitlines()[2:])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# ==================================================================================================
# 11. The text
# ==================================================================================================


def readme_blocks():
    """The README's examples: (code, the output it shows)."""
    return re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


def functions_entered(call):
    """The names of the functions of joblite that a call enters in this thread,
    each once, in order."""
    entered = {}

    def note(frame, event, _):
        code = frame.f_code
        if (
            event == "call"
            and code.co_filename == joblite.__file__
            and not code.co_name.startswith("<")
        ):
            entered.setdefault((code.co_name, code.co_firstlineno), code.co_name)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(entered.values())


# How much there is to understand in joblite.py, at most. Who makes it less lowers the figure. The
# goal: 22,000 nodes, 4.2 expression nodes a code line, 1.5 % dense lines, none wider than 100, 320
# names. Functions may become longer than they are, up to what is said.
HOUSE = {
    "nodes": 21_998,
    "expression nodes a code line": 3.65,
    "% of lines with 15 or more": 1.2,
    "lines wider than 100": 0,
    "names at module level": 310,
    "lines of a function, median": 8,
    "90th percentile": 25,
    "longest": 45,
}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def house(text):
    """The figures of HOUSE for a source; annotations, docstrings,
    `if TYPE_CHECKING:` are left out."""
    tree, lines = ast.parse(text), text.splitlines()
    nodes = list(ast.walk(tree))
    scopes = [node for node in nodes if isinstance(node, (*FUNCTION, ast.ClassDef, ast.Module))]
    docs = [node.body[0] for node in scopes if ast.get_docstring(node, clean=False) is not None]
    roots = [getattr(node, name, None) for node in nodes for name in ("annotation", "returns")]
    roots += [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    left_out = {id(node) for root in filter(None, roots + docs) for node in ast.walk(root)}
    counted = [
        node
        for node in nodes
        if isinstance(node, (ast.stmt, ast.expr)) and id(node) not in left_out
    ]

    code = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    for doc in docs:
        code -= set(range(doc.lineno, doc.end_lineno + 1))
    weights = collections.Counter(node.lineno for node in counted if isinstance(node, ast.expr))
    weights = [weights[line] for line in code]

    sizes = []
    for node in nodes:
        if isinstance(node, FUNCTION):
            body = node.body[node.body[0] in docs :]
            own = lines[body[0].lineno - 1 : node.end_lineno] if body else []
            sizes.append(sum(re.match(r"\s*[^\s#]", line) is not None for line in own))
    sizes.sort()
    named = (*FUNCTION, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return dict(
        zip(
            HOUSE,
            [
                len(counted),
                sum(weights) / len(code),
                100 * sum(map((14).__lt__, weights)) / len(code),
                sum(len(line) > 100 for line in lines),
                sum(isinstance(node, named) for node in tree.body),
                sizes[len(sizes) // 2],
                sizes[len(sizes) * 9 // 10],
                sizes[-1],
            ],
        )
    )


# What type checkers make of a script: an expression, and its type.
REVEALED = """
Parallel(2)(delayed(rate)(i) for i in range(3))       list[float]
Parallel(2, backend="threading")([delayed(rate)(1, unit="s")])  list[float]
Parallel(n_jobs=2, on_error="return")([delayed(rate)(1)])  list[float | BaseException]
Parallel(2, on_error="skip")([delayed(rate)(1)])      list[float]
Parallel(2, return_as="generator")([delayed(rate)(1)])  Generator[float, None, None]
Parallel(2, return_as="generator_unordered")([delayed(rate)(1)])  Generator[float, None, None]
with_errors([delayed(rate)(1)])                       Generator[float | BaseException, None, None]
Parallel(2)([delayed(Meter().read)(3)])               list[str]
Parallel(2).map(rate, range(3))                       list[float]
Parallel(2).map(rate, [1], ["s"])                     list[float]
Parallel(n_jobs=2, on_error="return").map(rate, [1])  list[float | BaseException]
Parallel(2, return_as="generator").map(rate, [1])     Generator[float, None, None]
with_errors.map(rate, [1])                            Generator[float | BaseException, None, None]
memory.cache(rate)(1, unit="s")                       float
memory.cache(ignore=["unit"])(rate)(1)                float
memory.cache(rate).call(1)                            float
memory.cache(rate).check_call_in_cache(1)             bool
Meter().read(3)                                       str
Meter().log(3)                                        bytes
asyncio.run(memory.cache(fetch)(1))                   int
hash(1)                                               str
dump(1, "file")                                       list[str] | None
cpu_count()                                           int
effective_n_jobs(-1)                                  int
"""

# Mistakes that they report.
MISTAKES = """
delayed(rate)("one")
delayed(rate)(1, unit=2)
delayed(9)
memory.cache(rate)("one")
memory.cache(rate)(1, 2)
memory.cache(rate).chek(1)
Meter().read("three")
Parallel(2, return_as="generatr")
Parallel(2, on_error="retrun")
Parallel(2, prefer="fibers")
Parallel(2)(rate)
Parallel(2).map(3, [1])
Parallel(2).map(rate, 3)
memory.cache(rate, mmap_mode="x")
"""


class TestTypes:
    SCRIPT = textwrap.dedent("""
        import asyncio
        from joblite import Memory, Parallel, cpu_count, delayed, dump, effective_n_jobs, hash
        memory = Memory("cache")
        def rate(value: int, unit: str = "m") -> float: return value / 2
        async def fetch(number: int) -> int: return number
        with_errors = Parallel(2, return_as="generator", on_error="return")
        class Meter:
            @memory.cache
            def read(self, number: int) -> str: return ""
            @memory.cache(ignore=["self"])
            def log(self, number: int) -> bytes: return b""
        """)

    @pytest.fixture(scope="class", params=["mypy", "pyright"])
    @classmethod
    def said(cls, request, tmp_path_factory):
        """What a checker says of each line of the two tables above, added to the script."""
        checker = request.param
        pytest.importorskip(checker)
        start = [sys.executable, "-m", checker]
        if subprocess.run(
            [*start, "--version"], capture_output=True, timeout=DEADLINE * 5
        ).returncode:
            # pyright fetches its main part at first use
            pytest.skip(f"{checker} cannot start here")
        folder = tmp_path_factory.mktemp("types")
        shutil.copy(joblite.__file__, folder / "joblite.py")
        expressions = [re.split("  +", line)[0] for line in REVEALED.strip().splitlines()]
        lines = [
            f"reveal_type({expression})" for expression in expressions
        ] + MISTAKES.strip().splitlines()
        (folder / "script.py").write_text(cls.SCRIPT + "\n".join(lines))
        options = ["--strict", "--cache-dir", "types"] if checker == "mypy" else []
        done = subprocess.run(
            [*start, *options, "script.py"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=DEADLINE * 5,
        )
        assert not re.search(r"joblite\.py:\d+", done.stdout), done.stdout
        said = collections.defaultdict(str)
        first = cls.SCRIPT.count("\n") + 1
        for line, text in re.findall(r"script\.py:(\d+)(.*)", done.stdout):
            assert int(line) >= first, done.stdout
            said[lines[int(line) - first]] += text
        return said

    def test_types_follow_the_users_own_functions(self, said):
        table = [re.split("  +", line) for line in REVEALED.strip().splitlines()]
        texts = [
            said[f"reveal_type({expression})"].replace("typing.", "") for expression, _ in table
        ]
        found = [text.rpartition('"')[0].rpartition('"')[2] for text in texts]
        assert found == [expected for _, expected in table]

    def test_mistakes_are_reported(self, said):
        assert [line for line in MISTAKES.strip().splitlines() if "error" not in said[line]] == []

    @needs("ipykernel", "jupyter_client")
    def test_a_kernel_completes_and_shows_a_cached_function(self, tmp_path):
        from jupyter_client.manager import start_new_kernel

        shutil.copy(joblite.__file__, tmp_path / "joblite.py")
        manager, client = start_new_kernel(kernel_name="python3", cwd=tmp_path)
        try:
            client.execute_interactive(
                self.SCRIPT + "cached = memory.cache(rate)", timeout=DEADLINE
            )
            completed = client.complete("cached.", reply=True, timeout=DEADLINE)["content"][
                "matches"
            ]
            shown = client.inspect("cached", reply=True, timeout=DEADLINE)["content"]["data"][
                "text/plain"
            ]
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        methods = {name.rpartition(".")[2] for name in completed}
        assert methods >= set(
            "call call_and_shelve check_call_in_cache clear entries explain forget".split()
        )
        assert "cached(value: int, unit: str = 'm') -> float" in re.sub("\x1b\\[\\d*m", "", shown)


class TestTheText:
    def test_the_module_is_no_more_to_understand_than_agreed(self):
        found = house(Path(joblite.__file__).read_text(encoding="utf-8"))
        assert {name: value for name, value in found.items() if value > HOUSE[name]} == {}

    def test_docstring_examples_run(self, tmp_path, monkeypatch):
        import doctest

        monkeypatch.chdir(tmp_path)
        results = doctest.testmod(joblite, optionflags=doctest.ELLIPSIS)
        assert results.failed == 0 and results.attempted > 30

    @pytest.mark.parametrize("index", range(len(readme_blocks())))
    def test_readme_examples_print_what_they_show(self, index, tmp_path):
        code, shown = readme_blocks()[index]
        assert run_script(code, cwd=tmp_path).stdout == shown

    def test_readme_shows_each_example_with_its_output(self):
        assert README.count("```python") == len(readme_blocks()) > 5

    @pytest.mark.parametrize(
        "what, most", [("a warm call of two tasks", 70), ("a `Memory` has kept", 23)]
    )
    def test_readme_follows_a_call_as_it_is(self, what, most, tmp_path):
        story = README.partition(what)[2].partition(":\n\n")[2].partition("\n\n")[0]
        cached = joblite.Memory(tmp_path, verbose=0).cache(square)
        called = {
            "a warm call of two tasks": lambda: Parallel(2)(delayed(abs)(i) for i in range(2)),
            "a `Memory` has kept": lambda: cached(3),
        }[what]
        for _ in range(3):
            called()
        entered = functions_entered(called)
        words = re.findall(r"\w+", story)
        assert [word for word in words if word.startswith("_") and word not in entered] == []
        told = [word for word in words if word in entered]
        assert len(told) > most / 4 and len(entered) < most
        assert told == sorted(told, key=entered.index), (
            "told in the order in which they are entered"
        )

    def test_readme_lists_the_public_names(self):
        listed = re.search(r"## Public names\n(.*?)\n## ", README, re.DOTALL).group(1)
        assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(joblite.__all__)

    def test_readme_tells_about_how_long_the_module_and_its_sections_are(self):
        module = Path(joblite.__file__).read_text(encoding="utf-8").splitlines(keepends=True)
        starts = [number for number, line in enumerate(module) if re.match(r"# \d+\. \w", line)]
        found = [end - start for start, end in zip(starts, [*starts[1:], len(module)])]
        rows = readme_table("| to change | section | lines, about | `-k` | seconds, about |")
        told = [row[2] for row in rows if row[1][0].isdigit()]
        told += re.search(r"about ([\d,]+) lines, (\d+) KB", README).groups()
        found += [len(module), sum(map(len, module)) / 1000]
        told = [int(number.replace(",", "")) for number in told]
        assert told == pytest.approx(found, rel=0.1)

    def test_public_names_exist_and_are_documented(self):
        undocumented = [
            name for name in joblite.__all__ if ">>>" not in (getattr(joblite, name).__doc__ or "")
        ]
        assert undocumented == []

    def test_docstrings_say_what_goes_in_and_what_comes_out(self):
        """Of each public function, class and method: every parameter; what it returns, if anything.
        `Memory.cache` lists the methods of a cached function."""
        lacking = []
        made_by_others = {"MemorizedFunc", "ParallelBackendBase"}
        errors = {"TerminatedWorkerError", "UntrustedObjectError"}
        for name in set(joblite.__all__) - made_by_others - errors:
            thing = getattr(joblite, name)
            described = {name: thing}
            if inspect.isclass(thing):
                public = {key for key in vars(thing) if not key.startswith("_")} | {"__call__"}
                described |= {key: vars(thing).get(key) for key in public}
            for key, each in described.items():
                if not inspect.isfunction(each) and not inspect.isclass(each):
                    continue
                doc = inspect.getdoc(each)
                signature = inspect.signature(each)
                own = {"self", "metadata", "store", "more", "args"}
                words = re.findall(r"\w+", doc.partition("Parameters\n")[2])
                lacking += [(key, one) for one in signature.parameters if one not in [*words, *own]]
                if "->" in str(signature) and signature.return_annotation not in ("None", "bool"):
                    lacking += [(key, "Returns")] * ("Returns\n" not in doc)
        assert lacking == []
        methods = {key for key in vars(joblite.MemorizedFunc) if not key.startswith("_")}
        assert methods <= set(re.findall(r"f\.(\w+)", joblite.Memory.cache.__doc__))

    def test_only_the_standard_library_is_imported(self):
        tree = ast.parse(Path(joblite.__file__).read_text(encoding="utf-8"))
        roots = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots.add(node.module.partition(".")[0])
        # where asked for or at hand
        optional = set("cloudpickle lz4 zstandard tqdm distributed numpy".split())
        assert roots - set(sys.stdlib_module_names) <= optional

    @pytest.mark.parametrize(
        "missing, only",
        [
            ("pandas", "hash, 50"),
            ("numpy", "8 MB"),
            ("distributed", "cluster"),
            ("joblib", "warm call"),
        ],
    )
    def test_bench_leaves_out_what_this_machine_lacks_and_says_so(self, missing, only):
        """Each scenario that was asked for is measured or skipped in one line,
        and none fails for want of a package."""
        done = run_script(
            """
            import runpy, sys
            bench, missing, only = sys.argv[1:]
            others = "joblib loky mpire diskcache cachier dask ray safetensors".split()
            for name in [missing, *others]:
                sys.modules[name] = None
            sys.argv = [bench, "--quick", "--only", only]
            runpy.run_path(bench, run_name=__name__)
            """,
            HERE / "bench.py",
            missing,
            only,
        )
        names = [
            line for line in done.stdout.splitlines() if only in line and not line.startswith(" ")
        ]
        rows = re.findall(r"^  joblite.* \d+.*$", done.stdout, re.MULTILINE)
        skipped = re.findall(r"^  .*: skipped: needs [a-z].*$", done.stdout, re.MULTILINE)
        assert names and (rows or skipped) and "failed" not in done.stdout
        assert all(missing in line for line in skipped)

    @pytest.mark.parametrize(
        "options", [["--quick", "--only", "n_jobs=1, one"], ["--only", "mian"]]
    )
    def test_bench_says_what_it_measures_in_eighty_columns(self, options):
        """A table; where a word fits no scenario, which there are, the nearest first."""
        done = subprocess.run(
            [sys.executable, HERE / "bench.py", *options],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == (2 if "mian" in options else 0), done.stderr
        lines = done.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert "  joblite  " in done.stdout or lines[1] == "main job"

    def test_each_law_names_a_test_that_exists(self):
        module, tests = (
            Path(path).read_text(encoding="utf-8") for path in (joblite.__file__, __file__)
        )
        named = set(re.findall(r"^# .*?(test_\w+)", module, re.MULTILINE))
        assert len(named) > 10 and not {name for name in named if f"def {name}(" not in tests}


LESSON = HERE / "tutorial.ipynb"

LESSON_HEADINGS = [
    "一、概述",
    "二、缓存功能",
    "1. `Memory` 类",
    "2. 缓存的使用",
    "3. 清除缓存",
    "三、高效序列化",
    "四、并行计算",
    "1. `Parallel` 类",
    "2. `delayed`",
    "3. 执行并行计算",
    "五、出错的时候",
    "六、里面是怎样的",
    "七、练习、问题、词汇",
]

LESSON_PARAMETERS = {
    "Memory": "location backend mmap_mode compress verbose bytes_limit backend_options".split(),
    "Parallel": "n_jobs backend return_as verbose timeout batch_size pre_dispatch".split()
    + "temp_folder max_nbytes require".split(),
    "clear": ["warn"],
    "dump": ["value", "filename"],
    "load": ["filename"],
}

LESSON_WORDS = {
    "任务": "task",
    "批": "batch",
    "进程": "process",
    "线程": "thread",
    "工作进程": "worker",
    "序列化": "serialization",
    "缓存命中": "cache hit",
    "内存映射": "memory map",
    "写时复制": "copy-on-write",
}


def lesson_cells(kind):
    """The cells of one kind in the lesson, id -> source."""
    nbformat = pytest.importorskip("nbformat")
    return {
        cell.id: cell.source
        for cell in nbformat.read(LESSON, as_version=4).cells
        if cell.cell_type == kind
    }


def lesson_answers():
    """The folded answers to the exercises, cell id -> code."""
    found = {}
    for name, source in lesson_cells("markdown").items():
        for code in re.findall(r"<details>.*?```python\n(.*?)```.*?</details>", source, re.DOTALL):
            found[name] = code
    return found


def lesson_names(source):
    """The attributes of joblib (that is, joblite) that code names, and (callable,
    keyword) of the calls it makes."""
    names, keywords = set(), set()
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "joblib"
        ):
            names.add(node.attr)
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            keywords |= {(called, keyword.arg) for keyword in node.keywords}
    return names, keywords


class TestTheLesson:
    def test_lesson_is_a_valid_notebook(self):
        """It fits the format; each cell has an id that says what it is about."""
        nbformat = pytest.importorskip("nbformat")
        notebook = nbformat.read(LESSON, as_version=4)
        nbformat.validate(notebook)
        names = [cell.id for cell in notebook.cells]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", name) for name in names)

    def test_lesson_is_in_two_languages(self):
        """Each text cell has Chinese and English prose, about as much of both;
        each heading has both."""
        for name, source in lesson_cells("markdown").items():
            prose = re.sub(r"```.*?```|`[^`]*`|<[^>]*>|\(#[^)]*\)", "", source, flags=re.DOTALL)
            chinese, english = (
                re.findall(r"[\u4e00-\u9fff]", prose),
                re.findall(r"[A-Za-z]+", prose),
            )
            assert len(chinese) >= 10 and len(english) >= 10, name
            assert 0.7 < len(chinese) / len(english) < 4, (
                f"{name}: {len(chinese)} signs, {len(english)} words"
            )
            for heading in re.findall(
                r"^#+ (.*)", re.sub(r"```.*?```", "", source, flags=re.DOTALL), re.MULTILINE
            ):
                assert " / " in heading or "`" in heading, heading

    def test_lesson_keeps_the_chapters(self):
        """The four chapters of the source under their numbers, then three of our own;
        links lead to each."""
        text = "\n".join(lesson_cells("markdown").values())
        headings = [
            line.split(" ", 1)[1].split(" / ")[0]
            for line in text.splitlines()
            if re.match(r"#{2,3} [^\W\d_]、|#{2,3} [0-9]\.", line)
        ]
        assert headings == LESSON_HEADINGS
        anchors = re.findall(r'<a id="([^"]+)"></a>', text)
        assert len(anchors) == len(set(anchors)) and set(
            re.findall(r"\]\(#([^)]+)\)", text)
        ) <= set(anchors)
        assert len(anchors) == len(LESSON_HEADINGS) + 1  # and the start

    def test_lesson_defines_its_words(self):
        rows = re.findall(
            r"^\| (\S+) \| (.+?) \| .+ \| .+ \|$",
            lesson_cells("markdown")["word-list"],
            re.MULTILINE,
        )
        assert LESSON_WORDS.items() <= dict(rows).items() and len(rows) >= 30

    def test_lesson_names_only_what_exists(self):
        code = [*lesson_cells("code").values(), *lesson_answers().values()]
        names = set().union(*(lesson_names(source)[0] for source in code))
        assert {"Memory", "Parallel", "delayed", "dump", "load", "hash"} <= names
        assert not [
            name for name in names if name not in joblite.__all__ and not hasattr(joblite, name)
        ]
        assert names - set(joblite.__all__) <= {"__file__"}

    def test_lesson_shows_every_parameter(self):
        """Each parameter of the source's signatures is given by name in some code cell."""
        keywords = set().union(
            *(lesson_names(source)[1] for source in lesson_cells("code").values())
        )
        wanted = {
            (function, name) for function, names in LESSON_PARAMETERS.items() for name in names
        }
        assert wanted <= keywords

    def test_lesson_cells_are_short(self):
        for name, source in lesson_cells("code").items():
            lines = source.splitlines()
            code = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
            limit = 16 if name.startswith("tool-") else 8  # a tool need not be read
            assert len(code) <= limit and all(len(line) <= 100 for line in lines), name

    def test_lesson_chapters_end_with_a_recap_and_an_exercise(self):
        """Two lines of recap in each language; an exercise with an answer that is folded away."""
        text = "\n".join(lesson_cells("markdown").values())
        chapters = re.split(r"^## (?=\S、)", text, flags=re.MULTILINE)[1:]
        assert len(chapters) == sum("、" in heading[:2] for heading in LESSON_HEADINGS)
        for chapter in chapters:
            recap = re.search(
                r"\*\*小结\*\*\n((?:\n- .*)+)\n\n\*\*Recap\*\*\n((?:\n- .*)+)", chapter
            )
            assert [half.count("\n- ") for half in recap.groups()] == [2, 2]
            assert re.search(r"\*\*练习 \d / Exercise \d.*<details>", chapter, re.DOTALL)

    def test_lesson_has_outputs_without_paths(self):
        """What is stored was run top to bottom, without an error,
        and tells nothing of the machine."""
        nbformat = pytest.importorskip("nbformat")
        cells = [
            cell for cell in nbformat.read(LESSON, as_version=4).cells if cell.cell_type == "code"
        ]
        assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
        outputs = [output for cell in cells for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        text = "\n".join(str(output) for output in outputs)
        assert not re.findall(
            r"/(?:tmp|home|root|usr|work|Users|var|private|opt)/\S*|[A-Z]:\\\S*|ipykernel_\d+", text
        )
        assert "image/svg+xml" in text and "0x" not in text

    def test_lesson_answers_what_it_asks(self):
        """A cell that checks something shows it, too: the reader who guessed sees the answer.
        Charts speak both languages."""
        nbformat = pytest.importorskip("nbformat")
        cells = [
            cell for cell in nbformat.read(LESSON, as_version=4).cells if cell.cell_type == "code"
        ]
        silent = [cell.id for cell in cells if "assert " in cell.source and not cell.outputs]
        assert [name for name in silent if not name.startswith("tool-")] == []
        empty = [str(cell.outputs) for cell in cells if cell.id.endswith("-yours")]
        assert empty and all("not written yet" in shown for shown in empty)
        charts = [
            output.data["image/svg+xml"]
            for cell in cells
            for output in cell.outputs
            if "image/svg+xml" in output.get("data", {})
        ]
        for chart in charts:
            words = " ".join(re.findall(">([^<]+)</text>", chart))
            assert re.search("[\u4e00-\u9fff]", words) and re.search("[a-z]", words), words

    def test_lesson_answers_run(self, tmp_path):
        """The folded answers, put into the cells of the reader, pass the checks there."""
        cells, answers = lesson_cells("code"), lesson_answers()
        assert list(answers) == [f"exercise-{i}" for i in range(1, 9)]
        before = ["setup", "setup-folder", "tool-check", "use-example", "running-source"]
        # no answer may need what another one has made: a reader may pass any of them over
        keep = "given = dict(globals())\ngiven['given'] = given"
        forget = "for made in globals().keys() - given: del globals()[made]"
        script, most = [*(cells[name] for name in before), keep], []
        for name, answer in answers.items():
            empty = cells[f"{name}-yours"]
            start, end = re.search(r"def \w+\(.*\n    \.\.\.\n", empty).span()
            script += [cells.get(f"{name}-given", ""), empty[:start] + answer + empty[end:]]
            script += [f"print('end of {name}')", forget, "globals().update(given)"]
            most.append(empty.count("check("))
        shown = run_script("\n".join(script), cwd=tmp_path).stdout.split("end of exercise-")
        assert [part.count("Right!") for part in shown] == [*most, 0]

    @slow
    @needs("nbclient", "ipykernel")
    def test_lesson_runs(self, tmp_path):
        """In a real kernel, from a folder with nothing but joblite.py and the notebook;
        it leaves nothing behind."""
        place, home = tmp_path / "lesson", tmp_path / "home"
        place.mkdir()
        for source in (HERE / "joblite.py", LESSON):
            shutil.copy(source, place)
        settings = {
            name: str(home) for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR")
        }
        command = [
            sys.executable,
            "-c",
            textwrap.dedent("""
            import nbformat
            from nbclient import NotebookClient
            notebook = nbformat.read("tutorial.ipynb", as_version=4)
            NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
            """),
        ]
        done = subprocess.run(
            command,
            cwd=place,
            env={**os.environ, **settings, "PYTHONPATH": ""},
            timeout=600,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        left = {path.name for path in place.iterdir()} - {"__pycache__", ".ipynb_checkpoints"}
        assert left == {"joblite.py", "tutorial.ipynb"}


# ==================================================================================================
# 13. The soak: python test_joblite.py soak [minutes, default 10] [seed]
# ==================================================================================================
# Random calls from several threads, while workers and fork servers are killed.
# Not part of the suite: it takes long. It prints a summary; the exit code is 0 if
# all values were right and nothing was left behind.

# bytes by which the least memory of the last quarter may exceed that of the second quarter
MEMORY_BOUND = 48 * 2**20


def misbehave(x, how):
    """A task of the soak: most give -x."""
    if how == "fails":
        raise ValueError(f"no {x}")
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hangs":
        time.sleep(600)
    return -x


class Soak:
    EXPECTED = {"fails": ValueError, "dies": joblite.TerminatedWorkerError, "hangs": TimeoutError}

    def __init__(self, minutes, seed):
        self.end = time.monotonic() + 60 * minutes
        self.seed = seed
        # only ever added to by name: a lost count in a race does no harm
        self.counts = collections.Counter()
        self.problems = []
        self.last_kill = 0.0
        self.memory = []  # of this process, at intervals

    def options(self, rng):
        kinds = [{}] * 7 + [{"backend": "threading"}] * 2
        return {
            **rng.choice(kinds),
            "n_jobs": rng.randint(2, 4),
            "return_as": rng.choice(RETURN_AS),
            "batch_size": rng.choice(["auto", "auto", 1, 7]),
            "pre_dispatch": rng.choice(["2 * n_jobs", "all", 3]),
        }

    def check(self, begun, results, expected):
        """Each value is right, or an error of the expected kind,
        or of a worker that the killer may have hit."""
        assert len(results) == len(expected), (len(results), len(expected))
        for value, right in zip(results, expected):
            if isinstance(value, joblite.TerminatedWorkerError) and self.last_kill > begun - 5:
                self.counts["tasks hit by the killer"] += 1
            elif isinstance(right, type):
                assert isinstance(value, right), (value, right)
            else:
                assert np.array_equal(value, right), (value, right)
        self.counts["tasks"] += len(results)

    def do_plain(self, rng):
        begun, numbers, options = time.monotonic(), range(rng.randrange(400)), self.options(rng)
        results = list(
            Parallel(**options, on_error="return")(delayed(misbehave)(i, "") for i in numbers)
        )
        if options["return_as"] == "generator_unordered":
            errors = [value for value in results if isinstance(value, Exception)]
            values = {value for value in results if not isinstance(value, Exception)}
            results = [-i if -i in values else errors.pop() for i in numbers]
        self.check(begun, results, [-i for i in numbers])

    def do_faults(self, rng):
        begun, options = time.monotonic(), {**self.options(rng), "return_as": "list"}
        kinds = ["", "", "fails"] + ([] if "backend" in options else ["dies", "hangs"])
        hows = rng.choices(kinds, [40, 40, 2, 1, 1][: len(kinds)], k=rng.randrange(60))
        timeout = 0.5 if "hangs" in hows else None
        results = Parallel(**options, on_error="return", timeout=timeout)(
            delayed(misbehave)(i, how) for i, how in enumerate(hows)
        )
        if timeout:  # on a busy machine a good task may be late as well
            results = [
                -i if isinstance(value, TimeoutError) and hows[i] != "hangs" else value
                for i, value in enumerate(results)
            ]
        self.check(begun, results, [self.EXPECTED.get(how, -i) for i, how in enumerate(hows)])

    def do_arrays(self, rng):
        begun, options = time.monotonic(), {**self.options(rng), "return_as": "list"}
        shared, count = (
            np.arange(rng.choice([100, 20_000, 500_000]), dtype=float),
            rng.randrange(12),
        )
        results = Parallel(**options, on_error="return")(
            delayed(np.add)(shared, i) for i in range(count)
        )
        self.check(begun, results, [shared + i for i in range(count)])

    def do_closed_generator(self, rng):
        options = {**self.options(rng), "return_as": rng.choice(RETURN_AS[1:])}
        results = Parallel(**options, on_error="return")(
            delayed(misbehave)(i, "") for i in range(1000)
        )
        for _ in range(rng.randrange(20)):
            next(results)
        if rng.random() < 0.5:
            results.close()

    def do_error(self, rng):
        begun = time.monotonic()
        try:
            list(
                Parallel(**self.options(rng))(
                    delayed(misbehave)(i, "fails" if i == 20 else "") for i in range(40)
                )
            )
            raise AssertionError("the error of task 20 did not come")
        except ValueError as error:
            assert str(error) == "no 20"
        except joblite.TerminatedWorkerError:
            assert self.last_kill > begun - 5

    def do_initializer(self, rng):
        begun = time.monotonic()
        results = Parallel(2, initializer=abs, initargs=(rng.random(),), on_error="return")(
            [delayed(abs)(-1)] * 4
        )
        self.check(begun, results, [1] * 4)

    def do_fork(self, rng):
        """A forked child of this process, whose other threads are in the midst of anything,
        makes a call of its own."""
        begun, pid = time.monotonic(), os.fork()
        if pid == 0:
            try:
                os._exit(Parallel(2)(delayed(abs)(-i) for i in range(5)) != [0, 1, 2, 3, 4])
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0 or self.last_kill > begun - 5

    def caller(self, number):
        rng = random.Random(f"{self.seed} {number}")
        actions = {name[3:]: getattr(self, name) for name in dir(self) if name.startswith("do_")}
        weights = [1 if name in ("fork", "initializer") else 5 for name in actions]
        while time.monotonic() < self.end and not self.problems:
            name = rng.choices(list(actions), weights)[0]
            try:
                actions[name](rng)
            except BaseException as error:
                import traceback

                self.problems.append(
                    f"in a call of kind {name!r}: {traceback.format_exc()}\n{error!r}"
                )
            self.counts[name] += 1

    def killer(self):
        """Kill a worker now and then, and more rarely the fork server."""
        rng, done = random.Random(f"{self.seed} killer"), threading.Event()
        while time.monotonic() < self.end and not self.problems:
            done.wait(rng.uniform(0.2, 2.0))
            server = next(iter(joblite._starters), None)
            victims = sorted(child_processes() - {server and server.pid})
            whom = "servers" if server and rng.random() < 0.1 else "workers"
            if victims:
                self.last_kill = math.inf  # while we are at it
                with contextlib.suppress(ProcessLookupError):
                    os.kill(
                        server.pid if whom == "servers" else rng.choice(victims),
                        signal.SIGKILL,
                    )
                self.last_kill = time.monotonic()
                self.counts[f"killed {whom}"] += 1
            gc.collect()
            self.memory.append(
                int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
            )

    def run(self):
        """Let all threads run to the end; gives the lines of the summary."""
        before, opened = belongings(), len(descriptors())
        threads = [threading.Thread(target=self.caller, args=(i,), daemon=True) for i in range(3)]
        threads.append(threading.Thread(target=self.killer, daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, self.end - time.monotonic()) + 120)
            if thread.is_alive():
                import faulthandler

                faulthandler.dump_traceback(all_threads=True)
                self.problems.append("a thread hangs: see the traces above")
        joblite.shutdown_workers()
        late = time.monotonic() + 20
        while (left := leftovers(before)) and time.monotonic() < late:
            gc.collect()
            time.sleep(0.1)
        quarter = len(self.memory) // 4
        early, last = (
            min(self.memory[quarter : 2 * quarter or None]),
            min(self.memory[3 * quarter :]),
        )
        counts = ", ".join(f"{self.counts[name]:,} {name}" for name in sorted(self.counts))
        if left or len(descriptors()) > opened or last - early > MEMORY_BOUND:
            self.problems.append("something is left behind, or memory grew: see above")
        return [
            counts,
            f"left behind: {sorted(left) or 'nothing'}; "
            f"descriptors {opened} -> {len(descriptors())}",
            f"memory {early / 1e6:.0f} MB -> {last / 1e6:.0f} MB "
            f"(may grow by {MEMORY_BOUND / 1e6:.0f} MB)",
        ]


def main(command, minutes=10.0, seed=None):
    if command != "soak":
        sys.exit(__doc__)
    seed = random.randrange(10**6) if seed is None else int(seed)
    print(
        f"soak: {float(minutes):g} minutes, seed {seed}, Python {sys.version.split()[0]}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        soak = Soak(float(minutes), seed)
        print("\n".join(["  " + line for line in soak.run()] + soak.problems))
        tempfile.tempdir = None
    print("FAILED" if soak.problems else "passed: every value was right")
    os._exit(bool(soak.problems))


if __name__ == "__main__":
    main(*sys.argv[1:] or ["help"])
