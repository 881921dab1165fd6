"""Elements of a page that is one file: no scripts, no links outside, light and dark, printable."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

STYLE = """
:root { color-scheme: light dark; --ink: #1c1d1f; --soft: #5d6166; --line: #dddfe2;
  --paper: #fff; --tint: #f5f6f7; --warn: #b35900; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e9ea; --soft: #a0a4a9; --line: #383b3f;
  --paper: #17181a; --tint: #202225; --warn: #e69f00; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui,
  -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 1040px; margin: 0 auto; padding: 48px 24px 72px; }
h1 { font-size: 26px; font-weight: 620; letter-spacing: -.01em; line-height: 1.25;
  margin: 0 0 6px; }
h2 { font-size: 18px; font-weight: 620; margin: 52px 0 6px; }
h3 { font-size: 15px; font-weight: 620; margin: 28px 0 8px; }
p { margin: 0 0 12px; max-width: 46em; }
ul { margin: 0 0 12px; padding-left: 1.2em; max-width: 50em; } li { margin: 5px 0; }
.ci strong { color: var(--ink); font-weight: 560; }
.lead, .note, figcaption, caption { color: var(--soft); }
.note { font-size: 13.5px; }
.scroll { overflow-x: auto; margin: 14px 0 8px; }
table { border-collapse: collapse; width: 100%; }
caption { caption-side: bottom; text-align: left; font-size: 13.5px; padding-top: 8px; }
th, td { text-align: left; padding: 7px 18px 7px 0; border-bottom: 1px solid var(--line);
  vertical-align: baseline; }
th { font-weight: 560; font-size: 13px; color: var(--soft); white-space: nowrap; }
tbody th { color: var(--ink); font-size: inherit; }
.num { text-align: right; white-space: nowrap; }
td:last-child, th:last-child { padding-right: 0; }
.ci { color: var(--soft); font-size: 12.5px; display: block; line-height: 1.3; }
.big td.num { font-size: 17px; }
.small { font-size: 13px; white-space: nowrap; } .small th { font-size: 12px; }
.small th, .small td { padding: 5px 14px 5px 0; }
figure { margin: 14px 0 22px; }
figure svg, figure img { display: block; max-width: 100%; height: auto; }
figcaption { font-size: 13.5px; margin-top: 6px; max-width: 60em; }
.row { display: grid; gap: 10px;
  grid-template-columns: repeat(auto-fit, minmax(var(--least, 220px), 1fr)); }
.row figure { margin: 0; }
.row img { width: 100%; border-radius: 3px; background: #000; }
.example { margin: 18px 0 30px; break-inside: avoid; }
.example > p { margin-bottom: 8px; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin: 0 5px 0 14px;
  vertical-align: -1px; }
.key:first-child { margin-left: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 22px; font-size: 13.5px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.warn { border-left: 3px solid var(--warn); padding: 2px 0 2px 14px; margin: 16px 0; }
@media (max-width: 700px) { main { padding: 28px 16px 48px; } figure { overflow-x: auto; }
  figure svg { max-width: none; width: 680px; } }
@media print { main { max-width: none; padding: 0; } body { font-size: 11px; }
  h2 { margin-top: 28px; } }
"""


def escape(text: object) -> str:
    """Text that a browser shows as it is."""
    return html.escape(str(text), quote=True)


def page(title: str, lead: str, *content: str) -> str:
    """A whole document.

    Args:
        title: Heading and window title, plain text.
        lead: What it is about in a sentence, plain text.
        *content: Elements made by the other functions.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        + "\n".join(part for part in content if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, *content: str) -> str:
    """A part of the page under a heading; nothing at all when it has no content."""
    body = "\n".join(part for part in content if part)
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}\n</section>" if body else ""


def subsection(heading: str, *content: str) -> str:
    """A smaller part, inside a section."""
    body = "\n".join(part for part in content if part)
    return f"<h3>{escape(heading)}</h3>\n{body}" if body else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text; ``kind`` is ``note``, ``warn`` or nothing."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    text: Sequence[int] = (0,),
    large: bool = False,
    small: bool = False,
) -> str:
    """A table with its numbers set to the right.

    Args:
        header: Column names, plain text.
        rows: Cells; plain text, or HTML made by `number`.
        caption: Below the table, plain text.
        text: Which columns are text; the first names the row.
        large: Set the numbers larger.
        small: Set everything smaller, for tables with many columns.
    """

    def cell(tag: str, content: str, column: int, attributes: str = "") -> str:
        kind = "" if column in text else ' class="num"'
        shown = content if isinstance(content, Markup) else escape(content)
        return f"<{tag}{kind}{attributes}>{shown}</{tag}>"

    head = "".join(cell("th", name, i, ' scope="col"') for i, name in enumerate(header))
    body = "\n".join(
        "<tr>"
        + "".join(
            cell("th", content, i, ' scope="row"') if i == 0 else cell("td", content, i)
            for i, content in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    below = f"<caption>{escape(caption)}</caption>" if caption else ""
    kind = ' class="big"' if large else ' class="small"' if small else ""
    return (
        f'<div class="scroll"><table{kind}>{below}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


class Markup(str):
    """Text that is HTML already."""


def number(value: str, interval: str = "", *, strong: bool = False) -> Markup:
    """A number with its interval in small print below, set off where it is ``strong``."""
    told = f"<strong>{escape(interval)}</strong>" if strong else escape(interval)
    below = f'<span class="ci">{told}</span>' if interval else ""
    return Markup(f"{escape(value)}{below}")


def bullets(lines: Sequence[str]) -> str:
    """A list of sentences, plain text."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def picture(data: bytes, alt: str, caption: str = "") -> str:
    """A PNG or JPEG inside the page.

    Args:
        data: The file's bytes.
        alt: What it shows, for those who do not see it.
        caption: Below it, plain text.
    """
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{source}" alt="{escape(alt)}">{below}</figure>'


def vector(svg: str, alt: str, caption: str = "") -> str:
    """An SVG drawing inside the page; it takes on the colours of the text around it."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    drawing = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    return f"<figure>{drawing}{below}</figure>"


def row(*figures: str) -> str:
    """Pictures side by side where there is room, more than four of them smaller."""
    style = f' style="--least: {max(140, 1000 // len(figures) - 12)}px"' if len(figures) > 4 else ""
    return f'<div class="row"{style}>{"".join(figures)}</div>'


def legend(*entries: tuple[str, str]) -> str:
    """Coloured squares with their meaning: ``(css colour, text)``."""
    keys = "".join(
        f'<span class="key" style="background:{escape(colour)}"></span>{escape(text)}'
        for colour, text in entries
    )
    return f'<p class="note">{keys}</p>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of terms and what they are."""
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs)
    return f"<dl>{items}</dl>"
