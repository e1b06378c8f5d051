"""Workers that share the machine and build nothing twice, and one line at the end for what was left out."""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest

# Workers side by side: PyTorch and TVM would each take the whole processor, and benchmarks all pin themselves to the
# first core that they may use.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = os.environ["TVM_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(cores)]})

from tests.support import needs


def skipped_by_need(reports: Iterable[Any]) -> dict[str, list[str]]:
    """What was absent for each test (or whole module) that was skipped, by need; a reason without one is an error."""
    found = defaultdict(list)
    for report in reports:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = needs.read_reason(text)
        if reason is None:
            raise pytest.UsageError(
                f"{report.nodeid} was skipped for {text!r}; tests/support/needs.py lists what may lack"
            )
        found[reason[0]].append(reason[1])
    return found


def required() -> list[str]:
    """The needs that this run may not skip."""
    names = [name for name in os.environ.get(needs.REQUIRED, "").split(",") if name]
    for name in names:
        if name not in needs.COMMANDS:
            raise pytest.UsageError(f"{needs.REQUIRED}={name}: allowed are {', '.join(needs.COMMANDS)}")
    return names


def seconds() -> float | None:
    """How long tests may be started; None: until all have been."""
    given = os.environ.get(needs.SECONDS)
    if given is None:
        return None
    if not given.isdecimal():
        raise pytest.UsageError(f"{needs.SECONDS}={given}: must be a whole number of seconds")
    return float(given)


STARTED = time.monotonic()


def pytest_configure(config: pytest.Config) -> None:
    required()
    seconds()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    limit = seconds()
    if limit is not None and time.monotonic() > STARTED + limit:
        needs.skip("time", f"no time was left after {limit:.0f} s")


def turned(items: list[pytest.Item]) -> list[pytest.Item]:
    """In an order that each commit has for itself: files, or what shares a worker, stay together."""
    from irnn.commit import commit

    def place(item: pytest.Item) -> bytes:
        mark = item.get_closest_marker("xdist_group")
        together = str(item.path) if mark is None else mark.args[0]
        return hashlib.sha256(f"{commit()} {together}".encode()).digest()

    return sorted(items, key=place)


def shared_by(item: pytest.Item) -> list[str]:
    """The fixtures that are kept for longer than a test and that an item asks for, by name or through another.

    Those with several parameters are one a parameter.
    """
    info = getattr(item, "_fixtureinfo")  # noqa: B009  (private, and pytest has no other way)
    wanted, shared = list(info.argnames), {}
    for name in wanted:  # it grows
        definition = info.name2fixturedefs.get(name, [None])[-1]
        if definition is None:
            continue
        wanted += [other for other in definition.argnames if other not in wanted]
        if definition.scope != "function" and definition.baseid:
            index = item.callspec.indices.get(name, 0) if hasattr(item, "callspec") else 0
            shared[f"{definition.baseid} {name} {index}"] = None
    return list(shared)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what a fixture has built go to one worker: each of the others would build it again."""
    fixtures = {item: shared_by(item) for item in items if item.get_closest_marker("xdist_group") is None}
    leader: dict[str, str] = {}

    def group(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for first, *others in filter(None, fixtures.values()):
        for other in others:
            leader[group(other)] = group(first)
    for item, (first, *_) in ((item, names) for item, names in fixtures.items() if names):
        item.add_marker(pytest.mark.xdist_group(group(first)))
    if seconds() is not None:
        items[:] = turned(items)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:  # a worker's session: the controller counts
        return
    absent = skipped_by_need(reporter.stats.get("skipped", []))
    if any(name in absent for name in required()) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    absent = skipped_by_need(terminalreporter.stats.get("skipped", []))
    for need, texts in sorted(absent.items()):
        verdict = "FAILED, since required: skipped" if need in required() else "skipped"
        causes = "; ".join(sorted(set(texts)))
        terminalreporter.write_line(f"{verdict} {len(texts)} ({causes}). To run them: {needs.COMMANDS[need]}")
    if "not slow" in (terminalreporter.config.option.markexpr or ""):
        terminalreporter.write_line("left out: the slow tests. To run them: make test-slow")
