//! Message types of Protobuf as they are needed to read records: resolved, with what an absent field is.

use std::collections::BTreeMap;
use std::sync::Arc;

use protobuf::Message;
use protobuf::descriptor::field_descriptor_proto::{Label, Type};
use protobuf::descriptor::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};
use thalweg_core::{Row, Shape, Value};

use super::well_known::WellKnown;

/// Most names that are shown where one is wrong.
const MOST_PROPOSED: usize = 10;

/// The message types of some files.
#[derive(Debug)]
pub(crate) struct MessageTypes {
    pub(super) messages: Vec<MessageType>,
    pub(super) enums: Vec<EnumType>,
    names: BTreeMap<String, usize>,
    /// The message types at the top of the main file, in order.
    main: Vec<usize>,
    hash: u64,
}

/// A type of messages.
#[derive(Debug)]
pub(super) struct MessageType {
    pub(super) fields: Vec<Field>,
    /// Its fields by their numbers, in order.
    numbers: Vec<(u32, usize)>,
    pub(super) layout: Layout,
    pub(super) well_known: Option<WellKnown>,
    /// Whether it is an entry of a map.
    pub(super) is_entry: bool,
    /// The message types in it, in order.
    nested: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) count: Count,
    pub(super) required: bool,
    /// Whether it is not written where it is zero: then nobody can tell whether it was there.
    pub(super) implicit: bool,
    /// Whether its numbers are written behind one tag.
    pub(super) packed: bool,
    /// The other fields of its oneof.
    pub(super) siblings: Vec<usize>,
}

/// How often a field may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    One,
    Many,
    /// A message of a key and a value for each entry.
    Map,
}

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    /// One of [`MessageTypes::enums`].
    Enum(usize),
    Text,
    Bytes,
    /// One of [`MessageTypes::messages`].
    Message(usize),
    /// As `Message`, between two tags.
    Group(usize),
}

/// The names of the numbers of an enum.
#[derive(Debug, Default)]
pub(super) struct EnumType {
    names: BTreeMap<i32, Value>,
    first: Value,
}

/// Which fields a row has, and what those are that a message lacks.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) shape: Arc<Shape>,
    /// For each field of the type, where it is in the row.
    pub(super) places: Vec<Option<usize>>,
    pub(super) absent: Vec<Value>,
}

impl Layout {
    /// With these fields only, in this order, as far as they are there.
    pub(super) fn only(&self, names: &[String]) -> Self {
        let there: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| self.shape.index_of(name).is_some()).collect();
        let place = |name: &str| there.iter().position(|wanted| *wanted == name);
        let places = self.shape.names().iter().map(|name| place(name)).collect();
        let absent = there.iter().filter_map(|name| self.shape.index_of(name)).map(|at| self.absent[at].clone());
        Self { absent: absent.collect(), shape: Shape::new(there.iter().copied()), places }
    }
}

impl EnumType {
    /// The number of a name.
    pub(super) fn number(&self, name: &Value) -> Option<i32> {
        self.names.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
    }

    pub(super) fn name(&self, number: i32) -> Value {
        self.names.get(&number).cloned().unwrap_or(Value::Int(i64::from(number)))
    }
}

impl MessageType {
    /// Its fields in the order of their numbers.
    pub(super) fn in_order(&self) -> impl Iterator<Item = usize> {
        self.numbers.iter().map(|(_, index)| *index)
    }

    pub(super) fn field(&self, number: u32) -> Option<usize> {
        let at = self.numbers.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.numbers[at].1)
    }
}

impl MessageTypes {
    /// Of a compiled set: `protoc --include_imports --descriptor_set_out`.
    ///
    /// Errors: what is wrong with it.
    pub(crate) fn of_set(bytes: &[u8]) -> Result<Self, String> {
        let set = FileDescriptorSet::parse_from_bytes(bytes);
        let set = set.map_err(|error| format!("no compiled set of descriptors: {error}"))?;
        match set.file.is_empty() {
            true => Err("a compiled set of descriptors with nothing in it".to_owned()),
            false => Self::new(&set.file, ""),
        }
    }

