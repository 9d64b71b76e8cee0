"""What is kept of a job of another machine while it lasts, so that a flow that was killed finds it again.

FOLDER/jobs/model.train.json     the job that works for this folder
"""

import re
from pathlib import Path

from infra.errors import RunFailed
from infra.launching.launch import JobSpec
from infra.manifest import Manifest, fingerprint
from infra.store import Store


class JobRecord(Manifest):
    """A job that was handed to a cluster."""

    kind: str
    """Of the launcher."""
    id: str
    """How the cluster names it."""
    work: str
    """What it does: see `work_of`."""
    files: str = ""
    """Folder of its lines, where that is another one's: an array's lie in the folder of its first job."""


def work_of(spec: JobSpec) -> str:
    """Short hash of what a job does."""
    return fingerprint(module=spec.module, arguments=list(spec.arguments), processes=spec.processes)


def job_name(spec: JobSpec, digits: int = 10) -> str:
    """A name for the job of this module in this folder, the same at every launch and no other folder's."""
    return f"{re.sub('[._]', '-', spec.module)}-{fingerprint(module=spec.module, folder=spec.folder)[:digits]}"


def jobs_folder(spec: JobSpec) -> Path:
    """Where records and lines of a job are kept; made if absent."""
    assert spec.folder, "a job of another machine needs a folder that both see"
    folder = Path(spec.folder) / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_job(spec: JobSpec, kind: str, job: str, files: str = "") -> JobRecord:
    """Write down, durably, which job works for the folder."""
    record = JobRecord(kind=kind, id=job, work=work_of(spec), files=files)
    record.save(Store(str(jobs_folder(spec))), f"{spec.module}.json")
    return record


def forget_job(spec: JobSpec) -> None:
    """Remove the record of a job that has ended."""
    (jobs_folder(spec) / f"{spec.module}.json").unlink(missing_ok=True)


def load_job(spec: JobSpec, kind: str) -> JobRecord | None:
    """The job that was last handed to this kind of cluster for the folder and that nobody saw end."""
    store, name = Store(str(jobs_folder(spec))), f"{spec.module}.json"
    record = JobRecord.load(store, name) if store.exists(name) else None
    return record if record is not None and record.kind == kind else None


def require_same_job(spec: JobSpec, record: JobRecord, end_it: str) -> None:
    """RunFailed where the living job of the folder does something else than what is asked for."""
    if record.work != work_of(spec):
        raise RunFailed(
            f"job {record.id} still works in {spec.folder}, with other settings",
            "one job at a time writes to a run's folder",
            f"Wait for its end, or end it with `{end_it}`, and run the same command again",
        )
