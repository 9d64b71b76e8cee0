from infra.tables_page import PageTable, as_html, as_markdown, as_text

TABLES = [
    PageTable("Runs", "", ("run", "step"), [("base", "100"), ("a|<b>\x1b[2J", "2,000")]),
    PageTable("Benchmarks", "Main metric.", ("task", "score"), [("arc", "0.3 [0.2, 0.4]")]),
]


def test_text_has_columns_of_one_width() -> None:
    lines = as_text(TABLES).splitlines()
    assert lines[:3] == ["Runs", "run        step", "base       100"]
    assert lines[4:] == ["", "Benchmarks", "Main metric.", "task  score", "arc   0.3 [0.2, 0.4]"]
    assert "\x1b" not in lines[3]


def test_markdown_keeps_cells_apart() -> None:
    page = as_markdown(TABLES)
    assert "## Runs\n\n| run | step |\n| --- | --- |\n| base | 100 |\n| a\\|<b>" in page
    assert "## Benchmarks\n\nMain metric.\n\n| task | score |" in page


def test_the_page_escapes_text_and_holds_the_figures() -> None:
    svg = b'<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg xmlns="http://www.w3.org/2000/svg"><g/></svg>'
    page = as_html("a & b", ["A <note>."], TABLES, [svg])
    assert "<title>a &amp; b</title>" in page
    assert "<p>A &lt;note&gt;.</p>" in page
    assert "a|&lt;b&gt;" in page
    assert "\x1b" not in page
    assert page.count("<svg xmlns") == 1
    assert "<!DOCTYPE svg>" not in page
    assert "<script" not in page
