"""The words beside a number that say what it is, in eight languages. Words of other languages do no harm."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PHONE = _words(
    """
    phone phones telephone tel mobile mob cell cellphone call calls called calling dial ring fax whatsapp sms
    landline hotline contact
    telefon telefonnummer telefonnr handy handynummer mobil mobilnummer mobiltelefon festnetz rückruf anrufen
    ruf rufen rufnummer durchwahl erreichbar
    téléphone telephoner portable appeler appelez appel fixe joindre joignable gsm numero numéro
    teléfono telefono móvil movil celular llamar llame llámame llamada
    cellulare chiamare chiama chiami chiamatemi recapito
    telefone telemóvel telemovel ligar ligue contacto contato
    telefoon telefoonnummer mobiel mobieltje bellen bel belt gsmnummer
    telefonu komórka komórkowy kom zadzwoń zadzwonić dzwonić dzwoń komórki telefoniczny
    """
)

IDENTITY = _words(
    """
    ssn itin social security national nhs nino taxpayer tin passport identity nationalid
    steuer idnr steuerid steueridentifikationsnummer identifikationsnummer idnummer
    nir insee sécurité securite sociale fiscal fiscale
    dni nie nif documento identidad extranjero
    codice cf codicefiscale
    contribuinte cidadão cidadao nifs
    bsn burgerservicenummer sofinummer sofi
    pesel peselu ewidencyjny
    """
)

OTHER = _words(
    """
    order orders invoice ticket tracking shipment parcel reference ref case sku isbn issn ean upc gtin serial
    version release build commit port pid uid gid uuid guid hash checksum sha md5 bytes size offset line lines
    row rows batch job run runs item items article model part product quantity qty total amount sum
    count epoch timestamp seconds date account transaction txn lot po oid section chapter page bug issue
    bestellung bestellnummer auftrag auftragsnummer rechnung rechnungsnummer kundennummer artikelnummer
    sendungsnummer vorgang aktenzeichen betrag menge seriennummer
    commande facture référence dossier colis montant suivi article série
    pedido factura referencia envío albarán importe expediente artículo
    ordine fattura riferimento spedizione importo pratica articolo
    encomenda fatura referência envio processo valor artigo
    bestelling bestelnummer factuur factuurnummer kenmerk zending bedrag artikelnummer
    zamówienie zamówienia faktura faktury przesyłka przesyłki kwota sprawa artykuł
    """
)

UNITS = _words(
    """
    bytes byte kb mb gb tb ms seconds sec minutes hours eur euro euros usd dollars gbp chf zł zl zloty pln
    km kg m cm mm g l ml tokens rows lines items units users requests records entries people inhabitants
    stück einwohner nutzer zeilen habitants lignes habitantes líneas abitanti righe linhas inwoners regels
    mieszkańców sztuk percent
    """
)


def kind(words: list[str]) -> str:
    """Return what the first telling word says about a number: `phone`, `identity`, `other`, or nothing.

    An id is another number, unless a word further away says whose: `national id`.
    """
    is_id = False
    for word in words:
        if word in PHONE:
            return "phone"
        if word in IDENTITY:
            return "identity"
        if word in OTHER:
            return "other"
        is_id = is_id or word in ("id", "ids")
    return "other" if is_id else ""
