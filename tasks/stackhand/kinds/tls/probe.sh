#!/bin/sh
# Shakes hands with a TLS server, and looks for certificate files. $1 is the host, $2 the ports, $3 the names to ask for;
# further words are folders and files to look for certificates in, `config:` before those that may only name some.
# Each handshake gets $WITHIN whole seconds. Keys stay in the container where its own openssl can tell their public
# half. Bundles of many authorities are larger than 64 KiB. Ends with 127 where nothing is there to shake hands with.
export LC_ALL=C
has() { command -v "$1" >/dev/null 2>&1; }
limit=; has timeout && timeout "$WITHIN" true 2>/dev/null && limit="timeout $WITHIN"
tool=; for each in openssl python3 curl; do [ "$tool" ] || ! has $each || tool=$each; done
hello() {
  case $tool in
  openssl) $limit openssl s_client -connect "$1:$2" ${3:+-servername "$3"} -showcerts </dev/null 2>&1 ||
    case $? in 124|143) echo "timed out: no answer within $WITHIN s" ;; esac ;;
  python3) python3 -c 'import socket, ssl, sys
host, port, name, limit = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    with socket.create_connection((host, int(port)), int(limit)) as plain:
        with context.wrap_socket(plain, server_hostname=name or None) as secured:
            print(ssl.DER_cert_to_PEM_cert(secured.getpeercert(True)))
except OSError as error:
    print(error)' "$1" "$2" "$3" "$WITHIN" ;;
  curl) curl -ksS -m "$WITHIN" -o /dev/null -w '%{certs}' --connect-to "::$1:$2" "https://${3:-$1}:$2/" 2>&1 ;;
  esac
}
host=$1 ports=$2 names=$3; shift 3
printf '\036tool %s\n' "$tool"
[ -z "$tool" ] || for port in $ports; do
  for name in $names; do
    printf '\036served %s %s\n' "$port" "$name"
    case $name in *:*|*[0-9].*[0-9]) hello "$host" "$port" '' ;; *) hello "$host" "$port" "$name" ;; esac
  done
done
for place; do
  case $place in config:*) continue ;; esac
  [ -e "$place" ] || continue
  find -L "$place" -maxdepth 4 -type f -size -64k \( -name '*.crt' -o -name '*.pem' -o -name '*.cer' \
    -o -name '*.cert' -o -name '*.key' -o -path "$place" \) 2>/dev/null | head -n 40
done | while IFS= read -r file; do
  printf '\036file %s %s\n' "$(stat -Lc '%a %u:%g %Z' "$file" 2>/dev/null || echo - - -)" "$file"
  [ -r "$file" ] || { printf '\036unreadable\n'; continue; }
  sed -n '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/p' "$file"
  grep -q 'PRIVATE KEY-----' "$file" || continue
  printf '\036key\n'
  if has openssl; then openssl pkey -in "$file" -passin pass: -pubout </dev/null 2>/dev/null
  else sed -n '/PRIVATE KEY-----/,/PRIVATE KEY-----/p' "$file"; fi
done
set -- "$@" /etc/nginx/nginx.conf /etc/nginx/conf.d/* /etc/nginx/sites-enabled/* /etc/caddy/Caddyfile \
  /usr/local/etc/haproxy/haproxy.cfg /etc/haproxy/haproxy.cfg /usr/local/apache2/conf/httpd.conf /etc/traefik/*.y*ml
words=$(tr '\0' '\n' </proc/1/cmdline 2>/dev/null)
set -f
{
  echo "$words"
  for config in $words "$@"; do
    config=${config#config:}
    case $config in /*.crt|/*.pem|/*.cer|/*.cert|/*.key) ;; /*)
      [ ! -f "$config" ] || [ ! "$(find -L "$config" -maxdepth 0 -size -64k)" ] || grep -hsv '^[[:space:]]*#' "$config"
    esac
  done
} 2>/dev/null | grep -oE '/[^ ;,"'"'"'()]+\.(crt|pem|cer|cert|key)' | sort -u |
  while IFS= read -r path; do printf '\036named %s\n' "$path"; done
[ "$tool" ] || exit 127
