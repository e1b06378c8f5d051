"""The configuration: every group works, every key is read, whatever is wrong is one clear line."""

import ast
import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from irnn.data import TextConfig
from irnn.data.audio.augment import AugmentConfig
from irnn.data.audio.features import FeatureConfig
from irnn.data.copy_memory import CopyConfig
from irnn.data.labelled.corpus import SOURCES as LABELLED_SOURCES
from irnn.data.speech.corpus import SOURCES as SPEECH_SOURCES
from irnn.data.speech.corpus import speech_config_class
from irnn.data.speech.speech_config import BatchConfig
from irnn.data.speech.units import UnitsConfig
from irnn.data.text.corpus import SOURCES as TEXT_SOURCES
from irnn.errors import IrnnError
from irnn.models.classifier import ClassifierConfig
from irnn.models.language_model import LanguageModelConfig
from irnn.models.speech import SpeechModelConfig
from irnn.qat import PwlConfig, QuantConfig
from irnn.quant.config import ROLE_BITS
from irnn.recognition.decoding import SearchConfig
from pipelines import problems
from pipelines.config import RunConfig, TrainerConfig, read_config
from pipelines.problems.speech.settings import SearchSettings
from pipelines.recipe import QAT_STAGES, Recipe, Schedule
from pipelines.sections import architecture_inputs, read_section
from pipelines.watch.settings import LoggerConfig
from tests.support.places import ROOT
from tests.support.tiny_run import composed, tiny_config

GROUPS = ("data", "model", "quant", "pwl", "recipe", "problem", "logger", "target", "device")
SECTIONS = {"features": FeatureConfig, "units": UnitsConfig, "augment": AugmentConfig, "batches": BatchConfig}


# The network of each problem, and what of it the data decide.
ARCHITECTURES: dict[str, tuple[type, set[str]]] = {
    "language_model": (LanguageModelConfig, {"vocabulary_size"}),
    "speech": (SpeechModelConfig, {"vocabulary_size", "feature_size"}),
    "classifier": (ClassifierConfig, {"classes", "feature_size"}),
    "copy_memory": (LanguageModelConfig, {"vocabulary_size"}),
}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def content(group: str, option: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "conf" / group / f"{option}.yaml").read_text())


def problem_with(group: str, option: str) -> str:
    """The problem that the option belongs to; those of many groups belong to all."""
    if group == "problem":
        return option
    if group == "data":
        sources = {
            "language_model": TEXT_SOURCES, "speech": SPEECH_SOURCES, "classifier": LABELLED_SOURCES,
            "copy_memory": ("copy",),
        }  # fmt: skip
        (problem,) = (name for name, known in sources.items() if content(group, option)["source"] in known)
        return problem
    if group == "model" and not option.endswith("classifier"):
        return "speech" if option.startswith("speech") else "language_model"
    return "classifier" if group == "model" else "language_model"


