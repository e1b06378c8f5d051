"""bf16 on a CPU that has no instructions for it: one line at the start of a run, and none elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from irnn.errors import IrnnError
from pipelines.config import TrainerConfig
from pipelines.core import precision
from pipelines.core.precision import slow_precision
from tests.support.tiny_run import call_run, tiny_overrides

AVX2 = {"architecture": "x86_64", "cpu_name": "AMD EPYC", "avx2": True, "avx512_bf16": False, "amx_bf16": False}


def said(cpu: Mapping[str, Any], chosen: str = "bf16", accelerator: str = "cpu") -> str | None:
    trainer = TrainerConfig(accelerator, 1, 1, chosen, cuda_graphs=False, compile=False, progress=True)
    return slow_precision(trainer, cpu)


def test_a_cpu_without_instructions_for_bf16() -> None:
    line = said(AVX2)
    assert line is not None
    assert line.startswith("trainer.precision=bf16: this CPU (AMD EPYC) has no instructions for bf16, ")
    assert line.endswith("; set trainer.precision=fp32")


@pytest.mark.parametrize("changed", [{"avx512_bf16": True}, {"amx_bf16": True}, {"architecture": "aarch64"}])
def test_cpus_that_have_them_and_those_that_are_not_judged(changed: dict[str, Any]) -> None:
    assert said(AVX2 | changed) is None


def test_nothing_is_said_of_fp32_and_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(AVX2, "fp32") is None
    assert said(AVX2, accelerator="gpu") is None
    for available in (True, False):
        monkeypatch.setattr(precision.CUDAAccelerator, "is_available", staticmethod(lambda found=available: found))
        monkeypatch.setattr(precision.MPSAccelerator, "is_available", staticmethod(lambda: False))
        assert (said(AVX2, accelerator="auto") is None) is available


def test_what_pytorch_says_of_this_cpu_is_understood() -> None:
    """The names are PyTorch's: on x86 all of them are there, so that none is taken for absent."""
    found = torch.cpu.get_capabilities()
    if found["architecture"] == precision.X86:
        assert {*precision.BF16_PRODUCTS, "cpu_name"} <= set(found)


def test_a_run_says_so_before_its_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*arguments: Any) -> None:
        raise IrnnError("the first stage begins")

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AVX2)
    monkeypatch.setattr("pipelines.run.run_stages", stop)
    for chosen in ("bf16", "fp32"):
        with pytest.raises(SystemExit, match="the first stage begins"):
            call_run(monkeypatch, *tiny_overrides(tmp_path), f"trainer.precision={chosen}")
        line = "trainer.precision=bf16: this CPU (AMD EPYC) has no instructions for bf16"
        assert (line in capsys.readouterr().out) is (chosen == "bf16")
