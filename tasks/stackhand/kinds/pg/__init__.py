"""What the kinds postgres and pgbouncer are made of: asking and acting with psql, roles, rights, indexes, pools."""
