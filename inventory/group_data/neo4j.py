"""Neo4j Community: the knowledge graph. PostgreSQL is the truth, and the graph can be rebuilt from it (docs/graph.md)."""

# The cluster that the graph is made from: the postgresql_cluster_name of its members.
neo4j_cluster_name = "phoenix"

# Bolt, TLS only. Neo4j's HTTP interface is off.
neo4j_port = 7687

# Share of the host's RAM for Neo4j's heap and page cache together. 8 % of 8 GB are 524 and 131 MB, enough for some million edges.
neo4j_memory_share = 0.08

# Every so many seconds everything is compared with PostgreSQL. What stays different for the second number, in seconds, counts: an event
# takes some milliseconds, more when many come at once.
neo4j_parity_every_s = 900
neo4j_parity_settle_s = 10

# When the graph is dumped and sent offsite, as systemd's OnCalendar. Neo4j stands still for about half a minute; events wait.
neo4j_backup_calendar = "*-*-* 02:50:00 UTC"
