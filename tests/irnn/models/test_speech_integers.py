"""Recognizers on integers: QAT evaluation and interpreter equal each other and the oracle, whatever the padding."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import irnn
from irnn.arithmetic import fixed_point
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.program import Value
from irnn.program.__main__ import main
from irnn.program.check import ranges
from irnn.program.sets import ProgramSet
from tests.support.oracle import nearest
from tests.support.planting import Mutation, arithmetic, namespace, operation, planted, walk
from tests.support.program_oracle import ProgramOracle
from tests.support.random_programs import with_tensors
from tests.support.speech_models import FRAMES, quantized_speech, speech_batch, utterances

BITS = {
    "8 bits": irnn.QuantConfig(),
    "4-bit weights, 6-bit activations": irnn.QuantConfig(
        weight=4, embedding=4, logits_weight=4, activation=6, hidden=6
    ),
    "2-bit weights": irnn.QuantConfig(weight=2, embedding=2, logits_weight=2),
}


@pytest.fixture(scope="module", params=BITS)
def model(request):
    return quantized_speech(BITS[request.param])


@pytest.fixture(scope="module")
def programs():
    return irnn.convert(quantized_speech())


def encode(programs, features, frames, make=None) -> list[np.ndarray]:
    encoder = programs["encoder"]
    inputs = {"features": encoder.inputs["features"].quantize(features), "lengths": np.array(frames, np.int32)}
    return (make(encoder) if make else encoder).run_all(inputs)[0]


def decoder_inputs(tokens, memory) -> dict[str, np.ndarray]:
    return dict(zip(("tokens", "memory", "keys", "lengths"), (np.asarray(tokens, np.int32), *memory), strict=True))


def test_evaluation_in_training_equals_the_interpreter(model):
    batch = speech_batch()
    programs = irnn.convert(model)
    with torch.no_grad():
        memory = model.encode(batch.features, batch.frames)
        logits, weights, state = model.decode(batch.decoder_inputs, memory)
        raw = model.frozen("decoder").run_all(
            decoder_inputs(batch.decoder_inputs, (memory.values, memory.keys, memory.lengths))
        )[0][0]
    expected = encode(programs, batch.features.numpy(), batch.frames.numpy())
    for actual, wanted in zip((memory.values, memory.keys, memory.lengths), expected, strict=True):
        np.testing.assert_array_equal(actual.numpy(), wanted, strict=True)
    (logits_i32, expected_weights), last = programs["decoder"].run_all(
        decoder_inputs(batch.decoder_inputs.numpy(), expected)
    )
    np.testing.assert_array_equal(raw.numpy(), logits_i32, strict=True)
    assert torch.equal(logits, raw * programs["decoder"].logits_scale)
    np.testing.assert_array_equal(weights.numpy(), expected_weights, strict=True)
    assert set(last) == set(state)
    for name, value in last.items():
        np.testing.assert_array_equal(state[name].numpy(), value, strict=True)


def compare_with_the_oracle(programs, make=None) -> None:
    """A padded batch against the oracle, which sees each utterance alone."""
    features, units = utterances()
    batch = speech_batch()
    padded = batch.features.numpy().copy()
    for row, count in enumerate(FRAMES):
        padded[row, count:] = 3.0  # padding that would be heard
    memory = encode(programs, padded, FRAMES, make)
    tokens = batch.decoder_inputs.numpy()
    decoder = programs["decoder"]
    (logits, weights), _ = (make(decoder) if make else decoder).run_all(decoder_inputs(tokens, memory))
    for row, (own, ids) in enumerate(zip(features, units, strict=True)):
        x = programs["encoder"].inputs["features"].quantize(own).tolist()
        (values, keys, places), _ = ProgramOracle(programs["encoder"]).run({"features": x, "lengths": len(x)})
        assert places == len(values) == memory[2][row]
        assert np.array_equal(memory[0][row, :places], values)
        assert np.array_equal(memory[1][row, :places], keys)
        given = {"tokens": [1, *ids.tolist()], "memory": values, "keys": keys, "lengths": places}
        (own_logits, own_weights), _ = ProgramOracle(decoder).run(given)
        steps = len(ids) + 1
        assert np.array_equal(logits[row, :steps], own_logits)
        assert np.array_equal(weights[row, :steps, :places], own_weights)
        assert not weights[row, :, places:].any()


def test_padded_batches_equal_the_oracle_on_each_utterance(model):
    compare_with_the_oracle(irnn.convert(model))


def test_the_dot_of_attention_moves(programs):
    """The oracle's comparison would be worth little if every weight were the same."""
    memory = encode(programs, speech_batch().features.numpy(), FRAMES)
    (_, weights), _ = programs["decoder"].run_all(decoder_inputs(speech_batch().decoder_inputs.numpy(), memory))
    assert len(np.unique(weights)) > 20


