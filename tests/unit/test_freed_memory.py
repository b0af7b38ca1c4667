"""Freed memory stays with the process where glibc can be told so."""

import os
import platform
import subprocess
import sys

import pytest

from nakt_dist.runtime import freed_memory

PAGES = """
import resource
import numpy as np
from nakt_dist.runtime.freed_memory import keep_freed_memory
TOLD
def step():
    for array in [np.empty(20 * 2**20, np.uint8) for _ in range(3)]:
        array.fill(1)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_cleared(told):
    """How many pages the system clears while the same memory is taken again and again."""
    words = [sys.executable, "-c", PAGES.replace("TOLD", told)]
    names = freed_memory._USERS_OWN
    clean = {name: value for name, value in os.environ.items() if name not in names}
    run = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, env=clean)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_is_freed_is_taken_again_without_clearing_it():
    assert pages_cleared("assert keep_freed_memory()") < 0.1 * pages_cleared("")


def test_the_users_own_settings_stand(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert not freed_memory.keep_freed_memory()


def test_a_c_library_without_such_settings_is_left_alone(monkeypatch):
    for name in freed_memory._USERS_OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not freed_memory.keep_freed_memory()
