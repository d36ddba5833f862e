//! Plans the layers of a tree before anything is packed: which entries, in which layer, in which order.
//!
//! `survey` examines the tree once; `files`, `whole`, `diff` and `foreign` plan its layers, by the artifact's kind; `guess` does what `files` does
//! during the survey. The tree (and, for an edit, the tree it started from) alone decides: no clock, machine or registry.

pub(super) mod diff;
pub(super) mod files;
pub(super) mod foreign;
pub(super) mod groups;
pub(super) mod guess;
pub(super) mod identity;
pub(super) mod ignore;
pub(super) mod layers;
pub(super) mod parents;
pub(super) mod path_set;
pub(super) mod survey;
pub(super) mod whole;
