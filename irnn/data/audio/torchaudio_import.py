"""Import torchaudio also where its compiled extension cannot be loaded."""

from __future__ import annotations

import sys
import types
from functools import cache
from typing import Any

from irnn.errors import IrnnError


@cache
def torchaudio() -> Any:
    """The torchaudio package.

    Its wheel is linked against CUDA, so the import fails with an OSError beside a CPU build of PyTorch. The extension
    serves forced alignment and the RNN-T loss alone; resampling and Kaldi's features are pure PyTorch and work with a
    stand-in for it.
    """
    try:
        import torchaudio as package
    except ModuleNotFoundError as error:
        raise IrnnError(f"speech needs the package {error.name}; install it with: pip install 'irnn[speech]'") from None
    except OSError:
        package = _without_extension()

    return package


def _without_extension() -> Any:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        del sys.modules[name]
    stand_in = types.ModuleType("torchaudio._extension")
    stand_in._IS_TORCHAUDIO_EXT_AVAILABLE = stand_in._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
    stand_in.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
    stand_in._check_cuda_version = lambda: None  # type: ignore[attr-defined]
    sys.modules[stand_in.__name__] = stand_in
    import torchaudio as package

    return package
