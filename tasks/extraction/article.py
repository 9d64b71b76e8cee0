"""Article: the text of a page without what surrounds it, at little more than the cost of resiliparse's main content.

resiliparse's main-content mode finds nearly all of a text, but lets teasers, captions and calls to subscribe pass.
Three looks at the same tree take them out:

1. *Where the paragraphs are.* As in Arc90's Readability, a paragraph gives its points to the elements above it, half at
   each level; the element with most points holds the text. Paragraphs behind that element whose own parent has few
   points, and another class, are teasers of other texts and are taken out of the tree.
2. *What each block is.* As in jusText (Pomikalek 2011), blocks are good, bad or short by their length, share of linked
   characters and last character. Short ones are kept between good ones, headings above them.
3. *Whether that went well.* A page that would lose more than half of its main content (poems, tables, lists) is left
   as it is, but for the blocks of links. Where main content is all but empty although the element with most points
   holds a text, the paragraphs of that element are the text.

The words *weight* and *wide*: lengths are in characters, where an ideograph, kana or hangul counts as three, about what
it would be in letters.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from itertools import pairwise

from pydantic import Field
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree
from resiliparse.parse.html.node import Node

from infra.settings import Settings

_TAG = re.compile(r'<([^<>"]*+(?:"[^"]*+")?)>')
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9d]")
_SENTENCE_ENDS = tuple(".!?…。！？।؟\"'”’“»)")  # noqa: RUF001 - full-width marks of Chinese and Japanese
_LEVELS = (
    1,
    1 / 2,
    1 / 6,
)  # a paragraph's points for its parent, its grandparent and the element above, as Readability
_ROOTS = (None, "body", "html", "#document")
_GOOD, _SHORT, _HEADING, _LINKS, _LOOSE = "good", "short", "heading", "links", "loose"


class ArticleSettings(Settings):
    """What passes for text in a page. Lengths are weights: an ideograph, kana or hangul counts as three characters."""

    min_paragraph: int = Field(default=25, ge=1)
    """Shorter paragraphs do not count when the element that holds the text is looked for (as in Readability)."""
    min_container_share: float = Field(default=0.3, ge=0, le=1)
    """Paragraphs behind the text stay if their parent has this share of the text's points."""
    max_link_share: float = Field(default=0.6, ge=0, le=1)
    """Blocks with a larger share of linked characters are links, not text."""
    min_text: int = Field(default=70, ge=1)
    """Paragraphs of this length are text (jusText: 70)."""
    min_sentence: int = Field(default=30, ge=1)
    """So are paragraphs of this length that end as a sentence does."""
    min_loose_text: int = Field(default=200, ge=1)
    """And, where most of a page's text stands in paragraphs, lines outside of them that are so long and end as a
    sentence does."""
    min_heading_text: int = Field(default=120, ge=1)
    """Longer headings are text: introductions set as headings."""
    max_gap: int = Field(default=8, ge=0)
    """Short blocks between two that are text are kept if these stand at most so many blocks apart."""
    max_list_gap: int = Field(default=40, ge=0)
    """The same for list items."""
    min_kept_share: float = Field(default=0.5, ge=0, le=1)
    """Pages that would keep less of their main content lose their links alone."""
    max_missed_text: int = Field(default=1000, ge=0)
    """A shorter text is replaced by the paragraphs of the element with most points if these are much longer."""
    min_found_share: float = Field(default=0.25, ge=0, le=1)
    """Much longer: the text found has less than this share of their length."""


@dataclass(slots=True)
class Block:
    """A paragraph, heading, list item, preformatted text, or line outside of these."""

    kind: str
    """p, h, li, pre or text."""
    text: str
    weight: int
    linked: int
    """Weight of the part inside links."""
    prefix: str = ""
    """Bullet or number of a list item."""

    @property
    def link_share(self) -> float:
        """Share of the weight inside links, 0 to 1."""
        return self.linked / max(1, self.weight)


def article_text(page: str, settings: ArticleSettings, alt_texts: bool = False) -> str:
    """The text of an HTML page: blocks separated by blank lines, list items and loose lines by line ends."""
    tree = HTMLTree.parse(page)
    paragraphs = remove_teasers(tree, settings)
    markup = extract_plain_text(
        tree, preserve_formatting="minimal_html", main_content=True, links=True, comments=False, alt_texts=alt_texts
    )
    kept = choose(list(blocks(markup)), settings)
    found = sum(block.weight for block in kept)
    if found < settings.max_missed_text and found < settings.min_found_share * sum(map(weight, paragraphs)):
        return "\n\n".join(paragraphs)
    return render(kept)


