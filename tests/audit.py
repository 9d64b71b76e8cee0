"""What `make audit` says of pip-audit's answer, which is JSON on standard input.

Exit code 1: a package of the lock has a known vulnerability. What could not be audited (a registry without PyPI's
service, no network) is counted, so that silence is not taken for safety.
"""

import json
import sys


def verdict(answer: str) -> tuple[str, int]:
    """(what to print, exit code)."""
    try:
        packages = json.loads(answer)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        return "make audit: SKIPPED, the service that knows of vulnerabilities does not answer", 0
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
    text, code = verdict(sys.stdin.read())
    print(text)
    sys.exit(code)
