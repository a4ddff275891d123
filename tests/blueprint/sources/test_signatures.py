"""Signatures are read from the text of a module; nothing is imported."""

from flujo.blueprint.sources.signatures import Signature, read_module
from flujo.blueprint.sources.source_files import PinnedSource


def test_a_signature_is_read_from_the_text_of_the_module() -> None:
    source = PinnedSource(
        {
            "skills/crm.py": b"import os\nX: int = 1\n\n"
            b"def f(a, /, b, c=1, *, d, e=2): ...\ndef g(**more): ...\n@os.f\ndef h(a): ...\n",
            "pkg/__init__.py": b"from x import *\n",
            "broken.py": b"def (",
            "may.py": b"'Words.'\nx = y = 1\nif x:\n    def f(): ...\nclass C: ...\n",
        }
    )
    module = read_module("skills.crm", source)
    assert module is not None
    assert module.path == "skills/crm.py"
    assert module.complete
    assert module.names["f"] == Signature(("b", "c", "d", "e"), ("a", "b", "d"), False)
    assert module.names["g"] == Signature((), (), True)
    assert module.names["h"] is None
    assert set(module.names) == {"f", "g", "h", "os", "X"}
    package = read_module("pkg", source)
    assert package is not None
    assert not package.complete
    may = read_module("may", source)
    assert may is not None
    assert (set(may.names), may.complete) == ({"x", "y", "C"}, False)
    assert read_module("broken", source) is None
    assert read_module("json", source) is None
