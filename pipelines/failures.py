"""What went wrong, in the one line that a user can act on."""

from __future__ import annotations

import errno

from irnn.errors import IrnnError

# What a user can mend about a file or a disk that fails in the middle of a run; other errors are bugs.
DISK_ERRORS = {
    errno.ENOSPC: "no space left on the disk; free some",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system has become read-only; mend that",
    errno.EACCES: "it may not be written to; change its permissions",
    errno.EPERM: "it may not be written to; change its permissions",
    errno.EIO: "the disk does not work; mend that",
}


def line_of(error: BaseException) -> str | None:
    """The line for an error that a user can mend; None for a bug."""
    if isinstance(error, IrnnError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command goes on from the last finished epoch"
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{DISK_ERRORS[error.errno]}, and the same command goes on from the last finished epoch"
    return None
