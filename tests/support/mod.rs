//! Shared by the integration tests: real registries, a proxy that counts and corrupts requests, fixture layouts, hand-made artifacts, and mounts by
//! the built binary. Everything started here ends when its value is dropped, even if the test fails.

pub mod artifacts;
pub mod commands;
pub mod folding;
pub mod layouts;
pub mod mounting;
pub mod proxy;
pub mod refusal;
pub mod registry;
pub mod shell;
pub mod skip;
pub mod tokens;

use std::sync::OnceLock;

/// Whether tests with a long mode should use it (`scripts/check --long`).
pub fn is_long() -> bool {
    std::env::var_os("OCIFS_LONG").is_some_and(|long| long == "1")
}

/// The runtime of the servers inside the test process (proxy, token server) and of the uploader.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// A credential file with one login, as `docker login` and `podman login` write it.
pub fn stored_login(key: &str, user: &str, password: &str) -> String {
    use base64::Engine;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    serde_json::json!({ "auths": { key: { "auth": auth } } }).to_string()
}
