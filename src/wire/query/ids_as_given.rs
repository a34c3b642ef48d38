//! The ids of a request, written back as the client gave them.
//!
//! Must not know: which parameter they belong to.

use serde::ser::{Serialize, SerializeSeq, Serializer};
use serde_json::Number;

use crate::wire::query::parameters::{RequestedId, RequestedIds};

/// Writes ids as the client gave them, as far as JSON numbers allow.
pub struct IdsAsGiven<'a>(pub &'a RequestedIds);

impl Serialize for IdsAsGiven<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for id in self.0.iter() {
            match id {
                RequestedId::Id(id) => list.serialize_element(&id)?,
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "an integer larger than any id is echoed approximately"
                )]
                RequestedId::Impossible(number) => match Number::from_i128(number) {
                    Some(number) => list.serialize_element(&number)?,
                    None => list.serialize_element(&(number as f64))?,
                },
            }
        }
        list.end()
    }
}
