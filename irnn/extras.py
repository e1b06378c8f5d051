"""Packages that an extra of the distribution brings: absent, they are named with the command that installs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from irnn.errors import IrnnError

_OWN = ("irnn", "pipelines", "deploy_tvm", "conf")


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports of what the extra ``name`` brings: a missing package is an ``IrnnError``.

    A missing module of the project itself is no missing package: that error is left alone.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", *_OWN):
            raise
        raise IrnnError(f"the package {package} is missing: pip install 'irnn[{name}]'") from None