    /// Of files, each behind those that it imports; `main` is the name of the one whose messages have indexes.
    pub(super) fn new(files: &[FileDescriptorProto], main: &str) -> Result<Self, String> {
        let mut builder = Builder::default();
        for file in files {
            if !matches!(file.syntax(), "" | "proto2" | "proto3") {
                return Err(format!(
                    "{:?} is written in {:?}, and only proto2 and proto3 are read",
                    file.name(),
                    file.syntax()
                ));
            }
            builder.declare(file, file.name() == main);
        }
        let mut types = Self {
            messages: Vec::new(),
            enums: builder.enums,
            names: builder.messages,
            main: builder.main,
            hash: hash(files),
        };
        for declared in &builder.declared {
            types.messages.push(declared.message(&types, &builder.enum_names)?);
        }
        Ok(types)
    }

    /// A message type by its full name.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        self.names.get(name.trim_start_matches('.')).copied()
    }

    /// What may have been meant by a name that is none.
    pub(crate) fn proposal(&self, name: &str) -> String {
        let all =
            self.names.iter().filter(|(_, index)| !self.messages[**index].is_entry).map(|(name, _)| name.as_str());
        let near = |known: &&str| known.ends_with(&format!(".{name}")) || strsim::jaro(known, name) > 0.8;
        match all.clone().find(near) {
            Some(known) => format!("did you mean {known:?}?"),
            None => {
                let some: Vec<_> = all.filter(|name| !name.starts_with("google.")).take(MOST_PROPOSED).collect();
                format!("its types are {}", some.join(", "))
            }
        }
    }

    /// A message type by the indexes of a record: in the main file, in that message, and so on.
    pub(super) fn indexed(&self, indexes: &[usize]) -> Option<usize> {
        let (first, rest) = indexes.split_first()?;
        let first = *self.main.get(*first)?;
        rest.iter().try_fold(first, |of, index| self.messages[of].nested.get(*index).copied())
    }

    /// The indexes of a message type, as [`indexed`](Self::indexed) takes them; nothing where the main file does not declare it.
    pub(super) fn path_of(&self, message: usize) -> Option<Vec<usize>> {
        self.path_below(&self.main, message)
    }

    fn path_below(&self, declared: &[usize], message: usize) -> Option<Vec<usize>> {
        declared.iter().enumerate().find_map(|(at, index)| {
            if *index == message {
                return Some(vec![at]);
            }
            let rest = self.path_below(&self.messages[*index].nested, message)?;
            Some([&[at], &rest[..]].concat())
        })
    }

    /// Of all that decides how bytes are read.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

fn hash(files: &[FileDescriptorProto]) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for file in files {
        // What can be read can be written.
        hash.update(&file.write_to_bytes().unwrap_or_default());
    }
    hash.digest()
}

#[derive(Default)]
struct Builder<'a> {
    messages: BTreeMap<String, usize>,
    enum_names: BTreeMap<String, usize>,
    enums: Vec<EnumType>,
    declared: Vec<Declared<'a>>,
    main: Vec<usize>,
}

/// A message type whose fields are not resolved yet.
struct Declared<'a> {
    name: String,
    of: &'a DescriptorProto,
    proto3: bool,
    nested: Vec<usize>,
}

impl<'a> Builder<'a> {
    fn declare(&mut self, file: &'a FileDescriptorProto, is_main: bool) {
        let package = file.package();
        for one in &file.enum_type {
            self.declare_enum(package, one);
        }
        for message in &file.message_type {
            let index = self.declare_message(package, message, file.syntax() == "proto3");
            if is_main {
                self.main.push(index);
            }
        }
    }

