"""Findings as JSON, GitHub annotations, SARIF 2.1.0 and JUnit XML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from flujo import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.services.checks.validation import Report

_LEVELS = {"error": "error", "warning": "warning", "info": "note"}
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def json_data(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Return the findings of each blueprint as JSON data."""
    from flujo.services.checks.validation import as_data

    return [
        {"path": r.path, "valid": r.is_valid, "diagnostics": [as_data(found) for found in r.diagnostics]}
        for r in reports
    ]


def github(reports: Sequence[Report]) -> str:
    """Return GitHub workflow commands, which annotate the lines of a pull request."""
    return "\n".join(_annotation(found) for report in reports for found in report.diagnostics)


def sarif(reports: Sequence[Report]) -> dict[str, Any]:
    """Return a SARIF 2.1.0 log for code scanning."""
    from flujo.services.checks.validation import codes

    found = [finding for report in reports for finding in report.diagnostics]
    titles = codes()
    used = sorted({finding.code for finding in found})
    driver = {
        "name": "flujo",
        "version": __version__,
        "rules": [{"id": code, "shortDescription": {"text": titles.get(code, code)}} for code in used],
    }
    results = [_sarif_result(finding, used.index(finding.code)) for finding in found]
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}],
    }


def junit(reports: Sequence[Report]) -> str:
    """Return JUnit XML: a test case per blueprint, a failure per error."""
    suite = ET.Element("testsuite", name="flujo validate", tests=str(len(reports)))
    suite.set("failures", str(sum(not report.is_valid for report in reports)))
    for report in reports:
        case = ET.SubElement(suite, "testcase", classname="flujo.validate", name=xml_text(report.path))
        for finding in report.diagnostics:
            text = f"{finding.span}: {finding.message}" + (f"\nhint: {finding.hint}" if finding.hint else "")
            if finding.is_error:
                failure = ET.SubElement(case, "failure", type=finding.code, message=xml_text(finding.message))
                failure.text = xml_text(text)
            else:
                ET.SubElement(case, "system-out").text = xml_text(
                    f"{finding.severity}[{finding.code}] {text}"
                )
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


def _annotation(finding: Any) -> str:
    kind = {"error": "error", "warning": "warning"}.get(finding.severity, "notice")
    span = finding.span
    place = {
        "file": span.file,
        "line": span.line,
        "col": span.column,
        "endLine": span.end_line,
        "endColumn": span.end_column,
        "title": finding.code,
    }
    properties = ",".join(f"{name}={escaped(str(value), ',:')}" for name, value in place.items())
    text = f"{finding.message}\nhint: {finding.hint}" if finding.hint else finding.message
    return f"::{kind} {properties}::{escaped(text)}"


def annotation(kind: str, file: str, line: int, title: str, text: str) -> str:
    """Return a GitHub workflow command: `error`, `warning` or `notice` at a line of a file."""
    place = {"file": file, "line": str(line), "title": title}
    properties = ",".join(f"{name}={escaped(value, ',:')}" for name, value in place.items())
    return f"::{kind} {properties}::{escaped(text)}"


def escaped(text: str, also: str = "") -> str:
    """Return a text as it may stand in a workflow command of GitHub."""
    for char in f"%\r\n{also}":
        text = text.replace(char, f"%{ord(char):02X}")
    return text


def _sarif_result(finding: Any, index: int) -> dict[str, Any]:
    text = f"{finding.message}\n{finding.hint}" if finding.hint else finding.message
    result = {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [_sarif_place(finding.span)],
    }
    if finding.related:
        result["relatedLocations"] = [
            {**_sarif_place(span), "message": {"text": label}} for span, label in finding.related
        ]
    if finding.fix is not None:
        change = {"deletedRegion": _region(finding.fix.span), "insertedContent": {"text": finding.fix.text}}
        place = {"artifactLocation": _artifact(finding.fix.span.file), "replacements": [change]}
        result["fixes"] = [{"description": {"text": text}, "artifactChanges": [place]}]
    return result


def _sarif_place(span: Any) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": _artifact(span.file), "region": _region(span)}}


def _artifact(path: str) -> dict[str, str]:
    from urllib.parse import quote

    return {"uri": quote(path), "uriBaseId": "%SRCROOT%"}


def _region(span: Any) -> dict[str, int]:
    return {
        "startLine": span.line,
        "startColumn": span.column,
        "endLine": span.end_line,
        "endColumn": span.end_column,
    }


def xml_text(text: str) -> str:
    """Return `text` without the characters that XML 1.0 cannot hold."""
    return "".join(char if char in "\t\n" or char >= " " else "\N{REPLACEMENT CHARACTER}" for char in text)
