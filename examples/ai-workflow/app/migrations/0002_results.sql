ALTER TABLE tasks
    ADD COLUMN result jsonb,
    ADD COLUMN finished_at timestamptz,
    ADD CONSTRAINT tasks_state CHECK (state IN ('queued', 'done'));
