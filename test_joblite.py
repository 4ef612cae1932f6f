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

import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import gc
import glob
import hashlib
import importlib.util
import os
import pickle
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
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


# ======================================================================================================================
# 11. The text
# ======================================================================================================================