    fn declare_enum(&mut self, within: &str, of: &'a EnumDescriptorProto) {
        let mut names = BTreeMap::new();
        for value in &of.value {
            names.entry(value.number()).or_insert_with(|| Value::from(value.name()));
        }
        let first = of.value.first().map_or(Value::Int(0), |value| Value::from(value.name()));
        self.enum_names.insert(full_name(within, of.name()), self.enums.len());
        self.enums.push(EnumType { names, first });
    }

    fn declare_message(&mut self, within: &str, of: &'a DescriptorProto, proto3: bool) -> usize {
        let (name, index) = (full_name(within, of.name()), self.declared.len());
        self.messages.insert(name.clone(), index);
        self.declared.push(Declared { name: name.clone(), of, proto3, nested: Vec::new() });
        for one in &of.enum_type {
            self.declare_enum(&name, one);
        }
        let nested = of.nested_type.iter().map(|nested| self.declare_message(&name, nested, proto3)).collect();
        self.declared[index].nested = nested;
        index
    }
}

fn full_name(within: &str, name: &str) -> String {
    match within {
        "" => name.to_owned(),
        within => format!("{within}.{name}"),
    }
}

impl Declared<'_> {
    fn message(&self, types: &MessageTypes, enums: &BTreeMap<String, usize>) -> Result<MessageType, String> {
        let mut fields = Vec::new();
        let mut absent = Vec::new();
        for field in &self.of.field {
            let within = |why: String| format!("{}, field {:?}: {why}", self.name, field.name());
            let kind = kind(field, types, enums).map_err(within)?;
            let count = match (field.label(), kind) {
                (Label::LABEL_REPEATED, Kind::Message(_)) if self.is_entry_of(field) => Count::Map,
                (Label::LABEL_REPEATED, _) => Count::Many,
                _ => Count::One,
            };
            absent.push(self.absent(field, kind, count, &types.enums));
            let required = field.label() == Label::LABEL_REQUIRED;
            let number = field.number() as u32;
            let (implicit, packed) = (self.is_implicit(field), self.is_packed(field, kind));
            fields.push(Field { number, kind, count, required, implicit, packed, siblings: self.siblings(field) });
        }
        let mut numbers: Vec<(u32, usize)> =
            self.of.field.iter().enumerate().map(|(at, field)| (field.number() as u32, at)).collect();
        numbers.sort_unstable();
        let shape = Shape::new(self.of.field.iter().map(FieldDescriptorProto::name));
        let places = (0..fields.len()).map(Some).collect();
        Ok(MessageType {
            well_known: WellKnown::of(&self.name, fields.len()),
            fields,
            numbers,
            layout: Layout { shape, places, absent },
            is_entry: self.of.options.map_entry(),
            nested: self.nested.clone(),
        })
    }

    /// Whether a field is a map: its entries are messages that are declared in this one.
    fn is_entry_of(&self, field: &FieldDescriptorProto) -> bool {
        let name = field.type_name().rsplit('.').next().unwrap_or_default();
        self.of.nested_type.iter().any(|nested| nested.name() == name && nested.options.map_entry())
    }

    fn siblings(&self, field: &FieldDescriptorProto) -> Vec<usize> {
        let Some(oneof) = field.oneof_index else { return Vec::new() };
        let others = self.of.field.iter().enumerate();
        let others = others.filter(|(_, other)| other.oneof_index == Some(oneof) && other.number() != field.number());
        others.map(|(at, _)| at).collect()
    }

    fn is_implicit(&self, field: &FieldDescriptorProto) -> bool {
        self.proto3 && field.oneof_index.is_none() && !field.proto3_optional()
    }

    /// Only numbers can be; those of proto3 are, where nothing else is said.
    fn is_packed(&self, field: &FieldDescriptorProto, kind: Kind) -> bool {
        let can_be = !matches!(kind, Kind::Text | Kind::Bytes | Kind::Message(_) | Kind::Group(_));
        can_be && field.options.packed.unwrap_or(self.proto3)
    }

    /// What a field is that a message does not have.
    fn absent(&self, field: &FieldDescriptorProto, kind: Kind, count: Count, enums: &[EnumType]) -> Value {
        let implicit = self.of.options.map_entry() || self.is_implicit(field);
        match (count, kind) {
            (Count::Many, _) => Value::List(Box::default()),
            (Count::Map, _) => Value::Row(Row::new(Shape::new(std::iter::empty::<&str>()), Vec::new())),
            (Count::One, Kind::Message(_) | Kind::Group(_)) => Value::Null,
            (Count::One, kind) if implicit => zero(kind, enums),
            (Count::One, kind) => field.default_value.as_deref().map_or(Value::Null, |text| default(kind, text)),
        }
    }
}

