#!/usr/bin/env python3
"""What parallel brings on this machine, and how joblite stands beside other libraries.

    python bench.py                  what parallel brings, and eight rows, in about half a minute
    python bench.py --all            every scenario in full size: a quarter of an hour, some GB
    python bench.py --only "warm"    the scenarios whose name holds this word, in full size

More: `--quick` keeps the sizes small (alone it changes nothing), `--json FILE` writes the figures.

The first job sums numbers in a plain loop, in threads and in processes. Then come scenarios, with
a row for each contestant that is installed (joblib, loky, mpire, diskcache ... are optional).

    median, p10..p90   of the rounds; contestants take turns, so a slow moment hits all alike
    vs joblib          the median divided by joblib's: below 1 is faster than joblib
    vs best            divided by that of the best library other than joblite
    vs floor           divided by the least that the work takes here: the row named "= ..."
    ~                  noisy: the middle 80 % of the rounds spread wider than the median itself
    WRONG              a wrong answer, which makes the exit code 1; slowness never does

What the numbers cannot tell: your tasks are not these. Ratios hold better than times; on a busy
machine neither does. Chunk sizes of the standard library's pools were picked by hand to suit
them; joblite and joblib find their own. Rows in MB count what all processes of the contestant
take, and what anybody else puts into shared memory meanwhile.
"""
# /// script
# requires-python = ">=3.11"
# dependencies = []  # optional contestants: joblib, loky, mpire, diskcache, numpy, ...
# ///

from __future__ import annotations

import argparse
import collections
import contextlib
import difflib
import functools
import gc
import importlib
import itertools
import json
import math
import multiprocessing
import os
import pickle
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import joblite
from joblite import Parallel, delayed

HERE = Path(__file__).resolve().parent
CORES = min(joblite.cpu_count(), 8)  # workers of each contestant
QUICK = False  # whether sizes and times are small
SHM = "2 GB of /dev/shm"  # what scenarios need that write there
# the second is in memory: no moods of a disk
PLACES = [("disk", None, ()), ("shm", "/dev/shm", (SHM,))]

# A scenario is a generator function: it yields the expected answer (or a function that checks one),
# then for each contestant (name, function without arguments). What must be closed in the end it
# enters into the stack it is given.
SCENARIOS: dict[str, Callable[[contextlib.ExitStack], Iterator]] = {}
_FLOOR = "= "  # a contestant so named is a physical floor, not a library


def scenario(name: str, rounds: int = 15, needs: tuple[str, ...] = ()) -> Callable:
    """Add a scenario to the table under this name. Where a package or a path that it `needs` is
    missing, one line says so in its place."""

    def add(func: Callable) -> Callable:
        func.rounds, func.needs = rounds, needs  # type: ignore[attr-defined]
        SCENARIOS[name] = func
        return func

    return add


def optional(name: str):
    """An optional package, or None where it is missing or broken."""
    try:
        return importlib.import_module(name)
    except Exception:  # one that was built for another numpy raises what it likes
        return None


def is_there(need: str) -> bool:
    """Whether this machine has what a scenario needs: a path, a package, or room in shared
    memory."""
    if need == SHM:
        return os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 2 << 30
    return os.path.exists(need) if need.startswith("/") else optional(need) is not None


# ---- measuring ----


_OURS = ("joblite", "joblib", _FLOOR)  # contestants that run with --quick, and one other
# no new round of a scenario begins after so many seconds, but for the least number
_MOST_S, _QUICK_S = (6, 0.3)
_LEAST_ROUNDS = 3


def measure(
    contestants: dict[str, Callable], rounds: int, check: Callable[[str, object], None]
) -> dict[str, list[float]]:
    """Seconds of each round for each contestant, taking turns, until their time is up. One burn-in
    round is not counted (with --quick, and where there is one round only, checking the answers was
    the burn-in)."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    least, names = 1 if QUICK else _LEAST_ROUNDS, list(contestants)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        started = time.perf_counter()
        for turn in range(0 if rounds > 1 and not QUICK else 1, rounds + 1):
            if turn > least and time.perf_counter() - started > (_QUICK_S if QUICK else _MOST_S):
                break
            # each comes first in its turn
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                func = contestants[name]
                begun = time.perf_counter()
                result = func()
                took = time.perf_counter() - begun
                if turn < 2:
                    check(name, result)
                # a contestant that timed itself (in a process of its own) gives its own seconds
                if turn:
                    seconds[name].append(result.seconds if isinstance(result, Timed) else took)
                del result
            gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
    return seconds


class Timed:
    """An answer with the seconds that the contestant itself measured."""

    def __init__(self, answer: object, seconds: float) -> None:
        self.answer = answer
        self.seconds = seconds


def same(answer: object, expected: object) -> bool:
    """Whether an answer is right; `expected` may be a function that says so."""
    answer = answer.answer if isinstance(answer, Timed) else answer
    if callable(expected):
        return bool(expected(answer))
    return answer == expected


def run_scenario(name: str, skip: str) -> list[dict]:
    """The rows of a scenario, checked and measured.

    None where this machine lacks what it needs: `skip` and what it is are printed then.
    """
    needs = SCENARIOS[name].needs  # type: ignore[attr-defined]
    missing = [need for need in needs if not is_there(need)]
    if missing:
        print(f"{skip}skipped: needs {', '.join(missing)}", flush=True)
        return []
    try:
        with contextlib.ExitStack() as stack:
            return rows_of(name, SCENARIOS[name](stack))
    except Exception as error:  # the next ones may work
        print(f"  {name}: {type(error).__name__}: {error}", file=sys.stderr)
        return [{"scenario": name, "contestant": "its preparation", "right": False}]


def rows_of(name: str, steps: Iterator) -> list[dict]:
    expected = next(steps)
    contestants, right = {}, {}
    for contestant, func in steps:
        if (
            QUICK
            and not contestant.startswith(_OURS)
            and any(not name.startswith(_OURS) for name in contestants)
        ):
            continue
        try:
            right[contestant] = same(func(), expected)
        except Exception as error:  # of a peer: it does not work here, and is no wrong answer
            print(f"  {contestant}: {type(error).__name__}: {error}", file=sys.stderr)
            right[contestant] = not contestant.startswith("joblite")
        else:
            contestants[contestant] = func
    rounds = SCENARIOS[name].rounds  # type: ignore[attr-defined]
    if QUICK:
        rounds = max(min(rounds, _LEAST_ROUNDS), rounds // 3)

    def check(contestant: str, answer: object) -> None:
        right[contestant] = right[contestant] and same(answer, expected)

    seconds = measure(contestants, rounds, check)
    rows = [
        row_of(name, contestant, taken, right[contestant]) for contestant, taken in seconds.items()
    ]
    rows += [
        {"scenario": name, "contestant": lost, "right": right[lost]}
        for lost in right
        if lost not in contestants
    ]
    compare(rows)
    return rows


def row_of(name: str, contestant: str, taken: list[float], right: bool) -> dict:
    median = statistics.median(taken)
    tenth = (
        statistics.quantiles(taken, n=10, method="inclusive") if len(taken) > 1 else [median] * 9
    )
    return {
        "scenario": name,
        "contestant": contestant,
        "median": median,
        "p10": tenth[0],
        "p90": tenth[-1],
        "noisy": tenth[-1] - tenth[0] > median,
        "right": right,
    }


def compare(rows: list[dict]) -> None:
    """Add to each row how it stands to joblib, to the best library that is not joblite, and to the
    floor; rows of some `N=` are compared with those of the same N only."""
    for row in filter(lambda row: "median" in row, rows):
        size = row["contestant"].partition(", N=")[2]
        medians = {
            each["contestant"]: each["median"]
            for each in rows
            if "median" in each and each["contestant"].partition(", N=")[2] == size
        }
        joblib = next((value for name, value in medians.items() if name.startswith("joblib")), None)
        others = [
            value for name, value in medians.items() if not name.startswith(("joblite", _FLOOR))
        ]
        floor = next((value for name, value in medians.items() if name.startswith(_FLOOR)), None)
        for key, other in (
            ("vs_joblib", joblib),
            ("vs_best", min(others, default=None)),
            ("vs_floor", floor),
        ):
            row[key] = (
                row["median"] / other
                if other and not row["contestant"].startswith(_FLOOR)
                else None
            )


# ---- printing ----


def human(seconds: float, scenario: str = "") -> str:
    """A time with a fitting unit; where the scenario measures memory, megabytes."""
    if scenario.startswith(("peak MB", "growth in MB")):
        return f"{seconds:.0f} MB"
    for unit, scale in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def machine_line() -> str:
    """What the figures were measured on, in lines of 80 columns."""
    words = [
        platform.machine(),
        f"{joblite.cpu_count()} cores",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        f"joblite {joblite.__version__}",
    ]
    for name in ("numpy", "joblib", "loky", "mpire", "diskcache", "distributed"):
        version = getattr(optional(name), "__version__", None)
        words += [f"{name} {version}"] if version else []
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True
        )
        words += [f"commit {commit.stdout.strip()}"] if commit.returncode == 0 else []
    except OSError:  # no git here
        pass
    return textwrap.fill(", ".join(words), 80)


def busy_line() -> str:
    """A warning where other programs keep this machine busy, else nothing."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load <= CORES / 2:
        return ""
    return (
        f"This machine is busy (load {load:.1f} on {CORES} cores): parallel cannot show what it\n"
        "brings, and no figure below is to be trusted. Try again when it is idle.\n"
    )


