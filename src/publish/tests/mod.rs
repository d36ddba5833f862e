//! Publishing to an in-memory registry: what arrives, what is sent, what a failure leaves.

mod comparing;
mod faults;
mod files;
mod fixture;
mod foreign;
mod image;
mod oci_sync;
mod pushing;
mod random;
mod reading;
mod secrecy;
mod tags;
