"""Writes plain data as YAML that readers of YAML 1.1 and 1.2 read as the same data."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.emitter import Emitter
from ruamel.yaml.representer import SafeRepresenter

from flujo.blueprint.reading.scalars import is_text

if TYPE_CHECKING:
    from ruamel.yaml.nodes import ScalarNode

_WIDTH = 100
_STRING = "tag:yaml.org,2002:str"
_FLOAT = "tag:yaml.org,2002:float"
# YAML 1.1 resolves these too: booleans, the default key of a mapping, and a merge.
_RESOLVED_BY_YAML_1_1 = frozenset({"y", "Y", "n", "N", "=", "<<"})


def to_yaml(data: Any) -> str:
    """Return JSON data as a YAML document in block style, with its keys in the given order."""
    writer = YAML(typ="safe", pure=True)
    writer.Representer = _Representer
    writer.Emitter = _Emitter
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # the class says None alone
    writer.width = _WIDTH
    stream = StringIO()
    writer.dump(data, stream)
    return stream.getvalue()


class _Representer(SafeRepresenter):
    """Quotes every text that a YAML parser could read as another value or change."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # ruamel calls it by this name
        """Write a repeated value in full: blueprints have no anchors."""
        return True

    def represent_str(self, data: str) -> ScalarNode:
        """Choose the style of a text: block, plain, or one of the quoted styles."""
        return self.represent_scalar(_STRING, data, style=_style(data))

    def represent_float(self, data: float) -> ScalarNode:
        """Write a decimal point, without which YAML 1.1 reads `1e+22` as a text."""
        text = repr(data)
        return self.represent_scalar(_FLOAT, text if "." in text else text.replace("e", ".0e"))


class _Emitter(Emitter):
    """Escapes non-ASCII characters in double-quoted texts, the style of texts with control characters."""

    def write_double_quoted(self, text: str, split: bool = True) -> None:
        """Write a text; ruamel would not escape control characters such as U+202A."""
        self.allow_unicode = False
        super().write_double_quoted(text, split)
        self.allow_unicode = True


def _style(text: str) -> str | None:
    """Return the style of a text; None lets the emitter choose plain or quoted."""
    if any(not char.isprintable() for char in text.replace("\n", "")):
        return '"'  # the only style with escapes; ruamel writes U+0085 as a space in the others
    if "\n" in text:
        return "|" if _keeps_its_lines(text) else '"'
    return None if is_text(text) and text not in _RESOLVED_BY_YAML_1_1 else "'"


def _keeps_its_lines(text: str) -> bool:
    """Whether a block represents a text exactly: no space or empty line at either end."""
    lines = text.removesuffix("\n").split("\n")
    return not text.startswith(" ") and all(line and line == line.rstrip() for line in (lines[0], lines[-1]))


_Representer.add_representer(str, _Representer.represent_str)
_Representer.add_representer(float, _Representer.represent_float)