def print_scenario(name: str) -> list[dict]:
    """A scenario with a line for each contestant; its name comes before it runs."""
    print(f"\n{name}", flush=True)
    rows = run_scenario(name, f"  {name}: ")
    for row in rows:
        if "median" not in row:
            print(f"  {row['contestant']:25} failed")
            continue
        median, low, high = (human(row[key], name) for key in ("median", "p10", "p90"))
        ratios = [row[key] for key in ("vs_joblib", "vs_best", "vs_floor")]
        columns = [f"{ratio:.2f}" if ratio else "" for ratio in ratios]
        flag = "~" if row["noisy"] else ""
        print(
            f"  {row['contestant']:25}{median:>8}  {f'{low} .. {high}':18}"
            f"{columns[0]:>7}{columns[1]:>7}{columns[2]:>8} {flag if row['right'] else 'WRONG'}"
        )
    sys.stdout.flush()
    return rows


_LEGEND = """
    vs joblib 0.50  half of joblib's time: below 1 is better; best: all others
    vs floor 2.00   twice the least that the work takes here (the rows "= ...")
    ~               noisy: do not trust it

                             median  p10 .. p90         joblib   best   floor"""

# The scenarios of the short run, in plain words; the sizes are those of --quick.
_SHORT = {
    "import": "import of the library",
    "first call, whole script": "a script with one call",
    "warm call, 2 tasks": "a call of two tasks",
    "20,000 no-op tasks": "20,000 tasks of nothing",
    "200 MB array, 32 tasks": "32 tasks with 20 MB of data",
    "32 results of 8 MB": "32 results of 8 MB",
    "Memory: 100 hits, int": "100 results from the cache",
    "dump 400 MB + 100,000, disk": "dump of 40 MB, 50,000 dicts",
}

_SHORT_LEGEND = """
    ratio        joblite's time divided by joblib's (without joblib: by the best
                 other's); below 1 is better
    best other   the fastest of the other libraries, Python's own pools and pickle

                             joblite   joblib  ratio  best other"""


def print_short(name: str) -> list[dict]:
    """A scenario in one line: joblite, joblib and the best of the others."""
    print(f"{_SHORT[name]:27}", end="", flush=True)
    rows = run_scenario(name, "  ")
    medians = {
        row["contestant"]: row["median"]
        for row in rows
        if "median" in row and not row["contestant"].startswith((_FLOOR, "joblite,"))
    }
    ours, joblib = medians.pop("joblite", None), medians.pop("joblib", None)
    if ours is None:
        if rows:
            print("failed", flush=True)
        return rows
    best = min(medians, key=lambda other: medians[other], default="")
    beside = joblib or medians.get(best)
    ratio = f"{ours / beside:.2f}" if beside else ""
    others = f"{human(medians[best])} {best.partition(',')[0]}" if best else "-"
    print(f"{human(ours):>9}{human(joblib) if joblib else '-':>9}{ratio:>7}  {others}", flush=True)
    return rows


def bar(share: float, width: int = 40) -> str:
    """A bar drawn in text; a share of 1 fills it."""
    return "#" * max(1, round(min(share, 1.0) * width))


def print_chart(rows: list[dict]) -> None:
    """For each scenario joblite's time beside joblib's, whose bar is 40 wide."""
    rows = [row for row in rows if row["contestant"] == "joblite" and row.get("vs_joblib")]
    if rows:
        print("\njoblite's time divided by joblib's (a full bar is joblib's; + goes on):")
    for row in rows:
        share = row["vs_joblib"]
        print(f"{row['scenario']:31}{share:5.2f} {bar(share)}{'+' if share > 1 else ''}")


# ---- the main job: the tutorial's own example ----


def single_count(start: int, end: int) -> int:
    r = 0
    for i in range(start, end):
        r += i
    return r


def main_job() -> list[dict]:
    """The sum of numbers in 8 pieces: in a plain loop, in threads, in processes; best of three."""
    iterations = 30_000_000 if QUICK else 100_000_000
    step = iterations // 8
    pieces = [(start, min(start + step, iterations)) for start in range(1, iterations, step)]
    tasks = [delayed(single_count)(*piece) for piece in pieces]
    names = ["plain loop", f"{CORES} threads", f"{CORES} processes"]
    ways: list[Callable[[], list]] = [
        lambda: plain_loop(iter(tasks)),
        lambda: Parallel(CORES, backend="threading")(tasks),
        lambda: Parallel(CORES)(tasks),
    ]
    print(
        f"The sum of {iterations:,} numbers in {len(pieces)} tasks, the best of three:", flush=True
    )
    begun = time.perf_counter()
    Parallel(CORES)(delayed(abs)(i) for i in range(CORES))
    start = time.perf_counter() - begun
    seconds = [float("inf")] * 3
    totals = set()
    for _ in range(3):
        for place, way in enumerate(ways):
            begun = time.perf_counter()
            totals.add(sum(way()))
            seconds[place] = min(seconds[place], time.perf_counter() - begun)
    right = totals == {(iterations - 1) * iterations // 2}
    for name, best in zip(names, seconds, strict=True):
        gain = seconds[0] / best
        print(f"  {name:12} {best:7.2f} s  {gain:6.2f} x as fast  {bar(gain / CORES, 34)}")
    print_verdict(seconds[0] / seconds[2], start)
    return [
        {"scenario": "main job", "contestant": name, "median": best, "right": right}
        for name, best in zip(names, seconds, strict=True)
    ]


def print_verdict(gain: float, start: float) -> None:
    """What the main job says about this machine, in two sentences."""
    if gain > 1.1:
        verdict = (
            f"On this machine {CORES} processes are {gain:.1f} times as fast as a plain loop. "
            f"Starting them took {start:.2f} s, once: where all the work takes less, a plain "
            "loop wins."
        )
    else:
        verdict = (
            f"Here {CORES} processes are no faster than a plain loop ({gain:.2f} x): there is "
            "one core, or other programs use the machine."
        )
    threads = (
        "Threads share one interpreter lock: they help where tasks wait or compute in native "
        "code, not in Python code as here."
    )
    print(f"\n{textwrap.fill(verdict, 80)}\n{textwrap.fill(threads, 80)}", flush=True)


def plain_loop(tasks: Iterator) -> list:
    """Each recorded call made, in a plain loop: the floor of many small tasks."""
    return [func(*args, **kwargs) for func, args, kwargs in tasks]


# ---- tools of the scenarios ----


def noop(x):
    return x


def spin(seconds):
    """Compute for so long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


def call_task(task):
    """What the standard library's pools run when they are given the same triples."""
    func, args, kwargs = task
    return func(*args, **kwargs)


def fork_pool(**options):
    """A multiprocessing.Pool of the start method that is fastest here."""
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    return multiprocessing.get_context(method).Pool(CORES, **options)


def process_executor():
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    return ProcessPoolExecutor(CORES, multiprocessing.get_context(method))


def run_fresh(stack: contextlib.ExitStack, code: str) -> Callable[[], Timed]:
    """Run a script in a fresh interpreter; the answer is what it prints. The wall time includes its
    start and end."""
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
    }
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a library is compiled once, not at every start
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
    path = Path(folder, "script.py")
    path.write_text(code)

    def call() -> Timed:
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(path)],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            start_new_session=True,
        )
        return Timed(done.stdout.strip(), time.perf_counter() - begun)

    return call


