"""The numbered cases of bytes, YAML and JSON Schema (A, B, G)."""

from __future__ import annotations

from bad.corpus import GOOD, HEAD, STEPS
from bad.listing import entry, found, known, warned

BYTES = [
    found(1, "empty", known("empty"), "FLJ101", 1, 1, "empty", "flujo init"),
    found(2, "only-comments", known("only-comments"), "FLJ101", 1, 1, "empty"),
    found(3, "nul-byte", known("nul-byte"), "FLJ102", 6, 15, "NUL"),
    found(4, "latin1", known("latin-1"), "FLJ102", 3, 17, "0xE9", "UTF-8"),
    found(5, "utf16", known("utf-16"), "FLJ102", 1, 1, "UTF-16"),
    found(6, "lone-surrogate-escape", known("half-a-surrogate-pair"), "FLJ102", 6, 17, "surrogate"),
    found(
        7,
        "bidi-override-in-name",
        entry(HEAD.replace("x", '"a\u202eb"', 1) + STEPS),
        "FLJ103",
        2,
        9,
        "U+202E",
    ),
    found(8, "control-chars", known("control-character"), "FLJ102", 6, 15, "U+0007"),
    found(9, "too-big-257k", known("too-many-bytes"), "FLJ220", 1, 1, "256 KiB"),
    found(10, "binary-png", known("a-picture"), "FLJ102", 1, 1, "UTF-8"),
    found(
        11,
        "cr-only-newlines-and-a-mistake",
        entry((GOOD + "descripton: x\n").replace("\n", "\r")),
        "FLJ120",
        6,
        1,
        "did you mean `description`?",
    ),
    found(12, "homoglyph-step-id", known("a-cyrillic-letter"), "FLJ124", 3, 16, "U+0430", "ASCII"),
]
STRUCTURE = [
    found(13, "deep-100k-brackets", known("100,000-open-brackets"), "FLJ106", 1, 33, "32 levels"),
    found(14, "deep-block-500", entry("".join("  " * depth + "a:\n" for depth in range(500))), "FLJ106", 33, 65, "32 levels"),
    found(15, "billion-laughs", known("a-billion-laughs"), "FLJ108", 1, 5, "anchor"),
    found(16, "recursive-anchor", known("an-anchor-around-itself"), "FLJ108", 1, 4, "anchor"),
    found(17, "merge-key", known("a-merge-key"), "FLJ108", 7, 3, "<<"),
    found(18, "quadratic-merge", entry("base: &b {" + ", ".join(f"k{i}: {i}" for i in range(2_000)) + "}\n" + "".join(f"m{i}: {{<<: *b}}\n" for i in range(300))), "FLJ108", 1, 7, "anchor"),
    found(19, "python-tag-scalar", known("a-tag-on-a-python-name"), "FLJ109", 6, 14, "!!python/name"),
    found(20, "python-tag-sequence", known("a-tag-on-a-python-call"), "FLJ109", 6, 14, "os.system"),
    found(21, "python-tag-mapping", known("a-tag-on-a-python-object"), "FLJ109", 6, 14, "!!python/object"),
    found(22, "custom-tag", known("a-tag-on-a-sequence"), "FLJ109", 6, 14, "!foo"),
    found(23, "binary-tag", known("a-tag-on-binary"), "FLJ109", 6, 14, "!!binary"),
    found(24, "duplicate-key-top", known("a-key-twice"), "FLJ111", 6, 1, "`name`", "line 2"),
    found(25, "duplicate-key-in-step", known("a-key-twice-in-a-step"), "FLJ111", 6, 5, "`name`", "line 4"),
    found(26, "multi-document", known("two-documents"), "FLJ110", 6, 1, "one document"),
    found(27, "tab-indent", known("a-tab"), "FLJ105", 4, 1, "tab"),
    found(28, "unclosed-quote", known("an-open-quote"), "FLJ105", 6, 14, "never closed"),
    found(29, "non-string-key", entry(GOOD + "1: x\n[a]: x\nnull: x\n"), "FLJ112", 6, 1, "must be a string"),
    found(30, "nodes-20001", known("20,001-values"), "FLJ107", 6, 39982, "20000"),
    found(31, "scalar-1mb", known("70,000-characters"), "FLJ113", 6, 14, "64 KiB"),
    found(32, "int-5000-digits", known("5,000-digits"), "FLJ114", 6, 27, "2^53"),
    found(33, "root-is-list", known("a-list-as-root"), "FLJ116", 1, 1, "a list"),
    found(34, "root-is-scalar", known("a-text-as-root"), "FLJ116", 1, 1, "mapping"),
    found(35, "yaml11-no-as-bool", entry(GOOD + "    enforce_idempotency: no\n"), "FLJ115", 6, 26, "`no`", "`false`"),
    found(36, "octal-012", known("a-bare-012"), "FLJ115", 6, 25, "`012`", "decimal"),
    found(37, "sexagesimal", known("a-bare-12:30:45"), "FLJ115", 6, 25, "`12:30:45`"),
    found(38, "date-scalar", known("a-bare-2001-01-01"), "FLJ115", 6, 25, "`2001-01-01`"),
    found(39, "inf-nan", known("a-bare-.nan"), "FLJ115", 6, 25, "`.nan`"),
]  # fmt: skip

DEMO = {"skills/demo.py": b"def ok(data): ...\n"}
SCHEMAS = [
    found(121, "schema-remote-ref", known("a-reference-to-a-host"), "FLJ142", 3, 24, "http://127.0.0.1:9"),
    found(122, "schema-file-ref", known("a-reference-to-a-file"), "FLJ142", 3, 24, "file:///etc/hostname"),
    found(123, "schema-self-ref", known("a-reference-to-itself"), "FLJ143", 3, 24, "leads back to `#`"),
    found(124, "schema-mutual-ref", known("two-references-in-a-circle"), "FLJ143", 3, 79, "#/$defs/a"),
    found(125, "schema-redos", known("a-pattern-without-end"), "FLJ145", 3, 45, "nested quantifier"),
    found(126, "schema-bad-regex", known("a-pattern-that-does-not-compile"), "FLJ145", 3, 27, "pattern"),
    found(127, "schema-draft4", known("a-schema-of-draft-4"), "FLJ141", 3, 27, "2020-12"),
    warned(
        128, "schema-unknown-keyword", {**DEMO, **known("a-misspelt-keyword")}, "FLJ148", 3, 16, "`required`"
    ),
    found(129, "schema-depth-100", known("a-schema-of-100-levels"), "FLJ106", 3, 325, "32"),
    found(130, "schema-not-object", known("a-list-as-schema"), "FLJ140", 3, 15, "an object"),
    found(131, "schema-contradiction", known("bounds-the-wrong-way-round"), "FLJ146", 3, 27, "minimum"),
]
READING = [*BYTES, *STRUCTURE, *SCHEMAS]
