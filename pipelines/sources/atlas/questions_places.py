"""English questions about territories; see `questions`."""

PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "region": {
        "train": (
            "Where in the world is {T}?",
            "Which region does {T} belong to?",
            "In what part of the globe is {T} found?",
            "On which continent is {T}?",
            "What world region includes {T}?",
        ),
        "dev": ("Which area of the world map holds {T}?", "To what geographic region is {T} assigned?"),
        "test": (
            "Geographically speaking, where does {T} lie?",
            "What continent would I travel to in order to see {T}?",
        ),
    },
    "code": {
        "train": (
            "What is the ISO country code of {T}?",
            "How is {T} abbreviated in two letters?",
            "Which short letter code stands for {T}?",
            "What are the ISO 3166 codes for {T}?",
            "What three-letter code is used for {T}?",
        ),
        "dev": ("Which letters represent {T} on country lists?", "What abbreviation does ISO assign to {T}?"),
        "test": (
            "How do you shorten the name of {T} to an official letter code?",
            "Give the standard letter codes of {T}.",
        ),
    },
    "domain": {
        "train": (
            "What internet domain does {T} have?",
            "How do web addresses from {T} end?",
            "Which top-level domain belongs to {T}?",
            "What is the domain suffix for websites {inT}?",
            "What internet country extension is used {inT}?",
        ),
        "dev": ("Which ending do sites registered {inT} carry?", "What is the national web domain of {T}?"),
        "test": ("What do URLs of websites from {T} finish with?", "Which internet suffix was assigned to {T}?"),
    },
    "currency": {
        "train": (
            "What is the currency of {T}?",
            "What money do people pay with {inT}?",
            "Which currency is used {inT}?",
            "What is legal tender {inT}?",
            "Which money do I need for a trip to {T}?",
            "What do shops {inT} accept as cash?",
        ),
        "dev": ("In what currency are salaries {inT} paid?", "Which kind of money circulates {inT}?"),
        "test": ("What banknotes should a traveller carry {inT}?", "With what money are things bought and sold {inT}?"),
    },
    "former": {
        "train": (
            "What was the former currency of {T}?",
            "Which old money was once used {inT}?",
            "What currency did {T} use in the past?",
            "Which currency was withdrawn {inT}?",
            "What did people {inT} pay with in earlier times?",
        ),
        "dev": ("Which money is no longer valid {inT}?", "What was the previous legal tender {inT}?"),
        "test": ("Before the present money, what was used for payment {inT}?", "Name a historical currency of {T}."),
    },
    "official": {
        "train": (
            "What is the official language of {T}?",
            "Which language does the government of {T} use?",
            "In which language are laws written {inT}?",
            "What language has official status {inT}?",
            "Which official languages does {T} have?",
        ),
        "dev": ("What language do the authorities {inT} work in?", "Which tongue is official {inT}?"),
        "test": ("In what language would I read a public document {inT}?", "What is the state language {inT}?"),
    },
    "share": {
        "train": (
            "How many people {inT} speak {L}?",
            "What percentage of the population of {T} speaks {L}?",
            "How widespread is {L} {inT}?",
            "What share of the people {inT} knows {L}?",
            "How common are {L} speakers {inT}?",
        ),
        "dev": ("How large is the part of the population {inT} that understands {L}?", "Is {L} widely spoken {inT}?"),
        "test": (
            "What fraction of the inhabitants of {T} can talk in {L}?",
            "How big is the {L}-speaking group {inT}?",
        ),
    },
    "week": {
        "train": (
            "On which day does the week start {inT}?",
            "What is the first day of the week {inT}?",
            "Which day comes first on a calendar {inT}?",
            "With what day do weeks begin {inT}?",
        ),
        "dev": ("Which weekday opens the week {inT}?", "What day is in the leftmost column of calendars from {T}?"),
        "test": (
            "If I buy a calendar {inT}, which day will be printed first?",
            "What is day number one of a week {inT}?",
        ),
    },
    "clock": {
        "train": (
            "Do people {inT} use the 12-hour or the 24-hour clock?",
            "What time format is used {inT}?",
            "How is the time of day written {inT}?",
            "Which clock format is usual {inT}?",
        ),
        "dev": ("Are timetables {inT} in 12-hour or 24-hour time?", "How do people note the hour {inT}?"),
        "test": (
            "Will a train schedule {inT} count hours up to 12 or to 24?",
            "In what notation are hours given {inT}?",
        ),
    },
    "dates": {
        "train": (
            "What is the date format {inT}?",
            "In what order are dates written {inT}?",
            "How do people write the date {inT}?",
            "Does the day or the month come first in dates {inT}?",
        ),
        "dev": ("How is a short date arranged {inT}?", "What order of day, month and year is customary {inT}?"),
        "test": ("How should I fill in the date on a form {inT}?", "Which part of a date is put first {inT}?"),
    },
    "decimal": {
        "train": (
            "What is the decimal separator {inT}?",
            "Do people {inT} write decimals with a comma or a point?",
            "Which sign separates decimals {inT}?",
            "How are decimal numbers written {inT}?",
        ),
        "dev": ("What mark stands before the decimals of a number {inT}?", "Is it a decimal comma or point {inT}?"),
        "test": (
            "How would one and a half be punctuated as a number {inT}?",
            "Which character splits whole and fraction {inT}?",
        ),
    },
    "ownname": {
        "train": (
            "What is {T} called in {L}?",
            "How do you say {T} in {L}?",
            "What is the {L} name of {T}?",
            "How do speakers of {L} write the name of {T}?",
        ),
        "dev": ("Which word does {L} have for {T}?", "Under what name is {T} known in {L}?"),
        "test": ("How would someone who speaks {L} refer to {T}?", "What is the local name of {T}, in {L}?"),
    },
}
