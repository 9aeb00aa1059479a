"""A page of headings, texts, tables, pictures and examples, written as Markdown and as one HTML file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STYLE: Final = """\
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c1c1c; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .6rem; }
table { border-collapse: collapse; margin: .8rem 0; display: block; overflow-x: auto; }
th, td { border: 1px solid #d6d6d6; padding: .25rem .6rem; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th { background: #f3f3f3; }
figure { margin: 1rem 0; } figure img { max-width: 100%; } figcaption { color: #555; font-size: .9rem; }
mark { background: #fdeaa8; } .wrong { background: #f9d0cc; } .right { background: #cfeccd; }
"""


@dataclass(frozen=True)
class Heading:
    """``level`` 1 to 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells of plain text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A plot as PNG; ``name`` is that of its file beside the Markdown."""

    name: str
    png: bytes
    caption: str


@dataclass(frozen=True)
class Span:
    """``text[start:end]`` is shown in a colour: ``right``, ``wrong`` or ``mark``."""

    start: int
    end: int
    kind: str = "mark"


@dataclass(frozen=True)
class Example:
    """One clip: who says what, the texts with coloured spans."""

    title: str
    lines: Sequence[tuple[str, str, Sequence[Span]]]


Block = Heading | Paragraph | Bullets | Table | Picture | Example


def write(folder: Path, blocks: Sequence[Block], name: str = "report") -> tuple[Path, Path]:
    """``report.html``, which needs no other file, and ``report.md`` with its plots in ``plots/``; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [block for block in blocks if isinstance(block, Picture)]
    if pictures:
        (folder / "plots").mkdir(exist_ok=True)
    for picture in pictures:
        (folder / "plots" / f"{picture.name}.png").write_bytes(picture.png)
    page, text = folder / f"{name}.html", folder / f"{name}.md"
    page.write_text(to_html(blocks), encoding="utf-8")
    text.write_text(to_markdown(blocks), encoding="utf-8")
    return page, text


def to_markdown(blocks: Sequence[Block]) -> str:
    """The page in Markdown; pictures are links into ``plots/``."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """The page in HTML, pictures included."""
    title = next((html.escape(b.text) for b in blocks if isinstance(b, Heading)), "Report")
    body = "\n".join(_html(block) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>\n<style>\n{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Bullets):
        return "\n".join(f"* {item}" for item in block.items)
    if isinstance(block, Picture):
        return f"![{block.caption}](plots/{block.name}.png)\n\n*{block.caption}*"
    if isinstance(block, Table):
        return "\n".join(_row(cells) for cells in (block.head, ["---"] * len(block.head), *block.rows))
    rows = [(who, _bold(text, spans)) for who, text, spans in block.lines]
    return "\n".join([f"### {block.title}", "", *(_row(cells) for cells in (("", ""), ("---", "---"), *rows))])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _bold(text: str, spans: Sequence[Span]) -> str:
    """Right phrases bold, wrong ones struck out."""
    marks = {"right": "**", "wrong": "~~", "mark": "*"}
    return "".join(f"{marks[kind]}{part}{marks[kind]}" if kind else part for part, kind in _parts(text, spans))


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Bullets):
        return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Picture):
        data = base64.b64encode(block.png).decode()
        caption = html.escape(block.caption)
        return f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    if isinstance(block, Table):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.head)
        rows = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>\n" for row in block.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>"
    rows = "".join(
        f"<tr><td>{html.escape(who)}</td><td>{_marked(text, spans)}</td></tr>\n" for who, text, spans in block.lines
    )
    return f"<h3>{html.escape(block.title)}</h3>\n<table><tbody>\n{rows}</tbody></table>"


def _cell(text: str) -> str:
    number = text.lstrip("+-±−").replace(".", "", 1).replace(" ", "").isdigit()
    return f'<td class="number">{html.escape(text)}</td>' if number else f"<td>{html.escape(text)}</td>"


def _marked(text: str, spans: Sequence[Span]) -> str:
    return "".join(
        f'<span class="{kind}">{html.escape(part)}</span>'
        if kind in ("right", "wrong")
        else f"<mark>{html.escape(part)}</mark>"
        if kind
        else html.escape(part)
        for part, kind in _parts(text, spans)
    )


def _parts(text: str, spans: Sequence[Span]) -> list[tuple[str, str]]:
    """The text cut at its spans, in order, each with its kind or none; of overlapping spans the first counts."""
    parts, place = [], 0
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if span.start < place or span.end <= span.start:
            continue
        parts += [(text[place : span.start], ""), (text[span.start : span.end], span.kind)]
        place = span.end
    return [(part, kind) for part, kind in [*parts, (text[place:], "")] if part]
