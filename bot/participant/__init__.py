"""One participant's life: state graph, retry policy, and the wiring of XMPP, Jingle, bridge and media."""
