"""Load on many machines: each user of Locust is a participant. docs/load.md says how it is run.

What the meetings are like is a scenario, as of ``jitsi-bot load``: this one, or that of ``--jitsi-scenario``.
How many come, how fast and for how long is Locust's: ``--users``, ``--spawn-rate``, ``--run-time``, or a
LoadTestShape.
"""

from bot.load.locust.user import JitsiUser


class Participant(JitsiUser):
    """Stays until Locust stops it. Override ``meet`` for another life: join(), stay(60), leave()."""

    scenario = "many-small-rooms"
