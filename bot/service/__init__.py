"""The daemon: supervision of participants, health, readiness and metrics over HTTP."""