fn kind(field: &FieldDescriptorProto, types: &MessageTypes, enums: &BTreeMap<String, usize>) -> Result<Kind, String> {
    let Some(Ok(of)) = field.type_.map(|of| of.enum_value()) else { return Err("it has no type".to_owned()) };
    let unknown =
        || format!("the type {:?} is named, and is not there; was it compiled with its imports?", field.type_name());
    let message = || types.named(field.type_name()).ok_or_else(unknown);
    Ok(match of {
        Type::TYPE_DOUBLE => Kind::Double,
        Type::TYPE_FLOAT => Kind::Float,
        Type::TYPE_INT64 => Kind::Int64,
        Type::TYPE_UINT64 => Kind::Uint64,
        Type::TYPE_INT32 => Kind::Int32,
        Type::TYPE_FIXED64 => Kind::Fixed64,
        Type::TYPE_FIXED32 => Kind::Fixed32,
        Type::TYPE_BOOL => Kind::Bool,
        Type::TYPE_STRING => Kind::Text,
        Type::TYPE_GROUP => Kind::Group(message()?),
        Type::TYPE_MESSAGE => Kind::Message(message()?),
        Type::TYPE_BYTES => Kind::Bytes,
        Type::TYPE_UINT32 => Kind::Uint32,
        Type::TYPE_ENUM => Kind::Enum(*enums.get(field.type_name().trim_start_matches('.')).ok_or_else(unknown)?),
        Type::TYPE_SFIXED32 => Kind::Sfixed32,
        Type::TYPE_SFIXED64 => Kind::Sfixed64,
        Type::TYPE_SINT32 => Kind::Sint32,
        Type::TYPE_SINT64 => Kind::Sint64,
    })
}

fn zero(kind: Kind, enums: &[EnumType]) -> Value {
    match kind {
        Kind::Double | Kind::Float => Value::Float(0.0),
        Kind::Bool => Value::Bool(false),
        Kind::Enum(index) => enums[index].first.clone(),
        Kind::Text | Kind::Bytes => Value::from(""),
        Kind::Message(_) | Kind::Group(_) => Value::Null,
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Sint32 | Kind::Sint64 => Value::Int(0),
        Kind::Fixed32 | Kind::Fixed64 | Kind::Sfixed32 | Kind::Sfixed64 => Value::Int(0),
    }
}

/// A default of proto2, as it is written in a descriptor; those of bytes are not filled in.
fn default(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Double | Kind::Float => text.parse().map_or(Value::Null, Value::Float),
        Kind::Bool => Value::Bool(text == "true"),
        Kind::Enum(_) | Kind::Text => Value::from(text),
        Kind::Bytes | Kind::Message(_) | Kind::Group(_) => Value::Null,
        Kind::Uint64 | Kind::Fixed64 => text.parse().map_or(Value::Null, unsigned),
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Sint32 | Kind::Sint64 => {
            text.parse().map_or(Value::Null, Value::Int)
        }
        Kind::Fixed32 | Kind::Sfixed32 | Kind::Sfixed64 => text.parse().map_or(Value::Null, Value::Int),
    }
}

/// As JSON does it: what does not fit is the nearest number of 64 bits of floating point.
pub(super) fn unsigned(number: u64) -> Value {
    i64::try_from(number).map_or(Value::Float(number as f64), Value::Int)
}