def parallel_contestants(
    stack: contextlib.ExitStack, tasks: Callable[[], Iterable], chunk: int, function=None
) -> Iterator:
    """The same tasks, as triples or as the arguments of one function, for every library that maps
    over processes. Their workers are up."""
    call = function or call_task
    if function:
        yield "joblite", lambda: Parallel(CORES).map(function, tasks())
    else:
        yield "joblite", lambda: Parallel(CORES)(tasks())
    # started when it is first asked
    pool = functools.cache(lambda: stack.enter_context(fork_pool()))
    yield (f"Pool.imap, chunk {chunk}", lambda: list(pool().imap(call, tasks(), chunksize=chunk)))
    yield "Pool.map", lambda: pool().map(call, tasks())
    executor = functools.cache(lambda: stack.enter_context(process_executor()))
    yield (
        f"ProcessPool, chunk {chunk}",
        lambda: list(executor().map(call, tasks(), chunksize=chunk)),
    )
    joblib, loky, mpire = optional("joblib"), optional("loky"), optional("mpire")
    if joblib and function:
        yield "joblib", lambda: joblib.Parallel(CORES)(map(joblib.delayed(function), tasks()))
    elif joblib:
        yield "joblib", lambda: joblib.Parallel(CORES)(tasks())
    if loky:
        reusable = functools.cache(lambda: stack.enter_context(loky.get_reusable_executor(CORES)))
        yield (f"loky, chunk {chunk}", lambda: list(reusable().map(call, tasks(), chunksize=chunk)))
    if mpire:
        workers = functools.cache(
            lambda: stack.enter_context(mpire.WorkerPool(CORES, keep_alive=True))
        )
        yield (
            "mpire",
            lambda: workers().map(
                function or mpire_task, list(tasks()), concatenate_numpy_output=False
            ),
        )


def mpire_task(func, args, kwargs):
    """As `call_task`, for mpire, which unpacks tuples itself."""
    return func(*args, **kwargs)


# ---- scenarios: Parallel ----


@scenario("import", rounds=11)
def import_time(stack):
    yield ""
    yield "= bare python", run_fresh(stack, "")
    yield "joblite", run_fresh(stack, "import joblite")
    yield (
        "concurrent.futures",
        run_fresh(stack, "from concurrent.futures import ProcessPoolExecutor"),
    )
    for name in filter(optional, ("joblib", "mpire", "loky")):
        yield name, run_fresh(stack, f"import {name}")


@scenario("first call, whole script", rounds=11)
def first_call(stack):
    yield "[0, 1]"
    yield "= bare python", run_fresh(stack, "print([0, 1])")
    body = "def f(x): return x\n"
    yield (
        "joblite",
        run_fresh(
            stack,
            "from joblite import Parallel, delayed\n"
            + body
            + "print(Parallel(2)(delayed(f)(i) for i in range(2)))",
        ),
    )
    for method in multiprocessing.get_all_start_methods():
        yield (
            f"ProcessPool, {method}",
            run_fresh(
                stack,
                f"""
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
{body}
if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context({method!r})) as pool:
        print(list(pool.map(f, range(2))))
""",
            ),
        )
    if optional("joblib"):
        yield (
            "joblib",
            run_fresh(
                stack,
                "from joblib import Parallel, delayed\n"
                + body
                + "print(Parallel(2)(delayed(f)(i) for i in range(2)))",
            ),
        )


def echo(connection):
    """A process that gives back what it gets."""
    while data := connection.recv(64):
        connection.sendall(data)


def echo_sockets(stack: contextlib.ExitStack, count: int) -> list[socket.socket]:
    """Sockets to so many processes that give back what they get."""
    ends = []
    for _ in range(count):
        ours, theirs = socket.socketpair()
        child = multiprocessing.Process(target=echo, args=(theirs,), daemon=True)
        child.start()
        stack.callback(child.join)
        stack.callback(child.terminate)
        ends.append(stack.enter_context(ours))
    return ends


def exchange(ends: list[socket.socket]) -> list[int]:
    """One byte to each process and back."""
    for end in ends:
        end.sendall(b"x")
    return [end.recv(1)[0] * 0 + place for place, end in enumerate(ends)]


@scenario("warm call, 2 tasks", rounds=100)
def warm_call(stack):
    yield [0, 1]
    ends = echo_sockets(stack, 2)
    yield "= a byte to 2 and back", lambda: exchange(ends)
    yield from parallel_contestants(stack, lambda: (delayed(noop)(i) for i in range(2)), 1)


@scenario("20,000 no-op tasks", rounds=15)
def many_tasks(stack):
    yield list(range(20_000))
    yield "= loop", lambda: [noop(i) for i in range(20_000)]
    yield from parallel_contestants(stack, lambda: range(20_000), 500, noop)


@scenario("20,000 tasks of 20 us", rounds=7)
def small_tasks(stack):
    yield [2e-5] * 20_000
    yield f"= ideal on {CORES}", lambda: spin(20_000 * 2e-5 / CORES) and [2e-5] * 20_000
    yield from parallel_contestants(
        stack, lambda: (delayed(spin)(2e-5) for _ in range(20_000)), 500
    )


def put_in(found, i=0):
    """What a task does that changes its argument: others that pack a chunk as a whole give what
    chunks decide."""
    found.append(i)
    return len(found)


@scenario("20,000 tasks with a small list", rounds=7)
def small_lists(stack):
    def tasks():
        return (delayed(put_in)([i]) for i in range(20_000))

    yield [2] * 20_000
    yield (
        "= loop, each task pickled",
        lambda: plain_loop(pickle.loads(pickle.dumps(task, 5)) for task in tasks()),
    )
    yield from parallel_contestants(stack, tasks, 500)


def look_up(table, i):
    return table[i]


