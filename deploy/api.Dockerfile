# The HTTP API: no torch, no Celery. Build it from the top of the tree:
#   docker build --file deploy/api.Dockerfile --tag nightshift-api .
# From an index of your own: --secret id=pip.conf,src=pip.conf, of which the image keeps nothing.
# The root file system may be read-only: docs/deploy.md has the folders that are written.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/nightshift
WORKDIR /build
# The dependencies first, over empty packages: this layer changes only with the lock.
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    mkdir api jobs workers \
    && /opt/nightshift/bin/pip install --constraint requirements.lock .
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
RUN useradd --system --uid 10001 --create-home nightshift
COPY --from=build /opt/nightshift /opt/nightshift
ENV PATH=/opt/nightshift/bin:$PATH PYTHONUNBUFFERED=1 NIGHTSHIFT_API_HOST=0.0.0.0
USER 10001
WORKDIR /home/nightshift
EXPOSE 8750
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8750/healthz', timeout=4)"]
CMD ["python", "-m", "api.server"]
