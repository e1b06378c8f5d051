"""``python -m deploy_tvm``: sub-commands, overrides, and one clear line for whatever is wrong."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from deploy_tvm.__main__ import main
from deploy_tvm.cli import options
from deploy_tvm.peers.peers import parse_against
from irnn.data.speech.units import Units, UnitsConfig
from irnn.data.text.vocabulary import Vocabulary
from irnn.errors import IrnnError
from irnn.program import Program
from irnn.program.sets import ProgramSet
from tests.support import needs
from tests.support.random_programs import Spec, random_program

needs_tvm = pytest.mark.usefixtures("_tvm")


@pytest.fixture
def _tvm() -> None:
    needs.tvm()


@pytest.fixture(scope="module")
def model() -> Program:
    program = random_program(Spec())
    program.metadata["vocabulary"] = ["<eos>", *(f"word{k}" for k in range(1, 23))]
    return program


@pytest.fixture(scope="module")
def artefact(model: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact with its float program beside it."""
    needs.tvm()
    folder = tmp_path_factory.mktemp("run")
    model.save(folder / "program")
    random_program(Spec(kind="float")).save(folder / "float_program")
    assert main(["compile", str(folder / "program"), "target=host", f"out={folder / 'artefact'}"]) == 0
    return folder / "artefact"


def test_overrides_are_told_from_folders_and_words() -> None:
    arguments = ["a/b", "target=host", "out=x", "tarket=host", "+device.port=1"]
    assert options.split(arguments) == (["a/b"], arguments[1:])
    assert options.split(["x=y", "device.core=0", "out"], words=True) == (["x=y", "out"], ["device.core=0"])


def test_the_defaults_are_this_machine() -> None:
    chosen = options.compose([])
    assert chosen.device == {"kind": "local", "core": None}
    assert chosen.target["name"] == "host"
    assert chosen.out is None
    assert options.compose(["out=some/folder", "target.mcpu=znver4"]).out == Path("some/folder")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["target=vax"], "target=vax: unknown; allowed are .*host"),
        (["device=phone"], "device=phone: unknown; allowed are .*local"),
        (["tarket=host"], "tarket.*there are target=NAME"),
        (["device.port=3"], "device.port.*there are target=NAME"),
        (["+device.port=3"], "a local device has core, kind"),
        (["device.core=9999"], "device.core=9999: allowed are null and FIRST"),
        (["device.kind=moon"], "device.kind=moon: allowed are local"),
        (["out=[1"], "cannot use the options"),
    ],
)
def test_unknown_options_are_one_line(overrides: list[str], message: str) -> None:
    # The first core that this process may use: no part of the test's name, which all workers have to agree on.
    message = message.replace("FIRST", str(min(os.sched_getaffinity(0))))
    with pytest.raises(IrnnError, match=message) as error:
        options.compose(overrides)
    assert "\n" not in str(error.value)


def test_runtimes_to_compare_with() -> None:
    assert parse_against("") == ()
    assert parse_against("torch, torch,onnxruntime") == (
        "torch_fp32", "torch_dynamic_int8", "onnxruntime_fp32", "onnxruntime_dynamic_int8",
    )  # fmt: skip
    with pytest.raises(IrnnError, match="--against=caffe: unknown runtime; allowed are onnxruntime"):
        parse_against("torch,caffe")


