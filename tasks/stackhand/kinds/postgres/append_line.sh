#!/bin/sh
# Appends $STACKHAND_LINE to the file $1, with one write. It stays a line of its own where the last one has no end.
if [ -n "$(tail -c 1 "$1")" ]; then STACKHAND_LINE="
$STACKHAND_LINE"; fi
printf '%s\n' "$STACKHAND_LINE" >>"$1"
