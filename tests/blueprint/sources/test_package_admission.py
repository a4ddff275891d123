"""Only packages that `allow_callables` names exactly may be read."""

from __future__ import annotations

import pytest

from flujo.blueprint.sources.package_admission import PackageNotAllowed, require_allowed

GREET = "pkg:acme_flows/greet.yaml"


@pytest.mark.parametrize(
    ("path", "allow"), [(GREET, ["skills.*", "acme_flows"]), (GREET, None), ("acme_flows/greet.yaml", [])]
)
def test_an_allowed_package_and_the_project_may_be_read(path: str, allow: list[str] | None) -> None:
    require_allowed(path, allow)


@pytest.mark.parametrize("allow", [[], ["acme_flows.*"], ["acme_flows.words"], ["acme_flows:greet"], ["*"]])
def test_a_pattern_or_a_part_of_a_package_allows_no_package(allow: list[str]) -> None:
    with pytest.raises(PackageNotAllowed, match="does not allow package `acme_flows`") as refused:
        require_allowed(GREET, allow)
    assert refused.value.hint == 'add "acme_flows" to `allow_callables` under `[blueprints]` in flujo.toml'


def test_an_allowed_package_with_a_similar_name_is_suggested() -> None:
    with pytest.raises(PackageNotAllowed) as refused:
        require_allowed("pkg:acme_flow/greet.yaml", ["skills.*", "acme_flows"])
    assert refused.value.hint == "did you mean `pkg:acme_flows/greet.yaml`?"
