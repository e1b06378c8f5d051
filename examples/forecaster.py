"""A forecaster in integers: what comes next is the last value plus what an LSTM adds to it, at 16 bits.

    python -m examples.forecaster [--program FOLDER]

The series are made up: waves of several periods and a drift, so that nothing has to be downloaded.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import irnn

PAST, CHANNELS = 48, 4


class Forecaster(nn.Module):
    """History ``[batch, time, channels]`` -> the next value of each channel ``[batch, channels]``."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(CHANNELS, hidden, batch_first=True)
        self.head = nn.Linear(hidden, CHANNELS)

    def forward(self, history: Tensor) -> Tensor:
        y, _ = self.lstm(history)
        return history[:, -1] + self.head(y[:, -1])


def series(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(histories ``[count, PAST, channels]``, what follows ``[count, channels]``)."""
    made = torch.Generator().manual_seed(seed)
    phase, period = (torch.rand(count, 1, CHANNELS, generator=made) for _ in range(2))
    time = torch.arange(PAST + 1)[None, :, None]
    waves = torch.sin(2 * torch.pi * (phase + time / (12 + 24 * period)))
    drift = 0.02 * torch.randn(count, PAST + 1, CHANNELS, generator=made).cumsum(1)
    whole = waves + drift
    return whole[:, :-1], whole[:, -1]


def train(net: nn.Module, data: tuple[Tensor, Tensor], epochs: int, rate: float) -> None:
    """A user's loop."""
    optimizer = torch.optim.Adam(net.parameters(), rate)
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(data[0])).split(64):
            loss = nn.functional.mse_loss(net(data[0][chosen]), data[1][chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()


@torch.no_grad()
def error(net: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Root mean square."""
    return float(nn.functional.mse_loss(net(data[0]), data[1]).sqrt())


def main() -> None:
    """Train, quantize, convert."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, default=Path("forecaster"))
    parser.add_argument("--series", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    torch.manual_seed(0)
    data, test = series(given.series, 1), series(1000, 2)
    net = Forecaster()
    train(net, data, given.epochs, 3e-3)
    in_float, repeated = error(net, test), float((test[1] - test[0][:, -1]).square().mean().sqrt())

    net = irnn.prepare(net, irnn.QuantConfig(), irnn.PwlConfig(pieces=32), example_inputs=data[0][:2])
    irnn.calibrate(net, data[0].split(64)[:8])
    irnn.set_stage(net, "all")
    calibrated = error(net, test)
    for stage in irnn.STAGES[1:]:
        irnn.set_stage(net, stage)
        train(net, data, max(1, given.epochs // 10), 5e-4)
    trained = error(net, test)
    program = irnn.convert(net)
    program.save(given.program)

    y, _ = program.run(program.quantize(test[0].numpy()))
    with torch.no_grad():
        same = torch.equal(torch.from_numpy(program.dequantize(y)), net(test[0]))
    print(f"root mean square error: float {in_float:.4f}, integers after calibration {calibrated:.4f}, trained")
    print(f"{trained:.4f}; repeating the last value {repeated:.4f}")
    print(f"{y.dtype} output, {program.size_bytes():,} bytes; the program gives what eval() gives: {same}")


if __name__ == "__main__":
    main()
