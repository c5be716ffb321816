"""English questions about cities, currencies, languages and scripts; see `questions`."""

THINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "city": {
        "train": (
            "In which country is {Z}?",
            "Where is the city of {Z}?",
            "Which country does the city {Z} belong to?",
            "What country or territory is {Z} in?",
        ),
        "dev": ("Of which country is {Z} a city?", "The city {Z} is part of which place?"),
        "test": ("If I visit {Z}, which country am I in?", "On whose territory does the town of {Z} stand?"),
    },
    "zone": {
        "train": (
            "What is the time zone identifier of {Z}?",
            "Which tz database name covers {Z}?",
            "What zone name does a computer use for {Z}?",
            "How is the time zone of {Z} called in software?",
        ),
        "dev": ("Under which name does the tz database list {Z}?", "What is the zone ID for local time in {Z}?"),
        "test": (
            "Which timezone setting should a server in {Z} have?",
            "What string identifies the zone of {Z} on computers?",
        ),
    },
    "offset": {
        "train": (
            "What is the UTC offset of {Z}?",
            "What is the standard time in {Z}?",
            "How far is {Z} from UTC?",
            "Which UTC time do clocks in {Z} follow?",
        ),
        "dev": ("How many hours is {Z} ahead of or behind UTC?", "By what UTC difference are clocks set in {Z}?"),
        "test": (
            "To what standard time are watches in {Z} adjusted?",
            "How much does {Z} deviate from universal time?",
        ),
    },
    "position": {
        "train": (
            "What are the coordinates of {Z}?",
            "At what latitude and longitude is {Z}?",
            "What is the geographical position of {Z}?",
            "How far north or south is {Z}?",
        ),
        "dev": ("What is the latitude of {Z}?", "Where on the globe is {Z}, in degrees?"),
        "test": ("Which longitude is {Z} on?", "In degrees, what location does {Z} have on the map?"),
    },
    "noon": {
        "train": (
            "What time is it in {W} when it is noon in {Z}?",
            "When it is 12:00 in {Z}, what time is it in {W}?",
            "If it is midday in {Z}, what do clocks show in {W}?",
            "Which time in {W} corresponds to noon in {Z}?",
        ),
        "dev": ("At noon in {Z}, how late is it in {W}?", "Midday in {Z} is what hour in {W}?"),
        "test": (
            "I call {W} from {Z} at twelve o'clock: what time is it there?",
            "Noon in {Z}: what does a clock in {W} read?",
        ),
    },
    "iso4217": {
        "train": (
            "What is the currency code of the {C}?",
            "How do banks abbreviate the {C}?",
            "Which ISO 4217 code stands for the {C}?",
            "What three letters denote the {C}?",
        ),
        "dev": ("Under which code is the {C} traded?", "What is the international abbreviation of the {C}?"),
        "test": ("Which letters mean the {C} on an exchange board?", "What is the {C} called in three-letter form?"),
    },
    "decimals": {
        "train": (
            "How many decimal places does the {C} have?",
            "How many digits after the point do {C} amounts have?",
            "With how many decimals are prices in the {C} written?",
            "What number of decimals is used for the {C}?",
        ),
        "dev": ("To how many decimals is the {C} rounded?", "Do amounts in the {C} have decimals, and how many?"),
        "test": ("How precise are sums in the {C}, in decimal digits?", "How many fraction digits does the {C} take?"),
    },
    "sign": {
        "train": (
            "What is the symbol of the {C}?",
            "Which sign is used for the {C}?",
            "How is the {C} marked on price tags?",
            "What currency symbol does the {C} have?",
        ),
        "dev": ("Which character stands for the {C}?", "How is the {C} abbreviated locally?"),
        "test": ("What is printed beside a price given in the {C}?", "By what mark do you recognise the {C}?"),
    },
    "usedin": {
        "train": (
            "Where is the {C} used?",
            "In which countries can you pay with the {C}?",
            "Which places use the {C} as money?",
            "Where is the {C} legal tender?",
        ),
        "dev": ("Which country's money is the {C}?", "In what places does the {C} circulate?"),
        "test": ("Where would I spend the {C}?", "Who has the {C} as their official money?"),
    },
    "iso639": {
        "train": (
            "What is the language code of {L}?",
            "Which ISO 639 code stands for {L}?",
            "How is the language {L} abbreviated?",
            "What code marks text in {L}?",
        ),
        "dev": ("Which tag do programs use for {L}?", "What is the standard short form of the language {L}?"),
        "test": ("What letters identify {L} in software?", "How does the language standard shorten {L}?"),
    },
    "script": {
        "train": (
            "Which script is {L} written in?",
            "What writing system does {L} use?",
            "What alphabet is used for {L}?",
            "In what letters are {L} texts written?",
        ),
        "dev": ("What kind of writing does {L} have?", "Which characters are used to write {L}?"),
        "test": ("If I see a page in {L}, what script will it be in?", "How is the language {L} put on paper?"),
    },
    "autonym": {
        "train": (
            "What is the native name of {L}?",
            "What do speakers of {L} call their language?",
            "How is {L} called in {L} itself?",
            "What name does the language {L} have for itself?",
        ),
        "dev": ("By what name do its own speakers know {L}?", "How is the word for {L} written in that language?"),
        "test": ("What would a native speaker call the {L} language?", "What is {L} named by those who speak it?"),
    },
    "day": {
        "train": (
            "What is {D} called in {L}?",
            "How do you say {D} in {L}?",
            "What is the {L} word for {D}?",
            "Which word do speakers of {L} use for {D}?",
        ),
        "dev": ("How is {D} written in {L}?", "What name does {D} have in {L}?"),
        "test": ("Translate {D} into {L}.", "How would a calendar in {L} label {D}?"),
    },
    "officialin": {
        "train": (
            "Where is {L} an official language?",
            "In which countries is {L} official?",
            "Which places have {L} as an official language?",
            "Where does {L} have official status?",
        ),
        "dev": ("Which governments recognise {L} as official?", "In what places are laws written in {L}?"),
        "test": ("Where do authorities work in {L}?", "Name the lands whose state language is {L}."),
    },
    "iso15924": {
        "train": (
            "What is the ISO code of the {S} script?",
            "Which four-letter code stands for the {S} script?",
            "How is the {S} script abbreviated?",
            "What ISO 15924 code does the {S} script have?",
        ),
        "dev": ("Under which code is the {S} script registered?", "What code do libraries use for {S} writing?"),
        "test": ("Which four letters denote the {S} writing system?", "What is the short code of {S} characters?"),
    },
}
