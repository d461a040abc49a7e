"""The benchmark over seeds: parameters of a run, emulation, table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import seeds
from pipeline.core.errors import UserError
from pipeline.settings import load_settings


def test_a_seed_sets_both_trainings(tmp_path: Path) -> None:
    content = seeds.parameters(["train_depth.epochs=3", "train_depth.loss.data=0.5", "world.seed=7"], seed=4)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    settings = load_settings(path)
    assert settings.seed == settings.profile_params.train_depth.seed == 4
    assert settings.profile_params.train_depth.epochs == 3
    assert settings.profile_params.train_depth.loss.data == 0.5  # a value that all profiles share
    assert settings.world.seed == 7


@pytest.mark.parametrize("change", ["train_depth.epoch=3", "nothing.epochs=3", "train_depth.epochs", "seed.x=1"])
def test_a_change_names_a_parameter(change: str) -> None:
    with pytest.raises(UserError, match="--set"):
        seeds.parameters([change], seed=0)


def test_older_cpus_are_emulated_by_two_variables() -> None:
    assert "ONEDNN_MAX_CPU_ISA" not in seeds.environment("native", 1)
    found = {isa: seeds.environment(isa, 2)["ATEN_CPU_CAPABILITY"] for isa in ("SSE41", "AVX2", "AVX512_CORE")}
    assert found == {"SSE41": "default", "AVX2": "avx2", "AVX512_CORE": "avx2"}
    assert seeds.environment("AVX2", 2)["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_table() -> None:
    one: dict[str, Any] = {"name": "a", "isa": "native", "cpu": "X", "threads": 2, "seed": 0, "si_rmse": 0.1}
    rows = seeds.table([one, {**one, "seed": 1, "si_rmse": 0.3}, {**one, "isa": "AVX2", "si_rmse": 0.2}]).splitlines()
    assert rows[2:] == [
        "| a | AVX2 on X, 2 threads | si_rmse | 1 | 0.200 | - | 0.200 | 0.200 |",
        "| a | all | si_rmse | 3 | 0.200 | 0.100 | 0.100 | 0.300 |",
        "| a | native on X, 2 threads | si_rmse | 2 | 0.200 | 0.141 | 0.100 | 0.300 |",
    ]


def test_a_finished_stage_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    class Finished:
        returncode = 0

    def called(command: list[str], **options: Any) -> Finished:
        calls.append(command)
        return Finished()

    monkeypatch.setattr(seeds.subprocess, "run", called)
    content = seeds.parameters([], seed=1)
    for _ in range(2):
        seconds = seeds.run_stages(tmp_path, content, [("depth", "voc"), ("score",)], {}, {0}, "one")
    assert list(seconds) == ["depth voc", "score"]
    assert [command[-2:] for command in calls] == [["pipeline.depth", "voc"], ["-m", "pipeline.score"]]
    with pytest.raises(UserError, match="used with other parameters"):
        seeds.run_stages(tmp_path, seeds.parameters([], seed=2), [("score",)], {}, set(), "two")


def test_a_failed_stage_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"depth nowhere failed in .*expected one of"):
        seeds.run_stages(
            tmp_path, seeds.parameters([], seed=1), [("depth", "nowhere")], seeds.environment("native", 1), set(), "key"
        )
