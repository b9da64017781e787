"""Neo4j Community: the knowledge graph, made from PostgreSQL (docs/graph.md)."""
