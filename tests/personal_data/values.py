"""Makes values with valid checksums, by the rules of their authorities and none of the code that finds them."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

_FIRST = {
    "en": ["james", "mary", "robert", "linda", "michael", "susan"],
    "de": ["lukas", "anna", "jürgen", "sabine", "felix", "ute"],
    "fr": ["jean", "marie", "luc", "chloé", "rené", "élise"],
    "es": ["jose", "maría", "luis", "carmen", "iñigo", "pilar"],
    "it": ["marco", "giulia", "luca", "chiara", "paolo", "sara"],
    "pt": ["joão", "ana", "rui", "inês", "pedro", "sofia"],
    "nl": ["jan", "sanne", "daan", "fleur", "bram", "lotte"],
    "pl": ["jan", "anna", "piotr", "zofia", "marek", "ewa"],
}
_LAST = [
    "smith",
    "müller",
    "dupont",
    "garcia",
    "rossi",
    "silva",
    "devries",
    "kowalski",
    "brown",
    "weber",
    "martin",
    "lopez",
]
_TOP = {"en": "com", "de": "de", "fr": "fr", "es": "es", "it": "it", "pt": "pt", "nl": "nl", "pl": "pl"}
_PHONES = {
    "en": "202-555-01##, (415) 555-01##, +1 212 555 01##, 020 7946 0###, 0161 496 0###, +44 7911 1#####",
    "de": "030~########, 089/#######, 0151~23######, +49 171 3######, 0221-4######, 040~33######",
    "fr": "01 42 ## ## ##, 06.12.##.##.##, +33 6 98 ## ## ##, 04-72-##-##-##, 07 81 ## ## ##",
    "es": "612 3# ## ##, 91 4## ## ##, +34 655 ### ###, 934 ## ## ##, 722 ### ###",
    "it": "347 12#####, 06 698# ####, +39 02 8646 ####, 333 456 ####, 011 561 ####",
    "pt": "912 ### ###, 21 34# ## ##, +351 961 ### ###, 936 ### ###, 22 20# ## ##",
    "nl": "06-1234####, 020 62# ####, +31 6 5432 ####, 010-41#####, 06 4#######",
    "pl": "512 ### ###, 22 62# ## ##, +48 601 ### ###, 12 42# ## ##, 698 ### ###",
}
"""Forms of each language; `~` is a space, a slash or nothing."""
_IBANS = {
    "en": "GB WEST##############",
    "de": "DE ##################",
    "fr": "FR ##########N########02##",
    "es": "ES ####################",
    "it": "IT X######################",
    "pt": "PT #####################",
    "nl": "NL ABNA##########",
    "pl": "PL ########################",
}
_ODD = "BAKPLCQDREVOSFTGUHMINJWZYX"
"""The letters of a codice fiscale in the order of their values at odd places; a digit counts like its letter."""


def digits(random: Random, pattern: str) -> str:
    """Return a pattern with a digit in place of each `#`."""
    return "".join(str(random.randrange(10)) if char == "#" else char for char in pattern)


def email(random: Random, language: str) -> str:
    """Return a mail address in one of several ways to write it."""
    first, last = random.choice(_FIRST[language]), random.choice(_LAST)
    name = random.choice(
        [f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}{random.randrange(99)}", first]
    )
    host = random.choice(["example", "mail-service", "uni-musterstadt", "firma.example"])
    plain = f"{name}@{host}.{_TOP[language]}"
    kind = random.randrange(10)
    if kind == 0:
        return plain.upper()
    if kind == 1:
        return plain.replace("@", " [at] ")
    return plain.replace("@", " @ ") if kind == 2 else plain


def phone(random: Random, language: str) -> str:
    """Return a phone number as it is written at home, or with its country code."""
    form = random.choice(_PHONES[language].split(", "))
    return digits(random, form).replace("~", random.choice([" ", "", "/"]))


def card(random: Random, _: str) -> str:
    """Return the number of a payment card."""
    prefix, length = random.choice([("4", 16), ("51", 16), ("55", 16), ("34", 15), ("37", 15), ("6011", 16)])
    body = digits(random, prefix + "#" * (length - len(prefix) - 1))
    total = sum(sum(divmod(int(digit) * (2 - at % 2), 10)) for at, digit in enumerate(reversed(body)))
    number = body + str(-total % 10)
    sign = random.choice(["", " ", "-"])
    return sign.join(number[at : at + 4] for at in range(0, length, 4))


def iban(random: Random, language: str) -> str:
    """Return an IBAN of the language's country."""
    country, body = digits(random, _IBANS[language]).split()
    whole = "".join(str(int(char, 36)) for char in f"{body}{country}00")
    number = f"{country}{98 - int(whole) % 97:02}{body}"
    kind = random.randrange(3)
    return number if kind == 0 else " ".join(number[at : at + 4] for at in range(0, len(number), 4))


