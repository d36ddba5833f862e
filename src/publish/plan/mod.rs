//! From a tree to the layers that it becomes, before anything is packed: which entries, in which layer, in which order.
//!
//! `survey` looks over the tree once; `files`, `whole`, `diff` and `foreign` plan its layers, by the kind of the artifact. Everything is
//! decided by the tree (and, for an edit, by the tree that it began with) alone: no clock, no machine, no registry.

pub(super) mod diff;
pub(super) mod files;
pub(super) mod foreign;
pub(super) mod groups;
pub(super) mod identity;
pub(super) mod ignore;
pub(super) mod layers;
pub(super) mod parents;
pub(super) mod path_set;
pub(super) mod survey;
pub(super) mod whole;
