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

import abc
import collections
import contextlib
import dataclasses
import enum
import functools
import gc
import glob
import importlib.util
import multiprocessing
import multiprocessing.resource_tracker
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

import joblite
from joblite import Parallel, delayed, parallel_config

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


# Functions that tasks call. Module-level ones travel by name.


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


class TwoArguments(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


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


BACKENDS = ["sequential", "threading", "loky", "spawn", "executor"]


def backend_options(name):
    """Arguments of a Parallel of two workers for each way to run tasks."""
    if name == "sequential":
        return {"n_jobs": 1}
    if name == "spawn":
        return {"n_jobs": 2, "backend": "loky", "start_method": "spawn"}
    return {"n_jobs": 2, "backend": name}


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Arguments of a Parallel, for each way to run tasks in turn."""
    if request.param == "executor":
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
            yield {"n_jobs": 2, "backend": executor}
    else:
        yield backend_options(request.param)


@pytest.fixture(params=["loky", "spawn"])
def processes(request):
    """Arguments of a Parallel, for both ways to start worker processes."""
    return backend_options(request.param)


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Fail a test that leaves a process, a thread, a temp file or a shared memory entry."""
    if os.name == "posix":
        multiprocessing.resource_tracker.ensure_running()  # the standard library's own, which stays to the end
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


# ---- 5. Parcels ----


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


class TestSection5Parcels:
    FUNCTIONS = {
        "a lambda": (lambda x: x + 1, (1,), 2),
        "a closure": ((lambda k: lambda x: x + k)(5), (1,), 6),
        "a partial of a lambda": (functools.partial(lambda x, y: x - y, y=1), (3,), 2),
        "defaults": (lambda x, y=7, *, z=8: (x, y, z), (1,), (1, 7, 8)),
        "a builtin": (abs, (-1,), 1),
        "a bound method": ([1, 2].count, (2,), 1),
        "a class": (complex, (1, 2), 1 + 2j),
    }

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_callables_of_every_kind_work_in_processes(self, name, processes):
        func, args, expected = self.FUNCTIONS[name]
        assert Parallel(**processes)([delayed(func)(*args)] * 3) == [expected] * 3

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

    def test_local_classes_of_every_kind_travel(self):
        @dataclasses.dataclass
        class Point:
            x: int
            y: int = 2

        @dataclasses.dataclass(frozen=True)
        class Frozen:
            x: int = dataclasses.field(default=3)

        class Color(enum.Enum):
            RED = 1

            def shout(self):
                return self.name + "!"

        class Slots:
            __slots__ = ("a", "b")

            def __init__(self):
                self.a = 1

        class Base(abc.ABC):
            @abc.abstractmethod
            def size(self): ...

        class Child(Base):
            made = 0

            def __init__(self):
                super().__init__()
                type(self).made += 1

            def size(self):
                return 5

            @property
            def double(self):
                return 2 * self.size()

            @classmethod
            def named(cls):
                return cls.__name__

            @staticmethod
            def one():
                return 1

            @functools.cached_property
            def slow(self):
                return 7

        Pair = collections.namedtuple("Pair", "left right")

        def use(point, frozen, color, slots, child, pair):
            return (dataclasses.replace(point, x=9).x, dataclasses.fields(frozen)[0].default, color is Color.RED,
                    color.shout(), slots.a, hasattr(slots, "b"), child.size(), child.double, child.named(), child.one(),
                    child.slow, isinstance(child, Base), pair.right, Pair(1, 2)._asdict())

        arguments = (Point(1), Frozen(), Color.RED, Slots(), Child(), Pair(1, 2))
        expected = use(*arguments)
        assert Parallel(n_jobs=2)([delayed(use)(*arguments)] * 3) == [expected] * 3

    def test_instances_come_home(self):
        """An instance sent out and back, or made over there, is an instance of the caller's own class."""
        class Local:
            def __init__(self, x):
                self.x = x

        class Color(enum.Enum):
            RED = 1

        back = Parallel(n_jobs=2)(delayed(lambda v: (v, Local(v.x + 1)))(Local(i)) for i in range(4))
        assert all(type(value) is Local for pair in back for value in pair)
        assert [(a.x, b.x) for a, b in back] == [(0, 1), (1, 2), (2, 3), (3, 4)]
        assert travel(Color.RED) is Color.RED

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

    def test_arrays_travel_uncopied(self):
        np = pytest.importorskip("numpy")
        array = np.arange(100_000.0)
        frames = joblite._pack({"deep": [array]})
        assert len(frames) == 2 and len(frames[0]) < 1000
        assert np.shares_memory(np.frombuffer(frames[1]), array)
        back = joblite._unpack([bytes(frames[0]), bytearray(frames[1])])["deep"][0]
        assert (back == array).all() and back.flags.writeable
        assert (travel(array) == array).all()

    def test_unpicklable_argument_is_named(self, processes):
        class Model:
            def __init__(self):
                self.lock = threading.Lock()

        with pytest.raises(pickle.PicklingError, match=r"task 2: args\[0\]\['m'\]\.lock is a lock") as caught:
            Parallel(**processes)(delayed(square)({"m": Model()} if i == 2 else i) for i in range(5))
        assert "cannot be sent to another process" in str(caught.value)

    def test_unpicklable_closure_is_named(self):
        lock = threading.Lock()
        with pytest.raises(pickle.PicklingError, match="closes over lock"):
            Parallel(n_jobs=2)([delayed(lambda: lock)()])

    def test_what_cannot_be_packed_fails_its_task_only(self, processes):
        tasks = [delayed(square)(i) for i in range(6)]
        tasks[3] = delayed(square)(threading.Lock())
        results = Parallel(**processes, on_error="return", batch_size=3)(tasks)
        assert results[:3] + results[4:] == [0, 1, 4, 16, 25]
        assert isinstance(results[3], pickle.PicklingError)

    def test_unpicklable_result_fails_its_task_only(self, processes):
        results = Parallel(**processes, on_error="return", batch_size=6)(
            delayed(lambda i: threading.Lock() if i == 3 else i)(i) for i in range(6))
        assert results[:3] + results[4:] == [0, 1, 2, 4, 5]
        assert isinstance(results[3], pickle.PicklingError) and "the result" in str(results[3])

    def test_what_cannot_be_unpickled_fails_its_task_only(self, processes):
        results = Parallel(**processes, on_error="return", batch_size=6)(
            delayed(lambda x: 1)(Trap("worker") if i == 3 else i) for i in range(6))
        assert results[:3] + results[4:] == [1] * 5
        assert "trapped" in str(results[3])

    def test_result_that_cannot_be_unpickled_here_fails_its_task_only(self, processes):
        results = Parallel(**processes, on_error="return", batch_size=6)(
            delayed(lambda i: Trap("caller") if i == 3 else i)(i) for i in range(6))
        assert results[:3] + results[4:] == [0, 1, 2, 4, 5]
        assert "could not be unpickled here" in str(results[3])

    ERRORS = {
        "plain": (lambda: ValueError("text", 2), ValueError, "text"),
        "two arguments": (lambda: TwoArguments(1, 2), TwoArguments, "1 and 2"),
        "keyword-only": (lambda: KeywordOnly(code=3), KeywordOnly, "code 3"),
        "unpicklable attribute": (lambda: HoldsLock("locked"), HoldsLock, "locked"),
        "unpicklable argument": (lambda: ValueError("see", threading.Lock()), (ValueError, RuntimeError), "see"),
        "huge message": (lambda: ValueError("x" * 3_000_000), ValueError, "xxx"),
        "os error": (lambda: FileNotFoundError(2, "No such file", "gone.txt"), FileNotFoundError, "gone.txt"),
        "system exit": (lambda: SystemExit(4), SystemExit, "4"),
        "local class": (lambda: type("Odd", (Exception,), {})("odd one"), Exception, "odd one"),
    }

    @pytest.mark.parametrize("name", ERRORS)
    def test_errors_arrive_as_their_own_type(self, name, processes):
        make, kind, text = self.ERRORS[name]
        with pytest.raises(kind, match=text) as caught:
            Parallel(**processes)(delayed(raise_it)(make) for _ in range(2))
        assert "raise_it" in str(caught.value.__cause__), "the worker's traceback is the cause"

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
        done = subprocess.run([sys.executable, *last], input=code if how == "stdin" else "", text=True,
                              capture_output=True, env=script_env(), timeout=DEADLINE, cwd=tmp_path)
        assert (done.stdout, done.stderr) == ("[0, 2, 4, 0, 3, 6] True\n", "")


class Trap:
    """Cannot be unpickled in one of the two kinds of process."""

    def __init__(self, where):
        self.where = where

    def __setstate__(self, state):
        if state["where"] == ("worker" if joblite._inside else "caller"):
            raise ValueError("trapped")
        self.__dict__.update(state)


# ---- 6. Pools ----

CALLER = """
    import os, sys, threading, time
    from joblite import Parallel, delayed
    def hang(i):
        open(f"{sys.argv[1]}/{i}", "w").write(str(os.getpid()))
        threading.Event().wait(600)
    import sys
    Parallel(n_jobs=8)(delayed(hang)(i) for i in range(8))
    """


@contextlib.contextmanager
def running_caller(tmp_path, code=CALLER, tasks=8):
    """A fresh interpreter in the midst of a run of hanging tasks, and the pids of its workers."""
    script = tmp_path / "caller.py"
    script.write_text(textwrap.dedent(code))
    signs = tmp_path / "signs"
    signs.mkdir()
    process = subprocess.Popen([sys.executable, str(script), str(signs)], env=script_env(), stderr=subprocess.PIPE)
    try:
        wait_until(lambda: process.poll() is not None or len(list(signs.iterdir())) == tasks, "the start of the tasks")
        assert process.poll() is None, process.stderr.read().decode()
        pids = wait_until(lambda: {int(path.read_text() or 0) for path in signs.iterdir()} - {0}, "pids")
        yield process, pids
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def all_gone(pids):
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


class TestSection6Pools:
    DEATHS = {
        "SIGKILL": (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
        "segfault": (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
        "abort": (os.abort, "SIGABRT"),
        "os._exit": (lambda: os._exit(3), "exit code 3"),
    }

    @posix
    @pytest.mark.parametrize("name", DEATHS)
    def test_killed_worker_fails_one_task(self, name, processes):
        how, text = self.DEATHS[name]
        results = Parallel(**processes, on_error="return", batch_size=10)(
            delayed(die_on)(i, 14, how) for i in range(40))
        assert [i for i, value in enumerate(results) if value != i] == [14]
        assert isinstance(results[14], joblite.TerminatedWorkerError) and text in str(results[14])

    @posix
    def test_killed_worker_ends_the_run_and_the_next_one_works(self, processes):
        with pytest.raises(joblite.TerminatedWorkerError, match="SIGKILL") as caught:
            Parallel(**processes)(delayed(die_on)(i, 3, self.DEATHS["SIGKILL"][0]) for i in range(5))
        assert sys.version_info < (3, 11) or "task 3" in caught.value.__notes__[0]
        assert Parallel(**processes)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    @posix
    def test_death_is_noticed_while_a_grandchild_lives(self):
        """A task's own child that holds the worker's socket does not hide the worker's death, and goes with it."""
        def fork_and_die():
            if os.fork() == 0:
                threading.Event().wait(600)
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.raises(joblite.TerminatedWorkerError):
            Parallel(n_jobs=2)([delayed(fork_and_die)()])

    @posix
    def test_idle_death_is_not_noticed(self, processes):
        pids = set(Parallel(**processes, batch_size=1)(delayed(where)() for _ in range(8)))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        again = Parallel(**processes)(delayed(where)() for _ in range(4))
        assert len(again) == 4 and not pids & set(again)

    @posix
    def test_killed_nursery_is_replaced(self):
        Parallel(n_jobs=2)(delayed(where)() for _ in range(2))
        os.kill(joblite._starters["nursery"].pid, signal.SIGKILL)
        assert Parallel(n_jobs=2)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    @posix
    def test_killed_nursery_fails_running_tasks(self, tmp_path):
        def kill_nursery():
            wait_for_file(tmp_path / "sign")
            os.kill(joblite._starters["nursery"].pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_nursery)
        Parallel(n_jobs=2)(delayed(where)() for _ in range(2))
        killer.start()
        with pytest.raises(joblite.TerminatedWorkerError, match="nursery"):
            Parallel(n_jobs=2)([delayed(mark_and_hang)(tmp_path / "sign")])
        killer.join()
        assert Parallel(n_jobs=2)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    @posix
    @pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
    @pytest.mark.parametrize("start", ["nursery", "spawn"])
    def test_no_process_outlives_a_killed_caller(self, sig, start, tmp_path):
        code = CALLER.replace("n_jobs=8", f"n_jobs=8, start_method={start!r}")
        with running_caller(tmp_path, code) as (process, pids):
            family = pids | {process.pid}
            parents = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids}
            process.send_signal(sig)
            process.wait()
            wait_until(lambda: all_gone(family | parents - {os.getpid()} - {process.pid}), "the end of all processes")

    @posix
    def test_ctrl_c_ends_the_run(self, tmp_path):
        with running_caller(tmp_path) as (process, pids):
            process.send_signal(signal.SIGINT)
            errors = process.stderr.read().decode()
            process.wait(DEADLINE)
            assert "KeyboardInterrupt" in errors
            wait_until(lambda: all_gone(pids), "the end of the workers")

    @posix
    def test_interrupted_task_runs_its_finally(self, tmp_path):
        """A task that is ended because another failed gets a KeyboardInterrupt first, so that it can tidy up."""
        def tidy():
            try:
                mark_and_hang(tmp_path / "sign")
            finally:
                (tmp_path / "tidied").write_text("yes")

        def fail():
            wait_for_file(tmp_path / "sign")
            raise ValueError("enough")

        with pytest.raises(ValueError, match="enough"):
            Parallel(n_jobs=2)([delayed(tidy)(), delayed(fail)()])
        wait_until((tmp_path / "tidied").exists, "the end of the task")

    @posix
    def test_task_that_ignores_interrupts_is_killed(self, tmp_path):
        def stubborn():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            mark_and_hang(tmp_path / "sign")

        def fail():
            wait_for_file(tmp_path / "sign")
            raise ValueError("enough")

        with pytest.raises(ValueError, match="enough"):
            Parallel(n_jobs=2)([delayed(stubborn)(), delayed(fail)()])
        pid = int((tmp_path / "sign").read_text())
        wait_until(lambda: all_gone({pid}), "the end of the worker")

    def test_timeout_ends_its_task_only(self, processes, tmp_path):
        tasks = [delayed(square)(i) for i in range(6)]
        tasks[2] = delayed(mark_and_hang)(tmp_path / "sign")
        results = Parallel(**processes, timeout=1, on_error="return")(tasks)
        assert results[:2] + results[3:] == [0, 1, 9, 16, 25]
        assert isinstance(results[2], TimeoutError) and isinstance(results[2], multiprocessing.TimeoutError)
        assert "longer than timeout=1 s" in str(results[2])

    def test_timeout_in_threads_leaves_the_thread(self, tmp_path):
        gate = threading.Event()
        try:
            results = Parallel(2, backend="threading", timeout=0.2, on_error="return")(
                [delayed(gate.wait)(DEADLINE), *(delayed(square)(i) for i in range(4))])
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
        nursery = joblite._starters["nursery"].pid
        wait_until(lambda: child_processes() - before <= {nursery}, "the end of idle workers")
        assert Parallel(n_jobs=2, idle_worker_timeout=0.1)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

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
        with pytest.raises(KeyError, match="no database"):
            Parallel(**processes, initializer=raise_it, initargs=(lambda: KeyError("no database"),))(
                delayed(square)(i) for i in range(3))

    def test_manager_proxies_work_in_tasks(self):
        with multiprocessing.Manager() as manager:
            shared = manager.list()
            Parallel(n_jobs=2)(delayed(shared.append)(i) for i in range(5))
            assert sorted(shared) == [0, 1, 2, 3, 4]

    @posix
    def test_forked_child_of_the_caller_starts_its_own_pool(self):
        Parallel(n_jobs=2)(delayed(where)() for _ in range(4))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if Parallel(n_jobs=2)(delayed(square)(i) for i in range(3)) == [0, 1, 4] else 2
                joblite.shutdown_workers()
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert Parallel(n_jobs=2)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    def test_workers_follow_the_callers_world(self, processes, tmp_path, monkeypatch):
        def look():
            return os.getcwd(), os.environ.get("JOBLITE_TEST"), sys.path[0]

        Parallel(**processes)(delayed(look)() for _ in range(4))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("JOBLITE_TEST", "set later")
        monkeypatch.syspath_prepend(tmp_path / "modules")
        expected = str(tmp_path), "set later", str(tmp_path / "modules")
        assert Parallel(**processes)(delayed(look)() for _ in range(4)) == [expected] * 4

    def test_deleted_current_directory_is_no_error(self, tmp_path, monkeypatch):
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        assert Parallel(n_jobs=2)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    def test_random_numbers_differ_between_workers(self):
        def draw():
            import random
            return os.getpid(), random.random()

        drawn = Parallel(n_jobs=2, batch_size=1)(delayed(draw)() for _ in range(20))
        assert len(set(drawn)) == 20

    def test_native_threads_share_the_cores(self, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setenv("MKL_NUM_THREADS", "7")

        def look():
            return os.environ.get("OMP_NUM_THREADS"), os.environ.get("MKL_NUM_THREADS")

        share = str(max(1, joblite.cpu_count() // 2))
        assert Parallel(n_jobs=2)(delayed(look)() for _ in range(2)) == [(share, "7")] * 2
        with parallel_config(backend="loky", inner_max_num_threads=3):
            assert Parallel(n_jobs=2)(delayed(look)() for _ in range(2)) == [("3", "7")] * 2
        assert "OMP_NUM_THREADS" not in os.environ

    @pytest.mark.parametrize("backend", ["threading", "loky"])
    def test_exit_does_not_wait_for_a_stuck_task(self, backend):
        done = run_script(f"""
            import threading
            from joblite import Parallel, delayed
            results = Parallel(2, backend={backend!r}, return_as="generator")(
                delayed(threading.Event().wait if {backend!r} == "threading" else __import__("time").sleep)(600)
                for i in range(4))
            print("end")
            """)
        assert (done.stdout, done.stderr) == ("end\n", "")

    def test_nothing_is_printed_at_exit(self):
        done = run_script("""
            import gc
            from joblite import Parallel, delayed
            class Cycle:
                pass
            cycle = Cycle()
            cycle.me = cycle
            cycle.generator = Parallel(2, return_as="generator")(delayed(abs)(i) for i in range(100))
            next(cycle.generator)
            del cycle
            print(sum(Parallel(2)(delayed(abs)(i) for i in range(10))))
            other = Parallel(2, return_as="generator", verbose=1)(delayed(abs)(i) for i in range(100))
            next(other)
            """, flags=["-X", "dev"])
        assert (done.stdout, done.stderr) == ("45\n", "")

    def test_works_under_another_name_and_twice(self, tmp_path):
        package = tmp_path / "mypackage"
        package.mkdir()
        (package / "__init__.py").write_text("raise_if_imported_in_worker = 1\n")
        (package / "_vendored.py").write_bytes(Path(joblite.__file__).read_bytes())
        done = run_script("""
            import joblite
            from mypackage import _vendored as other
            f = lambda x: x + 1
            print(other.Parallel(2)(other.delayed(f)(i) for i in range(3)),
                  joblite.Parallel(2)(joblite.delayed(f)(i) for i in range(3)))
            """, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE}"})
        assert done.stdout == "[1, 2, 3] [1, 2, 3]\n"


# ---- 7. Choosing ----


class TestSection7Choosing:
    def test_n_jobs_arithmetic(self, monkeypatch):
        monkeypatch.setattr(joblite, "cpu_count", lambda: 8)
        table = {1: 1, 3: 3, 20: 20, -1: 8, -2: 7, -20: 1, 2.0: 2, None: 1}
        assert {n: joblite.effective_n_jobs(n) for n in table} == table
        with parallel_config(backend="threading", n_jobs=5):
            assert joblite.effective_n_jobs(None) == 5 and joblite.effective_n_jobs(-1) == 8

    @pytest.mark.parametrize("bad", [0, 0.5, "two", float("nan")])
    def test_bad_n_jobs_is_refused(self, bad):
        with pytest.raises(ValueError, match="n_jobs: expected a whole number other than 0"):
            Parallel(n_jobs=bad)

    def test_cpu_limit_of_the_environment_is_kept(self, monkeypatch):
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
        assert joblite.cpu_count() == 1
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "many")
        with pytest.raises(ValueError, match="LOKY_MAX_CPU_COUNT"):
            joblite.cpu_count()

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
    def test_affinity_counts(self):
        done = run_script("import os, joblite; os.sched_setaffinity(0, {0}); print(joblite.cpu_count())")
        assert done.stdout == "1\n"

    BAD = {
        "batch_size: expected": {"batch_size": -1},
        "prefer: expected": {"prefer": "wrong"},
        "require: expected": {"require": "wrong"},
        "exclude each other": {"prefer": "processes", "require": "sharedmem"},
        "backend: expected one of": {"backend": "nonsense"},
        "return_as: expected": {"return_as": "tuple"},
        "on_error: expected": {"on_error": "ignore"},
        "timeout: expected": {"timeout": -3},
        "pre_dispatch: expected": {"pre_dispatch": "__import__('os')"},
        "max_nbytes: expected": {"max_nbytes": "1 apple"},
        "needs a backend of threads": {"backend": "loky", "require": "sharedmem"},
        "expected options among": {"backend": "loky", "nonsense": 1},
    }

    @pytest.mark.parametrize("text", BAD)
    def test_bad_values_are_refused_at_construction(self, text):
        with pytest.raises(ValueError, match=text):
            Parallel(**self.BAD[text])

    def test_contexts_nest_and_restore(self):
        with parallel_config(backend="threading", n_jobs=3) as outer:
            assert (outer["n_jobs"], outer["verbose"]) == (3, 0)
            with pytest.raises(KeyError), parallel_config(n_jobs=2):
                assert Parallel().n_jobs == 2 and Parallel()._choice.backend.name == "threading"
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
        with pytest.raises(ValueError, match="backend options need a backend"):
            parallel_config(initializer=print)
        with pytest.raises(ValueError, match="cannot limit native threads"):
            parallel_config(backend="threading", inner_max_num_threads=2)

    def test_prefer_is_a_hint_and_context_beats_it(self):
        assert Parallel(n_jobs=2, prefer="threads")._choice.backend.name == "threading"
        with parallel_config(backend="loky"):
            assert Parallel(n_jobs=2, prefer="threads")._choice.backend.name == "loky"

    def test_sharedmem_beats_context(self):
        seen = []
        with parallel_config(backend="loky", n_jobs=2):
            Parallel(require="sharedmem")(delayed(seen.append)(i) for i in range(5))
        assert sorted(seen) == [0, 1, 2, 3, 4]

    def test_registered_backend_runs(self):
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(2) as executor:
            joblite.register_parallel_backend("mine", lambda: executor)
            try:
                assert Parallel(backend="mine")(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]
                assert Parallel(backend="mine").n_jobs == 2
            finally:
                del joblite._factories["mine"]

    def test_nested_calls_share_one_budget(self):
        """Inside a process an inner call uses threads, inside a thread it runs in place, unless told otherwise."""
        def inner(kind, **options):
            call = Parallel(n_jobs=2, **options)
            return call._choice.backend.name, len(call(delayed(where)() for _ in range(4)))

        assert Parallel(n_jobs=2)([delayed(inner)(1)] * 2) == [("threading", 4)] * 2
        assert Parallel(n_jobs=2, backend="threading")([delayed(inner)(1)] * 2) == [("sequential", 4)] * 2
        assert Parallel(n_jobs=2)([delayed(inner)(1, backend="loky")] * 2) == [("loky", 4)] * 2
        share = max(1, joblite.cpu_count() // 2)
        assert Parallel(n_jobs=2)([delayed(joblite.effective_n_jobs)(-1)] * 2) == [share] * 2

    @pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 has interpreters")
    def test_interpreters_say_which_python_they_need(self):
        with pytest.raises(ValueError, match=r"needs Python 3\.14"):
            Parallel(2, backend="interpreters")([delayed(square)(1)])

    def test_dask_says_how_to_start_a_client(self):
        with pytest.raises(ValueError, match="needs a client"):
            Parallel(2, backend="dask")([delayed(square)(1)])


# ---- 8. Parallel ----


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


class TestSection8Parallel:
    def test_delayed_records_a_call(self):
        assert delayed(square)(1, a=2) == (square, (1,), {"a": 2})
        assert delayed(square).__name__ == "square"

    @pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
    @pytest.mark.parametrize("count", [0, 1, 3, 500])
    def test_results_are_those_of_the_plain_loop(self, backend, return_as, count):
        results = list(Parallel(**backend, return_as=return_as)(delayed(square)(i) for i in range(count)))
        expected = [square(i) for i in range(count)]
        assert (sorted(results) if return_as == "generator_unordered" else results) == expected

    @pytest.mark.parametrize("batch_size", [1, 7, "auto"])
    @pytest.mark.parametrize("pre_dispatch", ["all", 1, "3 * n_jobs", "n_jobs // 2 + 1"])
    def test_batching_changes_no_result(self, batch_size, pre_dispatch):
        call = Parallel(2, backend="threading", batch_size=batch_size, pre_dispatch=pre_dispatch)
        assert call(delayed(square)(i) for i in range(100)) == [square(i) for i in range(100)]

    def test_keyword_arguments_and_mixed_functions_work(self, backend):
        tasks = [delayed(square)(2), delayed(int)("11", base=2), delayed(max)(1, 5), delayed(square)(x=3)]
        assert Parallel(**backend)(tasks) == [4, 3, 5, 9]

    def test_first_error_ends_the_run_and_names_the_task(self, backend):
        with pytest.raises(ValueError, match="no 3") as caught:
            Parallel(**backend)(delayed(fail_on)(i, 3) for i in range(100))
        if sys.version_info >= (3, 11):
            assert "task 3" in caught.value.__notes__[0]
        assert caught.value.partial_results.get(0, 0) == 0 and 3 not in caught.value.partial_results

    def test_parallel_stays_usable_after_an_error(self, backend):
        with Parallel(**backend) as parallel:
            with pytest.raises(ValueError, match="no 3"):
                parallel(delayed(fail_on)(i, 3) for i in range(10))
            assert parallel(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    def test_errors_can_be_returned_or_skipped(self, backend):
        tasks = [delayed(fail_on)(i, 3) for i in range(6)]
        returned = Parallel(**backend, on_error="return")(tasks)
        assert returned[:3] + returned[4:] == [0, 1, 2, 4, 5] and isinstance(returned[3], ValueError)
        assert Parallel(**backend, on_error="skip")(tasks) == [0, 1, 2, 4, 5]
        assert list(Parallel(**backend, on_error="skip", return_as="generator")(tasks)) == [0, 1, 2, 4, 5]

    def test_error_ends_running_tasks(self, processes, tmp_path):
        """One failing task ends a run of many long ones at once."""
        def fail():
            wait_for_file(tmp_path / "sign")
            raise ValueError("enough")

        with pytest.raises(ValueError, match="enough"):
            Parallel(**processes)([delayed(mark_and_hang)(tmp_path / "sign"), delayed(fail)(),
                                   *[delayed(mark_and_hang)(tmp_path / "late")] * 50])

    def test_bad_task_is_named(self, processes):
        with pytest.raises(TypeError, match=r"task 1: expected delayed\(function\)"):
            Parallel(**processes)([delayed(square)(1), square])

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
        """With pre_dispatch=3 and single-task batches, the fourth task is asked for only after one has finished."""
        tasks = Watched(delayed(wait_for_file)(tmp_path / f"{i}") for i in range(6))
        results = Parallel(2, batch_size=1, pre_dispatch=3, return_as="generator")(tasks)
        assert tasks.asked == 3
        (tmp_path / "0").touch()
        next(results)
        assert tasks.asked == 4
        for i in range(1, 6):
            (tmp_path / f"{i}").touch()
        assert len(list(results)) == 5

    def test_slow_reader_bounds_what_is_out(self, backend):
        tasks = Watched(delayed(square)(i) for i in range(100_000))
        results = Parallel(**backend, return_as="generator", batch_size=1)(tasks)
        assert [next(results) for _ in range(10)] == [square(i) for i in range(10)]
        asked = tasks.asked
        Parallel(**backend)(delayed(square)(i) for i in range(10))  # what was out before it is done after it
        assert tasks.asked == asked < 100_000
        results.close()

    def test_generator_starts_at_the_call(self, backend, tmp_path):
        results = Parallel(**backend, return_as="generator")([delayed(Path.touch)(tmp_path / "sign")])
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
            delayed(task)(i) for i in range(10))
        assert sorted(next(results) for _ in range(9)) == list(range(1, 10))
        (tmp_path / "go").touch()
        assert list(results) == [0]

    @pytest.mark.parametrize("how", ["close", "drop", "drop unread"])
    def test_dropped_generator_frees_the_workers(self, how, processes, tmp_path):
        results = Parallel(**processes, return_as="generator", batch_size=1)(
            [delayed(square)(3), *(delayed(mark_and_hang)(tmp_path / f"{i}") for i in range(20))])
        if how != "drop unread":
            assert next(results) == 9
        wait_for_file(tmp_path / "0")
        if how == "close":
            results.close()
        del results
        gc.collect()
        assert Parallel(**processes)(delayed(square)(i) for i in range(3)) == [0, 1, 4]
        assert not (tmp_path / "19").exists()

    def test_two_generators_are_open_at_once(self, backend):
        first = Parallel(**backend, return_as="generator")(delayed(square)(i) for i in range(20))
        second = Parallel(**backend, return_as="generator")(delayed(abs)(-i) for i in range(20))
        pairs = list(zip(first, second))
        assert pairs == [(i * i, i) for i in range(20)]

    def test_several_threads_call_at_once(self, backend):
        failed, results = [], {}

        def call(name):
            try:
                results[name] = Parallel(**backend)(delayed(fail_on)(i, 25 if name == 1 else -1) for i in range(50))
            except ValueError as error:
                failed.append((name, str(error)))

        threads = [threading.Thread(target=call, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == [(1, "no 25")] and results == {name: list(range(50)) for name in (0, 2, 3)}

    def test_changed_globals_are_seen_by_the_next_call(self):
        done = run_script("""
            from joblite import Parallel, delayed
            def f(): return value
            for value in (1, 2):
                print(Parallel(2)(delayed(f)() for _ in range(2)))
            def f(): return "redefined"
            print(Parallel(2)(delayed(f)() for _ in range(2)))
            """)
        assert done.stdout == "[1, 1]\n[2, 2]\n['redefined', 'redefined']\n"

    def test_globals_that_tasks_change_start_anew_with_each_call(self):
        done = run_script("""
            from joblite import Parallel, delayed
            count, seen = 0, []
            def step():
                global count
                count += 1
                seen.append(count)
                return len(seen)
            for _ in range(2):
                print(max(Parallel(2, batch_size=4)(delayed(step)() for _ in range(4))), count, seen)
            """)
        assert done.stdout == "4 0 []\n4 0 []\n"

    def test_uneven_tasks_are_spread(self):
        """A batch that was cut from quick tasks and turns out slow is shared with whoever is idle."""
        def nap(i):
            if i >= 2000:
                time.sleep(0.03)
            return os.getpid()

        pids = Parallel(2)(delayed(nap)(i) for i in range(2020))[2000:]
        assert len(set(pids)) == 2, "both workers had some of the slow ones"

    def test_nothing_is_printed_on_stdout(self, capfd):
        Parallel(2, verbose=50)(delayed(square)(i) for i in range(5))
        captured = capfd.readouterr()
        assert captured.out == "" and "5 of" not in captured.out and "tasks done" in captured.err

    def test_closed_streams_do_not_stop_the_work(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", None)
        monkeypatch.setattr(sys, "stdout", None)
        assert Parallel(2, verbose=10)(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    def test_print_progress_of_a_subclass_is_called(self, backend):
        seen = []

        class Shown(Parallel):
            def print_progress(self):
                seen.append((self.n_completed_tasks, self.n_dispatched_tasks, self.n_tasks))

        Shown(**backend)([delayed(square)(i) for i in range(20)])
        assert seen[-1] == (20, 20, 20) and [n for n, _, _ in seen] == sorted(n for n, _, _ in seen)

    def test_settings_can_be_read(self):
        call = Parallel(n_jobs=2, verbose=1, timeout=3, return_as="generator")
        assert (call.n_jobs, call.verbose, call.timeout, call.return_generator) == (2, 1, 3, True)
        assert repr(call) == "Parallel(n_jobs=2)"

    def test_changed_array_is_seen_by_the_next_call(self):
        np = pytest.importorskip("numpy")
        array = np.zeros(300_000)
        with Parallel(n_jobs=2) as parallel:
            assert parallel([delayed(np.sum)(array)] * 2) == [0.0, 0.0]
            array[:] = 1
            assert parallel([delayed(np.sum)(array)] * 2) == [300_000.0] * 2

    def test_refilled_array_keeps_its_values_at_submission(self):
        np = pytest.importorskip("numpy")

        def tasks():
            array = np.zeros(300_000)
            for i in range(10):
                array[:] = i
                yield delayed(np.max)(array)

        assert Parallel(n_jobs=2)(tasks()) == list(range(10))

    def test_multiprocessing_context_is_used(self):
        with Parallel(2, backend="multiprocessing", context="spawn") as parallel:
            assert parallel(delayed(square)(i) for i in range(3)) == [0, 1, 4]
            assert parallel(delayed(lambda x: -x)(i) for i in range(3)) == [0, -1, -2]
        assert Parallel(2, backend="multiprocessing")(delayed(square)(i) for i in range(3)) == [0, 1, 4]

    def test_thread_executor_shares_memory(self):
        from concurrent.futures import ThreadPoolExecutor

        seen = []
        with ThreadPoolExecutor(2) as executor:
            Parallel(backend=executor, require="sharedmem")(delayed(seen.append)(i) for i in range(5))
        assert sorted(seen) == [0, 1, 2, 3, 4]

    def test_broken_executor_is_an_error_that_names_tasks(self):
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
            with pytest.raises(joblite.TerminatedWorkerError, match="the executor failed: BrokenProcessPool"):
                Parallel(backend=executor, batch_size=1)([delayed(os._exit)(1)])


# ======================================================================================================================
# 11. The text
# ======================================================================================================================
