"""Load runs on many machines: Locust's master and workers, each worker with a bot process beside it.

Nothing is imported here: Locust replaces the sockets and threads of each process that imports it (gevent), and the
bot process, whose package this is too, must have its own. A locustfile imports ``bot.load.locust.user``.
"""
