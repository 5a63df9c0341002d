//! The binary encoding of Avro, straight into values.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thalweg_core::{Row, Shape, Value};

use super::Decimals;
use super::decimal;
use super::schema::{AvroSchema, Named, Number, Octets, Record, Type};
use crate::format::take;

/// How deep values may stand in each other: a type may hold itself.
const MAX_DEPTH: usize = 128;
/// Most values in one record, and how many more for each of its bytes: some values take none.
const MAX_VALUES: (usize, usize) = (1 << 16, 4);

/// Reads one record.
pub(super) struct Reader<'a> {
    schema: &'a AvroSchema,
    decimals: Decimals,
    bytes: &'a [u8],
    /// Where it is in the bytes.
    at: usize,
    depth: usize,
    values: usize,
}

type Read<T> = Result<T, String>;

impl<'a> Reader<'a> {
    pub(super) fn new(schema: &'a AvroSchema, decimals: Decimals, bytes: &'a [u8]) -> Self {
        Self { schema, decimals, bytes, at: 0, depth: 0, values: 0 }
    }

    /// The record, with these fields only where some are named; then it has to be a row.
    pub(super) fn whole(mut self, wanted: Option<&super::Projections>) -> Read<Value> {
        let value = match wanted {
            None => self.value(&self.schema.root)?,
            Some(projections) => {
                let index = match &self.schema.root {
                    Type::Union(branches) => self.branch(branches)?,
                    root => root,
                };
                let (Type::Named(index), Some(projection)) = (index, projections.of(index)) else {
                    return Err("not an Avro record, so it has no fields to look at".to_owned());
                };
                match self.schema.named(*index) {
                    Named::Record(record) => self.some_fields(record, &projection.0, &projection.1)?,
                    Named::Open | Named::Enum(_) | Named::Fixed(..) => Value::Null,
                }
            }
        };
        match self.bytes.len() - self.at {
            0 => Ok(value),
            rest => Err(format!("{rest} bytes stand behind the record; was it written with another schema?")),
        }
    }

    fn value(&mut self, kind: &Type) -> Read<Value> {
        self.enter()?;
        let value = match kind {
            Type::Null => Value::Null,
            Type::Bool => Value::Bool(self.bool()?),
            Type::Int(meaning, _) => number(self.long()?, *meaning)?,
            Type::Float => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            Type::Double => Value::Float(f64::from_le_bytes(self.array()?)),
            Type::Bytes(meaning) => octets(self.block()?, *meaning, self.decimals)?,
            Type::Text => Value::from(self.text()?),
            Type::Array(items) => {
                let mut list = Vec::new();
                self.blocks(|reader| {
                    list.push(reader.value(items)?);
                    Ok(())
                })?;
                Value::List(list.into())
            }
            Type::Map(values) => {
                let mut entries = BTreeMap::new();
                self.blocks(|reader| {
                    let key = reader.text()?;
                    entries.insert(key, reader.value(values)?);
                    Ok(())
                })?;
                let (names, values): (Vec<&str>, Vec<Value>) = entries.into_iter().unzip();
                Value::Row(Row::new(Shape::new(names), values))
            }
            Type::Union(branches) => {
                let branch = self.branch(branches)?;
                self.value(branch)?
            }
            Type::Named(index) => match self.schema.named(*index) {
                Named::Record(record) => {
                    let values = record.fields.iter().map(|field| self.value(field));
                    Value::Row(Row::new(record.shape.clone(), values.collect::<Read<_>>()?))
                }
                Named::Enum(symbols) => self.symbol(symbols)?,
                Named::Fixed(size, meaning) => octets(self.take(*size)?, *meaning, self.decimals)?,
                Named::Open => Value::Null,
            },
        };
        self.depth -= 1;
        Ok(value)
    }

    fn some_fields(&mut self, record: &Record, shape: &Arc<Shape>, places: &[Option<usize>]) -> Read<Value> {
        self.enter()?;
        let mut values = vec![Value::Null; shape.names().len()];
        for (field, place) in record.fields.iter().zip(places) {
            match place {
                Some(place) => values[*place] = self.value(field)?,
                None => self.skip(field)?,
            }
        }
        self.depth -= 1;
        Ok(Value::Row(Row::new(shape.clone(), values)))
    }

