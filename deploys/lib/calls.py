"""What pyinfra does for every call of an operation, a fact or a deploy, done without what Phoenix has no use for.

To know from which line an operation is called pyinfra walks the stack, and has Python read the source of every frame on it, twice; and it
works out the types of its global arguments anew for each of some 600 calls. Together that was a third of the processor time of a deploy
that changes nothing (`docs/decisions/0404-what-pyinfra-repeats.md`). Neither result is another one here: only file name and line are used.
"""

from __future__ import annotations

import functools
import inspect

from pyinfra.api import arguments, util


def make_lean() -> None:
    """Leave out reading source lines, and remember the global arguments' types. Of no effect when called again."""
    if isinstance(util.stack, functools.partial):
        return
    util.stack = functools.partial(inspect.stack, 0)
    util.getframeinfo = functools.partial(inspect.getframeinfo, context=0)
    arguments.all_global_arguments = functools.cache(arguments.all_global_arguments)
