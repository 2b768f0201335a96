#!/bin/sh
# Names the settings file where one is mounted; JITSI_CONFIG names another. All arguments are those of jitsi-bot.
set -eu
if [ -z "${JITSI_CONFIG:-}" ] && [ -e /config/bot.toml ]; then
    export JITSI_CONFIG=/config/bot.toml
fi
exec jitsi-bot "$@"
