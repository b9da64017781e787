"""Publishes the phoenix_* metrics of one Phoenix database to Prometheus."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("phoenix-exporter")
except PackageNotFoundError:  # run from the source tree, not from the installed wheel
    VERSION = "source"
