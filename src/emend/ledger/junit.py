"""What was found at a gate as JUnit XML, which every CI server shows."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from emend.ledger.release_check import Check, ReleaseCheck

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST_SHOWN = 100


def junit_xml(result: ReleaseCheck) -> str:
    """Write one test case per check; a failed one shows what was found and expected."""
    failures = sum(not check.passed for check in result.checks)
    counts = {"tests": str(len(result.checks)), "failures": str(failures), "errors": "0"}
    seconds = {"time": f"{result.built.seconds:.3f}"}
    root = ElementTree.Element("testsuites", counts | seconds)
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": _clean(result.suite)} | counts | seconds
    )
    made = result.built.build
    properties = ElementTree.SubElement(suite, "properties")
    about = {"build": made.id, "patch_hash": made.patch_hash, "method": made.method}
    for name, value in about.items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": value})
    for check in result.checks:
        _case(suite, result.suite, check)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def in_unit(value: float | None, unit: str) -> str:
    """Write a value of a check; a dash for what was not measured."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}%" if unit == "share" else f"{value:.3f}"


def _case(suite: ElementTree.Element, name: str, check: Check) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", {"classname": _clean(name), "name": check.name}
    )
    found, base = in_unit(check.found, check.unit), in_unit(check.base, check.unit)
    said = f"found {found}, expected {check.expected} (base: {base}, measured on {check.count})"
    if check.passed:
        ElementTree.SubElement(case, "system-out").text = said
        return
    failure = ElementTree.SubElement(case, "failure", {"type": "threshold", "message": said})
    lines = [said, *check.missed[:_MOST_SHOWN]]
    if len(check.missed) > _MOST_SHOWN:
        lines.append(f"... and {len(check.missed) - _MOST_SHOWN} more")
    failure.text = _clean("\n".join(lines))


def _clean(text: str) -> str:
    """Replace characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
