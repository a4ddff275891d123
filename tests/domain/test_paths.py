"""Step paths: names of any text, typed with brackets or dots, in their stored or shown form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.domain import paths
from flujo.domain.paths import ROOT, StepPath

identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
texts = st.one_of(
    identifiers,
    st.text(min_size=1, max_size=8),
    st.text(alphabet="%/[]:.!~#0123 \n\x00\x85é\ud800", min_size=1, max_size=8),
)


@st.composite
def step_paths(draw: st.DrawFn) -> StepPath:
    path = paths.child(ROOT, draw(texts))
    for kind in draw(st.lists(st.sampled_from(["child", "count", "branch", "turn", "tool"]), max_size=6)):
        count = draw(st.integers(0, 99))
        match kind:
            case "child":
                path = paths.child(path, draw(texts))
            case "branch":
                path = paths.branch(path, draw(texts))
            case "count":
                path = paths.indexed(path, count)
            case "turn":
                path = paths.turn(path, count)
            case _:
                path = paths.tool(path, count)
    return path


counts = st.integers(0, 10**6)
ranges = st.builds(paths.ranged, step_paths(), counts, counts)
any_paths = st.one_of(step_paths(), ranges, st.builds(paths.doubt, step_paths(), st.integers(0, 99)))


@given(step_paths(), texts, st.integers(0, 10**6))
def test_the_parent_of_a_path_is_where_it_was_made(path: StepPath, name: str, count: int) -> None:
    assert paths.parent(paths.child(path, name)) == path
    assert paths.parent(paths.indexed(path, count)) == path
    assert paths.parent(paths.branch(path, name)) == path
    assert paths.parent(paths.doubt(path, count)) == path
    assert paths.parent(paths.parent(paths.turn(path, count))) == path


@given(step_paths(), counts, counts)
def test_a_range_is_below_its_map_and_at_a_level_of_its_own(path: StepPath, first: int, last: int) -> None:
    range_path = paths.ranged(path, first, last)
    assert paths.parent(range_path) == path
    assert paths.bounds(range_path) == (first, last)
    assert paths.level(range_path) == paths.ranges_of(path) != path
    assert paths.is_inside(range_path, path)
    assert paths.without_counts(range_path) == paths.without_counts(path)


@given(step_paths(), counts)
def test_only_a_range_has_bounds(path: StepPath, count: int) -> None:
    for each in (path, paths.indexed(path, count), paths.doubt(path, count)):
        assert paths.bounds(each) is None
        assert paths.level(each) == paths.parent(each)


@given(step_paths(), texts, texts)
def test_different_names_have_different_paths(path: StepPath, one: str, other: str) -> None:
    assert (paths.branch(path, one) == paths.branch(path, other)) is (one == other)
    assert paths.branch(path, one) != paths.child(path, one)


@given(texts)
def test_a_printable_name_is_shown_as_written(name: str) -> None:
    encoded = paths.encoded(name)
    assert paths.shown(encoded) == "".join(
        each if each.isprintable() else paths.encoded(each) for each in name
    )
    assert not set(encoded) & set("/[]:.!~# \n\x00\x85\ud800")
    assert not any(character.isspace() for character in encoded)


@given(identifiers)
def test_an_identifier_is_not_escaped(name: str) -> None:
    assert paths.encoded(name) == name


@given(any_paths)
def test_brackets_and_dots_are_the_same_path(path: StepPath) -> None:
    typed = paths.for_command_line(path)
    assert not set(typed) & set("[]")
    assert paths.from_command_line(typed) == path
    assert paths.from_command_line(path) == path


@given(st.lists(any_paths, min_size=1, max_size=5, unique=True))
def test_a_path_is_found_in_its_stored_and_in_its_shown_form(known: list[StepPath]) -> None:
    for path in known:
        dotted = paths.for_command_line(path)
        assert paths.find(path, known) == path
        assert paths.find(dotted, known) == path
        for shown in (paths.shown(path), paths.shown(dotted)):
            found = paths.find(shown, known)
            assert found == path or found is None or shown in (found, paths.for_command_line(found))


@given(step_paths(), texts)
def test_a_path_inside_another_is_distinguished_from_a_common_prefix(path: StepPath, name: str) -> None:
    assert paths.is_inside(paths.child(path, name), path)
    assert paths.is_inside(paths.doubt(path, 0), path)
    assert not paths.is_inside(path, path)
    assert paths.is_within(path, path)
    assert not paths.is_within(StepPath(f"{path}x"), path)
    assert paths.is_inside(path, ROOT)
    assert not paths.is_inside(ROOT, ROOT)


@pytest.mark.parametrize(
    ("path", "above"),
    [
        ("a/b[2]/c", "a/b[2]"),
        ("a/b[2]", "a/b"),
        ("route:refund/x", "route:refund"),
        ("route:refund", "route"),
        ("route:A%2FB %5B1%5D%3A c", "route"),
        ("a", ""),
        (":finally", ""),
        ("pay!doubt[0]", "pay"),
        ("pay!budget", "pay"),
        ("items[1]/pay!doubt[0]", "items[1]/pay"),
        ("items[1]/talk!limit[2]", "items[1]/talk"),
        ("talk/summary[0]", "talk/summary"),
    ],
)
def test_a_path_goes_up_one_level_at_a_time(path: str, above: str) -> None:
    assert paths.parent(StepPath(path)) == above


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("loop.2/check", "loop[2]/check"),
        ("loop[2]/check", "loop[2]/check"),
        ("tool.1.0", "tool[1][0]"),
        ("machine:critique.1/x", "machine:critique[1]/x"),
        ("search.0:state.3", "search[0]:state[3]"),
        ("pay!doubt.0", "pay!doubt[0]"),
        ("talk/summary.0", "talk/summary[0]"),
        ("a/b", "a/b"),
    ],
)
def test_a_path_can_be_typed_without_brackets(typed: str, path: str) -> None:
    assert paths.from_command_line(typed) == path


def test_a_branch_of_any_text_is_found_however_it_is_typed() -> None:
    path = paths.child(paths.indexed(paths.branch(StepPath("route"), "A/B [1]: v1.2"), 3), "x")
    assert path == "route:A%2FB%20%5B1%5D%3A%20v1%2E2[3]/x"
    for typed in (
        path,
        "route:A%2FB%20%5B1%5D%3A%20v1%2E2.3/x",
        "route:A/B [1]: v1.2[3]/x",
        "route:A/B [1]: v1.2.3/x",
    ):
        assert paths.find(typed, [StepPath("route"), path]) == path
    assert paths.find("route:A", [path]) is None


def test_two_paths_shown_alike_are_distinguished_by_their_stored_form() -> None:
    branch = paths.branch(StepPath("route"), "a/b")
    step = paths.child(paths.branch(StepPath("route"), "a"), "b")
    assert paths.shown(branch) == paths.shown(step) == "route:a/b"
    assert paths.find("route:a/b", [branch, step]) == step
    assert paths.find("route:a%2Fb", [branch, step]) == branch


def test_the_last_part_of_a_path_is_its_name() -> None:
    assert [paths.name(StepPath(path)) for path in ("a/b", "a[2]", "r:x%2Fy", "a")] == [
        "b",
        "[2]",
        ":x/y",
        "a",
    ]
    assert (paths.last_count(StepPath("a[2]")), paths.last_count(StepPath("a[2]/b"))) == (2, None)
