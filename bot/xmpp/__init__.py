"""Talks to Prosody: RFC 7395 framing, the connection, the room, the request to the focus, the keep-alive."""
