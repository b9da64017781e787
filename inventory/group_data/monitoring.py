"""Prometheus and Alertmanager. In production they run on a host of their own, so that the platform's death is noticed."""

monitoring_prometheus_port = 9090
monitoring_alertmanager_port = 9093
monitoring_scrape_interval_s = 15
monitoring_retention_days = 30

# Where docs/runbooks is readable; every alert links to its page there. Ends with a slash.
monitoring_runbook_url = "https://git.example.org/phoenix/docs/runbooks/"
