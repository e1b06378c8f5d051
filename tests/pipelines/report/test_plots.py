"""Figures and tables of the pages."""

from xml.etree import ElementTree

import numpy as np
import pytest

from pipelines.report import plots
from pipelines.report.figures import as_svg, new_figure
from pipelines.report.plots import Point, front_of
from pipelines.report.tables import number_in, page_table


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = [Point("a", 1, 9), Point("b", 2, 9), Point("c", 2, 5), Point("d", 3, 6), Point("e", 4, 1)]
    assert [p.label for p in front_of(points, higher=False)] == ["a", "c", "e"]
    assert [p.label for p in front_of(points, higher=True)] == ["a"]
    accuracies = [Point("a", 1, 0.5), Point("b", 2, 0.4), Point("c", 2, 0.9), Point("d", 3, 0.9)]
    assert [p.label for p in front_of(accuracies, higher=True)] == ["a", "c"]


def test_a_figure_takes_its_colours_from_the_page_and_says_what_it_shows() -> None:
    drawn = plots.trade_off("cost", [Point("<&>", 1, 2), Point("b", 3, 1)], "bytes", "perplexity", higher=False)
    root = ElementTree.fromstring(drawn)
    assert root.get("viewBox")
    assert root.get("width") is None
    assert root.get("aria-labelledby") == "cost-title cost-desc"
    title, description = root[0], root[1]
    assert (title.text, title.get("id")) == ("perplexity against bytes", "cost-title")
    assert "<&>: perplexity 2 at 1 bytes; b: perplexity 1 at 3 bytes" in str(description.text)
    assert "var(--series-1)" in drawn
    assert "#01010" not in drawn
    assert "#05050" not in drawn


def test_names_within_a_figure_are_its_own() -> None:
    """Two figures of one page that clip differently: neither may find the other's clip path."""
    drawn = []
    for name, top in (("a", 1.0), ("b", 2.0)):
        figure, axes = new_figure()
        axes.plot([0, 1], [0, top])
        drawn.append(as_svg(figure, name, name, name))
    found = [{e.get("id") for e in ElementTree.fromstring(one).iter() if e.get("id")} for one in drawn]
    assert not found[0] & found[1]
    for one, ids in zip(drawn, found, strict=True):
        used = {part.split(")")[0] for part in one.split("url(#")[1:]}
        used |= {part.split('"')[0] for part in one.split('href="#')[1:]}
        assert used
        assert used <= ids


def test_the_same_figure_is_the_same_text() -> None:
    first, second = (
        plots.training_curves(
            "c", {"float": [{"epoch": 0, "train_loss": 2.0, "valid": 9.0}, {"epoch": 1, "valid": 8.0}]}
        )
        for _ in range(2)
    )
    assert first == second
    assert "valid in stage float from 9 to 8" in str(first)
    assert plots.training_curves("c", {"float": []}) is None


def test_a_matrix_draws_runs_of_a_shade_once() -> None:
    found = {
        "title": "t.", "labels": ["unit", "seconds"], "rows": ["a", "b"], "columns": None, "span": [0, 2],
        "values": [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]],
    }  # fmt: skip
    runs = [plots._runs(np.array(row)) for row in ([0, 1, 1, 0], [2, 2], [1])]
    assert runs == [[(0, 1, 0), (1, 3, 1), (3, 4, 0)], [(0, 2, 2)], [(0, 1, 1)]]
    assert "Largest value of each row: a: 1.00, b: 1.00." in plots.matrix("m", found)


@pytest.mark.parametrize(
    ("text", "number"),
    [("3.80 MB", 3.8), ("5.3x", 5.3), ("0 of 3.1M", 0), ("97.2%", 97.2), ("+2.00", 2), ("1,234.5", 1234.5),
     ("", None), ("float", None), ("failed", None)],
)  # fmt: skip
def test_what_a_column_is_sorted_by(text: str, number: float | None) -> None:
    assert number_in(text) == number


def test_a_column_of_numbers_stands_to_the_right() -> None:
    made = page_table("t", ("a", "b", "c"), [("x", "1.5", ""), ("y", "failed", ""), ("z", "10x", "")])
    assert made.numeric == [False, True, False]
    assert [made.sort_key(row[1], 1) for row in made.rows] == ["1.5", "", "10.0"]
    assert made.sort_key(made.rows[0][0], 0) == "x"
