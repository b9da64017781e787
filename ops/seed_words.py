"""The words that seeded data is made of. Names of people and companies are combined at random; web addresses end in .example (RFC 2606)."""

from __future__ import annotations

TEAMS = ("alpha_delta", "epsilon_zeta", "iota")
GREEK = (
    "Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta", "Eta", "Theta", "Iota", "Kappa", "Lambda", "Mu", "Nu", "Xi",
    "Omicron", "Pi", "Rho", "Sigma", "Tau", "Upsilon", "Phi", "Chi", "Psi", "Omega",
)  # fmt: skip
AGENT_ROLES = ("researcher", "analyst", "writer", "negotiator", "developer", "reviewer", "scout")
SPECIALIZATIONS = ("ingredients", "packaging", "regulation", "pricing", "logistics", "retail", "bakery", "dairy")
TOOLS = ("search", "crm", "spreadsheet", "mail", "browser", "sql")
MODELS = ("grok", "claude-opus", "gemini-ultra")
INTERACTIONS = ("collaboration", "delegation", "sync")
# Mean level of each hormone, in the order of the columns avg_* of consciousness_timeline.
HORMONES = {"dopamine": 1.0, "oxytocin": 1.0, "adrenaline": 0.9, "cortisol": 0.3}

FIRST_NAMES = (
    "Anna", "Ben", "Chiara", "David", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kaja", "Liam", "Mira",
    "Nils", "Olga", "Paolo", "Quentin", "Rosa", "Sven", "Tara", "Umberto", "Vera", "Wim", "Xenia", "Yusuf", "Zoe",
    "Amir", "Birgit", "Carlos", "Dana", "Emil", "Fatima",
)  # fmt: skip
LAST_NAMES = (
    "Almeida", "Berg", "Costa", "Dupont", "Eriksen", "Fischer", "Garcia", "Hansen", "Ivanov", "Jansen", "Kowalski",
    "Larsen", "Moreau", "Novak", "Okafor", "Petrov", "Quist", "Rossi", "Schmidt", "Tanaka", "Ueda", "Vogel", "Weber",
    "Xu", "Yilmaz", "Zimmer",
)  # fmt: skip
PERSONA_ROLES = (
    "Head of Procurement", "Chief Executive", "Plant Manager", "R&D Director", "Quality Manager", "Category Manager",
    "Supply Chain Lead", "Marketing Director", "Chief Financial Officer", "Food Technologist",
)  # fmt: skip
INDUSTRIES = (
    "bakery", "dairy", "confectionery", "beverages", "meat", "seafood", "frozen food", "snacks", "ingredients",
    "plant-based", "baby food", "pet food", "catering", "retail", "distribution", "packaging",
)  # fmt: skip
MBTI = tuple(a + b + c + d for a in "EI" for b in "NS" for c in "FT" for d in "JP")
SDI = ("Blue", "Green", "Red", "Red-Blue", "Red-Green", "Blue-Green", "Hub")
SOURCES = ("linkedin", "hubspot", "manual", "scraped")
CHANNELS = ("mail", "phone", "fair", "video")
PAINS = (
    "ingredient prices", "short shelf life", "late deliveries", "new labelling rules", "energy costs", "waste",
    "recalls", "staff shortage",
)  # fmt: skip
TECHNOLOGIES = ("SAP", "Salesforce", "HubSpot", "Odoo", "Excel", "Power BI", "Trace One")

COMPANY_FIRST = (
    "Golden", "Green", "Nordic", "Alpine", "River", "Harvest", "Sunrise", "Royal", "Coastal", "Valley", "Prairie",
    "Orchard", "Summit", "Amber", "Silver", "Heritage", "Meadow", "Stone", "Blue", "Old Town",
)  # fmt: skip
COMPANY_LAST = (
    "Foods", "Bakeries", "Dairy", "Mills", "Ingredients", "Farms", "Kitchens", "Beverages", "Provisions", "Seafood",
    "Confections", "Nutrition",
)  # fmt: skip
# Name, longitude, latitude.
TOWNS = (
    ("Rotterdam", 4.48, 51.92), ("Lyon", 4.84, 45.76), ("Parma", 10.33, 44.80), ("Hamburg", 9.99, 53.55),
    ("Aarhus", 10.20, 56.16), ("Chicago", -87.63, 41.88), ("Minneapolis", -93.27, 44.98), ("Valencia", -0.38, 39.47),
    ("Osaka", 135.50, 34.69), ("Sydney", 151.21, -33.87),
)  # fmt: skip
SECTORS = ("ingredients", "manufacturing", "distribution")
CATEGORIES = ("bread", "cheese", "chocolate", "juice", "sausage", "sauce", "cereal", "yoghurt", "pasta", "biscuits")
CERTIFICATIONS = ("organic", "halal", "kosher", "iso22000")
CYCLES = ("monthly", "quarterly", "yearly", "tender")
SEASONS = ("Q1", "Q2", "Q3", "Q4")
RELIABILITY = ("register", "press", "estimate")
KINDS = ("Organic", "Classic", "Low-sugar", "Gluten-free", "Premium", "Family", "Vegan")
INGREDIENTS = (
    "wheat flour", "sugar", "milk", "butter", "salt", "cocoa", "oats", "soy lecithin", "yeast", "apple", "tomato",
    "rapeseed oil",
)  # fmt: skip
ALLERGENS = ("gluten", "milk", "soy", "nuts", "egg", "fish")
UNITS = ("kg", "litre", "piece", "pallet")
TRENDS = ("growing", "stable", "declining")
AUTHORITIES = ("budget", "technical", "legal", "purchasing")

# Stage, its share, its usual probability.
STAGES = (
    ("prospecting", 0.30, "0.1"), ("qualification", 0.22, "0.25"), ("proposal", 0.16, "0.45"),
    ("negotiation", 0.10, "0.7"), ("closed_won", 0.12, "1"), ("closed_lost", 0.10, "0"),
)  # fmt: skip
NEXT_STEPS = (
    "send samples", "arrange a plant visit", "prepare the offer", "answer questions of quality control", "sign",
)  # fmt: skip
DEAL_SOURCES = ("inbound", "outbound", "referral", "specter")

STATUSES = (
    ("open", 0.22), ("claimed", 0.08), ("in_progress", 0.12), ("review", 0.06), ("complete", 0.47),
    ("failed",
    0.05),
)  # fmt: skip
TASK_TITLES = (
    ("data_mining", "Extract suppliers from the trade register"), ("lead_gen", "Find decision makers"),
    ("content", "Draft the product sheet"), ("development", "Repair the import"),
    ("data_mining", "Read recall notices"), ("lead_gen", "Qualify incoming requests"),
    ("content", "Summarise the week's trade press"), ("development", "Add a source"),
)  # fmt: skip
COMMENTS = (
    "Source confirmed.", "Two figures disagree, looking into it.", "Done as far as the data goes.",
    "Needs a second pair of eyes.", "Please split this.",
)  # fmt: skip
