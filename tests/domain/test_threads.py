"""The threads in the tree of a context: what branches add is taken apart from the fields."""

from __future__ import annotations

from flujo.domain import merge
from flujo.domain.paths import StepPath
from flujo.domain.threads import THREADS, added, apart, exchanges, only_fields


def test_an_exchange_is_added_at_the_end_of_its_thread() -> None:
    tree = merge.apply({"total": 1}, [added("talk", StepPath("a"))])
    tree = merge.apply(tree, [added("talk", StepPath("b")), added("other", StepPath("c"))])
    assert exchanges(tree, "talk") == ["a", "b"]
    assert exchanges(tree, "other") == ["c"]
    assert exchanges(tree, "third") == ()
    assert only_fields(tree) == {"total": 1}


def test_a_tree_without_threads_is_not_copied() -> None:
    tree = {"total": 1}
    assert only_fields(tree) is tree


def test_what_branches_add_to_threads_is_taken_apart_from_what_they_write_to_fields() -> None:
    fork = {"total": 1, THREADS: {"talk": ["a"]}}
    one = [["set", ["total"], 2], added("talk", StepPath("b"))]
    # The first exchange of all threads is one operation on the whole mapping.
    two = [["append", [THREADS, "other"], ["c"]], ["set", ["log"], []]]
    fields, threads = apart(fork, {"one": one, "two": two, "three": []})
    assert fields == {"one": one[:1], "two": two[1:], "three": []}
    assert threads == {
        "one": [["set", ["talk"], ["a", "b"]]],
        "two": [["set", ["other"], ["c"]]],
        "three": [],
    }


def test_the_first_thread_of_a_branch_is_found_in_its_net_patch() -> None:
    after = merge.apply({"total": 1}, [added("talk", StepPath("a"))])
    patch = merge.diff({"total": 1}, after)
    assert patch == [["set", [THREADS], {"talk": ["a"]}]]
    assert apart({"total": 1}, {"one": patch}) == ({"one": []}, {"one": [["set", ["talk"], ["a"]]]})


def test_patches_without_threads_stay_as_they_are() -> None:
    patches = {"one": [["set", ["total"], 2]]}
    assert apart({}, patches) == (patches, {})
