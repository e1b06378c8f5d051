"""The cells against torch's, and norms against their definitions."""

import itertools

import pytest
import torch

import irnn
from irnn.errors import IrnnError
from irnn.nn.drop_in import LSTM
from irnn.nn.fast.linear_cross_entropy import linear_cross_entropy
from irnn.nn.norm import MAD_OF_GAUSSIAN, Norm
from irnn.wiring.simulate import Simulation
from tests.support.models import wired

CASES = list(itertools.product((1, 2), (False, True), (False, True), (False, True)))


@pytest.mark.parametrize(("layers", "bidirectional", "bias", "batch_first"), CASES)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_equals_torch(kind, layers, bidirectional, bias, batch_first):
    torch.manual_seed(0)
    arguments = dict(num_layers=layers, bidirectional=bidirectional, bias=bias, batch_first=batch_first)
    theirs, ours = (getattr(place, kind)(5, 7, **arguments) for place in (torch.nn, irnn))
    ours.load_state_dict(theirs.state_dict())
    ours = wired(ours)
    x = torch.randn(3, 4, 5)
    batch = 3 if batch_first else 4
    directions = layers * (1 + bidirectional)
    h, c = torch.randn(directions, batch, 7), torch.randn(directions, batch, 7)
    for state in (None, (h, c) if kind == "LSTM" else h):
        (y, after), (y_ours, after_ours) = theirs(x, state), ours(x, state)
        for a, b in ((y, y_ours), *(zip(after, after_ours, strict=True) if kind == "LSTM" else [(after, after_ours)])):
            torch.testing.assert_close(b, a, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("steps", [1, 6])
def test_gradients_equal_torch(steps, kind):
    """The recurrent weight's gradient is made once a sequence; a second backward pass makes it again."""
    torch.manual_seed(0)
    theirs, ours = (getattr(place, kind)(5, 7, num_layers=2, bidirectional=True) for place in (torch.nn, irnn))
    ours.load_state_dict(theirs.state_dict())
    ours = wired(ours)
    x = torch.randn(steps, 4, 5)
    loss = ours(x)[0].square().sum()
    theirs(x)[0].square().sum().backward()
    for repeat in (1, 2):
        loss.backward(retain_graph=True)
        for k, suffix, cell in itertools.product((0, 1), ("", "_reverse"), ("forward_cell", "backward_cell")):
            if (suffix == "") == (cell == "forward_cell"):
                mine = ours.layers[k].cells[cell]
                own = {"weight_ih": mine.w_x.weight, "weight_hh": mine.w_h.weight, "bias_ih": mine.w_x.bias_0}
                for name, parameter in own.items():
                    expected = getattr(theirs, f"{name}_l{k}{suffix}").grad
                    torch.testing.assert_close(parameter.grad, repeat * expected)


@pytest.mark.parametrize("lengths", [None, [6, 1, 4, 6, 3]])
def test_exact_layers_equal_torch_on_packed_sequences(lengths):
    """Outputs, last states and every gradient, the state's own included; padding may hold anything."""
    torch.manual_seed(0)
    theirs, ours = (cls(5, 7, bidirectional=True).double() for cls in (torch.nn.LSTM, LSTM))
    ours.load_state_dict(theirs.state_dict())
    found = []
    for packed in (True, False):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(6, 5, 5, dtype=torch.double, generator=generator).requires_grad_()
        state = [torch.randn(2, 5, 7, dtype=torch.double, generator=generator).requires_grad_() for _ in range(2)]
        ends = torch.tensor(lengths or [6] * 5)
        if packed:
            pack = torch.nn.utils.rnn.pack_padded_sequence(x, ends, enforce_sorted=False)
            y, (h, c) = theirs(pack, tuple(state))
            y = torch.nn.utils.rnn.pad_packed_sequence(y)[0]
            weights = [theirs.weight_hh_l0, theirs.weight_ih_l0_reverse, theirs.bias_ih_l0, theirs.weight_hh_l0_reverse]
        else:
            names = [name for name, _, _ in ours.state_specs("lstm")]
            start = {name: state[k % 2][k // 2] for k, name in enumerate(names)}
            simulation = Simulation(start, training=True, observing=False)
            simulation.ragged(None if lengths is None else ends)
            y = simulation.mask(ours.wire(simulation, x, "lstm")) if lengths else ours.wire(simulation, x, "lstm")
            h, c = (torch.stack([simulation.state[name] for name in names[k::2]]) for k in (0, 1))
            cells = ours.layers[0].cells
            assert "_BiLstmBackward" in ancestors(y)
            weights = [
                cells.forward_cell.w_h.weight, cells.backward_cell.w_x.weight, cells.forward_cell.w_x.bias_0,
                cells.backward_cell.w_h.weight,
            ]  # fmt: skip
        loss = sum((part * torch.randn(part.shape, dtype=part.dtype, generator=generator)).sum() for part in (y, h, c))
        loss.backward()
        found.append([y, h, c, x.grad, *(part.grad for part in (*state, *weights))])
    for expected, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


def ancestors(tensor):
    """Names of all operations that a tensor's gradient passes."""
    names, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and type(node).__name__ not in names:
            names.add(type(node).__name__)
            waiting += [parent for parent, _ in node.next_functions]
    return names


@pytest.mark.parametrize("norm", ["layer", "mad"])
@pytest.mark.parametrize("form", ["unbatched", "packed"])
def test_a_normalized_layer_takes_the_same_forms(norm: str, form: str) -> None:
    """There is no such LSTM in torch: each sequence alone is what a packed one is compared with."""
    torch.manual_seed(0)
    lstm, x = LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, norm=norm), torch.randn(5, 3, 3)
    ends = [2, 5, 1]
    alone = [lstm(x[:n, k : k + 1]) for k, n in enumerate(ends)]
    if form == "unbatched":
        for k, n in enumerate(ends):
            y, (h, c) = lstm(x[:n, k])
            for part, whole in zip((y, h, c), (alone[k][0], *alone[k][1]), strict=True):
                torch.testing.assert_close(part, whole[:, 0], rtol=0, atol=0)
        return
    packed, (h, c) = lstm(torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(ends), enforce_sorted=False))
    y, lengths = torch.nn.utils.rnn.pad_packed_sequence(packed)
    assert lengths.tolist() == ends
    for k, n in enumerate(ends):
        for part, whole in zip((y[:n], h, c), (alone[k][0], *alone[k][1]), strict=True):
            torch.testing.assert_close(part[:, k], whole[:, 0], rtol=0, atol=1e-6)


def test_layer_norm_becomes_its_mad_twin_on_gaussian_data():
    torch.manual_seed(0)
    norm = Norm("mad", 2 * 4096, groups=2)
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    x = torch.randn(8, 2 * 4096) * 3 + 1
    before = norm(x)
    norm.become_mad()
    after = norm(x)
    assert norm.kind == "mad"
    # The sample's mean absolute deviation is within 2 % of a Gaussian's at 4096 elements.
    assert float((after - before).detach().abs().max() / before.detach().abs().max()) < 0.02
    weight = norm.weight.detach().clone()
    norm.become_mad()
    torch.testing.assert_close(norm.weight, weight, rtol=0, atol=0)


def test_mad_norm_is_its_definition_per_group():
    norm = Norm("mad", 6, groups=2)
    norm.become_mad()
    x = torch.tensor([[1.0, 2.0, 6.0, -4.0, 0.0, 1.0]])
    rows = x.reshape(2, 3)
    centred = rows - rows.mean(1, keepdim=True)
    expected = centred / centred.abs().mean(1, keepdim=True) * MAD_OF_GAUSSIAN
    torch.testing.assert_close(norm(x).detach(), expected.reshape(1, 6), rtol=1e-4, atol=0)


@pytest.mark.parametrize("arguments", [dict(input_size=0), dict(hidden_size=0), dict(num_layers=0), dict(norm="batch")])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(IrnnError, match=r"positive|norm"):
        LSTM(**({"input_size": 3, "hidden_size": 3} | arguments))


def test_pieces_of_the_logits_are_the_whole(monkeypatch):
    """Many pieces, the last of them short: the same loss and gradients, and no buffer beyond the bound."""
    torch.manual_seed(0)
    x, weight = torch.randn(203, 12, requires_grad=True), torch.randn(40, 12, requires_grad=True)
    bias, targets = torch.randn(40, requires_grad=True), torch.randint(0, 40, (203,))
    found, rows = [], []
    product = torch.Tensor.__matmul__
    for pieces in (False, True):
        if pieces:
            monkeypatch.setattr("irnn.nn.fast.linear_cross_entropy.PIECE_BYTES", 50 * 40 * 4)
            monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: rows.append(len(a)) or product(a, b))
        loss = linear_cross_entropy(x, weight, bias, targets)
        found.append((loss, *torch.autograd.grad(loss, (x, weight, bias))))
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected)
    assert rows[::3] == [50, 50, 50, 50, 3]


# bfloat16 has 8 significant bits; sizes with and without room for the bias in the last tile.
@pytest.mark.parametrize(("bf16", "tolerance"), [(False, {}), (True, dict(rtol=0.02, atol=0.004))])
@pytest.mark.parametrize("size", [12, 31, 32])
def test_chunked_cross_entropy_equals_torch(size, bf16, tolerance):
    torch.manual_seed(0)
    x = torch.randn(5, 15, size, requires_grad=True)
    weight, bias = torch.randn(40, size, requires_grad=True), torch.randn(40, requires_grad=True)
    with torch.no_grad():
        weight.div_(size**0.5)
    targets = torch.randint(0, 40, (5, 15))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        ours = linear_cross_entropy(x, weight, bias, targets)
    theirs = torch.nn.functional.cross_entropy((x @ weight.T + bias).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(ours, theirs, **tolerance)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):  # no gradients are made then
        assert torch.equal(linear_cross_entropy(x, weight, bias, targets), ours)
    for a, b in zip(
        torch.autograd.grad(ours * 3, (x, weight, bias)),
        torch.autograd.grad(theirs * 3, (x, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **tolerance)