@scenario("1,000 tasks, one dict of 1 MB", rounds=5)
def shared_dict(stack):
    count = 100 if QUICK else 1000
    table = {i: f"the text of entry {i}" for i in range(32_000)}
    packed = pickle.dumps(table, 5)
    yield [table[i] for i in range(count)]
    yield (
        f"= unpickled for each, on {CORES}",
        lambda: (
            [pickle.loads(packed)[i] for i in range(count // CORES)]
            and [table[i] for i in range(count)]
        ),
    )
    for name, func in parallel_contestants(
        stack, lambda: (delayed(look_up)(table, i) for i in range(count)), 1
    ):
        # in chunks of one, as here, no task sees what another writes
        if name.startswith(("jobli", "Pool.imap")):
            yield name, func
    named = delayed(lambda i: table[i])  # its variables are opened once in each worker
    yield "joblite, named inside", lambda: Parallel(CORES)(map(named, range(count)))


@scenario("heavy tail", rounds=5)
def heavy_tail(stack):
    """Most tasks are quick, some take long: the total is what counts."""
    naps = [0.0005 * (1 + 40 * (i % 37 == 0)) for i in range(1000)]
    yield naps
    yield f"= ideal on {CORES}", lambda: spin(sum(naps) / CORES) and naps
    yield from parallel_contestants(stack, lambda: (delayed(spin)(nap) for nap in naps), 10)


@scenario("tiny, then heavy", rounds=5)
def tiny_then_heavy(stack):
    naps = [1e-6] * 2000 + [0.03] * 20
    yield naps
    yield f"= ideal on {CORES}", lambda: spin(sum(naps) / CORES) and naps
    yield from parallel_contestants(stack, lambda: (delayed(spin)(nap) for nap in naps), 10)


def roots(start):
    """About a millisecond of arithmetic."""
    return int(sum(math.sqrt(start + i) for i in range(10_000)))


_state: dict[int, int] = {}  # what a worker keeps from task to task


def prepare(*_, seconds=0.0):
    """How a worker of the rows with a state starts: it fills that, and may take longer."""
    _state.update((i, i) for i in range(10_000))
    spin(seconds)


def use_state(i):
    _state[i] += 1
    return _state[i] > i


def mpire_state(state, i):
    """As `use_state`, for mpire, which hands the state to each task."""
    return use_state(i)


def state_contestants(stack: contextlib.ExitStack, count: int, init: Callable, keep: bool):
    """Tasks on workers that `init` prepares, which are kept from call to call or made anew."""
    numbers, mpire = range(count), optional("mpire")
    new = itertools.count()  # another initializer asks for other workers

    def joblite_call():
        initializer = init if keep else functools.partial(init, next(new))
        return Parallel(CORES, initializer=initializer).map(use_state, numbers)

    def pool_call():
        with fork_pool(initializer=init) as pool:
            return pool.map(use_state, numbers)

    def mpire_call():
        with mpire.WorkerPool(CORES, use_worker_state=True) as pool:
            return pool.map(mpire_state, numbers, worker_init=init)

    yield "joblite", joblite_call
    if keep:
        pool = functools.cache(lambda: stack.enter_context(fork_pool(initializer=init)))
        yield "Pool.map", lambda: pool().map(use_state, numbers)
    else:
        yield "Pool.map", pool_call
    if mpire and keep:
        workers = functools.cache(
            lambda: stack.enter_context(
                mpire.WorkerPool(CORES, use_worker_state=True, keep_alive=True)
            )
        )
        yield "mpire", lambda: workers().map(mpire_state, numbers, worker_init=init)
    elif mpire:
        yield "mpire", mpire_call


# What mpire measures itself by: arithmetic, workers with a state, workers that take long to start


@scenario("1,000 tasks of arithmetic", rounds=5)
def arithmetic(stack):
    yield [roots(i) for i in range(1000)]
    yield from parallel_contestants(stack, lambda: range(1000), 10, roots)


@scenario("5,000 tasks with a state", rounds=7)
def with_state(stack):
    yield [True] * 5000
    yield from state_contestants(stack, 5000, prepare, keep=True)


@scenario("100 tasks, workers made anew", rounds=3)
def with_costly_start(stack):
    yield [True] * 100
    yield "= 0.2 s, all at once", lambda: time.sleep(0.2) or [True] * 100
    init = functools.partial(prepare, seconds=0.2)
    yield from state_contestants(stack, 100, init, keep=False)


@scenario("4 threads that call at once", rounds=7)
def calls_at_once(stack):
    """Each with another n_jobs. (joblib was seen to hang here.)"""
    from concurrent.futures import ThreadPoolExecutor

    def call(n_jobs):
        return [Parallel(n_jobs)(delayed(noop)(i) for i in range(50)) for _ in range(5)]

    def at_once():
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(call, (1, 2, 3, 4)))

    yield [[list(range(50))] * 5] * 4
    yield "= one after the other", lambda: [call(n_jobs) for n_jobs in (1, 2, 3, 4)]
    yield "joblite", at_once


@scenario("threads, 20,000 no-op", rounds=7)
def thread_tasks(stack):
    from multiprocessing.pool import ThreadPool

    numbers = range(20_000)
    yield list(numbers)
    yield "= loop", lambda: [noop(i) for i in numbers]
    yield "joblite", lambda: Parallel(CORES, backend="threading").map(noop, numbers)
    pool = functools.cache(lambda: stack.enter_context(ThreadPool(CORES)))
    yield "ThreadPool.map", lambda: pool().map(noop, numbers)
    joblib = optional("joblib")
    if joblib:
        yield (
            "joblib",
            lambda: joblib.Parallel(CORES, backend="threading")(
                joblib.delayed(noop)(i) for i in numbers
            ),
        )


def pick(array, i):
    """What a task does that reads one page of a big array."""
    return float(array[i])


def filled(i):
    """A result of 8 MB."""
    import numpy

    return numpy.full(2**20, i, float)


def big_array():
    numpy = importlib.import_module("numpy")
    return numpy.arange((25 if QUICK else 250) * 10**5, dtype=float)


@scenario("200 MB array, 32 tasks", rounds=5, needs=("numpy",))
def shared_array(stack):
    array = big_array()
    yield [float(i) for i in range(32)]
    yield "= one copy", lambda: array.copy() is not None and [float(i) for i in range(32)]
    for name, func in parallel_contestants(
        stack, lambda: (delayed(pick)(array, i) for i in range(32)), 1
    ):
        # the others send it 32 times too; mpire was seen to hang
        if name.startswith(("jobli", "Pool.imap")):
            yield name, func


@scenario("2,000 tasks, one 8 MB array", rounds=3, needs=("numpy",))
def small_tasks_of_an_array(stack):
    """No task of joblite sees what another writes to the array: each gets a map of its own."""
    count = 200 if QUICK else 2000
    array = importlib.import_module("numpy").arange(1e6)
    yield [float(i) for i in range(count)]
    yield "= loop", lambda: [pick(array, i) for i in range(count)]
    for name, func in parallel_contestants(
        stack, lambda: (delayed(pick)(array, i) for i in range(count)), 1
    ):
        if name in ("joblite", "joblib"):
            yield name, func


@scenario("32 results of 8 MB", rounds=7, needs=("numpy",))
def big_results(stack):
    yield lambda answer: [array[-1] for array in answer] == list(range(32))
    yield "= made in this process", lambda: [filled(i) for i in range(32)]
    yield from parallel_contestants(stack, lambda: (delayed(filled)(i) for i in range(32)), 1)
    ray = None if QUICK else optional("ray")
    if ray:
        ray.init(
            num_cpus=CORES, log_to_driver=False, logging_level="ERROR", include_dashboard=False
        )
        stack.callback(ray.shutdown)
        remote = ray.remote(filled)
        yield "ray", lambda: ray.get([remote.remote(i) for i in range(32)])


def told(timed: Timed) -> Timed:
    """The answer of a script that measured something itself and printed it."""
    return Timed(timed.answer, float(timed.answer))


_PEAK = """
import os, shutil, tempfile, threading, time
import numpy
from {module} import Parallel, delayed, dump, hash, load
from bench import filled, pick

def in_use():
    \"""Bytes of private memory of all processes of this session, and of shared memory files.\"""
    disk = os.statvfs("/dev/shm")
    total = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    total -= sum(512 * each.stat().st_blocks for each in os.scandir(folder))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(pid)) == os.getsid(0):
                for line in open(f"/proc/{{pid}}/smaps_rollup"):
                    total += 1024 * int(line.split()[1]) if line.startswith("Pss_Anon") else 0
        except OSError:
            pass  # it has ended
    return total

if __name__ == "__main__":
    folder = tempfile.mkdtemp(prefix="bench-", dir="/dev/shm")
    path = folder + "/value"
    array = numpy.arange({count}, dtype=float)
    {before}
    begun, most, over = in_use(), 0, threading.Event()

    def watch():
        global most
        while not over.wait(0.01):
            most = max(most, in_use() - begun)

    thread = threading.Thread(target=watch)
    thread.start()
    results = {job}
    most = max(most, in_use() - begun)
    over.set()
    thread.join()
    shutil.rmtree(folder)
    print(most // 10**6)
"""


def peak_scenario(stack, job, before="Parallel(2)(delayed(abs)(i) for i in range(4))"):
    """MB that all processes together take at most during a job, beyond what they had.

    They stand in the place of seconds. What the job writes beside `path` is not counted.
    """
    yield lambda answer: answer.isdigit()
    for name in filter(optional, ("joblite", "joblib")):
        call = run_fresh(
            stack, _PEAK.format(module=name, job=job, before=before, count=len(big_array()))
        )
        yield name, lambda call=call: told(call())


for what, *job in (
    ("200 MB array", "Parallel(2)(delayed(pick)(array, i) for i in range(32))"),
    ("32 results of 8 MB", "Parallel(2)(delayed(filled)(i) for i in range(32))"),
    (
        "stream of 32 x 8 MB",
        "list(map(len, Parallel(2, return_as='generator')(delayed(filled)(i) for i in range(32))))",
    ),
    ("hash of 200 MB", "hash(array)", ""),
    ("dump of 200 MB", "dump(array, path)", ""),
    ("dump, zlib", "dump(array, path, compress=True)", ""),
    ("load of 200 MB", "load(path)", "dump(array, path)"),
    ("load, zlib", "load(path)", "dump(array, path, compress=True)"),
):
    scenario(f"peak MB: {what}", rounds=1, needs=("numpy", SHM, "/proc/self/smaps_rollup"))(
        lambda stack, job=job: peak_scenario(stack, *job)
    )


# How cost grows: seconds of one unit, to be read down the column: flat is linear growth. A row a
# size, no peers.


def timed_unit(func: Callable, units: int) -> Callable[[], Timed]:
    """The same function; its seconds are those of one unit of its work."""

    def call() -> Timed:
        begun = time.perf_counter()
        answer = func()
        return Timed(answer, (time.perf_counter() - begun) / units)

    return call


@scenario("growth: one of N tasks", rounds=3)
def growth_of_tasks(stack):
    yield lambda answer: answer in range(10**6)
    for count in (10, 10**3, 10**5) if QUICK else (10, 100, 10**3, 10**4, 10**5, 10**6):
        yield (
            f"joblite, N={count:,}",
            timed_unit(
                lambda n=count: Parallel(CORES)(delayed(noop)(i) for i in range(n))[-1], count
            ),
        )


@scenario("growth: a call with a payload", rounds=3, needs=("numpy",))
def growth_of_payload(stack):
    yield lambda answer: set(answer) == {0}
    numpy = importlib.import_module("numpy")
    for size in (10**3, 10**6, 10**7) if QUICK else (10**3, 10**5, 10**6, 10**7, 10**8, 10**9):
        array = numpy.zeros(size, "u1")
        yield (
            f"joblite, N={size:,} bytes",
            lambda a=array: Parallel(CORES)(delayed(pick)(a, i) for i in range(4)),
        )


@scenario("growth: N workers", rounds=3)
def growth_of_workers(stack):
    yield list(range(2000))
    for count in (2, 8) if QUICK else (1, 2, 4, 8, 16, 32, 64):
        yield (
            f"joblite, N={count}",
            lambda n=count: Parallel(n, backend="loky")(delayed(noop)(i) for i in range(2000)),
        )


def nested(depth):
    return sum(Parallel(2)(delayed(nested)(depth - 1) for _ in range(4))) if depth else 1


@scenario("growth: one of 4**N nested", rounds=3)
def growth_of_nesting(stack):
    yield 1
    for depth in (1, 2, 3):
        yield f"joblite, N={depth}", timed_unit(lambda n=depth: nested(n) / 4**n, 4**depth)


@scenario("CPU seconds of idle workers", rounds=1, needs=("/proc/self/stat",))
def idle_cpu(stack):
    """CPU time that the caller and its processes take in ten seconds (one, with --quick) of having
    nothing to do."""
    script = f"""
import os, time
from joblite import Parallel, delayed
def used():
    ticks = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[3]) == os.getsid(0):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
stream = Parallel(2, return_as="generator")(delayed(abs)(i) for i in range(100))
next(stream)
begun = used()
time.sleep({1 if QUICK else 10})
print(used() - begun)
"""
    yield lambda answer: float(answer) < 0.1
    call = run_fresh(stack, script)
    yield "joblite", lambda: told(call())


@scenario("n_jobs=1, 20,000 no-op", rounds=15)
def one_job(stack):
    def tasks():
        return (delayed(noop)(i) for i in range(20_000))

    yield list(range(20_000))
    yield "= loop over the tasks", lambda: plain_loop(tasks())
    yield "joblite", lambda: Parallel(n_jobs=1)(tasks())
    joblib = optional("joblib")
    if joblib:
        yield "joblib", lambda: joblib.Parallel(n_jobs=1)(tasks())


@scenario("n_jobs=1, one call", rounds=100)
def one_call(stack):
    yield [0]
    task = delayed(noop)(0)
    yield "= loop over the tasks", lambda: plain_loop(iter([task]))
    yield "joblite", lambda: Parallel(n_jobs=1)([task])
    joblib = optional("joblib")
    if joblib:
        yield "joblib", lambda: joblib.Parallel(n_jobs=1)([task])


@scenario("stream of 100,000", rounds=3)
def stream(stack):
    count = 20_000 if QUICK else 100_000

    def total(generator):
        return sum(generator)

    yield sum(range(count))
    yield "= loop", lambda: total(map(noop, range(count)))
    yield ("joblite", lambda: total(Parallel(CORES, return_as="generator").map(noop, range(count))))
    pool = functools.cache(lambda: stack.enter_context(fork_pool()))
    yield ("Pool.imap, chunk 500", lambda: total(pool().imap(noop, range(count), chunksize=500)))
    joblib = optional("joblib")
    if joblib:
        yield (
            "joblib",
            lambda: total(
                joblib.Parallel(CORES, return_as="generator")(
                    joblib.delayed(noop)(i) for i in range(count)
                )
            ),
        )


_GROWTH = """
import resource
from {module} import Parallel, delayed
def size(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
results = Parallel(2, return_as="generator")(delayed(bytes)(1000) for _ in range({count}))
for index, _ in enumerate(results):
    if index == {count} // 10: early = size()
print(max(0, size() - early) // 10**6)
"""


@scenario("growth in MB of the caller", rounds=1, needs=("/proc/self/statm",))
def growth(stack):
    """MB (not seconds) by which the caller grows from a tenth to
    the end of a stream of 1 kB each."""
    count = 20_000 if QUICK else 100_000
    yield lambda answer: answer.isdigit()
    for name in filter(optional, ("joblite", "joblib")):
        call = run_fresh(stack, _GROWTH.format(module=name, count=count))
        yield name, lambda call=call: told(call())


# ---- scenarios: more than one machine ----


@scenario("cluster, 300 no-op tasks", rounds=7, needs=("distributed",))
def cluster_tasks(stack):
    """On a dask cluster of two worker processes. The overhead per task is a 300th of it."""
    expected = list(range(300))
    yield expected
    distributed, joblib = importlib.import_module("distributed"), optional("joblib")
    cluster = stack.enter_context(
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            protocol="tcp://",
            dashboard_address=None,
        )
    )
    client = stack.enter_context(distributed.Client(cluster))
    yield "joblite", lambda: Parallel(backend=client)(delayed(noop)(i) for i in expected)
    yield (
        "joblite, known length",
        lambda: Parallel(backend=client)([delayed(noop)(i) for i in expected]),
    )
    if joblib:
        stack.enter_context(joblib.parallel_config(backend="dask"))
        yield "joblib", lambda: joblib.Parallel()(joblib.delayed(noop)(i) for i in expected)
    if not QUICK:
        yield "client.map", lambda: client.gather(client.map(noop, expected, pure=False))


