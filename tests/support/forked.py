"""Stages that run in forked processes, so that a test can kill them and start them again without importing anything."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import torch

from pipeline.core.runtime import run_main

LOG = "log.txt"


def fork(folder: Path, main: Callable[[], None], environment: Mapping[str, str]) -> int:
    """Run a stage's `main` in the folder, in a process group of its own; its output is added to `log.txt` there."""
    pid = os.fork()
    if pid == 0:
        _child(folder, main, environment)
    return pid


def _child(folder: Path, main: Callable[[], None], environment: Mapping[str, str]) -> NoReturn:
    code = 70
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        os.environ.update(environment)
        output = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(output, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        torch.set_num_threads(1)
        code = run_main(main)
    finally:
        os._exit(code)


def fork_all(folder: Path, main: Callable[[], None], processes: int) -> list[int]:
    """Run a stage in one process, or in several as torchrun would start them."""
    base = {"DVC_ROOT": str(folder)}
    if processes == 1:
        return [fork(folder, main, base)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    group = {**base, **place, "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    ranks = range(processes)
    return [fork(folder, main, {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in ranks]


def wait(pids: list[int]) -> tuple[list[int], float]:
    """Wait for processes; returns their exit codes, and the CPU seconds of the first one."""
    codes, cpu = [], 0.0
    for i, pid in enumerate(pids):
        _, status, usage = os.wait4(pid, 0)
        codes.append(os.waitstatus_to_exitcode(status))
        cpu = usage.ru_utime + usage.ru_stime if i == 0 else cpu
    return codes, cpu


def kill_after(pids: list[int], cpu_seconds: float) -> bool:
    """Kill processes and theirs with SIGKILL once the first one has used so much CPU time; False if it ended before."""
    while _cpu(pids[0]) < cpu_seconds:
        time.sleep(0.01)
    ended = _state(pids[0]) == "Z"
    for pid in pids:
        os.killpg(pid, signal.SIGKILL)
    wait(pids)
    for pid in pids:
        _await_group(pid)
    return not ended


def _await_group(pid: int) -> None:
    """Wait until no process of a killed group is left, so that none holds the lock of the resume state."""
    while True:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def _fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _state(pid: int) -> str:
    return _fields(pid)[0]


def _cpu(pid: int) -> float:
    """CPU seconds of a process that has not been waited for; endless for one that has ended."""
    fields = _fields(pid)
    return float("inf") if fields[0] == "Z" else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
