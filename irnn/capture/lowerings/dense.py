"""Products with the network's matrices, tables, norms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from irnn.capture.borrowed import Borrowed, BorrowedEmbedding, BorrowedLinear, BorrowedNorm
from irnn.capture.edges import Edge, permutation, shown
from irnn.capture.forms import Held
from irnn.capture.wiring import UnsupportedError, Wiring


def linear(w: Wiring, input: Edge, weight: Any, bias: Any = None) -> Edge:
    """``W x + b``: accumulators, of one scale where they are the network's scores."""
    if not isinstance(weight, Held) or not (bias is None or isinstance(bias, Held)):
        raise UnsupportedError("multiplies with a matrix that is computed", "nn.Linear")
    last = input.columns
    columns = permutation(last, input.inner)
    source = Borrowed(w.network)
    matrix = source.find(weight.path)
    rows = 1 if matrix.dim() == 1 else matrix.shape[1 if weight.turned else 0]
    scores = _scores(w, weight)
    role = "logits_weight" if scores or _is_table(w, matrix) else "weight"
    name = w.module_name(weight.path.rpartition(".")[0]) if w.step.path + ".weight" == weight.path else w.step.name
    products, start = [], 0
    for k, operand in enumerate(w.operands(input)):
        biases = () if bias is None or k else (bias.path,)
        chosen = list(range(start, start + operand.size)) if input.side else columns
        part = w.part(
            f"{name}.part_{k}" if k else name,
            partial(BorrowedLinear, source, weight.path, biases, role, columns=chosen, turned=weight.turned),
        )
        products.append(w.a.linear(part, operand.t))
        start += operand.size
    t = products[0] if len(products) == 1 else w.a.accumulate(*products)
    features = ((w.features(rows),),) if matrix.dim() > 1 else ()
    return w.edge(t, "scores" if scores else "sum", (*input.dims[:-1], *features))


def _scores(w: Wiring, weight: Held) -> bool:
    """Whether only the network's outputs are made of what this matrix gives."""
    uses = [k for k, step in w.plan.steps.items() if step.op == "linear" and step.kwargs.get("weight") == weight]
    return bool(uses) and all(set(w.plan.readers(k)) == {"output"} for k in uses)


def _is_table(w: Wiring, matrix: Any) -> bool:
    """Whether an embedding looks rows up in it: then it has one scale, as a table has."""
    source = Borrowed(w.network)
    tables = [step.kwargs.get("weight") for step in w.plan.steps.values() if step.op == "embedding"]
    return any(isinstance(table, Held) and source.find(table.path) is matrix for table in tables)


def embedding(w: Wiring, input: Edge, weight: Any, padding_idx: Any = None, *args: Any, **kwargs: Any) -> Edge:
    """Rows of a table."""
    if input.form != "ids":
        raise UnsupportedError(
            f"looks up {input.producer}, which is no input of whole numbers", "ids as an argument of forward"
        )
    source = Borrowed(w.network)
    part = w.part(
        w.module_name(weight.path.rpartition(".")[0] or w.step.name), lambda: BorrowedEmbedding(source, weight.path)
    )
    if input.inner:
        raise UnsupportedError(f"looks up several ids a step, {shown(input.dims)}", "ids [batch, time]")
    return w.edge(w.a.embedding(part, input.t), "int8", (*input.dims, (w.features(source.find(weight.path).shape[1]),)))


def layer_norm(
    w: Wiring, input: Edge, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Edge:
    """Over all features, onto 16 bits."""
    if input.columns != input.inner or len(normalized_shape) != 1:
        raise UnsupportedError(
            f"normalizes over {list(normalized_shape)} of {shown(input.dims)}", "a norm over all features"
        )
    size = normalized_shape[0]
    path = w.step.path if isinstance(weight, Held) else w.step.name
    part = w.part(
        w.module_name(path) if isinstance(weight, Held) else path,
        lambda: BorrowedNorm(
            Borrowed(w.network),
            size,
            weight.path if isinstance(weight, Held) else None,
            bias.path if isinstance(bias, Held) else None,
            eps,
            w.norm,
        ),
    )
    site = w.site(f"{w.step.name}.normed", "norm", size)
    return w.edge(w.a.norm(part, site, w.quantized(input).t), "int16", input.dims, site)


OPERATIONS: dict[str, Callable[..., Any]] = {"linear": linear, "embedding": embedding, "layer_norm": layer_norm}
