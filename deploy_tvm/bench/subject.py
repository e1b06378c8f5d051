"""What is measured together: an integer program, or the programs of a set, with their float twins and artefacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import deploy_tvm
from deploy_tvm.artefact import artefact, artefact_set
from deploy_tvm.artefact.golden import Golden
from deploy_tvm.artefact.inputs import by_steps, random_inputs
from deploy_tvm.artefact.runner import Runner
from deploy_tvm.bench.measure import FLOAT, INTEGER, Progress
from deploy_tvm.targets import Target, from_config
from irnn.program import Program, equality
from irnn.program.equality import Comparison
from irnn.program.sets import ProgramSet

FLOAT_FOLDERS = ("float_artefact", "float_program")  # what a run leaves beside an artefact
# Programs by the names of the parts; a program that stands alone has the name "".
Programs = Mapping[str, Program]


@dataclass(frozen=True)
class Subject:
    """``artefacts``: of ``tvm_integer`` and, where there is one, ``tvm_float``: the folder of each part.

    name: for people.  floating: what the other runtimes' models are made from.
    """

    name: str
    integer: Programs
    floating: Programs | None
    artefacts: Mapping[str, Mapping[str, Path]]

    def programs(self, runtime: str) -> Programs:
        """The programs that the artefacts of ``runtime`` are made of."""
        found = self.integer if runtime == INTEGER else self.floating
        if found is None:
            raise KeyError(runtime)
        return found

    def part_artefacts(self, part: str) -> dict[str, Path]:
        """One part's artefacts, by runtime."""
        return {runtime: folders[part] for runtime, folders in self.artefacts.items()}

    def compare(self, sizes: Mapping[str, Mapping[str, int]], batch: int = 1) -> dict[str, int]:
        """Integers (outputs and states) in which the built programs differ from the interpreter.

        sizes: of the axes of each part's random inputs.  batch: sequences of them.  What can run one step at a time is
        also compared so.
        """
        counts = []
        for part, program in self.integer.items():
            runner = deploy_tvm.load(self.artefacts[INTEGER][part])
            counts += _compared(part, program, runner, random_inputs(program, dict(sizes[part]), batch=batch))
        return equality.total(counts).figures()


def made(
    name: str,
    integer: Program | ProgramSet,
    floating: Program | ProgramSet,
    scratch: Path,
    progress: Progress,
    target: Target | None = None,
) -> Subject:
    """Programs at hand, built below ``scratch`` for ``target``, None for this machine with its best kernels."""
    artefacts = {}
    for runtime, programs in ((INTEGER, parts_of(integer)), (FLOAT, parts_of(floating))):
        progress(f"compiling {runtime}")
        artefacts[runtime] = _built(programs, scratch / runtime, target or "host")
    return Subject(name, parts_of(integer), parts_of(floating), artefacts)


def opened(
    folder: Path, float_folder: str | None, scratch: Path, progress: Progress, target: Target | None = None
) -> Subject:
    """A folder of artefacts, or of programs (which are built first): for this machine, or for another one's ``target``.

    An artefact for another CPU is refused on this machine, and for ``target`` built anew.  The float model is in
    ``float_folder``, or in the first of ``FLOAT_FOLDERS`` that stands beside ``folder``.
    """
    floats = float_folder_of(folder, float_folder)
    progress("compiling" if target is None else f"compiling for {target.name}")
    integer, own = _opened(folder, scratch / INTEGER, "integer", target)
    floating, artefacts = None, {INTEGER: own}
    if floats is not None:
        floating, artefacts[FLOAT] = _opened(floats, scratch / FLOAT, "float", target)
    return Subject(str(folder), integer, floating, artefacts)


def float_folder_of(folder: Path, given: str | None) -> Path | None:
    """Where the float model is: ``given``, or the first of ``FLOAT_FOLDERS`` beside ``folder`` that holds as much."""
    if given is not None:
        return Path(given)
    is_set = artefact.holds_set(folder)
    holds: Callable[[Path], bool] = artefact.holds_set if is_set else Path.is_dir
    beside = (folder.resolve().parent / name for name in FLOAT_FOLDERS)
    return next((path for path in beside if holds(path)), None)


def parts_of(programs: Program | ProgramSet) -> dict[str, Program]:
    """The programs by the names of their parts."""
    return {"": programs} if isinstance(programs, Program) else dict(programs)


def weight_bytes(program: Program) -> int:
    """Bytes of the weight matrices as stored: 4-bit ones packed, tables and biases left out."""
    names = {name for node in program.walk() for role, name in node.tensors.items() if role in ("weight", "table")}
    return sum((program.tensors[n].data.size * program.tensors[n].storage_bits + 7) // 8 for n in names)


def _opened(folder: Path, scratch: Path, kind: str, target: Target | None) -> tuple[Programs, Mapping[str, Path]]:
    programs = artefact_set.open_parts(folder, kind)
    if not artefact.is_built(folder):
        return programs, _built(programs, scratch, target or "host")
    if target is None:
        deploy_tvm.load(folder)  # It may have been built for another machine.
    elif not all(_is_for(target, folder / part) for part in programs):
        return programs, _built(programs, scratch, target)
    return programs, {part: folder / part for part in programs}


def _built(programs: Programs, folder: Path, target: Target | str) -> dict[str, Path]:
    return {part: deploy_tvm.build(program, folder / part, target) for part, program in programs.items()}


def _is_for(target: Target, folder: Path) -> bool:
    return from_config(artefact.read_manifest(folder, run_here=False)["target"]) == target.resolve()


def _compared(part: str, program: Program, runner: Runner, inputs: dict[str, np.ndarray]) -> list[Comparison]:
    what = f"the built {part or 'program'}"
    batch, golden = len(next(iter(inputs.values()))), Golden.of(program, inputs)
    counts = [golden.compare(what, *runner.run_all(inputs, runner.initial_state(batch)))]
    if by_steps(program) and len(inputs) == 1:
        ((name, x),) = inputs.items()
        steps, state = [], runner.initial_state(batch)
        for t in range(x.shape[1]):
            outputs, state = runner.step_all({name: x[:, t]}, state)
            steps.append([np.array(output) for output in outputs])
        stacked = [np.stack(each, 1) for each in zip(*steps, strict=True)]
        counts.append(golden.compare(what, stacked, state))
    return counts
