"""A run's program on a board: chosen before training, measured after it."""

import json

import pytest
import torch

import irnn
from deploy_tvm import targets
from deploy_tvm.remote import emulated
from deploy_tvm.remote.device import Device
from deploy_tvm.remote.server import serve
from irnn import qat
from irnn.data.labelled.batches import LabelledBatch
from irnn.errors import IrnnError
from irnn.models.classifier import Classifier, ClassifierConfig
from pipelines.core.on_device import Board, board_of
from pipelines.run import run
from tests.support import models
from tests.support.boards import need
from tests.support.speech_models import quantized_speech, speech_model
from tests.support.tiny_run import composed, tiny_config
from tests.support.tiny_speech import tiny_speech


def chosen(*overrides):
    config = composed(*overrides)
    return board_of(config.target, config.device)


def test_this_machine_is_no_board():
    assert chosen() is None


@pytest.mark.parametrize(
    ("overrides", "target", "cpu"),
    [
        (["device=emulated"], "cortex_a76", "cortex-a76"),
        (["device=emulated", "target=cortex_a53"], "cortex_a53", "cortex-a53"),
        (["device=rpc", "device.host=board"], "aarch64", None),
    ],
)
def test_a_board_and_its_target(overrides, target, cpu):
    need(target)
    board = chosen(*overrides)
    assert board.target.name == target
    assert board.device.cpu == cpu


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["target=cortex_a72"], "target=cortex_a72 needs a device"),
        (["device=rpc"], "needs device.host="),
        (["device=emulated", "device.cpu=z80"], "device.cpu=z80"),
    ],
)
def test_a_wrong_board_is_refused_before_training(tmp_path, overrides, message):
    need("aarch64")
    with pytest.raises(IrnnError, match=message):
        run(tiny_config(tmp_path, *overrides))
    assert not (tmp_path / "out").exists()


def test_the_program_is_measured_on_the_board(tmp_path, capsys):
    need("cortex_a53", emulated.QEMU, cxx=True)
    model = models.language_model()
    irnn.float_program(model).save(tmp_path / "float_program")
    irnn.convert(models.quantized(model)).save(tmp_path / "program")
    chosen("device=emulated", "target=cortex_a53").measure(tmp_path)
    result = json.loads((tmp_path / "device_cortex_a53.json").read_text())
    assert result["mismatches"]["count"] == 0
    assert result["mismatches"]["compared"] > 64 * models.VOCABULARY
    assert result["targets"]["cortex_a53"]["float"]["us_per_token"] > 0


@pytest.mark.slow
def test_a_recognizer_is_measured_on_the_board(tmp_path, capsys):
    need("host", cxx=True)
    irnn.float_program(speech_model()).save(tmp_path / "float_program")
    irnn.convert(quantized_speech()).save(tmp_path / "program")
    with serve.running(serve.server_command(None)) as (host, port, _):
        board = Board(targets.find("host"), Device("rpc", host=host, port=port, number=1, repeat=2, warmup=0))
        board.measure(tmp_path)
    result = json.loads((tmp_path / "device_host.json").read_text())
    assert (result["kind"], result["mismatches"]["count"]) == ("device_recognizer", 0)
    assert result["targets"]["host"]["float"]["real_time_factor"] > 0
    assert "2 s of speech" in capsys.readouterr().out


def test_a_classifier_is_measured_on_the_board(tmp_path, capsys):
    need("host", cxx=True)
    torch.manual_seed(0)
    model = Classifier(ClassifierConfig(feature_size=5, classes=3, hidden_size=7)).eval()
    irnn.float_program(model).save(tmp_path / "float_program")
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "all")
    qat.calibrate(model, [LabelledBatch(torch.randn(4, 9, 5), torch.tensor([9, 3, 5, 9]), torch.zeros(4).long())])
    irnn.convert(model.eval()).save(tmp_path / "program")
    with serve.running(serve.server_command(None)) as (host, port, _):
        Board(targets.find("host"), Device("rpc", host=host, port=port, number=1, repeat=2, warmup=0)).measure(tmp_path)
    result = json.loads((tmp_path / "device_host.json").read_text())
    assert result["mismatches"] == {"count": 0, "compared": 3 + 7}
    assert result["timed"] == "sequence"
    for entry in (result["targets"]["host"], result["targets"]["host"]["float"]):
        assert entry["us_per_sequence"] > 0
        assert entry["sequences_per_second"] == pytest.approx(1e6 / entry["us_per_sequence"], rel=0.01)
        assert "token" not in " ".join(entry)
    printed = capsys.readouterr().out
    assert "one sequence a call" in printed
    assert "token" not in printed


@pytest.mark.slow
@pytest.mark.parametrize("config", [tiny_config, tiny_speech])
def test_one_command_from_training_to_the_board(tmp_path, config):
    need("cortex_a76", emulated.QEMU, cxx=True)
    run(config(tmp_path, "device=emulated"))
    (path,) = (tmp_path / "out").rglob("device_cortex_a76.json")
    assert json.loads(path.read_text())["mismatches"]["count"] == 0
