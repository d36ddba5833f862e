//! Laying an upper over its tree: the artifacts that its rows refer to are fetched, and what a killed process left is put away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use super::Overlay;
use super::attributes::AccessTimes;
use super::base::Base;
use super::file::Blobs;
use super::removed::Removed;
use super::renumber::{each_row, renumber};
use super::table::Table;
use crate::artifact::ViewMode;
use crate::error::ErrorKind;
use crate::oci::Repository;
use crate::staging::Upper;
use crate::view::{Context, Error};

impl Overlay {
    /// Lays an upper over its tree. Fetches what it needs to know of the trees it refers to; nodes are found again by path if the
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
        each_row(upper.rows(), |key, _| {
            base.mark(key);
            Ok(())
        })?;
        let overlay = Self {
            upper,
            base,
            artifacts: RwLock::new(artifacts),
            blobs: Blobs { artifacts: context.artifacts.clone(), repository, strict: context.meaning.strict },
            table: Table::default(),
            names: Mutex::new(()),
            freeze_lock: RwLock::new(()),
            filler: Arc::default(),
            is_filling: AtomicBool::new(false),
            writers: AtomicU64::new(0),
            epoch: AtomicU64::new(1),
            frozen: Arc::default(),
            access_times: AccessTimes::default(),
            pins: OnceLock::new(),
            removed: Removed::default(),
        };
        Ok(Arc::new(overlay))
    }
}
