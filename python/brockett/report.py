"""A self-contained HTML page: text, tables and inline pictures, no script and nothing fetched.

The page follows the reader's light or dark setting and the width of the window, and prints. Everything given as text is
escaped; what is given as markup (pictures of `brockett._panels`, paragraphs with tags) is named ``html``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path

from brockett._files import atomic_write


def style() -> str:
    """Return the style sheet that is written into every page."""
    return (files("brockett") / "data" / "page.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Panel:
    """One picture: heading, the markup of the picture, and a caption that says how to read it."""

    heading: str
    picture_html: str
    caption: str = ""

    def html(self) -> str:
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        return f"<figure><h4>{escape(self.heading)}</h4>{self.picture_html}{caption}</figure>"


@dataclass
class Page:
    """A page under construction: call the methods in reading order, then `write`.

    Parameters
    ----------
    title : str
    lead : str
        The sentence below the title.
    """

    title: str
    lead: str
    _parts: list[str] = field(default_factory=list)
    _sections: list[tuple[str, str]] = field(default_factory=list)

    def section(self, heading: str) -> None:
        """Start a section that the list of contents links to."""
        anchor = f"s{len(self._sections) + 1}"
        self._sections.append((anchor, heading))
        self._parts.append(f'<h2 id="{anchor}">{escape(heading)}</h2>')

    def subsection(self, heading: str) -> None:
        self._parts.append(f"<h3>{escape(heading)}</h3>")

    def text(self, html: str, note: bool = False) -> None:
        """Add one paragraph of markup; ``note`` sets it off from the others."""
        self._parts.append(f"<p{' class=note' if note else ''}>{html}</p>")

    def bullets(self, items_html: Sequence[str]) -> None:
        self._parts.append("<ul>" + "".join(f"<li>{item}</li>" for item in items_html) + "</ul>")

    def definitions(self, items: Sequence[tuple[str, str]]) -> None:
        self._parts.append("<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{v}</dd>" for k, v in items) + "</dl>")

    def table(
        self, columns: Sequence[str], groups: Sequence[tuple[str, Sequence[Sequence[str]]]], n_text: int = 1
    ) -> None:
        """Add a table whose rows come in named groups; the first ``n_text`` columns are set to the left."""
        head = "".join(
            f'<th scope="col"{" class=t" if i < n_text else ""}>{escape(c)}</th>' for i, c in enumerate(columns)
        )
        rows = []
        for name, members in groups:
            if name:
                rows.append(f'<tr class="group"><td colspan="{len(columns)}">{escape(name)}</td></tr>')
            for cells in members:
                rows.append(
                    "<tr>"
                    + "".join(f"<td{' class=t' if i < n_text else ''}>{escape(c)}</td>" for i, c in enumerate(cells))
                    + "</tr>"
                )
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        )

    def panels(self, panels: Sequence[Panel]) -> None:
        """Add pictures, as many side by side as fit."""
        self._parts.append('<div class="panels">' + "".join(p.html() for p in panels) + "</div>")

    def html(self, footer: str) -> str:
        """Return the whole document."""
        contents = "".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading in self._sections)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            # An empty icon, or the browser asks the server for one.
            f'<link rel="icon" href="data:,"><title>{escape(self.title)}</title><style>{style()}</style></head><body>'
            f'<header><h1>{escape(self.title)}</h1><p class="lead">{escape(self.lead)}</p>'
            f"<nav>{contents}</nav></header>"
            f"<main>{''.join(self._parts)}</main><footer>{escape(footer)}</footer></body></html>\n"
        )

    def write(self, path: str | os.PathLike[str], footer: str) -> Path:
        """Write the page; the file appears complete or not at all.

        Raises
        ------
        OSError
            If the folder is missing or not writable. A page that was there before is then untouched.
        """
        target = Path(path)
        data = self.html(footer).encode("utf-8")
        with atomic_write(target) as file:
            file.write(data)
        return target
