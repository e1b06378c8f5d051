"""What the distribution declares: every import by the extra that has to bring it, and nothing that nobody needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = {"irnn", "pipelines", "deploy_tvm", "conf", "examples", "tests", "run"}
# Where a package is imported under another name than it is installed under.
DISTRIBUTIONS = {"yaml": "pyyaml", "hydra": "hydra-core", "tvm": "apache-tvm", "tvm_ffi": "apache-tvm-ffi"} | {
    "tensorflow": "tensorflow-cpu"
}
# Declared though nothing here imports them, and why.
NOT_IMPORTED = {
    "pytest-xdist": "pytest finds it", "pytest-timeout": "pytest finds it",
    "ruff": "a program", "import-linter": "a program", "mypy": "a program",
    "tornado": "TVM's tracker", "cloudpickle": "TVM's server", "psutil": "TVM's server",
    "hydra-optuna-sweeper": "Hydra finds it", "hydra-joblib-launcher": "Hydra finds it",
    "hydra-submitit-launcher": "Hydra finds it",
}  # fmt: skip
# Part of the sources -> (extras of the imports at the top of a module, more of those inside of functions).
ALLOWED = {
    "irnn": ((), ("train", "speech")),
    "irnn/export/onnx": (("onnx",), ()),
    "pipelines": (("train",), ("speech", "wandb")),
    "run.py": (("train",), ()),
    "deploy_tvm": (("tvm",), ()),
    "deploy_tvm/peers/peer_worker": (("peers",), ()),
    "deploy_tvm/static/guest": (("peers",), ()),
    "conf": ((), ()),
    "examples": (("tvm",), ()),
    "tests": (("train", "tvm", "speech", "dev"), ()),
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """The distributions of the library alone and of these extras."""
    lines = [*PROJECT["dependencies"], *(line for name in extras for line in EXTRAS[name])]
    return {canonical(re.match(r"[\w.-]+", line)[0]) for line in lines}


def sources(part: str) -> Iterator[Path]:
    """The modules of a part, without those of a part inside of it."""
    folder = ROOT / part
    inner = [ROOT / other for other in ALLOWED if other.startswith(f"{part}/")]
    for path in [folder] if folder.is_file() else folder.rglob("*.py"):
        if not any(path.is_relative_to(other) for other in inner):
            yield path


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(distribution, whether it is imported inside of a function) of what a module imports from others."""
    beside = {other.stem for other in path.parent.glob("peer_*.py")}

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            names = []
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom) and not child.level:
                names = [child.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in OWN | beside | sys.stdlib_module_names:
                    yield DISTRIBUTIONS.get(top, canonical(top)), inside
            yield from walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    return walk(ast.parse(path.read_text(encoding="utf-8")), False)


@pytest.mark.parametrize("part", ALLOWED)
def test_every_import_is_declared_where_it_is_needed(part: str) -> None:
    at_the_top, inside_of_functions = ALLOWED[part]
    for path in sources(part):
        for name, inside in imports(path):
            known = declared(*at_the_top, *(inside_of_functions if inside else ()))
            assert name in known, f"{path.relative_to(ROOT)} imports {name}: no extra of {part} declares it"


def test_every_requirement_is_imported() -> None:
    imported = {name for part in ALLOWED for path in sources(part) for name, _ in imports(path)}
    assert declared(*EXTRAS) - imported == set(NOT_IMPORTED)


def test_the_library_alone_needs_five_packages() -> None:
    assert declared() == {"torch", "numpy", "safetensors", "rich", "filelock"}


def test_versions_of_a_package_agree_in_all_extras() -> None:
    lines = {line for extra in EXTRAS.values() for line in extra}
    names = [canonical(re.match(r"[\w.-]+", line)[0]) for line in lines]
    assert len(names) == len(set(names))


def test_make_installs_what_the_targets_need() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    torch = text.index("pip install --quiet torch==2.13.0")
    assert torch < text.index("pip install --quiet --editable '.[train,tvm,speech,dev]'")


@pytest.mark.parametrize("path", [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *sources("irnn"),
                                  *sources("pipelines"), *sources("deploy_tvm"), ROOT / "run.py"], ids=str)  # fmt: skip
def test_extras_that_texts_and_messages_name_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = {name.strip() for group in re.findall(r"'(?:irnn|\.)\[([\w,]+)\]'", text) for name in group.split(",")}
    assert named | set(re.findall(r'\bextra\("(\w+)"\)', text)) <= set(EXTRAS)


# (package that is absent, command, extra)
ABSENT = [
    ("hydra", ["run.py", "experiment=quickstart"], "train"),
    ("omegaconf", ["run.py", "experiment=quickstart"], "train"),
    ("pytorch_lightning", ["run.py", "experiment=quickstart"], "train"),
    ("pytorch_lightning", ["-m", "pipelines.transcribe", "nowhere", "a.wav"], "train"),
    ("omegaconf", ["-m", "pipelines.transcribe", "nowhere", "a.wav"], "train"),
    ("matplotlib", ["-m", "irnn.pwl_report", "--output", "{folder}"], "train"),
    ("tvm", ["-m", "deploy_tvm", "compile", "program", "out=lib"], "tvm"),
    ("tvm_ffi", ["-m", "deploy_tvm", "doctor"], "tvm"),
    ("hydra", ["-m", "deploy_tvm", "doctor"], "tvm"),
    ("soundfile", ["run.py", "experiment=digits_lstm", "data.dir={fsdd}", "output_dir={folder}",
                   "data.cache_dir={folder}/cache", "data.leave_out=true"], "speech"),
    ("wandb", ["run.py", "experiment=quickstart", "logger=wandb", "until=float", "output_dir={folder}"], "wandb"),
]  # fmt: skip


@pytest.mark.parametrize(("package", "command", "extra"), ABSENT, ids=[f"{row[0]} {row[1][:2]}" for row in ABSENT])
def test_a_missing_package_is_one_line(package: str, command: list[str], extra: str, tmp_path: Path) -> None:
    if extra == "tvm" and package != "tvm":
        needs.tvm()
    places = {"folder": tmp_path, "fsdd": tmp_path / "fsdd"}
    if extra == "speech":
        needs.packages("speech", "soundfile")
        from tests.support.speech_files import write_fsdd

        write_fsdd(tmp_path / "fsdd")
    arguments = [argument.format(**places) for argument in command]
    script = "import runpy, sys; sys.modules[sys.argv.pop(1)] = None; sys.path.insert(0, '.'); sys.argv.pop(0); " + (
        "runpy.run_module(sys.argv.pop(0) and sys.argv[0], run_name='__main__', alter_sys=True)"
        if arguments[0] == "-m"
        else "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, package, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert package in line
    assert f"pip install 'irnn[{extra}]'" in line


@pytest.mark.slow
def test_the_wheel_holds_what_is_no_python(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("irnn-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for pattern in (
        "conf/**/*.yaml",
        "deploy_tvm/**/*.c",
        "deploy_tvm/**/*.cc",
        "deploy_tvm/**/*.h",
        "deploy_tvm/**/*.py",
        "irnn/py.typed",
    ):
        wanted = {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)}
        assert wanted
        assert wanted <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith("tests/") for name in names)
