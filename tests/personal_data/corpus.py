"""Sentences in eight languages with marked personal data, and with numbers that are none: the same for each seed."""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

from personal_data import values

if TYPE_CHECKING:
    from collections.abc import Iterator

SENTENCES = 3_200
"""How many there are: 400 of each language."""

_MAKERS = {
    "EMAIL": values.email,
    "PHONE": values.phone,
    "CARD": values.card,
    "IBAN": values.iban,
    "NATIONAL_ID": values.national_id,
    "IP": values.ip,
    "URL_CREDENTIALS": values.url_credentials,
    "KEY": values.key,
}

_TEMPLATES = {
    "en": (
        "You can reach me at {EMAIL} or {PHONE}.|My number is {PHONE}, thanks!|Please charge {CARD} (exp 09/29).|"
        "Refund to {IBAN}, please.|SSN: {NATIONAL_ID}|Her social security number is {NATIONAL_ID}.|"
        "Login from {IP} failed twice.|{EMAIL} wrote: call {PHONE} after 5 pm.|clone https://{URL_CREDENTIALS}@example.org/x.git|"
        "export TOKEN={KEY}|Contact: {EMAIL}; backup: {EMAIL}|The card {CARD} was declined on 2026-11-03."
    ),
    "de": (
        "Sie erreichen mich unter {EMAIL} oder {PHONE}.|Meine Nummer: {PHONE}|Bitte belasten Sie die Karte {CARD}.|"
        "Überweisung auf {IBAN}, danke.|Steuer-ID: {NATIONAL_ID}|Meine IdNr. lautet {NATIONAL_ID}.|Anmeldung von {IP} gescheitert.|"
        "Von: {EMAIL}, Rückruf {PHONE}|Datenbank postgresql://{URL_CREDENTIALS}@db.example.org/x|Schlüssel {KEY} im Log gefunden."
    ),
    "fr": (
        "Écrivez-moi à {EMAIL} ou appelez le {PHONE}.|Mon portable : {PHONE}.|Carte bancaire {CARD}, merci.|"
        "Virement sur {IBAN}.|Numéro de sécurité sociale : {NATIONAL_ID}|NIR {NATIONAL_ID}|Connexion depuis {IP} refusée.|"
        "De {EMAIL} : rappeler au {PHONE}|https://{URL_CREDENTIALS}@exemple.org/a|La clé {KEY} est dans le journal."
    ),
    "es": (
        "Escríbeme a {EMAIL} o llama al {PHONE}.|Mi móvil es {PHONE}.|Cargue la tarjeta {CARD}, por favor.|"
        "Transferencia a {IBAN}.|DNI {NATIONAL_ID}|Mi documento es {NATIONAL_ID}.|Acceso desde {IP} rechazado.|"
        "De: {EMAIL}, teléfono {PHONE}|https://{URL_CREDENTIALS}@ejemplo.org/a|La clave {KEY} aparece en el registro."
    ),
    "it": (
        "Scrivimi a {EMAIL} o chiama {PHONE}.|Il mio cellulare è {PHONE}.|Addebitate la carta {CARD}.|"
        "Bonifico su {IBAN}, grazie.|Codice fiscale {NATIONAL_ID}|CF: {NATIONAL_ID}|Accesso da {IP} negato.|"
        "Da: {EMAIL}, recapito {PHONE}|https://{URL_CREDENTIALS}@esempio.org/a|La chiave {KEY} è nel registro."
    ),
    "pt": (
        "Escreva para {EMAIL} ou ligue {PHONE}.|O meu telemóvel é {PHONE}.|Debite o cartão {CARD}, por favor.|"
        "Transferência para {IBAN}.|NIF {NATIONAL_ID}|O contribuinte é {NATIONAL_ID}.|Acesso a partir de {IP} recusado.|"
        "De: {EMAIL}, contacto {PHONE}|https://{URL_CREDENTIALS}@exemplo.org/a|A chave {KEY} está no registo."
    ),
    "nl": (
        "Mail naar {EMAIL} of bel {PHONE}.|Mijn nummer is {PHONE}.|Belast de kaart {CARD} alstublieft.|"
        "Overboeking naar {IBAN}.|BSN {NATIONAL_ID}|Het burgerservicenummer is {NATIONAL_ID}.|Inloggen vanaf {IP} mislukt.|"
        "Van: {EMAIL}, telefoon {PHONE}|https://{URL_CREDENTIALS}@voorbeeld.org/a|De sleutel {KEY} staat in het logboek."
    ),
    "pl": (
        "Napisz na {EMAIL} albo zadzwoń: {PHONE}.|Mój numer to {PHONE}.|Proszę obciążyć kartę {CARD}.|"
        "Przelew na {IBAN}.|PESEL {NATIONAL_ID}|Numer PESEL: {NATIONAL_ID}.|Logowanie z {IP} odrzucone.|"
        "Od: {EMAIL}, telefon {PHONE}|https://{URL_CREDENTIALS}@przyklad.org/a|Klucz {KEY} jest w dzienniku."
    ),
}

