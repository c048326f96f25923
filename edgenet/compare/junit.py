"""Findings as JUnit XML, which Jenkins, GitLab, Azure and others show: a test case a finding.

A sentence is made printable first: XML 1.0 has no control characters, not even escaped ones.
"""

from xml.etree import ElementTree as ET

from edgenet.compare import text
from edgenet.compare.nouns import CANNOT_TELL, REFUSED, Comparison
from edgenet.errors import printable


def junit(c: Comparison) -> str:
    """Return the XML: what fails is a failure, what nobody can tell is skipped, with the reason."""
    open_ = [f for f in c.findings if not f.fails and f.verdict in (CANNOT_TELL, REFUSED)]
    about = {"name": "edgenet compare", "tests": str(len(c.findings)), "failures": str(len(c.failed)), "errors": "0",
             "skipped": str(len(open_))}  # fmt: skip
    root = ET.Element("testsuites", {k: v for k, v in about.items() if k != "skipped"})
    suite = ET.SubElement(root, "testsuite", {**about, "name": _text(f"{c.new} against {c.old}"), "time": "0"})
    for f in c.findings:
        aspect = f"{f.aspect} ({f.how})" if f.aspect == "operators" else f.aspect
        names = {"classname": _text(text.name_of(f)), "name": aspect, "time": "0"}
        case = ET.SubElement(suite, "testcase", names)
        said = _text(text.sentence(f))
        if f.fails:
            ET.SubElement(case, "failure", {"message": _text(text.reason(f)), "type": f.verdict}).text = said
        elif f in open_:
            ET.SubElement(case, "skipped", {"message": _text(text.reason(f))})
        ET.SubElement(case, "system-out").text = said
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _text(said: str) -> str:
    return printable(said.replace("\n", " "))