MUTATIONS = [
    arithmetic("best score of the padding", "ops.where(valid, score, lowest_i32)", "score"),
    arithmetic("padding has weight", 'ops.where(valid, e_i32, ops.to(0, "int32"))', "e_i32"),
    arithmetic("distance not rounded", "rescale(ops, highest_i32 - score, multiplier, shift)",
               "(ops.to(highest_i32 - score, 'int64') * multiplier) >> ops.to(shift, 'int64')"),
    arithmetic("zero point of the memory left in", ' - ops.to(zero_point_values, "int64")', ""),
    arithmetic("zero point of a residual left in", ' - ops.to(zero, "int32")', ""),
    walk("states go on in the padding", "if valid is not None:", "if False:"),
    operation("patches", "border of 0 instead of the zero point", 'kernel // 2, a["fill"])', "kernel // 2, 0)"),
    operation("patches", "bands in reverse", "for df in range(kernel_f)", "for df in reversed(range(kernel_f))"),
    operation("shorten", "floor of lengths", '(inputs[0] + (factor - 1)) // factor',
              'inputs[0] // factor + (inputs[0] == 1)'),
    operation("mask", "padding is not masked", 'return ops.where(valid, x, ops.to(node.attributes["fill"], dtype))',
              "return x"),
    operation("subsample", "the other half of the steps", 'inputs[0][:, :: node', 'inputs[0][:, ::-1][:, :: node'),
    namespace("one place too many", "np.arange(count) < lengths[:, None]", "np.arange(count) <= lengths[:, None]"),
]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_every_planted_bug_is_noticed(programs, mutation: Mutation):
    with pytest.raises((AssertionError, ArithmeticError, IndexError, ValueError)):
        compare_with_the_oracle(programs, planted(mutation))


def test_unmutated_copies_agree(programs):
    compare_with_the_oracle(programs, planted(None))


def test_one_step_at_a_time_is_the_whole_sequence(programs):
    batch = speech_batch()
    memory = encode(programs, batch.features.numpy(), FRAMES)
    decoder, tokens = programs["decoder"], batch.decoder_inputs.numpy()
    (logits, weights), last = decoder.run_all(decoder_inputs(tokens, memory))
    state = None
    for t in range(tokens.shape[1]):
        (row, attention), state = decoder.step_all(decoder_inputs(tokens[:, t], memory), state)
        assert np.array_equal(row, logits[:, t])
        assert np.array_equal(attention, weights[:, t])
    assert all(np.array_equal(state[name], last[name]) for name in last)
    assert decoder.streaming
    assert not programs["encoder"].streaming


