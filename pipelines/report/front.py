"""The Pareto front of a search over bits: what no other trial beats in both figure of merit and bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.table import Table

from irnn.commit import commit
from pipelines.core.manifest import write_json
from pipelines.watch.console import console

SOLUTIONS = "optimization_results.yaml"  # as Hydra's Optuna plugin writes it
FRONT = "pareto_front.json"


class ParetoFront(Callback):
    """At the end of a search: the front as a table, and as ``pareto_front.json`` in the sweep's folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Nothing where the sweep was broken off before Optuna wrote its results."""
        folder = Path(str(config.hydra.sweep.dir))
        if not (folder / SOLUTIONS).is_file():
            return
        rows = front(OmegaConf.to_container(OmegaConf.load(folder / SOLUTIONS)))
        if not rows:  # every trial failed: their reasons stand in the sweep's table
            return
        trials = int(config.hydra.sweeper.n_trials)
        write_json(folder / FRONT, {"experiment": config.name, "trials": trials, "commit": commit(), "rows": rows})
        console.print(table(rows))
        console.print(f"the front: {folder / FRONT}")


def front(found: Any) -> list[dict[str, Any]]:
    """The solutions with what was chosen, the figure of merit and the bytes, the smallest program first; once each."""
    rows = [
        {
            "choices": {name.lstrip("+"): choice for name, choice in solution["params"].items()},
            "figure": solution["values"][0],
            "size_bytes": int(solution["values"][1]),
        }
        for solution in found["solutions"]
    ]
    unique = {tuple(row["choices"].items()): row for row in rows}
    return sorted(unique.values(), key=lambda row: row["size_bytes"])


def table(rows: list[dict[str, Any]]) -> Table:
    """One row a solution."""
    made = Table(title="what nothing else beats in both", title_justify="left", box=box.SIMPLE_HEAD)
    for name in rows[0]["choices"]:
        made.add_column(name.removeprefix("quant.").removeprefix("of."), justify="right")
    made.add_column("figure", justify="right")
    made.add_column("size", justify="right")
    for row in rows:
        made.add_row(*map(str, row["choices"].values()), f"{row['figure']:.3f}", f"{row['size_bytes'] / 1e6:.3f} MB")
    return made


def table_of_front(found: dict[str, Any]) -> str:
    """The front in Markdown: `found` is what the callback has written."""
    rows = found["rows"]
    heads = [name.removeprefix("quant.").removeprefix("of.") for name in rows[0]["choices"]]
    lines = ["| " + " | ".join([*heads, "figure", "size"]) + " |", "|---:" * (len(heads) + 2) + "|"]
    for row in rows:
        cells = [*map(str, row["choices"].values()), f"{row['figure']:.2f}", f"{row['size_bytes'] / 1e6:.3f} MB"]
        lines.append("| " + " | ".join(cells) + " |")
    facts = f"What no other of {found['trials']} trials beats in both; not trained. Commit {found['commit'][:12]}."
    return "\n".join([*lines, "", facts, ""])
