"""Beam looks at each DoFn's methods some eight times a pipeline; here it remembers what it saw.

Building and starting the batch graph asks `userstate.get_dofn_specs` 134 times for 17 DoFns, and each time every
method's signature is taken apart: a third of the time that a small job takes to its first row. See
`docs/decisions/0012`.
"""

import weakref
from typing import Any

from apache_beam.transforms import userstate


def remember_dofn_specs() -> None:
    """Have Beam inspect each DoFn once, in this process. Called again, it does nothing."""
    look = userstate.get_dofn_specs
    if hasattr(look, "remembers"):
        return
    known: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def get_dofn_specs(dofn: Any) -> Any:
        try:
            found = known.get(dofn)
        except TypeError:  # of a class without a hash or a weak reference
            return look(dofn)
        if found is None:
            found = known[dofn] = look(dofn)
        return found

    get_dofn_specs.remembers = True  # type: ignore[attr-defined]
    userstate.get_dofn_specs = get_dofn_specs
