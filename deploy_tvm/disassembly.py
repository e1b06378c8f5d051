"""Proves that compiled code computes with integers alone: looks for floating-point instructions in its assembly.

Moves, shuffles, broadcasts and bitwise logic of the floating-point unit count as data movement: compilers use them on
integers.  Arithmetic, comparisons and conversions do not.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

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
# "cmpsd" without operands in vector registers would be a string comparison; compiled code has none.


def float_instructions(assembly: str) -> list[str]:
    """The mnemonics, sorted, of all floating-point computations in an x86 listing (compiler's or ``objdump``'s)."""
    found = set()
    for line in assembly.splitlines():
        # objdump: "address:<tab>mnemonic operands"; a compiler: "<tab>mnemonic<tab>operands"
        words = re.sub(r"^\s*[0-9a-f]+:\s*", "", line).split()
        if words and _X86.fullmatch(words[0]):
            found.add(words[0])
    return sorted(found)


def disassemble(library: str | Path) -> str:
    """The listing of a library's code, by ``objdump``."""
    if shutil.which("objdump") is None:
        raise IrnnError("objdump is not installed: install binutils to disassemble a library")
    command = ["objdump", "--disassemble", "--no-show-raw-insn", "--section=.text", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise IrnnError(f"objdump cannot read {library}: {done.stderr.strip()}")
    return done.stdout
