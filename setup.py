"""Compiles the innermost modules of the media engine by mypyc, from the very sources that run without it, too.

Where there is no C compiler, they are installed as they are: slower, and in no other way different. An
editable installation is never compiled: what is edited has to be what runs.
"""

import sys

from setuptools import setup

#: What runs for each packet.
MODULES = (
    "bot/bridge/nack.py",
    "bot/bridge/receiver.py",
    "bot/bridge/rtcp.py",
    "bot/bridge/srtp.py",
    "bot/bridge/twcc.py",
    "bot/engine/bandwidth.py",
    "bot/engine/feedback.py",
    "bot/engine/headers.py",
    "bot/engine/history.py",
    "bot/engine/layers.py",
    "bot/engine/pacer.py",
    "bot/engine/path.py",
    "bot/engine/receiver.py",
    "bot/engine/sendmmsg.py",
    "bot/engine/streams.py",
)


def extensions():
    """What is to be compiled now."""
    if not {"bdist_wheel", "build", "build_ext"} & set(sys.argv):
        return []
    try:
        from mypyc.build import mypycify  # noqa: PLC0415
    except ImportError:
        return []
    # The types of what is installed at run time alone are not known here.
    options = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent")
    try:
        found = mypycify([*options, *MODULES], group_name="bot_media")
    except SystemExit:  # as another version of mypy may say of the sources: it has told why
        sys.stderr.write("The modules are installed as they are\n")
        return []
    for extension in found:
        extension.optional = True
    return found


setup(ext_modules=extensions())
