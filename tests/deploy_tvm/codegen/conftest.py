"""What the tests of kernels share."""

from __future__ import annotations

import pytest

from deploy_tvm import targets
from tests.support.cpus import CPUS, runnable


@pytest.fixture(params=CPUS)
def cpu(request: pytest.FixtureRequest) -> targets.Target:
    """Each target that this machine can run."""
    return runnable(request.param)
