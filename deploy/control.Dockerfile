# Control, planner and migrations: Celery, but no torch. With EXTRAS=flower: Flower as well.
#   docker build --file deploy/control.Dockerfile --tag nightshift-control .
#   docker build --file deploy/control.Dockerfile --tag nightshift-flower --build-arg EXTRAS=flower .
# From an index of your own: --secret id=pip.conf,src=pip.conf, of which the image keeps nothing.
# The root file system may be read-only: docs/deploy.md has the folders that are written.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG EXTRAS=queue
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/nightshift
WORKDIR /build
# The dependencies first, over empty packages: this layer changes only with the lock.
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    mkdir api jobs workers \
    && /opt/nightshift/bin/pip install --constraint requirements.lock ".[${EXTRAS}]"
# What the image is made of, in the words of CycloneDX; the tool stays behind.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv /opt/sbom \
    && /opt/sbom/bin/pip install cyclonedx-bom==7.5.0 \
    && /opt/sbom/bin/cyclonedx-py environment --output-reproducible \
        --output-file /opt/nightshift/sbom.json /opt/nightshift/bin/python
COPY jobs jobs
COPY workers workers
COPY api api
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/nightshift/bin/pip install --no-deps --force-reinstall .

FROM ${BASE_IMAGE}
# Owned by the user, so that a volume mounted there the first time is writable: the planner fetches
# models of the hub in order to check them.
RUN useradd --system --uid 10001 --create-home nightshift \
    && install --directory --owner=nightshift /var/cache/nightshift /var/lib/nightshift
COPY --from=build /opt/nightshift /opt/nightshift
COPY deploy/healthy.py /opt/nightshift/healthy.py
ENV PATH=/opt/nightshift/bin:$PATH PYTHONUNBUFFERED=1 HF_HOME=/var/cache/nightshift \
    XDG_CACHE_HOME=/var/cache/nightshift
USER 10001
WORKDIR /home/nightshift
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["python", "/opt/nightshift/healthy.py", "control"]
CMD ["python", "-m", "workers.processes", "control"]
