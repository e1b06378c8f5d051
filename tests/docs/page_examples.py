"""By which small setting each command of the pages is run, or why it cannot be run in a test."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from tests.docs.page_places import COPY, DIGITS, LIBRISPEECH, PICTURES, TEXT, UNIT_MODEL, WORDS, Workspace

# A run stops there unless it is run to its end, which takes long.
FLOAT = "until=float"


@dataclass(frozen=True)
class Example:
    """How a command is run.

    places: what stands for a placeholder of the page; `{w.NAME}` is a place of the workspace.  more: arguments that
    are added, the small setting.  code, says: how it ends, and part of what it prints.  needs: a target whose
    compiler and emulator it takes ("host": a compiler alone), or "counter".  serves: it runs until it is ended.
    """

    places: dict[str, str] = field(default_factory=dict)
    more: str = ""
    code: int = 0
    says: str = ""
    needs: str | None = None
    serves: bool = False
    slow: bool = False

    def command(self, shown: str, workspace: Workspace) -> str:
        """What is run in place of what the page shows."""
        for name in sorted(self.places, key=len, reverse=True):
            assert name in shown, f"{name} is not in the command {shown}"
        names = "|".join(re.escape(name) for name in sorted(self.places, key=len, reverse=True))
        if names:
            shown = re.sub(rf"(?<![\w-])(?:{names})(?!\w)", lambda found: self.places[found[0]], shown)
        return f"{shown} {self.more}".strip().format(w=workspace)


@dataclass(frozen=True)
class NotRun:
    """A command that no test can run, and why."""

    reason: str


def training(corpus: str | None, small: str, shown: str = "FOLDER", **places: str) -> Example:
    """A run up to its float stage on a small corpus, whose folder the page calls `shown`."""
    found = {} if corpus is None else {shown: f"{{w.{corpus}}}"}
    return Example(found | places, f"{small} {FLOAT}")


QUICK = training(None, f"data=text data.dir={{w.text}} {TEXT}")
LANGUAGE_MODEL = training("text", TEXT)
MOGRIFIER = training("text", f"{TEXT} evaluation.rows=4 model.cell_options.rounds=2 model.cell_options.rank=3")
SHORT = "--rounds 2 --seconds 0.02"
PROGRAM = {"outputs/.../program": "{w.language_model}/program"}
RECOGNIZER = {"outputs/.../program": "{w.recognizer}/program"}
SAYS = {"outputs/.../artefact": "{w.recognizer}/artefact"}
BOARD = {"device.host=board": "device.host=127.0.0.1 device.port={w.board}"}
TRACKED = "device.host=127.0.0.1 device.port={w.tracker}"
FEW = "--tokens 4 device.number=1 device.repeat=2"
LAYER = f"--input 8 --hidden 8 --steps 3 {SHORT} --peers-python {{w.peers}}"
RANDOM = f"--recognizer speech_small --frames 50 --units 2 {SHORT} --peers-python {{w.peers}}"
COUNTED = "--steps 3 --input 40 --hidden 48"
FUSION = "evaluation.search.beam=2 evaluation.search.max_length_extra=5"

INSTALLS = NotRun("installs system packages")
INSTALLS_EXTRA = NotRun("installs packages: tests/test_packaging.py checks what an extra brings")
WORKER = NotRun("a process that a benchmark starts by itself")
LAUNCHED = NotRun("starts processes that know no workspace: see tests/pipelines/sweep/test_launchers.py")
GPUS = NotRun("needs GPUs, or a cluster")
PROFILED = "needs valgrind and AVX2: see tests/deploy_tvm/test_profile.py"
FORM = NotRun("no command, but the form of those that follow")

PIPELINE = {
    "python run.py experiment=quickstart": replace(QUICK, more=QUICK.more.removesuffix(FLOAT)),
    "python run.py experiment=quickstart quant.weight=ternary": QUICK,
    "python run.py -m experiment=quickstart quant.weight=2,4,8": QUICK,
    "python run.py experiment=quickstart quant=int4 pwl.pieces=8 pwl.fit=greedy": QUICK,
    "python run.py experiment=quickstart quant=alternating quant.weight=2 quant.hidden=3": QUICK,
    "python run.py experiment=quickstart quant=denseshift quant.of.lstm.0.w_h=4": QUICK,
    "python run.py experiment=quickstart quant=int4 post_training=true": QUICK,
    "python run.py experiment=quickstart quant=midrise3 post_training=compensated": QUICK,
    "python run.py experiment=quickstart sweep=bits": QUICK,
    "python run.py experiment=quickstart sweep=pwl_pieces": replace(
        QUICK, more=QUICK.more.replace(" pwl.pieces=8", "")
    ),
    "python run.py experiment=quickstart sweep=seeds": QUICK,
    "python run.py experiment=quickstart sweep=bits launcher=joblib": replace(QUICK, slow=True),
    "python run.py experiment=quickstart sweep=bits launcher=submitit_local": LAUNCHED,
    "python run.py experiment=quickstart sweep=bits launcher=submitit_slurm hydra.launcher.partition=NAME": NotRun(
        "needs a Slurm cluster"
    ),
    "python run.py experiment=quickstart sweep=mixed_bits launcher=joblib hydra.sweeper.n_jobs=2": replace(
        QUICK, more=QUICK.more.removesuffix(FLOAT) + " hydra.sweeper.n_trials=2", slow=True
    ),
    "python run.py experiment=quickstart sweep=mixed_bits": replace(
        QUICK, more=QUICK.more.removesuffix(FLOAT) + " hydra.sweeper.n_trials=2"
    ),
    "python -m pipelines.dynamic": FORM,
    "python -m pipelines.dynamic experiment=wikitext2_mogrifier_small data.dir=FOLDER rate=0.002 decay=0.02": replace(
        MOGRIFIER, more=f"{MOGRIFIER.more} tokens=40", says='"dynamic"', slow=True
    ),
    "python -m pipelines.step_times": FORM,
    "python -m pipelines.step_times experiment=ptb_lstm data.dir=FOLDER against=[torch,brevitas] "
    "peers_python=peers/bin/python": Example(
        {"FOLDER": "{w.text}", "peers/bin/python": "{w.peers}"},
        f"{TEXT} rounds=1 seconds=0.1",
        says="stage activations",
        slow=True,
    ),
    "python -m pipelines.sensitivity experiment=quickstart": replace(QUICK, more=QUICK.more.removesuffix(FLOAT)),
    "python run.py sweep=papers_ptb data.dir=FOLDER": LANGUAGE_MODEL,
    "python run.py sweep=papers_ptb data.dir=FOLDER post_training=true": replace(
        LANGUAGE_MODEL, more=f"quant=midrise3,binary,alternating_w2a3 {LANGUAGE_MODEL.more}", slow=True
    ),
    "python run.py until=?": Example(
        more=f"data=text data.dir={{w.text}} {TEXT}",
        code=1,
        says="until=? is no stage; allowed: float, float_matched, pwl",
    ),
    "python run.py data=text data.dir=FOLDER": LANGUAGE_MODEL,
    "python run.py experiment=digit_words data.dir=FOLDER": training("digits", WORDS),
    "python run.py problem=classifier data=digit_words data.dir=FOLDER": training("digits", WORDS),
    "python run.py experiment=copy_qornn": training(None, COPY),
    "python run.py experiment=copy_hadamrnn": training(None, COPY),
    "python run.py problem=copy_memory data.delay=300": training(None, f"{COPY} data.delay=12"),
    "python run.py experiment=smnist_qornn data.dir=FOLDER": training("mnist", PICTURES),
    "python run.py experiment=pmnist_qornn data.dir=FOLDER": training("mnist", PICTURES),
    "python run.py experiment=ptb_char_qornn data.dir=FOLDER": training("text", TEXT),
    "python run.py problem=speech data=digits data.dir=FOLDER": training("digits", DIGITS),
    "python run.py experiment=ptb_lstm data.dir=FOLDER": LANGUAGE_MODEL,
    "python run.py experiment=ptb_ln_lstm data.dir=FOLDER": LANGUAGE_MODEL,
    "python run.py experiment=ptb_gru data.dir=FOLDER": LANGUAGE_MODEL,
    "python run.py experiment=wikitext2_lstm data.dir=FOLDER": LANGUAGE_MODEL,
    "python run.py experiment=wikitext2_mogrifier data.dir=FOLDER": replace(MOGRIFIER, slow=True),
    "python run.py experiment=wikitext2_mogrifier_small data.dir=FOLDER": replace(
        MOGRIFIER, more=f"{MOGRIFIER.more} model.softmaxes=2"
    ),
    "python run.py experiment=ptb_lstm data.dir=FOLDER seed=2": LANGUAGE_MODEL,
    "python run.py experiment=ptb_lstm data.dir=FOLDER seed=2 until=float_matched logger=wandb": Example(
        {"FOLDER": "{w.text}"}, TEXT, slow=True
    ),
    "python run.py experiment=ptb_lstm data.dir=FOLDER logger=wandb": Example({"FOLDER": "{w.text}"}, TEXT, slow=True),
    "python run.py experiment=ptb_lstm data.dir=FOLDER trainer.processes=2": replace(LANGUAGE_MODEL, slow=True),
    "python run.py experiment=librispeech_lstm data.dir=FOLDER trainer.accelerator=gpu trainer.processes=8": GPUS,
    "python run.py experiment=ptb_lstm data.dir=FOLDER trainer.accelerator=gpu trainer.cuda_graphs=true": GPUS,
    "python run.py experiment=ptb_lstm data.dir=FOLDER trainer.compile=true": Example(
        {"FOLDER": "{w.text}"},
        f"until=float {TEXT}",
        slow=True,  # a stage is enough: each compiles anew
    ),
    "python run.py -m experiment=librispeech_lstm data.dir=FOLDER seed=1,2 trainer.accelerator=gpu trainer.processes=8 "
    "hydra/launcher=submitit_slurm hydra.launcher.gpus_per_node=8 hydra.launcher.timeout_min=2880": GPUS,
    'python run.py experiment=librispeech_lstm data.dir=FOLDER "data.train=[train-clean-100]" recipe.float.epochs=1 '
    "until=float trainer.accelerator=gpu": GPUS,
    "python run.py data=text data.dir=FOLDER data.max_vocabulary=50000 data.token_files=tokens": LANGUAGE_MODEL,
    "python run.py experiment=synthetic_speech": training(None, DIGITS),
    "python run.py experiment=digits_lstm data.dir=FOLDER": training("digits", DIGITS),
    "python run.py experiment=digits_denseshift data.dir=FOLDER": training("digits", DIGITS),
    "python run.py experiment=digits_speaker data.dir=FOLDER": training("digits", DIGITS),
    "python run.py experiment=librispeech_subset data.dir=FOLDER": training("librispeech", LIBRISPEECH),
    "python run.py experiment=librispeech_lstm data.dir=FOLDER": training("librispeech", LIBRISPEECH),
    "python run.py experiment=librispeech_encoder data.dir=FOLDER": training("librispeech", LIBRISPEECH),
    "python run.py experiment=digits_speaker_pretrained data.dir=FOLDER "
    "problem.pretrained_encoder=outputs/stages/float-HASH": training(
        "digits", DIGITS, **{"outputs/stages/float-HASH": "{w.encoder}"}
    ),
    "python run.py experiment=synthetic_speech_lm": training(None, UNIT_MODEL),
    "python run.py experiment=librispeech_lm data.speech.dir=FOLDER": training("librispeech", TEXT),
    "python run.py experiment=librispeech_lm data.speech.dir=FOLDER data.units=outputs/.../program": training(
        "librispeech", TEXT, **{"outputs/.../program": "{w.spelling}/program"}
    ),
    "python run.py experiment=wikitext2_lstm name=my_lm data.dir=FOLDER data.units=outputs/.../program": training(
        "spelled_text", TEXT, **{"outputs/.../program": "{w.spelling}/program"}
    ),
    "python run.py experiment=synthetic_speech evaluation.search.beam=8 evaluation.search.lm_weight=0.3 "
    "evaluation.search.language_model=LM": Example({"LM": "{w.unit_model}/program"}, f"{DIGITS} {FUSION}", slow=True),
    "python run.py experiment=synthetic_speech evaluation.search.lm_weight=0.3 "
    "evaluation.search.language_model=FOLDER": Example(
        {"FOLDER": "{w.unit_model}/artefact"}, f"{DIGITS} {FUSION}", slow=True
    ),
    "python run.py experiment=ptb_lstm data.dir=FOLDER device=rpc device.host=board": Example(
        {"FOLDER": "{w.text}"} | BOARD, f"{TEXT} device.number=1 device.repeat=2", needs="aarch64", slow=True
    ),
    "python -m pipelines.transcribe outputs/.../artefact FILE.wav": Example(
        SAYS | {"FILE.wav": "{w.recording}"}, says="FILE.wav: ", slow=True
    ),
    "python -m pipelines.transcribe outputs/.../artefact FILE.wav ...": Example(
        SAYS | {"FILE.wav ...": "{w.recording} {w.recording}"}, says="FILE.wav: ", slow=True
    ),
    "python -m pipelines.transcribe outputs/.../artefact FILE.wav ... search.beam=8 search.lm_weight=0.3 "
    "search.language_model=LM": Example(
        SAYS | {"FILE.wav ...": "{w.recording}", "LM": "{w.unit_model}/artefact"}, says="FILE.wav: ", slow=True
    ),
    "python -m pipelines.transcribe MODEL FILE ... [search.KEY=VALUE ...]": Example(
        {"MODEL": "{w.float_stage}", "FILE ...": "{w.recording}", "[search.KEY=VALUE ...]": "search.beam=2"},
        says="FILE.wav: ",
    ),
    "python -m pipelines.report FOLDER ...": Example({"FOLDER ...": "{w.language_model}"}, says="report.html"),
    "python -m pipelines.publish": NotRun("writes pages: tests/pipelines/report/test_recipes.py compares them"),
    "python -m pipelines.publish outputs/NAME/HASH": NotRun("writes pages, as the next"),
    "python -m pipelines.publish --compare NAME": NotRun("writes pages: see tests/pipelines/test_publish.py"),
    "python -m pipelines.publish [RUN_FOLDER ...]": NotRun("writes pages: see tests/pipelines/test_publish.py"),
}

PROGRAMS = {
    "python -m examples.foreign": Example(more="LoadForecaster --steps 2 --out {w.folder}/foreign.json"),
    "python -m irnn.program describe outputs/.../program": Example(PROGRAM, says="scan over time"),
    "python -m irnn.program describe FOLDER": Example({"FOLDER": "{w.language_model}/program"}, says="scan over time"),
    "python -m irnn.program check outputs/.../program": Example(PROGRAM, says="integer-only: "),
    "python -m irnn.export c99 outputs/.../program out=c name=lm": Example(
        PROGRAM, says="c: lm.h, lm.c, irnn_runtime.h"
    ),
    'python -m irnn.export c99 outputs/.../program out=c compiler="arm-none-eabi-gcc -mcpu=cortex-m4"': Example(
        {**PROGRAM, "arm-none-eabi-gcc -mcpu=cortex-m4": "gcc"}, says="code (gcc -std=c99 -Os)"
    ),
    "python -m irnn.export c99 RECOGNIZER out=c max_steps=1000 max_memory=250": Example(
        {"RECOGNIZER": "{w.recognizer}/program"}, says="program_decoder"
    ),
    "python -m irnn.export c99|onnx PROGRAM out=PLACE [KEY=VALUE ...] [--json]": FORM,
    "python -m irnn.export onnx outputs/.../program out=lm.onnx": Example(PROGRAM, says="lm.onnx: "),
    "python -m irnn.pwl_report": Example(says="wrote docs/pwl.md", slow=True),
    "python -m irnn.pwl_report [--output docs]": Example(
        {"[--output docs]": "--output pages"}, says="wrote pages/pwl.md", slow=True
    ),
}

LIBRARIES = {
    "python -m deploy_tvm compile outputs/.../program out=lib": Example(PROGRAM, says="lib: integer program for host"),
    "python -m deploy_tvm compile PROGRAM_FOLDER target=host out=FOLDER": Example(
        {"PROGRAM_FOLDER": "{w.language_model}/program", "FOLDER": "another"}, says="another: integer program for host"
    ),
    "python -m deploy_tvm plan PROGRAM_FOLDER target=cortex_a76": Example(
        {"PROGRAM_FOLDER": "{w.language_model}/program"}, says="read in place: "
    ),
    "python -m deploy_tvm profile PROGRAM_OR_ARTEFACT --kernels avx2": NotRun(PROFILED),
    "python -m deploy_tvm profile outputs/.../program --kernels avx2": NotRun(PROFILED),
    'python -m deploy_tvm run lib "the value of the"': Example(
        {"lib": "{w.library}", "the value of the": "the cat sees a"}, "--top 12", says="  cat\n"
    ),
    "python -m deploy_tvm run ARTEFACT the company said": Example(
        {"ARTEFACT": "{w.library}", "the company said": "the dog runs"}, "--top 12", says="  cat\n"
    ),
    "python -m deploy_tvm bench lib --json bench.json": Example(
        {"lib": "{w.library}"}, SHORT, says="0 mismatches", slow=True
    ),
    "python -m deploy_tvm bench ARTEFACT --against onnxruntime --json out.json": Example(
        {"ARTEFACT": "{w.language_model}/artefact"},
        f"{SHORT} --peers-python {{w.peers}}",
        says="0 mismatches",
        slow=True,
    ),
    "python -m deploy_tvm bench --layer lstm --input 650 --hidden 650 --steps 35 --against "
    "onnxruntime,litert,torch": Example(more=LAYER, says="0 mismatches", slow=True),
    "python -m deploy_tvm bench --layer gru --input 650 --hidden 650 --steps 35 --against "
    "onnxruntime,openvino,litert,torch": Example(more=LAYER, says="0 mismatches", slow=True),
    "python -m deploy_tvm bench --layer lstm --input 650 --hidden 650 --steps 35 --weight-bits 8 --against "
    "onnxruntime": Example(more=LAYER, says="0 mismatches", slow=True),
    "python -m deploy_tvm bench --layer ... --json FILE": Example(
        {"--layer ...": "--layer lstm", "FILE": "layer.json"}, f"--input 8 --hidden 8 --steps 3 {SHORT}", slow=True
    ),
    "python -m deploy_tvm bench --recognizer speech_espresso --against onnxruntime": Example(
        more=RANDOM, says="0 mismatches", slow=True
    ),
    "python -m deploy_tvm bench --recognizer speech_espresso --frames 1000 --units 40 --against onnxruntime": Example(
        more=RANDOM, says="0 mismatches", slow=True
    ),
    "python -m deploy_tvm bench --layer gru --input 256 --hidden 256 --weight-bits 4 --batch 8 --against "
    "onnxruntime,torch": Example(more=LAYER, says="batch 8: a sequence's share", slow=True),
    "python -m deploy_tvm bench --layer lstm --input 650 --hidden 650 --code alternating --weight-bits 2 --codes 2 "
    "--steps 1": Example(more=LAYER, says="alternating 2, 2 codes read", slow=True),
    "python -m deploy_tvm bench --layer ornn --input 128 --hidden 128 --code full_range --weight-bits 4 --against "
    "onnxruntime,torch": Example(more=LAYER, says="0 mismatches", slow=True),
    "python -m deploy_tvm bench --layer ornn --input 128 --hidden 128 --hadamard": Example(
        more=f"--input 8 --hidden 16 --steps 3 {SHORT}", says="0 mismatches", slow=True
    ),
    "python -m deploy_tvm bench --layer lstm --input 650 --hidden 650 --kernels avx2": Example(
        {"avx2": "portable"}, LAYER, says="kernels portable", slow=True
    ),
    "python -m deploy_tvm bench --layer linear --input 650 --hidden 2600 --weight-bits 4 --against "
    "onnxruntime,onnxruntime-nbits": Example(more=LAYER, says="0 mismatches", slow=True),
    "python -m deploy_tvm.publish": FORM,
    "python -m deploy_tvm.publish --suite orthogonal": FORM,
    "python -m deploy_tvm.publish --suite products": FORM,
    "python -m deploy_tvm.publish --suite --against onnxruntime,openvino,litert,torch --peers-python "
    "peers/bin/python": NotRun(
        "measures for hours and writes docs/speed.md: see tests/deploy_tvm/publish/test_suite.py"
    ),
    "python -m deploy_tvm.publish --suite orthogonal --peers-python PYTHON --against onnxruntime,torch": NotRun(
        "the same"
    ),
    "python -m deploy_tvm.publish --suite products --against onnxruntime,onnxruntime-nbits --peers-python "
    "peers/bin/python": NotRun("the same"),
    "python -m deploy_tvm.publish --suite --only size=650,size=1024,batch=1 --kernels avx2": NotRun("the same"),
    "python -m deploy_tvm": FORM,
    "python -m deploy_tvm COMMAND": FORM,
    "python deploy_tvm/peers/peer_worker RUNTIME JOB_FOLDER CORE": WORKER,
    "python -m deploy_tvm.remote.worker JOB.json": WORKER,
    "python -m pipelines.core.follow PORT RANK": NotRun("a process that a run starts by itself"),
    """python -m deploy_tvm.bench.tvm_worker '{"kind": "program", ...}' CORE""": WORKER,
}

BOARDS = {
    "python -m deploy_tvm bench outputs/.../program device=emulated": Example(
        PROGRAM, FEW, needs="cortex_a76", slow=True
    ),
    "python -m deploy_tvm bench outputs/.../program device=emulated --frames 200 --units 10": Example(
        RECOGNIZER, "--frames 30 --units 2 device.number=1 device.repeat=2", needs="cortex_a76", slow=True
    ),
    "python -m deploy_tvm bench outputs/.../program device=rpc device.host=board target=cortex_a72": Example(
        PROGRAM | BOARD, FEW, needs="cortex_a72", slow=True
    ),
    "python -m deploy_tvm bench outputs/.../program device=rpc device.host=board target=cortex_a72 --json "
    "board.json": Example(PROGRAM | BOARD, FEW, needs="cortex_a72", slow=True),
    "python -m deploy_tvm bench PROGRAM_OR_ARTEFACT device=rpc device.host=board target=cortex_a72 --json "
    "out.json": Example(
        {"PROGRAM_OR_ARTEFACT": "{w.language_model}/artefact"} | BOARD, FEW, needs="cortex_a72", slow=True
    ),
    "python -m deploy_tvm bench outputs/.../program device=tracker device.key=pixel": Example(
        PROGRAM, f"{FEW} {TRACKED}", needs="aarch64", slow=True
    ),
    "python -m deploy_tvm bench outputs/.../program device=tracker device.key=pixel device.count=4": Example(
        PROGRAM | {"device.count=4": "device.count=1"}, f"{FEW} {TRACKED}", needs="aarch64", slow=True
    ),
    "python -m deploy_tvm doctor device=rpc device.host=board": Example(BOARD, needs="aarch64", slow=True),
    "python -m deploy_tvm doctor device=tracker device.host=host device.key=pixel": Example(
        {"device.host=host": TRACKED}, needs="aarch64", slow=True
    ),
    "python -m deploy_tvm serve": Example(
        more="--port 0", says="listening on 127.0.0.1:", needs="host", serves=True, slow=True
    ),
    "python -m deploy_tvm serve --host 0.0.0.0 --key pixel --tracker host:9190": Example(
        {"0.0.0.0": "127.0.0.1", "host:9190": "127.0.0.1:{w.tracker}"},
        "--port 0",
        says="listening on 127.0.0.1:",
        needs="aarch64",
        serves=True,
        slow=True,
    ),
    "python -m deploy_tvm bundle outputs/.../program target=armv7a": Example(
        PROGRAM, "--tokens 4", says="program-armv7a.tar.gz: ", needs="armv7a"
    ),
    "python -m deploy_tvm bundle PROGRAM_OR_ARTEFACT target=armv7a out=network.tar.gz": Example(
        {"PROGRAM_OR_ARTEFACT": "{w.language_model}/artefact"}, "--tokens 4", says="network.tar.gz: ", needs="armv7a"
    ),
    "python -m deploy_tvm bench --static outputs/.../program target=cortex_a53": Example(
        PROGRAM, "--steps 3", needs="counter", slow=True
    ),
    "python -m deploy_tvm bench --static --layer lstm --input 650 --hidden 650 --weight-bits 4 "
    "target=cortex_a76": Example(more=COUNTED, needs="counter", slow=True),
    "python -m deploy_tvm bench --static --layer gru --input 650 --hidden 650 target=armv7a": Example(
        more=COUNTED, needs="counter", slow=True
    ),
    "python -m deploy_tvm bench --static --layer lstm --input 650 --hidden 650 target=cortex_a76 --json "
    "out.json": Example(more=COUNTED, needs="counter", slow=True),
    "python -m deploy_tvm bench --static --layer lstm --input 650 --hidden 650 target=cortex_a76 --against "
    "onnxruntime,litert --peers-python peers/bin/python": NotRun(
        "makes an emulated Python of 230 MB: see tests/deploy_tvm/test_static.py, which does where there are runtimes"
    ),
    "tar xzf NAME.tar.gz && NAME/runner": NotRun(
        "on the board: tests/deploy_tvm/test_bundle.py runs it on an emulated one"
    ),
    "python -m deploy_tvm.publish outputs/.../program --layer lstm,gru --peers-python peers/bin/python --recognizer "
    "outputs/.../program": NotRun(
        "measures for an hour and writes docs/devices.md: see tests/deploy_tvm/publish/test_arm_results.py"
    ),
    "python -m deploy_tvm.publish PROGRAM --peers-python PYTHON --layer lstm,gru --recognizer PROGRAMS": NotRun(
        "the same"
    ),
}

INSTALLATION = {
    "make run": NotRun("sets up an environment; its commands are looked at in tests/docs/test_documentation.py"),
    "make lint": NotRun("sets up an environment; its commands are looked at in tests/docs/test_documentation.py"),
    "make test": NotRun("runs all tests, this one among them"),
    "make test-slow": NotRun("runs the long tests, this one among them"),
    "pip install .": INSTALLS_EXTRA,
    "pip install '.[train,tvm,speech]'": INSTALLS_EXTRA,
    "pip install ziglang": INSTALLS_EXTRA,
    "pip install 'irnn[speech]'": INSTALLS_EXTRA,
    "pip install 'irnn[tvm]'": INSTALLS_EXTRA,
    "pip install 'irnn[sweep]'": INSTALLS_EXTRA,
    "pip install 'irnn[wandb]'": INSTALLS_EXTRA,
    "pip install '.[sweep]'": INSTALLS_EXTRA,
    "python -m venv peers && peers/bin/pip install onnxruntime onnx ai-edge-litert tensorflow-cpu tf_keras": NotRun(
        "installs two gigabytes of other runtimes"
    ),
    "pip install tornado psutil cloudpickle && python -m tvm.exec.rpc_tracker --host ADDRESS --port 9190": NotRun(
        "installs packages and starts TVM's tracker, which the tests of device=tracker start themselves"
    ),
    "python -m tvm.exec.rpc_tracker": NotRun("TVM's own, as above"),
    "apt-get install --no-install-recommends qemu-user g++-aarch64-linux-gnu g++-arm-linux-gnueabihf": INSTALLS,
    "apt-get install --no-install-recommends llvm-19 mmdebstrap": INSTALLS,
}

OWN = {
    "python -m examples.keyword_spotting FOLDER": Example(
        {"FOLDER": "{w.digits}"}, "--epochs 1", says="frame by frame: 0 of 660 integers differ"
    ),
    "python -m examples.keyword_spotting FOLDER --speech LIBRISPEECH": NotRun(
        "wants hours of speech: tests/examples/test_spotting_data.py tests what it adds"
    ),
    "python -m deploy_tvm profile spotter --kernels avx2 --steps 5": NotRun(PROFILED),
    "python -m deploy_tvm profile spotter_float --kernels avx2 --steps 5": NotRun(PROFILED),
    "python -m deploy_tvm bench spotter --float spotter_float --steps 5": NotRun(
        "is of programs that are trained first: tests/examples/test_keyword_spotting.py has what is particular to it"
    ),
    "python -m examples.forecaster": Example(
        more="--series 128 --epochs 1", says="the program gives what eval() gives: True"
    ),
    "python -m examples.language_model": Example(more="--epochs 1 --size 8 --lines 100", says="one word a call: "),
    "python -m examples.language_model TEXT": Example(
        {"TEXT": "{w.text}/train.txt"}, "--epochs 1 --size 8 --lines 200", says="one word a call: "
    ),
}

EXAMPLES: dict[str, Example | NotRun] = {**PIPELINE, **PROGRAMS, **LIBRARIES, **BOARDS, **INSTALLATION, **OWN}
