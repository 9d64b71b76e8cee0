"""What `make audit` says of pip-audit's answer to a lock: `python -m tests.audit requirements.lock`.

Exit code 1: a package of the lock has a known vulnerability; 2: there was no audit. What could not be audited (a
registry without PyPI's service, no network) is counted, so that silence is not taken for safety.
"""

import json
import subprocess
import sys

_UNREACHABLE = ("requests.exceptions.", "Could not connect to PyPI", "PyPI is not redirecting")
"""What pip-audit says, among other things, where the service does not answer."""


def ask(lock: str) -> tuple[str, str]:
    """pip-audit's answer, and its complaints."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    command = [sys.executable, "-m", "pip_audit", "--requirement", lock, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr


def verdict(answer: str, complaints: str) -> tuple[str, int]:
    """(what to print, exit code)."""
    try:
        packages = json.loads(answer)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        if any(each in complaints for each in _UNREACHABLE):
            return "make audit: SKIPPED, the service that knows of vulnerabilities does not answer", 0
        return f"make audit: FAILED, nothing was audited\n{complaints.strip()}", 2
    audited = [each for each in packages if "skip_reason" not in each]
    found = [
        f"{each['name']} {each['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no release'}"
        for each in audited
        for known in each["vulns"]
    ]
    if not audited:
        return f"make audit: SKIPPED, the registry tells nothing of the {len(packages)} packages of the lock", 0
    summary = f"make audit: {len(audited)} of {len(packages)} packages asked for, {len(found)} known vulnerabilities"
    return "\n".join([summary, *found]), 1 if found else 0


if __name__ == "__main__":
    text, code = verdict(*ask(sys.argv[1]))
    print(text)
    sys.exit(code)
