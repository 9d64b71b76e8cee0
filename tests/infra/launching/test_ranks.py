"""What is made of the lines of ranks."""

from infra.launching.ranks import redact


def test_redaction_leaves_other_text_alone() -> None:
    line = "step 1/8 loss 6.2 at http://host:5000/path and user@example.org"
    assert redact(line) == line
    assert redact("https://user:pass@host", ()) == "https://user:***@host"
    assert redact("key abcdefgh!", ("abcdefgh",)) == "key ***!"
