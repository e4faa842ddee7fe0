"""Many gateways in few processes, to see what a fleet does to a server (docs/fleet.md).

Each of them is the gateway's own session, publisher, archive and proof of storage on data of its own. What is left
out is what the server does not see: the controller, the queue, the inbox.
"""
