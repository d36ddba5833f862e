//! Opens an overlay: fetches the artifacts that its rows refer to and cleans up leftovers of a killed process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use super::attributes::access_times::AccessTimes;
use super::bytes::lower::Blobs;
use super::bytes::table::Table;
use super::freeze::renumber::renumber;
use super::names::base::Base;
use super::names::removed::Removed;
use super::names::trees::Trees;
use super::{GENERATIONS, Overlay};
use crate::artifact::ViewMode;
use crate::error::{Error, ErrorKind};
use crate::oci::Repository;
use crate::staging::Upper;
use crate::view::Context;

impl Overlay {
    /// Lays an upper over its tree. Fetches the trees that it refers to; finds nodes again by path if the
    /// tree's numbers changed.
    ///
    /// # Errors
    /// Errors of fetching an artifact or reading the database.
    pub async fn open(context: &Context, upper: impl Into<Arc<Upper>>) -> Result<Arc<Self>, Error> {
        let upper = upper.into();
        let name = upper.tag_key().repository;
        let repository = Repository::parse(&name)
            .map_err(|error| Error::new(ErrorKind::Invalid, format!("staged edits belong to {}: {error}", name.escape_debug())))?;
        let binding = upper.binding();
        let mut wanted = upper.manifests()?;
        wanted.extend(binding.under.into_iter().chain(binding.expected));
        let mut artifacts = HashMap::new();
        for digest in wanted {
            artifacts.insert(digest, context.artifacts.artifact(&repository, &digest, ViewMode::Merged, context.meaning.strict).await?);
        }
        renumber(&upper, &artifacts)?;
        let base = Base::new(binding.under.and_then(|digest| artifacts.get(&digest).cloned()));
        upper.rows().each_node(&mut |key, _| {
            base.mark(key);
            Ok(())
        })?;
        let overlay = Self {
            upper,
            base,
            trees: Trees::new(artifacts.into_values()),
            blobs: Blobs { artifacts: context.artifacts.clone(), repository, strict: context.meaning.strict },
            table: Table::default(),
            names: Mutex::new(()),
            freeze_lock: RwLock::new(()),
            filler: Arc::default(),
            is_filling: AtomicBool::new(false),
            writers: AtomicU64::new(0),
            epoch: AtomicU64::new(1),
            generations: Arc::new(Semaphore::new(GENERATIONS as usize)),
            access_times: AccessTimes::default(),
            pins: OnceLock::new(),
            removed: Removed::default(),
        };
        Ok(Arc::new(overlay))
    }
}
