"""English texts with marked names of people, places and organisations, and words that only look like names.

`sentences` makes them, the same for each seed; `HARD` and `LATER` were written by hand.
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

from personal_data import values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SENTENCES = 1_200
"""How many there are; every third one has no name."""


def _words(text: str) -> list[str]:
    return [each.strip() for each in text.replace("\n", " ").split("|")]


_FIRST = _words(
    """
    James|Mary|Robert|Linda|Michael|Susan|David|Karen|Olivia|Noah|Emma|Liam|Priya|Arjun|Wei|Mei|Yuki|
    Hiroshi|Fatima|Omar|Aisha|Kwame|Chidi|Ngozi|Carlos|Lucía|Mateo|Sofia|Giulia|Marco|Pierre|Chloé|Hans|
    Greta|Lars|Ingrid|Piotr|Zofia|Ivan|Olga|Tariq|Leila|Nadia|Samuel|Hannah|Isaac|Ruth|Patrick|Siobhan|
    Aoife|Dylan|Megan|Thabo|Lerato|Juan|Camila|Bruno|Beatriz
    """
)
_LAST = _words(
    """
    Smith|Johnson|Williams|Brown|Jones|Miller|Davis|Wilson|Anderson|Taylor|Clark|Hughes|Patel|Sharma|Chen|
    Wang|Tanaka|Sato|Khan|Hassan|Mensah|Okafor|Adeyemi|Garcia|Martínez|Lopez|Rossi|Bianchi|Dupont|Lefebvre|
    Müller|Schneider|Larsen|Nilsson|Kowalski|Nowak|Petrov|Ivanova|Haddad|Rahman|O'Connor|Murphy|Fitzgerald|
    MacDonald|Cohen|Levi|Nkosi|Silva|Ferreira|Kim|Park
    """
)
_PLACES = _words(
    """
    London|Manchester|Leeds|Bristol|Glasgow|Dublin|Paris|Lyon|Berlin|Munich|Madrid|Barcelona|Rome|Milan|
    Lisbon|Warsaw|Vienna|Zurich|Amsterdam|Brussels|Stockholm|Oslo|Copenhagen|Helsinki|Chicago|Boston|
    Seattle|Denver|Austin|Toronto|Vancouver|Sydney|Melbourne|Tokyo|Osaka|Seoul|Singapore|Mumbai|Delhi|
    Nairobi|Lagos|Accra|Cairo|Cape Town|New York|Los Angeles|San Francisco|Buenos Aires|Mexico City|
    Hong Kong|Germany|France|Spain|Italy|Poland|Canada|Australia|Japan|India|Nigeria|Brazil|South Africa|
    New Zealand|Scotland|Texas|California|Ohio|Bavaria|Kent|Yorkshire
    """
)
_STEMS = _words(
    """
    Acme|Globex|Northwind|Brightwater|Harrow|Kestrel|Oakfield|Meridian|Silverline|Pinnacle|Redwood|Stanton|
    Whitmore|Lakeside|Halcyon|Ironbridge|Castlegate|Fairmont|Larkspur|Summit
    """
)
_ENDINGS = _words(
    """
    Ltd|Inc.|LLC|GmbH|Bank|Insurance|Group|Corporation|Logistics|Foundation|Hospital|Partners|& Co.|Holdings
    """
)
_KNOWN = _words(
    """
    Microsoft|Amazon|Siemens|Toyota|Unilever|HSBC|Barclays|BBC|UNICEF|Red Cross|Deutsche Bank|
    Oxford University
    """
)
_TEMPLATES = _words(
    """
    My name is {PERSON} and I live in {PLACE}.|Please send the contract to {PERSON} at {ORGANISATION}.|
    {PERSON} called about the late delivery.|Dear {PERSON}, thank you for your message.|
    I spoke with {PERSON} from {ORGANISATION} yesterday.|We are moving from {PLACE} to {PLACE} in March.|
    Kind regards, {PERSON}|{PERSON} works for {ORGANISATION} in {PLACE}.|
    The patient, {PERSON}, was seen on 3 May 2026.|{ORGANISATION} has not paid invoice 20481.|
    Is {PERSON} still your manager?|The parcel is on its way to {PLACE}.|
    The claimant {PERSON} was employed by {ORGANISATION}.|She was born in {PLACE} and studied in {PLACE}.|
    Forward this to {PERSON} and {PERSON}, please.|He left {ORGANISATION} after ten years.|
    Ms. {LAST} will call you back.|Dr. {LAST} prescribed 20 mg.|Mr {LAST} did not attend the hearing.|
    Our office in {PLACE} is closed on Monday.|{PERSON} and her husband {PERSON} want to cancel.|
    {PERSON}'s account was charged twice.|Hi {FIRST}, any news about my order?|
    Ticket opened by {PERSON} ({ORGANISATION}).|The meeting with {ORGANISATION} takes place in {PLACE}.|
    According to {PERSON}, the printer at the {PLACE} branch is broken.|
    Signed by {PERSON} on behalf of {ORGANISATION}.|I flew from {PLACE} with {PERSON}.|
    Call {FIRST} back before noon.|Customer: {PERSON}, city: {PLACE}, employer: {ORGANISATION}
    """
)
_WITHOUT = _words(
    """
    The {PRODUCT} server restarted twice in {MONTH}.|Please install {PRODUCT} before {DAY}.|
    Order {NUMBER} ships on {DAY}.|Invoice INV-{NUMBER} is due in {MONTH}.|
    Our team uses {PRODUCT} and {PRODUCT}.|The {PRODUCT} licence ends in {MONTH} 2027.|
    def load_user(user_id: int) -> User: ...|class OrderService(BaseService): pass|
    SELECT Id, Total FROM Orders WHERE Id = {NUMBER};|raise ValueError('Invalid token') from None|
    Error: Connection refused (code {NUMBER})|Total Amount: 1,200 EUR|Thank You for Your Order {NUMBER}!|
    Terms and Conditions apply.|Step 3: Click Save, then Close.|
    The Chief Financial Officer approved the budget.|Dear Customer, your Refund Request was received.|
    Dear Sir or Madam,|Hello everyone, the sprint ends on {DAY}.|
    README: see Getting Started, then Advanced Usage.|Kind regards, your Support Team|
    Shipping Address missing for order {NUMBER}.|Happy New Year and Merry Christmas!|
    The font is Helvetica, the colour is Indigo.|Version 4.2 of {PRODUCT} fixes the Login Page.|
    Ticket {NUMBER}: Password Reset|Status: Completed, Priority: High, Type: Bug|
    The manual is available in English, German and Spanish.|Press Ctrl+Alt+Delete or open Task Manager.|
    Monday, Tuesday and {DAY} are fully booked.|const Button = styled.div;|
    Passengers must show an ID Card at Gate B{NUMBER}.|Room Service is available until midnight.|
    The Return Policy covers 30 days.
    """
)
_PRODUCTS = _words(
    """
    Postgres|Kubernetes|Docker|Photoshop|Excel|PowerPoint|Windows 11|Redis|Kafka|Jenkins|Grafana|Firefox|
    Chrome|iPhone 15|Galaxy S24|PlayStation 5|ThinkPad|Terraform|Ansible|Python 3.12|TypeScript|Outlook|
    Jira|Slack|Elasticsearch|RabbitMQ
    """
)
_MONTHS = _words(
    """
    January|February|March|April|May|June|July|August|September|October|November|December
    """
)
_DAYS = _words(
    """
    Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday
    """
)


def _person(random: Random) -> str:
    middle = f" {random.choice('ABCDEFGHJKLMRST')}." if random.randrange(8) == 0 else ""
    return f"{random.choice(_FIRST)}{middle} {random.choice(_LAST)}"


def _organisation(random: Random) -> str:
    if random.randrange(3) == 0:
        return random.choice(_KNOWN)
    return f"{random.choice(_STEMS)} {random.choice(_ENDINGS)}"


_MAKERS: dict[str, tuple[str, Callable[[Random], str]]] = {
    "PERSON": ("PERSON", _person),
    "FIRST": ("PERSON", lambda random: random.choice(_FIRST)),
    "LAST": ("PERSON", lambda random: random.choice(_LAST)),
    "PLACE": ("PLACE", lambda random: random.choice(_PLACES)),
    "ORGANISATION": ("ORGANISATION", _organisation),
}
_FILLERS: dict[str, Callable[[Random], str]] = {
    "PRODUCT": lambda random: random.choice(_PRODUCTS),
    "MONTH": lambda random: random.choice(_MONTHS),
    "DAY": lambda random: random.choice(_DAYS),
    "NUMBER": lambda random: values.digits(random, "1####"),
}


def sentences(count: int = SENTENCES, seed: int = 18) -> Iterator[tuple[str, str]]:
    """Yield `en` and marked sentences; every third one has no name."""
    random = Random(seed)
    for number in range(count):
        template = random.choice(_WITHOUT if number % 3 == 2 else _TEMPLATES)
        yield "en", re.sub(r"\{([A-Z]+)\}", lambda found: _filled(random, found[1]), template)


def _filled(random: Random, name: str) -> str:
    if name in _FILLERS:
        return _FILLERS[name](random)
    kind, make = _MAKERS[name]
    return f"<<{kind} {make(random)}>>"


HARD: tuple[tuple[str, str], ...] = tuple(
    ("en", text)
    for text in (
        # People
        "<<PERSON Jane Doe>>",
        "Name: <<PERSON Doe, Jane>>",
        "<<PERSON JANE DOE>> signed the form.",
        "<<PERSON Mary-Anne O'Neill>> rang twice.",
        "This is <<PERSON J. R. Hartley>> speaking.",
        "Sir <<PERSON Ian McKellen>> gave a speech.",
        "Prof. <<PERSON Nakamura>> is on leave.",
        "Mrs <<PERSON van der Berg>> lost her card.",
        "I am <<PERSON Xiuying Zhang>>, the tenant.",
        "my name is <<PERSON Olumide Bankole>>",
        "Hi <<PERSON Tom>>,\nthe order is late.",
        "Thanks,\n<<PERSON Rebecca>>",
        "Best regards,\n<<PERSON Daniel Whitaker>>\nHead of Sales",
        "From: <<PERSON Alice Cooper>> <<<EMAIL alice@example.org>>>",
        "cc <<PERSON Bob Marsh>>; <<PERSON Cindy Lowe>>",
        "<<PERSON April Summers>> starts in May.",
        "Please ask <<PERSON Will>> whether he will come.",
        "<<PERSON Mark>> marked the exam.",
        "<<PERSON Paris Hilton>> flew to <<PLACE Paris>>.",
        "The lawyer of <<PERSON Muhammad Al-Sayed>> called.",
        "<<PERSON Jean-Luc Moreau>>'s passport expired.",
        "Patient <<PERSON Eleanor Vance>>, born 12/03/1981",
        "witness: <<PERSON Harold Finch>>",
        "Meet <<PERSON Zoë Kravitz-Lang>> at 5 pm.",
        "Did <<PERSON Emily>> tell <<PERSON George>>?",
        "The driver was <<PERSON Ahmed Yilmaz>>.",
        '{"customer": "<<PERSON Jane Doe>>", "id": 7}',
        "- <<PERSON Laura Palmer>> (absent)",
        "Deliver to <<PERSON Nguyen Van An>> only.",
        # Places
        "He lives at 12 Baker Street, <<PLACE London>>.",
        "The train to <<PLACE Newcastle upon Tyne>> is late.",
        "We met in <<PLACE St. Louis>> last year.",
        "Ship it to <<PLACE Springfield>>, <<PLACE Illinois>>.",
        "city: <<PLACE Rotterdam>>",
        "From <<PLACE Addis Ababa>> to <<PLACE Dar es Salaam>>.",
        "I grew up near <<PLACE Lake Geneva>>.",
        "She moved to the <<PLACE Netherlands>>.",
        "Holidays in <<PLACE Sri Lanka>> and <<PLACE Nepal>>",
        "Born: <<PLACE Kraków>>",
        "The <<PLACE Manchester>> branch closes early.",
        "a hotel in <<PLACE Côte d'Ivoire>>",
        # Organisations
        "I bank with <<ORGANISATION Wells Fargo>>.",
        "Employer: <<ORGANISATION Johnson & Sons Ltd>>",
        "<<ORGANISATION Goldman Sachs>> declined the offer.",
        "The invoice of <<ORGANISATION Bluebird Logistics GmbH>> is wrong.",
        "She studies at <<ORGANISATION Stanford University>>.",
        "He was treated at <<ORGANISATION St Mary's Hospital>>.",
        "<<ORGANISATION NASA>> and the <<ORGANISATION FBI>> answered.",
        "a contract with <<ORGANISATION Procter & Gamble>>",
        "<<ORGANISATION Acme Inc.>> v. <<ORGANISATION Widget Corp.>>",
        "I work for <<ORGANISATION Lloyds Bank plc>>.",
        "<<PERSON Ana Lima>> joined <<ORGANISATION Volkswagen>> in <<PLACE Wolfsburg>>.",
        # Words that only look like names
        "May I march in August?",
        "The March release adds Dark Mode.",
        "Frozen: Will the job Mark itself Done?",
        "Python and Java are languages; Ruby too.",
        "An Apple a day.",
        "the Amazon order number is 203-4471",
        "SKU: Jordan-4711-RED",
        "git checkout Release-2026",
        "from flask import Flask, Request",
        "NullPointerException at Main.java:42",
        "GET /Users/Profile HTTP/1.1",
        "HTTP 404 Not Found",
        "The New Year Sale ends Sunday.",
        "Monday Morning Meeting",
        "Select Country or Region",
        "First Name, Last Name, City",
        "TODO: Fix the Parser",
        "The Vice President of Sales resigned.",
        "VAT, ISO and PDF are abbreviations.",
        "Wi-Fi, Bluetooth and USB are off.",
        "Turn Left at the Second Exit",
        "Your Account Has Been Suspended",
        "English breakfast and French fries",
        "Order Confirmation #20481",
        "The Bible, the Quran and the Torah",
        "Windows Update failed at 10:15",
        "Model: gpt-5-mini, Temperature: 0.2",
        "- [ ] Write Tests",
        "## Getting Started",
        "Christmas and Easter are holidays.",
        "Chapter Seven: Results and Discussion",
        "true, false, None, NaN",
    )
)
"""Hand-written texts, as of `hard_cases.TEXTS`."""


LATER: tuple[tuple[str, str], ...] = tuple(
    ("en", text)
    for text in (
        "Good morning, I'd like to speak to Mrs <<PERSON Abernathy>> about my mortgage with <<ORGANISATION Nationwide>>.",
        "After the merger, <<PERSON Deepak Menon>> relocated from <<PLACE Bangalore>> to <<PLACE Phoenix>>.",
        "<<ORGANISATION Vodafone>> cut my line off again, says <<PERSON Gareth Pugh>>.",
        "The defendant, <<PERSON Marcus Oyelaran>>, resides in <<PLACE Croydon>>.",
        "Ref 88213: meeting notes. Attendees: <<PERSON Sinead Byrne>>, <<PERSON Tomasz Zielinski>>, <<PERSON Fiona Grant>>.",
        "Could you forward this to <<PERSON Hyun-woo Choi>>?",
        "We stayed two nights in <<PLACE Marrakesh>> before flying to <<PLACE Casablanca>>.",
        "Payment received from <<ORGANISATION Hargreaves Lansdown>>.",
        "<<PERSON Bernadette>> says the boiler is leaking.",
        "I had surgery at <<ORGANISATION King's College Hospital>> in <<PLACE London>>.",
        "Regards,\n<<PERSON Ignacio Fuentes>>\nSenior Buyer",
        "Is there a branch near <<PLACE Wolverhampton>>?",
        "<<PERSON Mohammed Iqbal>> v <<ORGANISATION Thames Water>>",
        "Tell <<PERSON Katarzyna>> that the keys are with the porter.",
        "Our supplier <<ORGANISATION Foxconn>> has plants in <<PLACE Shenzhen>>.",
        "This is <<PERSON Rachel Stein>> from <<ORGANISATION Aviva>>.",
        "Dr. <<PERSON Amara Nwosu>> referred me.",
        "Next of kin: <<PERSON Pauline Archer>>",
        "the landlord, <<PERSON Yusuf Demir>>, never answers",
        "Booking for <<PERSON Chen Guangyu>>, flight to <<PLACE Taipei>>",
        "Retry the Webhook after 30 Seconds.",
        "The Gradle build uses Kotlin 2.1 and Spring Boot.",
        "Open Settings > Privacy > Location Services.",
        "Bug: Dark Theme flickers in Safari.",
        "Dear Hiring Manager, please find my CV attached.",
        "Black Friday deals start in November.",
        "INFO Worker started, Queue=default",
        "Use the Export Wizard to create a Pivot Table.",
        "PO 77120 covers Steel Pipes and Copper Wire.",
        "Annual General Meeting on Thursday",
        "The Board of Directors met twice.",
        "Press the Red Button, then Green.",
        "ImportError: cannot import name 'Session'",
        "Net Promoter Score rose in Q3.",
        "Please rate Your Experience from One to Five.",
        "Chicken Tikka and Garlic Bread, no onions.",
        "Flight BA117 boards at Terminal 5.",
        "Model X supports Fast Charging.",
        "General Data Protection Regulation",
        "Blood Pressure 120/80, Heart Rate 64",
    )
)
"""Hand-written after the rules that find names, which were not changed to pass them."""
