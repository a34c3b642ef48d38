//! Uploads over a limit: each refusal names the setting and its value.
//!
//! Must not know: how components are compiled.

use serde_json::json;

use crate::guests::{self, Text};
use crate::support::server::Setup;
use crate::uploads::put;

#[tokio::test]
async fn what_is_too_large_or_too_complex_is_refused_with_setting_and_value() {
    let limits = "[plugin]\nupload_bytes = 20000\nscripting_upload_bytes = 30000\nfunctions_max = 9\nscripting_functions_max = 9";
    let server = Setup::quiet().config(limits).start();
    let body = put(&server, "large", &vec![0; 30_001]).await.expect(413);
    assert_eq!(
        (&body["code"], &body["details"]["limit"]),
        (&json!("PLUGIN_TOO_LARGE"), &json!(30_000)),
        "{body}"
    );
    assert_eq!(body["error"], "the component is larger than 30000 bytes (plugin.scripting_upload_bytes)");
    let head = "(func)".repeat(20);
    let body =
        put(&server, "complex", &guests::guest(&Text { head: &head, ..Text::default() })).await.expect(422);
    let details = &body["details"];
    assert_eq!((&details["reason"], &details["limit"]), (&json!("too_complex"), &json!(9)), "{body}");
    assert!(details["message"].as_str().unwrap().contains("plugin.scripting_functions_max"), "{body}");
}