LAYER = ["bench", "--layer", "lstm", "--input", "4", "--hidden", "4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile"], "compile takes one program folder"),
        (["compile", "nowhere", "out=x"], "nowhere holds no readable program"),
        (["compile", "nowhere"], "out=FOLDER is missing"),
        (["run"], "run needs an artefact"),
        (["run", "nowhere", "the"], "nowhere"),
        (["bench"], "bench takes one artefact"),
        (["bench", "nowhere"], "nowhere"),
        (["bench", "nowhere", "--hidden", "4"], "--hidden belongs to --layer"),
        (["bench", "--layer", "rnn", "--input", "4", "--hidden", "4"], "unknown cell 'rnn'; allowed are gru, lstm"),
        (["bench", "--layer", "lstm", "--input", "4"], "--layer needs --hidden"),
        ([*LAYER, "artefact"], "an artefact or --layer, not both"),
        ([*LAYER, "--float", "x"], "--float belongs to an artefact"),
        (
            [*LAYER, "--weight-bits", "9"],
            "--weight-bits 9: allowed are weight bits of 2, 3, 4, 5, 6, 7, 8, which the code uniform",
        ),
        ([*LAYER, "--code", "ternary", "--weight-bits", "4"], "--weight-bits 4: the weight code ternary has 2"),
        ([*LAYER, "--code", "midrise"], "--code midrise: needs weight bits of 2, 3, 4, which"),
        ([*LAYER, "--code", "trinary"], "--code trinary: is no weight code; there are uniform, ternary"),
        ([*LAYER, "--codes", "5"], "'5' is no number of bits of the weight code alternating"),
        ([*LAYER, "--steps", "0"], "--steps 0: must lie in 1 to"),
        ([*LAYER, "--layers", "0"], "--layers 0: must lie in 1 to"),
        ([*LAYER, "--threads", "2"], "--threads 2: our kernels run on one thread"),
        ([*LAYER, "--rounds", "0"], "--rounds 0: must be at least 1"),
        ([*LAYER, "--seconds", "0"], "--seconds 0.0: must be more than 0"),
        ([*LAYER, "--against", "caffe"], "--against=caffe: unknown runtime"),
        ([*LAYER, "--peers-python", "/no/python"], "--peers-python=/no/python: no such program"),
        ([*LAYER, "--json", "/no/folder/x.json"], "the folder /no/folder does not exist"),
        ([*LAYER, "target=vax"], "target=vax: unknown"),
    ],
)
@needs_tvm
def test_bad_input_is_one_line_and_exit_code_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


@pytest.mark.parametrize("arguments", [[], ["frob"], [*LAYER, "--norm", "batch"], [*LAYER, "--steps", "many"]])
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_candidates_are_those_of_the_interpreter(
    artefact: Path, model: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, _ = model.run(np.array([[5, 3, 0, 22]]))
    best = np.argsort(-logits[0, -1], kind="stable")[:3]
    capsys.readouterr()
    assert main(["run", str(artefact), "--top", "3", "word5", "word3", "<eos>", "22"]) == 0
    from_arguments = capsys.readouterr().out
    assert [line.split()[1] for line in from_arguments.splitlines()] == [model.metadata["vocabulary"][k] for k in best]
    monkeypatch.setattr("sys.stdin", io.StringIO("word5 word3\n<eos> word22\n"))
    assert main(["run", str(artefact), "--top", "3"]) == 0
    assert capsys.readouterr().out == from_arguments


@pytest.mark.parametrize(
    "words",
    [["word5 word3 <eos> 22"], ["word5", "word3 <eos>", "22"], [" word5\tword3\n", "<eos> word22 "], ["5 3", "0 22"]],
)
def test_words_are_split_at_blanks_however_they_are_quoted(
    artefact: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for arguments in (["word5", "word3", "<eos>", "word22"], words):
        capsys.readouterr()
        assert main(["run", str(artefact), *arguments]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def exported(folder: Path, words: list[str]) -> Path:
    """A program as an export leaves it: its words in a file beside it."""
    random_program(Spec()).save(folder)
    Vocabulary(words).save(folder / "vocabulary.json")
    return folder


@needs_tvm
def test_what_is_compiled_takes_its_words_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["<eos>", *(f"w{k}" for k in range(1, 23))]
    program = exported(tmp_path / "program", words)
    assert main(["compile", str(program), f"out={tmp_path / 'lib'}"]) == 0
    elsewhere = (tmp_path / "lib").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert main(["run", str(elsewhere), "w1 w2 w3", "--top", "2"]) == 0
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines()} <= set(words)


@needs_tvm
def test_words_of_another_program_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = exported(tmp_path / "program", ["<eos>", "the"])
    assert main(["compile", str(program), f"out={tmp_path / 'lib'}"]) == 1
    assert "vocabulary.json has 2 words, the program beside it 23 ids" in capsys.readouterr().err
    assert not (tmp_path / "lib").exists()


@needs_tvm
def test_words_of_a_program_without_any_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random_program(Spec()).save(tmp_path / "program")
    assert main(["compile", str(tmp_path / "program"), f"out={tmp_path / 'lib'}"]) == 0
    assert main(["run", str(tmp_path / "lib"), "the"]) == 1
    assert "'the' is no token id, and this program has no vocabulary: give ids 0 to 22, or words and --vocab" in (
        capsys.readouterr().err
    )


@needs_tvm
def test_a_compiled_set_takes_its_units_along(tmp_path: Path) -> None:
    ProgramSet({"part": random_program(Spec())}).save(tmp_path / "programs")
    units = Units.train(["one two", "three"], UnitsConfig(kind="words"))
    units.save(tmp_path / "programs")
    for _ in range(2):  # made, and replaced
        assert main(["compile", str(tmp_path / "programs"), f"out={tmp_path / 'lib'}"]) == 0
        assert Units.load(tmp_path / "lib").names == units.names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["zebra"], "the word 'zebra' is not in the program's vocabulary of 23 words"),
        (["23"], "token id 23 is out of range; this program has ids 0 to 22"),
        (["-1"], "the word '-1' is not in"),
        (["--top", "0", "word1"], "--top 0: must lie in 1 to"),
        (["--vocabulary", "/no/words.json", "word1"], "no vocabulary at /no/words.json"),
    ],
)
def test_bad_words_are_one_line(
    artefact: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(artefact), *words] if words != ["-1"] else ["run", str(artefact), "--", "-1"]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_features_have_no_next_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs.tvm()
    random_program(Spec(vocabulary=None, logits=None)).save(tmp_path / "program")
    assert main(["compile", str(tmp_path / "program"), f"out={tmp_path / 'artefact'}"]) == 0
    assert main(["run", str(tmp_path / "artefact"), "1"]) == 1
    assert "reads features, not token ids: it has no words" in capsys.readouterr().err


