"""Well-known programs whose volumes hold data that cannot be made again, and that have no kind of their own."""

from __future__ import annotations

import re

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


# Where programs keep data by custom; the rest of /var/lib is state too, caches are elsewhere.
_PLACES = re.compile(
    r"^(/var/lib/(?!apt|dpkg|apk|docker/tmp)|/var/opt/|/var/www/.*/(data|files|uploads?)|/bitnami|/data/db|/srv/data|"
    r"(/root|/home/[^/]+)/\.(?!cache|npm|yarn|gradle|m2|cargo|local/share/pnpm))|"
    r"/(media|uploads?|attachments|backups?|pgdata|storage|database|wal|git)(/|$)",
    re.IGNORECASE,
)
_NAMES = re.compile(
    r"(^|[-_.])(data|db|database|pgdata|\w+data|\w+db|media|uploads?|attachments|files|backups?|storage|state)($|[-_.])",
    re.IGNORECASE,
)
_VARIABLES = re.compile(r"^(PGDATA|POSTGRES_INITDB_ARGS|MYSQL_ROOT_PASSWORD|MARIADB_ROOT_PASSWORD|MONGO_INITDB_\w+)$")


def looks_like_data(service: Service, volume: str, target: str) -> str:
    """Return why a volume of a service of unknown kind may hold data that cannot be made again; "" for no reason.

    >>> looks_like_data(Service("web", "acme/web"), "uploads", "/app/uploads")
    'by its place /app/uploads'
    >>> looks_like_data(Service("web", "acme/web"), "node_modules", "/app/node_modules")
    ''
    """
    if _PLACES.search(target):
        return f"by its place {target}"
    if _NAMES.search(volume):
        return f"by its name {volume}"
    telling = next((name for name in service.environment if _VARIABLES.match(name)), "")
    variables = service.environment
    alone = "POSTGRES_PASSWORD" in variables and not any(name.endswith("HOST") for name in variables)
    telling = telling or ("POSTGRES_PASSWORD" if alone else "")
    return f"by the variable {telling} of {service.name}" if telling else ""


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
