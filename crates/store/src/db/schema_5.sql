-- Uploads that their clients may go on with after a restart. An upload is a session, which pins what is
-- stored of it (rule 5); the chunks so far, in order; and the bytes behind the last of them.
CREATE TABLE uploads (
    session INTEGER PRIMARY KEY REFERENCES sessions (id) ON DELETE RESTRICT,
    cache INTEGER NOT NULL REFERENCES caches (id) ON DELETE RESTRICT,
    owner TEXT NOT NULL,
    tail BLOB NOT NULL
) STRICT;
CREATE INDEX uploads_by_cache ON uploads (cache);

-- `chunks`: id (32 bytes) and raw length (4 bytes, little-endian) of each, back to back.
CREATE TABLE upload_chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    upload INTEGER NOT NULL REFERENCES uploads (session) ON DELETE RESTRICT,
    chunks BLOB NOT NULL
) STRICT;
CREATE INDEX upload_chunks_by_upload ON upload_chunks (upload);