@given(st.integers(1, 40), st.integers(-128, 127), st.integers(0, 2**32 - 1), st.booleans())
def test_the_context_is_the_rounded_mean(places, zero_point, seed, sharp):
    """To its last of 16 fractional bits: the factor is 1."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 2 if sharp else 65536, (1, 1, places)).astype(np.uint16)
    weights[0, 0, rng.integers(places)] = 65535
    values = rng.integers(-128, 128, (1, 3, places)).astype(np.int8)
    one, shift, limit = np.array([1 << 30]), np.array([30]), 1 << 30
    y = fixed_point.attention_context(NUMPY, weights, values, zero_point, one, shift, 0, -limit, limit, "int32")
    e = weights[0, 0].tolist()
    for row, found in zip(values[0].tolist(), y[0, :, 0].tolist(), strict=True):
        total = sum(w * (v - zero_point) for w, v in zip(e, row, strict=True))
        assert found == nearest(total * (2**48 // sum(e)), 2**32)
        # One half for the rounding, and the floor of the reciprocal.
        assert abs(found - Fraction(total * 2**16, sum(e))) <= Fraction(1, 2) + Fraction(255 * sum(e), 2**32)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(0, 16))
def test_attention_weights_are_the_table_at_the_rounded_distance(places, seed, bits):
    rng = np.random.default_rng(seed)
    score = rng.integers(-(1 << 29) >> bits, 1 << 29 >> bits, places).astype(np.int32)
    valid = rng.random(places) < 0.7
    valid[rng.integers(places)] = True
    table = np.arange(65535, -1, -257)[:256].astype(np.uint16)
    multiplier, shift = int(rng.integers(1 << 30, 1 << 31)), int(rng.integers(40, 60) - bits)
    found = fixed_point.attention_weights(NUMPY, score, valid, table, np.array([multiplier]), np.array([shift]))
    best = max(score[valid].tolist())
    expected = [
        int(table[min(255, nearest((best - s) * multiplier, 2**shift))]) if v else 0
        for s, v in zip(score.tolist(), valid.tolist(), strict=True)
    ]
    assert found.tolist() == expected
    assert found.dtype == np.uint16


def test_the_longest_memory_stays_in_int64():
    """The bounds that fixed_point states, at the most places and the largest numbers."""
    places = 1 << 16
    weights = np.full((1, 1, places), fixed_point.EXP_ONE, np.uint16)
    values = np.full((1, 2, places), 127, np.int8)
    values[0, 1] = -128
    multiplier, shift = np.array([1 << 30]), np.array([46])  # 2**-16: back to whole steps
    for zero_point in (-128, 127):
        y = fixed_point.attention_context(NUMPY, weights, values, zero_point, multiplier, shift, 0, -255, 255, "int16")
        assert y[0, :, 0].tolist() == [127 - zero_point, -128 - zero_point]


def test_sets_are_stored_and_listed(tmp_path, programs, capsys):
    assert isinstance(programs, ProgramSet)
    stored = ProgramSet(dict(programs), {"note": "ä"})
    stored.save(tmp_path / "p")
    loaded = irnn.load(tmp_path / "p")
    assert loaded.metadata == {"note": "ä"}
    for name, program in programs.items():
        again = loaded[name]
        assert (again.inputs, again.values, again.nodes) == (program.inputs, program.values, program.nodes)
    loaded.check()
    compare_with_the_oracle(loaded)
    assert main(["describe", str(tmp_path / "p")]) == 0
    assert "attention_weights(decoder.attention.preactivation, keys, lengths" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "p")]) == 0
    assert "integer-only" in capsys.readouterr().out
    (tmp_path / "p" / "programs.json").write_text("{")
    with pytest.raises(irnn.IrnnError, match=r"programs\.json is damaged"):
        irnn.load(tmp_path / "p")


def test_bad_inputs_are_named(programs):
    encoder = programs["encoder"]
    x = encoder.inputs["features"].quantize(speech_batch().features.numpy())
    frames = np.array(FRAMES, np.int32)
    for inputs, line in (
        ({"features": x}, "do not match"),
        ({"features": x, "lengths": frames + 1}, "holds 41; there are only 40 along time"),
        ({"features": x, "lengths": 0 * frames}, "holds 0; allowed are 1"),
        ({"features": x, "lengths": frames[:2]}, "has 2 along batch, another input has 4"),
        ({"features": x[..., :-1], "lengths": frames}, r"it takes \[batch, time, 12\]"),
        ({"features": x, "lengths": frames[:, None]}, r"it takes \[batch\]"),
    ):
        with pytest.raises(irnn.IrnnError, match=line):
            encoder.run_all(inputs)


def test_the_proof_covers_the_new_operations(programs):
    decoder = programs["decoder"]
    reach = ranges(decoder)
    assert reach["decoder.attention.weights"] == (0, 65535)
    name = "decoder.attention.weights.table"
    broken = with_tensors(decoder, {name: decoder.tensors[name].data[::-1]})
    with pytest.raises(irnn.IrnnError, match="exp takes 256 entries"):
        broken.check()
    assert Value("int32", (), low=1, high=9, axes=(), counts="time").counts == "time"
    for program in irnn.float_program(quantized_speech()).values():
        with pytest.raises(irnn.IrnnError, match="float32"):
            program.check()