    fn skip(&mut self, kind: &Type) -> Read<()> {
        self.enter()?;
        match kind {
            Type::Null => {}
            Type::Bool => drop(self.bool()?),
            Type::Int(..) => drop(self.long()?),
            Type::Float => drop(self.take(4)?),
            Type::Double => drop(self.take(8)?),
            Type::Bytes(_) | Type::Text => drop(self.block()?),
            Type::Array(items) => self.blocks(|reader| reader.skip(items))?,
            Type::Map(values) => self.blocks(|reader| {
                reader.block()?;
                reader.skip(values)
            })?,
            Type::Union(branches) => {
                let branch = self.branch(branches)?;
                self.skip(branch)?;
            }
            Type::Named(index) => match self.schema.named(*index) {
                Named::Record(record) => record.fields.iter().try_for_each(|field| self.skip(field))?,
                Named::Enum(symbols) => drop(self.symbol(symbols)?),
                Named::Fixed(size, _) => drop(self.take(*size)?),
                Named::Open => {}
            },
        }
        self.depth -= 1;
        Ok(())
    }

    /// Before each value: what is too deep or too many is refused before it is there.
    fn enter(&mut self) -> Read<()> {
        self.depth += 1;
        self.values += 1;
        let most = MAX_VALUES.0.saturating_add(self.bytes.len().saturating_mul(MAX_VALUES.1));
        match (self.depth > MAX_DEPTH, self.values > most) {
            (true, _) => Err(format!("values stand more than {MAX_DEPTH} deep in each other")),
            (_, true) => Err(format!("its {} bytes hold more than {most} values", self.bytes.len())),
            _ => Ok(()),
        }
    }

    /// The items of an array or a map, which come in blocks, up to an empty one.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Read<()>) -> Read<()> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // A block that can be passed over says how long it is.
                self.length()?;
            }
            for _ in 0..count.unsigned_abs() {
                item(self)?;
            }
        }
    }

    fn branch<'s>(&mut self, branches: &'s [Type]) -> Read<&'s Type> {
        let (at, index) = (self.at, self.long()?);
        let branch = usize::try_from(index).ok().and_then(|index| branches.get(index));
        branch.ok_or_else(|| format!("branch {index} at byte {at}, of a union that has {}", branches.len()))
    }

    fn symbol(&mut self, symbols: &[Value]) -> Read<Value> {
        let (at, index) = (self.at, self.long()?);
        let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
        symbol.cloned().ok_or_else(|| format!("symbol {index} at byte {at}, of an enum that has {}", symbols.len()))
    }

    fn bool(&mut self) -> Read<bool> {
        let at = self.at;
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            other => Err(format!("{} at byte {at} is no boolean", other[0])),
        }
    }

    /// Zigzag, seven bits a byte, the lowest first.
    fn long(&mut self) -> Read<i64> {
        let (start, mut number) = (self.at, 0u64);
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err(format!("the number at byte {start} has more than 64 bits"))
    }

    fn length(&mut self) -> Read<usize> {
        let (at, length) = (self.at, self.long()?);
        usize::try_from(length).map_err(|_| format!("the length at byte {at} is {length}"))
    }

    fn block(&mut self) -> Read<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn text(&mut self) -> Read<&'a str> {
        let block = self.block()?;
        let start = self.at - block.len();
        std::str::from_utf8(block).map_err(|error| format!("not UTF-8 at byte {}", start + error.valid_up_to()))
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many were taken"))
    }

    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        take(self.bytes, &mut self.at, count)
    }
}

fn number(number: i64, meaning: Number) -> Read<Value> {
    let time = match meaning {
        Number::Plain => return Ok(Value::Int(number)),
        Number::Days => number.checked_mul(86_400_000_000),
        Number::Millis => number.checked_mul(1000),
        Number::Micros => Some(number),
        Number::Nanos => Some(number.div_euclid(1000)),
    };
    time.map(Value::Time).ok_or_else(|| format!("the time {number} is further away than 64 bits of microseconds"))
}

fn octets(bytes: &[u8], meaning: Octets, decimals: Decimals) -> Read<Value> {
    Ok(match meaning {
        Octets::Plain => Value::from(STANDARD.encode(bytes).as_str()),
        Octets::Decimal(scale) => decimal::value(bytes, scale, decimals)?,
        Octets::Uuid => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
            Value::from(parts.join("-").as_str())
        }
        Octets::Duration => {
            let part = |index: usize| {
                let part = [bytes[index], bytes[index + 1], bytes[index + 2], bytes[index + 3]];
                Value::Int(i64::from(u32::from_le_bytes(part)))
            };
            Value::Row(Row::new(Shape::new(["months", "days", "millis"]), vec![part(0), part(4), part(8)]))
        }
    })
}
