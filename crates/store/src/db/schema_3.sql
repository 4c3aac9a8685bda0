-- When entries were last used: written in batches, apart from what must last. A row that a crash takes is no
-- harm: the entry then counts as used when it was published. It goes with its entry.
CREATE TABLE uses (
    entry INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL
) STRICT;

-- What retention took away, the newest of it. reason: 1 unused, 2 quota. `kind` and `key` are the entry's.
CREATE TABLE evictions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cache INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    at INTEGER NOT NULL DEFAULT (unixepoch()),
    reason INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    used_at INTEGER NOT NULL
) STRICT;
CREATE INDEX evictions_by_key ON evictions (cache, kind, key);
