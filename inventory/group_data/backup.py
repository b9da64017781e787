"""Archive and backup: pgBackRest writes to an S3 bucket, encrypted. Where the bucket is, the inventory says; docs/backup.md says how."""

# The cluster that is archived, by its postgresql_cluster_name. A host of another cluster in this group only reads the repository.
backup_stanza = "phoenix"

backup_s3_region = "us-east-1"

# "path" for services whose certificate has no name for each bucket.
backup_s3_uri_style = "host"

# Where in the bucket the repository lies: several platforms may share a bucket, never a path.
backup_path = "/phoenix"

# A segment that is not full is sent after this many seconds. 30, so that the RPO of the archive alone stays below 60 with a slow upload
# and a second try; see docs/decisions/0501-rpo-of-the-archive.md.
backup_archive_timeout_s = 30

# WAL that may wait on disk while S3 is away, in GB. Beyond that it is given up rather than filling the disk and stopping the database;
# see docs/decisions/0503-a-full-queue-is-dropped.md.
backup_queue_max_gb = 8.0

# Every hour an incremental backup; this often a differential one instead, and this often a full one.
backup_diff_every_h = 6
backup_full_every_d = 7

# Any second of this many days can be restored. Differential backups are kept for two days; they only make a restore quicker.
backup_retention_d = 28
backup_retention_diffs = 8

backup_tls_port = 8432
