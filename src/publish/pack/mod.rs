//! From a plan to layers: `produce` reuses layers of the registry and of earlier attempts, and packs and sends the rest; `jobs` yields the entries
//! of each layer, `layer` packs one, `sealed` encrypts it, `store` keeps it until it is sent.

pub(super) mod jobs;
pub(super) mod layer;
pub(super) mod made;
pub(super) mod packs;
pub(super) mod produce;
pub(super) mod sealed;
pub(super) mod store;
