# The daemon as a container: docker build -t jitsi-bot . && docker run --read-only --env JITSI_WS_URL=... jitsi-bot
# Another base image (--build-arg BASE_IMAGE=...) needs apt and Python 3.11 or newer with venv. --build-arg EXTRAS=locust
# is for load runs on many machines (config/locust).
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG EXTRAS=
WORKDIR /src
# A compiler for the media engine's innermost modules (setup.py), and Python's headers where the image lacks them.
# hadolint ignore=DL3008
RUN apt-get update -q \
    && apt-get install -qy --no-install-recommends gcc libc6-dev \
    && { python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
         || apt-get install -qy --no-install-recommends python3-dev; }
RUN python3 -m venv /opt/venv
COPY pyproject.toml setup.py constraints.txt README.md ./
COPY bot ./bot
# Behind a proxy or a package index of one's own (neither secret is needed otherwise):
# docker build --secret id=pip_conf,src=/etc/pip.conf --secret id=ca,src=ca.pem .   with cert = /run/secrets/ca
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca \
    /opt/venv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check -c constraints.txt \
        ".[s3${EXTRAS:+,$EXTRAS}]" \
    && /opt/venv/bin/pip uninstall --quiet --yes pip setuptools

FROM ${BASE_IMAGE}
# tini passes SIGTERM on and reaps; the bot then leaves its rooms (5 s at most) and ends with 0.
# /data is where recordings and reports go: a new volume there belongs to the bot.
# Debian keeps one version of it for each release: there is none to pin.
# hadolint ignore=DL3008
RUN apt-get update -q \
    && apt-get install -qy --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin bot \
    && install -d -o bot -g bot /data
COPY --from=build /opt/venv /opt/venv
COPY docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
# Nothing is written to the root file system: it may be read-only.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    JITSI_LOG_FORMAT=json
USER 10001:10001
WORKDIR /
EXPOSE 8080
# Alive means that the event loop answers; whether everybody has joined is /readyz.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('JITSI_HTTP_PORT') or 8080}/healthz\", timeout=4)"]
ENTRYPOINT ["tini", "--", "docker-entrypoint.sh"]
CMD ["run", "--daemon"]
