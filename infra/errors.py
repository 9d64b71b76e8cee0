"""What can go wrong, as a person should read it.

    GristmillError           a run stopped; the message gives the value, the rule and the remedy
    ├── BadInput             what the user gave cannot be used (exit code 2)
    └── RunFailed            a run that was started did not finish (exit code 1)
        ├── DiskFull         no space was left where an output was being written
        └── DamagedData      bytes on disk are not the bytes that a manifest promises

Programming errors stay ordinary Python exceptions.
"""


class GristmillError(Exception):
    """An error with a value (what was found), a rule (what is required) and a remedy (what to do)."""

    exit_code = 1

    def __init__(self, value: str, rule: str, remedy: str) -> None:
        # All three go to Exception.args, so that the error survives pickling between Dask processes.
        super().__init__(value, rule, remedy)
        self.value, self.rule, self.remedy = value, rule, remedy

    def __str__(self) -> str:
        return f"{self.value}: {self.rule}. {self.remedy}."


class BadInput(GristmillError):
    """A setting, path or file from the user cannot be used."""

    exit_code = 2


class RunFailed(GristmillError):
    """A started run did not finish; what it had committed stays valid."""


class DiskFull(RunFailed):
    """An output could not be written for want of space; nothing half-written remains."""


class DamagedData(RunFailed):
    """A file differs from what the manifest records of it."""
