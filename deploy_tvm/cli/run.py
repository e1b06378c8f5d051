"""Print the likeliest next tokens after words or ids, given as arguments or on standard input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

import deploy_tvm
from deploy_tvm.cli import options
from irnn.errors import IrnnError

MAX_TOP = 1000


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", metavar="ARTEFACT WORD_OR_ID")
    parser.add_argument("--vocabulary", metavar="FILE", help="the words (default: those of the program)")
    parser.add_argument("--top", type=int, default=5, help="candidates to show (default 5)")


def execute(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> None:
    """Print the likeliest next tokens after words or ids, given as arguments or on standard input."""
    from deploy_tvm.artefact.exported import token_count
    from deploy_tvm.cli.prompt import candidates, find_vocabulary, token_ids

    if not free:
        raise IrnnError("run needs an artefact: python -m deploy_tvm run ARTEFACT WORD_OR_ID ...")
    if not 1 <= parsed.top <= MAX_TOP:
        raise IrnnError(f"--top {parsed.top}: must lie in 1 to {MAX_TOP}")
    runner = deploy_tvm.load(free[0])
    if isinstance(runner, Mapping):
        raise IrnnError(f"{free[0]} holds {' and '.join(runner)}: only a language model has next tokens to show")
    vocabulary = find_vocabulary(runner.program.metadata, parsed.vocabulary)
    ids = token_ids(free[1:] or [sys.stdin.read()], token_count(runner.program), vocabulary)
    for token, probability in candidates(runner, ids, parsed.top):
        print(f"{probability:8.4f}  {token if vocabulary is None else vocabulary.words[token]}")
