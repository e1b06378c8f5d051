"""The configuration: every group works, every key is read, whatever is wrong is one clear line."""

import ast
import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from irnn.data import TextConfig
from irnn.data.text import SOURCES as TEXT_SOURCES
from irnn.errors import IrnnError
from irnn.models.language_model import LanguageModelConfig
from irnn.qat import PwlConfig, QuantConfig
from irnn.quantizers import ROLE_BITS
from pipelines import config as config_module
from pipelines.config import QAT_STAGES, RunConfig, Schedule, read_config, read_section
from tests.tiny_run import ROOT, composed, tiny_config

GROUPS = ("data", "model", "quant", "pwl", "stages", "logger", "target", "device")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def is_text(option: str) -> bool:
    return yaml.safe_load((ROOT / "conf" / "data" / f"{option}.yaml").read_text())["source"] in TEXT_SOURCES


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group in GROUPS for option in options(group) if group != "data" or is_text(option)],
)
def test_every_option_of_every_group_is_accepted(group: str, option: str) -> None:
    config = read_config(composed(f"{group}={option}", "++data.dir=somewhere"))
    assert isinstance(config, RunConfig)
    read_section(LanguageModelConfig, {**config.model, "vocabulary_size": 100}, "model.")


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_names_its_command_and_itself(experiment: str) -> None:
    text = (ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text()
    assert text.startswith("# @package _global_\n# ")
    assert f"#   python run.py experiment={experiment}" in text
    config = read_config(composed(f"experiment={experiment}", "++data.dir=somewhere"))
    assert config.name == experiment


def test_yaml_files_set_every_field_and_nothing_else() -> None:
    def keys(group: str, option: str) -> set[str]:
        return set(yaml.safe_load((ROOT / "conf" / group / f"{option}.yaml").read_text()))

    def fields(cls: type) -> set[str]:
        return {field.name for field in dataclasses.fields(cls)}

    assert keys("quant", "int8") == fields(QuantConfig)
    assert keys("model", "lstm") == keys("model", "ln_lstm") == fields(LanguageModelConfig) - {"vocabulary_size"}
    assert all(keys("pwl", option) == fields(PwlConfig) for option in options("pwl"))
    assert set().union(*(keys("data", option) for option in options("data") if is_text(option))) == fields(TextConfig)
    top = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    assert {*top, *GROUPS} - {"defaults", "hydra"} == fields(RunConfig)


def test_every_key_is_read_by_some_code() -> None:
    read: set[str] = set()
    for package in ("irnn", "pipelines"):
        for path in (ROOT / package).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text()))
            read |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    classes = [cls for cls in vars(config_module).values() if dataclasses.is_dataclass(cls)]
    assert {RunConfig, TextConfig, QuantConfig, PwlConfig} <= set(classes)
    names = {field.name for cls in [*classes, LanguageModelConfig] for field in dataclasses.fields(cls)}
    # Bits are read by role, schedules by stage: both through one getattr.
    assert names - read - set(ROLE_BITS) - {"float", *QAT_STAGES} == set()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("quant.weight=9", r"quant\.weight=9"),
        ("quant.weight=eight", r"quant\.weight='eight' has the wrong type; wanted: int"),
        ("quant.weight=true", r"quant\.weight=True has the wrong type"),
        ("+quant.wheight=8", r"quant\.wheight is no key of the configuration; allowed: weight, embedding"),
        ("~seed", r"seed is missing"),
        ("pwl.fit=best", r"pwl\.fit='best': allowed are greedy, optimal"),
        ("trainer.threads=0", r"trainer\.threads=0 must be greater than 0"),
        ("trainer.precision=fp16", r"trainer\.precision=fp16 is unknown; allowed: fp32, bf16"),
        ("trainer.optimizer=lion", r"allowed: sgd, adam"),
        ("stages.all.lr=fast", r"stages\.all\.lr='fast' has the wrong type; wanted: float"),
        ("stages.all.epochs=0", r"epochs=0 must be greater than 0"),
        ("stages.all.hold=2", r"hold=2.0 must be between 0 and 1"),
        ("stages.all=3", r"stages\.all=3 must be a section"),
        ("logger.wandb=always", r"logger\.wandb=always is unknown; allowed: null, offline, online"),
        ("data.batch_size=0", r"data\.batch_size=0"),
    ],
)
def test_wrong_values_are_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(IrnnError, match=message) as caught:
        read_config(composed("experiment=quickstart", override))
    assert "\n" not in str(caught.value)


def test_ptb_without_a_folder_says_what_to_add() -> None:
    with pytest.raises(IrnnError, match=r"add data\.dir=FOLDER"):
        read_config(composed("experiment=ptb_lstm"))


def test_schedule_holds_and_then_falls_to_its_last_rate() -> None:
    rates = Schedule(epochs=8, lr=20.0, final_lr=0.2, hold=0.25).rates()
    assert rates[:2] == [20.0, 20.0]
    assert rates[-1] == pytest.approx(0.2)
    ratios = [later / earlier for earlier, later in pairwise(rates[1:])]
    assert ratios == pytest.approx([0.01 ** (1 / 6)] * 6)
    assert Schedule(epochs=3, lr=1.0, final_lr=0.5, hold=1.0).rates() == [1.0] * 3
    assert Schedule(epochs=1, lr=1.0, final_lr=0.5, hold=0.0).rates() == [0.5]


def test_matched_float_training_repeats_the_later_stages(tmp_path: Path) -> None:
    stages = tiny_config(tmp_path, "stages.pwl.epochs=2", "stages.all.lr=0.25").stages
    assert stages.rates("float_matched") == [rate for name in QAT_STAGES for rate in stages.rates(name)]
    assert len(stages.rates("float_matched")) == 5
