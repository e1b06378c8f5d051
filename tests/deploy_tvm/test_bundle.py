"""Bundles: unpacked and run, on this machine and on emulated 64- and 32-bit boards."""

import hashlib
import re
import subprocess
import tarfile
from dataclasses import replace

import pytest
import torch

import irnn
from deploy_tvm import targets
from deploy_tvm.__main__ import main
from deploy_tvm.bundle.bundle import bundle
from deploy_tvm.remote import emulated
from irnn import qat
from irnn.data.labelled.batches import LabelledBatch
from irnn.errors import IrnnError
from irnn.models.classifier import Classifier, ClassifierConfig
from tests.support import models
from tests.support.boards import need
from tests.support.speech_models import quantized_speech

TOKENS = 24
QEMU = {
    "host": None,
    "aarch64": ("qemu-aarch64", "cortex-a53"),
    "cortex_a53": ("qemu-aarch64", "cortex-a53"),
    "cortex_a76": ("qemu-aarch64", "cortex-a76"),
    "armv7a": ("qemu-arm", "cortex-a7"),
    "i8mm": ("qemu-aarch64", "max"),
}
TARGETS = {name: targets.find(name) for name in QEMU if name != "i8mm"}
TARGETS["i8mm"] = replace(TARGETS["cortex_a76"], name="i8mm", mattr=("+i8mm",))


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    irnn.convert(models.quantized(models.language_model())).save(folder / "plain")
    small = irnn.QuantConfig(weight=4, embedding=4, logits_weight=4)
    irnn.convert(models.quantized(models.language_model(norm="mad"), small)).save(folder / "norm_w4")
    irnn.convert(models.quantized_layer(bidirectional=True)).save(folder / "bidirectional")
    irnn.float_program(models.language_model()).save(folder / "float")
    irnn.convert(quantized_speech()).save(folder / "recognizer")
    return folder


@pytest.fixture(scope="module")
def long_programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    models.long_programs(folder)
    return folder


def unpack(archive, folder):
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (content,) = folder.iterdir()
    return content