def weight(text: str) -> int:
    """Length in characters, where wide ones count as three."""
    return len(text) if text.isascii() else len(text) + 2 * len(_WIDE.findall(text))


def remove_teasers(tree: HTMLTree, settings: ArticleSettings) -> list[str]:
    """Take paragraphs out of the tree that stand behind the text, alone or among few, in another kind of element.

    Returns the paragraphs of the element that holds the text.
    """
    paragraphs, points = _paragraphs(tree, settings.min_paragraph)
    if not points:
        return []
    container = max(points, key=lambda node: points[node])
    enough = settings.min_container_share * points[container]
    inside = [container.contains(node) for node, _, _ in paragraphs]
    behind = paragraphs[inside.index(True) :] if True in inside else []
    teasers = [
        paragraph
        for paragraph, within in zip(behind, inside[len(paragraphs) - len(behind) :], strict=True)
        if not within and points.get(paragraph[1], 0.0) < enough and not _like(paragraph[1], container)
    ]
    lost, every = sum(length for _, _, length in teasers), sum(length for _, _, length in paragraphs)
    if every - lost >= settings.min_kept_share * every:
        for node, parent, _ in teasers:
            parent.remove_child(node)
    return [
        " ".join((node.text or "").split()) for (node, _, _), within in zip(paragraphs, inside, strict=True) if within
    ]


def _paragraphs(tree: HTMLTree, shortest: int) -> tuple[list[tuple[Node, Node, int]], dict[Node, float]]:
    """Paragraphs with their parents and weights, and the points that they give to the elements above them."""
    points: dict[Node, float] = {}
    paragraphs: list[tuple[Node, Node, int]] = []
    if tree.document is None:
        return paragraphs, points
    for node in tree.document.query_selector_all("p")[:]:  # a slice: reading the live list item by item is quadratic
        above = node.parent
        length = weight((node.text or "").strip())
        if length < shortest or above is None:
            continue
        paragraphs.append((node, above, length))
        for share in _LEVELS:
            if above is None or above.tag in _ROOTS:
                break
            points[above] = points.get(above, 0.0) + share * (1 + min(length / 100, 3))
            above = above.parent
    return paragraphs, points


def _like(parent: Node, container: Node) -> bool:
    """Whether an element or the one above it is of the text's kind: texts in several sections, quotations in them."""
    if not _class(container):
        return False
    kind, above = (container.tag, _class(container)), parent.parent
    return (parent.tag, _class(parent)) == kind or (above is not None and (above.tag, _class(above)) == kind)


def _class(node: Node) -> str:
    return getattr(node, "class_name", None) or ""


def blocks(markup: str) -> Iterator[Block]:
    """The blocks of resiliparse's minimal HTML: p, h1 to h6, ul, ol, li, pre, br, a, and bare text line by line."""
    parts = _TAG.split(markup)
    paired = _paired_links(parts)
    kind, texts, linked, inside, lists, prefix = "text", [], 0, False, [], ""

    def finish() -> Iterator[Block]:
        nonlocal linked, prefix
        text = unescape("".join(texts))
        text = _trimmed(text) if kind == "pre" else "\n".join(" ".join(line.split()) for line in text.split("\n"))
        if text and not text.isspace():
            yield Block(kind, text.strip("\n"), weight(text), linked, prefix if kind == "li" else "")
            prefix = ""
        linked = 0
        texts.clear()

    for index, part in enumerate(parts):
        if index % 2:
            if part == "br":
                texts.append("\n" if kind in ("p", "h") else "")
            elif _is_link(part):
                inside = index in paired
            else:
                yield from finish()
                if part in ("ul", "ol"):
                    lists.append(0 if part == "ol" else None)
                elif part in ("/ul", "/ol"):
                    lists = lists[:-1]
                elif part == "li":
                    prefix, lists = _next_item(lists)
                kind = _kind(part, bool(lists))
        elif kind in ("p", "h", "pre"):
            texts.append(part if kind == "pre" else part.replace("\n", " "))
            linked += weight(part.strip()) if inside else 0
        else:
            for number, line in enumerate(part.split("\n")):
                if number:
                    yield from finish()
                texts.append(line)
                linked += weight(line.strip()) if inside else 0
    yield from finish()


