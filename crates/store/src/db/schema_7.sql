-- Whether a blob was parsed and is a NAR within the limits. 0 says only that nobody has looked: no segment tells it,
-- and who publishes the blob as a NAR parses it then.
ALTER TABLE blobs ADD COLUMN nar INTEGER NOT NULL DEFAULT 0;
