//! Extractors that check the token of a request before its handler runs.
//!
//! Must not know: how tokens are stored.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::http::answer::error::Error;
use crate::http::request::api_tokens::Scope;
use crate::http::state::HttpState;

/// A scope as a type, so that the signature of a handler names the scope it needs.
pub trait RequiredScope: Send {
    /// The scope the handler needs.
    const SCOPE: Scope;
}

#[derive(Debug, Clone, Copy)]
pub struct Everything;

#[derive(Debug, Clone, Copy)]
pub struct Plugins;

#[derive(Debug, Clone, Copy)]
pub struct Killmails;

impl RequiredScope for Everything {
    const SCOPE: Scope = Scope::Admin;
}

impl RequiredScope for Plugins {
    const SCOPE: Scope = Scope::Plugins;
}

impl RequiredScope for Killmails {
    const SCOPE: Scope = Scope::Killmails;
}

/// Proof that the request has a token with this scope.
#[derive(Debug, Clone, Copy)]
pub struct Authorized<R>(PhantomData<R>);

/// Proof that the request has a token with the scope `admin`.
pub type Admin = Authorized<Everything>;

impl<R: RequiredScope> FromRequestParts<Arc<HttpState>> for Authorized<R> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Error> {
        state.tokens.authorize(parts, R::SCOPE).map(|()| Self(PhantomData))
    }
}
