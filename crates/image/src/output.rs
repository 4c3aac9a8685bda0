//! Where an image goes that needs no network: an OCI layout folder or tar, a docker-archive.
