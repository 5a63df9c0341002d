//! Avro: records in the binary encoding, read with the schema that they were written with.
//!
//! [`AvroWriter`] writes them. There is no reader's schema: a job takes fields by their names, so a field that a writer did not have is absent, as in JSON.

mod decimal;
mod read;
mod schema;
mod write;

use std::sync::Arc;

use thalweg_core::{Shape, Value};

pub use decimal::Decimals;
use read::Reader;
pub(crate) use schema::AvroSchema;
use schema::{Named, Type};
pub use write::AvroWriter;

use super::Fields;
use super::schemas::RecordsOfSchema;

/// Reads the records of one schema.
pub(super) struct AvroRecords {
    schema: Arc<AvroSchema>,
    decimals: Decimals,
    /// Nothing where all fields are wanted.
    wanted: Option<Projections>,
}

/// Which fields of the records at the top are wanted: a union there may have several.
pub(super) struct Projections(Vec<(usize, Projection)>);

/// The wanted fields that a record has, and the place of each of its fields among them.
type Projection = (Arc<Shape>, Vec<Option<usize>>);

impl AvroRecords {
    pub(super) fn new(schema: Arc<AvroSchema>, fields: &Fields, decimals: Decimals) -> Self {
        let wanted = match fields {
            Fields::All => None,
            Fields::Only(names) => Some(Projections::new(&schema, names)),
        };
        Self { schema, decimals, wanted }
    }
}

impl RecordsOfSchema for AvroRecords {
    fn read(&mut self, bytes: &[u8]) -> Result<Value, String> {
        Reader::new(&self.schema, self.decimals, bytes).whole(self.wanted.as_ref())
    }
}

impl Projections {
    fn new(schema: &AvroSchema, names: &[String]) -> Self {
        let tops = match &schema.root {
            Type::Union(branches) => branches.as_slice(),
            root => std::slice::from_ref(root),
        };
        let records = tops.iter().filter_map(|top| match top {
            Type::Named(index) => match schema.named(*index) {
                Named::Record(record) => Some((*index, project(&record.shape, names))),
                Named::Open | Named::Enum(_) | Named::Fixed(..) => None,
            },
            _ => None,
        });
        Self(records.collect())
    }

    fn of(&self, kind: &Type) -> Option<&Projection> {
        let Type::Named(index) = kind else { return None };
        self.0.iter().find(|(own, _)| own == index).map(|(_, projection)| projection)
    }
}

fn project(shape: &Arc<Shape>, names: &[String]) -> Projection {
    let there: Vec<&str> = names.iter().map(String::as_str).filter(|name| shape.index_of(name).is_some()).collect();
    let places = shape.names().iter().map(|name| there.iter().position(|wanted| *wanted == name.as_str())).collect();
    (Shape::new(there), places)
}

#[cfg(test)]
mod tests;
