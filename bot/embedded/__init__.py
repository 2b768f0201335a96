"""The other side in one process, for first runs and tests: XMPP, rooms, focus and a forwarding bridge."""
