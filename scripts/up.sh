#!/usr/bin/env bash
# Starts everything in Docker Compose, waits until it is ready and says where it is. Makes missing secrets in .env.

source "$(dirname "${BASH_SOURCE[0]}")/compose.sh"
source scripts/secrets.sh

make_missing_secrets
docker compose up --build --detach --wait --wait-timeout 300
cat << 'END'

API         http://localhost:8000        documentation: http://localhost:8000/docs
RabbitMQ    http://localhost:15672       user ledger, RABBITMQ_PASSWORD in .env
Prometheus  http://localhost:9090
Grafana     http://localhost:3000        user admin, GRAFANA_PASSWORD in .env

scripts/smoke.sh tries it out, scripts/logs.sh follows the logs, scripts/down.sh stops it.
END
