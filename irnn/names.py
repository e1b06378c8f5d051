"""Names of a network's parts as its users read them: in the program, in messages, in the table of sites."""


def readable_name(name: str) -> str:
    """Module path -> name in the program: ``lstm.layers.0.cells.forward_cell.w_x`` -> ``lstm.0.w_x``."""
    name = name.replace(".cells.forward_cell", "").replace(".cells.backward_cell", "_reverse")
    return name.replace("layers.", "").replace("gates.", "gate_")