# ---- scenarios: hash ----


def namers(value) -> Iterator:
    """Every library that names values by content."""
    yield "joblite", lambda: joblite.hash(value)
    joblib, dask = optional("joblib"), optional("dask.base")
    if joblib:
        yield "joblib", lambda: joblib.hash(value)
    if dask:
        yield "dask.tokenize", lambda: dask.tokenize(value)


def pickled_name(value: object) -> str:
    """The floor of a name: what pickle makes of the value, hashed."""
    import hashlib
    import pickle

    return hashlib.sha256(pickle.dumps(value, 5)).hexdigest()


@scenario("hash, small tuple x 1000", rounds=15)
def hash_small(stack):
    value = (1, "a", 2.5)
    yield lambda name: isinstance(name, str)
    for name, func in [("= pickle, sha256", lambda: pickled_name(value)), *namers(value)]:
        yield name, lambda func=func: [func() for _ in range(1000)][0]


@scenario("hash, dict of 100,000", rounds=5)
def hash_dict(stack):
    yield lambda name: isinstance(name, str)
    value = {f"key {number}": number for number in range(100_000)}
    yield "= pickle, sha256", lambda: pickled_name(value)
    yield from namers(value)


@scenario("hash, nested list of 100,000", rounds=5)
def hash_nested(stack):
    yield lambda name: isinstance(name, str)
    value = [
        [list(range(start, start + 10)) for start in range(row, row + 100, 10)]
        for row in range(0, 100_000, 100)
    ]
    yield "= pickle, sha256", lambda: pickled_name(value)
    yield from namers(value)


