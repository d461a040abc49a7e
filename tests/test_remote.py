"""A team computes once: outputs and the run cache through a DVC remote, between two working copies.

With a folder as the remote, and with an S3-compatible server on this machine if `dvc-s3` and moto are installed.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import commands
from tests.support.commands import DVC

ROOT = Path(__file__).resolve().parents[1]
STAGES = """
stages:
  double:
    cmd: python double.py
    deps: [double.py]
    params: [number]
    outs: [data/result]
"""
# says on standard output that it has run, and writes many small files and one number
PROGRAM = """
import pathlib, re
print("computing")
number = int(re.search("number: ([0-9]+)", pathlib.Path("params.yaml").read_text())[1])
out = pathlib.Path("data/result")
out.mkdir(parents=True)
for i in range(20):
    (out / f"{i}.txt").write_text(str(2 * number + i))
"""
pytestmark = pytest.mark.slow


def run(folder: Path, *command: str) -> str:
    """As `commands.run`, with a key for the server on this machine."""
    return commands.run(
        folder,
        *command,
        AWS_ACCESS_KEY_ID="toy",
        AWS_SECRET_ACCESS_KEY="toy",
        AWS_DEFAULT_REGION="us-east-1",
        no_proxy="127.0.0.1",
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(params=["folder", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[list[str]]]:
    """The commands that make the remote known to a working copy."""
    if request.param == "folder":
        yield [["remote", "add", "--default", "team", str(tmp_path / "remote")]]
        return
    missing = [name for name in ("dvc_s3", "moto", "flask") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (pip install dvc-s3 'moto[server]')")
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])
    try:
        deadline = time.monotonic() + 300
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None and time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.1)
        import boto3

        url = f"http://127.0.0.1:{port}"
        keys = {"aws_access_key_id": "toy", "aws_secret_access_key": "toy", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=url, **keys).create_bucket(Bucket="team")
        yield [
            ["remote", "add", "--default", "team", "s3://team/dstm"],
            ["remote", "modify", "team", "endpointurl", url],
        ]
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def first(tmp_path: Path, remote: list[list[str]]) -> Path:
    """A working copy with the project's DVC settings, and a stage of its own."""
    folder = tmp_path / "first"
    folder.mkdir()
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.name", "toy")
    run(folder, "git", "config", "user.email", "toy@example.org")
    run(folder, *DVC, "init", "-q")
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    run(folder, *DVC, "config", "--unset", "plots.html_template")
    files = {"dvc.yaml": STAGES, "double.py": PROGRAM, "params.yaml": "number: 4\n", ".gitignore": "/data/\n"}
    for name, text in files.items():
        (folder / name).write_text(text)
    for command in remote:
        run(folder, *DVC, *command)
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "start")
    return folder


def result(folder: Path) -> str:
    return (folder / "data/result/3.txt").read_text()


def test_what_one_has_computed_another_takes(first: Path, tmp_path: Path) -> None:
    (first / "params.yaml").write_text("number: 9\n")
    assert "computing" in run(first, *DVC, "repro")  # a trial that is not committed
    run(first, *DVC, "push", "--run-cache")  # DVC pushes only the outputs that are in the workspace now
    (first / "params.yaml").write_text("number: 4\n")
    assert "computing" in run(first, *DVC, "repro")
    run(first, *DVC, "push", "--run-cache")
    run(first, "git", "add", "-A")
    run(first, "git", "commit", "-qm", "computed")

    second = tmp_path / "second"
    run(tmp_path, "git", "clone", "-q", str(first), str(second))
    run(second, *DVC, "pull", "--run-cache")
    assert result(second) == "11"
    assert "computing" not in run(second, *DVC, "repro")
    (second / "params.yaml").write_text("number: 9\n")
    assert "computing" not in run(second, *DVC, "repro", "--pull")
    assert result(second) == "21"