def _is_link(tag: str) -> bool:
    return tag in ("a", "/a") or tag.startswith("a ")


def _paired_links(parts: Sequence[str]) -> set[int]:
    """Places of the opening tags of links that lead somewhere and end; resiliparse leaves some open."""
    places = [index for index in range(1, len(parts), 2) if _is_link(parts[index])]
    idle = ("a", 'a href=""', "/a")
    return {here for here, there in pairwise(places) if parts[here] not in idle and parts[there] == "/a"}


def _kind(tag: str, in_list: bool) -> str:
    if tag.startswith("/") or tag in ("li", "ul", "ol"):
        return "li" if in_list else "text"
    return "h" if tag.startswith("h") else tag


def _next_item(lists: list[int | None]) -> tuple[str, list[int | None]]:
    """The prefix of a list's next item, and the open lists with its number counted."""
    if not lists or lists[-1] is None:
        return "- ", lists
    return f"{lists[-1] + 1}. ", [*lists[:-1], lists[-1] + 1]


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n"))


def choose(every: list[Block], settings: ArticleSettings) -> list[Block]:
    """The blocks that are text."""
    kept = [block for block, keep in zip(every, _verdicts(every, settings), strict=True) if keep]
    enough = settings.min_kept_share * sum(block.weight for block in every)
    if kept and sum(block.weight for block in kept) >= enough:
        return kept
    return [block for block in every if block.link_share <= settings.max_link_share] or every


def _verdicts(every: Sequence[Block], settings: ArticleSettings) -> list[bool]:
    in_paragraphs = sum(block.weight for block in every if block.kind in ("p", "pre"))
    outside = sum(block.weight for block in every if block.kind in ("text", "li"))
    labels = [_label(block, in_paragraphs > outside, settings) for block in every]
    if _GOOD not in labels:
        return [False] * len(every)
    first = labels.index(_GOOD)
    last = len(labels) - 1 - labels[::-1].index(_GOOD)
    before = _neighbours(labels)
    after = [len(labels) - 1 - place for place in _neighbours(labels[::-1])[::-1]]
    leads = _headings_of_text(labels)
    verdicts = []
    for place, (block, label) in enumerate(zip(every, labels, strict=True)):
        if label == _SHORT and first < place < last:
            gap = settings.max_list_gap if block.kind == "li" else settings.max_gap
            there = labels[before[place]] == labels[after[place]] == _GOOD
            verdicts.append(there and after[place] - before[place] <= gap)
        else:
            verdicts.append(label == _GOOD or (label == _HEADING and place > first and leads[place]))
    return verdicts


def _label(block: Block, in_paragraphs: bool, settings: ArticleSettings) -> str:
    if block.kind == "pre":
        return _GOOD
    if block.kind == "h":
        text = block.weight >= settings.min_heading_text and block.link_share < settings.max_link_share
        return _GOOD if text else _HEADING
    if block.link_share > settings.max_link_share:
        return _LINKS
    sentence = block.text.endswith(_SENTENCE_ENDS)
    if block.kind == "p" or not in_paragraphs:
        good = block.weight >= settings.min_text or (sentence and block.weight >= settings.min_sentence)
        return _GOOD if good else _SHORT
    if sentence and block.weight >= settings.min_loose_text:
        return _GOOD
    return _LOOSE if block.kind == "text" else _SHORT


def _neighbours(labels: Sequence[str]) -> list[int]:
    """For each block the place of the last one before it that is text or links, else its own."""
    places, latest = [], None
    for place, label in enumerate(labels):
        places.append(place if latest is None else latest)
        if label in (_GOOD, _LINKS):
            latest = place
    return places


def _headings_of_text(labels: Sequence[str]) -> list[bool]:
    """For each block whether text follows it before any block of links."""
    leads, text = [False] * len(labels), False
    for place in range(len(labels) - 1, -1, -1):
        leads[place] = text
        if labels[place] in (_GOOD, _LINKS):
            text = labels[place] == _GOOD
    return leads


def render(kept: Sequence[Block]) -> str:
    """Blocks as plain text: list items and loose lines follow each other, other blocks stand apart by a blank line."""
    out: list[str] = []
    previous = ""
    for block in kept:
        if out:
            out.append("\n" if block.kind == previous and block.kind in ("li", "text") else "\n\n")
        out.append(block.prefix + block.text)
        previous = block.kind
    return "".join(out)
