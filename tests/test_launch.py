"""How stages are started, and two machines that train together."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.launch import command
from pipeline.settings import load_settings
from tests.support.toy_project import finish, make_project, start

RUNTIME = load_settings(Path(__file__).resolve().parents[1] / "params.yaml").runtime
STAGE = "pipeline.train"


def test_one_process_needs_no_torchrun() -> None:
    assert command(STAGE, RUNTIME, {})[1:] == ["-m", STAGE]
    assert "--standalone" in command(STAGE, replace(RUNTIME, processes=4), {})


def test_machines_come_from_the_parameters_or_the_environment() -> None:
    here = command(STAGE, replace(RUNTIME, processes=4, machines=2, rendezvous="one:29400"), {})
    assert {"--nproc_per_node=4", "--nnodes=2", "--rdzv-endpoint=one:29400"} <= set(here)
    variables = {"PET_NNODES": "3", "PET_RDZV_ENDPOINT": "other:29500"}
    there = command(STAGE, replace(RUNTIME, processes=4), variables)
    assert {"--nnodes=3", "--rdzv-endpoint=other:29500"} <= set(there)


def test_user_errors() -> None:
    with pytest.raises(UserError, match="cannot be launched"):
        command("pipeline.score", RUNTIME, {})
    with pytest.raises(UserError, match=r"runtime\.rendezvous is 'none' with runtime\.machines 2; expected host:port"):
        replace(RUNTIME, machines=2)
    with pytest.raises(UserError, match=r"3 machines meet at 'none'; expected host:port"):
        command(STAGE, RUNTIME, {"PET_NNODES": "3"})
    with pytest.raises(UserError, match="PET_NNODES is '1:4'; expected the number of machines"):
        command(STAGE, RUNTIME, {"PET_NNODES": "1:4"})
    with pytest.raises(UserError, match=r"runtime\.device is cuda:1 with runtime\.processes 2; expected auto or cuda"):
        replace(RUNTIME, device="cuda:1", processes=2)


@pytest.mark.slow
def test_two_machines_train_as_one_with_two_processes(tmp_path: Path) -> None:
    """Two launchers on this machine that meet over the loopback device and share the folder."""
    results = []
    for name, machines in (("one", 1), ("two", 2)):
        folder = make_project(tmp_path / name, runtime__processes=2 // machines)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        variables = {"PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "PET_LOCAL_ADDR": "127.0.0.1"}
        more = {"PET_NNODES": str(machines), **variables} if machines > 1 else {}
        running = [start(folder, "pipeline.launch", "pipeline.pretrain", **more) for _ in range(machines)]
        for process in running:
            finish(process)
        results.append((folder / "models" / "sample" / "pretrain.pt").read_bytes())
    assert results[0] == results[1]
