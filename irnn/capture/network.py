"""A network of one's own, captured: it stays the object that it was, and computes as its stage says.

``prepare`` gives the network one part more (:data:`ENGINE`), which holds sites and tables, and its class a base more,
whose ``forward`` asks that part.  Modules, parameters and the names in its ``state_dict`` stay; there is no second
network.
"""

from __future__ import annotations

import types
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from irnn.capture.edges import Edge
from irnn.capture.example import Signature
from irnn.capture.layout import from_network, layout, to_network
from irnn.capture.lowerings import OPERATIONS
from irnn.capture.lowerings.glue import TAILS
from irnn.capture.plan import Input, Plan
from irnn.capture.trace import Fields, mapped, returned
from irnn.capture.wiring import Parts, Planner, Row, Wiring, edges_of
from irnn.errors import IrnnError
from irnn.models.base import RecurrentModel
from irnn.models.loading import check_state_dict, record_in
from irnn.program.graph import Graph
from irnn.program.real import dequantize_state, quantize_state
from irnn.quant.site import QuantSite
from irnn.stages import Record, Settings, write_record
from irnn.wiring.executor import ProgramExecutor, StateSpec
from irnn.wiring.network import ENGINE
from irnn.wiring.simulate import Simulation

REFRESH_EVERY = 50  # training passes after which tables follow the ranges


