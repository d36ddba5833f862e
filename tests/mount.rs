//! End-to-end tests: the built binary, real registries, real artifacts, the kernel in between.

#[path = "mount/access.rs"]
mod access;
#[path = "mount/access_order.rs"]
mod access_order;
#[path = "mount/archives.rs"]
mod archives;
#[path = "mount/attached_index.rs"]
mod attached_index;
#[path = "mount/backups.rs"]
mod backups;
#[path = "mount/bad_archives.rs"]
mod bad_archives;
#[path = "mount/bad_blobs.rs"]
mod bad_blobs;
#[path = "mount/bad_keys.rs"]
mod bad_keys;
#[path = "mount/bad_manifests.rs"]
mod bad_manifests;
#[path = "mount/bad_names.rs"]
mod bad_names;
#[path = "mount/bad_sources.rs"]
mod bad_sources;
#[path = "mount/caching.rs"]
mod caching;
#[path = "mount/cases.rs"]
mod cases;
#[path = "mount/commands.rs"]
mod commands;
#[path = "mount/containers.rs"]
mod containers;
#[path = "mount/copying.rs"]
mod copying;
#[path = "mount/crashes.rs"]
mod crashes;
#[path = "mount/credentials.rs"]
mod credentials;
#[path = "mount/deleting.rs"]
mod deleting;
#[path = "mount/doctor.rs"]
mod doctor;
#[path = "mount/everyday_tools.rs"]
mod everyday_tools;
#[path = "mount/fixtures.rs"]
mod fixtures;
#[path = "mount/harness.rs"]
mod harness;
#[path = "mount/hints.rs"]
mod hints;
#[path = "mount/interop.rs"]
mod interop;
#[path = "mount/lifecycle.rs"]
mod lifecycle;
#[path = "mount/listing.rs"]
mod listing;
#[path = "mount/logins.rs"]
mod logins;
#[path = "mount/made_here.rs"]
mod made_here;
#[path = "mount/mirrors.rs"]
mod mirrors;
#[path = "mount/model.rs"]
mod model;
#[path = "mount/mount_helper.rs"]
mod mount_helper;
#[path = "mount/mount_points.rs"]
mod mount_points;
#[path = "mount/namespaces.rs"]
mod namespaces;
#[path = "mount/native_reads.rs"]
mod native_reads;
#[path = "mount/outages.rs"]
mod outages;
#[path = "mount/packs.rs"]
mod packs;
#[path = "mount/path_references.rs"]
mod path_references;
#[path = "mount/publishing.rs"]
mod publishing;
#[path = "mount/publishing_faults.rs"]
mod publishing_faults;
#[path = "mount/pull_caching.rs"]
mod pull_caching;
#[path = "mount/pulling.rs"]
mod pulling;
#[path = "mount/pushed_index.rs"]
mod pushed_index;
#[path = "mount/pushing.rs"]
mod pushing;
#[path = "mount/raw_objects.rs"]
mod raw_objects;
#[path = "mount/requests.rs"]
mod requests;
#[path = "mount/restarts.rs"]
mod restarts;
#[path = "mount/secrecy.rs"]
mod secrecy;
#[path = "mount/serving.rs"]
mod serving;
#[path = "mount/serving_clients.rs"]
mod serving_clients;
#[path = "mount/serving_crashes.rs"]
mod serving_crashes;
#[path = "mount/shortcuts.rs"]
mod shortcuts;
#[path = "mount/slips.rs"]
mod slips;
#[path = "mount/sources.rs"]
mod sources;
#[path = "mount/staging_faults.rs"]
mod staging_faults;
#[path = "mount/strangers.rs"]
mod strangers;
#[path = "mount/suites.rs"]
mod suites;
mod support;
#[path = "mount/tables.rs"]
mod tables;
#[path = "mount/tags.rs"]
mod tags;
#[path = "mount/unprivileged.rs"]
mod unprivileged;
#[path = "mount/verification.rs"]
mod verification;
#[path = "mount/writing.rs"]
mod writing;
