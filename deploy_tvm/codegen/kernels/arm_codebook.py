"""ARM kernels for any codebook of up to 16 integers: ``tbl`` looks every weight up, then they are as 8-bit ones."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, constant, load
from deploy_tvm.codegen.kernels.arm_dotprod import Dot8
from deploy_tvm.codegen.kernels.arm_dotprod import interleaved as dot_interleaved
from deploy_tvm.codegen.kernels.arm_neon import Arithmetic, Neon8
from deploy_tvm.codegen.kernels.arm_neon import interleaved as neon_interleaved
from deploy_tvm.codegen.kernels.arm_tables import Instructions
from deploy_tvm.codegen.kernels.base import blocked
from deploy_tvm.codegen.kernels.codebook import CodebookKernel


class _Looked(CodebookKernel):
    """Looked up by ``tbl``."""

    instructions: Instructions

    def places(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(the places of two registers of rows each, what is packed beside them)."""
        table, pairs = self.looked_up_in(weight)
        return pairs, {"bias": blocked(bias, self.blocks(weight.shape[0]), self.block_rows), "table": table}

    def looked(self, emitter: Emitter, packed: dict[str, tirx.Buffer], whole: Expr) -> list[list[Expr]]:
        """For both rows of every byte the registers whose sum are their weights."""
        table = [load(packed["table"], 16, part, 0) for part in range(int(packed["table"].shape[0]))]
        result = []
        for place in (whole & constant(15, "uint8", 16), whole >> constant(4, "uint8", 16)):
            index = emitter.bind(tirx.reinterpret("int8x16", place))
            result.append([emitter.bind(self.instructions.look_up([part], index)) for part in table])
        return result


class DotCodebook(_Looked, Dot8):
    """With ``sdot``."""

    in_a_byte = 2

    def __init__(self, instructions: Instructions, loads: int = 8, short: int = 2, tile_vectors: int = 5) -> None:
        super().__init__(loads, short, tile_vectors)
        self.instructions, self.units = instructions, 2 * loads

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        bytes_, packed = self.places(weight, bias)
        return packed | {"weight": dot_interleaved(bytes_, self.blocks(weight.shape[0]), self.loads)}

    def parts(self, emitter: Emitter, packed: dict[str, tirx.Buffer], register: Expr) -> list[list[Expr]]:
        return self.looked(emitter, packed, register)


class NeonCodebook(_Looked, Neon8):
    """With ``smull``, or ``vmull``."""

    def __init__(
        self, instructions: Instructions, arithmetic: Arithmetic, units: int, groups: int, tile_vectors: int
    ) -> None:
        super().__init__(arithmetic, units, groups, tile_vectors)
        self.instructions = instructions

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        bytes_, packed = self.places(weight, bias)
        order = neon_interleaved(bytes_, self.blocks(weight.shape[0]), self.units // 2, self.groups)
        return packed | {"weight": order}

    def registers(
        self, emitter: Emitter, packed: dict[str, tirx.Buffer], block: Expr, k: Expr, group: int
    ) -> list[list[Expr]]:
        whole = [emitter.bind(load(packed["weight"], 16, block, k, pair, group, 0)) for pair in range(self.units // 2)]
        return [registers for register in whole for registers in self.looked(emitter, packed, register)]
