//! Values to bytes and back.

use serde::{Serialize, de::DeserializeOwned};
use thalweg_core::{Error, Result};

/// Appends to a vector.
struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends the encoding of a value.
///
/// Errors: the type cannot be encoded (a sequence of unknown length): the user's fault.
#[inline]
pub(crate) fn encode_value<V: Serialize>(store: &str, value: &V, out: &mut Vec<u8>) -> Result<()> {
    postcard::serialize_with_flavor(value, Append(out))
        .map_err(|error| Error::user("state-value", format!("store {store:?}: a value cannot be encoded: {error}")))
}

/// The inverse; all bytes have to be used.
pub(crate) fn decode_value<V: DeserializeOwned>(store: &str, bytes: &[u8]) -> Result<V> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(undecodable(store, format!("{} bytes are left over", rest.len()))),
        Err(error) => Err(undecodable(store, error.to_string())),
    }
}

fn undecodable(store: &str, why: String) -> Error {
    Error::user(
        "state-value",
        format!(
            "store {store:?}: a stored value is not of the operator's type ({why}); has the type changed without its shape?"
        ),
    )
}
