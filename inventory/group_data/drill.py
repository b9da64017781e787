"""The restore drill: proves every day that the backups bring back what the leader holds, and measures RPO and RTO (docs/drill.md).

Its host should not be one of the cluster that it drills: restoring takes disk and time from whatever else runs there.
"""

# The cluster whose newest backup is restored; the name of its stanza in the repository is the same.
drill_cluster_name = "phoenix"

# When, as systemd's OnCalendar. Once a day, when few people work; the alert DrillStale waits 26 hours.
drill_calendar = "*-*-* 03:40:00 UTC"

# The scratch cluster needs room for the whole database; a bigger disk is mounted here, or this names another directory.
drill_directory = "/var/lib/phoenix-drill"

# Memory that the drill may take, in MB. A quarter of it is the scratch cluster's shared_buffers.
drill_memory_mb = 1024

# Processes for restore and checks. 0: as many as the host has cores.
drill_jobs = 0

# Whether amcheck also looks for every row in every B-tree index. It is what finds an index that misses rows.
drill_heapallindexed = True

# Disk that has to stay free during a drill, in MB.
drill_min_free_mb = 2048

# Longest time, in seconds, of a statement on the leader (count and hash of one table), and to get a snapshot there: a transaction that
# was left open delays it.
drill_witness_timeout_s = 900

# A commit has to be in the repository by then, in seconds. It is the RPO that the platform promises.
drill_archive_timeout_s = 900

# Longest time, in seconds, of replaying the WAL since the backup. Together with the restore it has to stay within the promised hour.
drill_recovery_timeout_s = 3600

# Longest time of a whole drill, in seconds.
drill_timeout_s = 14400

# How many receipts are kept: a quarter of a year of daily ones.
drill_keep_receipts = 90
