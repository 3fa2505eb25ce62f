#!/bin/sh
# Starts Redis with the password in REDISCLI_AUTH: from a file, since `ps` shows what stands on a command line.

set -eu
umask 077
configuration="${TMPDIR:-/tmp}/redis.conf"
printf 'requirepass "%s"\n' "$REDISCLI_AUTH" > "$configuration"
exec redis-server "$configuration" "$@"
