"""Tailscale: the private network between the hosts. Who may reach what in it follows from the groups (docs/tailscale.md)."""

# The Debian package, from the repository `tailscale` of host_apt_sources below. None builds the programs from source and uploads them.
tailscale_package = "tailscale"

# Where the control server answers: the vendor's. The lab has one of its own.
tailscale_login_server = "https://controlplane.tailscale.com"

# UDP port where the other hosts reach this one directly. It is the only one that is open to everybody.
tailscale_port = 41641

# Who else may come, in the policy's words: clients to the gateways, Redis and n8n; the people who operate the platform to every port.
tailscale_clients = ["tag:phoenix-client"]
tailscale_operators = ["autogroup:admin"]
