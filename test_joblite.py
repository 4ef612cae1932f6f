"""All tests of joblite.

    python -m pytest                          everything (some minutes)
    JOBLITE_QUICK=1 python -m pytest          without the slow ones (under a minute)
    python -m pytest -k "hash"                one subject; tests are named as sentences
    python -m pytest -k "Section3"            one section of joblite.py: each has a class here

Optional packages (cloudpickle, joblib, pandas, distributed, nbclient and ipykernel, ...) are tested where installed;
a test that needs one which is missing is skipped and says so. Nothing here asserts a time: speed lives in bench.py.
"""
# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy", "pytest", "nbformat"]
# ///

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import gc
import glob
import hashlib
import importlib
import importlib.util
import inspect
import io
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import joblite

# ======================================================================================================================
# 1. Tools
# ======================================================================================================================

HERE = Path(__file__).resolve().parent
QUICK = bool(os.environ.get("JOBLITE_QUICK"))
DEADLINE = 60.0  # seconds to wait for an event that always comes: generous, since machines may be busy

slow = pytest.mark.skipif(QUICK, reason="JOBLITE_QUICK is set")
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


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
    pytest.fail(f"{what} did not come within {deadline:g} s")


def run_script(code, *args, cwd=None, env=None, check=True, python=sys.executable, stdin=None, flags=()):
    """Run `code` as a file in a fresh interpreter that can import joblite; gives the finished process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "script.py")
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        command = [python, *flags, str(path), *map(str, args)]
        done = subprocess.run(command, cwd=cwd or folder, env=script_env(env), input=stdin, capture_output=True,
                              text=True, timeout=DEADLINE * 2)
    if check and done.returncode:
        pytest.fail(f"the script ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def script_env(extra=None):
    """The environment of a fresh interpreter that finds joblite."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **(extra or {})}


def child_processes():
    """The pids of the living descendants of this process (Linux; elsewhere none are seen)."""
    parents = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            fields = Path(path).read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended while we were looking
        if fields[0] != "Z":
            parents[int(path.split("/")[2])] = int(fields[1])
    found = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found - {os.getpid()}
        found |= more


