"""A word language model of one's own in integers: two LSTM layers, state in and out, one word a call.

    python -m examples.language_model [TEXT] [--program FOLDER]

TEXT: a file of sentences, one a line; without it the English of Python's own documentation.
"""

import argparse
import math
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn

import irnn
from irnn.data.text.quickstart import quickstart_lines

State = tuple[Tensor, Tensor]


class Words(nn.Module):
    """Ids ``[batch, time]`` and the state -> scores ``[batch, time, words]`` and the state behind the last word."""

    def __init__(self, words: int, size: int = 96, layers: int = 2) -> None:
        super().__init__()
        self.layers, self.size = layers, size
        self.table = nn.Embedding(words, size)
        self.drop = nn.Dropout(0.3)
        self.lstm = nn.LSTM(size, size, layers, batch_first=True, dropout=0.3)
        self.scores = nn.Linear(size, words)
        self.scores.weight = self.table.weight

    def forward(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.lstm(self.drop(self.table(ids)), state)
        return self.scores(self.drop(y)), state

    def start(self, batch: int) -> State:
        """The state before the first word."""
        zeros = torch.zeros(self.layers, batch, self.size)
        return zeros, zeros.clone()


def streams(lines: list[list[str]], vocabulary: dict[str, int], batch: int) -> Tensor:
    """All words one after the other, in ``batch`` streams ``[batch, length]``."""
    ids = [vocabulary.get(word, 0) for line in lines for word in (*line, "<eos>")]
    length = len(ids) // batch
    return torch.tensor(ids[: batch * length]).reshape(batch, length)


def run(net: Words, text: Tensor, optimizer: torch.optim.Optimizer | None = None, steps: int = 32) -> float:
    """Perplexity of a pass over ``text``; with an optimizer it is trained on the way."""
    total, state = 0.0, net.start(len(text))
    for t in range(0, text.shape[1] - 1, steps):
        x, y = text[:, t : t + steps][:, : text.shape[1] - 1 - t], text[:, t + 1 : t + 1 + steps]
        scores, state = net(x, state)
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), y.flatten())
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
        state = (state[0].detach(), state[1].detach())
        total += float(loss.detach()) * y.numel()
    return math.exp(total / text[:, 1:].numel())


def train(net: Words, text: Tensor, epochs: int, rate: float) -> None:
    """A user's loop."""
    optimizer = torch.optim.Adam(net.parameters(), rate)
    net.train()
    for _ in range(epochs):
        run(net, text, optimizer)
    net.eval()


@torch.no_grad()
def perplexity(net: Words, text: Tensor) -> float:
    """Of words that were not trained on."""
    return run(net, text)


def main() -> None:
    """Train, quantize, convert, and one word a call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--program", type=Path, default=Path("words"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--lines", type=int, default=None, help="train on so many of them")
    given = parser.parse_args()
    torch.manual_seed(0)
    if given.text is None:
        lines = quickstart_lines()["train"]
    else:
        lines = [line.split() for line in given.text.read_text(encoding="utf-8").splitlines()]
    lines = lines[: given.lines]
    held = max(1, len(lines) // 10)
    counts = Counter(word for line in lines[held:] for word in (*line, "<eos>"))
    vocabulary = {word: k for k, word in enumerate(["<unk>", *(word for word, _ in counts.most_common(1999))])}
    text, test = streams(lines[held:], vocabulary, 16), streams(lines[:held], vocabulary, 4)

    net = Words(len(vocabulary), given.size)
    train(net, text, given.epochs, 4e-3)
    in_float = perplexity(net, test)
    example = (text[:2, :8], net.start(2))
    net = irnn.prepare(net, irnn.QuantConfig(weight=4), irnn.PwlConfig(pieces=16), example_inputs=example)
    irnn.calibrate(net, [(ids, net.start(len(ids))) for ids in text.split(32, 1)[:10]])
    for stage in irnn.STAGES[1:]:
        irnn.set_stage(net, stage)
        train(net, text, max(1, given.epochs // 8), 1e-3)
    in_integers = perplexity(net, test)
    program = irnn.convert(net)
    program.save(given.program)
    print(f"{len(vocabulary)} words; perplexity: float {in_float:.1f}, integers {in_integers:.1f} (4-bit LSTM weights)")

    state, ids, names = None, [vocabulary["<eos>"]], list(vocabulary)
    for _ in range(12):
        scores, state = program.step(torch.tensor(ids[-1:])[:, None].numpy()[:, 0], state)
        scores = torch.from_numpy(scores[0])
        scores[0] = torch.iinfo(scores.dtype).min  # no <unk>
        ids.append(int(scores.argmax()))
    print(f"one word a call: {' '.join(names[k] for k in ids[1:])}")
    print(f"{program.size_bytes():,} bytes in {given.program}; python -m irnn.program check {given.program}")


if __name__ == "__main__":
    main()
