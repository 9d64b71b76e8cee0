import re
import xml.etree.ElementTree as ElementTree

from infra.figures import CurvePanel, Dot, DotPanel, DotRow, draw_curves, draw_dots

SERIES = ("base", "a name with <signs> & more")
PANELS = [
    DotPanel(
        "Benchmarks", "accuracy", [DotRow("arc", [Dot(0.3, 0.2, 0.4), None], 0.25), DotRow("boolq", [Dot(0.5)] * 2)]
    ),
    DotPanel("Held-out text", "bits per byte", [DotRow("all", [Dot(1.2, 1.1, 1.3), Dot(1.1, 1.0, 1.15)])]),
]


def test_figures_are_svg_and_png_and_the_same_each_time() -> None:
    found = draw_dots(PANELS, SERIES)
    assert found == draw_dots(PANELS, SERIES)
    assert found["png"].startswith(b"\x89PNG")
    root = ElementTree.fromstring(found["svg"])
    assert root.tag.endswith("svg")
    assert b"<dc:date" not in found["svg"]
    comments = re.findall(rb"<!-- (.*?) -->", found["svg"])
    assert {b"Benchmarks", b"arc", b"boolq", b"bits per byte"} <= set(comments)


def test_curves_may_be_of_any_number() -> None:
    points = [(10.0**9 * place, Dot(0.3 + place / 100, 0.3, 0.5)) for place in range(3)]
    for count in (1, 4):
        panels = [CurvePanel(f"task {number}", "acc", {0: points, 1: points[:2]}) for number in range(count)]
        found = draw_curves(panels, SERIES)
        assert found["png"].startswith(b"\x89PNG")
        assert b"<!-- 1G -->" in found["svg"]
        assert found["svg"].count(b"<!-- task ") == count


def test_an_interval_that_lies_beside_its_value_is_drawn_from_it() -> None:
    assert Dot(0.0, 0.1, 0.2).reach == (0.0, 0.2)
    assert Dot(1.0).reach == (0.0, 0.0)
