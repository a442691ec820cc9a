#!/bin/sh
# Has Redis carry out the command $SAID, from the first argument on by way of standard input, so that neither a password
# nor its hash is on a command line. In variables: OPTIONS of redis-cli, ASKER with the password REDISCLI_AUTH.
cli=$(command -v redis-cli || command -v valkey-cli || command -v keydb-cli) || exit 127
[ -n "$REDISCLI_AUTH" ] || unset REDISCLI_AUTH
# shellcheck disable=SC2086  # several options
printf '%s\n' "$SAID" | "$cli" $OPTIONS ${ASKER:+--user "$ASKER"} --no-auth-warning --no-raw 2>&1
