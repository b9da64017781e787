"""pyinfra reads this file first. It holds what is true of every run; what describes hosts is in inventory/."""

from deploys.lib import calls, connector

connector.send_commands_at_once()
calls.make_lean()
