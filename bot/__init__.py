"""jitsi-bot: a Jitsi Meet participant without a browser."""

__version__ = "0.1.0"
