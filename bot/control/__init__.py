"""The daemon's HTTP API: participants, recordings, load runs and probes, created, watched, changed and stopped."""
