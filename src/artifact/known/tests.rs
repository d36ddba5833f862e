//! What was seen, against a registry in memory: requests, freshness, outages, offline use.
