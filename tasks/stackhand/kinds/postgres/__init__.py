"""Postgres and PgBouncer: roles, rights, logins, indexes, migrations."""
