//! Who asks, once that is known.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Response;
use http_body::{Frame, SizeHint};

use super::passing::Login;

/// Who asks: a user of the htpasswd file, one whom the upstream knows, or a stranger.
#[derive(Clone, Default)]
pub(super) struct Client {
    pub(super) user: Option<String>,
    /// Where logins are passed on; also that of strangers, where they may read.
    pub(super) login: Option<Arc<Login>>,
}

impl Client {
    /// The user's name; none for a stranger.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// An answer for this client. Its login stays until the last byte is sent, so that a long answer is not cut off when its time is up.
    pub(super) fn hold(&self, response: Response<Body>) -> Response<Body> {
        match &self.login {
            Some(login) => response.map(|body| Body::new(Held { body, _login: Arc::clone(login) })),
            None => response,
        }
    }
}

struct Held {
    body: Body,
    _login: Arc<Login>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
