"""Spotting spoken digits with a network of one's own, trained by a loop of one's own, deployed in integers.

    python -m examples.keyword_spotting FSDD [--speech LIBRISPEECH] [--program FOLDER]

FSDD: the Free Spoken Digit Dataset.  LIBRISPEECH: speech that is to trigger nothing; of it the network learns from the
part "train", by the part "dev" the rule is chosen by which a digit is heard, and in "test" false alarms are counted.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import irnn
from examples.spotting_data import (
    CONTEXT,
    DRAWS,
    NOTHING,
    Rule,
    by_integers,
    choose,
    digit_clips,
    heard,
    in_float,
    listen,
    missed,
    speech_clips,
    streams,
    upper_bound,
)
from irnn.errors import IrnnError


class Spotter(nn.Module):
    """Filterbanks ``[batch, time, bands]`` -> scores of the ten digits and of nothing at every step."""

    def __init__(self, bands: int, filters: int = 32, hidden: int = 48) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(bands, filters, CONTEXT), nn.BatchNorm1d(filters), nn.ReLU())
        self.gru = nn.GRU(filters, hidden, batch_first=True)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(hidden, NOTHING + 1)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.front(frames.transpose(1, 2)).transpose(1, 2)
        y, _ = self.gru(x)
        return self.head(self.drop(y))


def train(net: nn.Module, clips: Tensor, targets: Tensor, epochs: int, rate: float) -> None:
    """A user's loop; it knows nothing of integers."""
    optimizer = torch.optim.AdamW(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(clips)).split(64):
            scores = net(clips[chosen])
            loss = nn.functional.cross_entropy(scores.transpose(1, 2), targets[chosen], ignore_index=-100)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        schedule.step()
    net.eval()


@torch.no_grad()
def right(net: nn.Module, clips: Tensor, targets: Tensor) -> Tensor:
    """bool ``[clips]``: whether the last step says which digit has been spoken."""
    return torch.cat([net(part)[:, -1].argmax(-1) for part in clips.split(64)]) == targets[:, -1]


def main() -> None:
    """Train, quantize, convert, stream."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("digits", type=Path)
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--program", type=Path, default=Path("spotter"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    clips, targets = digit_clips(given.digits, "train", draws=DRAWS)
    if given.speech is not None:
        clips, targets = (torch.cat(pair) for pair in zip((clips, targets), speech_clips(given.speech), strict=True))
    test = digit_clips(given.digits, "test")

    net, more = Spotter(clips.shape[-1]), max(1, given.epochs // 3)
    train(net, clips, targets, given.epochs, 4e-3)
    print(irnn.explain(net, clips[:2]))
    matched = copy.deepcopy(net)  # in float, trained as long as the integers
    train(matched, clips, targets, 4 * more, 5e-4)

    net = irnn.prepare(net, irnn.QuantConfig(), irnn.PwlConfig(pieces=16), example_inputs=clips[:2])
    irnn.calibrate(net, clips.split(64)[:8])
    for stage in irnn.STAGES[1:]:
        irnn.set_stage(net, stage)
        train(net, clips, targets, more, 5e-4)
    floats, integers = right(matched, *test).float(), right(net, *test).float()
    program = irnn.convert(net)
    program.save(given.program)

    change = (integers - floats)[torch.randint(len(floats), (10000, len(floats)))].mean(1)  # bootstrap
    low, high = (100 * float(end) for end in torch.quantile(change, torch.tensor([0.025, 0.975])))
    print(f"{len(floats)} digits: float {floats.mean():.2%}, integers {integers.mean():.2%}")
    print(f"integers against float {low:+.2f} to {high:+.2f} points (95 %); {program.size_bytes():,} bytes")
    longer, asked = streams(given.digits, "test")
    listened = [] if given.speech is None else listen(given.speech, "test")
    minutes = sum(map(len, listened)) / 6000
    for name, scores in (("float", in_float(matched)), ("integers", by_integers(program))):
        rule = Rule() if given.speech is None else choose(scores, given.digits, given.speech)
        misses = missed([scores(clip) for clip in longer], asked, rule)
        print(f"{name}: heard at {rule.margin} nats above nothing for {rule.steps} steps of 10 ms; ", end="")
        print(f"{misses} of {len(longer)} digits are missed in the stream")
        if listened:
            alarms = [digit for x in listened for digit in heard(scores(x), rule)]
            hourly = [60 * count / minutes for count in (len(alarms), upper_bound(len(alarms)))]
            print(
                f"{name}: {len(alarms)} false alarms in {minutes:.1f} minutes of speech, {hourly[0]:.1f} an hour, ",
                end="",
            )
            print(f"with 95 % confidence below {hourly[1]:.1f}; by digit {[alarms.count(k) for k in range(10)]}")

    frames = program.quantize(test[0][:1].numpy())
    whole, _ = program.run(frames)
    state, steps = None, []
    for t in range(frames.shape[1] - CONTEXT + 1):  # one frame a call: the last five of them, and the state
        scores, state = program.run(frames[:, t : t + CONTEXT], state)
        steps.append(scores)
    print(f"frame by frame: {np.count_nonzero(np.concatenate(steps, 1) != whole)} of {whole.size} integers differ")


if __name__ == "__main__":
    try:
        main()
    except IrnnError as error:
        raise SystemExit(f"error: {error}") from None
