-- A cache that is being deleted: nobody sees it any more, and its rows go in batches, its own last.
ALTER TABLE caches ADD COLUMN deleting INTEGER NOT NULL DEFAULT 0;
