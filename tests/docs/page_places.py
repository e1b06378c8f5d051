"""A folder in which the commands of the pages find what they name: corpora, runs, recordings; all of them tiny."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

import numpy as np
import soundfile
import torch
from hydra.core.global_hydra import GlobalHydra

from deploy_tvm.remote.device import DEFAULT_CPU
from deploy_tvm.remote.server import serve
from tests.support.pictures import write_mnist
from tests.support.places import ROOT
from tests.support.speech_files import tone, write_fsdd, write_librispeech
from tests.support.tiny_run import short_timings, write_corpus

TRAINING = "trainer.progress=false recipe.float.epochs=1 recipe.float.average=0 pwl.pieces=8"
TEXT = f"{TRAINING} model.embedding_size=8 model.hidden_size=8 data.batch_size=4 data.steps=8 " + (
    "evaluation.interpreter_tokens=20"
)
SPEECH = f"{TRAINING} data.cache_dir=features data.batches.max_utterances=20 " + (
    "model.conv_channels=[4] model.conv_strides=[4] model.encoder_layers=2 model.downsampling=[2] model.encoder_size=8 "
    "model.embedding_size=8 model.decoder_layers=1 model.decoder_size=8 model.attention_size=8 "
    "evaluation.interpreter_utterances=2 evaluation.search.max_length_factor=0.0 evaluation.search.max_length_extra=5"
)
DIGITS = f"{SPEECH} data.train_strings=40 data.evaluation_strings=2 data.max_digits=2"
LIBRISPEECH = f"{SPEECH} data.units.kind=characters data.units.size=null"
UNIT_MODEL = f"{TEXT} data.speech.train_strings=40 data.speech.evaluation_strings=2 data.speech.max_digits=2"
WORDS = f"{TRAINING} data.cache_dir=features model.hidden_size=8"
COPY = (
    f"{TRAINING} model.hidden_size=8 data.length=3 data.delay=4 data.train_sequences=16 data.batch_size=8 "
    "data.evaluation_sequences=8 evaluation.interpreter_sequences=2 evaluation.batch_size=8"
)
PICTURES = f"{TRAINING} model.hidden_size=8 data.pixels=196 data.batch_size=10"
TRANSCRIPTS = ["SEVEN SEAS", "ONE SHIP", "A GREAT SHIP ON THE SEA", "NO SEA IS NEAR"]


@dataclass
class Workspace:
    """The folder in which the commands run; what they name in it is made when the first of them names it.

    running: servers, which end with the workspace.
    """

    folder: Path
    running: contextlib.ExitStack

    def run(self, command: str) -> tuple[int, str]:
        """(exit code, what it prints) of a command that begins with `python`, in this process but as a script."""
        program, *arguments = shlex.split(command)
        assert program == "python", command
        is_module = arguments[0] == "-m"
        name, *given = arguments[is_module:]
        threads, printed = torch.get_num_threads(), io.StringIO()
        GlobalHydra.instance().clear()
        with (
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            patch.object(sys, "argv", [name, *given]),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", ".*found in sys.modules.*", RuntimeWarning)
            try:
                if is_module:
                    runpy.run_module(name, run_name="__main__", alter_sys=True)
                else:
                    runpy.run_path(str(ROOT / name), run_name="__main__")
                code: object = 0
            except SystemExit as end:
                code = end.code
            finally:
                GlobalHydra.instance().clear()
                torch.set_num_threads(threads)
        if isinstance(code, str):
            return 1, printed.getvalue() + code
        return int(code or 0), printed.getvalue()

    def made(self, command: str) -> str:
        """Run a command that prepares something; what it prints."""
        code, printed = self.run(command)
        assert code == 0, f"{command}\n{printed}"
        return printed

    @cached_property
    def text(self) -> Path:
        """Text of 10 words."""
        return write_corpus(self.folder / "text")

    @cached_property
    def digits(self) -> Path:
        return write_fsdd(self.folder / "fsdd")

    @cached_property
    def mnist(self) -> Path:
        return write_mnist(self.folder / "mnist")

    @cached_property
    def librispeech(self) -> Path:
        """The subsets that the experiments name, a speaker each, and splits.tsv for the experiment that wants one."""
        subsets = ("train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "test-clean")
        texts = {
            subset: {f"{speaker}-1-{k:04d}": text for k, text in enumerate(TRANSCRIPTS)}
            for speaker, subset in enumerate(subsets, start=1)
        }
        return write_librispeech(self.folder / "LibriSpeech", texts)

    @cached_property
    def recording(self) -> Path:
        soundfile.write(self.folder / "FILE.wav", np.stack([tone(0.6, 22050), tone(0.6, 22050, 900)], axis=1), 22050)
        return self.folder / "FILE.wav"

    @cached_property
    def language_model(self) -> Path:
        """The run's folder of `experiment=quickstart`."""
        return self._run_folder(f"experiment=quickstart data=text data.dir={self.text} {TEXT}")

    @cached_property
    def recognizer(self) -> Path:
        """The run's folder of `experiment=synthetic_speech`."""
        return self._run_folder(f"experiment=synthetic_speech {DIGITS}")

    @cached_property
    def unit_model(self) -> Path:
        """The run's folder of a language model of that recognizer's units."""
        return self._run_folder(f"experiment=synthetic_speech_lm {UNIT_MODEL}")

    @cached_property
    def encoder(self) -> Path:
        """The float stage of `experiment=librispeech_encoder`."""
        return self._stage("float", f"experiment=librispeech_encoder data.dir={self.librispeech} {LIBRISPEECH}")

    @cached_property
    def spelling(self) -> Path:
        """The folder of a recognizer's stage `program`, whose units are the letters of LibriSpeech."""
        return self._stage("program", f"experiment=librispeech_lstm data.dir={self.librispeech} {LIBRISPEECH}")

    @cached_property
    def spelled_text(self) -> Path:
        """Text in these letters."""
        folder = self.folder / "spelled"
        folder.mkdir()
        for split in ("train", "valid", "test"):
            (folder / f"{split}.txt").write_text("\n".join(TRANSCRIPTS * 12) + "\n")
        return folder

    @cached_property
    def float_stage(self) -> Path:
        """The float stage of a recognizer."""
        return self._stage("float", f"experiment=synthetic_speech {DIGITS}")

    @property
    def peers(self) -> str:
        """A Python that may have the runtimes of --against."""
        return os.environ.get("IRNN_PEERS_PYTHON", sys.executable)

    @cached_property
    def board(self) -> int:
        """The port of an emulated board's RPC server on loopback."""
        _, port, _ = self.running.enter_context(serve.running(serve.server_command(DEFAULT_CPU)))
        return port

    @cached_property
    def tracker(self) -> int:
        """The port of TVM's tracker on loopback, with which an emulated board has registered the key `pixel`."""
        from tvm.rpc.tracker import Tracker

        tracker = Tracker("127.0.0.1", 9500, 9599, silent=True)
        self.running.callback(tracker.terminate)
        arguments = ("--key", "pixel", "--tracker", f"127.0.0.1:{tracker.port}")
        self.running.enter_context(serve.running([*serve.server_command(DEFAULT_CPU), *arguments]))
        return tracker.port

    @cached_property
    def library(self) -> Path:
        """What README's `compile ... out=lib` leaves."""
        self.made(f"python -m deploy_tvm compile {self.language_model}/program out=lib")
        return self.folder / "lib"

    def _run_folder(self, arguments: str) -> Path:
        printed = self.made(f"python run.py {arguments}")
        return self.folder / printed.rpartition("results, program and artefact: ")[2].strip()

    def _stage(self, name: str, arguments: str) -> Path:
        """The folder of a stage, which the run names itself, whether it has been run before or not."""
        printed = self.made(f"python run.py {arguments} until={name}")
        (folder,) = re.findall(rf"^{name}: (?:running|done before) \((.*)\)$", printed, re.MULTILINE)
        return self.folder / folder


@contextlib.contextmanager
def workspace(folder: Path) -> Iterator[Workspace]:
    """A workspace whose timings are as short as they can be."""
    with short_timings(), contextlib.ExitStack() as running:
        yield Workspace(folder, running)
