"""n8n: the workflows that bring in what other people's systems know (docs/n8n.md). Its hosts are in group gateway as well."""

# Where people and Prometheus reach it, over https.
n8n_port = 5678

# The owner's account: how a person logs in. The password is the secret n8n/owner-password.
n8n_owner_email = "owner@phoenix.invalid"

# How long executions are kept, in hours. Runs of the workflows that succeeded leave no data at all (docs/n8n.md).
n8n_executions_keep_h = 336

# The CRM's API. Its token is the secret n8n/hubspot-token.
n8n_hubspot_url = "https://api.hubapi.com"

# New records that one run may create there, per kind: the first runs do not flood the CRM.
n8n_hubspot_new_per_run = 1000

# Records that one run looks up by their ids, per kind, to find those that were removed for good. All of them in turn.
n8n_hubspot_verify_per_run = 500

# Of the linked records of one kind this share may vanish here between two runs; when more do, nothing is archived there and the run fails.
n8n_hubspot_max_vanished = 0.2

# The licensed enrichment API. Its key is the secret n8n/enrichment-key, sent as this header.
n8n_enrichment_url = "https://enrichment.example.org"
n8n_enrichment_header = "X-Api-Key"

# Who that is, recorded with every value that comes from there.
n8n_enrichment_source = "enrichment.example.org"

# Requests that one run (every 15 minutes) and one day may make, and after how many days a record is asked for again.
n8n_enrichment_per_run = 50
n8n_enrichment_per_day = 2000
n8n_enrichment_refresh_d = 90

# The trade press: RSS or Atom, by name.
n8n_feeds = {
    "foodnavigator.com": "https://www.foodnavigator.com/arc/outboundfeeds/rss/",
    "foodbusinessnews.net": "https://www.foodbusinessnews.net/rss/articles",
    "bakingbusiness.com": "https://www.bakingbusiness.com/rss/articles",
}
