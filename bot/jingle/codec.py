"""The XML codec of Jingle sessions: ``parse_jingle`` and ``build_jingle``."""

from __future__ import annotations

from bot.jingle.build import build_jingle
from bot.jingle.model import JingleError
from bot.jingle.parse import parse_jingle

__all__ = ["JingleError", "build_jingle", "parse_jingle"]
