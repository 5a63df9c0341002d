//! Messages of `google.protobuf` that stand for a value.

use thalweg_core::Value;

/// What a message stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WellKnown {
    /// Seconds and nanoseconds since 1970.
    Timestamp,
    /// Seconds and nanoseconds.
    Duration,
    /// Its one field: wrappers, and the fields of a `Struct` or a `ListValue`.
    Field,
    /// Whichever of its fields is there.
    Value,
}

impl WellKnown {
    /// What the message type of this name stands for, if it has as many fields as it should.
    pub(super) fn of(name: &str, fields: usize) -> Option<Self> {
        match (name.strip_prefix("google.protobuf.")?, fields) {
            ("Timestamp", 2) => Some(Self::Timestamp),
            ("Duration", 2) => Some(Self::Duration),
            ("Struct" | "ListValue", 1) => Some(Self::Field),
            ("DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value", 1) => Some(Self::Field),
            ("UInt32Value" | "BoolValue" | "StringValue" | "BytesValue", 1) => Some(Self::Field),
            ("Value", 6) => Some(Self::Value),
            _ => None,
        }
    }

    /// The value of a message with these fields.
    pub(super) fn value(self, fields: Vec<Value>) -> Result<Value, String> {
        let mut fields = fields.into_iter();
        let mut whole = || match fields.next() {
            Some(Value::Int(number)) => number,
            _ => 0,
        };
        match self {
            Self::Timestamp => {
                let (seconds, nanos) = (whole(), whole());
                let micros = seconds.checked_mul(1_000_000);
                let micros = micros.and_then(|micros| micros.checked_add(nanos.div_euclid(1000)));
                let far = || format!("the time {seconds} is further away than 64 bits of microseconds");
                micros.map(Value::Time).ok_or_else(far)
            }
            Self::Duration => Ok(Value::Float(whole() as f64 + whole() as f64 / 1e9)),
            Self::Field => Ok(fields.next().unwrap_or_default()),
            // The first one says that it is null.
            Self::Value => Ok(fields.skip(1).find(|value| !matches!(value, Value::Null)).unwrap_or_default()),
        }
    }
}
