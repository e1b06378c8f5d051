"""Names of a network's parts as its users read them: in the program, in messages, in the table of sites."""

PARTS = "parts."  # where what was captured has the parts of a network of one's own


def readable_name(name: str) -> str:
    """Module path -> name in the program: ``lstm.layers.0.cells.forward_cell.w_x`` -> ``lstm.0.w_x``.

    Of a captured network the paths are its own, whatever is called ``layers`` there.
    """
    if name.startswith(PARTS):
        name = name.removeprefix(PARTS).replace(".cells.forward_cell", "").replace(".cells.backward_cell", "_reverse")
        return name.replace(".gates.", ".gate_")
    name = name.replace(".cells.forward_cell", "").replace(".cells.backward_cell", "_reverse")
    return name.replace("layers.", "").replace("gates.", "gate_")
