"""Lists of English words: those that names do not have, and those that tell the kind of a name."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> frozenset[str]:
    return frozenset(each.strip() for each in text.replace("\n", " ").split("|"))


GREETINGS = _words(
    """
    the a an dear hi hello hey call ask tell ping email mail contact meet thanks thank regards is was
    are did does has have had please press click select open close from to in at by for with via and or
    cc mr mrs ms miss mx dr prof sir dame lord lady rev
    """
)
"""Words before a name that a model takes for its beginning."""

ORDINARY = _words(
    """
    about accept access account action activity add additional address admin administrator advanced
    agent agreement alert all amount analysis api app application approval apply archive attachment
    audit author available back balance basic batch bill billing body book booking bug build business
    button buyer calendar call cancel card case category change channel chapter chat check city claim
    class clause click client close cloud code color colour column command comment company complete
    completed condition conditions configuration confirm confirmation contact content contract control
    copy cost country create created credit currency customer daily dark dashboard data database date
    day deadline dear debit default delete delivery department description design desk detail details
    device director discount discussion document domain done double download draft due edit editor email
    employee employer end enter entry error event exception exit expert export failed
    false feature feedback fee field figure file filter final finance financial finish first fix folder
    font for form format found from full function gate general getting global go good group guest guide
    hello help hi high history home hour how id image import in inbox incident index info information
    input install instructions integration interface internal internet introduction invalid invoice
    issue item items job join key kind language last launch law layout left legal letter level licence
    license line link list live load loan local location lock log login logout low madam mail main
    manager manual map market master medium meeting member memo menu merchant message method middle
    minor mobile mode model module monday month monthly morning name network new next no none normal not
    note notes notice notification null number object off office ok old on online open operator option
    options order orders other outcome output overview owner page paid panel parser part partner parts
    password patient pay payment pending people period permission phone plan please policy position post
    premium press preview price priority privacy problem process product profile program project proof
    property purchase quality quantity query question queue quick rate read reason receipt record
    reference refund region register regards release reminder report request required reset resource
    response result results return review right role room rule run sale sales save schedule search
    second section security select seller send sender server service session set settings setup share
    shipment shipping shop show sign sir site size skip software source staff start started state
    statement status step stop street subject submit subscription success summary supplier support
    suspended system table tag target task tax team template tenant terms test tests text thank thanks
    the theme ticket time title to today token tomorrow tool total tracking training transaction
    transfer travel true turn type unit unknown unsubscribe until update upgrade upload url usage user
    username users valid value vendor version vice view visitor warning web website week weekly welcome
    window witness work workflow world write year yes yesterday you your january february march april
    may june july august september october november december monday tuesday wednesday thursday friday
    saturday sunday mon tue tues wed thu thurs fri sat sun christmas easter ramadan hanukkah diwali
    thanksgiving halloween english german french spanish italian dutch polish portuguese russian chinese
    japanese arabic hindi korean
    """
)
"""Words that make no name alone or together, also with a capital as in headings and buttons."""

ABBREVIATIONS = _words(
    """
    AI API ASCII AWS CEO CFO CI CLI COO CPU CSS CSV CTO CV DB DNS EDI ERP ETA EUR CHF USD GBP JPY PLN
    FAQ FTP GB GDPR GMT GPU HR HTML HTTP HTTPS IBAN ID IMAP IP ISBN ISO IT JSON JWT KB KPI LLM MB MFA NA
    NDA OCR OK OS PC PDF PII PIN PM PO POS QA QR RAM REST RFC ROI SDK SEO SKU SLA SMS SMTP SQL SSD SSH
    SSL SSN SSO TB TLS TODO TXT UI URI URL USB UTC UTF UUID UX VAT VIP VM VPN WAL XML YAML ZIP EOD ASAP
    FYI BTW RSVP TBD TBA PS
    """
)

PRODUCTS = _words(
    """
    Postgres PostgreSQL MySQL SQLite MongoDB Redis Kafka RabbitMQ Elasticsearch Kibana Logstash Grafana
    Prometheus Kubernetes Docker Podman Helm Terraform Ansible Jenkins GitHub GitLab Bitbucket Jira
    Confluence Trello Slack Zoom Teams Outlook Excel Word PowerPoint Photoshop Illustrator Acrobat Figma
    Firefox Chrome Chromium Safari Edge Windows macOS Linux Ubuntu Debian Android iOS iPhone iPad
    MacBook ThinkPad Kindle PlayStation Xbox Python Java JavaScript TypeScript Rust Ruby Kotlin Swift
    Golang Node Django Flask FastAPI Spring React Angular Vue Svelte Nginx Apache Hadoop Spark Airflow
    Snowflake Databricks Tableau Gmail WhatsApp Telegram Bluetooth Wi-Fi
    """
)
"""Products of everyday work, which a model takes for people and organisations."""

INSTITUTIONS = _words(
    """
    Ltd Limited LLC LLP Inc GmbH AG plc PLC Corp Corporation Co Company Holdings Group Bank Foundation
    University College School Institute Hospital Clinic Insurance Logistics Partners Association Council
    Ministry Airlines
    """
)
"""Last words of names of organisations."""

PLACES = _phrases(
    """
    Afghanistan|Albania|Algeria|Angola|Argentina|Armenia|Australia|Austria|Azerbaijan|Bahrain|
    Bangladesh|Belarus|Belgium|Bolivia|Bosnia|Botswana|Brazil|Bulgaria|Cambodia|Cameroon|Canada|Chile|
    China|Colombia|Croatia|Cuba|Cyprus|Czechia|Denmark|Ecuador|Egypt|England|Estonia|Ethiopia|Finland|
    France|Germany|Ghana|Greece|Guatemala|Haiti|Honduras|Hungary|Iceland|India|Indonesia|Iran|Iraq|
    Ireland|Israel|Italy|Jamaica|Japan|Kazakhstan|Kenya|Kosovo|Kuwait|Latvia|Lebanon|Liberia|Libya|
    Lithuania|Luxembourg|Malaysia|Malta|Mexico|Moldova|Mongolia|Montenegro|Morocco|Mozambique|Myanmar|
    Namibia|Nepal|Netherlands|New Zealand|Nicaragua|Nigeria|Norway|Oman|Pakistan|Panama|Paraguay|Peru|
    Philippines|Poland|Portugal|Qatar|Romania|Russia|Rwanda|Saudi Arabia|Scotland|Senegal|Serbia|
    Singapore|Slovakia|Slovenia|Somalia|South Africa|South Korea|Spain|Sri Lanka|Sudan|Sweden|
    Switzerland|Syria|Taiwan|Tanzania|Thailand|Tunisia|Turkey|Uganda|Ukraine|United Kingdom|
    United States|Uruguay|Uzbekistan|Venezuela|Vietnam|Wales|Yemen|Zambia|Zimbabwe|Europe|Africa|Asia|
    UK|USA|Amsterdam|Athens|Auckland|Baghdad|Bangkok|Barcelona|Beijing|Belfast|Belgrade|Berlin|
    Birmingham|Bogotá|Boston|Brisbane|Bristol|Brussels|Bucharest|Budapest|Buenos Aires|Cairo|Cambridge|
    Cape Town|Cardiff|Chennai|Chicago|Cologne|Copenhagen|Dallas|Delhi|Denver|Detroit|Dubai|Dublin|
    Edinburgh|Frankfurt|Geneva|Glasgow|Hamburg|Hanoi|Helsinki|Hong Kong|Istanbul|Jakarta|Jerusalem|
    Johannesburg|Karachi|Kyiv|Lagos|Leeds|Lima|Lisbon|Liverpool|London|Los Angeles|Lyon|Madrid|
    Manchester|Manila|Marseille|Melbourne|Mexico City|Miami|Milan|Montreal|Moscow|Mumbai|Munich|Nairobi|
    Naples|New York|Osaka|Oslo|Ottawa|Oxford|Paris|Philadelphia|Porto|Prague|Riga|Rio de Janeiro|Rome|
    Rotterdam|San Diego|San Francisco|Santiago|Seattle|Seoul|Shanghai|Stockholm|Stuttgart|Sydney|
    Tallinn|Tehran|Tel Aviv|Tokyo|Toronto|Turin|Valencia|Vancouver|Venice|Vienna|Vilnius|Warsaw|
    Washington|Zagreb|Zurich|Accra|Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|
    Delaware|Florida|Hawaii|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|
    Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada|New Hampshire|
    New Jersey|New Mexico|North Carolina|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island|
    South Carolina|South Dakota|Tennessee|Texas|Utah|Vermont|Wisconsin|Wyoming|Bavaria|Kent|Yorkshire|
    Cornwall|Essex
    """
)
"""Countries, states and large cities: a model takes some of them for people."""
