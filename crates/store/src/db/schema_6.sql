-- Bytes on their way in as parts, in any order, for what is made of them once they are whole. Each part is a
-- file below `staged/`, durable before it has its row. `key`: what nobody else may stage meanwhile; absent once
-- it has ended, when its files go before its rows. `note` is its beginner's. A cache may go before it.
CREATE TABLE staged (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token TEXT NOT NULL UNIQUE,
    cache INTEGER NOT NULL,
    owner TEXT NOT NULL,
    key TEXT,
    note BLOB NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    UNIQUE (cache, key)
) STRICT;
CREATE INDEX staged_by_owner ON staged (cache, owner);

CREATE TABLE staged_parts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    staged INTEGER NOT NULL REFERENCES staged (id) ON DELETE RESTRICT,
    name TEXT NOT NULL,
    file TEXT NOT NULL,
    length INTEGER NOT NULL,
    UNIQUE (staged, name)
) STRICT;

-- What was looked for and how that went, the newest of it; written in batches. `owner` is whose it is, `detail`
-- the services' own.
CREATE TABLE lookups (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cache INTEGER NOT NULL,
    owner TEXT NOT NULL,
    at INTEGER NOT NULL,
    detail BLOB NOT NULL
) STRICT;
CREATE INDEX lookups_by_owner ON lookups (cache, owner, id);
