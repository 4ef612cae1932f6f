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

import glob
import importlib.util
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

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


# ======================================================================================================================
# 11. The text
# ======================================================================================================================
