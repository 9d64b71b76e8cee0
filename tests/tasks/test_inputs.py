"""Files of users: what their digests depend on."""

from pathlib import Path

import pytest

from infra.errors import BadInput
from tasks.inputs import UserFile, content_digest, pinned


def test_a_folder_is_known_by_names_and_contents_of_its_files(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for name in ("b/list.txt", "a.txt"):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    digest = content_digest(tmp_path / "one")
    assert digest == content_digest(tmp_path / "two") != content_digest(tmp_path / "one/b")
    (tmp_path / "two/a.txt").rename(tmp_path / "two/c.txt")
    assert content_digest(tmp_path / "two") != digest


def test_the_digest_is_filled_in_and_checked_and_the_path_does_not_matter(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"words")
    one = pinned(UserFile(path=str(tmp_path / "one")))
    assert one.identity() == pinned(UserFile(path=str(tmp_path / "two"))).identity() == {"sha256": one.sha256}
    assert pinned(one) == one
    (tmp_path / "one").write_bytes(b"other words")
    with pytest.raises(BadInput, match="sha256"):
        pinned(one)
    with pytest.raises(BadInput, match="must be there"):
        pinned(UserFile(path=str(tmp_path / "absent")))