_NEGATIVES = {
    "en": "Order ###### shipped on 2026-0#-1#.|Invoice 2026-000###### is due.|Ticket #######: total 1,###,###.## USD",
    "de": "Bestellung ######## vom 1#.0#.2026.|Rechnung RE-2026-#####, Betrag 1.###,## EUR|Vorgang ######### ist offen.",
    "fr": "Commande ######## du 1#/0#/2026.|Facture n° 2026-######, montant 1 ###,## EUR|Dossier ######### clos.",
    "es": "Pedido ######## del 1#/0#/2026.|Factura 2026-######, importe 1.###,## EUR|Expediente ######### cerrado.",
    "it": "Ordine ######## del 1#/0#/2026.|Fattura 2026-######, importo 1.###,## EUR|Pratica ######### chiusa.",
    "pt": "Encomenda ######## de 1#/0#/2026.|Fatura 2026-######, valor 1.###,## EUR|Processo ######### fechado.",
    "nl": "Bestelling ######## van 1#-0#-2026.|Factuur 2026-######, bedrag 1.###,## EUR|Kenmerk ######### gesloten.",
    "pl": "Zamówienie ######## z 1#.0#.2026.|Faktura 2026/######, kwota 1 ###,## PLN|Sprawa ######### zamknięta.",
}
_OF_EVERY_LANGUAGE = (
    "v1.#.#.## released|pip install pkg==#.#.#.#|built 2026-11-2# 1#:0#:## in 1##.## s|192.168.#.1## and 10.0.#.#",
    "uuid 1###4567-e89b-12d3-a456-42661417####|sha 9f04da3#9c7bea#e29f04da3|ISBN 978-3-16-1484##-#|lat 40.4###, -3.7###",
    "epoch 17644#####|width = 19##; height = 10##|for i in range(######): x[i] = #.##e-0#|GET /item/######## 200 ####",
    "port 5432, pid #####, ##### bytes|weights@layer.T and icon@2x.png|RFC ####, section 4.#.#.#|batch ########-####",
)


def sentences(count: int = SENTENCES, seed: int = 18) -> Iterator[tuple[str, str]]:
    """Yield languages and marked sentences; every fourth one has no personal data."""
    random = Random(seed)
    languages = list(_TEMPLATES)
    for number in range(count):
        language = languages[number % len(languages)]
        if number // len(languages) % 4 == 3:
            yield language, _without(random, language)
        else:
            yield language, _filled(random, language, random.choice(_TEMPLATES[language].split("|")))


def _without(random: Random, language: str) -> str:
    patterns = "|".join((_NEGATIVES[language], random.choice(_OF_EVERY_LANGUAGE))).split("|")
    return values.digits(random, random.choice(patterns))


def _filled(random: Random, language: str, template: str) -> str:
    """Return a template with a marked value in place of each kind."""

    def marked(found: re.Match[str]) -> str:
        return f"<<{found[1]} {_MAKERS[found[1]](random, language)}>>"

    return re.sub(r"\{([A-Z_]+)\}", marked, template)
