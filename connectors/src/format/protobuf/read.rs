//! The binary encoding of Protobuf, straight into values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thalweg_core::{Row, Shape, Value};

use super::descriptor::{Count, Field, Kind, Layout, MessageType, MessageTypes, unsigned};
use crate::format::take;

/// How deep messages may stand in each other.
const MAX_DEPTH: usize = 100;
/// Most values in one record, and how many more for each of its bytes: those that are absent count, too.
const MAX_VALUES: (usize, usize) = (1 << 16, 64);
/// Most values in any record.
const MOST_VALUES: usize = 4 << 20;

type Read<T> = Result<T, String>;

/// What stands behind a tag.
#[derive(Clone, Copy)]
enum Payload<'a> {
    Varint(u64),
    Four([u8; 4]),
    Eight([u8; 8]),
    Bytes(&'a [u8]),
    /// Between the tags of a group.
    Group(&'a [u8]),
}

/// Reads one record.
pub(super) struct Reader<'t> {
    types: &'t MessageTypes,
    depth: usize,
    values: usize,
    most: usize,
}

/// A message while it is read.
struct Open<'t, 'a> {
    of: &'t MessageType,
    layout: &'t Layout,
    values: Vec<Value>,
    lists: Vec<(usize, Vec<Value>)>,
    maps: Vec<(usize, BTreeMap<String, Value>)>,
    /// The bytes of messages that are there once: where one comes twice it is both of them together.
    messages: Vec<(usize, Cow<'a, [u8]>)>,
    required: Vec<usize>,
}

impl<'t> Reader<'t> {
    /// For a record of so many bytes.
    pub(super) fn new(types: &'t MessageTypes, bytes: usize) -> Self {
        let most = MAX_VALUES.0.saturating_add(bytes.saturating_mul(MAX_VALUES.1)).min(MOST_VALUES);
        Self { types, depth: 0, values: 0, most }
    }

    /// A message of the type with this index, with all of its fields.
    pub(super) fn message(&mut self, index: usize, bytes: &[u8]) -> Read<Value> {
        let of = &self.types.messages[index];
        let values = self.fields(of, &of.layout, bytes)?;
        match of.well_known {
            Some(well_known) => well_known.value(values),
            None => Ok(Value::Row(Row::new(of.layout.shape.clone(), values))),
        }
    }

    /// A message with the fields of a layout.
    pub(super) fn some_fields(&mut self, index: usize, layout: &Layout, bytes: &[u8]) -> Read<Value> {
        let values = self.fields(&self.types.messages[index], layout, bytes)?;
        Ok(Value::Row(Row::new(layout.shape.clone(), values)))
    }

    fn fields(&mut self, of: &'t MessageType, layout: &Layout, bytes: &[u8]) -> Read<Vec<Value>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("messages stand more than {MAX_DEPTH} deep in each other"));
        }
        self.count(1 + layout.absent.len())?;
        let mut open = Open::new(of, layout);
        let mut input = Input { bytes, at: 0 };
        while let Some((number, payload)) = input.field()? {
            let Some(index) = of.field(number) else { continue };
            let field = &of.fields[index];
            let named = |why: String| format!("field {:?}: {why}", of.layout.shape.names()[index].as_str());
            self.put(&mut open, index, field, payload).map_err(named)?;
        }
        let values = self.close(open)?;
        self.depth -= 1;
        Ok(values)
    }

    fn count(&mut self, values: usize) -> Read<()> {
        self.values += values;
        match self.values > self.most {
            true => Err(format!("it holds more than {} values", self.most)),
            false => Ok(()),
        }
    }

