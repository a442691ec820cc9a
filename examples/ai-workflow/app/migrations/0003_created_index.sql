-- migrate: no transaction
CREATE INDEX CONCURRENTLY tasks_created_at ON tasks (created_at DESC);