@scenario("hash, 256 MB array", rounds=5, needs=("numpy",))
def hash_array(stack):
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    np = importlib.import_module("numpy")
    array = np.random.default_rng(0).random((4 if QUICK else 32) << 20)
    pool = stack.enter_context(ThreadPoolExecutor(CORES))
    parts = [memoryview(part).cast("B") for part in np.array_split(array, CORES * 8)]
    yield lambda name: isinstance(name, str)
    yield (
        f"= sha256, {CORES} threads",
        lambda: str(list(pool.map(lambda part: hashlib.sha256(part).digest(), parts))),
    )
    yield from namers(array)


@scenario("hash, 50 MB frame", rounds=5, needs=("numpy", "pandas"))
def hash_frame(stack):
    np, pd = importlib.import_module("numpy"), importlib.import_module("pandas")
    yield lambda name: isinstance(name, str)
    frame = pd.DataFrame(np.random.default_rng(0).random(((65 if QUICK else 650) * 1000, 10)))
    yield "= pickle, sha256", lambda: pickled_name(frame)
    yield from namers(frame)


# ---- scenarios: files ----


def mixed_value() -> dict:
    """Arrays of 400 MB in all and 100,000 small objects."""
    np = importlib.import_module("numpy")
    random = np.random.default_rng(0)
    return {
        "arrays": [random.random((1 if QUICK else 10) * 625_000) for _ in range(8)],
        "objects": [{"number": number, "text": str(number)} for number in range(50_000)],
    }


def equal_values(first: dict, second: dict) -> bool:
    """Whether two such values are equal."""
    same_arrays = all(
        (one == other).all() for one, other in zip(first["arrays"], second["arrays"], strict=True)
    )
    return same_arrays and first["objects"] == second["objects"]


def pickle_dump(value: object, path: str) -> None:
    import pickle

    with open(path, "wb") as file:
        pickle.dump(value, file, 5)


def pickle_load(path: str) -> object:
    import pickle

    with open(path, "rb") as file:
        return pickle.load(file)


def write_plain(arrays: list, path: str) -> None:
    """The floor of a dump: the bytes of the arrays, written as they are."""
    with open(path, "wb", 0) as file:
        for array in arrays:
            rest = memoryview(array).cast("B")
            while rest:
                rest = rest[file.write(rest) :]


def read_plain(arrays: list, path: str) -> list:
    """The floor of a load: the same bytes, read into new memory."""
    np = importlib.import_module("numpy")
    with open(path, "rb", 0) as file:
        found = [np.empty_like(array) for array in arrays]
        for array in found:
            rest = memoryview(array).cast("B")
            while rest:
                rest = rest[file.readinto(rest) :]
    return found


def filers(stack: contextlib.ExitStack, folder: str | None = None) -> Iterator:
    """(name, dump, load, a path of its own) of every library that keeps any value in a file."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=folder))
    yield "joblite", joblite.dump, joblite.load, os.path.join(folder, "joblite")
    yield "pickle 5", pickle_dump, pickle_load, os.path.join(folder, "pickle")
    joblib = optional("joblib")
    if joblib:
        yield "joblib", joblib.dump, joblib.load, os.path.join(folder, "joblib")


def timed(func: Callable, *args: object, remove: str = "") -> Timed:
    """A call with its time, after touching as much memory as it will: on virtual machines, pages
    that were given back to the host are slow to get again, and the order of the contestants would
    decide. A file to be written is removed first: joblite keeps the old one until the new one is
    whole, others free its pages before they need as many."""
    with contextlib.suppress(OSError):
        os.unlink(remove)
    touched = bytearray((1 if QUICK else 10) * 90_000_000)
    touched[::4096] = b"x" * len(touched[::4096])
    del touched
    begun = time.perf_counter()
    answer = func(*args)
    return Timed(answer, time.perf_counter() - begun)


def dump_to(folder: str | None) -> Callable:
    def steps(stack):
        value = mixed_value()
        yield lambda found: equal_values(value, found[1](found[0]))
        plain = os.path.join(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=folder)), "plain"
        )
        yield (
            "= write of the arrays",
            lambda: Timed(
                (
                    plain,
                    lambda path: {
                        "arrays": read_plain(value["arrays"], path),
                        "objects": value["objects"],
                    },
                ),
                timed(write_plain, value["arrays"], plain, remove=plain).seconds,
            ),
        )
        for name, dump, load, path in filers(stack, folder):
            yield (
                name,
                lambda dump=dump, load=load, path=path: Timed(
                    (path, load), timed(dump, value, path, remove=path).seconds
                ),
            )

    return steps


def load_from(folder: str | None) -> Callable:
    def steps(stack):
        value = mixed_value()
        yield lambda found: equal_values(value, found)
        plain = os.path.join(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=folder)), "plain"
        )
        write_plain(value["arrays"], plain)
        yield (
            "= read of the arrays",
            lambda: timed(
                lambda: {"arrays": read_plain(value["arrays"], plain), "objects": value["objects"]}
            ),
        )
        for name, dump, load, path in filers(stack, folder):
            dump(value, path)
            yield name, lambda load=load, path=path: timed(load, path)

    return steps


for place, where, room in PLACES:
    scenario(f"dump 400 MB + 100,000, {place}", rounds=5, needs=("numpy", *room))(dump_to(where))
    scenario(f"load 400 MB + 100,000, {place}", rounds=5, needs=("numpy", *room))(load_from(where))


@scenario("mapped load, 8 arrays", rounds=15, needs=("numpy",))
def mapped_load(stack):
    arrays = {"arrays": mixed_value()["arrays"], "objects": []}
    np = importlib.import_module("numpy")
    yield lambda found: equal_values(arrays, found)
    for name, dump, load, path in filers(stack):
        if name != "pickle 5":
            dump(arrays, path)
            yield name, lambda load=load, path=path: load(path, mmap_mode="r")
    prefix = os.path.join(
        stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")), "arrays"
    )
    for number, array in enumerate(arrays["arrays"]):
        np.save(f"{prefix}{number}.npy", array)
    yield (
        "numpy, 8 files",
        lambda: {
            "arrays": [np.load(f"{prefix}{number}.npy", mmap_mode="r") for number in range(8)],
            "objects": [],
        },
    )


@scenario("dump, arrays alone", rounds=5, needs=("numpy",))
def dump_arrays(stack):
    np, safetensors = importlib.import_module("numpy"), optional("safetensors.numpy")
    arrays = {str(number): array for number, array in enumerate(mixed_value()["arrays"])}
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))

    def all_there(found):
        return all((found[name] == array).all() for name, array in arrays.items())

    def done(check, path, func, *args):
        return Timed(check, timed(func, *args, remove=path).seconds)

    yield lambda load: all_there(load())
    for name, dump, load, path in filers(stack):
        yield (
            name,
            lambda dump=dump, load=load, path=path: done(
                lambda: load(path), path, dump, arrays, path
            ),
        )
    path = os.path.join(folder, "arrays.npz")
    yield "numpy.savez", lambda: done(lambda: np.load(path), path, lambda: np.savez(path, **arrays))
    if safetensors:
        other = os.path.join(folder, "arrays.safetensors")
        yield (
            "safetensors",
            lambda: done(
                lambda: safetensors.load_file(other), other, safetensors.save_file, arrays, other
            ),
        )


@scenario("load, arrays alone", rounds=5, needs=("numpy",))
def load_arrays(stack):
    np, safetensors = importlib.import_module("numpy"), optional("safetensors.numpy")
    arrays = {str(number): array for number, array in enumerate(mixed_value()["arrays"])}
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
    yield lambda found: all((found[name] == array).all() for name, array in arrays.items())
    for name, dump, load, path in filers(stack):
        dump(arrays, path)
        yield name, lambda load=load, path=path: timed(load, path)
    path = os.path.join(folder, "arrays.npz")
    np.savez(path, **arrays)
    yield "numpy.load", lambda: timed(lambda: dict(np.load(path)))
    if safetensors:
        other = os.path.join(folder, "arrays.safetensors")
        safetensors.save_file(arrays, other)
        yield "safetensors", lambda: timed(safetensors.load_file, other)


def compressible():
    """96 MB of numbers that compress somewhat."""
    np = importlib.import_module("numpy")
    random = np.random.default_rng(0)
    count = (1 if QUICK else 10) * 600_000
    return [np.cumsum(random.integers(0, 9, count)), random.random(count)]


def compressed_filers(stack: contextlib.ExitStack) -> Iterator:
    """Those of `filers` that compress, joblite first."""
    return (
        (name, dump, load, path) for name, dump, load, path in filers(stack) if name != "pickle 5"
    )


@scenario("dump, zlib 3, 96 MB", rounds=3, needs=("numpy",))
def dump_compressed(stack):
    arrays = compressible()
    paths = []

    def right(path):
        paths.append(path)
        # blocks that are compressed apart may take a thousandth more
        is_small = os.path.getsize(paths[0]) <= 1.001 * os.path.getsize(path)
        return is_small and all(
            (one == other).all() for one, other in zip(joblite.load(path), arrays, strict=True)
        )

    yield right
    for name, dump, _, path in compressed_filers(stack):
        yield name, lambda dump=dump, path=path: (dump(arrays, path, compress=True), path)[1]


@scenario("load, zlib 3, 96 MB", rounds=3, needs=("numpy",))
def load_compressed(stack):
    arrays = compressible()
    yield lambda found: all((one == other).all() for one, other in zip(found, arrays, strict=True))
    for name, dump, load, path in compressed_filers(stack):
        dump(arrays, path, compress=True)
        yield name, lambda load=load, path=path: load(path)


@scenario("dump and load, small x 100", rounds=15)
def small_files(stack):
    value = {"a": [1, 2.5], "b": "text"}
    yield value
    for name, dump, load, path in filers(stack):

        def both(dump=dump, load=load, path=path):
            for _ in range(100):
                dump(value, path)
                found = load(path)
            return found

        yield name, both


# ---- scenarios: Memory ----


def remembered(stack: contextlib.ExitStack, func: Callable, **options) -> Iterator:
    """(name, cached function) of each library that remembers results in a folder of its own."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
    yield "joblite", joblite.Memory(f"{folder}/joblite", verbose=0, **options).cache(func)
    joblib, diskcache, cachier = optional("joblib"), optional("diskcache"), optional("cachier")
    if joblib:
        yield "joblib", joblib.Memory(f"{folder}/joblib", verbose=0, **options).cache(func)
    if diskcache and not options:
        cache = stack.enter_context(diskcache.Cache(f"{folder}/diskcache", size_limit=2**33))
        # keeps the arguments as they are in its index
        yield ("diskcache", cache.memoize(name=func.__name__)(func))
    if cachier and not options:
        yield "cachier", cachier.cachier(cache_dir=f"{folder}/cachier", separate_files=True)(func)


