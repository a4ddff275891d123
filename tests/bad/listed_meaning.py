"""The numbered cases of the language and its meaning, of paths, callables and expressions (C, D, E, F)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bad.listing import Listed, entry, found, known, warned
from bad.meaning_cases import CHILD, ENTRY, HEAD, importing, logic, step, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

LANGUAGE = [
    found(40, "unknown-top-key", known("an-unknown-key"), "FLJ120", 6, 1, "descripton", "did you mean `description`?"),
    found(41, "unknown-step-kind", known("an-unknown-kind"), "FLJ123", 6, 11, "did you mean `conditional`?"),
    found(42, "missing-version", known("no-version"), "FLJ121", 1, 1, "`version`"),
    found(43, "future-version", known("a-version-to-come"), "FLJ129", 1, 10, "`2`", "upgrade Flujo"),
    found(44, "wrong-type-timeout", known("a-duration-as-list"), "FLJ122", 6, 14, "`timeout_s` must be a number"),
    found(45, "negative-timeout", known("a-duration-below-zero"), "FLJ126", 6, 25, "greater than 0"),
    found(46, "zero-max-loops", known("no-iterations"), "FLJ125", 6, 58, "at least 1"),
    found(47, "unbounded-loop", known("endless-loop"), "FLJ216", 10, 11, "no `until`"),
    found(48, "duplicate-step-id", known("duplicate-name"), "FLJ210", 9, 12, "'sort'"),
    found(49, "unknown-next", known("state-unknown-target"), "FLJ231", 14, 73, "did you mean `done`?"),
    warned(50, "unreachable-step", known("state-unreached"), "FLJ232", 15, 7, "state 'edit'"),
    found(51, "cycle-without-loop", known("machine-without-an-end"), "FLJ233", 17, 12, "there is no path"),
    found(52, "statemachine-no-terminal", known("a-machine-without-final"), "FLJ121", 6, 5, "`final`"),
    found(53, "statemachine-missing-transition", known("state-without-a-way-out"), "FLJ233", 15, 7, "has no transitions"),
    found(54, "parallel-zero-branches", known("a-parallel-without-branches"), "FLJ125", 6, 41, "at least 1"),
    found(55, "merge-conflict-two-writers", known("parallel-conflict"), "FLJ235", 13, 45, "`context.label`", "field_mapping"),
    found(56, "map-over-non-list", known("map-over-text"), "FLJ206", 12, 11, "needs a list"),
    found(57, "router-unknown-branch", known("router-answers-something-else"), "FLJ238", 9, 13, "'tow'", "`one` and `two`"),
    found(58, "hitl-inside-background", entry(HEAD + "  - {kind: hitl, name: ask, message: m, config: {execution_mode: background}}\n  - {kind: await, name: got, task: asks}\n"), "FLJ282", 10, 36, "did you mean `ask`?"),
    warned(59, "tool-before-hitl-same-step", known("tool-that-asks-a-human"), "FLJ294", 5, 32, "asks a human", "kind: hitl"),
    warned(60, "idempotency-without-persistence", known("enforced-and-recorded-late"), "FLJ295", 9, 80, "recorded only when the run ends"),
    found(61, "persist-off-with-hitl", entry(HEAD + "  - {kind: hitl, name: ask, message: m, config: {durability: none}}\n"), "FLJ125", 9, 62, "`sync` or `exit`"),
    warned(62, "retry-on-nonidempotent-write", known("a-retry-of-an-unsafe-call"), "FLJ267", 9, 80, "follows harmless failures only"),
    found(63, "budget-negative", known("a-budget-below-zero"), "FLJ125", 6, 32, "above 0"),
    warned(64, "budget-missing-for-agent-loop", known("agent-without-a-bound-in-a-loop"), "FLJ293", 6, 3, "without a limit"),
    found(65, "context-field-unknown", known("unknown-context-field"), "FLJ214", 9, 40, "did you mean `label`?"),
    found(66, "context-type-mismatch", known("context-type"), "FLJ215", 9, 47, "`string`", "`integer`"),
    found(67, "reserved-field-name", known("reserved-context-field"), "FLJ212", 3, 31, "__class__"),
    warned(68, "cache-on-side-effect-tool", known("cache-around-an-effect"), "FLJ292", 11, 27, "has an effect"),
]  # fmt: skip


def link(name: str, to: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / "blueprints" / name).symlink_to(to)

    return make


def fifo(root: Path) -> None:
    os.mkfifo(root / "blueprints/child.yaml")


def folder(root: Path) -> None:
    (root / "blueprints/child.yaml").mkdir()


def neighbour(root: Path) -> None:
    beside = root.with_name(root.name + "2")
    beside.mkdir()
    (beside / "child.yaml").write_text(CHILD)


ANY = HEAD + importing("./child.yaml")
PATHS = [
    found(69, "import-parent", known("import-parent"), "FLJ220", 11, 16, "out of the project"),
    found(70, "import-absolute", known("import-absolute"), "FLJ220", 11, 16, "absolute"),
    found(71, "import-sibling-prefix", entry(HEAD + importing("../../project2/child.yaml")), "FLJ220", 11, 16, "out of the project", make=neighbour),
    found(72, "import-symlink-out", entry(ANY), "FLJ220", 11, 16, "symbolic link", make=link("child.yaml", "/etc/hostname")),
    found(73, "import-symlink-loop", entry(ANY), "FLJ220", 11, 16, "cycle", make=link("child.yaml", "child.yaml")),
    found(74, "import-nul", entry((HEAD + importing("./chi\0ld.yaml")).encode()), "FLJ102", 11, 21, "NUL"),
    found(75, "import-backslash", known("import-backslash"), "FLJ220", 11, 16, "backslash"),
    found(76, "import-percent", known("import-percent"), "FLJ220", 11, 16, "%"),
    found(77, "import-tilde", known("import-tilde"), "FLJ220", 11, 16, "home"),
    found(78, "import-file-url", known("import-file-url"), "FLJ220", 11, 16, "it is a URL"),
    found(79, "import-http", known("import-http"), "FLJ220", 11, 16, "it is a URL"),
    found(80, "import-unc", known("import-unc"), "FLJ220", 11, 16, "backslash"),
    found(81, "import-self", known("import-self"), "FLJ222", 11, 16, "cycle"),
    found(82, "import-cycle-3", known("import-cycle-3"), "FLJ222", 6, 16, "blueprints/b.yaml → blueprints/c.yaml", file="blueprints/c.yaml"),
    found(83, "import-depth-17", known("import-depth-17"), "FLJ223", 6, 16, "16 deep", file="blueprints/c15.yaml"),
    found(84, "import-missing", known("import-missing"), "FLJ221", 11, 16, "does not exist"),
    found(85, "import-is-directory", entry(ANY), "FLJ220", 11, 16, "directory", make=folder),
    found(86, "import-fifo", entry(ANY), "FLJ220", 11, 16, "a pipe", make=fifo),
    found(87, "import-wrong-case", known("import-wrong-case"), "FLJ221", 11, 16, "'Child.yaml'"),
    found(88, "import-input-mapping-missing", known("import-missing-input"), "FLJ224", 12, 5, "needs 'text'"),
    found(89, "import-output-type-mismatch", entry(ANY + text('"{{ steps.sub.output.tone }}"'), child=CHILD + "output: {text: '{{ input.text }}'}\n"), "FLJ204", 14, 33, "has no `tone`"),
    found(90, "import-widens-allowlist", known("import-widens-allow-list"), "FLJ250", 4, 28, "other.place", "allow_callables", file="blueprints/child.yaml"),
]  # fmt: skip


PLAIN = 'version: "1"\nname: case\ninput_schema: {type: string}\nsteps:\n  - {name: more, call: CALLED}\n'
FOUR_DEEP = PLAIN.replace("CALLED", "skills.crm:plain") + (
    'output: "{{ LIST.map(a, LIST.map(b, LIST.map(c, LIST.map(d, d)))) }}"\n'.replace(
        "LIST", "input.split(',')"
    )
)


def code(
    text: str = PLAIN, name: str = "skills.crm:system", skills: str = "def plain(data): return data\n"
) -> Mapping[str, bytes]:
    return {**entry(text.replace("CALLED", name)), "skills/crm.py": skills.encode()}


SIDE = "from pathlib import Path\nPath(__file__).with_name('marker').touch()\ndef f(data): ...\n"
CODE = [
    found(91, "callable-os-system", known("callable-os-system"), "FLJ250", 9, 24, "may not call"),
    found(92, "callable-dunder", known("callable-dunder"), "FLJ250", 9, 24, "underscores"),
    found(93, "callable-two-colons", known("two-colons-in-a-callable"), "FLJ128", 3, 25, "a:b:c"),
    found(94, "callable-nested-attr", known("callable-nested"), "FLJ250", 9, 24, "module:callable"),
    found(95, "callable-relative", entry(HEAD + step("call: '.crm:echo'")), "FLJ128", 9, 24, "package.module:name"),
    found(96, "callable-not-listed", known("callable-not-listed"), "FLJ250", 9, 24, "allow_callables"),
    Listed(97, "callable-reexport", code(skills="from os import system\n"), "FLJ250", None, ("is defined in",),
           command=("run", ENTRY, "--input", "a"), exit_code=3),
    found(98, "callable-not-callable", code(PLAIN, "skills.crm:LIMIT", "LIMIT = 5\n"), "FLJ251", 5, 24, "is not callable"),
    warned(99, "callable-import-side-effect", code(PLAIN, "skills.crm:g", SIDE), "FLJ253", 5, 24, "define it dynamically", severity="info"),
    found(100, "callable-unicode", known("a-callable-in-cyrillic"), "FLJ128", 3, 25, "ASCII"),
    found(101, "tool-not-in-allowlist", known("tool-not-listed"), "FLJ250", 3, 34, "x.y:z"),
    found(102, "tool-duplicate-name", entry(HEAD.replace("agents:\n", "agents:\n  a: {model: b:c, tools: ['skills.crm:echo', 'skills.other:echo']}\n") + step("agent: a")), "FLJ255", 6, 46, "two tools named `echo`"),
    warned(104, "rule-of-two", known("rule-of-two"), "FLJ291", 7, 25, "ask a human"),
    found(105, "lambda-inline", entry(HEAD + step("call: 'lambda text: text'")), "FLJ128", 9, 24, "lambda"),
]  # fmt: skip

TEXTS = [
    found(106, "cel-syntax", known("cel-syntax"), "FLJ205", 11, 33, "`==`"),
    found(107, "cel-unknown-var", known("cel-unknown-name"), "FLJ204", 11, 9, "did you mean `input`?"),
    found(108, "cel-non-bool-condition", known("cel-not-a-condition"), "FLJ206", 11, 9, "boolean"),
    Listed(
        109,
        "cel-nested-map4",
        code(FOUR_DEEP),
        "FLJ404",
        None,
        ("10,000 iterations",),
        command=("run", ENTRY, "--input", "a," * 60),
        exit_code=1,
    ),
    found(110, "cel-parens-200", known("cel-200-parentheses"), "FLJ209", 11, 9, "nested deeper"),
    found(111, "cel-3kb", known("cel-3-kb"), "FLJ209", 11, 9, "2048"),
    found(112, "cel-div-zero-const", entry(HEAD + logic("1 / 0 > 0")), "FLJ239", 11, 13, "divides by zero"),
    found(
        113, "cel-unknown-function", known("cel-unknown-function"), "FLJ204", 11, 9, "did you mean `size`?"
    ),
    found(114, "tmpl-dunder", known("text-dunder"), "FLJ204", 11, 22, "__class__"),
    found(115, "tmpl-call", entry(HEAD + text('"a {{ input() }}"')), "FLJ204", 11, 18, "not a function"),
    found(116, "tmpl-jinja-for", known("text-jinja"), "FLJ205", 11, 15, "logic is not supported"),
    found(117, "tmpl-unclosed", known("text-unclosed"), "FLJ205", 11, 15, "never closed"),
    found(118, "tmpl-unknown-filter", known("text-filter"), "FLJ205", 11, 29, "no filters"),
    found(119, "tmpl-env", known("text-environment"), "FLJ219", 11, 16, "environment"),
    found(120, "tmpl-missing-path", known("text-missing-path"), "FLJ204", 11, 34, "has no `a`"),
]
MEANING = [*LANGUAGE, *PATHS, *CODE, *TEXTS]