    /// Adds what was found of a field. What is written in another way than the type says is passed over, as an unknown field is.
    fn put<'a>(&mut self, open: &mut Open<'_, 'a>, index: usize, field: &Field, payload: Payload<'a>) -> Read<()> {
        let place = open.layout.places[index];
        match (field.count, field.kind, payload) {
            (Count::One, Kind::Message(_), Payload::Bytes(bytes))
            | (Count::One, Kind::Group(_), Payload::Group(bytes)) => {
                open.found(index, field);
                if place.is_some() {
                    open.merge(index, bytes);
                }
            }
            (Count::One, kind, payload) => {
                let Some(value) = self.single(kind, payload)? else { return Ok(()) };
                open.found(index, field);
                if let Some(place) = place {
                    open.values[place] = value;
                }
            }
            (Count::Map, Kind::Message(entry), Payload::Bytes(bytes)) => {
                let Some(place) = place else { return Ok(()) };
                self.count(1)?;
                let (key, value) = self.entry(entry, bytes)?;
                slot(&mut open.maps, place).insert(key, value);
            }
            (Count::Map, ..) => {}
            (Count::Many, kind, payload) => {
                let Some(place) = place else { return Ok(()) };
                self.count(1)?;
                let value = match (kind, payload) {
                    (Kind::Message(of), Payload::Bytes(bytes)) | (Kind::Group(of), Payload::Group(bytes)) => {
                        Some(self.message(of, bytes)?)
                    }
                    (Kind::Text | Kind::Bytes, payload) => self.single(kind, payload)?,
                    (kind, Payload::Bytes(bytes)) => return self.packed(kind, bytes, slot(&mut open.lists, place)),
                    (kind, payload) => self.single(kind, payload)?,
                };
                slot(&mut open.lists, place).extend(value);
            }
        }
        Ok(())
    }

    fn packed(&mut self, kind: Kind, bytes: &[u8], list: &mut Vec<Value>) -> Read<()> {
        let mut input = Input { bytes, at: 0 };
        while input.at < bytes.len() {
            self.count(1)?;
            let payload = match kind {
                Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Payload::Eight(input.array()?),
                Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Payload::Four(input.array()?),
                _ => Payload::Varint(input.varint()?),
            };
            match self.single(kind, payload)? {
                Some(value) => list.push(value),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// The key, as text, and the value of an entry of a map.
    fn entry(&mut self, index: usize, bytes: &[u8]) -> Read<(String, Value)> {
        let of = &self.types.messages[index];
        let mut values = self.fields(of, &of.layout, bytes)?.into_iter();
        let (key, value) = (values.next().unwrap_or_default(), values.next().unwrap_or_default());
        let value = match (value, of.fields.get(1).map(|field| field.kind)) {
            // An entry without a value has an empty message.
            (Value::Null, Some(Kind::Message(of))) => self.message(of, &[])?,
            (value, _) => value,
        };
        match key {
            Value::Str(text) => Ok((text.to_string(), value)),
            other => Ok((other.to_string(), value)),
        }
    }

    /// A value that is no message; nothing where it is written in another way than the type says.
    fn single(&self, kind: Kind, payload: Payload<'_>) -> Read<Option<Value>> {
        Ok(Some(match (kind, payload) {
            (Kind::Double, Payload::Eight(bytes)) => Value::Float(f64::from_le_bytes(bytes)),
            (Kind::Float, Payload::Four(bytes)) => Value::Float(f64::from(f32::from_le_bytes(bytes))),
            (Kind::Int32, Payload::Varint(number)) => Value::Int(i64::from(number as i32)),
            (Kind::Int64, Payload::Varint(number)) => Value::Int(number as i64),
            (Kind::Uint32, Payload::Varint(number)) => Value::Int(i64::from(number as u32)),
            (Kind::Uint64, Payload::Varint(number)) => unsigned(number),
            (Kind::Sint32, Payload::Varint(number)) => {
                let number = number as u32;
                Value::Int(i64::from((number >> 1) as i32 ^ -((number & 1) as i32)))
            }
            (Kind::Sint64, Payload::Varint(number)) => Value::Int((number >> 1) as i64 ^ -((number & 1) as i64)),
            (Kind::Fixed32, Payload::Four(bytes)) => Value::Int(i64::from(u32::from_le_bytes(bytes))),
            (Kind::Sfixed32, Payload::Four(bytes)) => Value::Int(i64::from(i32::from_le_bytes(bytes))),
            (Kind::Fixed64, Payload::Eight(bytes)) => unsigned(u64::from_le_bytes(bytes)),
            (Kind::Sfixed64, Payload::Eight(bytes)) => Value::Int(i64::from_le_bytes(bytes)),
            (Kind::Bool, Payload::Varint(number)) => Value::Bool(number != 0),
            (Kind::Enum(index), Payload::Varint(number)) => self.types.enums[index].name(number as i32),
            (Kind::Text, Payload::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Value::from(text),
                Err(error) => return Err(format!("not UTF-8 at byte {} of the text", error.valid_up_to())),
            },
            (Kind::Bytes, Payload::Bytes(bytes)) => Value::from(STANDARD.encode(bytes).as_str()),
            _ => return Ok(None),
        }))
    }

    fn close(&mut self, mut open: Open<'_, '_>) -> Read<Vec<Value>> {
        if let Some(lacking) = open.required.first() {
            return Err(format!(
                "the field {:?} is required, and not there",
                open.of.layout.shape.names()[*lacking].as_str()
            ));
        }
        for (place, list) in open.lists {
            open.values[place] = Value::List(list.into());
        }
        for (place, map) in open.maps {
            let (names, values): (Vec<String>, Vec<Value>) = map.into_iter().unzip();
            open.values[place] = Value::Row(Row::new(Shape::new(names), values));
        }
        for (index, bytes) in &open.messages {
            if let (Some(place), Kind::Message(of) | Kind::Group(of)) =
                (open.layout.places[*index], open.of.fields[*index].kind)
            {
                open.values[place] = self.message(of, bytes)?;
            }
        }
        Ok(open.values)
    }
}

impl<'t, 'a> Open<'t, 'a> {
    fn new(of: &'t MessageType, layout: &'t Layout) -> Self {
        let required = of.fields.iter().enumerate().filter(|(_, field)| field.required);
        Self {
            of,
            layout,
            values: layout.absent.clone(),
            lists: Vec::new(),
            maps: Vec::new(),
            messages: Vec::new(),
            required: required.map(|(index, _)| index).collect(),
        }
    }

    /// A field is there: then it is not missing, and no other field of its oneof is there any more.
    fn found(&mut self, index: usize, field: &Field) {
        self.required.retain(|required| *required != index);
        for sibling in &field.siblings {
            self.messages.retain(|(other, _)| other != sibling);
            if let Some(place) = self.layout.places[*sibling] {
                self.values[place] = self.layout.absent[place].clone();
            }
        }
    }

    fn merge(&mut self, index: usize, bytes: &'a [u8]) {
        match self.messages.iter_mut().find(|(known, _)| *known == index) {
            Some((_, known)) => known.to_mut().extend_from_slice(bytes),
            None => self.messages.push((index, Cow::Borrowed(bytes))),
        }
    }
}

fn slot<T: Default>(slots: &mut Vec<(usize, T)>, place: usize) -> &mut T {
    let at = slots.iter().position(|(known, _)| *known == place).unwrap_or_else(|| {
        slots.push((place, T::default()));
        slots.len() - 1
    });
    &mut slots[at].1
}

/// Bytes with the place up to which they are read.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// The next field; nothing at the end.
    fn field(&mut self) -> Read<Option<(u32, Payload<'a>)>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let at = self.at;
        let (number, wire) = self.tag()?;
        let payload = match wire {
            3 => Payload::Group(self.group(number)?),
            4 => return Err(format!("a group ends at byte {at} that has not begun")),
            wire => self.payload(wire)?,
        };
        Ok(Some((number, payload)))
    }

    fn tag(&mut self) -> Read<(u32, u8)> {
        let (at, tag) = (self.at, self.varint()?);
        match u32::try_from(tag >> 3) {
            Ok(number @ 1..=0x1fff_ffff) => Ok((number, (tag & 7) as u8)),
            _ => Err(format!("the tag at byte {at} is none; was it written with another schema?")),
        }
    }

    fn payload(&mut self, wire: u8) -> Read<Payload<'a>> {
        match wire {
            0 => self.varint().map(Payload::Varint),
            1 => self.array().map(Payload::Eight),
            2 => {
                let length = self.varint()?;
                self.take(usize::try_from(length).unwrap_or(usize::MAX)).map(Payload::Bytes)
            }
            5 => self.array().map(Payload::Four),
            other => {
                Err(format!("wire type {other} before byte {} is none; was it written with another schema?", self.at))
            }
        }
    }

    /// Up to the tag that ends the group, which is passed over.
    fn group(&mut self, number: u32) -> Read<&'a [u8]> {
        let (start, mut open) = (self.at, vec![number]);
        loop {
            let end = self.at;
            match self.tag()? {
                (number, 3) if open.len() < MAX_DEPTH => open.push(number),
                (_, 3) => return Err(format!("groups stand more than {MAX_DEPTH} deep in each other")),
                (number, 4) if open.pop() != Some(number) => {
                    return Err(format!("a group ends at byte {end} that has not begun"));
                }
                (_, 4) if open.is_empty() => return Ok(&self.bytes[start..end]),
                (_, 4) => {}
                (_, wire) => drop(self.payload(wire)?),
            }
        }
    }

    fn varint(&mut self) -> Read<u64> {
        let (number, length) = varint(&self.bytes[self.at..]).map_err(|why| format!("byte {}: {why}", self.at))?;
        self.at += length;
        Ok(number)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many were taken"))
    }

    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        take(self.bytes, &mut self.at, count)
    }
}

/// A number, seven bits a byte, the lowest first; and how many bytes it takes.
pub(super) fn varint(bytes: &[u8]) -> Read<(u64, usize)> {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7f);
        if index == 9 && part > 1 {
            break;
        }
        number |= part << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((number, index + 1));
        }
    }
    match bytes.len() {
        0..10 => Err("the bytes end within a number".to_owned()),
        _ => Err("a number of more than 64 bits".to_owned()),
    }
}
