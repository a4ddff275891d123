"""One look at a text: which kinds of personal data may be in it, so that nothing else is searched for.

All patterns are matched together, in one pass over the text. Each matches at least what its search finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import re2

from flujo.governance.personal_data.patterns import options

if TYPE_CHECKING:
    from collections.abc import Sequence


ALWAYS, KEY, CREDENTIALS, MAIL, SPELT_MAIL, IBAN, ID_WITH_LETTERS, ADDRESS, NUMBER = range(9)
"""What a text may contain, by the number of its pattern; the first one matches every text."""
_ALL = range(9)
_AT = r"(?:at|ät|aet|arroba|arobase|chiocciola|małpa|malpa|apenstaartje|klammeraffe)"
_PATTERNS = {
    KEY: r"PRIVATE KEY|(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]|gh[pousr]_|github_pat_|gl(?:pat|dt|rt|cbt|ptt|soat)-"
    r"|xox[a-z]-|xapp-|[spr]k_(?:live|test)_|whsec_|sk-|(?:gsk|xai|pplx|r8|hf|nvapi|csk|fw)[_-]|AIza"
    r"|ya29\.|npm_|pypi-|SG\.|(?:SK|AC)[0-9a-f]{8}|do[opr]_v1|shp[a-z]{2}_|dapi[0-9a-f]|hv[sb]\."
    r"|lin_api_|ntn_|secret_|PMAK-|key-|\d:AA|AGE-SECRET|eyJ",
    CREDENTIALS: "://",
    MAIL: "@",
    SPELT_MAIL: rf"(?i)\s{_AT}\s|[\[({{<]\s?(?:{_AT}|@)\s?[\])}}>]",
    IBAN: r"[A-Za-z]{2}\d{2}[ -]?[A-Za-z0-9]",
    ID_WITH_LETTERS: r"\d[ -]?[A-Za-z]|[A-Z]{3} ?[0-9L-V]{2}[A-T]",
    ADDRESS: r"\d\.\d{1,3}\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:",
    NUMBER: r"\d(?:[^\pL\pN]{0,3}\d){6}",
}


def _compiled() -> re2.Set:
    patterns = re2.Set.SearchSet(options())
    patterns.Add("")
    for number in sorted(_PATTERNS):
        patterns.Add(_PATTERNS[number])
    patterns.Compile()
    return patterns


_TOGETHER = _compiled()


def kinds_in(text: str) -> Sequence[int]:
    """Return what a text may contain, besides `ALWAYS`; nothing else is in it."""
    return _TOGETHER.Match(text.encode()) or _ALL  # without `ALWAYS`, the match itself has failed
