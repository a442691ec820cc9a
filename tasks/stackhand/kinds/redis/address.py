"""Where a Redis listens, and how it is reached from inside its container: by port, through TLS, by a socket."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from stackhand.checks import scripts
from stackhand.checks.context import CheckContext
from stackhand.checks.traits import Traits, traits
from stackhand.engine.compose.project import Service

# Options of redis-cli in a healthcheck: the server is reached by them.
_OPTIONS_WITH_A_WORD = ("-p", "-s", "--cacert", "--cert", "--key")
_OPTIONS = ("--tls", "--insecure")
_SEARCHED = ("/run", "/etc", "/data", "/usr/local/etc", "/opt", "/conf", "/config")
_USUAL = "6379"
_TITLE = re.compile(r"unixsocket:(?P<socket>/.*)|.*:(?P<port>\d+)")


@dataclass(frozen=True)
class Listening:
    """Where a server listens: by the title of its process, and by the settings of its configuration."""

    port: str = ""
    socket: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


def options_for(context: CheckContext, service: Service) -> list[str]:
    """Return the options of redis-cli by which a server is reached. Raises NoAnswer where no container runs."""
    shown = traits(service)
    told = connection(shown)
    if {"-p", "-s"} & set(told):
        return told
    config = config_of(shown)
    environment = {"CONFIG": config, "PLACES": " ".join(places(service))}
    answer = context.shell(service.name, scripts.read(__package__, "address_probe.sh"), environment=environment)
    return connection(shown, listening(answer.stdout, named=bool(config)))


def config_of(shown: Traits) -> str:
    """Return the configuration that the command names, "" where there is no such word."""
    return next((word for word in shown.argv if word.endswith(".conf")), "")


def places(service: Service) -> list[str]:
    """Return where a server's files may lie: the usual folders, and what is mounted."""
    return list(dict.fromkeys((*_SEARCHED, *_mounts(service))))


def _mounts(service: Service) -> list[str]:
    volumes = [str(each.get("target") or "") for each in service.raw.get("volumes") or () if isinstance(each, Mapping)]
    return [place for place in (*in_memory(service), *volumes) if place.startswith("/")]


def in_memory(service: Service) -> list[str]:
    """Return where a service's containers have memory for a file system: empty at every start."""
    given = service.raw.get("tmpfs") or ()
    found = [str(each).partition(":")[0] for each in ([given] if isinstance(given, str) else given)]
    volumes = [each for each in service.raw.get("volumes") or () if isinstance(each, Mapping)]
    return [*found, *(str(each.get("target")) for each in volumes if each.get("type") == "tmpfs")]


def listening(text: str, *, named: bool) -> Listening:
    """Return what the script printed. Of configurations that nobody `named`, the one counts that fits the process.

    >>> text = "\\036title *:6380\\n\\036config /a.conf\\nport 6379\\n\\036config /b.conf\\nport 6380\\n"
    >>> listening(text, named=False)
    Listening(port='6380', socket='', settings={'port': '6380'})
    """
    titles: set[str] = set()
    configs: list[dict[str, str]] = []
    for section in scripts.sections(text):
        if section.name == "title":
            titles.add(section.about)
        else:
            pairs = (line.split(None, 1) for line in section.body.splitlines() if line.strip())
            configs.append({pair[0]: pair[-1].strip().strip("\"'") for pair in pairs})
    # Where the processes of the whole machine are seen, nothing says which of several is the one.
    title = _TITLE.fullmatch(titles.pop()) if len(titles) == 1 else None
    port, socket = (title["port"] or "", title["socket"] or "") if title else ("", "")
    if named:
        return Listening(port, socket, {key: value for each in configs for key, value in each.items()})
    fitting = (config for config in configs if port in (config.get("port", _USUAL), config.get("tls-port")))
    return Listening(port, socket, next(fitting, {}))


def connection(shown: Traits, found: Listening = Listening()) -> list[str]:
    """Return the options by which a server is reached from inside, as healthcheck, command or it itself has them.

    >>> connection(Traits(probe="redis-cli -p 6380 --tls --cacert /ca.crt ping"))
    ['-p', '6380', '--tls', '--cacert', '/ca.crt']
    """

    def setting(name: str) -> str:
        return option(shown, f"--{name}") or found.settings.get(name, "")

    probed = _probed(shown)
    if "-p" in probed or "-s" in probed:
        return probed
    port, tls_port = setting("port"), setting("tls-port")
    socket = found.socket or (setting("unixsocket") if port == "0" else "")
    if socket.startswith("/"):
        return ["-s", socket]
    if tls_port.isdecimal() and ("--tls" in probed or port == "0"):
        # The kind tls checks the certificate.
        tls = [] if "--tls" in probed else ["--tls", "--insecure"]
        certificate, key = setting("tls-cert-file"), setting("tls-key-file")
        # By default it requires a certificate of its clients.
        needed = certificate and key and setting("tls-auth-clients") != "no" and "--cert" not in probed
        return [*probed, *tls, *(["--cert", certificate, "--key", key] if needed else []), "-p", tls_port]
    numbers = (option(shown, "--port"), found.port, found.settings.get("port", ""))
    number = next((each for each in numbers if each.isdecimal() and each != "0"), _USUAL)
    return probed if number == _USUAL else [*probed, "-p", number]


def _probed(shown: Traits) -> list[str]:
    try:
        words: Sequence[str] = shlex.split(shown.healthcheck)
    except ValueError:
        words = []
    found: list[str] = []
    if any(PurePosixPath(word).name.endswith("-cli") for word in words):
        for word, value in zip(words, [*words[1:], ""], strict=True):
            if word in _OPTIONS_WITH_A_WORD and value and "$" not in value:
                found += [word, value]
            elif word in _OPTIONS:
                found.append(word)
    return found


def option(shown: Traits, name: str) -> str:
    """Return the value of an option on the command line, "" where it is not there."""
    return next((value for word, value in zip(shown.argv, shown.argv[1:], strict=False) if word == name), "")
