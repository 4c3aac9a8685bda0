-- Times are the database's own (rule 10); `_ms` is milliseconds since 1970.
-- Foreign keys restrict and never cascade. Ids that others may remember are AUTOINCREMENT: never used
-- again, so that a collector may ask for what was published since its mark by `id > mark` (rule 6).

-- `condemnations` grows with every change that takes a valid chunk away or puts another frame in its
-- place: who has looked chunks up outside the writer learns by it whether to look again.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('condemnations', 0), ('segment_at', 0);

CREATE TABLE domains (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE caches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    domain INTEGER NOT NULL REFERENCES domains (id) ON DELETE RESTRICT,
    config BLOB NOT NULL
) STRICT;

-- A row stands before its file is made. `durable_length`: what is synced; `sealed_length` 0: no trailer yet.
CREATE TABLE packs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    domain INTEGER NOT NULL REFERENCES domains (id) ON DELETE RESTRICT,
    name TEXT NOT NULL UNIQUE,
    durable_length INTEGER NOT NULL DEFAULT 0,
    sealed_length INTEGER NOT NULL DEFAULT 0,
    chunks INTEGER NOT NULL DEFAULT 0,
    raw_bytes INTEGER NOT NULL DEFAULT 0,
    frame_bytes INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;
CREATE INDEX packs_open ON packs (id) WHERE sealed_length = 0;

-- state: 1 valid, 2 condemned.
CREATE TABLE chunks (
    domain INTEGER NOT NULL REFERENCES domains (id) ON DELETE RESTRICT,
    id BLOB NOT NULL,
    pack INTEGER NOT NULL REFERENCES packs (id) ON DELETE RESTRICT,
    "offset" INTEGER NOT NULL,
    frame_length INTEGER NOT NULL,
    raw_length INTEGER NOT NULL,
    encoder INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    state INTEGER NOT NULL,
    PRIMARY KEY (domain, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX chunks_by_pack ON chunks (pack, "offset");

CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token TEXT NOT NULL UNIQUE,
    cache INTEGER NOT NULL REFERENCES caches (id) ON DELETE RESTRICT,
    domain INTEGER NOT NULL REFERENCES domains (id) ON DELETE RESTRICT,
    expires_at_ms INTEGER NOT NULL
) STRICT;

-- Chunks a session relies on (rule 5), in batches: `chunks` is ids of 32 bytes back to back.
CREATE TABLE pins (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL REFERENCES sessions (id) ON DELETE RESTRICT,
    domain INTEGER NOT NULL REFERENCES domains (id) ON DELETE RESTRICT,
    chunks BLOB NOT NULL
) STRICT;
CREATE INDEX pins_by_session ON pins (session);

CREATE TABLE blobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    domain INTEGER NOT NULL REFERENCES domains (id) ON DELETE RESTRICT,
    list_id BLOB NOT NULL,
    chunks INTEGER NOT NULL,
    identity_sha256 BLOB NOT NULL,
    identity_length INTEGER NOT NULL,
    zstd_sha256 BLOB NOT NULL,
    zstd_length INTEGER NOT NULL,
    gzip_sha256 BLOB,
    gzip_length INTEGER,
    lease_until_ms INTEGER NOT NULL,
    UNIQUE (domain, list_id)
) STRICT;
CREATE INDEX blobs_by_identity ON blobs (identity_sha256, domain);
CREATE INDEX blobs_by_zstd ON blobs (zstd_sha256, domain);
CREATE INDEX blobs_by_gzip ON blobs (gzip_sha256, domain) WHERE gzip_sha256 IS NOT NULL;

-- Chunk lists, apart from the rows that are looked at more often.
CREATE TABLE blob_lists (
    blob INTEGER PRIMARY KEY REFERENCES blobs (id) ON DELETE RESTRICT,
    list BLOB NOT NULL
) STRICT;

-- What segments have not been told yet, in the order of publication. Its positions are the entries'
-- sequence numbers. what: 1 cache (subject), 2 cache deleted (name), 3 frames (subject pack, [first, last)),
-- 4 pack sealed (subject), 5 blob (subject), 6 entry (subject = position), 7 entry deleted (name cache, kind first, key).
CREATE TABLE log (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    what INTEGER NOT NULL,
    subject INTEGER NOT NULL DEFAULT 0,
    first INTEGER NOT NULL DEFAULT 0,
    last INTEGER NOT NULL DEFAULT 0,
    name TEXT,
    key TEXT,
    at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;

-- An entry published again gets a new sequence.
CREATE TABLE entries (
    sequence INTEGER PRIMARY KEY,
    cache INTEGER NOT NULL REFERENCES caches (id) ON DELETE RESTRICT,
    kind INTEGER NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    created_at INTEGER NOT NULL DEFAULT (unixepoch()),
    lease_until_ms INTEGER,
    UNIQUE (cache, kind, key)
) STRICT;

CREATE TABLE entry_blobs (
    entry INTEGER NOT NULL REFERENCES entries (sequence) ON DELETE RESTRICT,
    position INTEGER NOT NULL,
    blob INTEGER NOT NULL REFERENCES blobs (id) ON DELETE RESTRICT,
    PRIMARY KEY (entry, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_blobs_by_blob ON entry_blobs (blob);