def folder_of(*overrides: str) -> list[str]:
    """Overrides that name a folder, for data that lie in one."""
    data = composed(*overrides).data
    keys = {"data.dir": data, "data.speech.dir": data.get("speech", {})}
    return [f"{key}=somewhere" for key, section in keys.items() if "dir" in section]


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in options(group)])
def test_every_option_of_every_group_is_accepted(group: str, option: str) -> None:
    problem = problem_with(group, option)
    overrides = [f"problem={problem}"] + [f"{group}={option}"] * (group != "problem")
    config = read_config(composed(*overrides, *folder_of(*overrides)))
    assert config.kind is problems.find(problem)
    architecture, sizes = ARCHITECTURES[problem]
    read_section(architecture, config.model | dict.fromkeys(sizes, 40), "model.")


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_names_its_command_and_itself(experiment: str) -> None:
    text = (ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text()
    assert text.startswith("# @package _global_\n# ")
    assert f"#   python run.py experiment={experiment}" in text
    chosen = f"experiment={experiment}"
    assert read_config(composed(chosen, *folder_of(chosen))).name == experiment


def test_yaml_files_set_every_field_and_nothing_else() -> None:
    def keys(group: str, problem: str = "language_model") -> list[set[str]]:
        chosen = [option for option in options(group) if problem_with(group, option) == problem]
        return [set(content(group, option)) - {"defaults"} for option in chosen]

    def fields(cls: type) -> set[str]:
        return {field.name for field in dataclasses.fields(cls)}

    assert set(content("quant", "int8")) == fields(QuantConfig)
    assert all(found == fields(PwlConfig) for found in keys("pwl"))
    for problem, (architecture, sizes) in ARCHITECTURES.items():
        assert keys("model", problem) or problem == "copy_memory"  # whose models are language models
        assert all(found == fields(architecture) - sizes for found in keys("model", problem)), problem
    assert set().union(*keys("data")) == fields(TextConfig) - {"speech"}  # a group of its own
    for option in options("data"):
        if (problem := problem_with("data", option)) != "language_model":
            found = content("data", option)
            source = found["source"]
            labelled = CopyConfig if problem == "copy_memory" else LABELLED_SOURCES.get(source, (None,))[0]
            cls = speech_config_class(source) if problem == "speech" else labelled
            assert set(found) == fields(cls)
            for key, section in SECTIONS.items():
                assert key not in found or set(found[key]) == fields(section), f"{option}: {key}"
    for problem in problems.names():
        kind, found = problems.find(problem), content("problem", problem)
        assert set(found["problem"]) == fields(kind.options)
        assert set(found["evaluation"]) == fields(kind.evaluation)
    assert set(content("problem", "speech")["evaluation"]["search"]) == fields(SearchSettings)
    whole = [found for found in keys("recipe") if "optimizer" in found]
    assert len(whole) > 5
    assert all(found == fields(Recipe) for found in whole)
    top = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    assert {*top, *GROUPS, "evaluation"} - {"defaults", "hydra"} == fields(RunConfig) - {"composed", "command", "sweep"}


def test_experiments_choose_recipes_and_change_none() -> None:
    """Another recipe on the command line would else be half of one and half of the experiment's."""
    for experiment in options("experiment"):
        assert "recipe" not in content("experiment", experiment), experiment


def test_every_folder_of_problems_is_one_and_has_its_defaults() -> None:
    assert problems.names() == options("problem")
    for name in problems.names():
        config = composed(f"problem={name}", *folder_of(f"problem={name}"))
        assert read_config(config).kind is problems.find(name)
    with pytest.raises(IrnnError, match=r"problem\.name='radio' is unknown; allowed: .*language_model, speech"):
        problems.find("radio")


def test_every_key_is_read_by_some_code() -> None:
    read: set[str] = set()
    for package in ("irnn", "pipelines"):
        for path in (ROOT / package).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text()))
            read |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    classes: set[type] = {RunConfig, TrainerConfig, LoggerConfig, Recipe, Schedule, TextConfig, SearchConfig}
    classes |= {QuantConfig, PwlConfig, SearchSettings}
    classes |= {
        cls for name in problems.names() for cls in (problems.find(name).options, problems.find(name).evaluation)
    }
    classes |= {*(cls for cls, _ in ARCHITECTURES.values()), *SECTIONS.values()}
    classes |= (
        {cls for cls, _ in SPEECH_SOURCES.values()} | {cls for cls, _ in LABELLED_SOURCES.values()} | {CopyConfig}
    )
    names = {field.name for cls in classes for field in dataclasses.fields(cls)}
    # Bits are read by role, schedules by stage, folders by split: all through one getattr.
    assert names - read - set(ROLE_BITS) - {"float", *QAT_STAGES} - {"train", "dev", "test"} == set()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("quant.weight=9", r"quant\.weight=9"),
        ("quant.weight=eight", r"quant\.weight='eight': 'eight' is no weight code; allowed are a whole "),
        ("quant.weight=true", r"quant\.weight=True has the wrong type"),
        ("+quant.wheight=8", r"quant\.wheight is no key of the configuration; allowed: code, weight, embedding"),
        ("~seed", r"seed is missing"),
        ("pwl.fit=best", r"pwl\.fit='best': allowed are greedy, optimal"),
        ("trainer.threads=0", r"trainer\.threads=0 must be greater than 0"),
        ("trainer.precision=fp16", r"trainer\.precision=fp16 is unknown; allowed: fp32, bf16"),
        ("recipe.optimizer=lion", r"allowed: sgd, adam"),
        (
            "recipe.optimizer=sgd",
            r"recipe\.float\.final_lr=0\.001 is no rate for recipe\.optimizer=sgd \(0\.01 to 1000\)",
        ),
        ("recipe.all.lr=2", r"recipe\.all\.lr=2 is no rate for recipe\.optimizer=adam .*choose a whole recipe"),
        ("recipe.clip=0", r"recipe\.clip=0\.0 must be greater than 0"),
        ("problem.name=radio", r"problem\.name='radio' is unknown; allowed: "),
        ("~problem", r"problem=None must be a section with keys"),
        ("data.source=digits", r"data\.source='digits' is unknown; allowed: folder, .*need problem=NAME"),
        ("recipe.all.lr=fast", r"recipe\.all\.lr='fast' has the wrong type; wanted: float"),
        ("recipe.all.epochs=0", r"epochs=0 must be greater than 0"),
        ("recipe.all.hold=2", r"hold=2.0 must be between 0 and 1"),
        ("recipe.float.average=99", r"average=99 must be between 0 and the stage's 10 epochs"),
        ("+recipe.all.average=1", r"recipe\.all\.average=1: only recipe\.float averages"),
        ("recipe.all.warmup=-1", r"warmup=-1.0 must be between 0 and 1"),
        ("recipe.all=3", r"recipe\.all=3 must be a section"),
        ("logger.wandb=always", r"logger\.wandb=always is unknown; allowed: null, offline, online"),
        ("data.batch_size=0", r"data\.batch_size=0"),
    ],
)
def test_wrong_values_are_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(IrnnError, match=message) as caught:
        read_config(composed("experiment=quickstart", override))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.source=radio", r"data\.source='radio' is unknown; allowed: synthetic_speech, digits, librispeech"),
        ("+data.batch_size=20", r"data\.batch_size is no key of the configuration; allowed: source"),
        ("data.features.sample_rate=high", r"data\.features\.sample_rate='high' has the wrong type; wanted: int"),
        ("data.batches.max_frames=0", r"data\.batches\.max_frames=0 must be at least 1"),
        ("evaluation.search.beam=0", r"search\.beam=0 must be at least 1"),
        ("evaluation.search.lm_weight=0.3", r"search\.lm_weight=0\.3 needs a language model: set "),
        ("evaluation.search.language_model=lm", r"search\.language_model=lm has no weight: set search\.lm_weight"),
        ("evaluation.interpreter_utterances=0", r"evaluation\.interpreter_utterances=0 must be greater than 0"),
        ("+evaluation.interpreter_tokens=2", r"evaluation\.interpreter_tokens is no key of the configuration"),
    ],
)
def test_wrong_values_of_a_recognizer_are_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(IrnnError, match=message) as caught:
        read_config(composed("experiment=synthetic_speech", override))
    assert "\n" not in str(caught.value)


