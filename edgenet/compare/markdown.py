"""Findings as Markdown, for a pull request and for the summary of a step.

Names come from files that anybody may have made. Every character that Markdown or HTML could take for markup is
written as an entity, and what was quoted stands in <code>, where no @name calls anybody.
"""

from edgenet.compare import text
from edgenet.compare.nouns import OPERATORS, Comparison
from edgenet.errors import printable

_MARKUP = frozenset("&<>\"'`*_[]{}()#+!|\\~@$:/")


def markdown(c: Comparison) -> str:
    """Return a heading, the table, the reasons and the warnings."""
    lines = [f"### edgenet compare: {'worse' if c.failed else 'passed'}", "", code(text.headline(c)), ""]
    shown = [f for f in c.findings if f.aspect != OPERATORS]
    if shown:
        lines += [f"| {' | '.join(text.TITLES)} |", "|---|---" + "|---:" * 5 + "|---|"]
        for f in shown:
            name, *cells, answer = text.row(f)
            lines.append(f"| {code(name)} | {' | '.join(map(plain, cells))} | {'**' if f.fails else ''}"
                         f"{answer}{'**' if f.fails else ''} |")  # fmt: skip
        lines.append("")
    for title, said in (("Fails", [text.reason(f) for f in c.failed]), ("To know", text.warnings(c))):
        if said:
            lines += [f"**{title}**", "", *(f"- {code(s)}" for s in said), ""]
    return "\n".join(lines)


def code(said: str) -> str:
    """Return a text as code in Markdown, whatever it holds."""
    return f"<code>{plain(said)}</code>"


def plain(said: str) -> str:
    """Return a text as one line of Markdown, with entities for the characters that could be markup."""
    said = printable(said.replace("\n", " "))
    return "".join(f"&#{ord(c)};" if c in _MARKUP else c for c in said)
