"""Apache Beam, imported without what only other runners and Beam's own sources and sinks use.

To import this module is to import Beam, unless somebody did before. `import apache_beam` by itself also imports pandas
and the clients of Google Cloud, Amazon, Azure, Hadoop and MongoDB wherever it finds them, with the connectors that are
built on them: two thirds of its time. Each of those imports is optional there, so here none of them is found while
Beam is imported. Afterwards all of them can be imported as ever, the user's model among others may do so, and so may
a runner that needs them, `apache_beam.io.gcp` included. See `docs/decisions/0018`.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

HIDDEN = (
    "apache_beam.io.gcp.bigquery",
    "apitools",
    "azure",
    "boto3",
    "botocore",
    "google.api_core",
    "google.cloud",
    "hdfs",
    "pandas",
    "pymongo",
)


class _Hidden(MetaPathFinder):
    """Finds none of the hidden modules, and leaves it there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if any(fullname == name or fullname.startswith(f"{name}.") for name in HIDDEN):
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def _import_beam() -> None:
    if "apache_beam" in sys.modules:
        return
    # Arrow looks once whether there is a pandas, when it is first asked for one: not while that is hidden.
    importlib.import_module("pyarrow")
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        importlib.import_module("apache_beam")
    finally:
        sys.meta_path.remove(hidden)


_import_beam()
