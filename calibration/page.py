"""The parts of a page that needs nothing but itself: no script, nothing from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
:root{--page:#fbfbf9;--ink:#171716;--soft:#55544f;--grid:#e4e3de;--axis:#bdbcb5;--quiet:#8d8c85;
--first:#2468c2;--second:#c2541d;--card:#ffffff;--warn:#8a5a00}
@media (prefers-color-scheme:dark){:root{--page:#161615;--ink:#f3f2ee;--soft:#b9b8b0;--grid:#2e2e2b;
--axis:#55544f;--quiet:#85847d;--first:#5b9bec;--second:#ec8a52;--card:#1e1e1c;--warn:#e3b04b}}
:root{color-scheme:light dark}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1020px;margin:0 auto;padding:24px 20px 60px}
h1{font-size:26px;margin:8px 0}h2{font-size:19px;margin:40px 0 4px}
p{max-width:72ch;margin:6px 0 12px;color:var(--soft)}
code{font:13px ui-monospace,monospace;color:var(--ink);overflow-wrap:anywhere}
.figures{display:flex;flex-wrap:wrap;gap:16px}
figure{margin:0;padding:14px;background:var(--card);border:1px solid var(--grid);border-radius:8px;
box-sizing:border-box;max-width:100%}
.figures figure{flex:0 1 340px}
figure.wide{margin:12px 0;width:fit-content}
h3{font-size:15px;font-weight:600;margin:0 0 8px}
figcaption{font-size:13px;color:var(--soft);margin-top:6px}
svg{display:block;max-width:100%;height:auto;overflow:visible}
svg text{fill:var(--soft);font:12px system-ui,sans-serif}
svg .label,svg .figure{fill:var(--ink)}
svg .figure{font-variant-numeric:tabular-nums}
.grid{stroke:var(--grid)}.axis{stroke:var(--axis)}
.ideal{stroke:var(--quiet);stroke-dasharray:4 4}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.span{stroke-width:2}
.mark{stroke:var(--ink);stroke-width:2}
circle{stroke:var(--card);stroke-width:1.5}
svg .before,svg .other,svg .quality{--hue:var(--quiet)}
svg .after,svg .calibrate,svg .weight{--hue:var(--first)}
svg .test{--hue:var(--second)}
.line,.span{stroke:var(--hue)}circle,.bar{fill:var(--hue)}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;margin:8px 0 12px;font-size:14px;color:var(--soft)}
.legend span{display:inline-flex;align-items:center;gap:7px}
.wide-table{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:5px 14px 5px 0;text-align:left;border-bottom:1px solid var(--grid);white-space:nowrap}
th{font-weight:600;color:var(--soft)}
.missing{color:var(--warn);border-left:3px solid var(--warn);padding-left:12px}
summary{cursor:pointer;color:var(--soft);margin:12px 0 4px}
"""


def page(title: str, lead: str, sections: Sequence[str]) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>{lead}\n" + "\n".join(sections) + "\n</main></body></html>\n"
    )


def section(title: str, lead: str, body: str) -> str:
    """One heading with what it is about."""
    told = f"<p>{escape(lead)}</p>" if lead else ""
    return f"<section><h2>{escape(title)}</h2>{told}{body}</section>"


def missing(text: str) -> str:
    """What stands where there is nothing to show."""
    return f'<p class="missing">{escape(text)}</p>'


def figure(title: str, picture: str, told: str = "", *, wide: bool = False) -> str:
    """A plot with its title and what it says."""
    caption = f"<figcaption>{escape(told)}</figcaption>" if told else ""
    look = ' class="wide"' if wide else ""
    return f"<figure{look}><h3>{escape(title)}</h3>{picture}{caption}</figure>"


def legend(names: Mapping[str, str], ideal: str = "") -> str:
    """Which line is what."""

    def entry(drawn: str, text: str) -> str:
        return f'<span><svg width="22" height="10" aria-hidden="true">{drawn}</svg>{escape(text)}</span>'

    line = 'x1="0" y1="5" x2="22" y2="5"'
    parts = [
        entry(f'<line class="span {look}" {line}/><circle class="{look}" cx="11" cy="5" r="4"/>', text)
        for look, text in names.items()
    ]
    if ideal:
        parts.append(entry(f'<line class="ideal" {line}/>', ideal))
    return f'<div class="legend">{"".join(parts)}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Figures for whoever wants them exactly."""
    first = "".join(f"<th>{escape(head)}</th>" for head in heads)
    rest = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="wide-table"><table><thead><tr>{first}</tr></thead><tbody>{rest}</tbody></table></div>'
    )


def details(title: str, body: str) -> str:
    """Something that is folded away."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"
