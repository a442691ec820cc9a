"""Sends the request of http_probe.sh, with the Python of a container: 3.4 and later."""

import os
import socket
import sys


def connect(scheme, host, port, name, seconds):
    sock = socket.create_connection((host, port), seconds)
    if scheme == "https":
        import ssl

        return ssl._create_unverified_context().wrap_socket(sock, server_hostname=name or host)
    return sock


def request(url, method, body):
    """Return the text of a request, as HTTP has it."""
    address, slash, path = url.partition("://")[2].partition("/")
    head = "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: stackhand\r\nAccept: */*\r\nConnection: close\r\n" % (
        method,
        slash + path or "/",
        address,
    )
    if body:
        head += "Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return head.encode() + b"\r\n" + body


def answer(sock):
    """Return the head of an answer and the beginning of its body, up to 4 kB."""
    got = b""
    while len(got) < 4096:
        more = sock.recv(4096)
        if not more:
            break
        got += more
        if b"\r\n\r\n" in got and got.partition(b"\r\n\r\n")[2]:
            break
    return got.decode("latin-1")


def main(url, host, port, name, method, body, seconds):
    try:
        sock = connect(url.partition("://")[0], host, port, name, seconds)
        sock.settimeout(seconds)
        sock.sendall(request(url, method, body))
        sys.stdout.write(answer(sock))
    except Exception as error:
        print("%s: %s" % (type(error).__name__, error))


if __name__ == "__main__":
    env = os.environ
    main(
        env["URL"],
        env["HOST"],
        int(env["PORT"]),
        env["NAME"],
        env["METHOD"],
        env["BODY"].encode(),
        float(env["TIMEOUT"]),
    )
