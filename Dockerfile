# The image of API, worker and one-shot commands: built in one stage, run in another that has no build tools and no root.

FROM python:3.12.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/payments-ledger
ENV PATH=/opt/payments-ledger/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Dependencies first: they change less often than the source, so their layer is kept.
COPY requirements.lock .
RUN pip install --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY src src
RUN pip install --no-deps .

FROM python:3.12.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin ledger
COPY --from=build /opt/payments-ledger /opt/payments-ledger
ENV PATH=/opt/payments-ledger/bin:$PATH PYTHONUNBUFFERED=1
# A folder without a .env: the settings come from the environment only.
WORKDIR /var/empty
USER 10001
EXPOSE 8000
ENTRYPOINT ["payments-ledger"]
CMD ["api", "--host", "0.0.0.0"]
