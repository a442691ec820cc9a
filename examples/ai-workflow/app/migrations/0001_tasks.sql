CREATE TABLE tasks (
    id uuid PRIMARY KEY,
    text text NOT NULL,
    state text NOT NULL DEFAULT 'queued',
    created_at timestamptz NOT NULL DEFAULT now()
);
