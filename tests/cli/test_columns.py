"""Columns and cuts are measured in cells of a terminal."""

from __future__ import annotations

from flujo.cli.columns import aligned, cut


def test_columns_stand_below_each_other_also_for_wide_characters() -> None:
    assert aligned([["NAME", "X"], ["漢字", "1"], ["abc", "22"]]) == [
        "NAME  X",
        "漢字  1",
        "abc   22",
    ]


def test_a_line_is_cut_by_cells_not_by_characters() -> None:
    assert cut("漢字漢字", 5) == "漢字…"
    assert cut("short", 5) == "short"
