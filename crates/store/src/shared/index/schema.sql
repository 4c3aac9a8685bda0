-- What the live segments of a store without a server tell. Made anew whenever it is in doubt.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- state: 1 live (in the tables below), 2 covered by others, 3 refused.
CREATE TABLE segments (
    name   TEXT PRIMARY KEY,
    state  INTEGER NOT NULL,
    signer BLOB,
    size   INTEGER NOT NULL,
    bytes  BLOB
);

-- All that the place showed at the last refresh.
CREATE TABLE listing (
    name TEXT PRIMARY KEY
) WITHOUT ROWID;

CREATE TABLE covers (
    segment TEXT NOT NULL,
    covered TEXT NOT NULL,
    dropped INTEGER NOT NULL,
    PRIMARY KEY (segment, covered)
) WITHOUT ROWID;

CREATE TABLE packs (
    id     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE,
    length INTEGER NOT NULL
);

CREATE TABLE frames (
    chunk        BLOB NOT NULL,
    pack         INTEGER NOT NULL,
    "offset"     INTEGER NOT NULL,
    raw_length   INTEGER NOT NULL,
    frame_length INTEGER NOT NULL,
    encoder      INTEGER NOT NULL,
    flags        INTEGER NOT NULL,
    checksum     INTEGER NOT NULL,
    PRIMARY KEY (chunk, pack, "offset")
) WITHOUT ROWID;

CREATE TABLE blobs (
    id          BLOB PRIMARY KEY,
    flags       INTEGER NOT NULL,
    identity    BLOB NOT NULL,
    zstd        BLOB NOT NULL,
    zstd_length INTEGER NOT NULL,
    list        BLOB NOT NULL
);

CREATE TABLE entries (
    cache    TEXT NOT NULL,
    kind     INTEGER NOT NULL,
    key      TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    deleted  INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    value    BLOB NOT NULL,
    blobs    BLOB NOT NULL,
    PRIMARY KEY (cache, kind, key)
);
