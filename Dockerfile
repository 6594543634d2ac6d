# Two stages: what builds stays behind. The image runs as nobody in particular, on a read-only root file system.
#     docker build --build-arg VERSION=… --build-arg REVISION="$(git rev-parse HEAD)" --tag reaction-tally .
# With a bill of materials and the build's provenance, which only a registry or an OCI folder keeps (--output type=oci):
#     docker buildx build --sbom=true --provenance=mode=max --push --tag REGISTRY/reaction-tally:VERSION .
# A tag with its last number, so that two builds of one commit are one image. Raise it for every fix of Python or
# Debian: a build brings no newer one by itself.
ARG PYTHON=3.13.14-slim-trixie

FROM python:${PYTHON} AS build
WORKDIR /src
ENV PATH=/opt/build/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# What builds has a venv of its own, and what it builds goes to another as wheels: everything by hash, nothing resolved anew.
RUN python -m venv --without-pip /opt/tally && python -m venv /opt/build
COPY requirements-build.lock requirements.lock ./
RUN pip install --no-deps --require-hashes -r requirements-build.lock \
 && pip wheel --no-deps --require-hashes --no-build-isolation --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY worker worker
# Compiled here, since nothing can be written where it runs; without the index, since all it may hold is in /wheels.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./client . \
 && pip --python /opt/tally/bin/python install --no-index --no-deps --no-compile /wheels/*.whl \
 && /opt/tally/bin/python -m compileall -q /opt/tally

FROM python:${PYTHON}
# The image this one begins with brings pip, and the copy of it that venv would install: nothing is installed here.
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip \
 && python -c "import ensurepip, shutil; shutil.rmtree(ensurepip.__path__[0])" \
 && groupadd --gid 10001 tally \
 && useradd --uid 10001 --gid tally --no-create-home --home-dir /data --shell /usr/sbin/nologin tally \
 && install --directory --owner tally --group tally /data
COPY --from=build /opt/tally /opt/tally
# Inside a container loopback is nobody's but its own: a probe and Prometheus come from outside.
ENV PATH=/opt/tally/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TALLY_HTTP=0.0.0.0:8080
# As numbers: Kubernetes' runAsNonRoot cannot know who a name is.
USER 10001:10001
# Here an embedded Valkey keeps its data, for a laptop, in a volume. With REDIS_URL set nothing is ever written.
WORKDIR /data
EXPOSE 8080
# It applies what was read and saves its cursors; a second one ends it at once.
STOPSIGNAL SIGTERM
# --live: whether its loops turn. Not whether it is ready: whoever restarts what is unhealthy would restart the worker
# for as long as Redis is away, and that mends nothing.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["tally", "healthcheck", "--live"]
ENTRYPOINT ["tally"]
CMD ["run"]
# Last, because they change with every commit: all layers above are kept.
ARG VERSION=unversioned
ARG REVISION=unknown
LABEL org.opencontainers.image.title="reaction-tally" \
      org.opencontainers.image.description="Exact reaction counts for PubNub message actions, kept in Redis" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
