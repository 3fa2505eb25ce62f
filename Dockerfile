# The image of API, worker and one-shot commands: built in one stage, run in another that has no build tools and no root.

# scripts/pin-images.sh adds the digest.
ARG PYTHON_IMAGE=python:3.12.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/payments-ledger && python -m venv /opt/backend
# Dependencies first: they change less often than the source, so their layer is kept. Nothing comes without its hash,
# the build backend included.
COPY requirements.lock requirements-build.lock ./
RUN /opt/payments-ledger/bin/pip install --no-deps --require-hashes -r requirements.lock
RUN /opt/backend/bin/pip install --no-deps --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY src src
RUN /opt/backend/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir wheels .
RUN /opt/payments-ledger/bin/pip install --no-deps --no-index wheels/*.whl

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin ledger
COPY --from=build /opt/payments-ledger /opt/payments-ledger
ENV PATH=/opt/payments-ledger/bin:$PATH PYTHONUNBUFFERED=1
# A folder without a .env: the settings come from the environment only.
WORKDIR /var/empty
USER 10001
EXPOSE 8000
ENTRYPOINT ["payments-ledger"]
CMD ["api", "--host", "0.0.0.0"]
