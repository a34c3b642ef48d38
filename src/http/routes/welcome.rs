//! `GET /`: a page for people who open the address in a browser.
//!
//! Must not know: anything that changes while the server runs, except the number of killmails.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::http::state::HttpState;

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>killstream</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem; color: #1d2430; background: #fbfbfd }
  code { font: 14px/1.4 ui-monospace, monospace; background: #eceef3; padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere }
  dt { font-weight: 600; margin-top: .8rem } dd { margin: 0 }
  a { color: #0b5cad } footer { margin-top: 2.5rem; font-size: 13px; color: #667 }
  @media (prefers-color-scheme: dark) { body { color: #dfe3ea; background: #14171c } code { background: #242a33 } a { color: #7db8f5 } }
</style>
<h1>killstream</h1>
<p>Every EVE Online killmail, stored, searchable and streamed. Version {version}; {killmails} killmails stored.</p>
<dl>
  <dt>History</dt>
  <dd><a href="/api/v1/killmails?limit=5"><code>/api/v1/killmails?limit=5</code></a> the newest five</dd>
  <dd><a href="/api/v1/killmails/count?min_value=1000000000"><code>/api/v1/killmails/count?min_value=1000000000</code></a> worth a billion ISK or more</dd>
  <dd><a href="/api/v1/kills/system/30000142?since_hours=24"><code>/api/v1/kills/system/30000142?since_hours=24</code></a> in Jita, the last day</dd>
  <dt>Streams (server-sent events)</dt>
  <dd><a href="/api/v1/kills/stream"><code>/api/v1/kills/stream</code></a> every killmail as it arrives</dd>
  <dd><a href="/api/v1/kills/stream/enhanced?region_ids=10000002&amp;preload_days=1"><code>/api/v1/kills/stream/enhanced?region_ids=10000002&amp;preload_days=1</code></a>
      the last day of The Forge, then live</dd>
  <dt>Plugins</dt>
  <dd><a href="/api/v1/plugins"><code>/api/v1/plugins</code></a> the plugins of this server</dd>
  <dt>Health</dt>
  <dd><a href="/health"><code>/health</code></a> <a href="/status"><code>/status</code></a> <a href="/metrics"><code>/metrics</code></a>
      <a href="/metrics/prometheus"><code>/metrics/prometheus</code></a></dd>
</dl>
<footer>EVE Online and all its data are property of CCP hf. Killmails by courtesy of zKillboard.</footer>
</html>
"#;

pub async fn page(State(state): State<Arc<HttpState>>) -> impl IntoResponse {
    let killmails = state.store.count().to_string();
    let page = PAGE.replace("{version}", env!("CARGO_PKG_VERSION")).replace("{killmails}", &killmails);
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], page)
}
