"""A stand-in for Ollama, for machines that cannot have the real one. This is not Ollama.

It speaks Ollama's HTTP interface: version, tags, ps, show, pull, delete, copy, blobs, and as much of generate as
loading and unloading a model takes. Its models are a few megabytes of noise, so that a pull takes a moment and its
progress can be watched. What is pulled is kept in $OLLAMA_MODELS, laid out as Ollama does it: manifests/ and blobs/.

Beyond Ollama, so that updates and failures can be tried:

    GET  /v2/<namespace>/<model>/manifests/<tag>   the registry that it pulls from, manifests only
    POST /stand-in/publish {"model": NAME}         that registry gets a new revision of a model: what is installed is
                                                   outdated from then on
    faulty/...                                     models whose pull goes wrong, see FAULTS
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERSION = "0.33.0-stand-in"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
MEGABYTE = 1_000_000
RATE = int(os.environ.get("STANDIN_RATE", str(20 * MEGABYTE)))  # bytes a second of a pull
CHUNK = 64 * 1024
KEEP_ALIVE = timedelta(minutes=5)

# Families, sizes and quantisation as the real models have them; the megabytes are not.
CATALOGUE: dict[str, tuple[str, str, str, float]] = {
    "library/llama2:latest": ("llama", "7B", "Q4_0", 6),
    "library/llama2:7b": ("llama", "7B", "Q4_0", 6),
    "library/llama2:7b-chat": ("llama", "7B", "Q4_0", 6),
    "library/codellama:latest": ("llama", "7B", "Q4_0", 5),
    "library/codellama:7b": ("llama", "7B", "Q4_0", 5),
    "library/mistral:latest": ("llama", "7.2B", "Q4_K_M", 7),
    "library/mistral:7b": ("llama", "7.2B", "Q4_K_M", 7),
    "library/tinyllama:latest": ("llama", "1B", "Q4_0", 1),
    "library/nomic-embed-text:latest": ("nomic-bert", "137M", "F16", 2),
    "faulty/refused:latest": ("llama", "1B", "Q4_0", 1),
    "faulty/error:latest": ("llama", "1B", "Q4_0", 1),
    "faulty/flaky:latest": ("llama", "1B", "Q4_0", 1),
    "faulty/cut:latest": ("llama", "1B", "Q4_0", 1),
    "faulty/corrupt:latest": ("llama", "1B", "Q4_0", 1),
    "faulty/slow:latest": ("llama", "1B", "Q4_0", 1),
}
# What goes wrong with the pull of faulty/<key>.
FAULTS = {
    "refused": "HTTP 500 before any output",
    "error": "an error line half way through the largest layer, every time",
    "flaky": "the same, but the next pull goes on from there and succeeds",
    "cut": "the stream ends half way, without an error and without success",
    "corrupt": "the digest of the largest layer is wrong",
    "slow": "50 kB a second",
}


class ApiError(Exception):
    """An answer `{"error": …}` with an HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class CutError(Exception):
    """The stream ends here, in silence."""


# ---------------------------------------------------------------- names


@dataclass(frozen=True)
class Name:
    """A model's name: [host/][namespace/]model[:tag]. No tag means latest; a different tag is a different model."""

    model: str
    tag: str = "latest"
    namespace: str = "library"
    host: str = ""

    @classmethod
    def parse(cls, text: str) -> Name | None:
        rest, _, tag = text.rpartition(":") if ":" in text.rsplit("/", 1)[-1] else (text, "", "latest")
        parts = rest.split("/")
        if len(parts) > 3:
            return None
        model = parts[-1]
        namespace = parts[-2] if len(parts) > 1 else "library"
        host = parts[0] if len(parts) == 3 else ""
        part = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
        good = (
            re.fullmatch(part, model)
            and re.fullmatch(part, tag)
            and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}", namespace)
            and (not host or re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}", host))
        )
        return cls(model, tag, namespace, host) if good else None

    @property
    def full(self) -> str:
        return f"{self.namespace}/{self.model}:{self.tag}"

    @property
    def short(self) -> str:
        prefix = "" if self.namespace == "library" and not self.host else f"{self.namespace}/"
        return f"{self.host + '/' if self.host else ''}{prefix}{self.model}:{self.tag}"


