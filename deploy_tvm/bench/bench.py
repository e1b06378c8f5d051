"""The benchmark of programs: one call of each, against its float build and other runtimes.

Every runtime runs in a process of its own on one core, timed from Python in the same way (NumPy arrays in, outputs
readable as NumPy arrays), in interleaved rounds (``measure``, ``rounds``).  Before they are timed, ours is compared
with the interpreter integer by integer, and the float peers with our float build.  What the calls are and what their
times are called depends on what the programs read: :func:`bench` chooses.
"""

from __future__ import annotations

from typing import Any

from deploy_tvm.artefact.inputs import stepwise
from deploy_tvm.bench.measure import INTEGER, Case, Progress, Settings, measure, prefixed
from deploy_tvm.bench.subject import Subject, weight_bytes
from deploy_tvm.bench.utterance import PARTS, Utterance, part_sizes
from irnn.errors import IrnnError
from irnn.program import Program

# Steps of all sequences together and, where the interpreter is slow, frames and units of the comparison with it.
COMPARED_STEPS = 64
COMPARED = Utterance(frames=45, units=3)
MAX_STEPS = 1 << 14


def bench(
    subject: Subject,
    steps: int,
    utterance: Utterance,
    settings: Settings,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Times of a language model (tokens), a recognizer (utterance and units) or any other program; JSON-ready.

    Of a batch (``settings.batch``) they are those of one of its sequences: a call's time divided by its sequences.

    steps: time steps or tokens a call.  utterance: of a recognizer.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise IrnnError(f"--steps {steps}: must lie in 1 to {MAX_STEPS}")
    if settings.against and subject.floating is None:
        raise IrnnError("--against needs the float program, from which the other runtimes' models are made: --float")
    if set(subject.integer) == set(PARTS):
        if settings.batch > 1:
            raise IrnnError(
                f"--batch {settings.batch}: a recognizer is measured with one utterance a call; leave it out"
            )
        return _recognizer(subject, utterance, settings, progress)
    if set(subject.integer) != {""}:
        raise IrnnError(f"{subject.name} holds no recognizer: wanted are the programs {' and '.join(PARTS)}")
    (program,) = subject.integer.values()
    return (_language_model if reads_tokens(program) else _program)(subject, steps, settings, progress)


def reads_tokens(program: Program) -> bool:
    """Whether it is a language model: one token in, one row of logits out."""
    return program.streaming and [value.shape for value in program.inputs.values()] == [()]


def _program(subject: Subject, steps: int, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Microseconds per time step and sequence, in calls of ``steps`` steps; a window of them is one step."""
    (program,) = subject.integer.values()
    sizes = {"time": steps, "memory": steps}
    mismatches = _compared(subject, sizes, settings)
    one = steps == program.window and stepwise(program)
    measured = _measured(
        subject, "", sizes, settings, progress, function="step" if one else "run", steps=1 if one else steps
    )
    return {
        "kind": "program",
        "name": subject.name,
        "steps": steps,
        "threads": settings.threads,
        "us_per_step": measured.pop("us"),
        **measured,
        "mismatches": mismatches,
        **_sizes(subject),
    }


def _language_model(subject: Subject, steps: int, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Microseconds per token and sequence, token by token and in calls of ``steps`` tokens."""
    mismatches = _compared(subject, {"time": steps}, settings)
    step = _measured(subject, "", {"time": 1}, settings, progress, function="step")
    sequence = _measured(subject, "", {"time": steps}, settings, progress, steps=steps)
    return {
        "kind": "language_model",
        "steps": steps,
        "threads": settings.threads,
        "us_per_token": step.pop("us"),
        **step,
        "sequence": {"us_per_token": sequence.pop("us"), **sequence},
        "mismatches": mismatches,
        **_sizes(subject),
    }


def _recognizer(subject: Subject, utterance: Utterance, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Times of encoder and decoder step, and the real-time factor that they make together."""
    encoder = subject.integer["encoder"]
    progress("comparing with the interpreter")
    mismatches = subject.compare(part_sizes(encoder, COMPARED))
    sizes = part_sizes(encoder, Utterance(utterance.frames, units=1))
    measured = {part: _measured(subject, part, sizes[part], settings, prefixed(progress, part)) for part in PARTS}
    times = [measured[part]["us"] for part in PARTS]
    factors = {
        key: None if None in (us, times[1][key]) else utterance.factor(us, times[1][key])
        for key, us in times[0].items()
    }
    ours = factors[INTEGER]
    assert ours is not None  # `measure` refuses a program that it cannot time
    return {
        "kind": "recognizer",
        "name": subject.name,
        "frames": utterance.frames,
        "seconds_of_speech": utterance.seconds,
        "units": utterance.units,
        "places": sizes["decoder"]["memory"],
        "threads": settings.threads,
        **{key: measured["encoder"][key] for key in ("cpu", "kernels", "batch")},
        "real_time_factor": {key: None if f is None else round(f, 6) for key, f in factors.items()},
        "speed_up": {key: round(f / ours, 3) for key, f in factors.items() if f is not None and key != INTEGER},
        "encoder": {"us_per_utterance": measured["encoder"].pop("us"), **measured["encoder"]},
        "decoder": {"us_per_unit": measured["decoder"].pop("us"), **measured["decoder"]},
        "mismatches": mismatches,
        **_sizes(subject),
    }


def _measured(
    subject: Subject, part: str, sizes: dict[str, int], settings: Settings, progress: Progress, **call: Any
) -> dict[str, Any]:
    """One call of a part on random inputs; call: ``function`` and ``steps`` of the ``Case``."""
    floating = None if subject.floating is None else subject.floating[part]
    artefacts = subject.part_artefacts(part)
    case = Case.random(subject.integer[part], floating, artefacts, sizes, batch=settings.batch, **call)
    return measure(case, settings, progress)


def _compared(subject: Subject, sizes: dict[str, int], settings: Settings) -> dict[str, int]:
    """What differs from the interpreter, in calls at least as long as those that are measured, of as many sequences."""
    least = -(-COMPARED_STEPS // settings.batch)
    return subject.compare({"": {axis: max(size, least) for axis, size in sizes.items()}}, settings.batch)


def _sizes(subject: Subject) -> dict[str, dict[str, int]]:
    kinds = {"integer": subject.integer} | ({} if subject.floating is None else {"float": subject.floating})
    return {
        "weight_bytes": {kind: sum(map(weight_bytes, parts.values())) for kind, parts in kinds.items()},
        "program_bytes": {kind: sum(p.size_bytes() for p in parts.values()) for kind, parts in kinds.items()},
    }
