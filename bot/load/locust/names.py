"""Names of our messages between Locust's master and its workers."""

from __future__ import annotations

#: To a worker: what is run, the seat it asked for, that all are to leave.
RUN, SEAT, END = "jitsi_run", "jitsi_seat", "jitsi_end"
#: To the master: a worker is there, and can be told what is run. (Locust's own word comes before it can.)
HELLO = "jitsi_hello"
#: To the master: a seat is wanted, or free again.
WANTED, FREE = "jitsi_seat_wanted", "jitsi_seat_free"
#: To the master: what was measured, that the bot process died, what can't be begun, that all have left.
PROGRESS, DIED, PROBLEM, ENDED = "jitsi_progress", "jitsi_died", "jitsi_problem", "jitsi_ended"
