"""The same integers everywhere, on all 82,430 tokens of the PTB test split: QAT evaluation, interpreter, TVM."""

from pathlib import Path

import numpy as np
import pytest
import torch

import deploy_tvm
import irnn
from irnn import qat
from irnn.data import TextConfig, load_corpus
from irnn.metrics import stream_chunks
from tests.support import needs

CHUNK = 256
EVERYTHING, SOME = None, 600
# Parts of the stream that are read side by side where all of it is read, which they divide: five times as fast in QAT.
ROWS = 10
CASES = [("lstm", None, 8), ("lstm", "mad", 4), ("gru", None, 8)]


def _compare(tmp_path: Path, corpus, tokens: int | None, rows: int, cell: str, norm: str | None, bits: int) -> int:
    """Number of integers compared (all logits and the states after each chunk); fails at the first difference."""
    torch.manual_seed(0)
    size = len(corpus.vocabulary)
    model = irnn.LanguageModel(irnn.LanguageModelConfig(size, 300, 300, norm=norm, cell=cell))
    quant = irnn.QuantConfig(weight=bits, embedding=bits, logits_weight=bits)
    qat.prepare(model, quant, irnn.PwlConfig(), "all")
    train = torch.from_numpy(corpus.train[: 20 * 70].astype(np.int64)).reshape(20, 70)
    qat.calibrate(model, [train])
    model.eval()
    program = irnn.convert(model)
    deploy_tvm.build(program, tmp_path / "artefact", target="host")
    runner = deploy_tvm.load(tmp_path / "artefact")
    states = [None, None, None]
    compared = 0
    for ids, _ in stream_chunks(corpus.test[:tokens], corpus.vocabulary.eos, CHUNK // rows, rows):
        with torch.no_grad():
            evaluated, states[0] = model.frozen().run(torch.from_numpy(ids), states[0])
        interpreted, states[1] = program.run(ids, states[1])
        compiled, states[2] = runner.run(ids, states[2])
        for other, state in ((evaluated.numpy(), states[0]), (compiled, states[2])):
            assert np.array_equal(interpreted, other)
            for name, value in states[1].items():
                assert np.array_equal(value, np.asarray(state[name])), name
        compared += interpreted.size + sum(v.size for v in states[1].values())
    return compared


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "norm", "bits"), CASES)
def test_all_of_ptb(tmp_path, ptb, cell, norm, bits):
    assert len(ptb.test) == 82_430
    assert _compare(tmp_path, ptb, EVERYTHING, ROWS, cell, norm, bits) > 82_430 * 10_000


@pytest.mark.parametrize(("cell", "norm", "bits"), CASES)
def test_a_few_hundred_tokens_of_ptb(tmp_path, ptb, cell, norm, bits):
    assert _compare(tmp_path, ptb, SOME, 1, cell, norm, bits) > SOME * 10_000


@pytest.fixture(scope="module")
def ptb():
    return load_corpus(TextConfig("folder", str(needs.data("ptb"))))
