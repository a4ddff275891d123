"""Keys and tokens of known vendors, private keys, and the user and password in URLs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flujo.governance.personal_data.patterns import compiled, is_word, replaced
from flujo.governance.redactor import redact_uri

if TYPE_CHECKING:
    from flujo.governance.personal_data.masks import Mask
    from flujo.governance.personal_data.patterns import Found

_VENDORS = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",  # Amazon
    r"gh[pousr]_[A-Za-z0-9]{36,}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"gl(?:pat|dt|rt|cbt|ptt|soat)-[A-Za-z0-9_-]{20,}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"xapp-[A-Za-z0-9-]{10,}",
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"whsec_[A-Za-z0-9+/=]{16,}",  # signatures of webhooks
    r"sk-[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic and servers like theirs
    r"(?:gsk|xai|pplx|r8|hf|nvapi|csk|fw)[_-][A-Za-z0-9_-]{24,}",  # Groq, xAI, Perplexity, Hugging Face …
    r"AIza[A-Za-z0-9_-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_-]{20,}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_-]{50,}",
    r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",  # SendGrid
    r"(?:SK|AC)[0-9a-f]{32}",  # Twilio
    r"do[opr]_v1_[0-9a-f]{64}",  # DigitalOcean
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",  # Shopify
    r"dapi[0-9a-f]{32}",  # Databricks
    r"(?:hvs|hvb)\.[A-Za-z0-9_-]{20,}",  # Vault
    r"lin_api_[A-Za-z0-9]{32,}",  # Linear
    r"(?:ntn|secret)_[A-Za-z0-9]{40,}",  # Notion
    r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}",  # Postman
    r"key-[0-9a-f]{32}",  # Mailgun
    r"\d{8,10}:AA[A-Za-z0-9_-]{33}",  # Telegram
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}",
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}",  # JSON Web Tokens
)
_KEY = compiled("|".join(_VENDORS))
_PRIVATE = compiled(
    r"(?s)-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----.*?(?:-----END (?:[A-Z]+ )?PRIVATE KEY-----|\z)"
)
_IN_URL = compiled(r"://[^\s/?#@'\"<>]+@")


def masked(text: str, mask: Mask) -> str:
    """Return a text with the keys of vendors masked."""
    if "PRIVATE KEY-----" in text:
        text = replaced(_PRIVATE, text, lambda found: mask("key", found.text))
    return replaced(_KEY, text, partial(_masked, text=text, mask=mask))


def _masked(found: Found, *, text: str, mask: Mask) -> str:
    before = text[found.start - 1] if found.start else ""
    if before and (is_word(before) or before == "-"):
        return found.text
    return mask("key", found.text)


def masked_credentials(text: str, mask: Mask) -> str:
    """Return a text with the user and password of each URL masked."""
    if "://" not in text:
        return text
    shown = redact_uri(text)  # passwords may have characters that end a URL

    def replace(found: Found) -> str:
        value = found.text[len("://") : -1]
        new = mask("url_credentials", value)
        return found.text if new == value else f"://{new}@"

    new = replaced(_IN_URL, shown, replace)
    return text if new == shown else new
