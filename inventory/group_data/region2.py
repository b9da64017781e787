"""The second region: a cluster of its own (`postgresql_cluster_name` on its hosts), with a copy of the tables below."""

# postgresql_cluster_name of the cluster that is copied.
region2_source = "phoenix"

# What the second region needs: companies, products, the pipeline, the task board, the agents and the graph between them. An empty list
# is all columns of a table, also those that a later migration adds; where columns are named, a new one stays at home until it is added.
#
# Not copied: consciousness_timeline (a hypertable's rows are in chunks, which no publication follows) and what is computed from it, and
# task_ledger, which each cluster folds for itself. What references a copied table is copied as well, or a TRUNCATE could not be followed:
# that is why agent_credentials is here; it holds digests of random tokens, which let agents work on where the copy takes over.
region2_tables = {
    "persona_registry": [],
    # Without what reaches a person (e-mail in its three columns, profile address) and without the embeddings, which take more room than all
    # the rest and can be computed anew.
    "personas": [
        "id",
        "fingerprint",
        "name",
        "company",
        "role",
        "industry",
        "mbti_type",
        "sdi_color",
        "big_five",
        "communication_style",
        "decision_patterns",
        "pain_points",
        "company_revenue",
        "employee_count",
        "technologies_used",
        "trust_score",
        "last_interaction",
        "interaction_count",
        "conversion_probability",
        "source",
        "created_at",
        "updated_at",
        "consciousness_level",
    ],
    "persona_employments": [],
    "persona_influences": [],
    "agents": [],
    "agent_credentials": [],
    "agent_pairs": [],
    "agent_interactions": [],
    "agent_trust": [],
    "food_companies": [],
    "company_supplies": [],
    "company_competitors": [],
    "company_decision_makers": [],
    "food_products": [],
    "product_competitors": [],
    "product_substitutes": [],
    "opportunities": [],
    "opportunity_support_agents": [],
    "revenue_forecast": [],
    "tasks": [],
    "task_dependencies": [],
    "task_votes": [],
    "task_comments": [],
    "task_comment_votes": [],
    "task_company_values": [],
    "publications": [],
    "market_trends": [],
    "regulatory_updates": [],
    "company_mentions": [],
    "consents": [],
    # Without the values that were learnt, and without where a person writes what.
    "enrichments": ["id", "company_id", "persona_id", "source", "consent_id", "requested_at", "outcome", "licence"],
    "recent_posts": ["source", "external_id", "company_id", "persona_id", "published_at", "seen_at"],
}
