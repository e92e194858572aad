"""Read a page as a browser's parser sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

NOTHING = "\N{EN DASH}"
VOID = {"meta", "link", "img", "br"}


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    parents: list[str]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """Collects elements with their text."""

    found: list[Element] = field(default_factory=list)

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found, self.open = [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), [parent.name for parent in self.open])
        self.found.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(Element(tag, dict(attrs), [parent.name for parent in self.open]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a start"
        last = self.open.pop()
        assert last.name == tag, f"<{last.name}> is closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def of(self, name: str) -> list[Element]:
        return [element for element in self.found if element.name == name]


def resolve(content: Any, at: str) -> Any:
    """Return what stands at a JSON pointer."""
    for part in at.removeprefix("/").split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        content = content[int(key)] if isinstance(content, list) else content[key]
    return content


def shows(text: str, value: float | None) -> bool:
    """Tell whether a text is a number as written, to the places that it is written with."""
    if value is None:
        return text == NOTHING
    places = len(text.partition(".")[2])
    return abs(float(text) - value) <= 0.5 * 10**-places + 1e-9