def leftovers():
    """What a test must not leave behind: processes, threads, temp files, shared memory."""
    folders = {tempfile.gettempdir(), "/dev/shm"}
    return {
        *(("process", pid) for pid in child_processes()),
        *(("thread", thread.name) for thread in threading.enumerate()),
        *(("file", path) for folder in folders for path in glob.glob(f"{folder}/*joblite*")),
    }


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Fail a test that leaves a process, a thread, a temp file or a shared memory entry."""
    before = leftovers()
    yield
    if hasattr(joblite, "shutdown_workers"):
        joblite.shutdown_workers()
    end = time.monotonic() + 10
    while leftovers() - before and time.monotonic() < end:
        time.sleep(0.01)
    left = leftovers() - before
    assert not left, f"left behind: {sorted(left)}"


@pytest.fixture(scope="session", autouse=True)
def versions(record_testsuite_property):
    """Print the versions that matter, once."""
    import platform

    names = [name for name in ("numpy", "joblib", "cloudpickle", "pandas", "distributed", "nbclient")
             if importlib.util.find_spec(name)]
    from importlib.metadata import version

    line = ", ".join([f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)])
    record_testsuite_property("versions", line)
    print(f"\n{line}, {joblite.cpu_count()} cores", file=sys.__stderr__)


# ======================================================================================================================
# 2-8. The sections of joblite.py
# ======================================================================================================================


class TestSection1Ground:
    def test_import_is_light(self):
        """Importing joblite loads no numpy and no heavy standard module, and starts no thread."""
        done = run_script("""
            import sys, threading
            before = set(sys.modules)
            import joblite
            heavy = {"numpy", "multiprocessing", "subprocess", "logging", "concurrent.futures", "tempfile", "asyncio",
                     "lzma", "bz2", "inspect", "typing", "socket", "pickle", "dis", "ctypes", "shutil"}
            print(sorted((set(sys.modules) - before) & heavy), threading.active_count())
            """, flags=["-S"])
        assert done.stdout.split() == ["[]", "1"]


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


def family(names):
    """A parent and a set of children that know it."""
    parent = Plain(children=set())
    for name in names:
        parent.children.add(Plain(name=name, parent=parent))
    return parent


ARRAY = np.arange(24.0).reshape(4, 6)
BIG = 10**40

# Each row: values that must all have one name, and a different one from those of every other row.
DIFFERENT_VALUES = {
    "one": [1, int("1")], "one float": [1.0], "true": [True], "one complex": [1 + 0j], "text": ["a", copied("a")],
    "bytes": [b"a"], "bytearray": [bytearray(b"a")], "none": [None], "ellipsis": [...], "big": [BIG, copied(BIG)],
    "empty list": [[]], "empty tuple": [()], "empty dict": [{}], "empty set": [set()], "empty frozenset": [frozenset()],
    "list": [[1, 2]], "tuple": [(1, 2)], "other order": [[2, 1]], "nested": [[1, [2]]], "nested tuple": [[1, (2,)]],
    "dict": [{"a": 1, "b": 2}, {"b": 2, "a": 1}], "swapped": [{"a": 2, "b": 1}], "pairs": [[("a", 1), ("b", 2)]],
    "ordered": [collections.OrderedDict(a=1, b=2), copied(collections.OrderedDict(a=1, b=2))],
    "ordered otherwise": [collections.OrderedDict(b=2, a=1)],
    "counter": [collections.Counter("aab"), collections.Counter("baa")],
    "defaultdict": [collections.defaultdict(int, a=1, b=2), collections.defaultdict(int, b=2, a=1)],
    "set": [{"a", 1, ("a", 1)}, {("a", 1), 1, "a"}], "frozenset": [frozenset(["a", 1, ("a", 1)])],
    "mixed keys": [{"a": 1, 1: 2, None: 3}, {None: 3, 1: 2, "a": 1}],
    "nan in a set": [{decimal.Decimal("NaN"), 1}, {1, decimal.Decimal("NaN")}],
    "sets in dicts": [{"x": [{3, 1, 2}]}, {"x": [{2, 1, 3}]}],
    "nan": [float("nan"), copied(float("nan"))], "zero": [0.0], "minus zero": [-0.0], "surrogate": ["\ud800"],
    "range": [range(3)], "slice": [slice(1, 2)], "decimal": [decimal.Decimal("1.0")], "date": [datetime.date(2020, 1, 1)],
    "time": [datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)], "path": [Path("a")], "enum": [Colour.RED],
    "other enum": [Colour.BLUE], "dataclass": [Point(1), Point(1)], "slots": [Slots(1, 2), Slots(1, 2)],
    "other slots": [Slots(2, 1)], "object": [Plain(a=1, b=2), Plain(b=2, a=1)], "other object": [Plain(a=1, b=3)],
    "class": [Plain], "function": [copied], "builtin": [gc.collect], "builtin len": [len],
    "method": [Plain(a=1).method, Plain(a=1).method], "method of another": [Plain(a=2).method],
    "bound": [collections.deque([1]).extend], "bound to another": [collections.deque([2]).extend],
    "lambda": [adder(1), adder(1)], "closure of another": [adder(2)], "partial": [functools.partial(adder, 1)] * 2,
    "partial of another": [functools.partial(adder, 2)], "module": [os.path], "other module": [sys], "ufunc": [np.add],
    "other ufunc": [np.subtract], "numpy function": [np.dot], "pattern": [re.compile("a")],
    "array": [ARRAY, ARRAY.copy(), copied(ARRAY), ARRAY[:, :], np.concatenate([ARRAY, ARRAY])[:4]],
    "fortran": [np.asfortranarray(ARRAY)], "shape": [ARRAY.reshape(6, 4)], "float32": [ARRAY.astype("f4")],
    "big-endian": [ARRAY.astype(">f8")], "view": [ARRAY[:, ::2], ARRAY[:, ::2].copy()], "list of array": [ARRAY.tolist()],
    "reversed": [ARRAY[::-1], ARRAY[::-1].copy()], "0-d": [np.array(1.0)], "1-d": [np.array([1.0])],
    "scalar": [np.float64(1.0), copied(np.float64(1.0))], "scalar32": [np.float32(1.0)],
    "dates": [np.array(["2020-01-01"], "M8[D]"), copied(np.array(["2020-01-01"], "M8[D]"))],
    "deltas": [np.array([18262], "m8[D]")], "date scalar": [np.datetime64("2020-01-01")],
    "objects": [np.array(["a", {1}, None], object), copied(np.array(["a", {1}, None], object))],
    "masked": [np.ma.array([1, 2], mask=[0, 1]), copied(np.ma.array([1, 2], mask=[0, 1]))],
    "other mask": [np.ma.array([1, 2], mask=[1, 0])], "unmasked": [np.ma.array([1, 2])], "matrix": [np.asmatrix([[1, 2]])],
    "subclass": [ARRAY.view(Tagged)], "dtype": [np.dtype("f8"), copied(np.dtype("f8"))],
    "fields": [np.dtype([("a", "f8"), ("b", "i4")]), copied(np.dtype([("a", "f8"), ("b", "i4")]))],
    "aligned fields": [np.dtype([("a", "i1"), ("b", "f8")], align=True)], "dtype of arrays": [np.dtype(("f8", 3))],
    "records": [np.array([(1, 2.0)], "i1,f8"), copied(np.array([(1, 2.0)], "i1,f8"))], "empty": [np.zeros((0, 3))],
    "itself": [looped(1, 0), looped(2, 0), copied(looped(3, 0))], "itself with another leaf": [looped(2, 1)],
    "family": [family("abc"), family("cab"), copied(family("bca"))], "other family": [family("abd")],
    "60 levels": [functools.reduce(lambda below, _: [below, below], range(60), 1)],
    "61 levels": [functools.reduce(lambda below, _: [below, below], range(61), 1)],
    "shared": [[[1] * 100] * 2, [[1] * 100, [1] * 100]], "shared text": [["ab"] * 2, ["ab", "".join("ab")]],
}

# Names of plain values and arrays: files and caches made long ago rely on them, on every version of Python and numpy.
GOLDEN_NAMES = {
    "one": "203afea1d313d31b", "one float": "9f74bd5c5f187c8f", "true": "e632b7095b0bf32c",
    "one complex": "593c7baec1dd4993", "text": "f9d57df948ff5a1e", "bytes": "9d60de581d9d969c",
    "none": "8ce86a6ae65d3692", "ellipsis": "cdb4ee2aea69cc6a", "big": "2234efb0b13243b5",
    "empty dict": "2bad7ce13daa88ee", "list": "3ab3b6f245741993", "tuple": "e40461125bb6a7ef",
    "dict": "63ddf4cb14842670", "ordered": "db60f0cc14b9eaf2", "set": "025318906fc7740b",
    "frozenset": "d70c32ee5ac504f6", "mixed keys": "9082e35b5736372a", "date": "33133603a5e1f845",
    "decimal": "8a315a2357aefe38", "object": "98f5cbb75a6f2cda", "array": "bc4f8b28f896f099",
    "fortran": "dc4e6c7a3ebcc113", "big-endian": "8c29ea3f9ed7c94b", "view": "6bad31897e97396f",
    "0-d": "315fcbdeff0f2edf", "scalar": "a917906711babe90", "dates": "dfe591e3365d24ce", "objects": "6dd6b8ba455c09ee",
    "masked": "9fcb66231961e700", "fields": "c1675444b995515c", "records": "9fa74b180ba85c9f",
    "empty": "8afbead1678c7d40", "itself": "4b650b22024cfc3e", "family": "a0556491e08052c8",
    "60 levels": "d5db8ca645397516", "shared": "35f4d481762e391a", "builtin len": "7283548442e6c76f",
    "slots": "7ebe34b338cf6b59", "enum": "7676f3458790ecc7",
}


class TestSection2Hash:
    @pytest.mark.parametrize("name", DIFFERENT_VALUES)
    def test_equal_values_have_one_name(self, name):
        """Only content counts: not identity, sharing, interning, order of dicts and sets, nor how a value was made."""
        values = DIFFERENT_VALUES[name]
        assert len({joblite.hash(value) for value in values}) == 1
        assert len({joblite.hash(["beside", value, {"in": value}]) for value in values}) == 1

    def test_other_values_have_other_names(self):
        """Type, value and layout count, alone and inside a list."""
        for wrap in (lambda value: value, lambda value: [value], lambda value: {"key": (value, 1)}):
            seen = {}
            for name, values in DIFFERENT_VALUES.items():
                other = seen.setdefault(joblite.hash(wrap(values[0])), name)
                assert other == name

    def test_names_are_the_same_in_other_processes(self):
        """No name depends on the hash seed, on addresses, or on the process."""
        code = """
            import collections, decimal, sys, joblite
            from pathlib import Path
            class Node: pass
            node = Node(); node.children = {Node(), Node()}
            for place, child in enumerate(sorted(node.children, key=id)): child.parent, child.place = node, place
            values = [{"a", "b", 1, ("c",)}, frozenset("xyz"), {"k": {"a", "b"}, 2: Path("p")}, collections.Counter("abc"),
                      lambda x: x in {"a", "b"}, decimal.Decimal(1), Node, node, [node, {3: node}]]
            print([joblite.hash(value) for value in values])
            """
        outputs = {run_script(code, env={"PYTHONHASHSEED": seed}).stdout for seed in ("0", "1", "2")}
        assert len(outputs) == 1

    def test_names_never_change(self):
        """Plain values and arrays have the names they always had."""
        found = {name: joblite.hash(DIFFERENT_VALUES[name][0])[:16] for name in GOLDEN_NAMES}
        assert found == GOLDEN_NAMES

    def test_identity_of_parts_never_leaks(self):
        """A list of two equal parts is named alike whether they are one object or two."""
        for values in DIFFERENT_VALUES.values():
            first, last = values[0], values[-1]
            assert joblite.hash([first, first]) == joblite.hash([first, last]) == joblite.hash([last, first])

    def test_shared_parts_cost_once(self):
        """A graph of lists and objects that share their parts takes linear time: 2**60 paths end at once."""
        lists = objects = dicts = (1, "a")
        for _ in range(60):
            lists, objects, dicts = [lists, lists], Plain(a=objects, b=objects), {1: dicts, 2: dicts}
        assert len({joblite.hash(value) for value in (lists, objects, dicts)}) == 3

    def test_recursive_values(self):
        """What holds itself is named by what can be told apart in it, wherever one starts and whatever is shared."""
        a, b = [1], [1]
        a.append(b)
        b.append(a)
        assert joblite.hash(a) == joblite.hash(b) == joblite.hash(looped(1, 1)) == joblite.hash(looped(5, 1))
        b[0] = 2
        assert joblite.hash(a) != joblite.hash(b)
        assert joblite.hash([a, a]) == joblite.hash([a, copied(a)])
        ring = [Plain(number=number) for number in range(300)]
        for place, node in enumerate(ring):
            node.next, node.previous = ring[(place + 1) % 300], ring[place - 1]
        assert joblite.hash(ring) == joblite.hash(copied(ring))
        ring[7].number = 8
        assert joblite.hash(ring) != joblite.hash(ring[1:])

    def test_instances_that_hold_their_own_methods(self):
        """Two objects that keep a wrapper of their own method are named alike."""
        def make(value):
            obj = Plain(value=value)
            obj.wrapped = functools.partial(obj.method)
            return obj

        assert joblite.hash(make(1)) == joblite.hash(make(1)) != joblite.hash(make(2))

    @pytest.mark.parametrize("dtype", ["f8", "M8[ns]", "i1,f8", "S3"])
    @pytest.mark.parametrize("view", ["array", "array[::2]", "array[::-1]", "array.T", "array[:, 1:3]", "array[5]"])
    def test_big_arrays_are_named_like_their_copies(self, view, dtype):
        """Whatever the strides, an array of several blocks is named like its C copy, in threads as in one piece."""
        array = np.arange(300_000).astype("i8").reshape(-1, 6).astype("f8").astype(dtype)
        array = eval(view, {"array": array})
        copy = array.copy("F" if view == "array.T" else "C")
        assert joblite.hash(array) == joblite.hash(copy)

    def test_names_do_not_depend_on_the_number_of_threads(self):
        """One core gives the name that two give."""
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
        assert joblite.hash(mapped, coerce_mmap=True) == joblite.hash(array, coerce_mmap=True) == joblite.hash(array)
        assert joblite.hash([mapped], coerce_mmap=True) == joblite.hash([array])

    def test_gaps_between_fields_do_not_count(self):
        """Equal records are named alike whatever the padding bytes hold."""
        dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
        zeros, ones = np.zeros(64, "u1"), np.full(64, 255, "u1")
        first, second = zeros.view(dtype).copy(), ones.view(dtype).copy()
        second["a"] = second["b"] = 0
        assert joblite.hash(first) == joblite.hash(second)

    def test_long_doubles_count_by_value(self):
        first = np.zeros(4, "g")
        second = np.full(first.nbytes, 255, "u1").view("g").copy()
        second[:] = 0
        assert joblite.hash(first) == joblite.hash(second) != joblite.hash(first + 1)

    def test_local_functions_and_classes_are_named_by_what_they_do(self):
        def make(text, extra):
            class Local:
                value = text

                def method(self):
                    return super().__repr__() + extra

            return Local

        assert joblite.hash(make("a", "b")) == joblite.hash(make("a", "b"))
        names = {joblite.hash(make("a", "b")), joblite.hash(make("a", "c")), joblite.hash(make("b", "b"))}
        assert len(names) == 3
        assert joblite.hash(make("a", "b")()) == joblite.hash(make("a", "b")())
        first, second = eval("lambda x: x + 1"), eval("lambda x: x + 2")
        assert joblite.hash(first) != joblite.hash(second)

    def test_functions_name_the_globals_they_use(self):
        """A function that cannot be imported changes its name with a global that it reads."""
        scope = {"factor": 2}
        exec("helper = lambda x: x * factor\ncaller = lambda x: helper(x) + 1", scope)
        before = joblite.hash(scope["caller"])
        assert joblite.hash(scope["caller"]) == before
        scope["factor"] = 3
        assert joblite.hash(scope["caller"]) != before

    def test_name_of_is_asked_for_importable_functions_and_classes(self):
        """The engine under `hash` mixes in what Memory knows about functions and classes."""
        asked = []

        def name_of(obj):
            asked.append(obj)
            return "fingerprint" if obj is Point else None

        plain, mixed = joblite._digest([Point(1), Point(2), copied]), joblite._digest([Point(1), Point(2), copied], name_of=name_of)
        assert plain == joblite.hash([Point(1), Point(2), copied]) != mixed
        assert Point in asked and copied in asked
        assert joblite._digest([copied], name_of=name_of) == joblite.hash([copied])

    @pytest.mark.parametrize("hash_name", ["md5", "sha1", "sha256", "blake2b", "sha3_256"])
    def test_every_algorithm_of_hashlib(self, hash_name):
        names = {joblite.hash(value, hash_name) for value in (1, [1], {"a": ARRAY}, looped(1, 1), np.zeros(400_000))}
        assert {len(name) for name in names} == {2 * hashlib.new(hash_name).digest_size}
        assert len(names) == 5

    @pytest.mark.parametrize("hash_name", ["md4711", "shake_128", None, ""])
    def test_unknown_algorithm_is_refused_with_the_valid_ones(self, hash_name):
        with pytest.raises(ValueError, match="hash_name: expected one of .*md5.*sha256.*; got"):
            joblite.hash(1, hash_name)

    @pytest.mark.parametrize("value", [threading.Lock(), (x for x in ()), [1, {"a": threading.Lock()}], sys.stderr],
                             ids=["lock", "generator", "nested lock", "stream"])
    def test_what_cannot_be_pickled_has_no_name(self, value):
        with pytest.raises(pickle.PicklingError, match="cannot name an object of type .*pickle"):
            joblite.hash(value)

    def test_too_deep_values_are_refused_in_words(self):
        deep = functools.reduce(lambda below, _: [below, object()], range(100_000), 1)
        with pytest.raises(pickle.PicklingError, match="nested too deeply"):
            joblite.hash(deep)
        while deep != 1:  # taken apart step by step: to free it at once would be as deep
            deep = deep[0]

    def test_register_hasher_names_by_what_the_function_gives(self):
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
            joblite._HASHERS.clear()
        with pytest.raises(TypeError, match="expected a class and a function"):
            joblite.register_hasher("Handle", len)

    def test_numpy_is_not_needed_and_not_imported(self):
        done = run_script("""
            import sys, datetime, joblite
            print(joblite.hash([1, {"a": datetime.date(2020, 1, 1)}, {1, 2}, len, lambda: 0])[:4] != "", "numpy" in sys.modules)
            """)
        assert done.stdout.split() == ["True", "False"]

    @needs("pandas")
    def test_equal_frames_have_one_name_whatever_their_blocks(self):
        import pandas as pd

        columns = {"a": [1, 2], "b": [1.5, 2.5], "c": ["x", None], "d": [3, 4]}
        whole = pd.DataFrame(columns)
        grown = pd.DataFrame({"a": [1, 2]})
        for name in "bcd":
            grown[name] = columns[name]
        rows = pd.concat([whole[:1], whole[1:]])
        assert joblite.hash(whole) == joblite.hash(grown) == joblite.hash(rows) == joblite.hash(copied(whole))
        changed = whole.copy()
        changed.loc[1, "d"] = 5
        names = {joblite.hash(frame) for frame in (whole, changed, whole[["b", "a", "c", "d"]], whole.rename(columns={"a": "z"}),
                                                   whole.set_index("a"), whole.astype({"a": "f8"}), whole["a"], whole.index)}
        assert len(names) == 8

    @needs("pandas")
    @pytest.mark.parametrize("make", [
        lambda pd: pd.Series([1, None], dtype="Int64"), lambda pd: pd.Series(["a", "b", "a"], dtype="category"),
        lambda pd: pd.Series(pd.to_datetime(["2020-01-01", None], utc=True)), lambda pd: pd.Series(["a", None]),
        lambda pd: pd.date_range("2020", periods=3), lambda pd: pd.MultiIndex.from_product([[1, 2], ["a", "b"]]),
        lambda pd: pd.interval_range(0, 3), lambda pd: pd.Index(["x", "y"], name="n"), lambda pd: pd.Timestamp("2020-01-01"),
        lambda pd: pd.Series([1, 2], dtype="Sparse[int]"), lambda pd: pd.period_range("2020", periods=2, freq="M"),
    ])
    def test_pandas_values_have_one_name_each(self, make):
        import pandas as pd

        assert joblite.hash(make(pd)) == joblite.hash(make(pd)) == joblite.hash(copied(make(pd)))
        assert joblite.hash([make(pd), make(pd)]) == joblite.hash([make(pd)] * 2)

    @needs("pandas")
    def test_range_index_is_named_like_its_numbers(self):
        import pandas as pd

        assert joblite.hash(pd.RangeIndex(3)) == joblite.hash(pd.Index([0, 1, 2])) != joblite.hash(pd.Index([0.0, 1, 2]))

    @needs("torch")
    def test_tensors_are_named_by_content(self):
        import torch

        tensor = torch.arange(6.0).reshape(2, 3)
        assert joblite.hash(tensor) == joblite.hash(tensor.clone()) == joblite.hash(tensor.T.clone().T.contiguous())
        assert len({joblite.hash(each) for each in (tensor, tensor.double(), tensor.reshape(3, 2), tensor + 1)}) == 4
        assert joblite.hash(tensor.bfloat16()) == joblite.hash(tensor.bfloat16())


def square_text(n):
    """A task of section 4: a text of some length."""
    return str(n * n) * 100


JOB = '''
"""A job."""
import sys

import joblite
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


@memory.cache
@decorated
def work(x, extra=2):
    """What it does."""
    CALLS.append(x)
    from late import late_helper
    total = helper(x) + RATE + extra
    total += by(x) + TABLE["a"][0] + other.CONSTANT
    total += other.deep(x) + Shape(x).area() + late_helper(x)
    return [total, installed(x), sorted({"x", "y"})]


kept = work.check_call_in_cache(7)
value = work(7)
print("hits" if kept else "computes", not CALLS, value, work.func(7) == value)
'''
OTHER = '''
CONSTANT = 1
def deeper(x): return x + 1
def deep(x): return deeper(x)
'''
SHAPES = '''
class Base:
    unit = 1
    def area(self): return self.side ** 2 * self.unit
class Shape(Base):
    def __init__(self, side): self.side = side
'''
FILES = {"job.py": JOB, "other.py": OTHER, "shapes.py": SHAPES, "late.py": "def late_helper(x): return x\n",
         "site-packages/packaged.py": "def installed(x): return 'v1'\n"}

EDITS = {  # what is edited: (file, text before, text after, what the next run does)
    "nothing": ("job.py", "", "", "hits"),
    "a comment": ("job.py", "total = helper", "# a remark\n    total = helper", "hits"),
    "a blank line": ("job.py", "    return [total", "\n\n    return [total", "hits"),
    "the docstring": ("job.py", "What it does", "What it really does", "hits"),
    "the docstring goes": ("job.py", '    """What it does."""\n', "", "hits"),
    "place in the file": ("job.py", "RATE = 3", "RATE = 3\n" + "\n" * 30, "hits"),
    "a local name": ("job.py", "total", "amount", "hits"),
    "an annotation": ("job.py", "def work(x, extra=2)", "def work(x: int, extra: int = 2) -> list", "hits"),
    "an unused function": ("job.py", "by = make(5)", "by = make(5)\ndef unused(): pass", "hits"),
    "a helper's comment": ("other.py", "def deep(x): return", "def deep(x):\n    # a remark\n    return", "hits"),
    "a class's docstring": ("shapes.py", "    unit", "    'Text.'\n    unit", "hits"),
    "a place in a class's file": ("shapes.py", "class Base", "\n\n\nclass Base", "hits"),
    "a constant": ("job.py", "+ extra", "+ extra + 1", "computes"),
    "the type of a constant": ("job.py", "+ extra", "+ extra + 0.0", "computes"),
    "a set of constants": ("job.py", '{"x", "y"}', '{"x", "z"}', "computes"),
    "a default": ("job.py", "extra=2", "extra=4", "computes"),
    "a closure's value": ("job.py", "make(5)", "make(6)", "computes"),
    "a helper": ("job.py", "x * factor", "x * factor + 1", "computes"),
    "a helper's default": ("job.py", "factor=10", "factor=11", "computes"),
    "a helper of another module": ("other.py", "return deeper(x)", "return deeper(x) + 1", "computes"),
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
    "an installed package": ("site-packages/packaged.py", "v1", "v2", "hits"),  # not followed: the README says so
}


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
    done = subprocess.run([sys.executable, str(Path(folder, script)), *map(str, args)], env=env, cwd=folder,
                          capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def entry_files(location):
    """The files of the kept calls in a cache folder."""
    return sorted(path for path in Path(location, "joblite", "v1").glob("*/*/*"))


def snapshot(folder):
    """Everything that a look into a folder can tell, apart from times of access."""
    return sorted((str(path), path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
                  for path in Path(folder).rglob("*"))


@pytest.fixture
def memory(tmp_path):
    """A Memory in a fresh folder."""
    return joblite.Memory(tmp_path / "cache", verbose=0)


@pytest.fixture(params=["disk", "memory"])
def any_memory(request, tmp_path):
    """A Memory of each kind."""
    return joblite.Memory(tmp_path / "cache" if request.param == "disk" else None, verbose=0)


def counted(function=None):
    """A function that counts its calls in `.calls`, a list that nothing reads inside it."""
    calls = []

    @functools.wraps(function or (lambda x: x))
    def counting(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs) if function else args[0]

    counting.calls = calls
    return counting


class TestSection4Memory:
    # ---- the fingerprint

    @pytest.mark.parametrize("edit", EDITS)
    def test_an_edit_of_the_source_hits_or_recomputes(self, edit, tmp_path):
        """After each edit a fresh process hits or recomputes as expected, is never stale, and after undoing it hits."""
        name, before, after, expected = EDITS[edit]
        folder, cache = project(tmp_path / "project"), tmp_path / "cache"
        assert run_job(folder, cache).split()[:2] == ["computes", "False"]
        Path(folder, name).write_text(FILES[name].replace(before, after) if before else FILES[name])
        kept, untouched, *_, fresh = run_job(folder, cache).split()
        assert (kept, untouched) == (expected, str(expected == "hits"))
        assert fresh == str(edit != "an installed package")
        project(folder)
        assert run_job(folder, cache).split()[:2] == ["hits", "True"]

    def test_a_moved_project_and_cache_hit(self, tmp_path):
        """Neither the folder of the sources nor that of the cache is part of a name."""
        folder, cache = project(tmp_path / "project"), tmp_path / "cache"
        run_job(folder, cache)
        folder.rename(tmp_path / "elsewhere")
        cache.rename(tmp_path / "moved")
        assert run_job(tmp_path / "elsewhere", tmp_path / "moved").startswith("hits True")

    def test_a_change_while_running_is_noticed(self, memory):
        """Globals, their content, helpers, code, closures and classes are looked at again at each call."""
        space = {"__name__": "changing", "memory": memory}
        exec(textwrap.dedent("""
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
            """), space)
        cached, f = space["cached"], space["f"]

        def changes():
            space["RATE"] = 2
            yield
            space["TABLE"]["a"][0] = 2
            yield
            space["Config"].scale = 2
            yield
            space["helper"] = lambda x: -x
            yield
            space["set_step"](2)
            yield
            f.__code__ = (lambda step: lambda x: (step, "new"))(0).__code__
            yield

        assert cached(5) == f(5)
        for _ in changes():
            assert not cached.check_call_in_cache(5)
            assert cached(5) == f(5)
            assert cached.check_call_in_cache(5)

    def test_closures_and_lambdas_have_their_own_results(self, any_memory):
        """Two closures of one factory, two lambdas on one line, one lambda as argument: never mixed up."""
        def factory(step):
            return any_memory.cache(lambda x: x + step)

        one, two = factory(1), factory(2)
        first, second = any_memory.cache(lambda x: x * 2), any_memory.cache(lambda x: x * 3)
        apply = any_memory.cache(lambda function, x: function(x))
        assert [one(1), two(1), first(5), second(5)] == [2, 3, 10, 15]
        assert [apply(lambda x: x + 1, 1), apply(lambda x: x + 2, 1)] == [2, 3]

    def test_functions_and_classes_in_arguments_count_by_their_code(self, tmp_path):
        """A project function or an instance of a project class as an argument brings its code into the key."""
        job = textwrap.dedent("""
            import sys, joblite
            from part import double, Scaler
            memory = joblite.Memory(sys.argv[1], verbose=0)
            @memory.cache
            def apply(function, scaler, x): return [function["f"](x), scaler.run(x)]
            print(apply.check_call_in_cache({"f": double}, Scaler(), 2), apply({"f": double}, Scaler(), 2))
            """)
        part = "def double(x): return 2 * x\nclass Scaler:\n    def run(self, x): return 3 * x\n"
        folder = project(tmp_path, {"job.py": job, "part.py": part})
        assert run_job(folder, "cache") == "False [4, 6]\n"
        assert run_job(folder, "cache") == "True [4, 6]\n"
        project(folder, {"part.py": part.replace("2 * x", "5 * x")})
        assert run_job(folder, "cache") == "False [10, 6]\n"
        project(folder, {"part.py": part.replace("3 * x", "7 * x")})
        assert run_job(folder, "cache") == "False [4, 14]\n"

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
        """After importlib.reload the new code counts; a source file deleted after import changes nothing."""
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
        for old, new in [("return 1", "return 10"), ("yield 2", "yield 20"), ("3, 1", "30, 1"), ("return 4", "return 40")]:
            changed = cached_version(old, new)
            assert not changed.check_call_in_cache(0), old
            assert changed(0) == changed.func(0)
        assert cached_version("", "").check_call_in_cache(0)

    def test_depends_version_and_key_say_what_counts(self, memory, tmp_path):
        """depends adds files, functions and values; version replaces the code; key replaces the arguments."""
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
        by_length = memory.cache(lambda text: text.upper(), key=lambda text: len(text))
        assert [by_length("abc"), by_length("xyz"), by_length("four")] == ["ABC", "ABC", "FOUR"]

    def test_a_notebook_cell_hits_again_and_a_copy_of_the_notebook_too(self, tmp_path):
        """Functions of cells: run again hits, edited recomputes, another notebook with the same cell hits."""
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
        runs = [("1", cell), ("7", cell), ("8", "\n# again\n" + cell), ("9", cell.replace("OFFSET = 1", "OFFSET = 2"))]
        done = [run_script(code, cache, *run).stdout for run in runs]
        assert done == ["False 2\n", "True 2\n", "True 2\n", "False 3\n"]

    # ---- the arguments

    def test_spellings_of_one_call_are_one_entry(self, any_memory):
        """Positional, keyword and default spellings are one key; other arguments are another."""
        function = counted(lambda a, /, b, *rest, c=3, **more: (a, b, rest, c, more))
        cached = any_memory.cache(function)
        same = [cached(1, 2), cached(1, b=2), cached(1, b=2, c=3), cached(1, 2, c=3)]
        assert same == [(1, 2, (), 3, {})] * 4
        assert len(function.calls) == 1
        assert cached(1, 2, 3) == (1, 2, (3,), 3, {})
        assert cached(1, 2, z=1, y=2) == cached(1, 2, y=2, z=1)
        assert cached(1, 2, a=5) == (1, 2, (), 3, {"a": 5})
        assert len(function.calls) == 4

    def test_arguments_of_another_type_are_another_call(self, any_memory):
        """1, 1.0, True and "1" are four calls; equal dicts in another order are one."""
        cached = any_memory.cache(lambda x: repr(x))
        assert [cached(x) for x in (1, 1.0, True, "1", None, b"1", [1], (1,))] == [
            "1", "1.0", "True", "'1'", "None", "b'1'", "[1]", "(1,)"]
        assert cached({"a": 1, "b": 2}) == cached({"b": 2, "a": 1})

    def test_wrong_arguments_raise_what_the_plain_call_raises(self, any_memory):
        """TypeError with the interpreter's own text, and nothing is kept."""
        def plain(a, b=1): return a

        cached = any_memory.cache(plain)
        for args, kwargs in [((), {}), ((1, 2, 3), {}), ((1,), {"a": 2}), ((1,), {"z": 2})]:
            with pytest.raises(TypeError) as wanted:
                plain(*args, **kwargs)
            with pytest.raises(TypeError) as got:
                cached(*args, **kwargs)
            assert str(got.value) == str(wanted.value)
        assert cached.entries() == []

    def test_ignored_arguments_do_not_matter(self, any_memory):
        """ignore works by name, through functools.wraps, for *args and **kwargs; an unknown name is an error."""
        function = counted(lambda x, y=1: (x, y))
        cached = any_memory.cache(function, ignore=["y"])
        assert [cached(1, 2), cached(1, y=3), cached(1)] == [(1, 2)] * 3
        more = any_memory.cache(lambda x, *args, **kwargs: (x, args, kwargs), ignore=["*", "**"])
        assert more(1, 2, a=3) == more(1, 5, b=4)
        with pytest.raises(ValueError, match=r"ignore: expected names of arguments .*\(x, y.*got \['z'\]"):
            any_memory.cache(function, ignore=["z"])

    def test_a_function_that_changes_its_argument_keeps_the_right_key(self, any_memory):
        """Arguments are named before the call."""
        cached = any_memory.cache(lambda items: items.append(0) or len(items))
        assert [cached([1]), cached([1]), cached([1, 0])] == [2, 2, 3]

    def test_an_argument_that_cannot_be_named_is_an_error_that_says_what_to_do(self, any_memory):
        cached = any_memory.cache(lambda lock: 1)
        with pytest.raises(pickle.PicklingError, match="argument 'lock' of type lock.*ignore=\\['lock'\\].*key="):
            cached(threading.Lock())

    def test_a_changed_result_does_not_change_the_cache(self, any_memory):
        cached = any_memory.cache(lambda: [1, 2])
        cached().append(3)
        cached().append(4)
        assert cached() == [1, 2]

    # ---- what can be cached

    def test_methods_bind_and_count_their_object(self, any_memory):
        """Methods, classmethods and staticmethods, in both orders of decorators; the state of self is an argument."""
        class Thing:
            def __init__(self, state): self.state = state
            @any_memory.cache
            def method(self, x): return (self.state, x)
            @classmethod
            @any_memory.cache
            def of_class(cls, x): return (cls.__name__, x)
            @any_memory.cache
            @classmethod
            def of_class_too(cls, x): return (cls.__name__, x)
            @staticmethod
            @any_memory.cache
            def static(x): return x
            @any_memory.cache
            @staticmethod
            def static_too(x): return x

        one, two = Thing(1), Thing(2)
        assert [one.method(5), two.method(5), Thing(1).method(x=5)] == [(1, 5), (2, 5), (1, 5)]
        assert one.method.check_call_in_cache(5) and not one.method.check_call_in_cache(6)
        assert [Thing.of_class(1), one.of_class_too(1), Thing.of_class_too(1)] == [("Thing", 1)] * 3
        assert [Thing.static(1), one.static(2), Thing.static_too(1), one.static_too(2)] == [1, 2, 1, 2]
        assert len(Thing.of_class_too.entries()) == 1
        one.state = 9
        assert one.method(5) == (9, 5)

    def test_a_bound_method_cached_in_init_works(self, any_memory):
        """The classic `self.f = memory.cache(self.f)`; two such objects of equal content share results."""
        class Thing:
            def __init__(self, state):
                self.state = state
                self.run = any_memory.cache(self.run)
            def run(self, x): return (self.state, x)

        assert [Thing(1).run(2), Thing(3).run(2)] == [(1, 2), (3, 2)]
        assert Thing(1).run.check_call_in_cache(2)

    @needs("numpy")
    def test_partials_ufuncs_builtins_and_callable_objects_cache(self, any_memory):
        import numpy as np

        class Adder:
            def __init__(self, n): self.n = n
            def __call__(self, x): return x + self.n

        half, third = functools.partial(pow, 2), functools.partial(pow, 3)
        for function in (half, third, Adder(1), Adder(2), np.add.reduce, math.gcd, max, int):
            cached = any_memory.cache(function)
            args = ([4, 6],) if function in (np.add.reduce, max) else (4, 6) if function is math.gcd else (4,)
            assert cached(*args) == cached(*args) == function(*args)
            assert cached.check_call_in_cache(*args)
        assert any_memory.cache(np.multiply)(3, 4) == 12

    def test_generators_are_refused(self, any_memory):
        def numbers(): yield 1

        async def later(): yield 1

        for function in (numbers, later):
            with pytest.raises(TypeError, match="got a generator function.*return a list"):
                any_memory.cache(function)
        with pytest.raises(TypeError, match="expected a function, got 3"):
            any_memory.cache(3)

    def test_coroutine_functions_are_awaited_and_computed_once(self, any_memory):
        """Many tasks with one missing call: one computes, the others wait without blocking the loop."""
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
            return many, value, about["input_args"], shelved.get(), await any_memory.eval(fetch.func, 1)

        assert asyncio.run(main()) == ([[n % 3] for n in range(60)], [1], {"x": "1"}, [2], [1])
        assert sorted(calls) == [0, 1, 1, 2]

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
        assert str(memory.location) in repr(cached) and "documented" in repr(cached)
        assert str(memory.location) in repr(memory)

    def test_memory_and_cached_functions_pickle(self, any_memory, tmp_path):
        """By name where they can be imported, by their parts otherwise; bound ones with their object."""
        copy = pickle.loads(pickle.dumps(any_memory))
        assert (copy.location, copy.verbose, copy.backend) == (any_memory.location, 0, "local")
        again = pickle.loads(pickle.dumps(any_memory.cache(math.sqrt)))
        assert again(4) == 2.0
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

    # ---- questions and small services

    def test_questions_change_nothing(self, memory, recwarn):
        """check_call_in_cache, entries and explain write, delete, compute and warn of nothing, even over damage."""
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
        assert re.match(r"hits: computed \d+ s ago", cached.explain(1, 2))
        assert cached.explain(1, 3) == "computes: the argument y differs: 3, kept are 2"
        space["RATE"] = 5
        assert cached.explain(1, 2) == "computes: the function changed since: explained.RATE"
        exec(source.replace("x * RATE", "x"), space)
        assert "explained.helper" in memory.cache(space["f"]).explain(1, 2)
        refusing = memory.cache(math.sqrt, cache_validation_callback=lambda about: None)
        refusing(4)
        assert "refused by the callback" in refusing.explain(4)
        expired = memory.cache(math.sqrt, cache_validation_callback=joblite.expires_after(seconds=0))
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
        function = counted(lambda x, y=1: x)
        cached = any_memory.cache(function)
        (first, about), (second, _) = cached.call(3), cached.call(3)
        assert (first, second, len(function.calls), cached(3), len(function.calls)) == (3, 3, 2, 3, 2)
        assert about["input_args"] == {"x": "3", "y": "1"} and about["duration"] >= 0 and about["time"] > 0

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

    def test_a_validation_callback_decides(self, any_memory):
        """It gets the metadata; any false answer recomputes; what is not callable is refused."""
        seen, answers, function = [], [True, None, True], counted()
        cached = any_memory.cache(function, cache_validation_callback=lambda about: seen.append(about) or answers.pop(0))
        assert [cached(1) for _ in range(4)] == [1] * 4
        assert len(function.calls) == 2
        assert all({"time", "duration", "input_args"} <= set(about) for about in seen)
        with pytest.raises(ValueError, match="cache_validation_callback: expected a function or None, got 5"):
            any_memory.cache(function, cache_validation_callback=5)

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
        modes = {path: path.stat().st_mode & 0o777 for path in [base.parent, *base.rglob("*")] if path.name != ".gitignore"}
        assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
        assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
        assert (tmp_path / "shared" / "joblite" / "v1").stat().st_mode & 0o777 == 0o770
        assert len(recwarn) == 0
        base.chmod(0o777)
        with pytest.warns(UserWarning, match="other users can write to this cache.*chmod go-w"):
            joblite.Memory(memory.location)

    def test_a_location_is_a_text_or_a_path_and_made_absolute(self, tmp_path, monkeypatch):
        """After os.chdir the same folder is meant; odd characters are fine."""
        monkeypatch.chdir(tmp_path)
        odd = "caché 'x' %s\n#"
        one, two = joblite.Memory(odd, verbose=0), joblite.Memory(Path(odd), verbose=0)
        assert one.location == two.location == str(tmp_path / odd)
        one.cache(math.sqrt)(4)
        monkeypatch.chdir("/")
        assert two.cache(math.sqrt).check_call_in_cache(4)

    def test_bad_settings_are_refused_with_the_choices(self, tmp_path):
        cases = [({"mmap_mode": "x"}, "mmap_mode: expected None, 'r'"), ({"backend": "s3"}, "backend: expected one of.*local"),
                 ({"bytes_limit": "lots"}, "bytes_limit: expected bytes"), ({"compress": "rar"}, "."),
                 ({"backend_options": {"speed": 1}}, "backend_options: expected options of the backend 'local'.*'mode'")]
        for options, text in cases:
            with pytest.raises(ValueError, match=text):
                joblite.Memory(tmp_path, **options)

    def test_verbose_says_what_happens_on_stderr_only(self, tmp_path, capsys):
        for verbose, expected in [(0, []), (1, []), (2, ["computed"]), (3, ["computed", "read"])]:
            cached = joblite.Memory(tmp_path / str(verbose), verbose=verbose).cache(math.sqrt)
            cached(4), cached(4)
            out, err = capsys.readouterr()
            assert out == "" and [word for word in ("computed", "read") if word in err] == expected
        with_closed_stderr = "import sys, math, joblite\nsys.stderr = None\n" \
                             "print(joblite.Memory(sys.argv[1], verbose=3).cache(math.sqrt)(4))"
        assert run_script(with_closed_stderr, tmp_path).stdout == "2.0\n"

    @needs("numpy")
    def test_arrays_of_a_hit_are_mapped_in_every_mode(self, tmp_path):
        """None reads; r and c protect the cache; r+ and w+ write through; compress excludes mapping with a warning."""
        import numpy as np

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
        with pytest.warns(UserWarning, match="mmap_mode and compress exclude each other"):
            packed = joblite.Memory(tmp_path / "z", verbose=0, mmap_mode="r", compress=True).cache(cached.func)
        packed()
        assert type(packed()) is np.ndarray

    @pytest.mark.parametrize("compress", [False, True, 0, 9, "zlib", "gzip", "bz2", "lzma", "xz", ("zlib", 1)])
    def test_compressed_results_come_back(self, compress, tmp_path):
        cached = joblite.Memory(tmp_path, verbose=0, compress=compress).cache(lambda: "text" * 100000)
        assert cached() == cached() == "text" * 100000
        assert (sum(path.stat().st_size for path in entry_files(tmp_path)) < 100000) == bool(compress)

    @needs("cloudpickle")
    def test_the_cloudpickle_backend_keeps_lambdas_and_local_classes(self, tmp_path):
        cached = joblite.Memory(tmp_path, backend="cloudpickle", verbose=0).cache(lambda n: lambda x: x + n)
        assert cached(1)(1) == cached(1)(1) == 2
        assert cached.check_call_in_cache(1)

    def test_a_missing_cloudpickle_is_said_at_once(self, tmp_path):
        code = """
            import sys, joblite
            sys.modules["cloudpickle"] = None
            try: joblite.Memory(sys.argv[1], backend="cloudpickle")
            except ImportError as err: print(err)
            """
        assert "pip install cloudpickle" in run_script(code, tmp_path).stdout

    def test_the_null_backend_keeps_nothing(self, tmp_path):
        function = counted()
        cached = joblite.Memory(tmp_path / "none", backend="null", verbose=0).cache(function)
        assert [cached(1), cached(1), len(function.calls), list(tmp_path.iterdir())] == [1, 1, 2, []]

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
        limited = joblite.Memory(tmp_path / "b", verbose=0, bytes_limit=10 * size + size // 2).cache(cached.func)
        for n in range(10):
            limited(n)
        for n in (3, 0, 7):
            limited(n)
        for n in range(10, 17):
            limited(n)
        assert [n for n in range(17) if limited.check_call_in_cache(n)] == [0, 3, 7, *range(10, 17)]

    def test_the_limit_holds_after_every_write(self, tmp_path):
        """Also for entries of many sizes; one that is larger than the limit is returned and not kept."""
        cached = joblite.Memory(tmp_path, verbose=0, bytes_limit="20K").cache(lambda n: b"x" * n)
        for n in [100, 5000, 300, 9000, 19000, 50000, 7, 8000, 12000]:
            assert len(cached(n)) == n
            assert sum(path.stat().st_size for path in entry_files(tmp_path)) <= 20 * 1024
        assert not cached.check_call_in_cache(50000)

    def test_two_limits_on_one_folder_do_no_harm(self, tmp_path):
        small, large, free = (joblite.Memory(tmp_path, verbose=0, bytes_limit=limit).cache(square_text)
                              for limit in ("8K", "80K", None))
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
        any_memory.reduce_size("3K")
        assert 1 <= len(cached.entries()) <= 3
        any_memory.reduce_size(items_limit=0)
        assert cached.entries() == []
        with pytest.raises(ValueError, match="age_limit: expected a positive timedelta"):
            any_memory.reduce_size(age_limit=datetime.timedelta(0))

    # ---- bad luck

    def test_a_hit_opens_one_file(self, memory):
        """The audit hook of Python sees one open, no listing, no lock and no writing."""
        cached = memory.cache(lambda x: x)
        cached(1), cached(1)
        seen = []
        watched = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "fcntl.lockf", "os.utime"}
        on = [True]
        sys.addaudithook(lambda event, args: on and event in watched and seen.append(event))
        cached(1)
        on.clear()
        assert seen == ["open"]

    def test_a_flipped_bit_never_lies(self, memory):
        """200 flips at random places: the right value each time, and a warning whenever it was computed again."""
        function = counted(lambda x: {"text": "abc" * 50, "numbers": list(range(50))})
        cached = memory.cache(function)
        wanted = cached(1)
        [path] = entry_files(memory.location)
        whole, random = path.read_bytes(), __import__("random").Random(1)
        for _ in range(200):
            place = random.randrange(len(whole) * 8)
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            path.write_bytes(damaged)
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
        }
        for number, (name, damage) in enumerate(damages.items()):
            cached(f"{name} 1"), cached(f"{name} 2")
            damage(*[Path(memory.location, "joblite", "v1", cached._name((f"{name} {n}",), {}).key) for n in (1, 2)])
            calls = len(function.calls)
            with pytest.warns(UserWarning, match="counts as missing") as told:
                assert cached(f"{name} 1") == [f"{name} 1"] * 100
            assert (len(told), len(function.calls) - calls) == (1, 1), name
            assert cached(f"{name} 1") and len(function.calls) - calls == 1

    def test_a_value_that_cannot_be_pickled_is_returned_with_one_warning(self, any_memory):
        cached = any_memory.cache(lambda x: threading.Lock())
        with pytest.warns(UserWarning, match="its value of type lock cannot be kept in") as told:
            assert cached(1).acquire() and cached(1).acquire()
        assert len(told) == 1
        if any_memory.location:
            assert any_memory.location in str(told[0].message)
            assert not list(Path(any_memory.location, "joblite", "v1", "tmp").iterdir())
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
        """As another user: old results are read, new ones computed each time, one warning names the folder."""
        code = """
            import os, sys, warnings, joblite
            def f(x): calls.append(x); return x
            calls = []
            cache = joblite.Memory(sys.argv[1], verbose=0).cache(f)
            cache(1)
            os.system(f"chmod -R a+rX {sys.argv[1]}; chmod -R a-w {sys.argv[1]}")
            if os.getuid() == 0: os.setuid(12345)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                print(cache(1), cache(2), cache(2), len(calls), [sys.argv[1] in str(each.message) for each in told])
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
        """A real file system of 2 MB: the value is returned, one warning names the folder, no partial file stays."""
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]).returncode:
            pytest.skip("mounting a tmpfs is not allowed here")
        try:
            cached = joblite.Memory(disk, verbose=0).cache(lambda n: os.urandom(n))
            with pytest.warns(UserWarning, match=f"{re.escape(str(disk))}.*No space left") as told:
                assert [len(cached(n)) for n in (3 << 20, 5 << 20)] == [3 << 20, 5 << 20]
            assert len(told) == 1
            assert len(cached(1000)) == 1000 and cached.check_call_in_cache(1000)
            assert not list((disk / "joblite" / "v1" / "tmp").iterdir())
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

    # ---- many at once

    def test_threads_compute_a_missing_call_once(self, any_memory):
        """Eight threads, one key; also through two Memory objects on one folder."""
        function = counted(lambda x: wait_until(lambda: len(waiting) == 8 and [x]))
        other = joblite.Memory(any_memory.location, verbose=0) if any_memory.location else any_memory
        cached, waiting, values = [each.cache(function, version=1) for each in (any_memory, other)], [], []

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
    def test_processes_compute_a_missing_call_once(self, tmp_path):
        """Eight processes on a fresh folder that start together."""
        code = """
            import os, sys, time, joblite
            def f(x):
                with open(sys.argv[2], "a") as file: file.write("called\\n")
                time.sleep(0.3)
                return x
            f = joblite.Memory(sys.argv[1], verbose=0).cache(f, version=1)
            pids = []
            ready, go = os.pipe()
            for n in range(8):
                pid = os.fork()
                if pid == 0:
                    os.close(go)
                    os.read(ready, 1)
                    os._exit(f(7) != 7)
                pids.append(pid)
            os.close(go)
            print([os.waitpid(pid, 0)[1] for pid in pids])
            """
        log = tmp_path / "log"
        assert run_script(code, tmp_path / "cache", log).stdout == f"{[0] * 8}\n"
        assert log.read_text() == "called\n"

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
        """Eight processes, 300 calls each on overlapping keys under a tight limit, two of them clearing: no error."""
        code = """
            import os, random, sys, warnings, joblite
            warnings.simplefilter("error")
            def f(n): return {"n": n, "text": "x" * (n * 37 % 3000)}
            def work(number):
                memory = joblite.Memory(sys.argv[1], verbose=0, bytes_limit=None if number == 7 else "30K")
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
        """50 writers killed at random moments: every entry is whole, the limit still holds, half-written files go."""
        code = """
            import random, sys, joblite
            cached = joblite.Memory(sys.argv[1], verbose=0, bytes_limit="200K").cache(lambda n: [n] * 5000, version=1)
            print("ready", flush=True)
            generator = random.Random(int(sys.argv[2]))
            while True:
                n = generator.randrange(1000)
                assert cached(n) == [n] * 5000
            """
        script = tmp_path / "writer.py"
        script.write_text(textwrap.dedent(code))
        cache, generator = tmp_path / "cache", __import__("random").Random(0)
        for start in range(0, 50, 5):
            writers = [subprocess.Popen([sys.executable, str(script), str(cache), str(n)], env=script_env(),
                                        stdout=subprocess.PIPE) for n in range(start, start + 5)]
            for writer in writers:
                writer.stdout.readline()
            for writer in writers:
                threading.Event().wait(generator.random() * 0.05)  # the moment of death is random: that is the test
                writer.kill()
                writer.wait()
                writer.stdout.close()
        cached = joblite.Memory(cache, verbose=0, bytes_limit="200K").cache(lambda n: [n] * 5000, version=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for n in range(1000):
                assert cached(n) == [n] * 5000
        sizes = sum(path.stat().st_size for path in entry_files(cache))
        assert 100 * 1024 < sizes <= 200 * 1024
        assert not list((cache / "joblite" / "v1" / "tmp").iterdir())

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
            def __init__(self, location, size=1): self.size = size
            def open(self, key): return io.BytesIO(kept[key]) if key in kept else None
            def write(self, key, fill): file = io.BytesIO(); fill(file); kept[key] = file.getvalue()
            def delete(self, key): return kept.pop(key, None) is not None
            def entries(self, prefix): return [(key, len(kept[key]), 0.0) for key in kept if key.startswith(prefix)]

        joblite.register_store_backend("guest", Guest)
        memory = joblite.Memory("nowhere", backend="guest", verbose=0, backend_options={"size": 2})
        cached = memory.cache(math.sqrt)
        assert cached(4) == cached(4) == 2.0 and len(kept) == 1 and cached.entries()
        memory.clear(warn=False)
        assert kept == {}
        with pytest.raises(ValueError, match="name: expected a text"):
            joblite.register_store_backend(3, Guest)


# ======================================================================================================================
# 11. The text
# ======================================================================================================================
