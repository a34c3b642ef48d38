//! Who may do what: bearer tokens, each with its scopes. The one of the data folder (or `API_TOKEN`) may do
//! everything.
//!
//! Must not know: what is done with a right.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::http::answer::error::Error;
use crate::http::request::api_tokens::Scope;
use crate::http::state::HttpState;

/// A scope as a type, so that a route says in its signature what it needs.
pub trait Right: Send {
    /// The scope.
    const SCOPE: Scope;
}

/// Everything.
#[derive(Debug, Clone, Copy)]
pub struct Everything;

/// Plugins.
#[derive(Debug, Clone, Copy)]
pub struct Plugins;

/// Killmails.
#[derive(Debug, Clone, Copy)]
pub struct Killmails;

impl Right for Everything {
    const SCOPE: Scope = Scope::Admin;
}

impl Right for Plugins {
    const SCOPE: Scope = Scope::Plugins;
}

impl Right for Killmails {
    const SCOPE: Scope = Scope::Killmails;
}

/// Proof that the caller has this right.
#[derive(Debug, Clone, Copy)]
pub struct May<R>(PhantomData<R>);

/// Proof that the caller may do everything.
pub type Admin = May<Everything>;

impl<R: Right> FromRequestParts<Arc<HttpState>> for May<R> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<HttpState>) -> Result<Self, Error> {
        door.keys.check(parts, R::SCOPE).map(|()| Self(PhantomData))
    }
}
