"""The process uses one memory arena, unless the operator has configured the allocator."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

PROGRAM = """
import ctypes, threading
from cir_vectorizer.service import memory

done = memory.settle()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def faults_of_a_batch():
    with open("/proc/self/stat") as stat:
        before = int(stat.read().rsplit(")", 1)[1].split()[7])
    block = libc.malloc(10 * 2**20)
    ctypes.memset(block, 1, 10 * 2**20)
    libc.free(block)
    with open("/proc/self/stat") as stat:
        return int(stat.read().rsplit(")", 1)[1].split()[7]) - before

def work():
    blocks = [libc.malloc(100_000) for _ in range(20)]
    meeting.wait()
    for block in blocks:
        libc.free(block)

meeting = threading.Barrier(5)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
libc.fopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
faults_of_a_batch()
print("done", done, "faults", faults_of_a_batch(), flush=True)
libc.malloc_info(0, stream)
libc.fflush(stream)
meeting.wait()
for thread in threads:
    thread.join()
"""


def run(**environment: str) -> str:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUN"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**variables, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_all_threads_share_one_arena_that_keeps_what_it_has():
    printed = run()
    assert printed.startswith("done True")
    assert printed.count("<heap ") == 1
    assert int(printed.split()[3]) < 100


def test_an_allocator_that_the_operator_set_up_is_left_alone():
    assert run(MALLOC_ARENA_MAX="3").startswith("done False")
    assert run(GLIBC_TUNABLES="glibc.malloc.arena_max=3").startswith("done False")
