#!/usr/bin/env bash
# Run once by PostgreSQL's image, on a new volume: a database OWNER and the role of that name, which owns it and may make
# the roles that the engine works as. It is no superuser, whom row-level security would not bind.

set -euo pipefail

# By the environment, not as an argument, which `ps` would show.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres << 'END'
\getenv owner OWNER
\getenv password OWNER_PASSWORD
CREATE ROLE :"owner" LOGIN CREATEROLE PASSWORD :'password';
CREATE DATABASE :"owner" OWNER :"owner";
END
