"""What a volume surely does not hold, and which programs without a kind of their own are known to hold data."""

from __future__ import annotations

import re
from collections.abc import Collection

from stackhand.checks.traits import traits
from stackhand.engine.compose.project import Service

# Words of image names and of programs. One too many costs disk space, one too few costs data.
STORES = frozenset(
    """
    aerospike arangodb authentik bitwarden cassandra ceph chroma chromadb clickhouse cockroach cockroachdb consul
    couchbase couchdb cratedb dgraph dragonfly dynamodb elasticsearch etcd eventstore ferretdb firebird flowise forgejo
    garage gitea gitlab gogs grafana graphite harbor immich influxdb jenkins kafka keycloak langfuse loki mailserver
    manticore mariadb mariadbd marqo mattermost meilisearch memgraph milvus minio mlflow mongo mongod mongodb mosquitto
    mssql mysql mysqld n8n nats neo4j nexus nextcloud opensearch oracle orientdb paperless percona pocketbase
    prometheus pulsar questdb rabbitmq ravendb redpanda registry rethinkdb rustfs scylla seafile seaweedfs solr
    surrealdb tarantool tidb typesense vault vaultwarden vespa victoria victoriametrics weaviate webui yugabyte
    zookeeper
    """.split()  # noqa: SIM905
)


# Places that hold what a program makes again by itself: build artefacts of packages, caches, scratch space, sockets.
_CACHES = re.compile(
    r"^/(tmp|var/tmp|run|var/run|dev/shm|var/cache)(/|$)|"
    r"/(node_modules|bower_components|__pycache__|\.?venv|\.next|\.nuxt|\.npm|\.yarn|\.pnpm-store|\.gradle|\.m2|"
    r"\.?te?mp|[.\w-]*cache|caches|sockets?)$|"
    r"/(\.cache|\.cargo/registry|cargo/registry|go/pkg/mod|usr/local/bundle|local/share/pnpm)(/|$)",
    re.IGNORECASE,
)
# Static files that a build collects. Some programs keep uploads in such a folder: the volume's name has to say so, too.
_STATIC = re.compile(r"(^|[-_./])(static|static[-_]?files|collected[-_]?static)$", re.IGNORECASE)
# What somebody calls data is data, wherever it is mounted: `data:/tmp/data`.
_DATA = re.compile(
    r"(^|[-_.])(\w*data|\w*db|database|\w*store|media|uploads?|attachments|files|backups?|storage|state|spool)($|[-_.])",
    re.IGNORECASE,
)
# Where programs keep data by custom; only a volume that the compose file itself gives no name is judged by it.
_PLACES = re.compile(
    r"^(/var/(?!(cache|tmp|run|log)(/|$))[^/]+|/data|/config|/srv|/bitnami|/etc|/root|/home|/opt)(/|$)|"
    r"/(data|media|uploads?|attachments|backups?|storage|database|state|git)(/|$)",
    re.IGNORECASE,
)


def surely_cache(volume: str, targets: Collection[str]) -> str:
    """Return why a volume holds nothing that anybody would miss, by all its mount points; "" in any doubt.

    `volume` is its key in the compose file, "" for a volume without a name.

    >>> surely_cache("modules", ["/app/node_modules"])
    'a cache by its place /app/node_modules'
    >>> surely_cache("redis-cache", ["/data"])
    ''
    >>> surely_cache("data", ["/tmp/data"])
    ''
    """
    if not targets or _DATA.search(volume):
        return ""
    plain = sorted(target.rstrip("/") for target in targets)
    if all(_CACHES.search(target) for target in plain):
        return f"a cache by its place {plain[0]}"
    if _STATIC.search(volume) and all(_STATIC.search(target) for target in plain):
        return f"built static files by its name and its place {plain[0]}"
    return ""


def is_data_place(target: str) -> bool:
    """Return whether programs keep data at a place by custom.

    >>> is_data_place("/var/lib/mysql"), is_data_place("/app/generated")
    (True, False)
    """
    return bool(_PLACES.search(target))


def store(service: Service) -> str | None:
    """Return the name by which a service is known to keep data, or None.

    >>> store(Service("db", "mcr.microsoft.com/mssql/server:2022-latest"))
    'mssql'
    """
    built = service.builds and not service.raw.get("image")
    first, _, rest = service.image.partition("@")[0].partition("/")
    # A registry's own name says nothing: registry.example.com/web.
    name = service.name if built else rest if rest and re.search(r"[.:]|^localhost$", first) else f"{first}/{rest}"
    words = {*re.split(r"[-_./:]", name.lower()), *traits(service).programs}
    return min(words & STORES, default=None)
