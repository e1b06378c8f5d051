"""The one exception that the library raises for bad input, and how a front end words it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields


class IrnnError(ValueError):
    """Bad input: one line that names the value, what is allowed and how to mend it.

    It speaks of arguments as the library's user gives them, ``name=value``, or `` `name` `` where no value follows.
    Command-line front ends print the message alone and exit with code 1; everything else keeps its traceback.
    """


@contextmanager
def arguments_of(config: type, prefix: str) -> Iterator[None]:
    """Errors raised inside name the fields of the dataclass ``config`` with ``prefix`` before them.

    A front end's user gives them under other names (``data.dir`` for the field ``dir``); so does whoever gives one
    configuration inside another.  What has a prefix already keeps it: contexts can be nested.
    """
    names = "|".join(re.escape(field.name) for field in fields(config))
    given = re.compile(rf"(?<![\w./`-])(?:`(?P<bare>{names})`|(?P<set>(?:{names})(?:\.\w+)*)(?==))")
    try:
        yield
    except IrnnError as error:
        text = given.sub(lambda found: prefix + (found["bare"] or found["set"]), str(error))
        raise type(error)(text).with_traceback(error.__traceback__) from error.__cause__
