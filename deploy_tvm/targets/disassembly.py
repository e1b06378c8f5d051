"""Proves that compiled code computes with integers alone: looks for floating-point instructions in its assembly.

Moves, shuffles, broadcasts and bitwise logic of the floating-point unit count as data movement: compilers use them on
integers.  Arithmetic, comparisons and conversions do not.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

from deploy_tvm.targets.toolchain import ELF_MACHINES, PLATFORMS, elf_machine
from irnn.errors import IrnnError

_ARITHMETIC = (
    "add", "sub", "mul", "div", "min", "max", "sqrt", "rcp", "rcp14", "rcp28", "rsqrt", "rsqrt14", "rsqrt28",
    "hadd", "hsub", "addsub", "dp", "round", "rndscale", "scalef", "getexp", "getmant", "reduce", "range",
    "fixupimm", "exp2", "fpclass", "comi", "ucomi",
)  # fmt: skip
_COMPARISON = r"cmp(?:eq|lt|le|unord|neq|nlt|nle|ord|ge|gt|[a-z_]*)?"
_X87 = (
    "fld", "fild", "fst", "fstp", "fist", "fistp", "fisttp", "fadd", "faddp", "fiadd", "fsub", "fsubp", "fsubr",
    "fmul", "fmulp", "fimul", "fdiv", "fdivp", "fdivr", "fsqrt", "fabs", "fchs", "fcom", "fcomp", "fcomi", "fcomip",
    "fucom", "fucomi", "fucomip", "frndint", "fscale", "fsin", "fcos", "fpatan", "fptan", "f2xm1", "fyl2x",
)  # fmt: skip
# x86: packed or scalar, half, single or double precision; fused multiply-adds; conversions from or to any of them.
_X86 = re.compile(
    rf"v?(?:{'|'.join(_ARITHMETIC)}|{_COMPARISON})(?:ss|sd|ps|pd|sh|ph)[xyz]?"
    r"|vfn?m(?:add|sub|addsub|subadd)(?:132|213|231)?(?:ss|sd|ps|pd|sh|ph)"
    r"|v?cvt[a-z0-9]+|vdpbf16ps|tdp(?:bf16|fp16)ps"
    rf"|(?:{'|'.join(_X87)})[sltq]?"
)
# ARM, 64 bits: all of them begin with f, but not all that begin with f compute (fmov, fcsel).
_A64 = (
    r"f(?:abd|abs|ac(?:ge|gt|le|lt)|addp?|cadd|ccmpe?|cm(?:eq|ge|gt|le|lt|la)|cmpe?|cvt[a-z0-9]*|div|jcvtzs|n?madd"
    r"|max[a-z]*|min[a-z]*|ml[as]l?2?|n?msub|mulx?|neg|nmul|recp[a-z]+|rint[a-z0-9]+|rsqrt[a-z]+|sqrt|sub)"
    r"|[su]cvtf|bf(?:dot|mmla|mlal[bt]|cvtn?2?)"
)
# ARM, 32 bits: the type is part of the name.
_A32 = r"v(?!mov|sel|ldr|str|ld|st)[a-z0-9]+\.(?:bf16|f16|f32|f64)(?:\.[a-z0-9]+)?|vcvt[a-z]*\.[a-z0-9.]+"
_FLOAT = re.compile(rf"{_X86.pattern}|{_A64}|{_A32}")
# "cmpsd" without operands in vector registers would be a string comparison; compiled code has none.


def float_instructions(assembly: str) -> list[str]:
    """The mnemonics, sorted, of all floating-point computations in a listing (compiler's or ``objdump``'s)."""
    found = set()
    for line in assembly.splitlines():
        # objdump: "address:<tab>mnemonic operands"; a compiler: "<tab>mnemonic<tab>operands"
        words = re.sub(r"^\s*[0-9a-f]+:\s*", "", line).split()
        if words and _FLOAT.fullmatch(words[0]):
            found.add(words[0])
    return sorted(found)


def disassemble(library: str | Path) -> str:
    """The listing of a library's code, by ``objdump`` for its machine or by ``llvm-objdump``."""
    command = [_objdump(elf_machine(Path(library))), "--disassemble", "--no-show-raw-insn", "--section=.text"]
    done = subprocess.run([*command, str(library)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise IrnnError(f"{command[0]} cannot read {library}: {done.stderr.strip()}")
    return done.stdout


def _objdump(machine: int) -> str:
    """The tool for an ELF machine number: a native ``objdump`` reads the code of its own machine only."""
    known = [p for triple, p in PLATFORMS.items() if ELF_MACHINES[triple.split("-")[0]] == machine]
    names = [f"{p.prefix}-objdump" for p in known]
    names += ["objdump"] * any(p.machine == platform.machine() for p in known) + ["llvm-objdump"]
    for name in names:
        if shutil.which(name):
            return name
    packages = " or ".join(f"binutils-{p.prefix.replace('_', '-')}" for p in known)
    raise IrnnError(f"no tool disassembles ELF machine {machine}: apt-get install {packages or 'llvm'}")
