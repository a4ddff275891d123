"""IP addresses of the public internet, and those of documentation."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from flujo.governance.personal_data import words
from flujo.governance.personal_data.patterns import compiled, is_word, replaced, words_before

if TYPE_CHECKING:
    from flujo.governance.personal_data.masks import Mask
    from flujo.governance.personal_data.patterns import Found

_FOUR = compiled(r"\d{1,3}(?:\.\d{1,3}){3,}")
_SIX = compiled(r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,}(?:\.\d{1,3}){0,3}")
_GLOBAL = ip_network("2000::/3")
_DOCUMENTED = [ip_network(each) for each in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]


def masked(text: str, mask: Mask) -> str:
    """Return a text with public IP addresses masked. Private addresses and version numbers stay."""
    if "." in text:
        text = replaced(_FOUR, text, partial(_masked, text=text, mask=mask))
    if text.count(":") > 1:
        text = replaced(_SIX, text, partial(_masked, text=text, mask=mask))
    return text


def _masked(found: Found, *, text: str, mask: Mask) -> str:
    value = found.text
    address = value.rstrip(":") if not value.endswith("::") else value
    start, end = found.start, found.start + len(address)
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    is_part = (before and (is_word(before[-1]) or before[-1] in "-.")) or (
        after and (is_word(after[0]) or (after[0] == "-" and is_word(after[1:])))
    )
    if is_part or before.endswith(("==", "~=", ">=", "<=")) or not _is_public(address):
        return value
    if words.kind([*words_before(text, start)][:2]) == "other":
        return value
    return mask("ip", address) + value[len(address) :]


def _is_public(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return address in _GLOBAL if mapped is None else _is_public_four(mapped)
    return _is_public_four(address)


def _is_public_four(address: IPv4Address) -> bool:
    is_global = address.is_global and not address.is_multicast
    return is_global or any(address in network for network in _DOCUMENTED)