# ---------------------------------------------------------------- the registry


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Blob:
    media_type: str
    digest: str
    size: int
    content: Callable[[], bytes] = field(compare=False)

    def describe(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Published:
    """A model as the registry has it. The manifest's raw bytes count: their digest is the model's digest."""

    blobs: tuple[Blob, ...]  # the layers, then the configuration
    manifest: bytes


@cache
def publish(full: str, revision: int) -> Published:
    family, parameters, quantisation, megabytes = CATALOGUE[full]
    # llama2 and llama2:7b are one model under two names, as in the real library.
    seed = f"{full.replace(':latest', ':7b')} {revision}".encode()

    def noise() -> bytes:
        return b"GGUF" + hashlib.shake_256(seed).digest(int(megabytes * MEGABYTE))

    def blob(kind: str, content: bytes) -> Blob:
        return Blob(f"application/vnd.ollama.image.{kind}", digest_of(content), len(content), lambda: content)

    weights = noise()
    # Not kept: made again when somebody downloads it.
    model = Blob("application/vnd.ollama.image.model", digest_of(weights), len(weights), noise)
    if full.startswith("faulty/corrupt:"):
        model = replace(model, digest=digest_of(b"something else"))
    layers = (
        model,
        blob("template", b"{{ .System }}\n{{ .Prompt }}\n"),
        blob("license", f"Nothing in this file is a model of the family {family}.\n".encode()),
        blob("params", b'{"stop":["[INST]","[/INST]"]}'),
    )
    config = {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "model_type": parameters,
        "file_type": quantisation,
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    configuration = replace(
        blob("config", json.dumps(config).encode()), media_type="application/vnd.docker.container.image.v1+json"
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": configuration.describe(),
        "layers": [layer.describe() for layer in layers],
    }
    return Published((*layers, configuration), json.dumps(manifest).encode())


# ---------------------------------------------------------------- what is installed


@dataclass(frozen=True)
class Installed:
    name: Name
    manifest: dict[str, Any]
    digest: str  # plain hex, as Ollama reports it
    modified: datetime

    @property
    def blobs(self) -> list[dict[str, Any]]:
        return [*self.manifest["layers"], self.manifest["config"]]

    @property
    def size(self) -> int:
        return sum(blob["size"] for blob in self.blobs)


@dataclass
class Download:
    """One blob on its way. Everyone who pulls it watches the same download; the last one to leave ends it."""

    blob: Blob
    path: Path
    rate: int
    fault: str = ""
    completed: int = 0
    watchers: int = 0
    error: Exception | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)

    @property
    def partial(self) -> Path:
        return self.path.with_name(self.path.name + "-partial")

    def _run(self) -> None:
        try:
            content = self.blob.content()
            with self.partial.open("ab") as file:
                self.completed = begin = file.tell()
                started = time.monotonic()
                while self.completed < len(content):
                    if self.cancelled.is_set():
                        return
                    # A flaky one breaks only when it comes from the start.
                    if self.completed >= len(content) // 2 and self.fault and not (self.fault == "flaky" and begin):
                        raise CutError if self.fault == "cut" else OSError("unexpected EOF")
                    file.write(content[self.completed : self.completed + CHUNK])
                    file.flush()
                    self.completed = min(self.completed + CHUNK, len(content))
                    ahead = (self.completed - begin) / self.rate - (time.monotonic() - started)
                    self.cancelled.wait(max(0.0, ahead))
            self.partial.replace(self.path)
        except Exception as error:  # handed to those who watch
            self.error = error


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.manifests = root / "manifests"
        self.revisions = root / "stand-in.json"
        self.lock = threading.RLock()
        self.downloads: dict[str, Download] = {}
        self.loaded: dict[str, datetime] = {}  # name → when it is unloaded
        for folder in (self.blobs, self.manifests):
            folder.mkdir(parents=True, exist_ok=True)
        # As Ollama does at its start: what no model needs goes, half downloads too.
        used = self.used()
        for file in self.blobs.iterdir():
            if file.name.replace("-", ":", 1) not in used:
                file.unlink()

    # the registry's side

    def revision(self, full: str) -> int:
        with suppress(OSError, ValueError):
            return int(json.loads(self.revisions.read_text()).get(full.replace(":latest", ":7b"), 1))
        return 1

    def publish_next(self, name: Name) -> int:
        with self.lock:
            current: dict[str, int] = {}
            with suppress(OSError, ValueError):
                current = json.loads(self.revisions.read_text())
            revision = self.revision(name.full) + 1
            current[name.full.replace(":latest", ":7b")] = revision
            self._write(self.revisions, json.dumps(current).encode())
            return revision

    def published(self, name: Name) -> Published | None:
        return publish(name.full, self.revision(name.full)) if name.full in CATALOGUE and not name.host else None

    # the local side

    def path_of(self, name: Name) -> Path:
        return self.manifests / (name.host or "registry") / name.namespace / name.model / name.tag

    def blob_path(self, digest: str) -> Path:
        if not re.fullmatch(r"sha256[:-][0-9a-f]{64}", digest):
            raise ApiError(400, "invalid digest format")
        return self.blobs / digest.replace(":", "-")

    def installed(self) -> list[Installed]:
        found = []
        for file in self.manifests.glob("*/*/*/*"):
            host, namespace, model, tag = file.relative_to(self.manifests).parts
            if tag.startswith("."):  # being written
                continue
            with suppress(OSError, ValueError):
                raw = file.read_bytes()
                modified = datetime.fromtimestamp(file.stat().st_mtime, UTC)
                name = Name(model, tag, namespace, "" if host == "registry" else host)
                found.append(Installed(name, json.loads(raw), hashlib.sha256(raw).hexdigest(), modified))
        return sorted(found, key=lambda model: model.modified, reverse=True)

    def existing(self, name: Name) -> Name:
        """The name as it is spelt on disk: names differ in more than upper and lower case."""
        return next((model.name for model in self.installed() if model.name.short.lower() == name.short.lower()), name)

    def get(self, name: Name) -> Installed | None:
        name = self.existing(name)
        return next((model for model in self.installed() if model.name == name), None)

    def used(self) -> set[str]:
        return {blob["digest"] for model in self.installed() for blob in model.blobs}

    def write_manifest(self, name: Name, raw: bytes) -> None:
        self._write(self.path_of(name), raw)

    def delete(self, model: Installed) -> None:
        with self.lock:
            self.path_of(model.name).unlink(missing_ok=True)
            self.loaded.pop(model.name.short, None)
            self.remove_unused({blob["digest"] for blob in model.blobs})

    def remove_unused(self, digests: set[str]) -> None:
        with self.lock:
            for digest in digests - self.used():
                self.blob_path(digest).unlink(missing_ok=True)

    def config(self, model: Installed) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found = json.loads(self.blob_path(model.manifest["config"]["digest"]).read_bytes())
            if isinstance(found, dict):
                return found
        return {}

    def download(self, blob: Blob, rate: int, fault: str) -> Generator[Download, None, None]:
        """Yields again and again while the blob is on its way; closing the iterator leaves the download."""
        with self.lock:
            download = self.downloads.get(blob.digest)
            if download is None:
                download = self.downloads[blob.digest] = Download(blob, self.blob_path(blob.digest), rate, fault)
                download.thread.start()
            download.watchers += 1
        try:
            while download.thread.is_alive():
                yield download
                download.thread.join(0.06)
            if download.error is not None:
                raise download.error
            yield download
        finally:
            with self.lock:
                download.watchers -= 1
                if download.watchers == 0:
                    download.cancelled.set()
                    download.thread.join()
                    self.downloads.pop(blob.digest, None)

    def running(self) -> dict[str, datetime]:
        with self.lock:
            now = datetime.now(UTC)
            self.loaded = {name: until for name, until in self.loaded.items() if until > now}
            return dict(self.loaded)

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{threading.get_ident()}")
        new.write_bytes(content)
        new.replace(path)


# ---------------------------------------------------------------- pull


def pull(store: Store, name: Name) -> Generator[dict[str, Any], None, None]:
    """The lines of a pull, as Ollama sends them. Values that are zero are left out."""
    fault = name.model if name.namespace == "faulty" else ""
    if fault == "refused":
        raise ApiError(500, "stand-in: refused, as asked for")
    previous = store.get(name)
    yield {"status": "pulling manifest"}
    if name.host:
        where = f"https://{name.host}/v2/{name.namespace}/{name.model}/manifests/{name.tag}"
        raise ApiError(500, f'pull model manifest: Get "{where}": dial tcp: lookup {name.host}: no such host')
    published = store.published(name)
    if published is None:
        raise ApiError(500, "pull model manifest: file does not exist")

    fresh = []
    for blob in published.blobs:
        line = {"status": f"pulling {blob.digest[7:19]}", "digest": blob.digest, "total": blob.size}
        if store.blob_path(blob.digest).exists():
            yield {**line, "completed": blob.size}
            continue
        fresh.append(blob)
        broken = fault if fault in ("error", "flaky", "cut") and blob.size > CHUNK else ""
        rate = 50_000 if fault == "slow" else RATE
        # Closed when the client leaves, so that the download notices.
        with closing(store.download(blob, rate, broken)) as progress:
            for download in progress:
                yield {**line, "completed": download.completed} if download.completed else line

    yield {"status": "verifying sha256 digest"}
    for blob in fresh:
        path = store.blob_path(blob.digest)
        actual = digest_of(path.read_bytes())
        if actual != blob.digest:
            path.unlink()
            message = f"digest mismatch, file must be downloaded again: want {blob.digest}, got {actual}"
            raise ApiError(500, message)
    yield {"status": "writing manifest"}
    store.write_manifest(name, published.manifest)
    if previous:
        unused = {blob["digest"] for blob in previous.blobs} - store.used()
        if unused:
            yield {"status": "removing unused layers"}
            store.remove_unused(unused)
    yield {"status": "success"}


# ---------------------------------------------------------------- HTTP


def rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def keep_alive(value: object) -> timedelta:
    """Seconds, or a duration such as 5m; negative means for ever."""
    if value is None:
        return KEEP_ALIVE
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        if not re.fullmatch(r"-?(\d+(\.\d+)?(ms|s|m|h))+|0", str(value)):
            raise ApiError(400, f'time: invalid duration "{value}"')
        units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
        found = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", str(value))
        seconds = sum(float(number) * units[unit] for number, unit in found) * (-1 if str(value)[0] == "-" else 1)
    return timedelta(seconds=seconds) if seconds >= 0 else timedelta(days=365 * 100)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"Ollama-stand-in/{VERSION}"
    disable_nagle_algorithm = True
    store: Store

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_DELETE = do_PUT = do_GET

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else b""
        path = self.path.split("?", 1)[0]
        try:
            # Whoever may GET something may ask with HEAD, too.
            method = "GET" if self.command == "HEAD" and "/blobs/" not in path else self.command
            for verb, pattern, handler in ROUTES:
                match = re.fullmatch(pattern, path)
                if verb == method and match:
                    handler(self, *match.groups())
                    return
            self._send(404, b"404 page not found", "text/plain")
        except ApiError as error:
            self._json({"error": str(error)}, error.status)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has left
        except OSError as error:
            self._json({"error": str(error)}, 500)

    # what is asked

    def _request(self) -> dict[str, Any]:
        if not self.body:
            raise ApiError(400, "missing request body")
        try:
            request = json.loads(self.body)
        except ValueError as error:
            raise ApiError(400, f"invalid JSON: {error}") from error
        if not isinstance(request, dict):
            raise ApiError(400, f"json: cannot unmarshal {type(request).__name__} into Go value")
        for key in ("model", "name", "source", "destination"):
            if not isinstance(request.get(key, ""), str):
                raise ApiError(400, f"json: cannot unmarshal {type(request[key]).__name__} into field {key}")
        return request

    @staticmethod
    def _name(text: str, message: str) -> Name:
        name = Name.parse(text)
        if name is None:
            raise ApiError(400, message)
        return name

    def _model(self, request: dict[str, Any], message: str) -> Installed:
        text = request.get("model") or request.get("name") or ""
        model = self.store.get(self._name(text, message.format(text)))
        if model is None:
            raise ApiError(404, f"model '{text}' not found")
        return model

    # what is answered

    def _send(self, status: int, content: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, document: dict[str, Any], status: int = 200) -> None:
        self._send(status, json.dumps(document).encode(), "application/json; charset=utf-8")

    def _stream(self, lines: Generator[dict[str, Any], None, None]) -> None:
        """Lines of JSON as they come. An error before the first line is an HTTP error; afterwards it is a line."""
        with closing(lines):
            line = next(lines)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                self._chunk(line)
                for line in lines:
                    self._chunk(line)
            except (BrokenPipeError, ConnectionResetError):
                raise
            except (ApiError, OSError) as error:
                self._chunk({"error": str(error)})
            except CutError:
                pass
            self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, line: dict[str, Any]) -> None:
        content = json.dumps(line).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    def _details(self, model: Installed) -> dict[str, Any]:
        config = self.store.config(model)
        return {
            "parent_model": "",
            "format": config.get("model_format", ""),
            "family": config.get("model_family", ""),
            "families": config.get("model_families"),
            "parameter_size": config.get("model_type", ""),
            "quantization_level": config.get("file_type", ""),
        }

    def _listed(self, model: Installed) -> dict[str, Any]:
        return {
            "name": model.name.short,
            "model": model.name.short,
            "size": model.size,
            "digest": model.digest,
            "details": self._details(model),
        }

    # the end points

    def root(self) -> None:
        self._send(200, b"Ollama is running", "text/plain; charset=utf-8")

    def version(self) -> None:
        self._json({"version": VERSION})

    def tags(self) -> None:
        models = [{**self._listed(model), "modified_at": rfc3339(model.modified)} for model in self.store.installed()]
        self._json({"models": models})

    def ps(self) -> None:
        running = self.store.running()
        models = [
            {**self._listed(model), "expires_at": rfc3339(running[model.name.short]), "size_vram": 0}
            for model in self.store.installed()
            if model.name.short in running
        ]
        self._json({"models": models})

    def show(self) -> None:
        request = self._request()
        if not (request.get("model") or request.get("name")):
            raise ApiError(400, "model is required")
        model = self._model(request, "invalid model name")
        texts = {}
        for layer in model.manifest["layers"]:
            if layer["size"] < CHUNK:
                texts[layer["mediaType"].rsplit(".", 1)[-1]] = self.store.blob_path(layer["digest"]).read_text()
        details = self._details(model)
        self._json(
            {
                "license": texts.get("license", ""),
                "modelfile": f"# a stand-in's model\nFROM {model.name.short}\n",
                "parameters": texts.get("params", ""),
                "template": texts.get("template", ""),
                "details": details,
                "model_info": {"general.architecture": details["family"], "general.file_type": 2},
                "capabilities": ["embedding" if details["family"] == "nomic-bert" else "completion"],
                "modified_at": rfc3339(model.modified),
            }
        )

    def pull(self) -> None:
        request = self._request()
        name = self._name(request.get("model") or request.get("name") or "", "invalid model name")
        lines = pull(self.store, self.store.existing(name))
        if request.get("stream", True) is not False:
            self._stream(lines)
            return
        last: dict[str, Any] = {}
        try:
            for line in lines:
                last = line
        except CutError:
            pass
        self._json(last)

    def delete(self) -> None:
        model = self._model(self._request(), 'name "{}" is invalid')
        self.store.delete(model)
        self._send(200, b"", "text/plain")

    def copy(self) -> None:
        request = self._request()
        source, destination = (request.get(key, "") for key in ("source", "destination"))
        old = self._name(source, f'source "{source}" is invalid')
        new = self._name(destination, f'destination "{destination}" is invalid')
        with self.store.lock:
            model = self.store.get(old)
            if model is None:
                raise ApiError(404, f'model "{source}" not found')
            raw = self.store.path_of(model.name).read_bytes()
            self.store.write_manifest(self.store.existing(new), raw)
        self._send(200, b"", "text/plain")

    def head_blob(self, digest: str) -> None:
        if not self.store.blob_path(digest).exists():
            raise ApiError(404, f'blob "{digest}" not found')
        self._send(200, b"", "text/plain")

    def generate(self) -> None:
        """Without a prompt: loads the model, or with keep_alive 0 unloads it. With one: says what it is."""
        request = self._request()
        model = self._model(request, "invalid model name")
        lifetime = keep_alive(request.get("keep_alive"))
        name = model.name.short
        with self.store.lock:
            if lifetime:
                self.store.loaded[name] = datetime.now(UTC) + lifetime
            else:
                self.store.loaded.pop(name, None)
        answer: dict[str, Any] = {"model": name, "created_at": rfc3339(datetime.now(UTC))}
        if not request.get("prompt"):
            reason = "load" if lifetime else "unload"
            self._json({**answer, "response": "", "done": True, "done_reason": reason})
            return
        text = "This is a stand-in for Ollama; no model has seen the prompt."
        last = {**answer, "done": True, "done_reason": "stop", "context": [], "eval_count": len(text.split())}
        if request.get("stream", True) is False:
            self._json({**last, "response": text})
            return
        words = ({**answer, "response": word + " ", "done": False} for word in text.split())
        self._stream(line for part in (words, iter([{**last, "response": ""}])) for line in part)

    # beyond Ollama

    def registry_manifest(self, namespace: str, model: str, tag: str) -> None:
        published = self.store.published(Name(model, tag, namespace))
        if published is None:
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            self._send(404, json.dumps(error).encode(), "application/json")
            return
        digest = digest_of(published.manifest)
        self._send(200, published.manifest, MANIFEST_TYPE, Docker_Content_Digest=digest)

    def publish(self) -> None:
        request = self._request()
        name = self._name(request.get("model", ""), "invalid model name")
        if name.full not in CATALOGUE:
            raise ApiError(404, f"model '{name.short}' not found in the catalogue")
        self._json({"model": name.short, "revision": self.store.publish_next(name)})

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        # The healthcheck asks every few seconds; its lines would bury everything else.
        if self.path != "/api/version":
            super().log_request(code, size)


ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/", Handler.root),
    ("GET", "/api/version", Handler.version),
    ("GET", "/api/tags", Handler.tags),
    ("GET", "/api/ps", Handler.ps),
    ("POST", "/api/show", Handler.show),
    ("POST", "/api/pull", Handler.pull),
    ("DELETE", "/api/delete", Handler.delete),
    ("POST", "/api/copy", Handler.copy),
    ("HEAD", "/api/blobs/([^/]+)", Handler.head_blob),
    ("POST", "/api/generate", Handler.generate),
    ("GET", "/v2/([^/]+)/([^/]+)/manifests/([^/]+)", Handler.registry_manifest),
    ("POST", "/stand-in/publish", Handler.publish),
]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> int:
    Handler.store = Store(Path(os.environ.get("OLLAMA_MODELS", "/models")))
    # As process 1 there is no default reaction to a signal; without this, stopping would take the whole grace period.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host, _, port = os.environ.get("OLLAMA_HOST", "0.0.0.0:11434").rpartition(":")
    server = Server((host, int(port)), Handler)
    print(f"Ollama stand-in {VERSION} listens on {host}:{port}; this is not Ollama", flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
