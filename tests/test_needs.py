"""How the suite is run: what workers share, the summary of skips at the end, and the runs that may not skip."""

from __future__ import annotations

import itertools

import pytest

from tests.support import needs

pytest_plugins = ["pytester"]

WORKERS = ("-p", "xdist", "-n", "2")

SKIPPING = """
    from tests.support import needs

    def test_a():
        needs.skip("arm", "no qemu-aarch64")

    def test_b():
        needs.features(["avx512vnni"])

    def test_c():
        pass
"""


@pytest.fixture
def suite(
    pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A folder with this suite's conftest."""
    root = request.config.rootpath
    pytester.makeconftest((root / "tests" / "conftest.py").read_text(encoding="utf-8"))
    monkeypatch.setenv("PYTHONPATH", str(root))
    # Hydra and Hypothesis bring plugins that each process would import: longer than what is tested here takes.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("PYTEST_XDIST_WORKER", needs.REQUIRED, needs.SECONDS):
        monkeypatch.delenv(name, raising=False)
    return pytester


@pytest.mark.parametrize("options", [(), WORKERS], ids=["alone", "workers"])
def test_each_group_that_was_skipped_has_one_line(suite: pytest.Pytester, options: tuple[str, ...]) -> None:
    suite.makepyfile(SKIPPING)
    result = suite.runpytest_subprocess("-m", "not slow", *options)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            f"skipped 1 (no qemu-aarch64). To run them: {needs.COMMANDS['arm']}",
            "skipped 1 (this CPU has no avx512vnni). To run them: a processor that has these instructions",
            "left out: the slow tests. To run them: make test-slow",
        ]
    )


@pytest.mark.parametrize("options", [(), WORKERS], ids=["alone", "workers"])
def test_a_run_fails_where_what_it_requires_was_skipped(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setenv(needs.REQUIRED, "tvm,arm")
    suite.makepyfile(SKIPPING)
    result = suite.runpytest_subprocess(*options)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAILED, since required: skipped 1 (no qemu-aarch64). To run them: apt-get *"])
    monkeypatch.setenv(needs.REQUIRED, "tvm")
    assert suite.runpytest_subprocess(*options).ret == 0
    monkeypatch.setenv(needs.REQUIRED, "arms")
    assert suite.runpytest_subprocess(*options).ret == pytest.ExitCode.USAGE_ERROR


def test_a_skip_without_a_need_is_an_error(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\n\ndef test_a():\n    pytest.skip('no time')")
    result = suite.runpytest_subprocess()
    assert result.ret != 0
    result.stderr.fnmatch_lines(["*was skipped for 'Skipped: no time'*"])


SLEEPING = """
    import time
    import pytest

    @pytest.mark.parametrize("number", range(8))
    def test_a(number):
        time.sleep(0.2)
"""


@pytest.mark.parametrize("options", [(), WORKERS], ids=["alone", "workers"])
def test_a_run_that_has_no_time_left_says_what_it_left_out(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setenv(needs.SECONDS, "0")
    suite.makepyfile(SLEEPING)
    result = suite.runpytest_subprocess(*options)
    result.assert_outcomes(skipped=8)
    result.stdout.fnmatch_lines([f"skipped 8 (no time was left after 0 s). To run them: {needs.COMMANDS['time']}"])
    monkeypatch.setenv(needs.SECONDS, "300")
    suite.runpytest_subprocess(*options).assert_outcomes(passed=8)
    monkeypatch.setenv(needs.SECONDS, "soon")
    assert suite.runpytest_subprocess(*options).ret == pytest.ExitCode.USAGE_ERROR


def test_files_stay_together_where_time_may_end(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(needs.SECONDS, "300")
    suite.makepyfile(**{f"test_{name}": SLEEPING for name in "abcd"})
    printed = suite.runpytest_subprocess("--collect-only", "-q").stdout.str()
    files = [line.partition("::")[0] for line in printed.splitlines() if "::" in line]
    assert len(files) == 32
    assert len(list(itertools.groupby(files))) == 4


SHARED = """
    import pytest

    @pytest.fixture(scope="module", autouse=True)
    def around():
        yield

    @pytest.fixture(scope="module", params=["a", "b"])
    def built(request):
        with open("built", "a") as file:
            print(request.param, file=file)
        return request.param

    @pytest.fixture
    def used(built):
        return built

    @pytest.fixture(scope="module")
    def further():
        with open("built", "a") as file:
            print("further", file=file)

    @pytest.mark.parametrize("number", range(4))
    def test_shared(used, number):
        pass

    @pytest.mark.parametrize("number", range(4))
    def test_further(further, number):
        pass

    def test_both(used, further):
        pass
"""


def test_what_tests_share_is_built_by_one_worker(suite: pytest.Pytester) -> None:
    suite.makepyfile(SHARED)
    assert suite.runpytest_subprocess(*WORKERS, "--dist=loadgroup").ret == 0
    assert sorted((suite.path / "built").read_text().split()) == ["a", "b", "further"]
