"""etcd: the store in which Patroni keeps who leads. One member runs a cluster of one; three survive the loss of a host.

Members join one after the other: a host that is added to the group, or made anew, joins at the next deploy.
"""

etcd_cluster_name = "phoenix"
etcd_client_port = 2379
etcd_peer_port = 2380