def test_any_program_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Features in, hidden states out: no words, no recognizer."""
    needs.tvm()
    random_program(Spec(vocabulary=None, logits=None)).save(tmp_path / "program")
    short = ["--rounds", "2", "--seconds", "0.02", "--steps", "1", "--json", str(tmp_path / "out.json")]
    assert main(["bench", str(tmp_path / "program"), *short]) == 0
    assert "us per step" in capsys.readouterr().out
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["kind"], result["mismatches"]["count"]) == ("program", 0)
    assert set(result["us_per_step"]) == {"tvm_integer"}


def test_a_plan_is_printed(artefact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["plan", str(artefact), "target=cortex_a53"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "read in place: ids"
    assert lines[1].startswith("product       layer0.forward.x.pre = linear embedded (with embedding)")
    assert main(["plan"]) == 1
    assert "plan takes one program or artefact, not 0" in capsys.readouterr().err


def test_an_artefact_benchmark_finds_the_float_program_beside_it(artefact: Path, tmp_path: Path) -> None:
    result_file = tmp_path / "out.json"
    short = ["--rounds", "2", "--seconds", "0.02", "--steps", "3", "--json", str(result_file)]
    assert main(["bench", str(artefact), *short]) == 0
    result = json.loads(result_file.read_text())
    assert result["mismatches"]["count"] == 0
    assert result["mismatches"]["compared"] > 64 * 23
    for part in (result, result["sequence"]):
        assert set(part["us_per_token"]) == {"tvm_integer", "tvm_float"}
        assert part["floor"]["bytes_every_step"] > 0


def test_a_layer_benchmark_prints_its_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    needs.tvm()
    result_file = tmp_path / "out.json"
    short = ["--rounds", "2", "--seconds", "0.02", "--steps", "2", "--json", str(result_file)]
    assert main([*LAYER, *short]) == 0
    printed = capsys.readouterr().out
    assert "lstm 4 -> 4, W8; 2 steps a call" in printed
    assert "0 mismatches" in printed
    assert json.loads(result_file.read_text())["mismatches"]["count"] == 0
