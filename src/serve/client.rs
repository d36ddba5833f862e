//! The client of a request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Response;
use http_body::{Frame, SizeHint};

use super::passing::Login;

/// The client: a user of the htpasswd file, a user the upstream accepted, or anonymous.
#[derive(Clone, Default)]
pub(super) struct Client {
    pub(super) user: Option<String>,
    /// Set where logins are passed on; anonymous clients have one too if they may read.
    pub(super) login: Option<Arc<Login>>,
}

impl Client {
    /// The user's name; `None` if anonymous.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// A response to this client. Its login is kept until the last byte is sent, so that expiry does not cut off a long response.
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
