# Two stages: what builds stays behind. The image runs as nobody in particular, on a read-only file system.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
ENV PATH=/opt/build/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# What builds has a venv of its own, and what it builds goes to another as wheels: everything by hash, nothing unlocked.
RUN python -m venv --without-pip /opt/tally && python -m venv /opt/build
COPY requirements-build.lock requirements.lock ./
RUN pip install --require-hashes -r requirements-build.lock \
 && pip wheel --require-hashes --no-build-isolation --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md ./
COPY worker worker
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/tally/bin/python install --no-index --no-deps /wheels/*.whl \
 && /opt/tally/bin/python -m compileall -q /opt/tally

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="reaction-tally" \
      org.opencontainers.image.description="Exact reaction counts for PubNub message actions, kept in Redis"
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tally
COPY --from=build /opt/tally /opt/tally
ENV PATH=/opt/tally/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
# Writable only if a volume is mounted here; with REDIS_URL set nothing is ever written.
WORKDIR /data
ENTRYPOINT ["tally"]
CMD ["run"]
