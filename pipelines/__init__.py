"""The program around the library: runs, sweeps, reports and what is published of them."""

import os

# PyTorch's own switch, read at its first tensor: large tensors on a processor are asked for in large pages.  A step
# makes and frees its largest ones anew (logits of a vocabulary are 150 MB), and with pages of 4 KiB their first touch
# is up to a sixth of its time; where a system has no large pages, nothing changes.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
