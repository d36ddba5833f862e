//! Publishing over a registry in memory: what arrives, what is sent, what a failure leaves.

mod files;
mod world;
