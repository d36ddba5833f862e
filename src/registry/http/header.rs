//! Values of the `Authorization` header. Marked sensitive so that nothing prints them; intermediate buffers are wiped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use super::super::credentials::Secret;
use crate::error::{Error, ErrorKind};

/// The header for user name and password.
pub(super) fn basic(user: &str, password: &Secret) -> Result<HeaderValue, Error> {
    let plain = Zeroizing::new(format!("{user}:{}", password.expose()));
    sensitive(&Zeroizing::new(format!("Basic {}", STANDARD.encode(plain.as_bytes()))))
}

/// The header for a token.
pub(super) fn bearer(token: &Secret) -> Result<HeaderValue, Error> {
    sensitive(&Zeroizing::new(format!("Bearer {}", token.expose())))
}

fn sensitive(text: &str) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::from_str(text)
        .map_err(|_| Error::new(ErrorKind::Invalid, "a stored credential contains characters not allowed in a header"))?;
    header.set_sensitive(true);
    Ok(header)
}
