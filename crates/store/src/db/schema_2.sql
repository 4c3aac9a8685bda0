-- Collection. `state`: 1 in use, 2 being deleted, its file first. `condemned_at_ms`: when a chunk that lay in
-- the pack last ceased to be valid there. `chunks`, `raw_bytes` and `frame_bytes` are of valid chunks only.
ALTER TABLE packs ADD COLUMN state INTEGER NOT NULL DEFAULT 1;
ALTER TABLE packs ADD COLUMN condemned_at_ms INTEGER;

CREATE INDEX entries_leased ON entries (lease_until_ms) WHERE lease_until_ms IS NOT NULL;

-- What the segments of the last compaction hold: records, and bytes.
INSERT INTO meta VALUES ('compacted_records', 0), ('compacted_bytes', 0);