def write_and_rename(path: str, content: bytes) -> None:
    """The floor of a miss: make a file and rename it into place."""
    fd = os.open(f"{path}.new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(fd, content)
    os.close(fd)
    os.rename(f"{path}.new", path)


def replacer(folder: str, count: int) -> Callable[[], int]:
    """The floor of 100 misses that make room: of so many files in a folder the oldest goes, and a
    new one comes. Some file systems (ext4 without a journal) grow slow at making files where many
    were removed a moment ago."""
    content = bytes(400)
    for number in range(count):
        write_and_rename(f"{folder}/{number}", content)
    oldest, newest = itertools.count(), itertools.count(count)

    def call():
        for _ in range(100):
            write_and_rename(f"{folder}/{next(newest)}", content)
            os.unlink(f"{folder}/{next(oldest)}")
        return 100

    return call


def read_file(path: str, nbytes: int) -> None:
    """The floor of a hit: open, read, close."""
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, nbytes)
    os.close(fd)


@scenario("Memory: 100 hits, int", rounds=30)
def memory_hits(stack):
    yield list(range(100))
    for name, cached in remembered(stack, noop):
        yield name, lambda cached=cached: [cached(i) for i in range(100)]
    limited = joblite.Memory(
        stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")),
        verbose=0,
        bytes_limit="100M",
    ).cache(noop)
    yield "joblite, limit active", lambda: [limited(i) for i in range(100)]
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(bytes(400))
    stack.callback(os.unlink, file.name)
    yield "= open, read, close", lambda: [read_file(file.name, 2**16) or i for i in range(100)]


_HELPERS = """
def helper_{0}(x):
    return x + {0}
"""
# A cached function's module by what the function reaches; `length` reads it
_REACHED = {
    "50 MB array": "import numpy\nheld = numpy.ones(6_250_000)",
    "200,000 rows": "import pandas\nheld = pandas.DataFrame({'a': range(200_000), 'b': 1.5})",
    "dict of 100,000": "held = {i: i for i in range(100_000)}",
    "300 helpers": "held = [0]\n"
    + "\n".join(f"from reached_{i} import *" for i in range(30))
    + "\ndef use():\n    return "
    + ", ".join(f"helper_{i}" for i in range(300)),
}


@scenario("Memory: hit with much in reach", rounds=15, needs=("numpy", "pandas"))
def memory_reach(stack):
    """Each hit looks whether all of it is as it was; joblib looks at the function's own lines."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
    sys.path.insert(0, folder)
    stack.callback(sys.path.remove, folder)
    for place in range(30):
        helpers = range(10 * place, 10 * place + 10)
        Path(folder, f"reached_{place}.py").write_text("".join(map(_HELPERS.format, helpers)))
    yield 1
    for number, (what, source) in enumerate(_REACHED.items()):
        asks = "held, use" if "use" in source else "held"
        path = Path(folder, f"reaching_{number}.py")
        path.write_text(f"{source}\ndef length(x):\n    return len([{asks}][:x])\n")
        length = importlib.import_module(path.stem).length
        yield (
            f"joblite, {what}",
            functools.partial(joblite.Memory(f"{folder}/{number}", verbose=0).cache(length), 1),
        )


@scenario("Memory: 100 misses, int", rounds=30)
def memory_misses(stack):
    yield lambda answer: answer == list(range(answer[0], answer[0] + 100))
    for name, cached in remembered(stack, noop):
        numbers = itertools.count()
        yield (
            name,
            lambda cached=cached, numbers=numbers: [cached(next(numbers)) for _ in range(100)],
        )
    folder, numbers = (
        stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")),
        itertools.count(),
    )
    yield (
        "= create, write, rename",
        lambda: [
            write_and_rename(f"{folder}/{number}", bytes(400)) or number
            for number in itertools.islice(numbers, 100)
        ],
    )


_FIRST_HIT = """
import sys, time
{setup}
def noop(x): return x
cached = {make}
begun = time.perf_counter()
answer = cached(3)
print(answer, time.perf_counter() - begun)
"""


@scenario("Memory: first hit of a process", rounds=7)
def memory_first_hit(stack):
    """The first call after everything has been imported and made."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))

    def first(setup, make):
        call = run_fresh(stack, _FIRST_HIT.format(setup=setup, make=make))

        def timed():
            answer, seconds = call().answer.split()
            return Timed(answer, float(seconds))

        timed()  # keeps the value for the ones that follow
        return timed

    yield "3"
    yield (
        "joblite",
        first("import joblite", f"joblite.Memory({folder + '/a'!r}, verbose=0).cache(noop)"),
    )
    if optional("joblib"):
        yield (
            "joblib",
            first("import joblib", f"joblib.Memory({folder + '/b'!r}, verbose=0).cache(noop)"),
        )
    if optional("diskcache"):
        yield (
            "diskcache",
            first("import diskcache", f"diskcache.Cache({folder + '/c'!r}).memoize()(noop)"),
        )


