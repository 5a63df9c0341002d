//! What the keys and values of a store look like, as text: two types with the same shape have the same encoding.

use serde::de::DeserializeOwned;
use serde_reflection::{Tracer, TracerConfig};

/// The shape of a type as serde reads it: field names, types and variants, not the name of its module.
///
/// A type that reads only certain values (a name with a rule, say) cannot be looked into; its name stands for it then.
///
/// ```
/// use thalweg_operators::shape_of;
///
/// #[derive(serde::Deserialize)]
/// struct Total { cents: u64 }
///
/// assert_eq!(shape_of::<u64>(), "U64");
/// assert_eq!(shape_of::<Total>(), r#"{"TYPENAME":"Total"} where {"Total":{"STRUCT":[{"cents":"U64"}]}}"#);
/// ```
pub fn shape_of<T: DeserializeOwned>() -> String {
    trace::<T>().unwrap_or_else(|| std::any::type_name::<T>().to_owned())
}

fn trace<T: DeserializeOwned>() -> Option<String> {
    let mut tracer = Tracer::new(TracerConfig::default());
    let (format, _) = tracer.trace_simple_type::<T>().ok()?;
    let registry = tracer.registry().ok()?;
    let format = serde_json::to_string(&format).ok()?;
    if registry.is_empty() {
        return Some(format.trim_matches('"').to_owned());
    }
    Some(format!("{format} where {}", serde_json::to_string(&registry).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_core::Value;

    #[test]
    fn another_field_is_another_shape_and_another_module_is_not() {
        mod old {
            #[derive(serde::Deserialize)]
            #[allow(dead_code)]
            pub(super) struct Total(Option<u64>);
        }
        #[derive(serde::Deserialize)]
        #[allow(dead_code)]
        struct Total(Option<u64>);
        assert_eq!(shape_of::<old::Total>(), shape_of::<Total>());
        assert_ne!(shape_of::<(String, u64)>(), shape_of::<(String, u32)>());
        assert!(shape_of::<Value>().contains("Float"), "{}", shape_of::<Value>());
    }
}
