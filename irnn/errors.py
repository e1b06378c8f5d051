"""The one exception that the library raises for bad input."""


class IrnnError(ValueError):
    """Bad input: one line that names the value, what is allowed and how to mend it.

    Command-line front ends print the message alone and exit with code 1; everything else keeps its traceback.
    """
