-- Chunks whose frames were found damaged, and what was known of these frames: so that the same frame sent again
-- is known for the same, even if the pack has been collected meanwhile. While the row in `chunks` is there, its
-- state is 3.
CREATE TABLE damage (
    domain INTEGER NOT NULL REFERENCES domains (id) ON DELETE RESTRICT,
    chunk BLOB NOT NULL,
    pack INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    frame_length INTEGER NOT NULL,
    raw_length INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    found_by TEXT NOT NULL,
    found_at INTEGER NOT NULL DEFAULT (unixepoch()),
    PRIMARY KEY (domain, chunk)
) STRICT, WITHOUT ROWID;

-- Grows when a chunk that was damaged gets another frame than it had: digests computed meanwhile are of the old.
INSERT INTO meta VALUES ('reframings', 0);

-- Blobs that cannot be served, and so hide the entries that name them (rules 4 and 9). why, a sum: 1 the chunk
-- is damaged, 2 it has another frame than the one that the blob's zstd digest was computed from. A row may
-- outlive its blob, whose id is never used again.
CREATE TABLE broken_blobs (
    blob INTEGER NOT NULL,
    domain INTEGER NOT NULL,
    chunk BLOB NOT NULL,
    why INTEGER NOT NULL,
    PRIMARY KEY (blob, chunk)
) STRICT, WITHOUT ROWID;
CREATE INDEX broken_blobs_by_chunk ON broken_blobs (chunk);

-- How far reading all data has come: all before (pack, offset) was read. `read_bytes`: since it began.
CREATE TABLE scrubs (
    name TEXT PRIMARY KEY,
    pack INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    read_bytes INTEGER NOT NULL,
    started_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT, WITHOUT ROWID;
