"""An audit fails for what is known, and says what it could not ask for."""

import json
from pathlib import Path

from tests.audit import ask, verdict

SAFE = {"name": "safe", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


def test_a_known_vulnerability_fails():
    text, code = verdict(json.dumps({"dependencies": [SAFE, BAD, UNKNOWN]}), "")
    assert code == 1
    assert "2 of 3 packages asked for, 1 known" in text
    assert "bad 1.0: PYSEC-1, mended in 1.1" in text


def test_silence_is_not_taken_for_safety():
    unreachable = ("", "requests.exceptions.ConnectTimeout: HTTPSConnectionPool(host='pypi.org', port=443)")
    assert verdict(*unreachable) == (
        "make audit: SKIPPED, the service that knows of vulnerabilities does not answer",
        0,
    )
    text, code = verdict(json.dumps({"dependencies": [UNKNOWN]}), "")
    assert "SKIPPED" in text
    assert code == 0
    assert verdict(json.dumps({"dependencies": [SAFE, UNKNOWN]}), "")[1] == 0


def test_what_is_wrong_with_the_lock_is_no_silence(tmp_path: Path):
    (tmp_path / "lock.txt").write_text("requests\n")
    text, code = verdict(*ask(str(tmp_path / "lock.txt")))
    assert code == 2
    assert "requests is not pinned" in text