def doubled(array):
    return array * 2


def array_floor(stack: contextlib.ExitStack, array, misses: bool) -> Iterator:
    """The floor of a hit or a miss with arrays: the argument hashed, the bytes of the result read
    or written."""
    import hashlib

    folder, numbers = (
        stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")),
        itertools.count(),
    )
    write_plain([doubled(array)], f"{folder}/kept")

    def call():
        hashlib.sha256(array).digest()
        if not misses:
            return read_plain([array], f"{folder}/kept")[0]
        answer = doubled(array)
        write_plain([answer], f"{folder}/{next(numbers)}")
        return answer

    yield "= sha256, write" if misses else "= sha256, read", call


def array_scenario(stack: contextlib.ExitStack, misses: bool, **options) -> Iterator:
    """Hits or misses of a function of an 8 MB array that gives one."""
    numpy = importlib.import_module("numpy")
    yield (
        lambda answer: (
            (answer[1:] == 2 * (numpy.arange(1, 1e6) % 1000)).all() and answer[0] % 2 == 0
        )
    )
    if not options:
        yield from array_floor(stack, numpy.arange(1e6) % 1000, misses)
    for name, cached in remembered(stack, doubled, **options):
        array = numpy.arange(1e6) % 1000

        def call(cached=cached, array=array):
            array[0] += misses
            return cached(array)

        yield name, call


@scenario("Memory: hit of 8 MB", rounds=15, needs=("numpy",))
def memory_array_hit(stack):
    yield from array_scenario(stack, misses=False)


@scenario("Memory: miss of 8 MB", rounds=15, needs=("numpy",))
def memory_array_miss(stack):
    yield from array_scenario(stack, misses=True)


@scenario("Memory: hit of 8 MB, packed", rounds=7, needs=("numpy",))
def memory_packed_hit(stack):
    yield from array_scenario(stack, misses=False, compress=True)


@scenario("Memory: miss of 8 MB, packed", rounds=5, needs=("numpy",))
def memory_packed_miss(stack):
    yield from array_scenario(stack, misses=True, compress=True)


def kept_bytes(folder: str) -> int:
    """The size of all files under a folder."""
    return sum(
        os.path.getsize(os.path.join(path, name))
        for path, _, names in os.walk(folder)
        for name in names
    )


def fill(cached: Callable, numbers: list[int]) -> None:
    """Keep so many results."""
    for number in numbers:
        cached(number)


def growth_in(place: str | None) -> Callable:
    """With so many entries kept, 100 misses with the oldest entries going, the slowest of them, and
    100 hits: flat, says the design."""

    def steps(stack):
        yield lambda answer: answer == 100
        for count in (0, 1000) if QUICK else (0, 1000, 10_000, 100_000):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=place))
            filled, numbers = joblite.Memory(folder, verbose=0).cache(noop), itertools.count()
            Parallel(CORES)(
                delayed(fill)(filled, [next(numbers) for _ in range(max(20, count // 10))])
                for _ in range(10 if count else 1)
            )
            limit = kept_bytes(f"{folder}/joblite")
            cached = joblite.Memory(folder, verbose=0, bytes_limit=limit).cache(noop)
            misses, hits = misses_and_hits(cached, numbers)
            yield f"joblite, N={count:,}", lambda misses=misses: Timed(100, sum(misses()))
            yield f"joblite, N={count:,} longest", lambda misses=misses: Timed(100, max(misses()))
            yield f"joblite, N={count:,} hits", hits
            floor = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=place))
            yield f"= the file system, N={count:,}", replacer(floor, max(20, count))
            if optional("diskcache") and count <= 10_000:
                yield f"diskcache, N={count:,}", full_diskcache(stack, place, count)

    return steps


def misses_and_hits(cached: Callable, numbers: Iterator[int]) -> tuple[Callable, Callable]:
    """A function that makes 100 misses and gives the seconds of each, and one that makes 100 hits
    of what came last."""
    latest: collections.deque[int] = collections.deque(maxlen=10)

    def misses():
        seconds = []
        for number in itertools.islice(numbers, 100):
            begun = time.perf_counter()
            cached(number)
            seconds.append(time.perf_counter() - begun)
            latest.append(number)
        return seconds

    def hits():
        return len([cached(number) for number in list(latest) * 10])

    return misses, hits


def full_diskcache(stack: contextlib.ExitStack, place: str | None, count: int) -> Callable:
    """100 misses of a diskcache with so many entries that is full."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=place))
    cache = stack.enter_context(
        importlib.import_module("diskcache").Cache(folder, size_limit=2**30)
    )
    cached, numbers = cache.memoize()(noop), itertools.count()
    fill(cached, list(itertools.islice(numbers, count)))
    cache.reset("size_limit", cache.volume())
    return lambda: fill(cached, list(itertools.islice(numbers, 100))) or 100


for place, where, room in PLACES:
    scenario(f"Memory: growth, {place}", rounds=20, needs=room)(growth_in(where))


# ---- the command ----


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="every scenario")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument(
        "--only", metavar="NAME", help="the scenarios whose name holds this ('main': the main job)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file, too")
    return parser.parse_args()


def wanted(only: str) -> list[str]:
    """The scenarios that have this in their names; where there is none, say which there are."""
    names = ["main job", *SCENARIOS]
    found = [name for name in names if only in name]
    if not found:
        near = difflib.get_close_matches(only, names, cutoff=0.3)
        print(f"--only: no scenario has {only!r} in its name. There are, the nearest first:")
        print(*near, *[name for name in names if name not in near], sep="\n")
    return found


@contextlib.contextmanager
def processes_of_peers_quiet() -> Iterator[None]:
    """What other processes write to stderr, as joblib's resource tracker does, goes nowhere."""
    stderr = sys.stderr
    real = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    sys.stderr = open(real, "w", buffering=1, closefd=False)
    try:
        yield
    finally:
        sys.stderr = stderr
        if not optional("joblib"):  # its tracker goes on until the interpreter ends
            os.dup2(real, 2)


def run_all(names: list[str]) -> list[dict]:
    """The scenarios of these names, in full."""
    rows = main_job() if "main job" in names else []
    scenarios = [name for name in names if name in SCENARIOS]
    if scenarios:
        print(_LEGEND)
    for name in scenarios:
        rows += print_scenario(name)
    print_chart(rows)
    return rows


def run_short() -> list[dict]:
    """The main job and eight rows."""
    rows = main_job()
    if not optional("joblib"):
        print("\njoblib is not installed: `pip install joblib` to compare.")
    print(_SHORT_LEGEND)
    for name in _SHORT:
        rows += print_short(name)
    print("\nEverything, in full size: python bench.py --all")
    return rows


def main() -> int:
    """Run what was asked for; 1 when an answer was wrong, 2 when there is no such scenario."""
    global QUICK
    options = parse_arguments()
    QUICK = options.quick or not (options.all or options.only)
    if options.only and not wanted(options.only):
        return 2
    print(f"{machine_line()}\n", flush=True)
    if busy := busy_line():
        print(busy, flush=True)
    if options.only or options.all:
        if QUICK:
            print("Small sizes: a third to a twentieth of what the names of the scenarios say.\n")
        with processes_of_peers_quiet():
            rows = run_all(wanted(options.only or ""))
    else:
        with processes_of_peers_quiet():
            rows = run_short()
    if options.json:
        text = json.dumps({"machine": machine_line(), "rows": rows}, indent=1)
        Path(options.json).write_text(text)
    wrong = [row for row in rows if not row["right"]]
    for row in wrong:
        print(f"wrong answer: {row['scenario']}, {row['contestant']}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
