"""``python -m bot`` is ``jitsi-bot``."""

from bot.cli import main

if __name__ == "__main__":
    main()