def national_id(random: Random, language: str) -> str:
    """Return a national id of the language's country."""
    return {
        "en": _ssn,
        "de": _idnr,
        "fr": _nir,
        "es": _dni,
        "it": _codice,
        "pt": _nif,
        "nl": _bsn,
        "pl": _pesel,
    }[language](random)


def _ssn(random: Random) -> str:
    return f"{random.randrange(100, 665)}-{random.randrange(1, 99):02}-{random.randrange(1, 9999):04}"


def _idnr(random: Random) -> str:
    first = random.sample("123456789", 1) + random.sample("0123456789", 9)
    while sorted(first.count(each) for each in set(first)) != [1] * 8 + [2]:
        first = random.sample("123456789", 1) + [random.choice("0123456789") for _ in range(9)]
    product = 10
    for digit in first:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return "".join(first) + str((11 - product) % 10)


def _nir(random: Random) -> str:
    body = f"{random.choice('12')}{random.randrange(100):02}{random.randrange(1, 13):02}{random.randrange(1, 96):02}"
    body += digits(random, "######")
    key = 97 - int(body) % 97
    return f"{body[0]} {body[1:3]} {body[3:5]} {body[5:7]} {body[7:10]} {body[10:]} {key:02}"


def _dni(random: Random) -> str:
    number, letters = random.randrange(10**8), "TRWAGMYFPDXBNJZSQVHLCKE"
    sign = random.choice(["", "-"])
    if random.randrange(4) == 0:
        start = random.randrange(3)
        return f"{'XYZ'[start]}{number % 10**7:07}{letters[(start * 10**7 + number % 10**7) % 23]}"
    return f"{number:08}{sign}{letters[number % 23]}"


def _codice(random: Random) -> str:
    letters = "".join(random.choice("BCDFGLMNPRSTV") for _ in range(6))
    body = (
        f"{letters}{random.randrange(100):02}{random.choice('ABCDEHLMPRST')}{random.randrange(1, 29):02}H501"
    )
    places = ["ABCDEFGHIJ"[int(char)] if char.isdigit() else char for char in body]
    order = (_ODD, string.ascii_uppercase)
    total = sum(order[at % 2].index(char) for at, char in enumerate(places))
    return body + string.ascii_uppercase[total % 26]


def _nif(random: Random) -> str:
    body = digits(random, random.choice("12") + "#######")
    rest = sum(int(digit) * weight for digit, weight in zip(body, range(9, 1, -1), strict=True)) % 11
    return body + str(0 if rest < 2 else 11 - rest)


def _bsn(random: Random) -> str:
    while True:
        number = digits(random, "1########")
        weights = [9, 8, 7, 6, 5, 4, 3, 2, -1]
        if sum(int(digit) * weight for digit, weight in zip(number, weights, strict=True)) % 11 == 0:
            return number


def _pesel(random: Random) -> str:
    body = f"{random.randrange(40, 99)}{random.randrange(1, 13):02}{random.randrange(1, 29):02}{digits(random, '####')}"
    total = sum(int(digit) * weight for digit, weight in zip(body, [1, 3, 7, 9] * 2 + [1, 3], strict=True))
    return body + str(-total % 10)


def ip(random: Random, _: str) -> str:
    """Return a public address."""
    if random.randrange(4) == 0:
        groups = ":".join(f"{random.randrange(1, 65536):x}" for _ in range(6))
        return f"2001:{groups}:{random.randrange(1, 65536):x}".replace("2001:db8:", "2001:470:", 1)
    return f"{random.choice([8, 23, 52, 81, 93, 151, 185])}.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}"


def url_credentials(random: Random, _: str) -> str:
    """Return the user and password of a URL."""
    return f"{random.choice(['app', 'bob', 'deploy'])}:{''.join(random.choices(string.ascii_letters, k=12))}"


def key(random: Random, _: str) -> str:
    """Return a key in the form of a vendor."""
    letters = string.ascii_letters + string.digits
    upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    prefix, alphabet, length = random.choice(
        [
            ("AKIA", upper, 16),
            ("ghp_", letters, 36),
            ("sk-proj-", letters, 40),
            ("xoxb-", letters, 24),
            ("glpat-", letters, 20),
        ]
    )
    return prefix + "".join(random.choices(alphabet, k=length))