class CapturedNetwork(RecurrentModel):
    """What stands for a user's network in stages after "float": its plan, its sites, its programs."""

    CALIBRATION_WIDENS = True

    def __init__(self, network: nn.Module, plan: Plan, signature: Signature) -> None:
        super().__init__()
        self.parts = Parts()
        self._network = (network,)  # not registered: the network holds this part
        self.plan, self.signature = plan, signature
        self._passes = 0

    @property
    def network(self) -> nn.Module:
        """The user's."""
        return self._network[0]

    def plan_parts(self, norm: str) -> list[Row]:
        """Make every part and site, LayerNorms of the kind ``norm``; what is said of each step."""
        rows: list[Row] = []
        a = Planner()
        wiring = Wiring(self.plan, self.network, self.parts, a, rows, norm)
        inputs = {index: self._edge(wiring, spec, a) for index, spec in self.plan.inputs.items()}
        found = wiring.run(OPERATIONS, inputs)
        if not any(row.problem for row in rows):
            for edge in edges_of(found):
                self._leaving(wiring, edge)
        self.states = wiring.states
        return rows

    def _edge(self, w: Wiring, spec: Input, t: Any) -> Edge:
        """An input as an edge; real ones are at a site of their own."""
        site = None
        if spec.kind == "real":
            size = 1
            for axis in spec.inner:
                size *= axis.sizes[0]
            site = w.site(f"{spec.name}.input", "activation", size)
        form = "int8" if spec.kind == "real" else spec.kind
        return Edge(t, form, spec.dims, spec.inner, spec.name, spec.time, site)

    def _leaving(self, w: Wiring, edge: Edge) -> Edge:
        """An output in the form in which it leaves."""
        if edge.form == "weights" and edge.score is not None:
            if edge.score.lengths is not None:
                raise IrnnError(
                    f"the output {edge.producer} is a softmax over the valid steps alone: return its scores"
                )
            return replace(w.wide(edge.score), tail=("softmax_over_time",), dims=edge.dims)
        if edge.form == "sum" or edge.apart:
            return w.wide(edge)
        if edge.form in ("scores", "int8", "int16", "state"):
            return edge
        raise IrnnError(f"the output {edge.producer} holds nothing that the network has computed")

    def program_wire(self, a: ProgramExecutor[Any]) -> None:
        """The whole network for an executor that records a program."""
        wiring = Wiring(self.plan, self.network, self.parts, a)
        inputs = {index: self._declared(wiring, spec) for index, spec in self.plan.inputs.items()}
        for name, edge in self._outputs(wiring, inputs).items():
            if edge.form != "state":
                a.output(name, edge.t)

    def _declared(self, w: Wiring, spec: Input) -> Edge:
        """An input of a program."""
        edge = self._edge(w, spec, None)
        match spec.kind:
            case "ids":
                return edge.become(w.a.ids(spec.name, spec.count, None if spec.time is None else _length(spec)))
            case "lengths":
                return edge.become(w.a.lengths(spec.name, spec.counts))
            case "real" if spec.time is None:
                return edge.become(w.a.value(spec.name, edge.site))
            case "real":
                return edge.become(w.a.features(spec.name, edge.site, _length(spec)))
        return edge

    def _outputs(self, w: Wiring, inputs: dict[int, Any]) -> dict[str, Edge]:
        """Every output by its name, in the form in which it leaves."""
        found = list(edges_of(w.run(OPERATIONS, inputs)))
        names = ["y"] if len(found) == 1 else [f"y{k}" for k in range(len(found))]
        own = self.plan.output.values if isinstance(self.plan.output, Fields) else self.plan.output
        own = {key: value for key, value in own.items() if value is not None} if isinstance(own, dict) else {}
        if len(own) == len(found):
            names = [str(key) for key in own]
        return {name: self._leaving(w, edge) for name, edge in zip(names, found, strict=True)}

    def program_metadata(self) -> dict[str, Any]:
        """How the axes of the network's own tensors lie, for ``Program.quantize`` and ``dequantize``."""
        wiring = Wiring(self.plan, self.network, self.parts, Planner())
        inputs = {index: self._edge(wiring, spec, wiring.a) for index, spec in self.plan.inputs.items()}
        outputs = self._outputs(wiring, inputs)
        return {
            "inputs": {edge.producer: layout(edge) for edge in inputs.values() if edge.form not in ("state", "unused")},
            "outputs": {name: layout(edge) for name, edge in outputs.items() if edge.form != "state"},
        }

    # --- execution ---

    def simulate(self, batch: Any, state: Any = None, *, observing: bool) -> tuple[Any, Simulation]:
        """The network's outputs for a batch (arguments of its ``forward``) in float, and the executor."""
        args, kwargs = self.signature.arguments(batch)
        return self._simulated(self.signature.leaves(args, kwargs), observing=observing)

    def _simulated(self, leaves: list[Tensor], *, observing: bool) -> tuple[Any, Simulation]:
        sizes = self._sizes(leaves)
        like = next(self.network.parameters())
        every = [spec for specs in self.states.values() for spec in specs]
        start = {s.name: like.new_zeros(sizes["batch"], s.size, dtype=torch.float32) for s in every}
        simulation = self._simulation(start, observing)
        wiring = Wiring(self.plan, self.network, self.parts, simulation)
        inputs = {}
        for (index, spec), x in zip(self.plan.inputs.items(), leaves, strict=True):
            edge = self._edge(wiring, spec, None)
            if spec.kind == "unused":
                inputs[index] = edge
                continue
            if spec.state is not None:
                given = self._parts(spec.state, from_network(x, edge, batch_first=False))
                sites = {state.name: state.site for state in self._specs(spec.state)}
                simulation.state |= {name: simulation.input(sites[name], part) for name, part in given.items()}
                inputs[index] = edge
                continue
            t = from_network(x, edge, batch_first=False)
            inputs[index] = edge.become(t if edge.site is None else simulation.input(edge.site, t))
        structure = wiring.run(OPERATIONS, inputs)
        outputs = mapped(structure, lambda e: self._real(wiring, e))
        simulation.finish()
        return returned(outputs), simulation

    def _real(self, w: Wiring, edge: Any) -> Any:
        if not isinstance(edge, Edge):
            return edge
        if edge.state is not None and edge.form == "state":
            return to_network(torch.cat([w.a.state[s.name] for s in self._specs(edge.state)], -1), edge)
        leaving = self._leaving(w, edge)
        t = leaving.t if leaving.time is None else leaving.t.transpose(0, 1)
        return _behind(t, leaving)

    def _specs(self, state: tuple[str, int]) -> list[StateSpec]:
        """The states of one kind of a recurrent step, layer by layer."""
        specs = self.states[state[0]]
        return specs[state[1] :: len({spec.name.rpartition(".")[2] for spec in specs})]

    def _parts(self, state: tuple[str, int], x: Tensor) -> dict[str, Tensor]:
        """A state ``[batch, layers * size]`` as the program's."""
        specs = self._specs(state)
        return {spec.name: part for spec, part in zip(specs, x.chunk(len(specs), -1), strict=True)}

    def _sizes(self, leaves: list[Tensor]) -> dict[str, int]:
        """Sizes of batch and time; tensors of other shapes than the captured ones are one message."""
        sizes: dict[str, int] = {}
        problems = []
        for spec, x in zip(self.plan.inputs.values(), leaves, strict=True):
            wanted = [repr(d[0]) if d else "1" for d in spec.dims]
            right = x.dim() == len(wanted) and all(
                not w.isdecimal() or int(w) == n for w, n in zip(wanted, x.shape, strict=True)
            )
            if not right or 0 in x.shape:
                problems.append(f"{spec.name} has the shape {list(x.shape)}, not [{', '.join(wanted)}]")
                continue
            for axis, n in zip(wanted, x.shape, strict=True):
                if not axis.isdecimal() and sizes.setdefault(axis, n) != n:
                    problems.append(f"{spec.name} has {n} along {axis}, an input before it has {sizes[axis]}")
            if spec.kind != "unused" and x.is_floating_point() != (spec.kind in ("real", "state")):
                problems.append(f"{spec.name} is {x.dtype}, captured with {spec.dtype}")
        if problems:
            raise IrnnError("; ".join(problems))
        return sizes

    def program_arguments(
        self, program: Graph, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Inputs and state, integers, of a program of this network for arguments of the network's ``forward``."""
        leaves = self.signature.leaves(args, kwargs)
        sizes = self._sizes(leaves)
        wiring = Wiring(self.plan, self.network, self.parts, Planner())
        inputs: dict[str, np.ndarray] = {}
        state = program.initial_state(sizes["batch"])
        for spec, x in zip(self.plan.inputs.values(), leaves, strict=True):
            if spec.kind == "unused":
                continue
            flat = from_network(x.detach().cpu(), self._edge(wiring, spec, wiring.a), batch_first=True)
            if spec.state is not None:
                parts = self._parts(spec.state, flat)
                state |= {name: quantize_state(program, name, part.numpy()) for name, part in parts.items()}
            elif spec.kind == "real":
                inputs[spec.name] = program.inputs[spec.name].quantize(flat.numpy())
            else:
                inputs[spec.name] = flat.to(torch.int32).numpy()
        return inputs, state

    def _integers(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The network's outputs from the program's integers."""
        frozen = self.frozen()
        program = frozen.program
        inputs, state = self.program_arguments(program, *args, **kwargs)
        integers, after = frozen.run_all(
            *({name: torch.from_numpy(x).to(self.device) for name, x in part.items()} for part in (inputs, state))
        )
        wiring = Wiring(self.plan, self.network, self.parts, Planner())
        edges = {index: self._edge(wiring, spec, wiring.a) for index, spec in self.plan.inputs.items()}
        structure = wiring.run(OPERATIONS, edges)
        waiting = iter(zip(program.outputs, integers, strict=True))

        def real(edge: Any) -> Any:
            if not isinstance(edge, Edge):
                return edge
            if edge.state is not None and edge.form == "state":
                parts = [
                    dequantize_state(program, s.name, after[s.name].cpu().numpy()) for s in self._specs(edge.state)
                ]
                return to_network(torch.from_numpy(np.concatenate(parts, -1)).to(self.device), edge)
            name, y = next(waiting)
            value = program.values[name]
            assert value.scale is not None  # what leaves has one scale
            return _behind(((y.double() - value.zero_point) * value.scale).float(), self._leaving(wiring, edge))

        return returned(mapped(structure, real))

    @_disable_dynamo  # torch.compile leaves it alone: tables, observers and programs are no graph of tensors
    def respond(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the network's ``forward`` gives in the stages after "float"."""
        if self.integer:
            return self._integers(args, kwargs)
        leaves = self.signature.leaves(args, kwargs)
        if self._observing:
            self._passes += 1
            if self._passes % REFRESH_EVERY == 0:
                self.refresh()
        return self._simulated(leaves, observing=self._observing)[0]

    @property
    def untouched(self) -> bool:
        """Whether the network computes as it did before it was prepared."""
        return self.stage == "float" and all(norm.kind == "layer" for norm in self.norms().values())

    # --- weights, which are the network's ---

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def _tensors(self) -> list[tuple[str, Tensor]]:
        return [*self.network.named_parameters(), *self.network.named_buffers()]

    def train(self, mode: bool = True) -> CapturedNetwork:
        """As ``nn.Module.train``; an epoch starts with tables that fit."""
        super().train(mode)
        if mode:
            self._fit_tables()
        return self

    def incoming(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Check what is about to be loaded; weights of the network alone (of before it was prepared) get ranges."""
        own = f"{prefix}{ENGINE}."
        if not any(key.startswith(own) for key in state_dict):
            state_dict.update({own + name: value for name, value in self.state_dict().items()})
            record = Record(Settings(), dict.fromkeys(self.norms(), "layer"))
            state_dict[f"{own}_extra_state"] = write_record(record)
            return
        prepared = self.settings if self._prepared else None
        record = record_in(state_dict, f"{own}_extra_state", self, prepared=prepared, prefix=own)
        check_state_dict(self, state_dict, own, record, prepared)

    def sites(self) -> list[QuantSite]:
        """Every site."""
        return [module for module in self.parts.modules() if isinstance(module, QuantSite)]

    states: dict[str, list[StateSpec]]


def _length(spec: Input) -> str:
    """What programs call the length of an input."""
    return "time" if spec.time is None else spec.time.name


def _behind(t: Tensor, edge: Edge) -> Tensor:
    """A value that has left the program, ``[batch, (time,) features]``, as the network gives it."""
    if edge.tail:
        t = TAILS[edge.tail[0]](t.float(), dim=-1)
    return to_network(t, edge)


_CLASSES: dict[type, type[nn.Module]] = {}


class Prepared(nn.Module):
    """Base that a prepared network's class gets in front of its own."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As before, by the stage that the network is prepared for."""
        engine = self._modules[ENGINE]
        assert isinstance(engine, CapturedNetwork)
        return super().forward(*args, **kwargs) if engine.untouched else engine.respond(args, kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Refuse before anything is changed."""
        engine = self._modules[ENGINE]
        assert isinstance(engine, CapturedNetwork)
        engine.incoming(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """The class is made anew where the network is copied or loaded."""
        _, _, *state = tuple(super().__reduce_ex__(protocol))
        return (_blank, (type(self).__mro__[2],), *state)


def prepared_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of a prepared network whose own class is ``kind``: by the same name, an instance of it too."""

    if kind in _CLASSES:
        return _CLASSES[kind]

    def body(namespace: dict[str, Any]) -> None:
        namespace |= {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}

    made = _CLASSES[kind] = types.new_class(kind.__name__, (Prepared, kind), {}, body)
    return made


def _blank(kind: type[nn.Module]) -> nn.Module:
    made = prepared_class(kind)
    return made.__new__(made)