def execute(content, target, calls=5):
    before = []
    if QEMU[target] is not None:
        qemu, cpu = QEMU[target]
        before = [emulated.find_qemu(qemu), "-cpu", cpu]
    command = [*before, str(content / "runner"), str(calls)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def check(programs, tmp_path, program, target, tokens=TOKENS):
    """The number of integers that the runner compared, without a difference."""
    need("aarch64" if target == "i8mm" else target, QEMU[target] and QEMU[target][0])
    archive = tmp_path / "network.tar.gz"
    bundle(programs / program, TARGETS[target], archive, tokens)
    done = execute(unpack(archive, tmp_path / "unpacked"), target)
    found = re.search(rf"PASS: 0 of (\d+) integers differ from the reference \({tokens} steps\)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert re.search(r"latency: median [\d.]+ us, p95 [\d.]+ us a step \(5 calls\)", done.stdout)
    assert done.returncode == 0
    return int(found[1])


@pytest.mark.parametrize(
    ("program", "target"),
    [
        ("plain", "host"),
        ("bidirectional", "host"),
        ("plain", "armv7a"),
        ("norm_w4", "armv7a"),
        ("bidirectional", "armv7a"),
        ("norm_w4", "cortex_a53"),
        ("plain", "cortex_a76"),
        ("norm_w4", "i8mm"),
    ],
)
def test_the_runner_finds_no_difference(programs, tmp_path, program, target):
    assert check(programs, tmp_path, program, target) >= TOKENS * 32


@pytest.mark.slow
@pytest.mark.parametrize("target", ["armv7a", "aarch64", "cortex_a76", "i8mm"])
@pytest.mark.parametrize("program", models.LONG)
def test_two_thousand_tokens(long_programs, tmp_path, program, target):
    assert check(long_programs, tmp_path, program, target, 2000) >= 2000 * models.VOCABULARY


def parts_of(content):
    return sorted(path.name for path in content.iterdir() if path.is_dir())


def test_a_recognizers_runner_runs_both_of_its_programs(programs, tmp_path):
    """Several inputs and outputs, frames that are subsampled, a memory that is the same in all calls."""
    need("host")
    bundle(programs / "recognizer", targets.find("host"), tmp_path / "network.tar.gz", 21)
    content = unpack(tmp_path / "network.tar.gz", tmp_path / "unpacked")
    assert parts_of(content) == ["decoder", "encoder"]
    done = execute(content, "host")
    compared = re.findall(r"PASS: 0 of (\d+) integers differ from the reference \(21 steps\)", done.stdout)
    assert len(compared) == 2, done.stdout + done.stderr
    assert done.returncode == 0
    for line in (content / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((content / name).read_bytes()).hexdigest() == digest
    golden = content / "decoder" / "golden.bin"
    lines = (content / "decoder" / "network.txt").read_text().splitlines()
    outputs = [line for line in lines if line.startswith("output")]
    assert len(outputs) > 1
    assert sum(line.startswith("fixed") for line in lines) == 3
    changed = bytearray(golden.read_bytes())
    changed[int(outputs[1].split()[-1])] ^= 1
    golden.write_bytes(changed)
    done = execute(content, "host")
    assert done.returncode == 1
    assert "FAIL: 1 of " in done.stdout


@pytest.mark.parametrize("target", ["armv7a", "cortex_a76"])
def test_a_recognizers_runners_find_no_difference_on_boards(programs, tmp_path, target):
    need(target, QEMU[target][0])
    bundle(programs / "recognizer", TARGETS[target], tmp_path / "network.tar.gz", 9)
    content = unpack(tmp_path / "network.tar.gz", tmp_path / "unpacked")
    for part in parts_of(content):
        done = execute(content / part, target, calls=1)
        assert "PASS: 0 of " in done.stdout, done.stdout + done.stderr


def test_the_runner_notices_a_single_wrong_number(programs, tmp_path):
    need("host")
    bundle(programs / "plain", targets.find("host"), tmp_path / "network.tar.gz", TOKENS)
    content = unpack(tmp_path / "network.tar.gz", tmp_path / "unpacked")
    for line in (content / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((content / name).read_bytes()).hexdigest() == digest
    output = next(line for line in (content / "network.txt").read_text().splitlines() if line.startswith("output"))
    golden = bytearray((content / "golden.bin").read_bytes())
    golden[int(output.split()[-1]) + 4 * 7] ^= 1
    (content / "golden.bin").write_bytes(golden)
    done = execute(content, "host")
    assert done.returncode == 1
    assert "FAIL: 1 of " in done.stdout
    assert "first difference: call 0, output, element 7" in done.stderr


def test_the_runner_refuses_files_that_are_cut_off(programs, tmp_path):
    need("host")
    bundle(programs / "plain", targets.find("host"), tmp_path / "network.tar.gz", TOKENS)
    content = unpack(tmp_path / "network.tar.gz", tmp_path / "unpacked")
    for name in ("golden.bin", "parameters.bin", "network.txt"):
        whole = (content / name).read_bytes()
        (content / name).write_bytes(whole[: len(whole) // 2])
        done = execute(content, "host")
        assert done.returncode == 2
        assert name in done.stderr
        (content / name).write_bytes(whole)
    assert execute(content, "host").returncode == 0


def test_the_source_builds_against_the_library(programs, tmp_path):
    """What runner.c says about building it again."""
    need("host")
    bundle(programs / "plain", targets.find("host"), tmp_path / "network.tar.gz", TOKENS)
    content = unpack(tmp_path / "network.tar.gz", tmp_path / "unpacked")
    (content / "runner").unlink()
    command = ["cc", "-O2", "-rdynamic", "runner.c", "-L.", "-l:library.so", "-Wl,-rpath,$ORIGIN", "-o", "runner"]
    subprocess.run(command, cwd=content, check=True, capture_output=True, timeout=120)
    assert "PASS" in execute(content, "host").stdout


def test_the_command(programs, tmp_path, capsys, monkeypatch):
    need("armv7a")
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", str(programs / "plain"), "target=armv7a", "--tokens", "4"]) == 0
    assert "plain-armv7a.tar.gz" in capsys.readouterr().out
    with tarfile.open(tmp_path / "plain-armv7a.tar.gz") as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    files = {"library.so", "runner", "runner.c", "parameters.bin", "golden.bin", "network.txt", "README.txt"}
    assert files | {"SHA256SUMS"} == names - {""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}/float"], "the integer one is wanted here"),
        (["{0}/absent"], "holds no"),
        (["{0}/plain", "--tokens", "0"], "--tokens 0: must lie in 1 to"),
        (["{0}/plain", "out=network.zip"], "must end in .tar.gz"),
        (["{0}/plain", "out=nowhere/network.tar.gz"], "does not exist"),
        ([], "bundle takes one program or artefact"),
    ],
)
def test_bad_input_is_one_line(programs, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", *(a.format(programs) for a in arguments)]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not list(tmp_path.glob("*.gz"))


def test_android_needs_its_ndk(programs, tmp_path, monkeypatch):
    monkeypatch.delenv("TVM_NDK_CC", raising=False)
    with pytest.raises(IrnnError, match="TVM_NDK_CC"):
        bundle(programs / "plain", targets.find("android_arm64"), tmp_path / "network.tar.gz", TOKENS)


def test_a_classifiers_runner_takes_its_sequences_whole(programs, tmp_path):
    """Features and their length in, one row of logits out."""
    need("host")
    model = Classifier(ClassifierConfig(feature_size=9, classes=4, hidden_size=16))
    batch = LabelledBatch(torch.randn(4, 20, 9), torch.tensor([20, 7, 1, 13]), torch.arange(4))
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "all")
    qat.calibrate(model, [batch])
    irnn.convert(model).save(programs / "classifier")
    assert check(programs, tmp_path, "classifier", "host") == 4 + 16
