"""One run: from the checked configuration to the table."""

from __future__ import annotations

import torch

from irnn.data import load_corpus
from irnn.errors import IrnnError
from irnn.models.language_model import LanguageModelConfig
from pipelines.config import RunConfig, read_section
from pipelines.plan import plan
from pipelines.stages import run_stages


def run(config: RunConfig) -> None:
    """Run the stages of `config` that have not been run, write `results.json` and print the table."""
    torch.set_num_threads(config.trainer.threads)
    corpus = load_corpus(config.data)
    if "vocabulary_size" in config.model:
        raise IrnnError("model.vocabulary_size follows from the corpus; limit it with data.max_vocabulary")
    model = {**config.model, "vocabulary_size": len(corpus.vocabulary)}
    architecture = read_section(LanguageModelConfig, model, "model.")
    stages = plan(config, corpus, architecture)
    run_stages(stages, config.until)
