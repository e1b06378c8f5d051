"""The pages of runs and sweeps: whole, without network, small, free of script errors."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines.config import RunConfig
from pipelines.report.__main__ import main
from pipelines.report.run_page import write_run_page
from pipelines.report.sweep_page import write_sweep_page
from pipelines.sweep import sweep
from tests.support import needs


@pytest.fixture(scope="module")
def folder(whole_run: tuple[RunConfig, dict, Path]) -> Path:
    """A complete tiny run."""
    return whole_run[2]


@pytest.fixture
def sweep_folder(folder: Path, tmp_path: Path) -> Path:
    """A sweep of 32 cells with the figures of that run, one of which has failed."""
    made = tmp_path / "sweeps" / "quickstart_bits-0123456789ab"
    results = json.loads((folder / "results.json").read_text())
    sweep.begin(made, "quickstart_bits", "python run.py sweep=bits")
    for number in range(32):
        bytes_of = {"float": 9000, "integer": 1000 + 100 * number}
        done = {"state": sweep.DONE, "digest": results["digest"], "results": results | {"size_bytes": bytes_of}}
        failed = {"state": sweep.FAILED, "reason": "the <disk> is full", "results": None, "digest": None}
        cell = {
            "number": number,
            "overrides": ["experiment=quickstart", f"quant.weight={2 + number % 7}", f"seed={number // 7}"],
            "command": f"python run.py seed={number // 7}",
            "reason": None,
            "seconds": 1.5,
        }
        sweep.record(made, cell | (failed if number == 5 else done))
    write_sweep_page(made)
    return made


class Outline(HTMLParser):
    """What a page loads, and which of its tags are left open."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loads += [
            f"{tag}:{value}" for key, value in attributes if key == "src" or (tag == "link" and key == "href")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_a_run_ends_with_its_page(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    page = Outline(text)
    assert page.open == []
    assert page.headings == [
        "To repeat it", "Stages", "Training", "What it costs, what it gives", "Activation functions",
        "Quantization sites", "The proof", "Where it ran",
    ]  # fmt: skip
    assert [load for load in page.loads if not load.startswith("img:data:")] == []
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(text) < 2_000_000
    results = json.loads((folder / "results.json").read_text())
    assert f"{results['stages']['integer']['test_perplexity']:.2f}" in text
    assert "0 of 1,760 integers differ" in text or re.search(r"0 of [\d,]+ integers differ", text)
    assert "no floating-point arithmetic among them" in text
    assert "lstm.0.hidden" in text
    assert text.count("<svg") == text.count('role="img"') == text.count("<title id=") == 4


def test_curves_are_those_of_the_stages(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    for name in ("float", "float_matched", "all"):
        curve = json.loads((folder / "stages" / name / "manifest.json").read_text())["curve"]
        for key in ("train_loss", "valid_perplexity"):
            first, last = (f"{row[key]:.4g}" for row in (curve[0], curve[-1]))
            assert f"{key.replace('_', ' ')} in stage {name} from {first} to {last}" in text
    assert "step in stage" not in text


def test_the_command_writes_a_page_anew(folder: Path, sweep_folder: Path, capsys) -> None:
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert main([str(folder), str(sweep_folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n{sweep_folder / 'report.html'}\n"
    assert (folder / "report.html").read_text() == before


def test_what_a_page_shows_is_escaped(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "name" / "hash")
    results = json.loads((copy / "results.json").read_text())
    (copy / "results.json").write_text(json.dumps(results | {"experiment": "<script>alert(1)</script>"}))
    text = write_run_page(copy).read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_program_that_fails_its_proof_is_shown_as_such(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "name" / "hash")
    results = json.loads((copy / "results.json").read_text())
    results["mismatches"]["tvm_vs_interpreter"] = {"count": 3, "compared": 90}
    (copy / "results.json").write_text(json.dumps(results))
    text = write_run_page(copy).read_text()
    assert "<b>FAILS</b> <span>TVM against interpreter: 3 of 90 integers differ" in text
    assert "FAILS" not in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "holds neither results.json nor sweep.json: give the folder of a run"),
        (lambda folder: (folder / "results.json").write_text("{"), "is damaged; run the experiment again"),
        (lambda folder: (folder / "results.json").write_text("{}"), "is of irnn 0.1, whose results name no problem"),
        (
            lambda folder: (folder / "results.json").write_text('{"problem": "language_model"}'),
            "results.json lacks 'wall_seconds': another version wrote it",
        ),
    ],
)
def test_a_bad_folder_is_one_line(spoil, message: str, folder: Path, tmp_path: Path, capsys) -> None:
    copy = shutil.copytree(folder, tmp_path / "name" / "hash")
    spoil(copy)
    assert main([str(copy)]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert printed.count("\n") == 1


def test_a_sweep_has_one_page(sweep_folder: Path) -> None:
    text = (sweep_folder / "report.html").read_text()
    page = Outline(text)
    assert page.open == []
    assert page.loads == []
    assert len(text) < 5_000_000
    assert "31 of 32 cells have results" in text
    assert "the &lt;disk&gt; is full" in text
    assert text.count("<tr>") == 2 + 2 * 32


def opened(page: Path, *more: str) -> tuple[str, str]:
    """(the document after its scripts, what the console says) of headless Chromium."""
    profile = page.parent / "profile"
    command = [
        needs.chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={profile}", "--enable-logging=stderr", "--virtual-time-budget=2000", *more, "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


CLICK = "<script>for (const b of [...document.querySelectorAll('th button')].slice(0, COUNT)) b.click()</script></body>"


def test_pages_open_without_a_script_error(folder: Path, sweep_folder: Path, tmp_path: Path) -> None:
    for page in (folder / "report.html", sweep_folder / "report.html"):
        copy = tmp_path / f"{page.parent.name}.html"
        copy.write_text(page.read_text().replace("</body>", CLICK.replace("COUNT", "1e9")))
        document, console = opened(copy)
        assert console == ""
        assert "aria-sort" in document
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</body>", "<script>none_such()</script></body>"))
    assert "none_such is not defined" in opened(broken)[1]


def test_a_click_sorts_a_table(sweep_folder: Path, tmp_path: Path) -> None:
    page = (sweep_folder / "report.html").read_text()
    heads = re.findall(r'<button type="button" title="sort by ([^"]+)"', page)
    place = heads.index("size")
    click = f"<script>document.querySelectorAll('th button')[{place}].click()</script>"
    for count in (1, 2):
        copy = tmp_path / "sorted.html"
        copy.write_text(page.replace("</body>", click * count + "</body>"))
        document, _ = opened(copy)
        body = document[document.index("<tbody>") : document.index("</tbody>")]
        rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
        keys = [re.findall(r'data-key="([^"]*)"', row)[place] for row in rows]
        assert keys[-1] == ""  # the failed one has no size, and stays last
        sizes = [float(key) for key in keys[:-1]]
        assert sizes == sorted(sizes, reverse=count == 2)
        assert len(set(sizes)) > 5
