#!/usr/bin/env bash
# Starts everything in Docker Compose, waits until it is ready and says where it is.

source "$(dirname "${BASH_SOURCE[0]}")/compose.sh"

docker compose up --build --detach --wait --wait-timeout 300
cat << 'END'

API         http://localhost:8000        documentation: http://localhost:8000/docs
RabbitMQ    http://localhost:15672       guest / guest
Prometheus  http://localhost:9090
Grafana     http://localhost:3000        admin / admin

scripts/smoke.sh tries it out, scripts/logs.sh follows the logs, scripts/down.sh stops it.
END
