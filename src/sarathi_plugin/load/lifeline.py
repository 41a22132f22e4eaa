"""A lifeline: process groups that end when this process does, however it ends, ``SIGKILL`` included.

A sleeping shell reads a pipe that this process alone holds open; when that closes, it ends the group. (The kernel's own
way, ``PR_SET_PDEATHSIG``, is Linux only, tells the leader alone, and also fires when a mere thread ends.)
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = """
read -r group || exit
read -r never
kill -s TERM -- "-$group"
while kill -s 0 -- "-$group" && [ "$1" -gt 0 ]; do sleep 1; set -- $(($1 - 1)); done
kill -s KILL -- "-$group"
"""


@contextlib.contextmanager
def lifeline(term_wait_s: int) -> Iterator[Callable[[int], object]]:
    """Gives a function that takes the id of a process group: the group ends if this process does inside the block.

    It gets SIGTERM, and SIGKILL when it is still there after so many seconds. The block itself leaves it alone. What is
    forked inside the block, and not executed, holds the pipe open too.
    """
    pipe, ours = os.pipe()
    try:
        keeper = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "lifeline", str(term_wait_s)],
            stdin=pipe,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what a terminal sends to us must not end it first
        )
    finally:
        os.close(pipe)
    try:
        yield lambda group: os.write(ours, b"%d\n" % group)
    finally:
        keeper.kill()  # before the pipe closes
        keeper.wait()
        os.close(ours)
