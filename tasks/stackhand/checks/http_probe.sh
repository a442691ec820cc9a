#!/bin/sh
# Sends one HTTP request with the first program that is there, and prints the answer as it came: status line, headers,
# body, up to 4 kB. $1 and $2 are http_probe.py and http_probe.js. What is asked comes in variables, because it is not
# for a list of processes: URL, HOST, PORT, METHOD, BODY, TIMEOUT (seconds); NAME where the server is to be asked for
# another name than that of the HOST to connect to. https is not verified: the kind tls does that.
set -f
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy
if command -v curl >/dev/null 2>&1; then
  printf 'url = "%s"\n' "$URL" | curl -K - -qgsSki --noproxy '*' --http1.1 -m "$TIMEOUT" -X "$METHOD" \
    ${NAME:+--connect-to "::$HOST:$PORT"} \
    ${BODY:+-H 'Content-Type: application/json' --data-raw "$BODY"} 2>&1 | head -c 4096
  exit 0
fi
for python in python3 python; do
  command -v $python >/dev/null 2>&1 || continue
  # shellcheck disable=SC2093  # nothing of this script comes after it
  exec $python -ISc "$1"
done
if command -v node >/dev/null 2>&1; then
  exec node -e "$2"
fi
# wget cannot connect to another host than that of the URL.
if [ "$METHOD" = GET ] && [ -z "$NAME" ] && command -v wget >/dev/null 2>&1; then
  certificates=; case $URL in https:*) certificates=--no-check-certificate;; esac
  said=$(wget -S -O - -T "$TIMEOUT" $certificates "$URL" 2>&1 | head -c 4096)
  if [ -n "$said" ]; then printf '%s\n' "$said"; exit 0; fi
fi
case $URL in https:*) exit 127;; esac
command -v bash >/dev/null 2>&1 || exit 127
# shellcheck disable=SC2016  # bash expands them
exec bash -c 'rest=${URL#*://}; address=${rest%%/*}; path=/; case $rest in */*) path=/${rest#*/};; esac
exec 3<>"/dev/tcp/$HOST/$PORT" || exit 0
printf "%s %s HTTP/1.0\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s" "$METHOD" "$path" "$address" "${#BODY}" "$BODY" >&3
read -t "${TIMEOUT%.*}" -r line <&3 && printf "%s\n" "$line" && head -c 4096 <&3' 2>&1
