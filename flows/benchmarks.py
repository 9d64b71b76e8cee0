"""`gristmill benchmarks`: published benchmark files made into a folder of tasks for `benchmarks.tasks_dir`."""

from tasks.benchmarks.convert import convert
from tasks.benchmarks.folder import Conversion


def convert_benchmarks(source: str, folder: str) -> Conversion:
    """Make `folder` of the benchmark files in or below `source`; `Conversion.text` says what was made.

    A folder that was made before is replaced. BadInput for files that are damaged or in no known form.
    """
    return convert(source, folder)
