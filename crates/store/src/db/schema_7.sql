-- Whether a blob was parsed and is a NAR within the limits. 0 says only that nobody has looked: no segment tells it,
-- and who publishes the blob as a NAR parses it then.
ALTER TABLE blobs ADD COLUMN nar INTEGER NOT NULL DEFAULT 0;
-- A cache that is being deleted: nobody sees it any more, and its rows go in batches, its own last.
ALTER TABLE caches ADD COLUMN deleting INTEGER NOT NULL DEFAULT 0;
