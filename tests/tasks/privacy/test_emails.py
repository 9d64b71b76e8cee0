"""E-mail addresses, plain, encoded and spelt out; what has an @ and is none stays."""

import pytest

from tasks.privacy.emails import find_emails

FOUND = [
    ("Write to jane.doe+news@mail.example.co.uk.", ["jane.doe+news@mail.example.co.uk"]),
    ("?to=jane%40example.com&x", ["jane%40example.com"]),
    ("(jörg@bücher.example, j_d@e-x.org)", ["jörg@bücher.example", "j_d@e-x.org"]),
    ("o'Brien@acme.com and 'info@acme.com'", ["o'Brien@acme.com", "info@acme.com"]),
    ("jane@пример.рф user@xn--e1afmkfd.xn--p1ai", ["jane@пример.рф", "user@xn--e1afmkfd.xn--p1ai"]),
    ("john@gmail.com.Please write", ["john@gmail.com"]),
    ("anna@gmail.\u0441om", ["anna@gmail.\u0441om"]),
    ("jane [at] acme [dot] org, jane(at)acme.org", ["jane [at] acme [dot] org", "jane(at)acme.org"]),
    ("jane at gmail dot com; j.doe at acme dot org", ["jane at gmail dot com", "j.doe at acme dot org"]),
    ("Guido <guido at python.org>", ["guido at python.org"]),
    ("From: guido at python.org (Guido)", ["guido at python.org"]),
    ("mailto:a@b.org,c@d.org", ["a@b.org", "c@d.org"]),
]
LEFT = [
    "x@y, @handle, me@localhost, a@b.c, foo @ bar.com",
    "icon@2x.png lodash@4.17.21 @media print",
    "git@github.com:a/b.git ssh://git@github.com/a ftp://me@host.com/x",
    "look at nasa.gov or look at nasa dot gov",
    "We met at noon. At last.",
    "a@b@c, @@.com, .@x.com",
]


def finds(text: str) -> list[str]:
    return [text[slice(*span)] for span in find_emails(text)]


@pytest.mark.parametrize(("text", "found"), FOUND)
def test_what_is_one_is_found(text: str, found: list[str]) -> None:
    assert finds(text) == found


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert finds(text) == []