def test_a_text_of_ones_own_trains_by_a_whole_recipe() -> None:
    config = read_config(composed("data=text", "data.dir=somewhere"))
    assert (config.problem.name, config.recipe.optimizer) == ("language_model", "adam")
    assert config.recipe == read_config(composed("experiment=quickstart")).recipe
    other = read_config(composed("experiment=ptb_ln_lstm", "data.dir=somewhere", "recipe=sgd40")).recipe
    assert other == read_config(composed("experiment=ptb_lstm", "data.dir=somewhere")).recipe


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_recipe_has_the_rates_of_its_optimizer_alone(experiment: str) -> None:
    chosen = f"experiment={experiment}"
    recipe = read_config(composed(chosen, *folder_of(chosen))).recipe
    other = "sgd" if recipe.optimizer == "adam" else "adam"
    with pytest.raises(IrnnError, match=f"is no rate for recipe.optimizer={other}"):
        dataclasses.replace(recipe, optimizer=other)


def test_a_cell_and_a_weight_code_are_chosen_by_name() -> None:
    """An LSTM's stages are those of before there was a choice."""
    gru = read_config(composed("experiment=ptb_gru", "data.dir=somewhere", "quant.weight=ternary"))
    lstm = read_config(composed("experiment=ptb_lstm", "data.dir=somewhere"))
    assert (gru.model["cell"], lstm.model["cell"]) == ("gru", "lstm")
    assert gru.quant.weight == "ternary"
    architectures = [read_section(LanguageModelConfig, {**c.model, "vocabulary_size": 9}, "") for c in (gru, lstm)]
    assert architecture_inputs(architectures[0]) == architecture_inputs(architectures[1]) | {"cell": "gru"}
    with pytest.raises(IrnnError, match="is no weight code; allowed are a whole number 2 to 8"):
        read_config(composed("experiment=quickstart", "quant.weight=trinary"))


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
    assert Schedule(epochs=3, lr=1.0, final_lr=0.5, hold=1.0, warmup=0.5).warmups() == [0.5, 0.0, 0.0]


def test_matched_float_training_repeats_the_later_stages(tmp_path: Path) -> None:
    recipe = tiny_config(tmp_path, "recipe.pwl.epochs=2", "recipe.all.lr=0.05").recipe
    assert recipe.rates("float_matched") == [rate for name in QAT_STAGES for rate in recipe.rates(name)]
    assert len(recipe.rates("float_matched")) == 5
    warm = tiny_config(tmp_path, "recipe.pwl.epochs=2", "recipe.pwl.warmup=0.5", "recipe.all.warmup=1").recipe
    assert warm.warmups("float_matched") == [0.5, 0.0, 0.0, 0.0, 1.0]
